// The numbers of a mixture of experts, the second kind of feed-forward layer: of some small SwiGLU each token goes
// through a few, and through one that all tokens share.
#pragma once

#include <chimera/config/ffn.hpp>
#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

/// How much an expert wants a token, by its logit.
enum class ExpertScore : std::uint8_t {
  softmax,  // over all experts (Shazeer et al., 1701.06538)
  sigmoid,  // of each alone (DeepSeek-V3, 2412.19437)
};
template <>
struct Choices<ExpertScore> {
  static constexpr std::string_view type = "ExpertScore";
  static constexpr std::array<std::string_view, 2> values{"softmax", "sigmoid"};
};

/// In arena order. Of each expert the rows of gate, then those of up, then those of the next expert.
struct MoeWeights {
  enum Param : std::size_t { router, balance, gate_up, down, shared };

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    const auto m = c.moe.resolved(c);
    const std::int64_t width = c.width, hidden = m.expert_hidden, experts = m.experts;
    const auto own =
        SwiGluWeights::table(c, m.shared ? hidden : 0, "ffn_gate_up_shexp.weight", "ffn_down_shexp.weight");
    return std::array{
        Tensor{"ffn_gate_inp.weight", experts, width, Role::gate},
        Tensor{"exp_probs_b.bias", 1, experts, Role::balance, Init::constant(0.f)},
        Tensor{"ffn_gate_up_exps.weight", experts * 2 * hidden, width, Role::matrix, Init::normal(), {}, hidden},
        Tensor{"ffn_down_exps.weight", experts * width, hidden, Role::matrix, Init::branch(c.layers.count), {}, width},
        own[0],
        own[1]};
  }
};

struct MoeConfig {
  static constexpr Ffn ffn = Ffn::moe;

  int experts = 8;
  int top_k = 2;          // experts of a token
  int expert_hidden = 0;  // 0: ffn.hidden / 4
  bool shared = true;     // one more expert, of all tokens
  ExpertScore score = ExpertScore::softmax;
  // In training: what an expert's bias moves by after each step; weights of two terms of the loss, the means over tokens
  // of experts x sum_e (share of choices of e) p_e and of the router's (log sum exp)^2.
  float balance_rate = 1e-3f;
  float balance_loss = 0.f;
  float z_loss = 0.f;

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("experts", s.experts), f("top_k", s.top_k), f("expert_hidden", s.expert_hidden), f("shared", s.shared),
        f("score", s.score);
    f("balance_rate", s.balance_rate, Meaning::none), f("balance_loss", s.balance_loss, Meaning::none);
    f("z_loss", s.z_loss, Meaning::none);
  }
  template <class Whole>
  constexpr MoeConfig resolved(const Whole& c) const {
    MoeConfig m = *this;
    if (m.expert_hidden == 0) m.expert_hidden = c.ffn.hidden / 4;
    return m;
  }
  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return MoeWeights::table(c);
  }

#define CHIMERA_RULES(c, rule)                                                                                   \
  rule(c.moe.experts > 0 && c.moe.experts <= 1024, "chimera: moe.experts must be between 1 and 1024");           \
  rule(c.moe.top_k > 0 && c.moe.top_k <= c.moe.experts, "chimera: moe.top_k must be between 1 and moe.experts"); \
  rule(c.moe.resolved(c).expert_hidden > 0 && c.moe.resolved(c).expert_hidden % 16 == 0,                         \
       "chimera: moe.expert_hidden, or ffn.hidden / 4, must be a multiple of 16");                               \
  rule(c.width % 16 == 0, "chimera: width must be a multiple of 16 for blocks of experts");                      \
  rule(!c.sub_norm, "chimera: experts have no sub_norm");                                                        \
  rule(c.ffn.activation == Activation::swiglu && !c.ffn.bias, "chimera: experts are SwiGLU without biases")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const MoeConfig&) const = default;
};

}  // namespace chimera
