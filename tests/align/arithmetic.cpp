// Arithmetic from a seed, and what answers to it earn.
#include <chimera/align/arithmetic.hpp>

#include <doctest/doctest.h>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>

using namespace chimera;

TEST_CASE("the last number of a text") {
  CHECK(last_number("2 + 3 = 5.") == 5);
  CHECK(last_number("it costs $1,234,567.") == 1234567);
  CHECK(last_number("about 12.50, or so") == 12.5);
  CHECK(last_number("१२ और ३४,५६७") == 34567);
  CHECK(last_number("3 - 8 = -5") == -5);
  CHECK(last_number("3 \xE2\x88\x92 8 = \xE2\x88\x92"
                    "5") == -5);
  CHECK(last_number("10-4") == 4);
  CHECK(last_number("1, 2") == 2);
  CHECK(!last_number("none, and \xE0\xA5"));
}

TEST_CASE("an answer earns 1 for its number and 0.1 for its form") {
  const auto think = [](const char* text) { return answer_reward(text, "42", AnswerForm::think); };
  CHECK(think("<think>40 + 2 = 42</think>42") == doctest::Approx(1.1));
  CHECK(think(" <think>so</think>\n ४२ \n") == doctest::Approx(1.1));
  CHECK(think("<think>42</think>41") == doctest::Approx(0.1));
  CHECK(think("<think>41</think> it is 42") == 1);
  CHECK(think("it is 42") == 1);
  CHECK(think("<think>a</think>b</think>42") == 1);
  CHECK(think("<think>42") == 1);
  CHECK(think("42 or <think></think>") == 0);
  CHECK(think("") == 0);
  const auto hashes = [](const char* text) { return answer_reward(text, "6 x 7 is\n#### 1,042", AnswerForm::hashes); };
  CHECK(hashes("then\n#### 1042") == doctest::Approx(1.1));
  CHECK(hashes("1042\n#### 1043") == doctest::Approx(0.1));
  CHECK(hashes("it is 1,042.") == 1);
}

TEST_CASE("problems are right, and those held out are none of those learned") {
  ArithmeticSettings s{.most_digits = 4, .words = 0.4, .hindi = 0.4, .instruct = false, .seed = 7};
  REQUIRE(s.validate().ok());
  std::set<std::string> learned;
  int devanagari = 0;
  for (std::uint64_t n = 0; n < 400; ++n) {
    const ArithmeticProblem p = arithmetic_problem(s, Operands::learned, n);
    CAPTURE(p.question);
    CHECK(p.question == arithmetic_problem(s, Operands::learned, n).question);
    CHECK(p.question.find('{') == std::string::npos);
    CHECK(last_number(p.thought) == last_number(p.answer));
    CHECK(answer_reward("<think>" + p.thought + "</think>" + p.answer, p.answer, AnswerForm::think) ==
          doctest::Approx(1.1));
    devanagari += p.answer.find("\xE0\xA5") != std::string::npos;
  }
  CHECK(devanagari > 40);
  CHECK(devanagari < 130);

  s = {.operations = "-", .instruct = false};
  for (std::uint64_t n = 0; n < 400; ++n) learned.insert(arithmetic_problem(s, Operands::learned, n).question);
  for (std::uint64_t n = 0; n < 200; ++n) {
    const ArithmeticProblem p = arithmetic_problem(s, Operands::held_out, n);
    CHECK(!learned.contains(p.question));
    const long a = std::strtol(p.question.c_str() + 8, nullptr, 10);
    const long b = std::strtol(p.question.c_str() + p.question.find('-') + 1, nullptr, 10);
    CHECK(std::to_string(a - b) == p.answer);
    for (const long x : {a, b}) CHECK((x > 9 ? x / 10 >= 4 && x / 10 <= 6 : x >= 4 && x <= 6));
  }
  CHECK(arithmetic_problem(s, Operands::held_out, 1).thought.find(" = ") != std::string::npos);
  CHECK(ArithmeticSettings{.operations = "+^"}.validate().error().message.find("found \"+^\"") != std::string::npos);
  CHECK(!ArithmeticSettings{.most_digits = 5}.validate());
  CHECK(!ArithmeticSettings{.words = 2}.validate());
}
