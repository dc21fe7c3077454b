// The numbers of Gated DeltaNet (Yang, Kautz and Hatamizadeh, 2412.06464).
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// In arena order.
struct GatedDeltaNetWeights {
  // input: the rows of q, k and v, then of z; gates: the rows of a, then of b
  enum Param : std::size_t { input, conv, gates, dt_bias, a_log, norm, output };

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    const auto r = c.gated_deltanet.resolved(c);
    const std::int64_t width = c.width, heads = r.value_heads, values = heads * r.value_dim, taps = r.conv;
    const std::int64_t channels = std::int64_t{2} * r.key_heads * r.key_dim + values;
    return std::array{
        Tensor{"gdn_in.weight", channels + values, width, Role::matrix, Init::normal(), {channels, values}},
        Tensor{"gdn_conv1d.weight", channels, taps, Role::taps, Init::taps(taps)},
        Tensor{"gdn_gates.weight", 2 * heads, width, Role::gate, Init::normal(), {heads, heads}},
        vector_tensor("gdn_dt.bias", heads, Init::log_uniform(0.001f, 0.1f, Init::Then::inverse_softplus)),
        vector_tensor("gdn_a_log", heads, Init::uniform(1e-4f, 16.f, Init::Then::log)),
        vector_tensor("gdn_norm.weight", r.value_dim, Init::constant(1.f)),
        Tensor{"gdn_out.weight", width, values, Role::matrix, Init::branch(c.layers.count)}};
  }
};

struct GatedDeltaNetConfig {
  static constexpr Kind kind = Kind::gated_deltanet;

  int key_heads = 0;                  // of queries and keys; 0: attention.heads
  int value_heads = 0;                // value head h reads key head h mod key_heads; 0: key_heads
  int key_dim = 0;                    // of a head; 0: width / key_heads
  int value_dim = 0;                  // 0: key_dim
  int conv = 4;                       // taps of the short convolution
  int chunk = 64;                     // tokens that training treats as one matrix
  float eps = 0.f;                    // of the norm of each head's results; 0: norm_eps
  bool negative_eigenvalues = false;  // b in (0, 2) instead of (0, 1)   (Grazzi et al., 2411.12537)

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("key_heads", s.key_heads), f("value_heads", s.value_heads), f("key_dim", s.key_dim), f("value_dim", s.value_dim);
    f("conv", s.conv), f("chunk", s.chunk, Meaning::none), f("eps", s.eps);
    f("negative_eigenvalues", s.negative_eigenvalues);
  }
  template <class Whole>
  constexpr GatedDeltaNetConfig resolved(const Whole& c) const {
    GatedDeltaNetConfig r = *this;
    if (r.key_heads == 0) r.key_heads = c.attention.heads;
    if (r.value_heads == 0) r.value_heads = r.key_heads;
    if (r.key_dim == 0) r.key_dim = r.key_heads > 0 ? c.width / r.key_heads : 0;
    if (r.value_dim == 0) r.value_dim = r.key_dim;
    if (r.eps == 0.f) r.eps = c.norm_eps;
    return r;
  }
  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return GatedDeltaNetWeights::table(c);
  }

#define CHIMERA_RULES(c, rule)                                                                          \
  rule(c.gated_deltanet.resolved(c).key_heads > 0,                                                      \
       "chimera: gated_deltanet.key_heads, or attention.heads for it, must be at least 1");             \
  rule(c.gated_deltanet.resolved(c).key_heads > 0 && c.gated_deltanet.resolved(c).value_heads > 0 &&    \
           c.gated_deltanet.resolved(c).value_heads % c.gated_deltanet.resolved(c).key_heads == 0,      \
       "chimera: gated_deltanet.value_heads must be a multiple of gated_deltanet.key_heads");           \
  rule(c.gated_deltanet.resolved(c).key_dim > 0 && c.gated_deltanet.resolved(c).key_dim <= 256 &&       \
           c.gated_deltanet.resolved(c).value_dim > 0 && c.gated_deltanet.resolved(c).value_dim <= 256, \
       "chimera: gated_deltanet.key_dim and gated_deltanet.value_dim must be between 1 and 256");       \
  rule(c.gated_deltanet.chunk > 0 && c.gated_deltanet.chunk <= 64,                                      \
       "chimera: gated_deltanet.chunk must be between 1 and 64");                                       \
  rule(c.gated_deltanet.conv > 0 && c.gated_deltanet.conv <= 8,                                         \
       "chimera: gated_deltanet.conv must be between 1 and 8");                                         \
  rule(c.gated_deltanet.eps >= 0.f, "chimera: gated_deltanet.eps must not be negative")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const GatedDeltaNetConfig&) const = default;
};

}  // namespace chimera
