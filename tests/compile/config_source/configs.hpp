// Configs of every kind, the same whenever they are made: what config_source is tried on.
#pragma once

#include <chimera/config/presets.hpp>

#include <boost/hana/for_each.hpp>

#include <bit>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

/// All members drawn, each left at its default half of the time.
inline chimera::Config random_config(std::uint32_t seed) {
  using namespace chimera;
  std::mt19937 random(seed);
  const auto number = [&](int& x) {
    if (random() % 2) x = static_cast<int>(random() % 100'000) - (random() % 8 ? 0 : 50'000);
  };
  const auto real = [&](float& x) {
    switch (random() % 8) {
      case 0: x = std::numeric_limits<float>::infinity(); break;
      case 1: x = -std::numeric_limits<float>::infinity(); break;
      case 2: x = std::numeric_limits<float>::denorm_min(); break;
      case 3: x = static_cast<float>(random() % 1'000'000); break;
      case 4: x = std::bit_cast<float>(static_cast<std::uint32_t>(random()) & 0xBF7FFFFF); break;
      default: break;
    }
  };
  const auto choice = [&](auto& x, int count) {
    if (random() % 2) x = static_cast<std::decay_t<decltype(x)>>(random() % static_cast<unsigned>(count));
  };
  Config c;
  number(c.vocab), number(c.width), number(c.context);
  c.layers.count = 1 + static_cast<int>(random() % Layers::max);
  const std::size_t period = random() % 2 ? 1 + random() % 6 : Layers::max;
  for (std::size_t i = 0; i < static_cast<std::size_t>(c.layers.count); ++i)
    c.layers.kind[i] = i < period ? static_cast<Kind>(random() % mnemonics.size()) : c.layers.kind[i - period],
    c.layers.ffn[i] = i < period ? static_cast<Ffn>(random() % ffn_words.size()) : c.layers.ffn[i - period];
  number(c.attention.heads), number(c.attention.kv_heads), number(c.attention.head_dim), number(c.attention.window);
  real(c.attention.scale), choice(c.attention.position, 3);
  Rope& r = c.attention.rope;
  real(r.base), number(r.dims), choice(r.layout, 2), choice(r.scaling, 7), real(r.factor), number(r.original_context);
  real(r.attention_factor), real(r.beta_fast), real(r.beta_slow), real(r.mscale), real(r.mscale_all_dim);
  real(r.low_freq_factor), real(r.high_freq_factor);
  if (random() % 2)
    for (auto* factors : {&r.short_factor, &r.long_factor})
      for (std::size_t i = random() % Rope::most_pairs; i-- > 0;) real((*factors)[i]);
  number(c.mamba2.expand), number(c.mamba2.head_dim), number(c.mamba2.state), number(c.mamba2.groups);
  number(c.mamba2.conv), number(c.mamba2.chunk), real(c.mamba2.dt_min), real(c.mamba2.dt_max);
  number(c.rg_lru.inner), number(c.rg_lru.heads), number(c.rg_lru.conv), choice(c.rg_lru.bias, 2);
  GatedDeltaNetConfig& d = c.gated_deltanet;
  number(d.key_heads), number(d.value_heads), number(d.key_dim), number(d.value_dim), number(d.conv), number(d.chunk);
  real(d.eps), choice(d.negative_eigenvalues, 2);
  number(c.mlstm.heads), number(c.mlstm.qk), number(c.mlstm.v), number(c.mlstm.chunk);
  real(c.mlstm.gate_cap), real(c.mlstm.norm_eps);
  number(c.span_knot.heads), number(c.span_knot.head_dim), number(c.span_knot.span), number(c.span_knot.window);
  number(c.span_knot.max_knots), number(c.span_knot.top_knots), choice(c.span_knot.norm_weights, 2);
  TitansConfig& t = c.titans;
  number(t.heads), number(t.head_dim), number(t.persistent), number(t.segment), number(t.memory_heads);
  number(t.memory_depth), number(t.memory_hidden), real(t.step_max), number(t.tbptt), real(t.rope_base);
  number(c.moe.experts), number(c.moe.top_k), number(c.moe.expert_hidden), choice(c.moe.shared, 2);
  choice(c.moe.score, 2), real(c.moe.balance_rate), real(c.moe.balance_loss), real(c.moe.z_loss);
  choice(c.ternary.on, 2), number(c.ternary.group), real(c.ternary.deep_zero), real(c.ternary.most_zeros);
  LoopConfig& l = c.loop;
  number(l.first), number(l.last), number(l.passes), number(l.most), real(l.mean), number(l.backprop), real(l.stop);
  number(c.ffn.hidden), number(c.embedding_rank), choice(c.tied, 2), real(c.norm_eps), real(c.embedding_scale),
      real(c.residual_scale);
  real(c.logit_scale), real(c.logit_cap), real(c.dropout), choice(c.checkpointing, 2);
  return c;
}

/// The presets, then forty drawn at random.
inline std::vector<chimera::Config> all_configs() {
  std::vector<chimera::Config> configs;
  boost::hana::for_each(chimera::all_presets, [&](auto preset) { configs.push_back(preset.config); });
  for (std::uint32_t seed = 0; seed < 40; ++seed) configs.push_back(random_config(seed));
  return configs;
}
