// Models whose training goes on with a longer context than they learned: what becomes of their config.
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/core/fields.hpp>
#include <chimera/core/result.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

namespace chimera {

/// The same model with room for `context` tokens; its frequencies stay, but for those of dynamic NTK, which follow the
/// context.
inline Config with_context(Config c, int context) {
  Rope& rope = c.attention.rope;
  if (rope.scaling != RopeScaling::none && rope.original_context == 0) rope.original_context = c.context;
  c.context = context;
  return c;
}

/// A model that learned with rows of `trained` tokens, for `factor` times as many: the context and the scaling of its
/// rotary positions change, and nothing else, so that weights of the one are those of the other. With RopeScaling::none
/// the context alone does. LongRoPE's factors become those of `factor` alike, until better ones are searched for.
/// A model that is scaled already keeps the context it learned first, of which `factor` is a multiple. Errors: a factor
/// that makes nothing longer, a scaling on top of another one, a model without rotary attention.
inline Result<Config> longer_context(const Config& c, RopeScaling scaling, float factor, int trained) {
  const Rope& old = c.attention.rope;
  const bool rotary = has_kind(c, Kind::attention) && c.attention.position == Position::rope;
  const bool scaled = rotary && old.scaling != RopeScaling::none;
  const auto name = [](RopeScaling s) {
    return std::string(Choices<RopeScaling>::values[static_cast<std::size_t>(s)]);
  };
  if (!(factor > 1)) return Error{"the factor of a longer context must be above 1, found " + to_text(factor)};
  if (scaling != RopeScaling::none && !rotary)
    return Error{"the model has no rotary attention, so there is nothing to scale: it is made longer without (none)"};
  if (scaled && scaling != old.scaling)
    return Error{"the model's positions are scaled by " + name(old.scaling) + " already: go on with that, found " +
                 name(scaling)};
  if (scaled && old.original_context > 0) trained = old.original_context;
  if (scaled && factor <= old.factor)
    return Error{"the model's context is " + to_text(old.factor) + " times the " + std::to_string(trained) +
                 " tokens that it learned first: expected a larger factor, found " + to_text(factor)};
  const double context = std::floor(static_cast<double>(factor) * trained + 0.5);
  if (!(context <= 1 << 24))
    return Error{"a context must be at most 16777216 tokens, found " + to_text(factor) + " times " +
                 std::to_string(trained)};
  Config longer = c;
  longer.context = static_cast<int>(context);
  if (scaling == RopeScaling::none) return longer;
  Rope& rope = longer.attention.rope;
  rope.scaling = scaling, rope.factor = factor, rope.original_context = trained;
  for (auto* factors : {&rope.short_factor, &rope.long_factor}) {
    factors->fill(0.f);
    if (scaling == RopeScaling::longrope)
      std::fill_n(factors->begin(), std::clamp<std::int64_t>(c.rope_dims() / 2, 0, Rope::most_pairs), factor);
  }
  return longer;
}

}  // namespace chimera
