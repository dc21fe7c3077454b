// Rows of a table that tokens name.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/elementwise.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// x [tokens, width] = scale table[token]; table [vocab, width]. Every token must be in [0, vocab).
void embed(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* tokens, float scale,
           const float* table, float* x);

/// dtable[token] += scale dx, token after token: tasks split the channels, so the order of additions is fixed.
void embed_backward(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* tokens, float scale,
                    const float* dx, float* dtable);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION void embed(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* tokens, float scale,
                            const float* table, float* x) {
  parallel_rows(q, n, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t t = first; t < first + count; ++t)
      dispatch<Scaled>(q.isa(), width, scale, table + tokens[t] * width, x + t * width);
  });
}

CHIMERA_FUNCTION void embed_backward(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* tokens,
                                     float scale, const float* dx, float* dtable) {
  constexpr std::int64_t strip = 64;
  parallel(q, (width + strip - 1) / strip, [&](std::int64_t index, int) {
    const std::int64_t c = index * strip, count = std::min(strip, width - c);
    for (std::int64_t t = 0; t < n; ++t)
      dispatch<AddScaled>(q.isa(), count, scale, dx + t * width + c, dtable + tokens[t] * width + c);
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
