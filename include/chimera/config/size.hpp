// The weights of a model of a config, known without compiling it.
#pragma once

#include <chimera/config/config.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

/// The model's own weights, around those of its blocks, by their place in `end_weights`. An embedding of fewer numbers
/// than the model's width has a matrix from these to the width, and one back (ALBERT, 1909.11942, section 3.1).
struct End {
  enum : std::size_t { embedding, up, norm, down, output };
};
constexpr auto end_weights(const Config& c) {
  const std::int64_t rank = c.embedding_rank, row = c.embedding_width();
  return std::array{Tensor{"token_embd.weight", c.vocab, row},
                    Tensor{"token_embd_up.weight", rank ? c.width : 0, rank, Role::matrix, Init::fan_in(rank)},
                    vector_tensor("output_norm.weight", c.width, Init::constant(1.f)),
                    Tensor{"output_down.weight", rank, c.width, Role::matrix, Init::fan_in(c.width)},
                    Tensor{"output.weight", c.tied ? 0 : c.vocab, row}};
}

/// A block's own weights: the norms before its mixer and before its feed-forward layer.
constexpr auto block_norms(const Config& c) {
  return std::array{vector_tensor("attn_norm.weight", c.width, Init::constant(1.f)),
                    vector_tensor("ffn_norm.weight", c.width, Init::constant(1.f))};
}

/// Calls f(weight, how many blocks have it) for every weight of a config that has no mistake in its pattern; the
/// model's own count as one.
template <class F>
constexpr void each_weight(const Config& c, F&& f) {
  for (const Tensor& t : end_weights(c)) f(t, 1);
  for (const Tensor& t : c.loop.weights(c)) f(t, 1);
  for (const Tensor& t : block_norms(c)) f(t, c.layers.count);
  each_used_mixer(c, [&](std::string_view, const auto& part) {
    for (const Tensor& t : part.weights(c)) f(t, c.layers.count_of(part.kind));
  });
  each_ffn(c, [&](const auto& part) {
    if (has_ffn(c, part.ffn))
      for (const Tensor& t : part.weights(c)) f(t, c.layers.count_of(part.ffn));
  });
}

/// Calls f(weight) for every weight that there can be, without a size: its name and its role are all that is known.
template <class F>
constexpr void each_known_weight(F&& f) {
  constexpr Config none{};
  for (const Tensor& t : end_weights(none)) f(t);
  for (const Tensor& t : none.loop.weights(none)) f(t);
  for (const Tensor& t : block_norms(none)) f(t);
  each_mixer(none, [&](std::string_view, const auto& part) {
    for (const Tensor& t : part.weights(none)) f(t);
  });
  each_ffn(none, [&](const auto& part) {
    for (const Tensor& t : part.weights(none)) f(t);
  });
}

/// As LanguageModel<C>::parameters, for a config that breaks no rule.
constexpr std::int64_t parameter_count(const Config& c) {
  std::int64_t n = 0;
  each_weight(c, [&](const Tensor& t, int blocks) { n += t.size() * blocks; });
  return n;
}

/// Floats of all weights, or -1 if they are more than any machine has.
constexpr std::int64_t size_bound(const Config& c) {
  constexpr std::int64_t limit = std::int64_t{1} << 50;  // four petabytes of f32
  std::int64_t total = 0;
  each_weight(c, [&](const Tensor& t, int blocks) {
    const bool fits = total >= 0 && t.rows >= 0 && t.cols >= 0 && (t.cols == 0 || t.rows <= limit / t.cols) &&
                      (blocks == 0 || t.size() <= (limit - total) / blocks);
    total = fits ? total + t.size() * blocks : -1;
  });
  return total;
}

/// The longest row of a matrix.
constexpr std::int64_t widest_row(const Config& c) {
  std::int64_t widest = 0;
  each_weight(c, [&](const Tensor& t, int) {
    if (t.role == Role::matrix) widest = std::max(widest, t.cols);
  });
  return widest;
}

}  // namespace chimera
