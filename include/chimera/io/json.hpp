// JSON (RFC 8259): text is checked once and then read where it lies. A `Json` is a view of one value; nothing is copied
// and nothing is allocated but the strings that are asked for, so a hostile text costs no more than its own size.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/read_number.hpp>
#include <chimera/core/result.hpp>
#include <chimera/core/utf8.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace chimera {

/// One value of a checked text, which must outlive it. Of two members with one name the first counts: who cares about
/// the second walks `members`.
class Json {
 public:
  enum class Kind : std::uint8_t { null, boolean, number, string, array, object };

  struct Member;
  /// What a `for` loop over an array or object needs. T: Json or Member.
  template <class T>
  class Range;

  /// The whole text is one value. Errors name the place and what stands there.
  static Result<Json> parse(std::string_view text, int max_depth = 64);

  Kind kind() const;
  static constexpr std::string_view name_of(Kind kind) {
    constexpr std::array<std::string_view, 6> names{"null",     "a boolean", "a number",
                                                    "a string", "an array",  "an object"};
    return names[static_cast<std::size_t>(kind)];
  }
  bool is(Kind kind) const { return this->kind() == kind; }
  /// The value as it stands in the text.
  std::string_view text() const { return text_; }

  /// A value of that kind, or none if it is of another (integer: also if it has a fraction or does not fit).
  std::optional<bool> boolean() const;
  std::optional<double> number() const;
  std::optional<std::int64_t> integer() const;
  std::optional<std::string> string() const;

  /// The items of an array, the members of an object; empty for any other kind.
  Range<Json> elements() const;
  Range<Member> members() const;

  /// The member of that name, if this is an object that has one.
  std::optional<Json> find(std::string_view name) const;

  /// A member that must be there. Errors name it, the expected kind and what was found.
  Result<Json> at(std::string_view name, Kind expected) const;
  Result<std::string> string_at(std::string_view name) const;
  Result<double> number_at(std::string_view name) const;
  Result<std::int64_t> integer_at(std::string_view name) const;
  Result<bool> boolean_at(std::string_view name) const;

 private:
  class Checker;

  explicit Json(std::string_view text) : text_(text) {}

  static Error wrong(std::string_view name, std::string_view expected, std::string_view found);

  static constexpr bool space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
  static std::size_t skip_space(std::string_view text, std::size_t at);
  /// In a checked text, where the string that begins at `at` ends, and where any value does.
  static std::size_t skip_string(std::string_view text, std::size_t at);
  static std::size_t skip_value(std::string_view text, std::size_t at);
  static std::uint32_t hex(std::string_view digits);

  std::string_view text_;  // the value alone, without space around it
};

struct Json::Member {
  Json key, value;  // key: a string
};

template <class T>
class Json::Range {
 public:
  class Iterator {
   public:
    explicit Iterator(std::string_view text) : text_(text) { read(); }
    T operator*() const {
      if constexpr (std::is_same_v<T, Member>)
        return {Json(text_.substr(key_, key_end_ - key_)), value()};
      else
        return value();
    }
    Iterator& operator++() {
      at_ = skip_space(text_, end_) + 1;  // behind the comma, or behind the last bracket
      read();
      return *this;
    }
    bool operator==(std::nullptr_t) const { return at_ >= text_.size(); }

   private:
    Json value() const { return Json(text_.substr(at_, end_ - at_)); }
    void read() {
      at_ = skip_space(text_, at_);
      if (at_ < text_.size() && (text_[at_] == ']' || text_[at_] == '}')) at_ = text_.size();
      if (at_ >= text_.size()) return;
      if constexpr (std::is_same_v<T, Member>) {
        key_ = at_, key_end_ = skip_string(text_, at_);
        at_ = skip_space(text_, skip_space(text_, key_end_) + 1);  // behind the colon
      }
      end_ = skip_value(text_, at_);
    }

    std::string_view text_;
    std::size_t at_ = 1, end_ = 0, key_ = 0, key_end_ = 0;  // text_[0] is the bracket
  };

  explicit Range(std::string_view text) : text_(text) {}
  Iterator begin() const { return Iterator(text_); }
  std::nullptr_t end() const { return nullptr; }

 private:
  std::string_view text_;
};

