// xLSTM's matrix memory as decoding does it: from the rows of the in-projection and the gates' products to the gated
// output, on the states of sequences. A sequence carries the states of the heads [heads, state] (f32/mlstm.hpp).
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/mlstm.hpp>

#include <cstddef>
#include <cstdint>

namespace chimera {

struct CachedMlstmShape {
  MlstmShape cell;
  float gate_cap, norm_eps;

  constexpr std::int64_t state_bytes() const { return bytes_of({cell.heads * cell.state()}); }
};

struct CachedMlstmWeights {
  const float* input_bias;   // [heads]
  const float* forget_bias;  // [heads]
  const float* norm;         // [inner]
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// Bytes of `temp` for a pass of that many rows.
constexpr std::int64_t cached_mlstm_bytes(const CachedMlstmShape& s, std::int64_t rows) {
  return bytes_of({rows * 2 * s.cell.heads});
}

/// qkvo [rows, row], raw [rows, 2 heads]: products of the gates without their biases -> y [rows, inner].
void cached_mlstm(const Cpu& q, const CachedMlstmShape& s, const Pass& pass, const float* qkvo, const float* raw,
                  const CachedMlstmWeights& w, float* y, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION void cached_mlstm(const Cpu& q, const CachedMlstmShape& s, const Pass& pass, const float* qkvo,
                                   const float* raw, const CachedMlstmWeights& w, float* y, Bump temp) {
  const MlstmShape& cell = s.cell;
  const std::int64_t heads = cell.heads, K = cell.qk, V = cell.v;
  const auto states_of = [](const Run& run) { return reinterpret_cast<float*>(run.state); };
  float* gates = temp.take(pass.rows * 2 * heads);
  mlstm_gates(q, pass.rows, heads, s.gate_cap, raw, w.input_bias, w.forget_bias, gates);
  // All runs of one token, head by head.
  const std::int64_t tasks = static_cast<std::int64_t>(pass.runs.size()) * heads;
  parallel(q, tasks, tasks * cell.matrix() * 8, [&](std::int64_t index, int) {
    const Run& run = pass.runs[static_cast<std::size_t>(index / heads)];
    if (run.count > 1) return;
    const std::int64_t head = index % heads;
    const float* row = qkvo + run.first * cell.row();
    const float* gate = gates + run.first * 2 * heads + head;
    float* h = y + run.first * cell.inner() + head * V;
    mlstm_parts::step(q.isa(), cell, row + head * K, row + cell.keys() + head * K, row + cell.values() + head * V,
                      gate[0], gate[heads], states_of(run) + head * cell.state(), h);
    dispatch<mlstm_parts::Norm>(q.isa(), V, s.norm_eps, h, row + cell.output_gate() + head * V, w.norm + head * V, h);
  });
  // Runs of several tokens, in chunks.
  for (const Run& run : pass.runs) {
    if (run.count == 1) continue;
    const float* rows = qkvo + run.first * cell.row();
    float* h = y + run.first * cell.inner();
    mlstm(q, cell, {.sequences = 1, .length = run.count}, rows, gates + run.first * 2 * heads, states_of(run), h,
          nullptr, nullptr, states_of(run));
    mlstm_norm(q, cell, run.count, s.norm_eps, h, rows, w.norm, h);
  }
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
