// Arithmetic that can be checked: problems from a seed, in English and Hindi, and what an answer to one earns.
#pragma once

#include <chimera/align/environment.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>
#include <chimera/core/result.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Where an answer's number stands.
enum class AnswerForm : std::uint8_t {
  think,   // <think>...</think>, and then nothing but the number
  hashes,  // behind #### at the end, as in GSM8K
};

/// The last number of a text. Commas between digits are left out, Devanagari digits are read as others.
std::optional<double> last_number(std::string_view text);

/// 1 if the number is that of the right answer (behind the form's mark, or else the last), and 0.1 more if the form is
/// as it should be.
double answer_reward(std::string_view text, std::string_view right, AnswerForm form);

struct ArithmeticSettings {
  std::string operations = "+-*/";
  std::int64_t least_digits = 1, most_digits = 2;  // of operands, at most 4; of a quotient and a divisor
  double words = 0;                                // share of problems of two steps, told in words
  double hindi = 0;                                // share of problems in Hindi
  double devanagari = 0.5;                         // share of those whose digits are Devanagari
  bool instruct = true;                            // whether a problem says how to answer it
  std::uint64_t seed = 1;

  Result<void> validate() const;
};

/// Which operands a problem has: those held out are two that both begin with 4, 5 or 6.
enum class Operands : std::uint8_t { learned, held_out };

struct ArithmeticProblem {
  std::string question, thought, answer;
};

/// The problem of that number; a function of all that it is given.
ArithmeticProblem arithmetic_problem(const ArithmeticSettings& settings, Operands operands, std::uint64_t number);

/// Endless problems.
class Arithmetic : public Environment {
 public:
  explicit Arithmetic(ArithmeticSettings settings, Operands operands = Operands::learned)
      : settings_(std::move(settings)), operands_(operands) {}

  CHIMERA_FUNCTION Problem problem(std::uint64_t number) const override;
  CHIMERA_FUNCTION void reward(std::span<const Completion> completions, std::span<double> rewards) override;

 private:
  ArithmeticSettings settings_;
  Operands operands_;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace arithmetic_parts {

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// U+0966 to U+096F are E0 A5 A6 to E0 A5 AF in UTF-8.
inline std::string with_ascii_digits(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto last = i + 2 < text.size() ? static_cast<unsigned char>(text[i + 2]) : 0u;
    if (text.substr(i, 2) == "\xE0\xA5" && last >= 0xA6 && last <= 0xAF)
      out += static_cast<char>('0' + (last - 0xA6)), i += 2;
    else
      out += text[i];
  }
  return out;
}
inline std::string with_devanagari_digits(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (is_digit(c))
      out += "\xE0\xA5", out += static_cast<char>(0xA6 + (c - '0'));
    else
      out += c;
  return out;
}

inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view space = " \t\r\n";
  text.remove_prefix(std::min(text.find_first_not_of(space), text.size()));
  return text.substr(0, text.find_last_not_of(space) + 1);
}

/// Whether a text is one number and no more.
inline bool is_number(std::string_view text) {
  const std::string plain = with_ascii_digits(trimmed(text));
  bool digit = false;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    digit = digit || is_digit(plain[i]);
    if (!is_digit(plain[i]) && plain[i] != ',' && plain[i] != '.' && !(i == 0 && plain[i] == '-')) return false;
  }
  return digit;
}

inline std::string joined(std::initializer_list<std::string_view> parts) {
  std::string all;
  for (const std::string_view part : parts) all += part;
  return all;
}

inline std::int64_t result_of(std::int64_t a, char operation, std::int64_t b) {
  switch (operation) {
    case '+': return a + b;
    case '-': return a - b;
    case '*': return a * b;
    default: return a / b;
  }
}

inline std::string equation(std::int64_t a, char operation, std::int64_t b) {
  return joined({std::to_string(a),
                 " ",
                 {&operation, 1},
                 " ",
                 std::to_string(b),
                 " = ",
                 std::to_string(result_of(a, operation, b))});
}

