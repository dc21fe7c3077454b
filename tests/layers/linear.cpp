#include <chimera/layers/attention.hpp>
#include <chimera/layers/gated_deltanet.hpp>
#include <chimera/layers/linear.hpp>
#include <chimera/layers/mamba2.hpp>
#include <chimera/layers/mlstm.hpp>
#include <chimera/layers/moe.hpp>
#include <chimera/layers/rg_lru.hpp>
#include <chimera/layers/span_knot.hpp>
#include <chimera/layers/swiglu.hpp>
#include <chimera/layers/titans.hpp>

#include "checks.hpp"

using namespace chimera;

namespace {

constexpr Config grouped{.vocab = 1,
                         .width = 64,
                         .layers = pattern("A M R GD XM SK TM+E"),
                         .attention = {.heads = 4, .kv_heads = 2, .output_bias = true},
                         .mamba2 = {.head_dim = 32, .state = 16},
                         .rg_lru = {.heads = 4},
                         .gated_deltanet = {.key_heads = 2, .key_dim = 32},
                         .mlstm = {.heads = 2, .qk = 64, .v = 128},
                         .ffn = {.hidden = 128},
                         .moe = {.experts = 4, .expert_hidden = 64},
                         .ternary = {.on = true, .group = 64}};
constexpr Config whole = [] {
  Config c = grouped;
  c.layers = pattern("A M R TM"), c.ternary.group = 0, c.sub_norm = true, c.ffn.hidden = 77;
  return c;
}();

}  // namespace

TEST_CASE("a ternary map is the plain one of rounded weights and rounded inputs, and so are its gradients") {
  const TernaryLinear s{{96, 70, 0, {64, 32}}, {0.2f, 1.f}};
  const Linear plain{96, 70};
  constexpr std::int64_t rows = 50, ldx = 73, ldy = 99;
  Floats w = noise(96 * 70, 1), x = noise(rows * ldx, 2), dy = noise(rows * ldy, 3);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] *= i < 64 * 70 ? 0.1f : 0.3f;
  on_every_cpu([&](const Cpu& q) {
    Floats scales = zeros(96), rounded_w = w, rounded_x = zeros(rows * 70), deep = zeros(96 * 70);
    ternary_scales(q, s.shape, w.data(), scales.data());
    ternary_weights(q, s.shape, w.data(), scales.data(), rounded_w.data());
    rounded_rows(q, rows, 70, x.data(), ldx, rounded_x.data());
    CHECK(scales[0] != scales[95]);
    CHECK(scales[0] == scales[63]);

    checks::Memory temp(linear_bytes(s, rows));
    Floats y = noise(rows * ldy, 4), want = y, dx = zeros(rows * ldx), want_dx = dx, dw = filled(96 * 70, 2.f),
           want_dw = zeros(96 * 70);
    linear(q, s, {w.data()}, rows, 0.5f, x.data(), ldx, 1.f, y.data(), ldy, temp.bump());
    linear(q, plain, {rounded_w.data()}, rows, 0.5f, rounded_x.data(), 70, 1.f, want.data(), ldy);
    CHECK(difference(y, want) < 2e-6);
    linear_backward(q, s, {w.data()}, {dw.data()}, rows, 0.5f, dy.data(), ldy, x.data(), ldx, 0.f, dx.data(),
                    temp.bump());
    linear_weight_gradient(q, plain, {}, {want_dw.data()}, rows, 0.5f, dy.data(), ldy, rounded_x.data(), 70);
    linear_input_gradient(q, plain, {rounded_w.data()}, rows, 0.5f, dy.data(), ldy, 0.f, want_dx.data(), ldx);
    for (std::size_t i = 0; i < w.size(); ++i)
      want_dw[i] = 2.f + (std::abs(w[i]) < 0.2f * scales[i / 70] ? 0.f : want_dw[i]);
    CHECK(difference(dx, want_dx) < 2e-6);
    CHECK(difference(dw, want_dw) < 2e-6);
  });
}

