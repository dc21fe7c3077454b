// A model's configuration: one constexpr value. Zero means "the usual choice" where a comment says so.
#pragma once

#include <chimera/config/pattern.hpp>

#include <array>
#include <cstdint>
#include <limits>

namespace chimera {

/// Which channels of a head turn together: neighbours (2i, 2i+1), as GGUF stores them, or (i, i + dims/2).
enum class RopeLayout : std::uint8_t { adjacent, halves };

/// How rotary frequencies are stretched beyond the trained context.
enum class RopeScaling : std::uint8_t { none, linear, ntk, dynamic_ntk, yarn, llama3, longrope };

/// Rotary position embedding, and its extensions to longer contexts.
struct Rope {
  static constexpr int max_pairs = 128;

  float base = 10'000.f;
  int dims = 0;  // channels of a head that turn; 0: all
  RopeLayout layout = RopeLayout::adjacent;
  RopeScaling scaling = RopeScaling::none;
  float factor = 1.f;                                   // how many times longer than the trained context
  int original_context = 0;                             // the trained context; 0: Config::context
  float attention_factor = 0.f;                         // multiplies cos and sin; 0: as the scaling's paper derives it
  float beta_fast = 32.f, beta_slow = 1.f;              // YaRN's ramp, in turns over the trained context
  float mscale = 0.f, mscale_all_dim = 0.f;             // YaRN's two temperatures; 0: one temperature
  float low_freq_factor = 1.f, high_freq_factor = 4.f;  // Llama 3
  std::array<float, max_pairs> short_factor{}, long_factor{};  // LongRoPE, one for each pair

  constexpr bool operator==(const Rope&) const = default;
};

enum class Position : std::uint8_t { none, rope, alibi };

struct AttentionConfig {
  int heads = 0;
  int kv_heads = 0;   // 0: heads
  int head_dim = 0;   // 0: width / heads
  int window = 0;     // keys a query sees, itself included; 0: all
  float scale = 0.f;  // multiplies q.k; 0: 1 / sqrt(head_dim)
  Position position = Position::rope;
  Rope rope{};

  constexpr bool operator==(const AttentionConfig&) const = default;
};

struct Mamba2Config {
  int expand = 2;                                                       // inner width / width
  int head_dim = 64;                                                    // P
  int state = 128;                                                      // N
  int groups = 1;                                                       // G: heads that share B and C
  int conv = 4;                                                         // K: taps of the short convolution
  int chunk = 64;                                                       // Q: tokens that the scan treats as one matrix
  float dt_min = 0.f, dt_max = std::numeric_limits<float>::infinity();  // limits of the step size

  constexpr bool operator==(const Mamba2Config&) const = default;
};

struct RgLruConfig {
  int inner = 0;  // width of the recurrence; 0: width
  int heads = 0;  // blocks of the block-diagonal gates; 0: attention.heads
  int conv = 4;
  bool bias = false;  // of the three projections

  constexpr bool operator==(const RgLruConfig&) const = default;
};

struct FfnConfig {
  int hidden = 0;

  constexpr bool operator==(const FfnConfig&) const = default;
};

/// A whole model. Use it as `inline constexpr Config mine{...}; using Mine = LanguageModel<mine>;`
struct Config {
  int vocab = 0;
  int width = 0;
  int context = 1'024;  // tokens a decoding session can hold
  Layers layers{};
  AttentionConfig attention{};
  Mamba2Config mamba2{};
  RgLruConfig rg_lru{};
  FfnConfig ffn{};
  bool tied = true;       // the output matrix is the embedding
  bool sub_norm = false;  // a norm before the last matrix of attention and of SwiGLU (BitNet b1.58)
  float norm_eps = 1e-5f;
  float embedding_scale = 1.f;  // multiplies the embedding
  float residual_scale = 1.f;   // multiplies each branch before it is added
  float logit_scale = 1.f;      // divides the logits
  float dropout = 0.f;          // of the embedding and of each branch, in training
  bool checkpointing = false;   // keep block inputs only and compute forward again in backward

  constexpr bool operator==(const Config&) const = default;

  // Derived sizes, in 64 bits so that Check<C> can see an overflow before anyone divides by it.
  constexpr std::int64_t kv_heads() const { return attention.kv_heads ? attention.kv_heads : attention.heads; }
  constexpr std::int64_t head_dim() const {
    return attention.head_dim ? attention.head_dim : attention.heads ? width / attention.heads : 0;
  }
  constexpr std::int64_t rope_dims() const { return attention.rope.dims ? attention.rope.dims : head_dim(); }
  constexpr std::int64_t window() const {
    return attention.window && attention.window < context ? attention.window : context;
  }
  constexpr std::int64_t ssm_inner() const { return std::int64_t{mamba2.expand} * width; }
  constexpr std::int64_t ssm_heads() const { return mamba2.head_dim ? ssm_inner() / mamba2.head_dim : 0; }
  constexpr std::int64_t rnn_inner() const { return rg_lru.inner ? rg_lru.inner : width; }
  constexpr std::int64_t rnn_heads() const { return rg_lru.heads ? rg_lru.heads : attention.heads; }
};

}  // namespace chimera
