// A config as text, one "model.name value" a line, for files that carry the config of their weights.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/core/fields.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace chimera {

/// "M M M A": what read_pattern reads back.
inline std::string pattern_words(const Layers& layers) {
  std::string words;
  for (int i = 0; i < layers.count && i < Layers::max; ++i)
    words.append(i ? " " : "").append(layers.name(layers[i])).append(layers.ffn_word(i));
  return words;
}

namespace config_text_parts {

inline std::string words_of(const Layers& layers) { return pattern_words(layers); }
inline void read_words(std::string_view words, Layers& layers) { layers = read_pattern(words); }

/// Without the zeros at the end.
template <std::size_t n>
std::string words_of(const std::array<float, n>& numbers) {
  std::size_t count = n;
  while (count > 0 && numbers[count - 1] == 0.f) --count;
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text.append(i ? " " : "").append(to_text(numbers[i]));
  return text;
}
template <std::size_t n>
void read_words(std::string_view text, std::array<float, n>& numbers) {
  numbers = {};
  for (std::size_t i = 0; i < n && !text.empty(); ++i) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(word.size() < text.size() ? word.size() + 1 : word.size());
    if (!from_text(word, numbers[i])) break;
  }
}

/// A field that is one of some words, by its number among them; files hold the number.
struct Choice {
  std::uint8_t& value;
  std::span<const std::string_view> words;
};
inline std::string to_text(const Choice& c) { return chimera::to_text(int{c.value}); }
inline bool from_text(std::string_view text, Choice& c) { return chimera::from_text(text, c.value); }

/// What a field is; found out when a line is visited, so that its reader and its writer are compiled for each type of
/// field and not for each field.
struct FieldType {
  enum class Is : std::uint8_t { integer, number, flag, choice, words } is;
  std::span<const std::string_view> choices{};
  std::string (*words)(const void* field) = nullptr;
  void (*read_words)(std::string_view, void* field) = nullptr;
};
template <class T>
inline constexpr FieldType field_type = [] {
  using Is = FieldType::Is;
  if constexpr (requires(T& t) { words_of(t); })
    return FieldType{Is::words,
                     {},
                     [](const void* f) { return words_of(*static_cast<const T*>(f)); },
                     [](std::string_view text, void* f) { read_words(text, *static_cast<T*>(f)); }};
  else if constexpr (std::is_enum_v<T>)
    return FieldType{Is::choice, Choices<T>::values};
  else if constexpr (std::is_same_v<T, bool>)
    return FieldType{Is::flag};
  else if constexpr (std::is_same_v<T, float>)
    return FieldType{Is::number};
  else
    return FieldType{Is::integer};
}();

/// A field of a config under its name in a text.
struct Line {
  const FieldType* type;
  std::string_view part, name;  // "model.rope.base": of the part "rope" the name "base"
  void* field;
  bool left_out;  // of texts: a field that came later, as it was before

  /// Calls f(name, field). Of words f sees the text, and what it leaves in it is read back.
  template <class F>
  void visit(bool writable, F& f) const {
    using Is = FieldType::Is;
    const std::string full = std::string("model.").append(part).append(part.empty() ? "" : ".").append(name);
    switch (type->is) {
      case Is::integer: return f(full, *static_cast<int*>(field));
      case Is::number: return f(full, *static_cast<float*>(field));
      case Is::flag: return f(full, *static_cast<bool*>(field));
      case Is::choice: {
        Choice choice{*static_cast<std::uint8_t*>(field), type->choices};
        return f(full, choice);
      }
      case Is::words: break;
    }
    std::string text = type->words(field);
    f(full, text);
    if (writable) type->read_words(text, field);
  }
};

/// One function for all fields, and not code in place for each.
[[gnu::noinline]] inline void add_line(std::vector<Line>& all, const FieldType* type, std::string_view part,
                                       std::string_view name, void* field, bool left_out) {
  all.push_back({type, part, name, field, left_out});
}

/// Adds all fields of a part, and those of its parts.
template <class Part>
void add_lines(std::vector<Line>& all, Part& part, std::string_view part_name, bool left_out) {
  Part::each_field(part, [&]<class T>(std::string_view name, T& field, auto... mark) {
    const bool out = left_out || (meaning(mark...) == Meaning::added && field == T{});
    if constexpr (HasFields<T>)
      add_lines(all, field, name, out);
    else
      add_line(all, &field_type<T>, part_name, name, &field, out);
  });
}

/// All fields. Not a template, and no template is given what is done with them: their walk is compiled once.
inline std::vector<Line> lines_of(Config& config) {
  std::vector<Line> all;
  add_lines(all, config, "", false);
  return all;
}

/// Whether all choices are among those there are.
inline bool choices_exist(Config& config) {
  for (const Line& line : lines_of(config))
    if (line.type->is == FieldType::Is::choice &&
        *static_cast<const std::uint8_t*>(line.field) >= line.type->choices.size())
      return false;
  return true;
}

}  // namespace config_text_parts

/// A config whose fields are lines, for to_lines and from_lines.
struct ConfigFields {
  Config config;

  /// Of a constant `self` the fields are only read.
  template <class Self, class F>
  static void each_field(Self& self, F&& f) {
    constexpr bool writable = !std::is_const_v<Self>;
    for (const config_text_parts::Line& line : config_text_parts::lines_of(const_cast<Config&>(self.config)))
      if (writable || !line.left_out) line.visit(writable, f);
  }
};

inline std::string config_lines(const Config& config) { return to_lines(ConfigFields{config}); }

/// The config that lines of text give; lines of other names are passed over. An error for one that no model can have.
inline Result<Config> config_from_lines(std::string_view text) {
  ConfigFields fields;
  if (Result<void> s = from_lines(text, fields); !s) return s.error();
  if (!config_text_parts::choices_exist(fields.config))
    return Error{"the config cannot be: it has a choice that does not exist"};
  if (const char* broken = broken_rule(fields.config)) return Error{std::string("the config cannot be: ") + broken};
  return fields.config;
}

namespace config_text_parts {

template <class Part>
void add_facts(const Part& part, const std::string& prefix, std::string& text) {
  Part::each_field(part, [&](std::string_view name, const auto& field, auto... mark) {
    using T = std::remove_cvref_t<decltype(field)>;
    if (field == T{} || meaning(mark...) == Meaning::none) return;
    if constexpr (HasFields<T>) {
      add_facts(field, std::string(name) + ".", text);
    } else if constexpr (!requires { words_of(field); }) {
      text.append(text.empty() ? "" : ", ").append(prefix).append(name).append(" ");
      if constexpr (std::is_enum_v<T>)
        text.append(Choices<T>::values[static_cast<std::size_t>(field)]);
      else
        text.append(chimera::to_text(field));
    }
  });
}

}  // namespace config_text_parts

/// The numbers of a part in words: "heads 4, kv_heads 2, head_dim 32"; what is 0, or means nothing, is left out.
template <class Part>
std::string part_words(const Config& config, const Part& part) {
  std::string text;
  if constexpr (requires { part.resolved(config); })
    config_text_parts::add_facts(part.resolved(config), "", text);
  else
    config_text_parts::add_facts(part, "", text);
  return text;
}

}  // namespace chimera
