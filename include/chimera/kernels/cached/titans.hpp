// Titans' memory as decoding carries it. A sequence has the state that its segment started from, what the segment's
// tokens left (their keys and errors, their keys and values of attention, and the factors of the last), and the
// persistent vectors' keys and values. The memory after each token follows from these (f32/titans.hpp); it is written
// once the segment is whole.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/titans.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// What is carried of a sequence.
struct CachedTitans {
  float* state;       // M, then S
  float* rows;        // [segment, row]
  float* attention;   // [segment, attention_row]
  float* factors;     // [factors]
  float* persistent;  // [persistent, key_value]

  static CachedTitans bind(Bump& memory, const TitansShape& s) {
    return {memory.take(s.state()), memory.take(s.segment * s.row()), memory.take(s.segment * s.attention_row()),
            memory.take(s.factors()), memory.take(s.persistent * s.key_value())};
  }
  static constexpr std::int64_t bytes(const TitansShape& s) {
    return bytes_of(
        {s.state(), s.segment * s.row(), s.segment * s.attention_row(), s.factors(), s.persistent * s.key_value()});
  }
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// The most segments of one sequence in a pass.
std::int64_t cached_titans_steps(const TitansShape& s, const Pass& pass);

/// Whether a sequence starts with the pass.
bool cached_titans_starts(const Pass& pass);

/// The memory and the persistent vectors' keys and values of sequences that start.
void cached_titans_start(const Cpu& q, const TitansShape& s, const Pass& pass, const TitansMemory& memory,
                         const float* persistent);

/// The segments of a pass; tokens of `segments` are rows of the pass.
void cached_titans_segments(const Cpu& q, const TitansShape& s, const Pass& pass, const TitansSegments& segments);

/// Takes a step's keys and values of attention over into the segments.
void cached_titans_keep(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansTokens& tokens);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace cached_titans_parts {

inline CachedTitans of(const TitansShape& s, const Run& run) {
  Bump memory{run.state};
  return CachedTitans::bind(memory, s);
}

}  // namespace cached_titans_parts

CHIMERA_FUNCTION std::int64_t cached_titans_steps(const TitansShape& s, const Pass& pass) {
  std::int64_t most = 0;
  for (const Run& run : pass.runs) most = std::max(most, s.steps(run.position % s.segment + run.count));
  return most;
}

CHIMERA_FUNCTION bool cached_titans_starts(const Pass& pass) {
  return std::any_of(pass.runs.begin(), pass.runs.end(), [](const Run& run) { return run.position == 0; });
}

CHIMERA_FUNCTION void cached_titans_start(const Cpu&, const TitansShape& s, const Pass& pass,
                                          const TitansMemory& memory, const float* persistent) {
  for (const Run& run : pass.runs) {
    if (run.position > 0) continue;
    const CachedTitans to = cached_titans_parts::of(s, run);
    for (int m = 0; m < s.matrices(); ++m)
      std::copy_n(memory.m[m], s.memory_heads * s.matrix(m), to.state + s.first(m));
    std::fill_n(to.state + s.weights(), s.weights(), 0.f);
    std::copy_n(persistent, s.persistent * s.key_value(), to.persistent);
  }
}

CHIMERA_FUNCTION void cached_titans_segments(const Cpu&, const TitansShape& s, const Pass& pass,
                                             const TitansSegments& segments) {
  std::int32_t segment = 0, row = 0;
  for (std::int64_t k = 0; k < segments.steps; ++k) {
    segments.first_segment[k] = segment, segments.first_row[k] = row;
    for (const Run& run : pass.runs) {
      const std::int64_t inside = run.position % s.segment;
      const std::int64_t from = std::max(k * s.segment, inside) - inside,
                         end = std::min((k + 1) * s.segment - inside, run.count);
      if (from >= end) continue;
      const CachedTitans of = cached_titans_parts::of(s, run);
      const std::int64_t before = (inside + from) % s.segment, count = end - from;
      segments.all[segment++] = {.first = row,
                                 .count = count,
                                 .before = before,
                                 .start = of.state,
                                 .next = before + count == s.segment ? of.state : nullptr,
                                 .learns = false,
                                 .rows = of.rows,
                                 .attention = of.attention,
                                 .persistent = of.persistent,
                                 .factors = of.factors};
      for (std::int64_t t = from; t < end; ++t) segments.token[row++] = static_cast<std::int32_t>(run.first + t);
    }
  }
  segments.first_segment[segments.steps] = segment, segments.first_row[segments.steps] = row;
}

CHIMERA_FUNCTION void cached_titans_keep(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                         const TitansTokens& tokens) {
  parallel(q, step.count, step.rows * s.attention_row() * 8, [&](std::int64_t i, int) {
    const TitansSegment& at = step.segments[i];
    std::copy_n(tokens.attention + at.first * s.attention_row(), at.count * s.attention_row(),
                at.attention + at.before * s.attention_row());
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