/// Goes over a text once, without recursion: `open_` holds the brackets that are not closed yet.
class Json::Checker {
 public:
  Checker(std::string_view text, int max_depth) : text_(text), max_depth_(static_cast<std::size_t>(max_depth)) {}

  Result<void> run();

 private:
  /// A scalar, an empty array or object, or an opening bracket (with the first key).
  Result<void> value();

  Result<void> key();

  Result<void> string();

  Result<void> escape();

  /// The number in "\uXXXX" at that place.
  std::uint32_t unit(std::size_t at) const;

  Result<void> number();
  bool digits();

  void space() { at_ = skip_space(text_, at_); }
  char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  std::string place() const;
  Error wrong(std::string_view expected) const;

  static constexpr std::uint32_t none = 0xFFFFFFFF;

  std::string_view text_;
  std::size_t at_ = 0, max_depth_;
  std::string open_;
  bool just_opened_ = false;
};

/// The text in quotes, with what JSON needs escaped. Bytes that are no UTF-8 become U+FFFD, one for each.
std::string json_quoted(std::string_view text);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Json::Range<Json> Json::elements() const { return Range<Json>(is(Kind::array) ? text_ : ""); }

CHIMERA_FUNCTION Json::Range<Json::Member> Json::members() const {
  return Range<Member>(is(Kind::object) ? text_ : "");
}

CHIMERA_FUNCTION std::optional<Json> Json::find(std::string_view name) const {
  for (const Member& m : members()) {
    const std::string_view key = m.key.text_.substr(1, m.key.text_.size() - 2);
    if (key.find('\\') == std::string_view::npos ? key == name : m.key.string() == name) return m.value;
  }
  return std::nullopt;
}

CHIMERA_FUNCTION std::optional<std::string> Json::string() const {
  if (!is(Kind::string)) return std::nullopt;
  std::string_view rest = text_.substr(1, text_.size() - 2);
  std::string out;
  out.reserve(rest.size());
  while (true) {
    const std::size_t escape = std::min(rest.find('\\'), rest.size());
    out += rest.substr(0, escape);
    if (escape == rest.size()) return out;
    const char c = rest[escape + 1];
    rest.remove_prefix(escape + 2);
    constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    if (c != 'u') {
      out += meanings[letters.find(c)];
      continue;
    }
    std::uint32_t code = hex(rest.substr(0, 4));
    rest.remove_prefix(4);
    if (code >= 0xD800 && code < 0xDC00) {  // with the low half that follows
      code = 0x10000 + ((code - 0xD800) << 10) + (hex(rest.substr(2, 4)) - 0xDC00);
      rest.remove_prefix(6);
    }
    append_utf8(code, out);
  }
}

CHIMERA_FUNCTION Result<Json> Json::parse(std::string_view text, int max_depth) {
  if (Result<void> s = Checker(text, max_depth).run(); !s) return s.error();
  const std::size_t begin = skip_space(text, 0);
  return Json(text.substr(begin, skip_value(text, begin) - begin));
}

CHIMERA_FUNCTION std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_size(text.substr(at));
    const unsigned char c = static_cast<unsigned char>(text[at]);
    if (length == 0) {
      out += "\xEF\xBF\xBD";
    } else if (c == '"' || c == '\\') {
      out += '\\', out += static_cast<char>(c);
    } else if (c < 0x20) {
      constexpr std::string_view digits = "0123456789abcdef";
      out += c == '\n'   ? "\\n"
             : c == '\t' ? "\\t"
             : c == '\r' ? "\\r"
                         : std::string("\\u00") + digits[c >> 4] + digits[c & 15];
    } else {
      out += text.substr(at, length);
    }
    at += std::max<std::size_t>(1, length);
  }
  return out += '"';
}

CHIMERA_FUNCTION Json::Kind Json::kind() const {
  switch (text_.front()) {
    case 'n': return Kind::null;
    case 't':
    case 'f': return Kind::boolean;
    case '"': return Kind::string;
    case '[': return Kind::array;
    case '{': return Kind::object;
    default: return Kind::number;
  }
}

CHIMERA_FUNCTION std::optional<bool> Json::boolean() const {
  if (!is(Kind::boolean)) return std::nullopt;
  return text_.front() == 't';
}

