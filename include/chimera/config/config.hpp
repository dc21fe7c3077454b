// A model's configuration: one constexpr value. Zero means "the usual choice" where a comment says so.
#pragma once

#include <chimera/config/attention.hpp>
#include <chimera/config/ffn.hpp>
#include <chimera/config/fields.hpp>
#include <chimera/config/gated_deltanet.hpp>
#include <chimera/config/loop.hpp>
#include <chimera/config/mamba2.hpp>
#include <chimera/config/mlstm.hpp>
#include <chimera/config/moe.hpp>
#include <chimera/config/pattern.hpp>
#include <chimera/config/rg_lru.hpp>
#include <chimera/config/span_knot.hpp>
#include <chimera/config/ternary.hpp>
#include <chimera/config/titans.hpp>

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace chimera {

/// A whole model. Use it as `inline constexpr Config mine{...}; using Mine = LanguageModel<mine>;`
struct Config {
  int vocab = 0;
  int width = 0;
  int context = 1'024;  // tokens a decoding session can hold
  Layers layers{};
  AttentionConfig attention{};
  Mamba2Config mamba2{};
  RgLruConfig rg_lru{};
  GatedDeltaNetConfig gated_deltanet{};
  MlstmConfig mlstm{};
  SpanKnotConfig span_knot{};
  TitansConfig titans{};
  FfnConfig ffn{};
  MoeConfig moe{};
  TernaryConfig ternary{};
  LoopConfig loop{};
  int embedding_rank = 0;  // numbers of a row of the embedding, which a matrix makes width of; 0: width, and no matrix
  bool tied = true;        // the output matrix is the embedding
  bool sub_norm = false;   // a norm before the last matrix of attention and of SwiGLU (BitNet b1.58)
  float norm_eps = 1e-5f;
  float embedding_scale = 1.f;  // multiplies the embedding
  float residual_scale = 1.f;   // multiplies each branch before it is added
  float logit_scale = 1.f;      // divides the logits
  float logit_cap = 0.f;        // logits are cap tanh(x / cap); 0: as they come
  float dropout = 0.f;          // of the embedding and of each branch, in training
  bool checkpointing = false;   // keep block inputs only and compute forward again in backward

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("vocab", s.vocab), f("width", s.width), f("context", s.context, Meaning::none), f("layers", s.layers);
    f("attention", s.attention);
    f("mamba2", s.mamba2);
    f("rg_lru", s.rg_lru);
    f("gated_deltanet", s.gated_deltanet, Meaning::added);
    f("mlstm", s.mlstm, Meaning::added);
    f("span_knot", s.span_knot, Meaning::added);
    f("titans", s.titans, Meaning::added);
    f("ffn", s.ffn);
    f("moe", s.moe, Meaning::added);
    f("ternary", s.ternary, Meaning::added);
    f("loop", s.loop, Meaning::added);
    f("embedding_rank", s.embedding_rank, Meaning::added);
    f("tied", s.tied), f("sub_norm", s.sub_norm, Meaning::later), f("norm_eps", s.norm_eps);
    f("embedding_scale", s.embedding_scale), f("residual_scale", s.residual_scale), f("logit_scale", s.logit_scale);
    f("logit_cap", s.logit_cap, Meaning::added);
    f("dropout", s.dropout, Meaning::none), f("checkpointing", s.checkpointing, Meaning::none);
  }

  constexpr bool operator==(const Config&) const = default;

  // What zeros stand for, in 64 bits so that Check<C> can see an overflow before anyone divides by it.
  constexpr std::int64_t kv_heads() const { return attention.kv_heads ? attention.kv_heads : attention.heads; }
  constexpr std::int64_t head_dim() const {
    return attention.head_dim ? attention.head_dim : attention.heads ? width / attention.heads : 0;
  }
  /// Of a row of the embedding and of the output matrix.
  constexpr std::int64_t embedding_width() const { return embedding_rank ? embedding_rank : width; }
  constexpr std::int64_t rope_dims() const { return attention.rope.dims ? attention.rope.dims : head_dim(); }
  constexpr std::int64_t window() const {
    return attention.window && attention.window < context ? attention.window : context;
  }
};

/// Whether a block of that kind is in the pattern; false for a pattern with a mistake.
constexpr bool has_kind(const Config& c, Kind kind) {
  return !c.layers.unknown_word && c.layers.count <= Layers::max && c.layers.count_of(kind) > 0;
}

/// Calls f(name, part) for the part of every kind of mixer, whether or not the pattern has it.
template <class F>
constexpr void each_mixer(const Config& c, F&& f) {
  Config::each_field(c, [&](std::string_view name, const auto& part, auto...) {
    if constexpr (MixerConfig<std::remove_cvref_t<decltype(part)>>) f(name, part);
  });
}

/// Likewise for every kind that is in the pattern.
template <class F>
constexpr void each_used_mixer(const Config& c, F&& f) {
  each_mixer(c, [&](std::string_view name, const auto& part) {
    if (has_kind(c, part.kind)) f(name, part);
  });
}

/// Whether a block has that feed-forward layer; plain ones are in every pattern with a mistake.
constexpr bool has_ffn(const Config& c, Ffn ffn) {
  return c.layers.unknown_word || c.layers.count > Layers::max ? ffn == Ffn::swiglu : c.layers.count_of(ffn) > 0;
}

/// Calls f(part) for the part of every kind of feed-forward layer, whether or not the pattern has it.
template <class F>
constexpr void each_ffn(const Config& c, F&& f) {
  Config::each_field(c, [&](std::string_view, const auto& part, auto...) {
    if constexpr (FfnConfigPart<std::remove_cvref_t<decltype(part)>>) f(part);
  });
}

}  // namespace chimera
