// A mixture of experts: y = sum over the chosen experts e of w_e SwiGLU_e(x), and the shared expert's SwiGLU(x). A
// router chooses by its scores of x; each expert multiplies the rows of its tokens, sorted, at once (Fedus et al.,
// 2101.03961; a bias for each expert keeps their loads alike: Wang et al., 2408.15664).
#pragma once

#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/experts.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/packed/experts.hpp>
#include <chimera/kernels/ternary/experts.hpp>
#include <chimera/layers/layer.hpp>
#include <chimera/layers/swiglu.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct Moe : MoeWeights {
  static constexpr MoeConfig sizes = C.moe.resolved(C);
  static constexpr std::int64_t width = C.width, hidden = sizes.expert_hidden, experts = sizes.experts,
                                top_k = sizes.top_k;
  using Shared = SwiGlu<C, sizes.shared ? hidden : 0>;

  // 1. Weights.
  static constexpr auto params = table(C);
  static constexpr TernaryShape in{2 * hidden, width, C.ternary.group, {hidden, hidden}},  // of an expert's matrices
      out{width, hidden, C.ternary.group};

  struct Activations {
    float* logits;  // [B,T,experts]
    Routing routing;
    float* gate_up;  // [pairs, 2 hidden]; backward overwrites it
    typename Shared::Activations shared;
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    const std::int64_t n = batch.tokens();
    return {memory.take(n * experts), bind_routing(memory, shape, n), memory.take(n * top_k * 2 * hidden),
            Shared::bind(memory, batch)};
  }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens(), pairs = n * top_k;
    return bytes_of({pairs * width, pairs * width, pairs * hidden, pairs * hidden, pairs, n * experts}) +
           std::max(Shared::temp_bytes(batch),
                    C.ternary.on ? std::max(ternary_expert_bytes(in, pairs), ternary_expert_bytes(out, pairs)) : 0);
  }
  /// A token goes through few of the experts.
  static constexpr double flops(std::int64_t) { return -2. * 3 * width * hidden * (experts - top_k); }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<Moe> w, const Batch& batch, const float* x, float scale, float* y,
                      Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens(), pairs = n * top_k;
    float* rows = temp.take(pairs * width);
    float* h = temp.take(pairs * hidden);
    gemm(q, n, experts, width, 1.f, row_major(x, width), transposed(w.vector(router), width), 0.f, a.logits, experts);
    route(q, shape, n, a.logits, w.vector(balance), a.routing);
    gather_pairs(q, pairs, width, a.routing, x, rows);
    multiply(q, in, a.routing, w.matrix(gate_up), rows, a.gate_up, temp);
    swiglu(q, pairs, hidden, a.gate_up, h);
    multiply(q, out, a.routing, w.matrix(down), h, rows, temp);
    add_pairs(q, shape, n, width, a.routing, true, scale, rows, y);
    if constexpr (sizes.shared) Shared::forward(q, shared_of(w), batch, x, scale, y, a.shared, temp);
  }

  // 3. Backward.
  static void backward(const Device auto& q, Weights<Moe> w, Weights<Moe, float> dw, const Batch& batch, const float* x,
                       const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens(), pairs = n * top_k;
    float* rows = temp.take(pairs * width);
    float* drows = temp.take(pairs * width);
    float* h = temp.take(pairs * hidden);
    float* dh = temp.take(pairs * hidden);
    float* dweight = temp.take(pairs);
    float* dlogits = temp.take(n * experts);
    if constexpr (sizes.shared)
      Shared::backward(q, shared_of(w), shared_of(dw), batch, x, dy, scale, dx, a.shared, temp);
    else
      zero(q, n * width, dx);
    gather_pairs(q, pairs, width, a.routing, dy, drows);
    input_gradient(q, out, a.routing, w.matrix(down), scale, drows, dh, temp);
    swiglu(q, pairs, hidden, a.gate_up, h);
    weigh_pairs(q, shape, n, hidden, a.routing, dh, h, dweight);  // dL/dw_e = dy . SwiGLU_e(x) = dh . h
    swiglu_backward(q, pairs, hidden, a.gate_up, dh);
    gather_pairs(q, pairs, width, a.routing, x, rows);
    weight_gradient(q, out, a.routing, w.matrix(down), dw.matrix(down), scale, drows, h, temp);
    weight_gradient(q, in, a.routing, w.matrix(gate_up), dw.matrix(gate_up), 1.f, a.gate_up, rows, temp);
    input_gradient(q, in, a.routing, w.matrix(gate_up), 1.f, a.gate_up, drows, temp);
    add_pairs(q, shape, n, width, a.routing, false, 1.f, drows, dx);
    route_backward(q, shape, n, a.logits, a.routing, dweight,
                   RouterLoss{C.moe.balance_loss * batch.share, C.moe.z_loss * batch.share}, dlogits,
                   dw.vector(balance));
    gemm(q, experts, width, n, 1.f, transposed(dlogits, experts), row_major(x, width), 1.f, dw.vector(router), width);
    gemm(q, n, width, experts, 1.f, row_major(dlogits, experts), row_major(w.vector(router), width), 1.f, dx, width);
  }

  // 4. Decode: nothing is carried.
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {}; }
  static std::int64_t decode_bytes(std::int64_t rows) {
    const std::int64_t pairs = rows * top_k;
    return bytes_of({rows * width, rows * experts, pairs * width, pairs * hidden, rows * hidden}) +
           routing_bytes(shape, rows) + std::max(product_bytes(rows, width), product_bytes(rows, hidden));
  }
  static void decode(const Device auto& q, PackedWeights<Moe> w, const Pass& pass, const ProductInput& x, float scale,
                     float* y, Bump temp) {
    const std::int64_t n = pass.rows, pairs = n * top_k;
    float* normed = temp.take(n * width);
    float* logits = temp.take(n * experts);
    float* rows = temp.take(pairs * width);
    float* h = temp.take(pairs * hidden);
    const Routing routing = bind_routing(temp, shape, n);
    rms_norm(q, NormShape{n, width, x.group, x.eps}, x.x, x.norm, normed);
    router_logits(q, experts, n, width, normed, w.vector(router), logits);
    route(q, shape, n, logits, w.vector(balance), routing);
    gather_pairs(q, pairs, width, routing, normed, rows);
    expert_gates(q, shape, routing, w.matrix(gate_up), rows, h, temp);
    expert_products(q, shape, routing, w.matrix(down), h, rows, temp);
    add_pairs(q, shape, n, width, routing, true, scale, rows, y);
    if constexpr (sizes.shared) Shared::decode(q, {w.tensors + shared}, pass, {normed, width}, scale, y, temp);
  }

 private:
  static constexpr ExpertShape shape{experts, top_k, sizes.score == ExpertScore::sigmoid};

  /// The products of pairs with the matrices of their experts, plain or ternary.
  static void multiply(const Device auto& q, const TernaryShape& each, const Routing& r, Matrix w, const float* x,
                       float* y, Bump temp) {
    if constexpr (C.ternary.on) {
      if (w.stored) return ternary_expert_linear(q, shape, r, each, *w.stored, x, y, temp);
      return ternary_expert_linear(q, shape, r, each, w.w, x, y, temp);
    }
    if (w.stored)
      expert_linear(q, shape, r, each.out, each.in, *w.stored, x, y);
    else
      expert_linear(q, shape, r, each.out, each.in, w.w, x, y);
  }
  static void input_gradient(const Device auto& q, const TernaryShape& each, const Routing& r, Matrix w, float scale,
                             const float* dy, float* dx, Bump temp) {
    if (w.stored) return expert_input_gradient(q, shape, r, each.out, each.in, *w.stored, scale, dy, dx);
    if constexpr (C.ternary.on)
      ternary_expert_input_gradient(q, shape, r, each, w.w, scale, dy, dx, temp);
    else
      expert_input_gradient(q, shape, r, each.out, each.in, w.w, scale, dy, dx);
  }
  static void weight_gradient(const Device auto& q, const TernaryShape& each, const Routing& r, Matrix w,
                              MatrixGradient dw, float scale, const float* dy, const float* x, Bump temp) {
    if (!dw.w) return;
    if constexpr (C.ternary.on)
      ternary_expert_weight_gradient(q, shape, r, each, {C.ternary.deep_zero, C.ternary.most_zeros}, w.w, scale, dy, x,
                                     dw.w, temp);
    else
      expert_weight_gradient(q, shape, r, each.out, each.in, scale, dy, x, dw.w);
  }

  template <class T>
  static Weights<Shared, T> shared_of(Weights<Moe, T> w) {
    return w.template part<Shared>(shared);
  }
};

}  // namespace chimera::inline CHIMERA_ABI
