// What tests of kernels share that go over the tokens of a text, most of them with a state: cases, gradients against a
// reference in double, and texts that are read in parts.
#pragma once

#include "numeric.hpp"

#include <chimera/core/batch.hpp>

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

namespace scans {

/// Calls check(batch) for two rows of T tokens, which are one document each and then several.
template <class F>
void with_documents(std::int64_t T, F check) {
  const std::vector<std::int32_t> start = documents(T, {{1, 6, 7, 1, 20}, {40, 3}});
  for (const std::int32_t* documents_of : {static_cast<const std::int32_t*>(nullptr), start.data()}) {
    CAPTURE(T);
    CAPTURE((documents_of != nullptr));
    check(chimera::Batch{.sequences = 2, .length = T, .document_start = documents_of});
  }
}

/// Compares the gradient of each part of a kernel's inputs with differences of loss(inputs).
template <class Inputs, class Loss>
void check_gradients(const Inputs& inputs, Loss loss,
                     std::initializer_list<std::pair<Doubles Inputs::*, const Floats*>> gradients) {
  for (const auto& [part, gradient] : gradients) {
    const auto along = [&, at = part](const Doubles& x) {
      Inputs moved = inputs;
      moved.*at = x;
      return loss(moved);
    };
    check_gradient(along, Floats((inputs.*part).begin(), (inputs.*part).end()), *gradient);
  }
}

/// A text in two parts, of which each passes its state on, and in single steps is the whole text, y [T,width].
/// part(first, n, state, y, keep) writes y of n tokens and the state in place; `keep`: as for a backward pass to come.
/// step(t, state, y) is one token. compared(state) drops what of a state may differ.
template <class Part, class Step, class Compared>
void check_parts_and_steps(std::int64_t width, const Doubles& want, const Floats& initial, Part part, Step step,
                           Compared compared) {
  const std::int64_t T = static_cast<std::int64_t>(want.size()) / width, cut = 2 * T / 5;
  Floats y = filled(T * width, unwritten), state = initial, in_place = y, carried = initial, stepped = y,
         last = initial;
  for (const auto& [first, n] : {std::pair{std::int64_t{0}, cut}, std::pair{cut, T - cut}}) {
    part(first, n, state.data(), y.data() + first * width, true);
    part(first, n, carried.data(), in_place.data() + first * width, false);
  }
  for (std::int64_t t = 0; t < T; ++t) step(t, last.data(), stepped.data() + t * width);
  CHECK(in_place == y);
  CHECK(carried == state);
  CHECK(difference(y, want) <= 5e-6);
  CHECK(difference(stepped, want) <= 5e-6);
  CHECK(difference(compared(last), compared(state)) <= 1e-5);
}

}  // namespace scans
