// A JSON object as it is written: its members, one a line.
#pragma once

#include <chimera/core/fields.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/io/json.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace chimera {

/// A number as transformers' strict configs want it where it is no integer's: 15.0.
inline std::string real_text(const std::string& text) {
  return text.find_first_not_of("-0123456789") == text.npos ? text + ".0" : text;
}

class JsonMembers {
 public:
  void add(std::string_view name, const std::string& json) {
    text_.append(text_.empty() ? "{\n  " : ",\n  ").append(json_quoted(name)).append(": ").append(json);
  }
  void add_text(std::string_view name, std::string_view value) { add(name, json_quoted(value)); }
  void add_number(std::string_view name, std::int64_t value) { add(name, std::to_string(value)); }
  void add_number(std::string_view name, float value) { add(name, to_text(value)); }
  void add_numbers(std::string_view name, std::span<const float> values);
  void add_flag(std::string_view name, bool value) { add(name, value ? "true" : "false"); }
  void add_id(std::string_view name, std::int32_t id) { add(name, id < 0 ? "null" : std::to_string(id)); }
  std::string text() const { return text_ + "\n}"; }

 private:
  std::string text_;
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION void JsonMembers::add_numbers(std::string_view name, std::span<const float> values) {
  std::string list = "[";
  for (const float v : values) list.append(list.size() > 1 ? ", " : "").append(to_text(v));
  add(name, list + "]");
}

}  // namespace chimera
#endif
