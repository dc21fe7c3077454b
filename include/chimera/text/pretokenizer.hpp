// Cutting text into the pieces inside which byte-pair merges happen. Each rule set is a regular expression of a known
// tokenizer, written as a scanner that reads every character once or twice and never backtracks further. The
// expressions stand in `pretokenizer_rules`; tests hold the scanners against PCRE2.
#pragma once

#include <chimera/text/unicode.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chimera {

enum class PreTokenizer : std::uint8_t { gpt2, llama3, qwen2, qwen35, cl100k, o200k, tekken, llama_cpp, smollm };

/// What a rule set is called in GGUF files (`tokenizer.ggml.pre`) and how files for other programs spell it. Of
/// several expressions, a line each, every one cuts what those before it left.
struct PreTokenizerRules {
  PreTokenizer id;
  std::string_view name, regex;
};

/// In the order of PreTokenizer. o200k goes out under the name whose rules in llama.cpp keep marks in words and look up
/// whole words first, as o200k does; under "gpt-4o" llama.cpp cuts Devanagari at its vowel signs. llama_cpp: what
/// llama.cpp takes for files that do not name their rules.
inline constexpr std::array<PreTokenizerRules, 9> pretokenizer_rules{{
    {PreTokenizer::gpt2, "gpt-2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::llama3, "llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
     R"(\s+(?!\S)|\s+)"},
    {PreTokenizer::qwen2, "qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
     R"(\s+(?!\S)|\s+)"},
    {PreTokenizer::qwen35, "qwen35",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::cl100k, "dbrx",
     R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s++$|\s*[\r\n]|)"
     R"(\s+(?!\S)|\s)"},
    {PreTokenizer::o200k, "granite-embed-multi-97m",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
     R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::tekken, "tekken",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
     R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {PreTokenizer::llama_cpp, "default",
     "[\\p{P}\\$\\+<=>\\^~\\|]+\n"
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)\n"
     "\\p{N}+\n"
     "[0-9][0-9][0-9]"},
    {PreTokenizer::smollm, "smollm",
     "\\p{N}\n"
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
}};

/// Other names of the same rules in GGUF files.
inline constexpr std::array<PreTokenizerRules, 25> pretokenizer_aliases{{
    {PreTokenizer::gpt2, "gpt2", ""},
    {PreTokenizer::gpt2, "phi-2", ""},
    {PreTokenizer::gpt2, "mpt", ""},
    {PreTokenizer::gpt2, "olmo", ""},
    {PreTokenizer::gpt2, "gigachat", ""},
    {PreTokenizer::gpt2, "mellum", ""},
    {PreTokenizer::llama3, "llama3", ""},
    {PreTokenizer::llama3, "llama-v3", ""},
    {PreTokenizer::llama3, "falcon3", ""},
    {PreTokenizer::llama3, "pixtral", ""},
    {PreTokenizer::llama3, "smaug-bpe", ""},
    {PreTokenizer::llama3, "chatglm-bpe", ""},
    {PreTokenizer::qwen2, "deepseek-r1-qwen", ""},
    {PreTokenizer::qwen2, "stablelm2", ""},
    {PreTokenizer::qwen2, "hunyuan", ""},
    {PreTokenizer::qwen2, "megrez", ""},
    {PreTokenizer::o200k, "gpt-4o", ""},
    {PreTokenizer::o200k, "llama4", ""},
    {PreTokenizer::smollm, "refact", ""},
    {PreTokenizer::smollm, "command-r", ""},
    {PreTokenizer::smollm, "starcoder", ""},
    {PreTokenizer::smollm, "codeshell", ""},
    {PreTokenizer::smollm, "exaone", ""},
    {PreTokenizer::smollm, "minerva-7b", ""},
    {PreTokenizer::smollm, "mellum2", ""},
}};

constexpr const PreTokenizerRules& rules(PreTokenizer id) { return pretokenizer_rules[static_cast<std::size_t>(id)]; }

/// The rules of that name in a GGUF file.
constexpr std::optional<PreTokenizer> pretokenizer_named(std::string_view name) {
  for (const auto& r : pretokenizer_rules)
    if (r.name == name) return r.id;
  for (const auto& r : pretokenizer_aliases)
    if (r.name == name) return r.id;
  return std::nullopt;
}

/// The rules that this regular expression spells, as `pretokenizer_rules` has them or with other possessive
/// quantifiers, which change nothing here.
inline std::optional<PreTokenizer> pretokenizer_of_regex(std::string_view regex) {
  const auto greedy = [](std::string_view pattern) {
    std::string plain;
    for (const char c : pattern) {
      const bool quantified = !plain.empty() && (std::string_view("?+*").find(plain.back()) != std::string_view::npos ||
                                                 plain.ends_with("{1,3}"));
      if (c != '+' || !quantified) plain += c;
    }
    return plain;
  };
  for (const auto& r : pretokenizer_rules)
    if (greedy(r.regex) == greedy(regex)) return r.id;
  return std::nullopt;
}