/// How one gets there: sums and differences by the digits of b, from the highest; products by them, added up.
inline std::string worked(std::int64_t a, char operation, std::int64_t b) {
  if (operation == '/') return equation(a, operation, b);
  std::string text;
  std::int64_t power = 1, sum = operation == '*' ? 0 : a;
  while (power <= b / 10) power *= 10;
  bool first = true;
  for (; power > 0; b %= power, power /= 10) {
    const std::int64_t part = b / power * power;
    if (part == 0) continue;
    const std::string before = text.empty() ? "" : ", ";
    if (operation == '*') {
      text += before + equation(a, '*', part);
      if (!first) text += ", " + equation(sum, '+', a * part);
      sum += a * part;
    } else {
      text += before + equation(sum, operation, part);
      sum = result_of(sum, operation, part);
    }
    first = false;
  }
  return text;
}

/// Two operands, each with a count of digits of its own.
struct Pair {
  std::int64_t a, b;
};
inline Pair draw_pair(Random& random, const ArithmeticSettings& s, Operands operands) {
  const auto one = [&](bool& middle) {
    const auto digits =
        s.least_digits +
        static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(s.most_digits - s.least_digits + 1)));
    std::int64_t power = 1;
    for (std::int64_t d = 1; d < digits; ++d) power *= 10;
    const bool out = operands == Operands::held_out;
    const std::int64_t n = power * (out ? 4 : 1) +
                           static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(power * (out ? 3 : 9))));
    middle = n / power >= 4 && n / power <= 6;
    return n;
  };
  while (true) {
    bool first = false, second = false;
    const std::int64_t a = one(first), b = one(second);
    if (operands == Operands::held_out || !(first && second)) return {a, b};
  }
}

/// A problem of two steps, told in words: {A}, {B}, {C} are numbers, {N} is a name, {T} what is counted.
struct Story {
  std::string_view operations;  // first and second
  std::string_view english, hindi;
};
inline constexpr std::array<Story, 3> stories{{
    {"+-", "{N} has {A} {T}. {B} more come, and {C} are given away. How many {T} are left?",
     "{N} के पास {A} {T} थे। {B} {T} और मिले और {C} {T} बाँट दिए गए। अब कितने {T} बचे?"},
    {"*-", "{N} has {A} boxes of {B} {T} each. {C} {T} are lost. How many {T} are left?",
     "{N} के पास {A} डिब्बे हैं और हर डिब्बे में {B} {T} हैं। {C} {T} खो गए। कितने {T} बचे?"},
    {"/+", "{N} shares {A} {T} equally among {B} children. Each gets {C} more. How many {T} has each child?",
     "{N} ने {A} {T} {B} बच्चों में बराबर बाँटे। हर बच्चे को {C} {T} और मिले। हर बच्चे के पास कितने {T} हैं?"},
}};
inline constexpr std::array<std::array<std::string_view, 2>, 4> names{
    {{"Asha", "आशा"}, {"Ravi", "रवि"}, {"Meena", "मीना"}, {"John", "जॉन"}}};
inline constexpr std::array<std::array<std::string_view, 2>, 4> things{
    {{"apples", "सेब"}, {"coins", "सिक्के"}, {"flowers", "फूल"}, {"mangoes", "आम"}}};

}  // namespace arithmetic_parts

CHIMERA_FUNCTION std::optional<double> last_number(std::string_view text) {
  using namespace arithmetic_parts;
  const std::string plain = with_ascii_digits(text);
  std::optional<double> found;
  for (std::size_t i = 0; i < plain.size();) {
    if (!is_digit(plain[i])) {
      ++i;
      continue;
    }
    std::string number;
    const bool minus = i > 0 && plain[i - 1] == '-' && (i == 1 || !is_digit(plain[i - 2]));
    const bool sign = minus || (i > 2 && plain.substr(i - 3, 3) == "\xE2\x88\x92");  // U+2212
    bool point = false;
    for (; i < plain.size(); ++i) {
      const bool more = i + 1 < plain.size() && is_digit(plain[i + 1]);
      if (is_digit(plain[i]))
        number += plain[i];
      else if (plain[i] == '.' && more && !point)
        number += '.', point = true;
      else if (plain[i] != ',' || !more)
        break;
    }
    found = std::strtod(number.c_str(), nullptr) * (sign ? -1 : 1);
  }
  return found;
}

CHIMERA_FUNCTION double answer_reward(std::string_view text, std::string_view right, AnswerForm form) {
  using namespace arithmetic_parts;
  const std::string_view mark = form == AnswerForm::think ? "</think>" : "####";
  const std::size_t at = text.rfind(mark);
  const std::string_view behind = at == text.npos ? text : text.substr(at + mark.size());
  const std::size_t right_at = right.rfind("####");
  const auto said = last_number(behind), wanted = last_number(right_at == right.npos ? right : right.substr(right_at));
  const bool formed = at != text.npos && text.find(mark) == at && is_number(behind) &&
                      (form == AnswerForm::hashes || trimmed(text).starts_with("<think>"));
  return (said && wanted && *said == *wanted ? 1. : 0.) + (formed ? 0.1 : 0.);
}