CHIMERA_FUNCTION std::optional<double> Json::number() const {
  double value = 0;
  if (!is(Kind::number)) return std::nullopt;
  const auto [end, error] = read_number(text_.data(), text_.data() + text_.size(), value);
  if (error != std::errc{}) return std::nullopt;
  return value;
}

CHIMERA_FUNCTION std::optional<std::int64_t> Json::integer() const {
  std::int64_t value = 0;
  if (!is(Kind::number)) return std::nullopt;
  const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
  if (error == std::errc{} && end == text_.data() + text_.size()) return value;
  const auto real = number();  // 1e3 and 2.0 are integers, too
  if (!real || std::fabs(*real) > 9e15 || *real != std::floor(*real)) return std::nullopt;
  return static_cast<std::int64_t>(*real);
}

CHIMERA_FUNCTION Result<Json> Json::at(std::string_view name, Kind expected) const {
  const auto member = find(name);
  if (!member) return wrong(name, name_of(expected), "nothing");
  if (!member->is(expected)) return wrong(name, name_of(expected), name_of(member->kind()));
  return *member;
}

CHIMERA_FUNCTION Result<std::string> Json::string_at(std::string_view name) const {
  const auto member = at(name, Kind::string);
  if (!member) return member.error();
  return *member->string();
}

CHIMERA_FUNCTION Result<double> Json::number_at(std::string_view name) const {
  const auto member = at(name, Kind::number);
  if (!member) return member.error();
  const auto value = member->number();
  if (!value) return wrong(name, "a number of double precision", member->text_);
  return *value;
}

CHIMERA_FUNCTION Result<std::int64_t> Json::integer_at(std::string_view name) const {
  const auto member = at(name, Kind::number);
  if (!member) return member.error();
  const auto value = member->integer();
  if (!value) return wrong(name, "an integer", member->text_);
  return *value;
}

CHIMERA_FUNCTION Result<bool> Json::boolean_at(std::string_view name) const {
  const auto member = at(name, Kind::boolean);
  if (!member) return member.error();
  return *member->boolean();
}

CHIMERA_FUNCTION Error Json::wrong(std::string_view name, std::string_view expected, std::string_view found) {
  return Error{"\"" + std::string(name) + "\": expected " + std::string(expected) + ", found " +
               std::string(found.substr(0, 40))};
}

CHIMERA_FUNCTION std::size_t Json::skip_space(std::string_view text, std::size_t at) {
  while (at < text.size() && space(text[at])) ++at;
  return at;
}

CHIMERA_FUNCTION std::size_t Json::skip_string(std::string_view text, std::size_t at) {
  for (++at; text[at] != '"'; ++at) at += text[at] == '\\';
  return at + 1;
}

CHIMERA_FUNCTION std::size_t Json::skip_value(std::string_view text, std::size_t at) {
  if (text[at] == '"') return skip_string(text, at);
  if (text[at] != '[' && text[at] != '{') {
    while (at < text.size() && !space(text[at]) && text[at] != ',' && text[at] != ']' && text[at] != '}') ++at;
    return at;
  }
  for (int depth = 0;;) {
    const char c = text[at];
    if (c == '"') {
      at = skip_string(text, at);
      continue;
    }
    depth += (c == '[' || c == '{') - (c == ']' || c == '}');
    ++at;
    if (depth == 0) return at;
  }
}

CHIMERA_FUNCTION std::uint32_t Json::hex(std::string_view digits) {
  std::uint32_t value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  return value;
}

CHIMERA_FUNCTION Result<void> Json::Checker::run() {
  while (true) {
    space();
    if (Result<void> s = value(); !s) return s;
    if (just_opened_) continue;
    while (true) {  // behind a value
      space();
      if (open_.empty()) {
        if (at_ < text_.size()) return wrong("the end of the text");
        return {};
      }
      const bool object = open_.back() == '{';
      if (next() == (object ? '}' : ']')) {
        open_.pop_back(), ++at_;
        continue;
      }
      if (next() != ',') return wrong(object ? "',' or '}'" : "',' or ']'");
      ++at_;
      if (object)
        if (Result<void> s = key(); !s) return s;
      break;
    }
  }
}

