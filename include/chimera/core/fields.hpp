// A struct of numbers and names as text, one "name value" a line, so that a file can be read by a person and by
// versions with more or fewer fields. The struct lists its fields once:
//   template <class Self, class F> static void each_field(Self& self, F&& f) { f("steps", self.steps); ... }
#pragma once

#include <chimera/core/read_number.hpp>
#include <chimera/core/result.hpp>

#include <charconv>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace chimera {

/// The shortest text that reads back as the same value.
template <class T>
std::string to_text(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<int>(value));
  } else {
    char text[40];
    return {text, std::to_chars(text, text + sizeof text, value).ptr};
  }
}

/// False if the text is not wholly a value of that type.
template <class T>
bool from_text(std::string_view text, T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    value = text;
    return true;
  } else if constexpr (std::is_same_v<T, bool>) {
    value = text == "true";
    return value || text == "false";
  } else if constexpr (std::is_enum_v<T>) {
    std::underlying_type_t<T> number{};
    if (!from_text(text, number)) return false;
    value = static_cast<T>(number);
    return true;
  } else {
    const auto [end, error] = read_number(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size();
  }
}

template <class T>
std::string to_lines(const T& fields) {
  std::string text;
  T::each_field(fields, [&](std::string_view name, const auto& value) {
    text.append(name).append(" ").append(to_text(value)).append("\n");
  });
  return text;
}

/// Unknown names are passed over; a field that is not named keeps its value.
template <class T>
Result<void> from_lines(std::string_view text, T& fields) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos) return Error{"expected \"name value\", found \"" + std::string(line) + "\""};
    bool good = true;
    T::each_field(fields, [&](std::string_view name, auto& value) {
      if (name == line.substr(0, space)) good = from_text(line.substr(space + 1), value);
    });
    if (!good) return Error{"\"" + std::string(line) + "\" has a value that cannot be read"};
  }
  return {};
}

/// "batch 8 is now 16, seed 1 is now 2"; empty when all fields are equal.
template <class T>
std::string differences(const T& before, const T& now) {
  std::string text;
  T::each_field(before, [&](std::string_view name, const auto& value) {
    T::each_field(now, [&](std::string_view other, const auto& new_value) {
      if (name != other || to_text(value) == to_text(new_value)) return;
      if (!text.empty()) text += ", ";
      text.append(name).append(" ").append(to_text(value)).append(" is now ").append(to_text(new_value));
    });
  });
  return text;
}

}  // namespace chimera
