// One block of a model: a normalised mixer and a normalised SwiGLU, each added to the residual stream.
//   x' = x + r drop(mixer(rms(x))),   y = x' + r drop(swiglu(rms(x')))
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/config/size.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/layers/attention.hpp>
#include <chimera/layers/mamba2.hpp>
#include <chimera/layers/rg_lru.hpp>
#include <chimera/layers/swiglu.hpp>

#include <boost/hana/for_each.hpp>
#include <boost/hana/tuple.hpp>
#include <boost/hana/type.hpp>

namespace chimera::inline CHIMERA_ABI {

/// The layer behind one word of a pattern.
template <Kind k, class L>
struct Mixer {
  static constexpr Kind kind = k;
  using layer = L;
};

/// All of them. To add a layer: write its file, add it here.
template <const Config& C>
inline constexpr auto mixers = boost::hana::make_tuple(
    Mixer<Kind::attention, Attention<C>>{}, Mixer<Kind::mamba2, Mamba2<C>>{}, Mixer<Kind::rg_lru, RgLru<C>>{});

/// Dropout of one pass; rate 0 outside training. Each branch of the model has its own stream of draws.
struct Dropout {
  float rate = 0.f;
  std::uint64_t seed = 0, stream = 0;

  Dropout branch(std::uint64_t index) const { return {rate, seed, stream + index}; }
  void apply(const Cpu& q, std::int64_t n, float* x) const {
    if (rate > 0.f) dropout(q, n, rate, seed, stream, x);
  }
};

template <const Config& C, class MixerLayer>
struct Block {
  using Mix = MixerLayer;
  using Ffn = SwiGlu<C>;
  static constexpr std::int64_t width = C.width;

  // 1. Weights: a norm, the mixer's, a norm, the SwiGLU's.
  static constexpr std::size_t mixer_at = 1, ffn_norm = mixer_at + Mix::params.size(), ffn_at = ffn_norm + 1;
  static constexpr auto params = [] {
    std::array<Tensor, ffn_at + Ffn::params.size()> all{};
    all[0] = block_norms(C)[0];
    for (std::size_t i = 0; i < Mix::params.size(); ++i) all[mixer_at + i] = Mix::params[i];
    all[ffn_norm] = block_norms(C)[1];
    for (std::size_t i = 0; i < Ffn::params.size(); ++i) all[ffn_at + i] = Ffn::params[i];
    return all;
  }();

  struct Activations {
    float* middle;  // x' [B,T,width]
    typename Mix::Activations mixer;
    typename Ffn::Activations ffn;
  };
  /// middle null: x' is computed in place of x (nothing is kept for backward).
  static Activations bind(Bump& memory, const Batch& batch, bool keep) {
    return {keep ? memory.take(batch.tokens() * width) : nullptr, Mix::bind(memory, batch), Ffn::bind(memory, batch)};
  }
  static std::int64_t temp_floats(const Batch& batch) {
    const std::int64_t x = batch.tokens() * width;
    return floats_of(
        {x, x, x,
         std::max({Mix::temp_floats(batch), Ffn::temp_floats(batch), norm_backward_temp(batch.tokens(), width)})});
  }

  // 2. Forward. y may be x when nothing is kept.
  static void forward(const Cpu& q, Weights<Block> w, const Batch& batch, const float* x, float* y, Activations& a,
                      Dropout drop, Bump temp) {
    const std::int64_t n = batch.tokens() * width;
    float* u = temp.take(n);
    float* middle = a.middle ? a.middle : y;
    if (middle != x) std::copy(x, x + n, middle);
    rms_norm(q, norm(batch), middle, w[0], u);
    add_branch(q, n, middle, drop, temp, [&](float scale, float* out, Bump rest) {
      Mix::forward(q, mixer(w), batch, u, scale, out, a.mixer, rest);
    });
    if (y != middle) std::copy(middle, middle + n, y);
    rms_norm(q, norm(batch), y, w[ffn_norm], u);
    add_branch(q, n, y, drop.branch(1), temp,
               [&](float scale, float* out, Bump rest) { Ffn::forward(q, ffn(w), batch, u, scale, out, a.ffn, rest); });
  }

