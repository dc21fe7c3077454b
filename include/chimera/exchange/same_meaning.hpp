// Whether weights of one model can be read into another.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/config/config_hash.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/rope.hpp>

#include <algorithm>
#include <cmath>

namespace chimera::inline CHIMERA_ABI {

/// Whether weights mean the same in both: equal in all but what may differ between runs (config_hash), whatever the
/// order of channels that turn, and however the frequencies of their rotation are written down.
inline bool same_meaning(const Config& a, const Config& b) {
  const auto plain = [](Config c) {
    if (c.attention.scale == 0.f && c.head_dim() > 0)
      c.attention.scale = 1.f / std::sqrt(static_cast<float>(c.head_dim()));
    c.attention.window = c.window() == c.context ? 0 : c.attention.window;
    const auto dims = static_cast<int>(c.rope_dims());
    c.attention.rope = {.base = 1, .dims = dims};
    return c;
  };
  Config x = plain(a), y = plain(b);
  const auto near = [](float& given, float& other) {
    if (std::abs(given - other) <= 1e-6f * std::abs(given)) other = given;
  };
  near(x.attention.scale, y.attention.scale);
  if (config_hash(x) != config_hash(y)) return false;
  if (!has_kind(a, Kind::attention) || a.attention.position != Position::rope) return true;
  const auto dims = static_cast<int>(a.rope_dims());
  float of_a[Rope::max_pairs], of_b[Rope::max_pairs];
  const float factor_a = rope_frequencies(a.attention.rope, dims, a.context, a.context, of_a);
  const float factor_b = rope_frequencies(b.attention.rope, dims, b.context, b.context, of_b);
  const auto close = [](float p, float q) { return std::abs(p - q) <= 1e-5f * std::abs(p); };
  return close(factor_a, factor_b) && std::equal(of_a, of_a + dims / 2, of_b, close);
}

}  // namespace chimera::inline CHIMERA_ABI
