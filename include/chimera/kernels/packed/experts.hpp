// Products of the rows of experts (kernels/f32/experts.hpp) with packed weights: of each expert some whole panels.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/experts.hpp>
#include <chimera/kernels/packed/product.hpp>

#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// h [pairs, hidden] = silu(gate_e x) (up_e x). The matrix is [experts, gate and up, hidden, width]; hidden is a multiple
/// of 16.
void expert_gates(const Cpu& q, const ExpertShape& s, const Routing& r, const PackedMatrix& gate_up, const float* x,
                  float* h, Bump temp);

/// y [pairs, width] = W_e h, of a matrix [experts, width, hidden]; width is a multiple of 16.
void expert_products(const Cpu& q, const ExpertShape& s, const Routing& r, const PackedMatrix& w, const float* h,
                     float* y, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION void expert_gates(const Cpu& q, const ExpertShape& s, const Routing& r, const PackedMatrix& gate_up,
                                   const float* x, float* h, Bump temp) {
  const std::int64_t hidden = gate_up.rows / (2 * s.experts), panels = hidden / panel_rows;
  each_expert(s, r, [&](std::int64_t e, std::int64_t first, std::int64_t count) {
    const PackedMatrix both =
        PackedMatrix::joined(gate_up.panels(2 * e * panels, panels), gate_up.panels((2 * e + 1) * panels, panels));
    product(q, both, count, {x + first * gate_up.cols, gate_up.cols}, Then::gate(h + first * hidden, hidden), temp);
  });
}

CHIMERA_FUNCTION void expert_products(const Cpu& q, const ExpertShape& s, const Routing& r, const PackedMatrix& w,
                                      const float* h, float* y, Bump temp) {
  const std::int64_t width = w.rows / s.experts, panels = width / panel_rows;
  each_expert(s, r, [&](std::int64_t e, std::int64_t first, std::int64_t count) {
    product(q, w.panels(e * panels, panels), count, {h + first * w.cols, w.cols}, Then::store(y + first * width, width),
            temp);
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