namespace pretokenizer_parts {

constexpr unsigned mask(CharClass c) { return 1u << static_cast<unsigned>(c); }
template <class... Classes>
constexpr unsigned any_of(Classes... c) {
  return (mask(c) | ...);
}
template <class... Classes>
constexpr unsigned none_of(Classes... c) {
  return ~(mask(c) | ... | mask(CharClass::end));
}

using enum CharClass;
inline constexpr unsigned letters = any_of(upper, lower, title, modifier, letter);
inline constexpr unsigned spaces = any_of(space, line_end);
inline constexpr unsigned uppers = any_of(upper, title, modifier, letter, mark);  // of a cased word: first these,
inline constexpr unsigned lowers = any_of(lower, modifier, letter, mark);         // then these

struct Char {
  CharClass kind;
  std::uint32_t bytes;
  constexpr bool is(unsigned mask) const { return (mask >> static_cast<unsigned>(kind)) & 1; }
};

inline constexpr auto ascii_classes = [] {
  std::array<CharClass, 128> classes{};
  for (std::uint32_t c = 0; c < 128; ++c) classes[c] = char_class(c);
  return classes;
}();

/// The character at `at`; CharClass::end, of no bytes, at the end.
[[gnu::__always_inline__]] inline Char char_at(const char* at, const char* end) {
  if (at == end) return {CharClass::end, 0};
  const unsigned char byte = static_cast<unsigned char>(*at);
  if (byte < 0x80) return {ascii_classes[byte], 1};
  const CodePoint code = first_code_point({at, static_cast<std::size_t>(end - at)});
  return {char_class(code.value), code.bytes};
}

/// Which bytes are ASCII characters of those classes.
template <unsigned classes>
inline constexpr auto ascii = [] {
  std::array<bool, 256> in{};
  for (std::size_t b = 0; b < 128; ++b) in[b] = (classes >> static_cast<unsigned>(ascii_classes[b])) & 1;
  return in;
}();

/// Where the run of characters of those classes ends, after `most` of them at the latest.
template <unsigned classes, int most = 0>
const char* run(const char* at, const char* end) {
  for (int n = 0; most == 0 || n < most; ++n) {
    if constexpr (most == 0)
      while (at != end && ascii<classes>[static_cast<unsigned char>(*at)]) ++at;
    const Char c = char_at(at, end);
    if (!c.is(classes)) break;
    at += c.bytes;
  }
  return at;
}

/// Bytes of a contraction at `at`: 's 't 're 've 'm 'll 'd; 0 if there is none. Without regard to case, U+017F is an s.
template <bool any_case>
[[gnu::__always_inline__]] inline std::size_t contraction(const char* at, const char* end) {
  if (end - at < 2 || *at != '\'') return 0;
  const auto letter = [&](std::ptrdiff_t i) { return i < end - at ? (any_case ? at[i] | 0x20 : at[i]) : 0; };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd': return 2;
    case 'r':
    case 'v': return letter(2) == 'e' ? 3 : 0;
    case 'l': return letter(2) == 'l' ? 3 : 0;
    default: return any_case && end - at >= 3 && at[1] == '\xC5' && at[2] == '\xBF' ? 3 : 0;
  }
}

/// A word of o200k: capitals, then small letters, where marks and letters without case are both. `start`: behind what
/// may stand before a word; equal to `at` if nothing does. Returns `at` if no word is here.
inline const char* cased_word(const char* at, const char* start, const char* end) {
  const char* all = start;     // behind the run of capitals
  const char* tail = nullptr;  // behind its last character that may also be among the small letters
  Char c = char_at(start, end);
  for (; c.is(uppers); c = char_at(all, end)) {
    all += c.bytes;
    if (c.is(lowers)) tail = all;
  }
  if (c.is(lowers)) return run<lowers>(all, end);
  if (tail) return tail;
  if (start != at && char_at(at, end).is(any_of(mark))) return start;  // the mark is a word, not what stands before one
  return all > start ? all : at;
}

/// Whether three ASCII digits are at `at`.
inline bool three_digits(const char* at, const char* end) {
  const auto digit = [&](int i) { return at[i] >= '0' && at[i] <= '9'; };
  return end - at >= 3 && digit(0) && digit(1) && digit(2);
}

/// A piece of the rules llama_cpp. In their order: what is cut off as punctuation ends what is before it as the end of
/// a text does; there gpt2's rules act; then numbers are cut from the blank before them, and by three digits.
inline const char* llama_cpp_piece_end(const char* at, const char* end) {
  const auto cut_off = [](const char* c, Char is) {
    return is.is(any_of(punctuation)) ||
           (is.bytes == 1 && std::string_view("$+<=>^~|").find(*c) != std::string_view::npos);
  };
  const auto run_of = [&](const char* from, auto&& belongs) {
    for (Char c = char_at(from, end); c.bytes > 0 && belongs(from, c); c = char_at(from, end)) from += c.bytes;
    return from;
  };
  const Char first = char_at(at, end);
  if (first.is(any_of(number))) {
    if (three_digits(at, end)) return at + 3;
    return run_of(at, [&](const char* c, Char is) { return is.is(any_of(number)) && !three_digits(c, end); });
  }
  if (cut_off(at, first)) return run_of(at, cut_off);
  const char* behind_blank = at + (*at == ' ');
  if (const char* word = run<letters>(behind_blank, end); word > behind_blank) return word;
  if (behind_blank > at && char_at(behind_blank, end).is(any_of(number))) return behind_blank;
  const auto is_symbol = [&](const char* c, Char is) {
    return !is.is(spaces | letters | any_of(number)) && !cut_off(c, is);
  };
  if (const char* symbol = run_of(behind_blank, is_symbol); symbol > behind_blank) return symbol;
  const char* last = at;  // character of the white space
  const char* blank = run_of(at, [&](const char* c, Char is) { return is.is(spaces) && (last = c, true); });
  return blank == end || cut_off(blank, char_at(blank, end)) || last == at ? blank : last;
}

}  // namespace pretokenizer_parts

