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

/// A field of a config under its name in a text. What a field is, is found out when it is visited, so that its reader
/// and its writer are compiled for each type of field and not for each field.
struct Line {
  enum class Type : std::uint8_t { integer, number, flag, choice, words };

  Type type;
  std::string_view part, name;  // "model.rope.base": of the part "rope." the name "base"
  void* field;
  std::span<const std::string_view> choices{};
  std::string (*words)(const void* field) = nullptr;
  void (*read_words)(std::string_view, void* field) = nullptr;

  /// Calls f(name, field). Of words f sees the text, and what it leaves in it is read back.
  template <class F>
  void visit(bool writable, F& f) const {
    const std::string full = std::string("model.").append(part).append(part.empty() ? "" : ".").append(name);
    switch (type) {
      case Type::integer: return f(full, *static_cast<int*>(field));
      case Type::number: return f(full, *static_cast<float*>(field));
      case Type::flag: return f(full, *static_cast<bool*>(field));
      case Type::choice: {
        Choice choice{*static_cast<std::uint8_t*>(field), choices};
        return f(full, choice);
      }
      case Type::words: break;
    }
    std::string text = words(field);
    f(full, text);
    if (writable) read_words(text, field);
  }
};

template <class T>
constexpr Line line_of(std::string_view part, std::string_view name, T& field) {
  using Type = Line::Type;
  if constexpr (requires { words_of(field); })
    return {Type::words,
            part,
            name,
            &field,
            {},
            [](const void* f) { return words_of(*static_cast<const T*>(f)); },
            [](std::string_view text, void* f) { read_words(text, *static_cast<T*>(f)); }};
  else if constexpr (std::is_enum_v<T>)
    return {Type::choice, part, name, &field, Choices<T>::values};
  else if constexpr (std::is_same_v<T, bool>)
    return {Type::flag, part, name, &field};
  else if constexpr (std::is_same_v<T, float>)
    return {Type::number, part, name, &field};
  else
    return {Type::integer, part, name, &field};
}

/// Calls add(line) for all fields of a part, and for those of its parts.
template <class Part, class Add>
void each_line(Part& part, std::string_view part_name, bool writable, const Add& add) {
  Part::each_field(part, [&]<class T>(std::string_view name, T& field, auto... mark) {
    if (!writable && meaning(mark...) == Meaning::added && field == T{}) return;
    if constexpr (HasFields<T>)
      each_line(field, name, writable, add);
    else
      add(line_of(part_name, name, field));
  });
}

/// Whether all choices of a part are among those there are.
template <class Part>
bool choices_exist(const Part& part) {
  bool all = true;
  Part::each_field(part, [&](std::string_view, const auto& field, auto...) {
    using T = std::remove_cvref_t<decltype(field)>;
    if constexpr (HasFields<T>) all = all && choices_exist(field);
    if constexpr (std::is_enum_v<T>) all = all && static_cast<std::size_t>(field) < Choices<T>::values.size();
  });
  return all;
}

}  // namespace config_text_parts

/// A config whose fields are lines, for to_lines and from_lines.
struct ConfigFields {
  Config config;

  /// Of a constant `self` the fields are only read.
  template <class Self, class F>
  static void each_field(Self& self, F&& f) {
    constexpr bool writable = !std::is_const_v<Self>;
    const auto visit = [&](const config_text_parts::Line& line) { line.visit(writable, f); };
    config_text_parts::each_line(const_cast<Config&>(self.config), "", writable, visit);
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
