// One block of a model: a normalised mixer and a normalised feed-forward layer, each added to the residual stream.
//   x' = x + r drop(mixer(rms(x))),   y = x' + r drop(ffn(rms(x')))
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/config/size.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// Dropout of one pass; rate 0 outside training. Each branch of the model has its own stream of draws.
struct Dropout {
  float rate = 0.f;
  std::uint64_t seed = 0, stream = 0;

  Dropout branch(std::uint64_t index) const { return {rate, seed, stream + index}; }
  void apply(const Device auto& q, std::int64_t n, float* x) const {
    if (rate > 0.f) dropout(q, n, rate, seed, stream, x);
  }
};

template <const Config& C, class Mix, class Ffn>
struct Block {
  static constexpr std::int64_t width = C.width;

  // 1. Weights: a norm, the mixer's, a norm, the feed-forward layer's.
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
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t x = batch.tokens() * width;
    return bytes_of({x, x, x}) +
           std::max({Mix::temp_bytes(batch), Ffn::temp_bytes(batch), norm_backward_bytes(batch.tokens(), width)});
  }

  /// Floating-point operations of forward for one token, beside two for each weight.
  static constexpr double flops(std::int64_t context) {
    double sum = 0;
    if constexpr (requires { Mix::flops(context); }) sum += Mix::flops(context);
    if constexpr (requires { Ffn::flops(context); }) sum += Ffn::flops(context);
    return sum;
  }

  // 2. Forward. y may be x when nothing is kept.
  static void forward(const Device auto& q, Weights<Block> w, const Batch& batch, const float* x, float* y,
                      Activations& a, Dropout drop, Bump temp) {
    const std::int64_t n = batch.tokens() * width;
    float* u = temp.take(n);
    float* middle = a.middle ? a.middle : y;
    if (middle != x) copy(q, n, x, middle);
    rms_norm(q, norm(batch), middle, w.vector(0), u);
    add_branch(q, n, middle, drop, temp, [&](float scale, float* out, Bump rest) {
      Mix::forward(q, mixer(w), batch, u, scale, out, a.mixer, rest);
    });
    if (y != middle) copy(q, n, middle, y);
    rms_norm(q, norm(batch), y, w.vector(ffn_norm), u);
    add_branch(q, n, y, drop.branch(1), temp,
               [&](float scale, float* out, Bump rest) { Ffn::forward(q, ffn(w), batch, u, scale, out, a.ffn, rest); });
  }

  // 3. Backward: dx holds the gradient of y and becomes that of x.
  static void backward(const Device auto& q, Weights<Block> w, Weights<Block, float> dw, const Batch& batch,
                       const float* x, float* dx, Activations& a, Dropout drop, Bump temp) {
    const std::int64_t n = batch.tokens() * width;
    float* u = temp.take(n);
    float* du = temp.take(n);
    rms_norm(q, norm(batch), a.middle, w.vector(ffn_norm), u);
    Ffn::backward(q, ffn(w), ffn(dw), batch, u, branch_gradient(q, n, dx, drop.branch(1), temp), C.residual_scale, du,
                  a.ffn, after_gradient(n, drop, temp));
    rms_norm_backward(q, norm(batch), a.middle, w.vector(ffn_norm), du, dx, dw.vector(ffn_norm), temp);
    rms_norm(q, norm(batch), x, w.vector(0), u);
    Mix::backward(q, mixer(w), mixer(dw), batch, u, branch_gradient(q, n, dx, drop, temp), C.residual_scale, du,
                  a.mixer, after_gradient(n, drop, temp));
    rms_norm_backward(q, norm(batch), x, w.vector(0), du, dx, dw.vector(0), temp);
  }

  // 4. Decode: x [rows,width] in place.
  static constexpr StateBytes state(KvFormat kv, std::int64_t context) { return Mix::state(kv, context); }
  static void copy_ring(KvFormat kv, std::int64_t context, std::int64_t tokens, const std::byte* from, std::byte* to) {
    Mix::copy_ring(kv, context, tokens, from, to);
  }
  static std::int64_t decode_bytes(std::int64_t rows) {
    return std::max(Mix::decode_bytes(rows), Ffn::decode_bytes(rows));
  }
  static void decode(const Device auto& q, PackedWeights<Block> w, const Pass& pass, float* x, Bump temp) {
    const auto normed = [&](std::size_t norm) { return ProductInput{x, width, w.vector(norm), width, C.norm_eps}; };
    Mix::decode(q, {w.tensors + mixer_at}, pass, normed(0), C.residual_scale, x, temp);
    Ffn::decode(q, {w.tensors + ffn_at}, pass, normed(ffn_norm), C.residual_scale, x, temp);
  }

 private:
  static constexpr NormShape norm(const Batch& batch) { return {batch.tokens(), width, width, C.norm_eps}; }

  template <class T>
  static Weights<Mix, T> mixer(Weights<Block, T> w) {
    return w.template part<Mix>(mixer_at);
  }
  template <class T>
  static Weights<Ffn, T> ffn(Weights<Block, T> w) {
    return w.template part<Ffn>(ffn_at);
  }

  /// y += residual_scale drop(branch); without dropout the branch adds to y by itself.
  template <class F>
  static void add_branch(const Device auto& q, std::int64_t n, float* y, Dropout drop, Bump temp, F branch) {
    if (drop.rate == 0.f) return branch(C.residual_scale, y, temp);
    float* out = temp.take(n);
    zero(q, n, out);
    branch(C.residual_scale, out, temp);
    drop.apply(q, n, out);
    add_scaled(q, n, 1.f, out, y);
  }

  /// What the branch's output receives of dy: dy itself, or a dropped-out copy at the start of temp.
  static const float* branch_gradient(const Device auto& q, std::int64_t n, const float* dy, Dropout drop, Bump temp) {
    if (drop.rate == 0.f) return dy;
    float* dropped = temp.take(n);
    copy(q, n, dy, dropped);
    drop.apply(q, n, dropped);
    return dropped;
  }
  static Bump after_gradient(std::int64_t n, Dropout drop, Bump temp) {
    if (drop.rate != 0.f) temp.take(n);
    return temp;
  }
};

}  // namespace chimera::inline CHIMERA_ABI