CHIMERA_FUNCTION Result<void> Json::Checker::value() {
  just_opened_ = false;
  const char c = next();
  if (c == '"') return string();
  if (c == '-' || (c >= '0' && c <= '9')) return number();
  if (c == '[' || c == '{') {
    ++at_;
    space();
    if (next() == (c == '[' ? ']' : '}')) return ++at_, Result<void>{};
    if (open_.size() >= max_depth_)
      return Error{"expected at most " + std::to_string(max_depth_) + " values inside one another" + place()};
    open_ += c;
    just_opened_ = true;
    return c == '{' ? key() : Result<void>{};
  }
  for (const std::string_view word : {"null", "true", "false"})
    if (text_.substr(at_).starts_with(word)) return at_ += word.size(), Result<void>{};
  return wrong("a value");
}

CHIMERA_FUNCTION Result<void> Json::Checker::key() {
  space();
  if (next() != '"') return wrong("a name in quotes");
  if (Result<void> s = string(); !s) return s;
  space();
  if (next() != ':') return wrong("':'");
  ++at_;
  return {};
}

CHIMERA_FUNCTION Result<void> Json::Checker::string() {
  ++at_;
  while (true) {
    if (at_ >= text_.size()) return wrong("'\"'");
    const unsigned char c = static_cast<unsigned char>(text_[at_]);
    if (c == '"') return ++at_, Result<void>{};
    if (c < 0x20) return wrong("no control character in a string");
    if (c == '\\') {
      if (Result<void> s = escape(); !s) return s;
    } else if (c < 0x80) {
      ++at_;
    } else {
      const std::size_t bytes = utf8_size(text_.substr(at_));
      if (bytes == 0) return wrong("UTF-8");
      at_ += bytes;
    }
  }
}

CHIMERA_FUNCTION Result<void> Json::Checker::escape() {
  const char c = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
  if (c != 'u') {
    if (c == '\0' || std::string_view("\"\\/bfnrt").find(c) == std::string_view::npos) return wrong("an escape");
    at_ += 2;
    return {};
  }
  const std::uint32_t code = unit(at_);
  const bool high = code >= 0xD800 && code < 0xDC00, low = code >= 0xDC00 && code < 0xE000;
  if (code == none || low) return wrong("a character's \\uXXXX");
  if (high) {
    const std::uint32_t second = unit(at_ + 6);
    if (second == none || second < 0xDC00 || second >= 0xE000) return wrong("both halves of a character");
  }
  at_ += high ? 12 : 6;
  return {};
}

CHIMERA_FUNCTION std::uint32_t Json::Checker::unit(std::size_t at) const {
  const std::string_view digits = at + 6 <= text_.size() ? text_.substr(at, 6) : "";
  if (!digits.starts_with("\\u") || digits.find_first_not_of("0123456789abcdefABCDEF", 2) != std::string_view::npos)
    return none;
  return hex(digits.substr(2));
}

CHIMERA_FUNCTION Result<void> Json::Checker::number() {
  if (next() == '-') ++at_;
  if (next() == '0')
    ++at_;
  else if (!digits())
    return wrong("a digit");
  if (next() == '.') {
    ++at_;
    if (!digits()) return wrong("a digit");
  }
  if (next() == 'e' || next() == 'E') {
    ++at_;
    if (next() == '+' || next() == '-') ++at_;
    if (!digits()) return wrong("a digit");
  }
  return {};
}

CHIMERA_FUNCTION bool Json::Checker::digits() {
  const std::size_t start = at_;
  while (next() >= '0' && next() <= '9') ++at_;
  return at_ > start;
}

CHIMERA_FUNCTION std::string Json::Checker::place() const {
  const std::string_view before = text_.substr(0, at_);
  return " at byte " + std::to_string(at_) + " (line " +
         std::to_string(1 + std::count(before.begin(), before.end(), '\n')) + ")";
}

CHIMERA_FUNCTION Error Json::Checker::wrong(std::string_view expected) const {
  const std::size_t length = std::max<std::size_t>(1, utf8_size(text_.substr(std::min(at_, text_.size()))));
  std::string found = "the end of the text";
  if (at_ < text_.size()) {
    const unsigned char c = static_cast<unsigned char>(text_[at_]);
    found = (c < 0x20 || (c >= 0x80 && length == 1)) ? "the byte " + std::to_string(c)
                                                     : "'" + std::string(text_.substr(at_, length)) + "'";
  }
  return Error{"expected " + std::string(expected) + place() + ", found " + found};
}

}  // namespace chimera
#endif
