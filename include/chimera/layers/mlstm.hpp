// xLSTM's matrix memory, mLSTM, in the block of the 7B model: projections, soft-capped exponential gates, the memory, a
// norm of each head, the output gate, out-projection (Beck et al., 2405.04517, section 2.3, and 2503.13427, section 2).
#pragma once

#include <chimera/kernels/cached/mlstm.hpp>
#include <chimera/kernels/f32/mlstm.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct Mlstm : MlstmWeights {
  static constexpr MlstmConfig sizes = C.mlstm.resolved(C);
  static constexpr std::int64_t width = C.width, heads = sizes.heads, inner = sizes.v, both = 2 * heads;
  static constexpr MlstmShape cell{heads, sizes.qk / heads, sizes.v / heads, sizes.chunk};
  static constexpr std::int64_t row = cell.row();  // q, k, v, o: rows of the in-projection

  // 1. Weights.
  static constexpr auto params = table(C);
  static constexpr auto in = linear_map<C>(params[input]), out = linear_map<C>(params[output]);

  struct Activations {
    float* qkvo;    // [B,T,row]
    float* raw;     // [B,T,2 heads], products of the gates without their biases
    float* gates;   // [B,T,2 heads], i and ln f
    float* h;       // [B,T,inner], before the norm
    float* states;  // of the chunks' starts
    float* dots;    // [B,T,heads], n . q
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    const std::int64_t n = batch.tokens();
    return {memory.take(n * row),
            memory.take(n * both),
            memory.take(n * both),
            memory.take(n * inner),
            memory.take(mlstm_states(cell, batch)),
            memory.take(n * heads)};
  }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens();
    return bytes_of({n * inner, n * inner, n * row, n * both}) +
           std::max({mlstm_norm_backward_bytes(cell, n), mlstm_backward_bytes(cell, batch), linear_bytes(in, n),
                     linear_bytes(out, n)});
  }

  /// Of the memory: its products inside chunks and with states.
  static constexpr double flops(std::int64_t context) {
    const auto chunk = static_cast<double>(std::min(cell.chunk, context));
    return static_cast<double>(heads) *
           (2 * chunk * static_cast<double>(cell.qk + cell.v) + 4 * static_cast<double>(cell.matrix()));
  }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<Mlstm> w, const Batch& batch, const float* x, float scale, float* y,
                      Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* mixed = temp.take(n * inner);
    linear(q, in, w.matrix(input), n, 1.f, x, width, 0.f, a.qkvo, row, temp);
    gemm(q, n, both, width, 1.f, row_major(x, width), transposed(w.vector(gates), width), 0.f, a.raw, both);
    mlstm_gates(q, n, heads, sizes.gate_cap, a.raw, w.vector(input_gate_bias), w.vector(forget_gate_bias), a.gates);
    mlstm(q, cell, batch, a.qkvo, a.gates, nullptr, a.h, a.states, a.dots, nullptr);
    mlstm_norm(q, cell, n, sizes.norm_eps, a.h, a.qkvo, w.vector(norm), mixed);
    linear(q, out, w.matrix(output), n, scale, mixed, inner, 1.f, y, width, temp);
  }

  // 3. Backward.
  static void backward(const Device auto& q, Weights<Mlstm> w, Weights<Mlstm, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* mixed = temp.take(n * inner);
    float* dh = temp.take(n * inner);
    float* dqkvo = temp.take(n * row);
    float* dgates = temp.take(n * both);
    mlstm_norm(q, cell, n, sizes.norm_eps, a.h, a.qkvo, w.vector(norm), mixed);
    linear_backward(q, out, w.matrix(output), dw.matrix(output), n, scale, dy, width, mixed, inner, 0.f, dh, temp);
    mlstm_norm_backward(q, cell, n, sizes.norm_eps, a.h, a.qkvo, w.vector(norm), dh, dqkvo, dw.vector(norm), temp);
    mlstm_backward(q, cell, batch, a.qkvo, a.gates, a.states, a.dots, a.h, dh, {.dqkvo = dqkvo, .dgates = dgates},
                   temp);
    mlstm_gates_backward(q, n, heads, sizes.gate_cap, a.raw, w.vector(input_gate_bias), w.vector(forget_gate_bias),
                         dgates, dw.vector(input_gate_bias), dw.vector(forget_gate_bias));
    linear_backward(q, in, w.matrix(input), dw.matrix(input), n, 1.f, dqkvo, row, x, width, 0.f, dx, temp);
    gemm(q, both, width, n, 1.f, transposed(dgates, both), row_major(x, width), 1.f, dw.vector(gates), width);
    gemm(q, n, width, both, 1.f, row_major(dgates, both), row_major(w.vector(gates), width), 1.f, dx, width);
  }

  // 4. Decode. A sequence carries the states of the heads (kernels/cached/mlstm.hpp).
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {.whole = cached.state_bytes()}; }
  static std::int64_t decode_bytes(std::int64_t rows) {
    return bytes_of({rows * row, rows * both, rows * inner}) +
           std::max({product_bytes(rows, width), product_bytes(rows, inner), cached_mlstm_bytes(cached, rows)});
  }
  static void decode(const Device auto& q, PackedWeights<Mlstm> w, const Pass& pass, const ProductInput& x, float scale,
                     float* y, Bump temp) {
    float* qkvo = temp.take(pass.rows * row);
    float* raw = temp.take(pass.rows * both);
    float* mixed = temp.take(pass.rows * inner);
    gate_product(q, w.vector(gates), both, width, pass.rows, x, raw);
    product(q, w.matrix(input), pass.rows, x, Then::store(qkvo, row), temp);
    cached_mlstm(
        q, cached, pass, qkvo, raw,
        {.input_bias = w.vector(input_gate_bias), .forget_bias = w.vector(forget_gate_bias), .norm = w.vector(norm)},
        mixed, temp);
    product(q, w.matrix(output), pass.rows, {mixed, inner}, Then::add(y, width, scale), temp);
  }

 private:
  static constexpr CachedMlstmShape cached{cell, sizes.gate_cap, sizes.norm_eps};
  static_assert(mlstm_scratch_bytes(cell) <= Cpu::scratch_bytes);
};

}  // namespace chimera::inline CHIMERA_ABI
