// A model's shape as words on a command line: NAME=VALUE for each field of a config.
#pragma once

#include <chimera/config/config_text.hpp>

#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace config_words_parts {

/// "attention.heads" of "model.attention.heads".
inline std::string_view short_name(std::string_view line) { return line.substr(line.find('.') + 1); }

/// The names of all fields.
inline std::vector<std::string> field_names() {
  std::vector<std::string> names;
  chimera::ConfigFields fields;
  chimera::ConfigFields::each_field(fields,
                                    [&](std::string_view line, auto&) { names.emplace_back(short_name(line)); });
  return names;
}

/// The whole name of a field: its part may be left out where no other has a field of that name, and for `heads`.
inline chimera::Result<std::string> whole_name(std::string_view given) {
  if (given == "heads") return std::string("attention.heads");
  std::string found, all;
  for (const std::string& name : field_names()) {
    if (name == given) return name;
    if (name.ends_with("." + std::string(given)) && !given.empty()) found += (found.empty() ? "" : " or ") + name;
    all += (all.empty() ? "" : ", ") + name;
  }
  if (found.empty())
    return chimera::Error{"no field is named \"" + std::string(given) + "\"; there are count (of layers), " + all};
  if (found.find(' ') != found.npos) return chimera::Error{"which " + std::string(given) + ": " + found + "?"};
  return found;
}

inline chimera::Error wrong_value(const std::string& name, const std::string& expected, std::string_view found) {
  return chimera::Error{name + " takes " + expected + ", found \"" + std::string(found) + "\""};
}

/// `count` blocks, the words in turn; an error for words that the library has no layer of.
inline chimera::Result<chimera::Layers> read_layers(std::string_view words, int count) {
  std::string all;
  std::vector<std::string_view> cycle;
  chimera::pattern_parts::each_word(words, [&](std::string_view word) { cycle.push_back(word); });
  if (cycle.empty() || count < 1 || count > chimera::Layers::max)
    return wrong_value("layers", "1 to " + std::to_string(chimera::Layers::max) + " words", words);
  for (int i = 0; i < count; ++i) all.append(i ? " " : "").append(cycle[static_cast<std::size_t>(i) % cycle.size()]);
  const chimera::Layers layers = chimera::read_pattern(all);
  if (layers.unknown_word || !layers.own[0].name().empty())
    return wrong_value("layers", std::string("words of") + CHIMERA_MIXER_WORDS, words);
  return layers;
}

template <class T>
chimera::Status read_value(const std::string& name, std::string_view text, T& value) {
  if constexpr (std::is_same_v<T, chimera::config_text_parts::Choice>) {
    std::string words;
    for (std::size_t i = 0; i < value.words.size(); ++i) {
      const std::string_view word = value.words[i];
      if (word == text) return value.value = static_cast<std::uint8_t>(i), chimera::Status{};
      words.append(i ? ", " : "").append(word);
    }
    return wrong_value(name, "one of " + words, text);
  } else if constexpr (std::is_same_v<T, bool>) {
    return chimera::from_text(text, value) ? chimera::Status{} : wrong_value(name, "true or false", text);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (chimera::from_text(text, value) && std::isfinite(value)) return {};
    return wrong_value(name, "a number", text);
  } else if constexpr (std::is_integral_v<T>) {
    return chimera::from_text(text, value) ? chimera::Status{} : wrong_value(name, "a whole number", text);
  } else {
    std::size_t count = 0;
    bool numbers = true;
    chimera::pattern_parts::each_word(text, [&](std::string_view word) {
      float number = 0;
      numbers =
          numbers && ++count <= chimera::Rope::most_pairs && chimera::from_text(word, number) && std::isfinite(number);
    });
    if (!numbers) return wrong_value(name, "up to " + std::to_string(chimera::Rope::most_pairs) + " numbers", text);
    value = text;
    return {};
  }
}

}  // namespace config_words_parts

/// Sets the field that a word, NAME=VALUE, says. The config may then break a rule: broken_rule tells.
inline chimera::Status set_field(chimera::Config& config, std::string_view word) {
  using namespace config_words_parts;
  const std::string_view name = word.substr(0, word.find('=')), value = word.substr(name.size() + 1);
  if (name == "layers" || name == "count") {
    int count = 0;
    if (name == "count")
      if (chimera::Status s = read_value("count", value, count); !s) return s;
    const std::string words = name == "layers" ? std::string(value) : pattern_words(config.layers);
    const auto layers = read_layers(words, name == "count" ? count : chimera::pattern_parts::count_words(words));
    if (layers) config.layers = *layers;
    return layers ? chimera::Status{} : layers.error();
  }
  const auto whole = whole_name(name);
  if (!whole) return whole.error();
  chimera::ConfigFields fields{config};
  chimera::Status status;
  chimera::ConfigFields::each_field(fields, [&](std::string_view line, auto& field) {
    if (short_name(line) == *whole) status = read_value(*whole, value, field);
  });
  if (status) config = fields.config;
  return status;
}