TEST_CASE("experts have ternary maps of their own") {
  constexpr ExpertShape s{3, 2, false};
  constexpr std::int64_t n = 9, pairs = 2 * n, out = 96, in = 64;
  const TernaryLinear map{{out, in, 0, {48, 48}}, {0.2f, 1.f}};
  Floats w = noise(s.experts * out * in, 1), x = noise(pairs * in, 2), dy = noise(pairs * out, 3);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] *= i < 48 * in ? 0.1f : 0.3f;
  const Floats logits = noise(n * s.experts, 4), balance = zeros(s.experts);
  on_every_cpu([&](const Cpu& q) {
    checks::Memory memory(routing_bytes(s, n)), temp(ternary_expert_bytes(map.shape, pairs)),
        own(linear_bytes(map, pairs));
    Bump take = memory.bump();
    const Routing r = bind_routing(take, s, n);
    route(q, s, n, logits.data(), balance.data(), r);
    Floats y = zeros(pairs * out), dx = zeros(pairs * in), dw = filled(s.experts * out * in, 2.f), want_y = y,
           want_dx = dx, want_dw = dw;
    ternary_expert_linear(q, s, r, map.shape, w.data(), x.data(), y.data(), temp.bump());
    ternary_expert_input_gradient(q, s, r, map.shape, w.data(), 0.5f, dy.data(), dx.data(), temp.bump());
    ternary_expert_weight_gradient(q, s, r, map.shape, map.deep, w.data(), 0.5f, dy.data(), x.data(), dw.data(),
                                   temp.bump());
    each_expert(s, r, [&](std::int64_t e, std::int64_t at, std::int64_t count) {
      const Matrix mine{w.data() + e * out * in};
      linear(q, map, mine, count, 1.f, x.data() + at * in, in, 0.f, want_y.data() + at * out, out, own.bump());
      linear_backward(q, map, mine, {want_dw.data() + e * out * in}, count, 0.5f, dy.data() + at * out, out,
                      x.data() + at * in, in, 0.f, want_dx.data() + at * in, own.bump());
    });
    CHECK(y == want_y);
    CHECK(dx == want_dx);
    CHECK(dw == want_dw);
  });
}

TEST_CASE_TEMPLATE("layers of ternary matrices", L, Attention<grouped>, Attention<whole>, Mamba2<grouped>, RgLru<whole>,
                   GatedDeltaNet<grouped>, Mlstm<grouped>, SwiGlu<grouped>, SwiGlu<whole>, Titans<whole>,
                   Moe<grouped>) {
  SUBCASE("keep to their memory, and add what they are told to") { checks::accumulation<L>(); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
  SUBCASE("the same bits for any number of threads") {
    const Batch batch{.sequences = 2, .length = 70};
    const Floats w = checks::weights_of<L>(1), x = noise(140 * L::width, 2), dy = noise(140 * L::width, 3);
    const Floats one = checks::run<L>(cpu(detect_isa(), 1), w, batch, x, dy).all();
    for (const int threads : {2, 3}) CHECK(checks::run<L>(cpu(detect_isa(), threads), w, batch, x, dy).all() == one);
  }
  SUBCASE("compute with three values: weights that round alike give the same") {
    const Cpu q = cpu(detect_isa(), 1);
    const Batch batch{.sequences = 1, .length = 40};
    Floats w = checks::weights_of<L>(1), moved = w;
    const Floats x = noise(40 * L::width, 2), y = checks::forward<L>(q, w, batch, x);
    for (std::size_t p = 0; p < L::params.size(); ++p)
      if (L::params[p].role == Role::matrix)
        for (std::int64_t i = 0; i < L::params[p].size(); i += 2) {  // pairs: their mean stays, and what each rounds to
          float* const pair = moved.data() + offsets<L>[p] + i;
          const bool both = std::abs(pair[0]) > 0.2f && std::abs(pair[1]) > 0.2f;
          if (both) pair[0] += pair[0] > 0 ? 0.01f : -0.01f, pair[1] -= pair[1] > 0 ? 0.01f : -0.01f;
        }
    CHECK(moved != w);
    CHECK(difference(checks::forward<L>(q, moved, batch, x), y) < 1e-5);
  }
}
