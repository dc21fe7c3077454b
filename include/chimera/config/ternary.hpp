// Whether the matrices of layers have weights of three values (BitNet b1.58, 2402.17764), and how those learn. The
// embedding, the output matrix, norms, gates and convolutions keep what they are.
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <cstdint>

namespace chimera {

struct TernaryConfig {
  bool on = false;
  int group = 0;            // weights of a row that share a scale; 0: all of a matrix
  float deep_zero = 0.2f;   // weights below this share of their scale are held there: noise does not wake them
  float most_zeros = 0.6f;  // but not in a group of which more than this share is zero, which would stay so for good

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("on", s.on), f("group", s.group), f("deep_zero", s.deep_zero, Meaning::none);
    f("most_zeros", s.most_zeros, Meaning::none);
  }

  /// Whether the group divides the rows of every matrix of a layer.
  template <class Whole>
  static constexpr bool divides(const Whole& c) {
    bool all = true;
    const auto add = [&](const auto& part) {
      for (const Tensor& t : part.weights(c))
        if (t.role == Role::matrix) all = all && t.cols % c.ternary.group == 0;
    };
    each_used_mixer(c, [&](auto, const auto& part) { add(part); });
    each_ffn(c, [&](const auto& part) {
      if (has_ffn(c, part.ffn)) add(part);
    });
    return all;
  }

#define CHIMERA_RULES(c, rule)                                                                                        \
  rule(!c.ternary.on || (c.ternary.group >= 0 && c.ternary.group % 64 == 0),                                          \
       "chimera: ternary.group must be a multiple of 64, or 0");                                                      \
  rule(!c.ternary.on || c.ternary.group == 0 || divides(c),                                                           \
       "chimera: ternary.group must divide the rows of every matrix of a layer: width, ffn.hidden and inner widths"); \
  rule(c.ternary.deep_zero >= 0.f && c.ternary.deep_zero <= 0.5f, "chimera: ternary.deep_zero must be in [0, 0.5]");  \
  rule(c.ternary.most_zeros >= 0.f && c.ternary.most_zeros <= 1.f, "chimera: ternary.most_zeros must be in [0, 1]")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const TernaryConfig&) const = default;
};

}  // namespace chimera
