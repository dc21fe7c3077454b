// Grouped-query attention, causal, with an optional sliding window and rotary or ALiBi positions
// (Ainslie et al., 2305.13245; Su et al., 2104.09864; Press et al., 2108.12409). With sub_norm what the output matrix
// multiplies is normalised first (BitNet b1.58 2B4T, 2504.12285).
#pragma once

#include <chimera/kernels/attention.hpp>
#include <chimera/kernels/norm.hpp>
#include <chimera/kernels/rope.hpp>
#include <chimera/layers/layer.hpp>

#include <cmath>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct Attention {
  static constexpr std::int64_t width = C.width, heads = C.attention.heads, kv_heads = C.kv_heads();
  static constexpr std::int64_t head_dim = C.head_dim(), rows = heads * head_dim,
                                row = (heads + 2 * kv_heads) * head_dim;
  static constexpr bool rotary = C.attention.position == Position::rope;
  static constexpr bool alibi = C.attention.position == Position::alibi;
  static constexpr std::int64_t dims = rotary ? C.rope_dims() : 0;

  // 1. Weights, in arena order.
  enum Param : std::size_t { qkv, output, sub_norm };  // qkv: the rows of q, of k, of v
  static constexpr auto params = [] {
    std::array<Tensor, C.sub_norm ? 3 : 2> all{Tensor{"attn_qkv.weight", row, width},
                                               Tensor{"attn_output.weight", width, rows, Init::branch_output}};
    if constexpr (C.sub_norm) all[sub_norm] = Tensor{"attn_sub_norm.weight", 1, rows, Init::one, false};
    return all;
  }();
  static constexpr Linear in{row, width}, out{width, rows};
  // Decoding carries a ring of keys and values, [slots, kv_heads * head_dim] each, keys after rotation.
  static constexpr std::int64_t slots = C.window(), kv = kv_heads * head_dim;
  static constexpr std::int64_t state_floats = floats_of({slots * kv, slots* kv});

  struct Activations {
    float* qkv;     // [B,T,row], after rotation
    float* mixed;   // [B,T,rows]
    float* lse;     // [B,heads,T]
    float* angles;  // [T,rope_row]
    float* slopes;  // [heads]
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    return {memory.take(batch.tokens() * row), memory.take(batch.tokens() * rows), memory.take(batch.tokens() * heads),
            memory.take(batch.length * rope_row(dims, C.attention.rope.layout)), memory.take(alibi ? heads : 0)};
  }
  static std::int64_t temp_floats(const Batch& batch) {
    const std::int64_t n = batch.tokens(), inside = C.sub_norm ? n * rows : 0;
    return floats_of({n * row, n * rows, n * heads, inside, inside ? norm_backward_temp(n, rows) : 0});
  }

  // 2. Forward.
  static void forward(const Cpu& q, Weights<Attention> w, const Batch& batch, const float* x, float scale, float* y,
                      Activations& a, float* state, [[maybe_unused]] Bump temp) {
    const std::int64_t n = batch.tokens();
    linear(q, in, n, 1.f, x, width, w[qkv], 0.f, a.qkv, row);
    if constexpr (rotary) {
      float inverse[Rope::max_pairs];
      const float factor = rope_frequencies(C.attention.rope, static_cast<int>(dims), C.context, C.context, inverse);
      rope_table(q, inverse, factor, dims, C.attention.rope.layout, batch.position, batch.length, a.angles);
      rope(q, turning, batch, 1.f, a.angles, a.qkv);
    }
    if constexpr (alibi) alibi_slopes(heads, a.slopes);
    if (!state || batch.position == 0) attention(q, shape(a), batch, a.qkv, a.mixed, a.lse);
    if (state)
      for (std::int64_t t = 0; t < n; ++t) {
        float* ring = state + t / batch.length * state_floats;
        const std::int64_t position = batch.position + t % batch.length;
        remember(ring, position, a.qkv + t * row);
        if (batch.position > 0)
          attend_one(q, shape(a), a.qkv + t * row, ring, ring + values, slots, position, a.mixed + t * rows);
      }
    const float* last = a.mixed;
    if constexpr (C.sub_norm) {
      float* normed = temp.take(n * rows);
      rms_norm(q, norm(n), a.mixed, w[sub_norm], normed);
      last = normed;
    }
    linear(q, out, n, scale, last, rows, w[output], 1.f, y, width);
  }

  // 3. Backward.
  static void backward(const Cpu& q, Weights<Attention> w, Weights<Attention, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* dmixed = temp.take(n * rows);
    float* dqkv = temp.take(n * row);
    if constexpr (C.sub_norm) {
      Bump inner = temp;
      float* normed = inner.take(n * rows);
      float* dnormed = normed;
      rms_norm(q, norm(n), a.mixed, w[sub_norm], normed);
      linear_weight_gradient(q, out, n, scale, dy, width, normed, rows, dw[output]);
      linear_input_gradient(q, out, n, scale, dy, width, w[output], 0.f, dnormed, rows);
      std::fill(dmixed, dmixed + n * rows, 0.f);
      rms_norm_backward(q, norm(n), a.mixed, w[sub_norm], dnormed, dmixed, dw[sub_norm], inner);
    } else {
      linear_weight_gradient(q, out, n, scale, dy, width, a.mixed, rows, dw[output]);
      linear_input_gradient(q, out, n, scale, dy, width, w[output], 0.f, dmixed, rows);
    }
    attention_backward(q, shape(a), batch, a.qkv, a.mixed, a.lse, dmixed, dqkv, temp);
    if constexpr (rotary) rope(q, turning, batch, -1.f, a.angles, dqkv);
    linear_weight_gradient(q, in, n, 1.f, dqkv, row, x, width, dw[qkv]);
    linear_input_gradient(q, in, n, 1.f, dqkv, row, w[qkv], 0.f, dx, width);
  }

  // 4. Decode step.
  static void step(const Cpu& q, Weights<Attention> w, std::int64_t position, const float* x, float scale, float* y,
                   float* state, Bump temp) {
    const Batch one{.sequences = 1, .length = 1, .position = position};
    Activations a = bind(temp, one);
    forward(q, w, one, x, scale, y, a, state, temp);
  }

 private:
  static constexpr std::int64_t values = floats_of({slots * kv});
  static constexpr RopeShape turning{heads + kv_heads, head_dim, dims, row, C.attention.rope.layout};

  static constexpr NormShape norm(std::int64_t n) { return {n, rows, rows, C.norm_eps}; }
  static AttentionShape shape(const Activations& a) {
    const float scale = C.attention.scale != 0.f ? C.attention.scale : 1.f / std::sqrt(static_cast<float>(head_dim));
    return {heads, kv_heads, head_dim, C.window(), scale, alibi ? a.slopes : nullptr};
  }

  static void remember(float* ring, std::int64_t position, const float* token) {
    const float* key = token + rows;
    std::copy(key, key + kv, ring + position % slots * kv);
    std::copy(key + kv, key + 2 * kv, ring + values + position % slots * kv);
  }
};

}  // namespace chimera::inline CHIMERA_ABI
