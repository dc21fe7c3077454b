#include <chimera/config/size.hpp>

#include <doctest/doctest.h>

#include <set>
#include <string>

using namespace chimera;

TEST_CASE("the weights of a config are counted by its layers' tables") {
  constexpr Config c{.vocab = 11,
                     .width = 20,
                     .layers = pattern("R M A GD XM SK TM"),
                     .attention = {.heads = 6, .kv_heads = 3, .head_dim = 8},
                     .mamba2 = {.expand = 3, .head_dim = 5, .state = 7, .groups = 4, .conv = 3},
                     .rg_lru = {.inner = 24, .heads = 3, .conv = 2, .bias = true},
                     .gated_deltanet = {.key_heads = 2, .value_heads = 6, .value_dim = 7, .conv = 3},
                     .mlstm = {.heads = 5, .qk = 15},
                     .span_knot = {.heads = 3, .head_dim = 8},
                     .titans = {.heads = 2, .head_dim = 9, .persistent = 3, .memory_heads = 4, .memory_depth = 2},
                     .ffn = {.hidden = 9},
                     .tied = false};
  // Embedding, output and last norm; two norms and SwiGLU a block; recurrence; Mamba-2; attention; Gated DeltaNet;
  // mLSTM; span knots; Titans.
  constexpr int blocks = 7 * (2 * 20 + 3 * 9 * 20);
  constexpr int recurrence = 3 * 24 * 20 + 2 * 24 + 20 + 24 * (2 + 4) + 2 * 24 * 8;
  constexpr int mamba = (2 * 60 + 56 + 60 + 12 - 60) * 20 + (60 + 56) * 4 + 3 * 12 + 60 + 60 * 20;
  constexpr int attention = 2 * (6 + 3) * 8 * 20;
  constexpr int delta = (2 * 20 + 2 * 42) * 20 + (2 * 20 + 42) * 3 + 2 * 6 * 20 + 2 * 6 + 7 + 42 * 20;
  constexpr int memory = (2 * 15 + 2 * 20 + 2 * 5 + 20) * 20 + 2 * 5 + 20;
  constexpr int knots = 5 * 24 * 20 + 24 + 3 + 3 * 16 + 2 * 8;
  constexpr int titans = (4 * 18 + 3 * 20) * 20 + 3 * (20 + 1) + 2 * 4 * 5 * 5 + 3 * 20 + 2 * 20;
  static_assert(parameter_count(c) ==
                2 * 11 * 20 + 20 + blocks + recurrence + mamba + attention + delta + memory + knots + titans);
  static_assert(size_bound(c) == parameter_count(c) && widest_row(c) == 60);

  constexpr Config experts = [&] {
    Config e = c;
    e.layers = pattern("R+E M A+E GD XM SK TM"), e.moe = {.experts = 5, .expert_hidden = 16};
    return e;
  }();
  // Instead of two SwiGLU: router, biases, experts and the shared one.
  static_assert(parameter_count(experts) == parameter_count(c) + 2 * (5 * 20 + 5 + (5 + 1) * 3 * 16 * 20 - 3 * 9 * 20));

  constexpr Config looped = [&] {
    Config l = c;
    l.loop = {.first = 1, .last = 3, .passes = 4};
    return l;
  }();
  static_assert(parameter_count(looped) == parameter_count(c) + 4 * 20);
}

TEST_CASE("every weight that there can be has a name of its own and a role") {
  std::set<std::string> names;
  each_known_weight([&](const Tensor& t) {
    CHECK(names.insert(std::string(t.name)).second);
    CHECK((t.role == Role::vector || t.role == Role::balance) == (t.rows == 1));
  });
  CHECK(names.count("ffn_sub_norm.weight") == 1);
}
