// The numbers of Mamba-2 (Dao and Gu, 2405.21060).
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace chimera {

/// In arena order.
struct Mamba2Weights {
  enum Param : std::size_t { input, conv, conv_bias, dt_bias, a_log, d, norm, output };

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    const std::int64_t width = c.width, inner = c.mamba2.inner(width), heads = c.mamba2.heads(width);
    const std::int64_t channels = inner + std::int64_t{2} * c.mamba2.groups * c.mamba2.state, taps = c.mamba2.conv;
    return std::array{
        Tensor{"ssm_in.weight", inner + channels + heads, width},  // the rows of z, x, B, C, dt
        Tensor{"ssm_conv1d.weight", channels, taps, Role::taps, Init::taps(taps)},
        vector_tensor("ssm_conv1d.bias", channels, Init::constant(0.f)),
        vector_tensor("ssm_dt.bias", heads, Init::log_uniform(0.001f, 0.1f, Init::Then::inverse_softplus)),
        vector_tensor("ssm_a_log", heads, Init::uniform(1.f, 16.f, Init::Then::log)),
        vector_tensor("ssm_d", heads, Init::constant(1.f)),
        vector_tensor("ssm_norm.weight", inner, Init::constant(1.f)),
        Tensor{"ssm_out.weight", width, inner, Role::matrix, Init::branch(c.layers.count)}};
  }
};

struct Mamba2Config {
  static constexpr Kind kind = Kind::mamba2;

  int expand = 2;                                                       // inner width / width
  int head_dim = 64;                                                    // P
  int state = 128;                                                      // N
  int groups = 1;                                                       // G: heads that share B and C
  int conv = 4;                                                         // K: taps of the short convolution
  int chunk = 64;                                                       // Q: tokens that the scan treats as one matrix
  float dt_min = 0.f, dt_max = std::numeric_limits<float>::infinity();  // limits of the step size

  /// Of a model of that width. Beyond 2^48, which no model has, that: sums of it stay numbers.
  constexpr std::int64_t inner(std::int64_t width) const { return std::min(expand * width, std::int64_t{1} << 48); }
  constexpr std::int64_t heads(std::int64_t width) const { return head_dim ? inner(width) / head_dim : 0; }

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("expand", s.expand), f("head_dim", s.head_dim), f("state", s.state), f("groups", s.groups), f("conv", s.conv);
    f("chunk", s.chunk, Meaning::none), f("dt_min", s.dt_min), f("dt_max", s.dt_max);
  }
  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return Mamba2Weights::table(c);
  }

#define CHIMERA_RULES(c, rule)                                                                                   \
  rule(c.mamba2.head_dim > 0 && c.mamba2.inner(c.width) > 0 && c.mamba2.inner(c.width) % c.mamba2.head_dim == 0, \
       "chimera: mamba2.expand * width must be a multiple of mamba2.head_dim");                                  \
  rule(c.mamba2.groups > 0 && c.mamba2.heads(c.width) % c.mamba2.groups == 0,                                    \
       "chimera: mamba2.groups must divide the number of Mamba-2 heads");                                        \
  rule(c.mamba2.state > 0 && c.mamba2.state <= 256 && c.mamba2.head_dim <= 256,                                  \
       "chimera: mamba2.state and mamba2.head_dim must be between 1 and 256");                                   \
  rule(c.mamba2.chunk > 0 && c.mamba2.chunk <= 128, "chimera: mamba2.chunk must be between 1 and 128");          \
  rule(c.mamba2.conv > 0 && c.mamba2.conv <= 8, "chimera: mamba2.conv must be between 1 and 8");                 \
  rule(c.mamba2.dt_min >= 0.f && c.mamba2.dt_min < c.mamba2.dt_max,                                              \
       "chimera: mamba2.dt_min must be below mamba2.dt_max")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const Mamba2Config&) const = default;
};

}  // namespace chimera
