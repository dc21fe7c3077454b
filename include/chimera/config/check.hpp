// What makes a config impossible, each said in words a user can act on: to the compiler for a constexpr config, as a
// value for one that is read from a file. Each layer's numbers bring their own rules.
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/config/size.hpp>

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace chimera {

/// The most numbers of a row that a layer multiplies: a worker's scratch holds one in all forms that weights take.
inline constexpr std::int64_t most_columns = 1 << 17;

namespace check_parts {

/// The model's own rules.
struct Model {
#define CHIMERA_RULES(c, rule)                                                                                      \
  rule(c.vocab > 0, "chimera: vocab must be at least 1");                                                           \
  rule(c.width > 0, "chimera: width must be at least 1");                                                           \
  rule(c.context > 0, "chimera: context must be at least 1");                                                       \
  rule(c.embedding_rank >= 0 && c.embedding_rank < c.width,                                                         \
       "chimera: embedding_rank must be less than width, or 0 for an embedding of the whole width");                \
  rule(!c.layers.unknown_word,                                                                                      \
       "chimera: the layer pattern has a word that names no layer; words are" CHIMERA_MIXER_WORDS);                 \
  rule(!c.layers.wrong_own_word,                                                                                    \
       "chimera: a word of a layer of your own must be new, of 1 to 7 letters or digits, and there are at most 4"); \
  rule(c.layers.count > 0, "chimera: a model needs at least one layer");                                            \
  rule(c.layers.count <= Layers::max, "chimera: a model has at most 256 layers");                                   \
  rule(c.dropout >= 0.f && c.dropout < 1.f, "chimera: dropout must be in [0, 1)");                                  \
  rule(c.norm_eps > 0.f, "chimera: norm_eps must be positive");                                                     \
  rule(c.logit_scale > 0.f, "chimera: logit_scale must be positive");                                               \
  rule(c.logit_cap >= 0.f, "chimera: logit_cap must be positive, or 0 for none")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES
};

/// Rules of the weights that all parts make together; for a config that breaks no other.
struct Weights {
#define CHIMERA_RULES(c, rule)                                                                                    \
  rule(size_bound(c) >= 0, "chimera: the sum of the weights overflows; width, vocab or ffn.hidden is too large"); \
  rule(widest_row(c) <= most_columns, "chimera: width, ffn.hidden and inner widths must be at most 131072")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES
};

/// Whether the rules of a part bear on a config: not those of a layer that it does not have.
template <class Part>
constexpr bool bears_on(const Config& c) {
  if constexpr (MixerConfig<Part>)
    return has_kind(c, Part::kind);
  else if constexpr (FfnConfigPart<Part>)
    return has_ffn(c, Part::ffn);
  else
    return HasRules<Part>;
}

/// The first rule of the model, or of a part, that a config breaks.
constexpr const char* broken_in_parts(const Config& c) {
  const char* broken = Model::broken_rule(c);
  Config::each_field(c, [&](std::string_view, const auto& part, auto...) {
    using Part = std::remove_cvref_t<decltype(part)>;
    if constexpr (HasRules<Part>)
      if (!broken && bears_on<Part>(c)) broken = Part::broken_rule(c);
  });
  return broken;
}

/// Instantiates the rules of the parts.
template <const Config& C>
constexpr bool check_parts() {
  Config::each_field(C, [](std::string_view, const auto& part, auto...) {
    using Part = std::remove_cvref_t<decltype(part)>;
    if constexpr (bears_on<Part>(C)) static_cast<void>(sizeof(typename Part::template Rules<C>));
  });
  return true;
}

}  // namespace check_parts

/// The first rule that a config breaks, or null.
constexpr const char* broken_rule(const Config& config) {
  const char* broken = check_parts::broken_in_parts(config);
  return broken ? broken : check_parts::Weights::broken_rule(config);
}

/// Instantiating this stops compilation with the first rule that C breaks.
template <const Config& C>
struct Check : check_parts::Model::Rules<C> {
  static constexpr bool has(Kind kind) { return has_kind(C, kind); }
  static constexpr bool ok =
      check_parts::check_parts<C>() &&
      (check_parts::broken_in_parts(C) || static_cast<bool>(sizeof(check_parts::Weights::Rules<C>)));
};

}  // namespace chimera
