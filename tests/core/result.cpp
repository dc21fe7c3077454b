#include <chimera/core/result.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <type_traits>
#include <vector>

using namespace chimera;

static Result<int> half(int n) {
  if (n % 2) return Error{"expected an even number, found " + std::to_string(n)};
  return n / 2;
}

TEST_CASE("a result is a value or the error") {
  const auto good = half(8), bad = half(7);
  REQUIRE(good.ok());
  CHECK(*good == 4);
  CHECK_FALSE(bad.ok());
  CHECK(bad.error().message == "expected an even number, found 7");
}

TEST_CASE("a result carries what can only be moved") {
  Result<std::unique_ptr<int>> r = std::make_unique<int>(3);
  REQUIRE(r);
  std::unique_ptr<int> p = std::move(*r);
  CHECK(*p == 3);
}

TEST_CASE("a result copies what it is given to copy") {
  const std::string text = "kept";
  const Result<std::string> r = text;
  REQUIRE(r);
  CHECK(*r == text);
}

TEST_CASE("what is taken out of a temporary outlives it") {
  const auto numbers = []() -> Result<std::vector<int>> { return std::vector{1, 2, 3}; };
  const auto failed = []() -> Status { return Error{"a sentence of some length, which is no short string"}; };
  static_assert(std::is_same_v<decltype(*numbers()), std::vector<int>>);
  static_assert(std::is_same_v<decltype(failed().error()), Error>);
  int sum = 0;
  for (const int n : *numbers()) sum += n;
  CHECK(sum == 6);
  const Error& of_status = failed().error();
  const Error& of_result = half(7).error();
  CHECK(of_status.message.starts_with("a sentence"));
  CHECK(of_result.message.starts_with("expected an even number"));
}

TEST_CASE("a status is success unless it has an error") {
  CHECK(Status().ok());
  const Status s = Error{"no"};
  CHECK_FALSE(s.ok());
  CHECK(s.error().message == "no");
}
