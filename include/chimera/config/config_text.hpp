// A config as text, one "model.name value" a line, for files that carry the config of their weights.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/core/fields.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

namespace chimera {

/// "M M M A": what read_pattern reads back.
inline std::string pattern_words(const Layers& layers) {
  std::string words;
  for (int i = 0; i < layers.count && i < Layers::max; ++i) words.append(i ? " " : "").append(layers.word(layers[i]));
  return words;
}

/// A config that lists its fields, for to_lines and from_lines.
struct ConfigFields {
  Config config;

  /// The names taken apart are all fields: a new one stops compilation here.
  template <class Self, class F>
  static void each_field(Self& self, F&& f) {
    auto& [vocab, width, context, layers, attention, mamba2, rg_lru, ffn, tied, sub_norm, norm_eps, embedding_scale,
           residual_scale, logit_scale, dropout, checkpointing] = self.config;
    f("model.vocab", vocab), f("model.width", width), f("model.context", context);
    as_text(f, "model.layers", layers, pattern_words, read_pattern);
    auto& [heads, kv_heads, head_dim, window, scale, position, rope] = attention;
    f("model.attention.heads", heads), f("model.attention.kv_heads", kv_heads);
    f("model.attention.head_dim", head_dim), f("model.attention.window", window);
    f("model.attention.scale", scale), f("model.attention.position", position);
    auto& [base, dims, layout, scaling, factor, original_context, attention_factor, beta_fast, beta_slow, mscale,
           mscale_all_dim, low_freq_factor, high_freq_factor, short_factor, long_factor] = rope;
    f("model.rope.base", base), f("model.rope.dims", dims), f("model.rope.layout", layout);
    f("model.rope.scaling", scaling), f("model.rope.factor", factor);
    f("model.rope.original_context", original_context), f("model.rope.attention_factor", attention_factor);
    f("model.rope.beta_fast", beta_fast), f("model.rope.beta_slow", beta_slow);
    f("model.rope.mscale", mscale), f("model.rope.mscale_all_dim", mscale_all_dim);
    f("model.rope.low_freq_factor", low_freq_factor), f("model.rope.high_freq_factor", high_freq_factor);
    as_text(f, "model.rope.short_factor", short_factor, factors_text, read_factors);
    as_text(f, "model.rope.long_factor", long_factor, factors_text, read_factors);
    f("model.mamba2.expand", mamba2.expand), f("model.mamba2.head_dim", mamba2.head_dim);
    f("model.mamba2.state", mamba2.state), f("model.mamba2.groups", mamba2.groups);
    f("model.mamba2.conv", mamba2.conv), f("model.mamba2.chunk", mamba2.chunk);
    f("model.mamba2.dt_min", mamba2.dt_min), f("model.mamba2.dt_max", mamba2.dt_max);
    f("model.rg_lru.inner", rg_lru.inner), f("model.rg_lru.heads", rg_lru.heads);
    f("model.rg_lru.conv", rg_lru.conv), f("model.rg_lru.bias", rg_lru.bias);
    f("model.ffn.hidden", ffn.hidden), f("model.tied", tied), f("model.sub_norm", sub_norm);
    f("model.norm_eps", norm_eps);
    f("model.embedding_scale", embedding_scale), f("model.residual_scale", residual_scale);
    f("model.logit_scale", logit_scale), f("model.dropout", dropout), f("model.checkpointing", checkpointing);
  }

 private:
  using Factors = decltype(Rope::short_factor);

  /// A field that is written as words: f sees the text, and what f leaves in it is read back.
  template <class F, class T, class Write, class Read>
  static void as_text(F& f, std::string_view name, T& value, Write write, Read read) {
    std::string text = write(value);
    f(name, text);
    if constexpr (!std::is_const_v<T>) value = read(text);
  }

  /// Without the zeros at the end.
  static std::string factors_text(const Factors& factors) {
    std::size_t count = factors.size();
    while (count > 0 && factors[count - 1] == 0.f) --count;
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text.append(i ? " " : "").append(to_text(factors[i]));
    return text;
  }
  static Factors read_factors(std::string_view text) {
    Factors factors{};
    for (std::size_t i = 0; i < factors.size() && !text.empty(); ++i) {
      const std::string_view word = text.substr(0, text.find(' '));
      text.remove_prefix(word.size() < text.size() ? word.size() + 1 : word.size());
      if (!from_text(word, factors[i])) break;
    }
    return factors;
  }
};

inline std::string config_lines(const Config& config) { return to_lines(ConfigFields{config}); }

/// The config that lines of text give; lines of other names are passed over. An error for one that no model can have.
inline Result<Config> config_from_lines(std::string_view lines) {
  ConfigFields fields;
  if (Status s = from_lines(lines, fields); !s) return s.error();
  const AttentionConfig& a = fields.config.attention;
  if (a.position > Position::alibi || a.rope.layout > RopeLayout::halves || a.rope.scaling > RopeScaling::longrope)
    return Error{"the config cannot be: it has a choice that does not exist"};
  if (const char* broken = broken_rule(fields.config)) return Error{std::string("the config cannot be: ") + broken};
  return fields.config;
}

}  // namespace chimera