CHIMERA_FUNCTION Result<void> ArithmeticSettings::validate() const {
  if (operations.empty() || operations.find_first_not_of("+-*/") != operations.npos)
    return Error{"expected operations of + - * and /, found \"" + operations + "\""};
  if (least_digits < 1 || least_digits > most_digits || most_digits > 4)
    return Error{"operands have 1 to 4 digits, found " + std::to_string(least_digits) + " to " +
                 std::to_string(most_digits)};
  for (const double share : {words, hindi, devanagari})
    if (!(share >= 0 && share <= 1)) return Error{"expected a share from 0 to 1, found " + std::to_string(share)};
  return {};
}

CHIMERA_FUNCTION ArithmeticProblem arithmetic_problem(const ArithmeticSettings& s, Operands operands,
                                                      std::uint64_t number) {
  using namespace arithmetic_parts;
  constexpr std::uint64_t stream = std::uint64_t{0xA417} << 40;  // apart from those of other draws
  Random random{s.seed, stream + number};
  const auto draws = [&](double share) { return double{random.uniform()} < share; };
  const bool hindi = draws(s.hindi), devanagari = draws(s.devanagari) && hindi, told = draws(s.words);
  auto [a, b] = draw_pair(random, s, operands);
  std::vector<const Story*> known;
  for (const Story& story : stories)
    if (s.operations.find(story.operations[0]) != s.operations.npos &&
        s.operations.find(story.operations[1]) != s.operations.npos)
      known.push_back(&story);
  const bool story = told && !known.empty();
  const Story* const of = story ? known[random.below(known.size())] : nullptr;
  const char operation = story ? of->operations[0] : s.operations[random.below(s.operations.size())];
  if (operation == '-' && a < b) std::swap(a, b);
  if (operation == '/') a *= b;

  std::int64_t result = result_of(a, operation, b);
  ArithmeticProblem p;
  p.thought = worked(a, operation, b);
  const std::string by{' ', operation, ' '};
  if (story) {
    const char then = of->operations[1];
    const auto most = static_cast<std::uint64_t>(then == '-' ? result : 99);
    const auto c = static_cast<std::int64_t>(1 + random.below(most));
    const auto& name = names[random.below(names.size())];
    const auto& thing = things[random.below(things.size())];
    for (std::string_view rest = hindi ? of->hindi : of->english; !rest.empty(); rest.remove_prefix(1)) {
      if (rest[0] != '{') {
        p.question += rest[0];
        continue;
      }
      switch (rest[1]) {
        case 'A': p.question += std::to_string(a); break;
        case 'B': p.question += std::to_string(b); break;
        case 'C': p.question += std::to_string(c); break;
        case 'N': p.question += name[hindi]; break;
        default: p.question += thing[hindi];
      }
      rest.remove_prefix(2);
    }
    p.thought += ", " + equation(result, then, c);
    result = result_of(result, then, c);
  } else {
    const std::string asked = std::to_string(a) + by + std::to_string(b);
    p.question = hindi ? asked + " कितना है?" : "What is " + asked + "?";
  }
  p.answer = std::to_string(result);
  if (devanagari)
    for (std::string* text : {&p.question, &p.thought, &p.answer}) *text = with_devanagari_digits(*text);
  if (s.instruct)
    p.question += hindi ? " <think> और </think> के बीच सोचें, फिर केवल संख्या लिखें।"
                        : " Think between <think> and </think>, then write the number alone.";
  return p;
}

CHIMERA_FUNCTION Problem Arithmetic::problem(std::uint64_t number) const {
  ArithmeticProblem p = arithmetic_problem(settings_, operands_, number);
  return {{{"user", std::move(p.question)}}, std::move(p.answer)};
}

CHIMERA_FUNCTION void Arithmetic::reward(std::span<const Completion> completions, std::span<double> rewards) {
  for (std::size_t i = 0; i < completions.size(); ++i)
    rewards[i] = answer_reward(completions[i].text, completions[i].problem->answer, AnswerForm::think);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
