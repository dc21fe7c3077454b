// A config as C++ source: what a file tells at run time becomes the constexpr value that a model is compiled from. The
// whole file can become part of the program, too.
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/core/float_bits.hpp>
#include <chimera/core/result.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chimera {

/// A letter, then letters, digits and single underscores, 100 at most: an identifier that is reserved nowhere but as a
/// keyword.
constexpr bool is_identifier(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (name.empty() || name.size() > 100 || !letter(name[0]) || name.find("__") != name.npos) return false;
  return std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9') || c == '_'; });
}

/// An identifier made from any text, a file's name for one: "7b-v1.0" becomes "model_7b_v1_0_config". It ends in
/// _config, as no keyword and no macro of a compiler does.
inline std::string config_identifier(std::string_view text) {
  constexpr std::string_view end = "config";
  std::string name;
  for (const char c : text.substr(0, 64)) {
    if (is_identifier(std::string{'a', c}) && c != '_')
      name += c;
    else if (!name.empty() && name.back() != '_')
      name += '_';
  }
  if (!is_identifier(name)) name.insert(0, "model_");
  if (name.back() != '_') name += '_';
  return name.append(end);
}

namespace config_source_parts {

/// "1e-05f": the shortest text that reads back as the same bits.
inline std::string text_of(float x) {
  if (!is_finite(x)) {
    constexpr std::string_view limits = "std::numeric_limits<float>::";
    return std::string(std::signbit(x) ? "-" : "").append(limits).append(is_nan(x) ? "quiet_NaN()" : "infinity()");
  }
  char digits[32];
  std::string text{digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
  if (text.find_first_of(".e") == text.npos) text += '.';
  return text += 'f';
}
inline std::string text_of(int x) { return std::to_string(x); }
inline std::string text_of(bool x) { return x ? "true" : "false"; }
template <class E, std::size_t count = Choices<E>::values.size()>
std::string text_of(E x) {
  const auto i = static_cast<std::size_t>(x);
  const std::string type = "chimera::" + std::string(Choices<E>::type);
  return i < count ? type + "::" + std::string(Choices<E>::values[i]) : type + "(" + std::to_string(i) + ")";
}
/// Zeros at the end are left out.
template <std::size_t n>
std::string text_of(const std::array<float, n>& x) {
  std::size_t used = n;
  while (used > 0 && std::bit_cast<std::uint32_t>(x[used - 1]) == 0) --used;
  std::string text;
  for (std::size_t i = 0; i < used; ++i) text.append(i ? ", " : "").append(text_of(x[i]));
  return "{" + text + "}";
}
/// `pattern("M M M A", 12)`, or each block's word where nothing is said twice.
inline std::string text_of(const Layers& layers) {
  if (layers.count == 0) return "chimera::Layers{}";
  int period = 1;
  const auto repeats = [&] {
    for (int i = period; i < layers.count; ++i)
      if (layers.block(i) != layers.block(i - period)) return false;
    return true;
  };
  while (!repeats()) ++period;
  const bool repeated = 2 * period <= layers.count;
  std::string words;
  for (int i = 0; i < (repeated ? period : layers.count); ++i)
    words.append(i ? " " : "").append(layers.name(layers[i])).append(layers.ffn_word(i));
  std::string own;
  for (const OwnWord& w : layers.own)
    if (!w.name().empty()) own.append(own.empty() ? "\"" : ", \"").append(w.name()).append("\"");
  return "chimera::pattern(\"" + words + (repeated ? "\", " + std::to_string(layers.count) : "\"") +
         (own.empty() ? "" : ", {" + own + "}") + ")";
}

/// The members of a part that are not at their default, as a braced list.
template <HasFields T>
std::string text_of(const T& part, std::string_view between = ", ") {
  std::vector<std::string> usual;
  const T none{};
  T::each_field(none, [&](std::string_view, const auto& field, auto...) { usual.push_back(text_of(field)); });
  std::string members;
  std::size_t i = 0;
  T::each_field(part, [&](std::string_view name, const auto& field, auto...) {
    const std::string text = text_of(field);
    if (text != usual[i++])
      members.append(members.empty() ? "" : between).append(".").append(name).append(" = ").append(text);
  });
  return "{" + members + "}";
}

/// `text` as one line of a comment: what could end the comment, hide in it or turn it round becomes '_'.
inline std::string comment_text(std::string_view text) {
  std::string line{text};
  for (char& c : line)
    if (c < ' ' || c > '~' || c == '\\' || c == '?') c = '_';
  return line;
}

}  // namespace config_source_parts

/// `inline constexpr chimera::Config NAME{...};` with the members that are not at their default. An error if `name` is
/// no identifier, or the layers none that a pattern can say.
inline Result<std::string> config_source(const Config& config, std::string_view name) {
  if (!is_identifier(name))
    return Error{"expected an identifier (a letter, then letters, digits and single underscores), found \"" +
                 std::string(name) + "\""};
  if (config.layers.unknown_word || config.layers.count < 1 || config.layers.count > Layers::max)
    return Error{"expected a pattern of 1 to " + std::to_string(Layers::max) + " layers, found " +
                 (config.layers.unknown_word ? "a word that names no layer" : std::to_string(config.layers.count))};
  return "inline constexpr chimera::Config " + std::string(name) + "{\n    " +
         config_source_parts::text_of(config, ",\n    ").substr(1) + ";\n";
}

/// A whole header that declares the config; `facts` are lines of its comment, as text: none of it becomes code. With
/// `embedded` it also declares what embedding_source defines.
inline Result<std::string> config_header(const Config& config, std::string_view name, std::string_view facts,
                                         bool embedded = false) {
  auto declaration = config_source(config, name);
  if (!declaration) return declaration;
  std::string header;
  while (!facts.empty()) {
    const std::string_view line = facts.substr(0, facts.find('\n'));
    facts.remove_prefix(std::min(facts.size(), line.size() + 1));
    header.append("// ").append(config_source_parts::comment_text(line)).append("\n");
  }
  header += "#pragma once\n\n#include <chimera/config/config.hpp>\n\n";
  if (embedded) header += "#include <cstddef>\n#include <span>\n\n";
  header += *declaration;
  if (embedded) header += "\n/// The whole file.\nstd::span<const std::byte> " + std::string(name) + "_file();\n";
  return header;
}

/// A C++ file that defines `std::span<const std::byte> NAME_file()`: all of the file at `path`, an absolute one,
/// aligned to 64 bytes. The assembler reads the file when this is compiled. An error if `name` is no identifier.
inline Result<std::string> embedding_source(std::string_view name, std::string_view path) {
  if (!is_identifier(name)) return Error{"expected an identifier, found \"" + std::string(name) + "\""};
  std::string quoted;  // by octal numbers, for the assembler, in a literal of C++
  for (const char c : path) {
    if (is_identifier(std::string{'a', c}) || c == '/' || c == '.' || c == '-') {
      quoted += c;
      continue;
    }
    quoted += "\\\\";
    for (int shift = 6; shift >= 0; shift -= 3)
      quoted += static_cast<char>('0' + (static_cast<unsigned char>(c) >> shift) % 8);
  }
  const std::string function = std::string(name) + "_file", label = "chimera_" + function;
  std::string source = "#include <cstddef>\n#include <span>\n\n__asm__(\n";
  for (const std::string& line :
       {std::string(".pushsection .rodata"), std::string(".balign 64"), ".globl " + label + ", " + label + "_end",
        ".hidden " + label + ", " + label + "_end", label + ":", ".incbin \\\"" + quoted + "\\\"",
        label + "_end:", std::string(".popsection")})
    source += "    \"" + line + "\\n\"\n";
  return source + ");\n\nextern \"C\" const std::byte " + label + "[], " + label +
         "_end[];\n\nstd::span<const std::byte> " + function + "();\nstd::span<const std::byte> " + function +
         "() { return {" + label + ", " + label + "_end}; }\n";
}

}  // namespace chimera
