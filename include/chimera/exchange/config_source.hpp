// A config as C++ source: what a file tells at run time becomes the constexpr value that a model is compiled from. The
// whole file can become part of the program, too.
#pragma once

#include <chimera/config/config.hpp>
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
#include <type_traits>

namespace chimera {

/// A letter, then letters, digits and single underscores, 100 at most: an identifier that is reserved nowhere but as a
/// keyword.
constexpr bool is_identifier(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (name.empty() || name.size() > 100 || !letter(name[0]) || name.find("__") != name.npos) return false;
  return std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9') || c == '_'; });
}

/// An identifier made from any text, a file's name for one: "7b-v1.0" becomes "model_7b_v1_0_config". It ends in _config,
/// as no keyword and no macro of a compiler does.
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

template <class E>
struct Words;  // an enum's name and the names of its values, in order

template <>
struct Words<RopeLayout> {
  static constexpr std::string_view type = "RopeLayout";
  static constexpr std::array<std::string_view, 2> values{"adjacent", "halves"};
};
template <>
struct Words<RopeScaling> {
  static constexpr std::string_view type = "RopeScaling";
  static constexpr std::array<std::string_view, 7> values{"none", "linear", "ntk",     "dynamic_ntk",
                                                          "yarn", "llama3", "longrope"};
};
template <>
struct Words<Position> {
  static constexpr std::string_view type = "Position";
  static constexpr std::array<std::string_view, 3> values{"none", "rope", "alibi"};
};

/// "1e-05f": the shortest text that reads back as the same bits.
inline std::string text_of(float x) {
  if (!std::isfinite(x)) {
    constexpr std::string_view limits = "std::numeric_limits<float>::";
    return std::string(std::signbit(x) ? "-" : "").append(limits).append(std::isnan(x) ? "quiet_NaN()" : "infinity()");
  }
  char digits[32];
  std::string text{digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
  if (text.find_first_of(".e") == text.npos) text += '.';
  return text += 'f';
}
inline std::string text_of(int x) { return std::to_string(x); }
inline std::string text_of(bool x) { return x ? "true" : "false"; }
template <class E, std::size_t count = Words<E>::values.size()>
std::string text_of(E x) {
  const auto i = static_cast<std::size_t>(x);
  const std::string type = "chimera::" + std::string(Words<E>::type);
  return i < count ? type + "::" + std::string(Words<E>::values[i]) : type + "(" + std::to_string(i) + ")";
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
    words.append(i ? " " : "").append(layers.word(layers[i]));
  std::string own;
  for (const OwnWord& w : layers.own)
    if (!w.word().empty()) own.append(own.empty() ? "\"" : ", \"").append(w.word()).append("\"");
  return "chimera::pattern(\"" + words + (repeated ? "\", " + std::to_string(layers.count) : "\"") +
         (own.empty() ? "" : ", {" + own + "}") + ")";
}

/// The members of a struct that are not at their default, as a braced list.
class Initializer {
 public:
  explicit Initializer(std::string_view between = ", ") : between_(between) {}

  template <class T>
  Initializer& member(std::string_view name, const T& value, const T& usual) {
    std::string text = text_of(value);
    return text == text_of(usual) ? *this : add(name, text);
  }
  Initializer& member(std::string_view name, const Initializer& nested) {
    return nested.members_.empty() ? *this : add(name, "{" + nested.members_ + "}");
  }
  const std::string& members() const { return members_; }

 private:
  Initializer& add(std::string_view name, std::string_view text) {
    members_.append(members_.empty() ? "" : between_).append(".").append(name).append(" = ").append(text);
    return *this;
  }

  std::string_view between_;
  std::string members_;
};

// The names taken apart are all members: a new one stops compilation here, to be added.

inline Initializer initializer(const Rope& r) {
  const auto& [base, dims, layout, scaling, factor, original_context, attention_factor, beta_fast, beta_slow, mscale,
               mscale_all_dim, low_freq_factor, high_freq_factor, short_factor, long_factor] = r;
  const Rope usual;
  Initializer i;
  i.member("base", base, usual.base).member("dims", dims, usual.dims).member("layout", layout, usual.layout);
  i.member("scaling", scaling, usual.scaling).member("factor", factor, usual.factor);
  i.member("original_context", original_context, usual.original_context);
  i.member("attention_factor", attention_factor, usual.attention_factor);
  i.member("beta_fast", beta_fast, usual.beta_fast).member("beta_slow", beta_slow, usual.beta_slow);
  i.member("mscale", mscale, usual.mscale).member("mscale_all_dim", mscale_all_dim, usual.mscale_all_dim);
  i.member("low_freq_factor", low_freq_factor, usual.low_freq_factor);
  i.member("high_freq_factor", high_freq_factor, usual.high_freq_factor);
  i.member("short_factor", short_factor, usual.short_factor).member("long_factor", long_factor, usual.long_factor);
  return i;
}

inline Initializer initializer(const AttentionConfig& a) {
  const auto& [heads, kv_heads, head_dim, window, scale, position, rope] = a;
  const AttentionConfig usual;
  Initializer i;
  i.member("heads", heads, usual.heads).member("kv_heads", kv_heads, usual.kv_heads);
  i.member("head_dim", head_dim, usual.head_dim).member("window", window, usual.window);
  i.member("scale", scale, usual.scale).member("position", position, usual.position).member("rope", initializer(rope));
  return i;
}

inline Initializer initializer(const Mamba2Config& m) {
  const auto& [expand, head_dim, state, groups, conv, chunk, dt_min, dt_max] = m;
  const Mamba2Config usual;
  Initializer i;
  i.member("expand", expand, usual.expand).member("head_dim", head_dim, usual.head_dim);
  i.member("state", state, usual.state).member("groups", groups, usual.groups).member("conv", conv, usual.conv);
  i.member("chunk", chunk, usual.chunk).member("dt_min", dt_min, usual.dt_min).member("dt_max", dt_max, usual.dt_max);
  return i;
}

inline Initializer initializer(const RgLruConfig& r) {
  const auto& [inner, heads, conv, bias] = r;
  const RgLruConfig usual;
  Initializer i;
  i.member("inner", inner, usual.inner).member("heads", heads, usual.heads);
  i.member("conv", conv, usual.conv).member("bias", bias, usual.bias);
  return i;
}

inline Initializer initializer(const FfnConfig& f) {
  const auto& [hidden] = f;
  return Initializer{}.member("hidden", hidden, FfnConfig{}.hidden);
}

inline Initializer initializer(const Config& c) {
  const auto& [vocab, width, context, layers, attention, mamba2, rg_lru, ffn, tied, sub_norm, norm_eps, embedding_scale,
               residual_scale, logit_scale, dropout, checkpointing] = c;
  const Config usual;
  Initializer i{",\n    "};
  i.member("vocab", vocab, usual.vocab).member("width", width, usual.width).member("context", context, usual.context);
  i.member("layers", layers, usual.layers).member("attention", initializer(attention));
  i.member("mamba2", initializer(mamba2)).member("rg_lru", initializer(rg_lru)).member("ffn", initializer(ffn));
  i.member("tied", tied, usual.tied).member("sub_norm", sub_norm, usual.sub_norm);
  i.member("norm_eps", norm_eps, usual.norm_eps);
  i.member("embedding_scale", embedding_scale, usual.embedding_scale);
  i.member("residual_scale", residual_scale, usual.residual_scale);
  i.member("logit_scale", logit_scale, usual.logit_scale).member("dropout", dropout, usual.dropout);
  i.member("checkpointing", checkpointing, usual.checkpointing);
  return i;
}

/// `text` as one line of a comment: what could end the comment, hide in it or turn it round becomes '_'.
inline std::string comment_text(std::string_view text) {
  std::string line{text};
  for (char& c : line)
    if (c < ' ' || c > '~' || c == '\\' || c == '?') c = '_';
  return line;
}

}  // namespace config_source_parts

/// `inline constexpr chimera::Config NAME{...};` with the members that are not at their default. An error if `name` is no
/// identifier, or the layers none that a pattern can say.
inline Result<std::string> config_source(const Config& config, std::string_view name) {
  if (!is_identifier(name))
    return Error{"expected an identifier (a letter, then letters, digits and single underscores), found \"" +
                 std::string(name) + "\""};
  if (config.layers.unknown_word || config.layers.count < 1 || config.layers.count > Layers::max)
    return Error{"expected a pattern of 1 to " + std::to_string(Layers::max) + " layers, found " +
                 (config.layers.unknown_word ? "a word that names no layer" : std::to_string(config.layers.count))};
  return "inline constexpr chimera::Config " + std::string(name) + "{\n    " +
         config_source_parts::initializer(config).members() + "};\n";
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

/// A C++ file that defines `std::span<const std::byte> NAME_file()`: all of the file at `path`, an absolute one, aligned
/// to 64 bytes. The assembler reads the file when this is compiled. An error if `name` is no identifier.
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
