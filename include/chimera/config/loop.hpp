// The numbers of a loop: some layers that a token passes through several times (Parcae, 2604.12946). Before every pass
// what entered the loop is given to it again, and a share of what it holds is forgotten:
//   h <- e^{-Delta A} h + Delta B e,   e = rms(what entered),   A = e^{A_log},   Delta = softplus(delta)
// one number for each channel, so that what is kept is always below 1.
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// In arena order.
struct LoopWeights {
  enum Param : std::size_t { norm, a_log, delta, input };  // input: the diagonal of B

  static constexpr auto table(std::int64_t width) {
    constexpr float kept = 0.8047190f;  // e^-kept = the root of 1/5
    return std::array{vector_tensor("loop_norm.weight", width, Init::constant(1.f)),
                      vector_tensor("loop_a_log", width, Init::constant(0.f)),
                      vector_tensor("loop_delta", width, Init{.a = kept, .then = Init::Then::inverse_softplus}),
                      vector_tensor("loop_input", width, Init::constant(1.f))};
  }
};

struct LoopConfig {
  int first = 0, last = -1;  // its layers, both included; a config without a loop says nothing of it
  int passes = 2;            // of a token
  int most = 0;              // passes that a session may ask for, or training draw; 0: passes
  float mean = 0.f;          // training draws the passes of each sequence, of a Poisson law with this mean; 0: `passes`
  int backprop = 0;          // the gradient goes through so many of the last passes; 0: through all
  float stop = 0.f;          // in decoding no more passes where h changes by less, in the mean of channels; 0: never

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("first", s.first), f("last", s.last), f("passes", s.passes), f("most", s.most, Meaning::none);
    f("mean", s.mean, Meaning::none), f("backprop", s.backprop, Meaning::none), f("stop", s.stop, Meaning::none);
  }

  constexpr bool on() const { return *this != LoopConfig{}; }
  constexpr int most_passes() const { return !on() ? 1 : most ? most : passes; }
  /// Of a step of training, at most.
  constexpr int trained_passes() const { return !on() ? 1 : mean > 0.f ? most_passes() : passes; }
  /// Passes before that one of `depth` get no gradient.
  constexpr int first_learned(int depth) const { return backprop > 0 && backprop < depth ? depth - backprop : 0; }

  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return LoopWeights::table(c.loop.on() ? c.width : 0);
  }

#define CHIMERA_RULES(c, rule)                                                                             \
  rule(!c.loop.on() || (c.loop.first >= 0 && c.loop.first <= c.loop.last && c.loop.last < c.layers.count), \
       "chimera: loop.first and loop.last must be layers of the model, in this order");                    \
  rule(c.loop.passes > 0 && c.loop.passes <= 32, "chimera: loop.passes must be between 1 and 32");         \
  rule(c.loop.most == 0 || (c.loop.most >= c.loop.passes && c.loop.most <= 32),                            \
       "chimera: loop.most must be between loop.passes and 32, or 0 for loop.passes");                     \
  rule(c.loop.mean >= 0.f && c.loop.mean <= static_cast<float>(c.loop.most_passes()),                      \
       "chimera: loop.mean must be between 0 and loop.most");                                              \
  rule(c.loop.backprop >= 0, "chimera: loop.backprop must be at least 1, or 0 for all passes");            \
  rule(c.loop.stop >= 0.f, "chimera: loop.stop must be positive, or 0 for never")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const LoopConfig&) const = default;
};

}  // namespace chimera
