// Grouped-query attention, causal, with an optional sliding window and rotary or ALiBi positions
// (Ainslie et al., 2305.13245; Su et al., 2104.09864; Press et al., 2108.12409). With sub_norm what the output matrix
// multiplies is normalised first (BitNet b1.58 2B4T, 2504.12285); with qk_norm each head's query and key are (Qwen3,
// 2505.09388). With output_gate what attention gives is multiplied by sigmoid(W x) first (Qwen3-Next; Qiu et al.,
// 2505.06708).
#pragma once

#include <chimera/core/constexpr_math.hpp>
#include <chimera/kernels/cached/attention.hpp>
#include <chimera/kernels/cached/kv_cache.hpp>
#include <chimera/kernels/f32/attention.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/f32/rope.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct Attention : AttentionWeights {
  static constexpr std::int64_t width = C.width, heads = C.attention.heads, kv_heads = C.kv_heads();
  static constexpr std::int64_t head_dim = C.head_dim(), rows = heads * head_dim;
  static constexpr std::int64_t gates = C.attention.output_gate ? rows : 0;  // stand before queries, keys and values
  static constexpr std::int64_t row = gates + (heads + 2 * kv_heads) * head_dim;
  static constexpr bool rotary = C.attention.position == Position::rope;
  static constexpr std::int64_t dims = rotary ? C.rope_dims() : 0;

  // 1. Weights.
  static constexpr auto params = table(C);
  static constexpr auto in = linear_map<C>(params[qkv]), out = linear_map<C>(params[output]);

  struct Activations {
    float* qkv;     // [B,T,row], gates, and the rest after norms and rotation
    float* mixed;   // [B,T,rows]
    float* lse;     // [B,heads,T]
    float* angles;  // [T,rope_row]
    float* raw;     // [B,T,row], before norms, where there are any
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    return {memory.take(batch.tokens() * row), memory.take(batch.tokens() * rows), memory.take(batch.tokens() * heads),
            memory.take(batch.length * rope_row(dims, layout)),
            memory.take(C.attention.qk_norm ? batch.tokens() * row : 0)};
  }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens(), inside = C.sub_norm ? n * rows : 0;
    return bytes_of({n * row, n * rows, n * heads, inside, n * gates}) +
           std::max({inside ? norm_backward_bytes(n, rows) : 0, bytes_of({C.attention.output_bias ? n * width : 0}),
                     C.attention.qk_norm ? head_norm_backward_bytes(head_norms(n)) : 0, linear_bytes(in, n),
                     linear_bytes(out, n)});
  }
  /// Four for each channel and each key that a token sees on average under the causal mask.
  static constexpr double flops(std::int64_t context) {
    const std::int64_t most = C.attention.window > 0 ? C.attention.window : context;
    const double length = static_cast<double>(context), window = most < context ? static_cast<double>(most) : length;
    return 4 * static_cast<double>(rows) * (window - window * (window - 1) / (2 * length));
  }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<Attention> w, const Batch& batch, const float* x, float scale,
                      float* y, Activations& a, [[maybe_unused]] Bump temp) {
    const std::int64_t n = batch.tokens();
    float* const products = C.attention.qk_norm ? a.raw : a.qkv;
    linear(q, in, w.matrix(qkv), n, 1.f, x, width, 0.f, products, row, temp);
    if constexpr (C.attention.qkv_bias) add_bias(q, n, row, 1.f, w.vector(qkv_bias), products);
    if constexpr (C.attention.qk_norm) {
      copy(q, n * row, a.raw, a.qkv);
      head_norm(q, head_norms(n), a.raw + gates, w.vector(q_norm), w.vector(k_norm), a.qkv + gates);
    }
    if constexpr (rotary) {
      rope_table(q, batch.turns ? *batch.turns : turns, dims, layout, 0, batch.length, a.angles);
      rope(q, turning, batch, 1.f, a.angles, a.qkv + gates);
    }
    attention(q, shape, batch, a.qkv + gates, a.mixed, a.lse);
    const float* last = gated(q, n, a, temp);
    if constexpr (C.sub_norm) {
      float* normed = temp.take(n * rows);
      rms_norm(q, norm(n), last, w.vector(sub_norm), normed);
      last = normed;
    }
    linear(q, out, w.matrix(output), n, scale, last, rows, 1.f, y, width, temp);
    if constexpr (C.attention.output_bias) add_bias(q, n, width, scale, w.vector(output_bias), y);
  }

  // 3. Backward.
  static void backward(const Device auto& q, Weights<Attention> w, Weights<Attention, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* dmixed = temp.take(n * rows);
    float* dqkv = temp.take(n * row);
    const float* last = gated(q, n, a, temp);
    if constexpr (C.sub_norm) {
      Bump inner = temp;
      float* normed = inner.take(n * rows);
      float* dnormed = normed;
      rms_norm(q, norm(n), last, w.vector(sub_norm), normed);
      linear_backward(q, out, w.matrix(output), dw.matrix(output), n, scale, dy, width, normed, rows, 0.f, dnormed,
                      inner);
      zero(q, n * rows, dmixed);
      rms_norm_backward(q, norm(n), last, w.vector(sub_norm), dnormed, dmixed, dw.vector(sub_norm), inner);
    } else {
      linear_backward(q, out, w.matrix(output), dw.matrix(output), n, scale, dy, width, last, rows, 0.f, dmixed, temp);
    }
    if constexpr (C.attention.output_gate) sigmoid_gate_backward(q, n, rows, a.qkv, row, a.mixed, dmixed, dqkv);
    attention_backward(q, shape, batch, a.qkv + gates, a.mixed, a.lse, dmixed, dqkv + gates, temp);
    if constexpr (rotary) rope(q, turning, batch, -1.f, a.angles, dqkv + gates);
    if constexpr (C.attention.qk_norm)
      head_norm_backward(q, head_norms(n), a.raw + gates, w.vector(q_norm), w.vector(k_norm), dqkv + gates,
                         dw.vector(q_norm), dw.vector(k_norm), temp);
    if constexpr (C.attention.qkv_bias) sum_rows(q, n, row, row, dqkv, dw.vector(qkv_bias));
    if constexpr (C.attention.output_bias) {
      Bump inner = temp;
      float* scaled = inner.take(n * width);
      zero(q, n * width, scaled);
      add_scaled(q, n * width, scale, dy, scaled);
      sum_rows(q, n, width, width, scaled, dw.vector(output_bias));
    }
    linear_backward(q, in, w.matrix(qkv), dw.matrix(qkv), n, 1.f, dqkv, row, x, width, 0.f, dx, temp);
  }

  // 4. Decode. A sequence carries a ring of keys and values.
  static constexpr StateBytes state(KvFormat kv, std::int64_t context) {
    return {.ring = cached.ring(context).bytes(kv)};
  }
  /// Copies the keys and values of a sequence of that many tokens.
  static void copy_ring(KvFormat kv, std::int64_t context, std::int64_t tokens, const std::byte* from, std::byte* to) {
    copy_rows(cached.ring(context), kv, tokens, from, to);
  }
  static std::int64_t decode_bytes(std::int64_t n) {
    return bytes_of({n * row, n * rows}) +
           std::max({product_bytes(n, width), product_bytes(n, rows), cached_attention_bytes(cached, n)});
  }
  static void decode(const Device auto& q, PackedWeights<Attention> w, const Pass& pass, const ProductInput& x,
                     float scale, float* y, Bump temp) {
    float* tokens = temp.take(pass.rows * row);
    float* mixed = temp.take(pass.rows * rows);
    const auto bias = [&](bool there, std::size_t param) { return there ? w.vector(param) : nullptr; };
    product(q, w.matrix(qkv), pass.rows, x, Then::store(tokens, row, bias(C.attention.qkv_bias, qkv_bias)), temp);
    if constexpr (C.attention.qk_norm)
      head_norm(q, head_norms(pass.rows), tokens + gates, w.vector(q_norm), w.vector(k_norm), tokens + gates);
    cached_attention(q, cached, pass, tokens + gates, mixed, temp);
    if constexpr (C.attention.output_gate) sigmoid_gate(q, pass.rows, rows, tokens, row, mixed, mixed);
    ProductInput last{mixed, rows};
    if constexpr (C.sub_norm) last = {mixed, rows, w.vector(sub_norm), rows, C.norm_eps};
    product(q, w.matrix(output), pass.rows, last,
            Then::add(y, width, scale, bias(C.attention.output_bias, output_bias)), temp);
  }

 private:
  static constexpr RopeLayout layout = C.attention.rope.layout;
  static constexpr RopeTurns turns =
      rotary ? rope_turns(C.attention.rope, static_cast<int>(dims), C.context) : RopeTurns{};
  static constexpr AttentionShape shape{
      heads,
      kv_heads,
      head_dim,
      C.window(),
      C.attention.scale != 0.f ? C.attention.scale : static_cast<float>(constexpr_pow(head_dim, -0.5)),
      C.attention.position == Position::alibi,
      gates};
  static constexpr CachedAttentionShape cached{shape, dims, layout, turns};
  static constexpr RopeShape turning = cached.turning();
  static_assert(cached_attention_scratch_bytes(cached) <= Cpu::scratch_bytes,
                "chimera: too many query heads share a key head");

  /// What attention gave, behind the gate if there is one.
  static const float* gated(const Device auto& q, std::int64_t n, const Activations& a, Bump& temp) {
    if constexpr (C.attention.output_gate) {
      float* y = temp.take(n * gates);
      sigmoid_gate(q, n, rows, a.qkv, row, a.mixed, y);
      return y;
    } else {
      return a.mixed;
    }
  }
  static constexpr NormShape norm(std::int64_t n) { return {n, rows, rows, C.norm_eps}; }
  static constexpr HeadNormShape head_norms(std::int64_t n) { return {n, heads, kv_heads, head_dim, row, C.norm_eps}; }
};

}  // namespace chimera::inline CHIMERA_ABI