  // 3. Backward: dx holds the gradient of y and becomes that of x.
  static void backward(const Cpu& q, Weights<Block> w, Weights<Block, float> dw, const Batch& batch, const float* x,
                       float* dx, Activations& a, Dropout drop, Bump temp) {
    const std::int64_t n = batch.tokens() * width;
    float* u = temp.take(n);
    float* du = temp.take(n);
    rms_norm(q, norm(batch), a.middle, w[ffn_norm], u);
    Ffn::backward(q, ffn(w), ffn(dw), batch, u, branch_gradient(q, n, dx, drop.branch(1), temp), C.residual_scale, du,
                  a.ffn, after_gradient(n, drop, temp));
    rms_norm_backward(q, norm(batch), a.middle, w[ffn_norm], du, dx, dw[ffn_norm], temp);
    rms_norm(q, norm(batch), x, w[0], u);
    Mix::backward(q, mixer(w), mixer(dw), batch, u, branch_gradient(q, n, dx, drop, temp), C.residual_scale, du,
                  a.mixer, after_gradient(n, drop, temp));
    rms_norm_backward(q, norm(batch), x, w[0], du, dx, dw[0], temp);
  }

  // 4. Decode: x [rows,width] in place.
  static constexpr std::int64_t state_bytes(KvFormat kv) { return Mix::state_bytes(kv); }
  static std::int64_t decode_floats(std::int64_t rows) {
    return std::max(Mix::decode_floats(rows), Ffn::decode_floats(rows));
  }
  static void decode(const Cpu& q, PackedWeights<Block> w, const Pass& pass, float* x, Bump temp) {
    const auto normed = [&](std::size_t norm) { return NormedRows{x, width, w.vector(norm), C.norm_eps}; };
    Mix::decode(q, {w.tensors + mixer_at}, pass, normed(0), C.residual_scale, x, temp);
    Ffn::decode(q, {w.tensors + ffn_at}, pass, normed(ffn_norm), C.residual_scale, x, temp);
  }

 private:
  static constexpr NormShape norm(const Batch& batch) { return {batch.tokens(), width, width, C.norm_eps}; }

  template <class T>
  static Weights<Mix, T> mixer(Weights<Block, T> w) {
    return {w[mixer_at]};
  }
  template <class T>
  static Weights<Ffn, T> ffn(Weights<Block, T> w) {
    return {w[ffn_at]};
  }

  /// y += residual_scale drop(branch); without dropout the branch adds to y by itself.
  template <class F>
  static void add_branch(const Cpu& q, std::int64_t n, float* y, Dropout drop, Bump temp, F branch) {
    if (drop.rate == 0.f) return branch(C.residual_scale, y, temp);
    float* out = temp.take(n);
    std::fill(out, out + n, 0.f);
    branch(C.residual_scale, out, temp);
    drop.apply(q, n, out);
    add_scaled(q, n, 1.f, out, y);
  }

  /// What the branch's output receives of dy: dy itself, or a dropped-out copy at the start of temp.
  static const float* branch_gradient(const Cpu& q, std::int64_t n, const float* dy, Dropout drop, Bump temp) {
    if (drop.rate == 0.f) return dy;
    float* copy = temp.take(n);
    std::copy(dy, dy + n, copy);
    drop.apply(q, n, copy);
    return copy;
  }
  static Bump after_gradient(std::int64_t n, Dropout drop, Bump temp) {
    if (drop.rate != 0.f) temp.take(n);
    return temp;
  }
};

/// Calls f(hana::type_c<Block<C, L>>) for the layer L of that kind. Kinds that C does not use are never instantiated.
template <const Config& C, class F>
constexpr void with_block(Kind kind, F f) {
  boost::hana::for_each(mixers<C>, [&](auto mixer) {
    using M = decltype(mixer);
    if constexpr (Check<C>::has(M::kind))
      if (kind == M::kind) f(boost::hana::type_c<Block<C, typename M::layer>>);
  });
}

}  // namespace chimera::inline CHIMERA_ABI