/// Where the piece ends that begins at `at`, which must not be `end`. Bytes that are no UTF-8 count as symbols.
template <PreTokenizer P>
const char* piece_end(const char* at, const char* end) {
  using namespace pretokenizer_parts;
  if constexpr (P == PreTokenizer::llama_cpp) return llama_cpp_piece_end(at, end);
  constexpr bool cased = P == PreTokenizer::o200k || P == PreTokenizer::tekken;
  constexpr bool single_numbers = P == PreTokenizer::smollm;  // and what is before one ends there as a text does
  constexpr bool gpt2 = P == PreTokenizer::gpt2 || single_numbers;
  constexpr bool marks_in_words = P == PreTokenizer::qwen35;
  constexpr unsigned words = marks_in_words ? letters | any_of(mark) : letters;
  constexpr unsigned symbols = ~(spaces | words | any_of(number, CharClass::end));
  constexpr int digits = gpt2                                                                                 ? 0
                         : P == PreTokenizer::qwen2 || P == PreTokenizer::qwen35 || P == PreTokenizer::tekken ? 1
                                                                                                              : 3;

  const Char first = char_at(at, end);
  const char* behind_blank = at + (*at == ' ');
  if constexpr (!cased)
    if (const std::size_t bytes = contraction<!gpt2>(at, end)) return at + bytes;

  if constexpr (gpt2) {
    if (const char* word = run<words>(behind_blank, end); word > behind_blank) return word;
    if (single_numbers && first.is(any_of(number))) return at + first.bytes;
    if (const char* count = run<any_of(number)>(behind_blank, end); count > behind_blank)
      return single_numbers ? behind_blank : count;
  } else {
    const bool before_word = first.is(none_of(line_end, number) & ~letters);
    const char* start = before_word ? at + first.bytes : at;
    if constexpr (cased) {
      const char* word = cased_word(at, start, end);
      if (word > at) return word + (P == PreTokenizer::o200k ? contraction<true>(word, end) : 0);
    } else {
      if (const char* word = run<words>(start, end); word > start) return word;
      if (first.is(words)) return start;  // a mark alone
    }
    if (first.is(any_of(number))) return run<any_of(number), digits>(at, end);
  }

  if (const char* symbol = run<symbols>(behind_blank, end); symbol > behind_blank) {
    if constexpr (!gpt2)
      while (symbol < end && (*symbol == '\r' || *symbol == '\n' || (cased && *symbol == '/'))) ++symbol;
    return symbol;
  }

  const char* newlines = nullptr;  // behind the last newline of the white space
  const char* last = at;           // its last character
  const char* blank = at;
  for (Char c = first; c.is(spaces); c = char_at(blank, end)) {
    last = blank;
    blank += c.bytes;
    if (c.kind == line_end) newlines = blank;
  }
  if (P == PreTokenizer::cl100k && blank == end) return end;
  if (!gpt2 && newlines) return newlines;
  if (single_numbers && char_at(blank, end).is(any_of(number))) return blank;
  return blank == end || last == at ? blank : last;  // the last blank goes with what follows
}

/// Cuts the text, calling `use(std::string_view piece)` for each piece in turn; together they are the whole text.
template <PreTokenizer P, class Use>
void split(std::string_view text, Use&& use) {
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    const char* next = piece_end<P>(at, end);
    use(std::string_view(at, static_cast<std::size_t>(next - at)));
    at = next;
  }
}
template <class Use>
void split(PreTokenizer rules, std::string_view text, Use&& use) {
  switch (rules) {
    case PreTokenizer::gpt2: return split<PreTokenizer::gpt2>(text, use);
    case PreTokenizer::llama3: return split<PreTokenizer::llama3>(text, use);
    case PreTokenizer::qwen2: return split<PreTokenizer::qwen2>(text, use);
    case PreTokenizer::qwen35: return split<PreTokenizer::qwen35>(text, use);
    case PreTokenizer::cl100k: return split<PreTokenizer::cl100k>(text, use);
    case PreTokenizer::o200k: return split<PreTokenizer::o200k>(text, use);
    case PreTokenizer::tekken: return split<PreTokenizer::tekken>(text, use);
    case PreTokenizer::llama_cpp: return split<PreTokenizer::llama_cpp>(text, use);
    case PreTokenizer::smollm: return split<PreTokenizer::smollm>(text, use);
  }
}

}  // namespace chimera
