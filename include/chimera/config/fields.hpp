// What the parts of a config say of themselves, once for all who read them: texts, hashes, sources, cards. A part is a
// struct that lists its fields,
//   template <class Self, class F> static constexpr void each_field(Self& s, F&& f) { f("heads", s.heads); ... }
// and may have weights, rules, sizes that zeros stand for:
//   static constexpr auto weights(const Whole& c)   the table of its weights, for the whole config that it is part of
//   static constexpr auto resolved(const Whole& c)       itself, its zeros replaced
//   CHIMERA_CONFIG_RULES                                 both forms of its rules
// The part of a mixer names its `kind`, that of a feed-forward layer its `ffn`. All take the whole config as a
// template's argument: it is made of them.
#pragma once

#include <chimera/config/kinds.hpp>

#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace chimera {

/// What a field bears on the meaning of the weights, f's third argument: `config_hash` knows it.
enum class Meaning : std::uint8_t {
  some,   // the default
  none,   // may change between runs: dropout
  later,  // a field that came later: where it is zero, models have the hash that they always had
  added,  // a field that came after that: likewise, and the text, too
};
constexpr Meaning meaning(Meaning m = Meaning::some) { return m; }
constexpr Meaning meaning_if(bool holds) { return holds ? Meaning::some : Meaning::none; }

/// The name of an enum that is a field, and the names of its values, in order.
template <class E>
struct Choices;

namespace fields_parts {

/// What a field is shown to, to ask whether there are any: nvcc 13 takes no lambda in a concept.
struct Nobody {
  constexpr void operator()(std::string_view, auto&, auto...) const {}
};

}  // namespace fields_parts

template <class T>
concept HasFields = requires(T& t) { std::remove_cv_t<T>::each_field(t, fields_parts::Nobody{}); };

template <class T>
concept HasRules = requires { T::has_rules; };

/// The numbers of a layer that mixes tokens.
template <class T>
concept MixerConfig = std::same_as<std::remove_cv_t<decltype(T::kind)>, Kind>;

/// The numbers of a feed-forward layer.
template <class T>
concept FfnConfigPart = std::same_as<std::remove_cv_t<decltype(T::ffn)>, Ffn>;

// A file lists its rules as the macro CHIMERA_RULES(c, rule), lines of `rule(holds, "what must be");`, in an order in
// which a later one may rely on those before it. A macro, because a static_assert takes its words from nowhere but a
// literal.
#define CHIMERA_RULE(holds, words) \
  if (!(holds)) return words

/// Declares, in a struct: Rules<C>, which stops compilation with the first rule that C breaks, and broken_rule(c), the
/// words of that rule, or null.
#define CHIMERA_CONFIG_RULES                                 \
  template <const auto& C>                                   \
  struct Rules {                                             \
    CHIMERA_RULES(C, static_assert);                         \
  };                                                         \
  template <class Whole>                                     \
  static constexpr const char* broken_rule(const Whole& c) { \
    CHIMERA_RULES(c, CHIMERA_RULE);                          \
    return nullptr;                                          \
  }                                                          \
  static constexpr bool has_rules = true

}  // namespace chimera
