// Products of the rows of experts (kernels/f32/experts.hpp) with matrices of three values, and their gradients, as
// codes.hpp has them: each expert's matrix has scales of its own.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/experts.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/ternary/codes.hpp>
#include <chimera/kernels/ternary/product.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// Bytes of `temp` for that many pairs. `each`: the shape of one expert's matrix.
constexpr std::int64_t ternary_expert_bytes(const TernaryShape& each, std::int64_t pairs) {
  const std::int64_t weights = each.out * each.in;
  return bytes_of({each.out * each.groups(), std::max(weights, pairs * each.in), weights});
}

/// y [pairs, out] = x^ W_e^T, of W [experts, out, in].
void ternary_expert_linear(const Cpu& q, const ExpertShape& s, const Routing& r, const TernaryShape& each,
                           const float* w, const float* x, float* y, Bump temp);

/// The same with what W is rounded to, as it is stored.
void ternary_expert_linear(const Cpu& q, const ExpertShape& s, const Routing& r, const TernaryShape& each,
                           const StoredMatrix& w, const float* x, float* y, Bump temp);

/// dx [pairs, in] = scale dy W^_e
void ternary_expert_input_gradient(const Cpu& q, const ExpertShape& s, const Routing& r, const TernaryShape& each,
                                   const float* w, float scale, const float* dy, float* dx, Bump temp);

/// dW_e += scale dy^T x^, those of deep zeros left out.
void ternary_expert_weight_gradient(const Cpu& q, const ExpertShape& s, const Routing& r, const TernaryShape& each,
                                    DeepZero deep, const float* w, float scale, const float* dy, const float* x,
                                    float* dw, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION void ternary_expert_linear(const Cpu& q, const ExpertShape& s, const Routing& r,
                                            const TernaryShape& each, const float* w, const float* x, float* y,
                                            Bump temp) {
  float* scales = temp.take(each.out * each.groups());
  each_expert(s, r, [&](std::int64_t e, std::int64_t at, std::int64_t count) {
    const float* mine = w + e * each.out * each.in;
    ternary_scales(q, each, mine, scales);
    ternary_product(q, each, count, 1.f, x + at * each.in, each.in, mine, scales, 0.f, y + at * each.out, each.out);
  });
}

CHIMERA_FUNCTION void ternary_expert_linear(const Cpu& q, const ExpertShape& s, const Routing& r,
                                            const TernaryShape& each, const StoredMatrix& w, const float* x, float* y,
                                            Bump temp) {
  const std::int64_t pairs = r.first[s.experts];
  float* rounded = temp.take(pairs * each.in);
  rounded_rows(q, pairs, each.in, x, each.in, rounded);
  expert_linear(q, s, r, each.out, each.in, w, rounded, y);
}

CHIMERA_FUNCTION void ternary_expert_input_gradient(const Cpu& q, const ExpertShape& s, const Routing& r,
                                                    const TernaryShape& each, const float* w, float scale,
                                                    const float* dy, float* dx, Bump temp) {
  float* scales = temp.take(each.out * each.groups());
  float* rounded = temp.take(each.out * each.in);
  each_expert(s, r, [&](std::int64_t e, std::int64_t at, std::int64_t count) {
    const float* mine = w + e * each.out * each.in;
    ternary_scales(q, each, mine, scales);
    ternary_weights(q, each, mine, scales, rounded);
    training_gemm(q, count, each.in, each.out, scale, row_major(dy + at * each.out, each.out),
                  row_major(rounded, each.in), 0.f, dx + at * each.in, each.in);
  });
}

CHIMERA_FUNCTION void ternary_expert_weight_gradient(const Cpu& q, const ExpertShape& s, const Routing& r,
                                                     const TernaryShape& each, DeepZero deep, const float* w,
                                                     float scale, const float* dy, const float* x, float* dw,
                                                     Bump temp) {
  const std::int64_t out = each.out, in = each.in;
  float* scales = temp.take(out * each.groups());
  float* rounded = temp.take(r.first[s.experts] * in);
  float* dweights = temp.take(out * in);
  each_expert(s, r, [&](std::int64_t e, std::int64_t at, std::int64_t count) {
    const float* mine = w + e * out * in;
    ternary_scales(q, each, mine, scales);
    rounded_rows(q, count, in, x + at * in, in, rounded);
    training_gemm(q, out, in, count, scale, transposed(dy + at * out, out), row_major(rounded, in), 0.f, dweights, in);
    ternary_gradient(q, each, deep, mine, scales, dweights, dw + e * out * in);
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
