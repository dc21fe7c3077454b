#include <chimera/core/fields.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>

using namespace chimera;

namespace {

enum class Colour : std::uint8_t { red, green };

struct Sample {
  std::int64_t count = 1;
  std::uint64_t seed = 2;
  double rate = 0.1;
  std::string label = "a b";
  Colour colour = Colour::red;

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("count", s.count), f("seed", s.seed), f("rate", s.rate), f("label", s.label), f("colour", s.colour);
  }
};

}  // namespace

TEST_CASE("fields read back bit for bit") {
  for (double rate : {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e21}) {
    Sample s{std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::uint64_t>::max(), rate, "x",
             Colour::green};
    Sample back;
    REQUIRE(from_lines(to_lines(s), back).ok());
    CHECK(back.count == s.count);
    CHECK(back.seed == s.seed);
    CHECK(back.rate == s.rate);
    CHECK(back.label == "x");
    CHECK(back.colour == Colour::green);
  }
}

TEST_CASE("the text is one name and value a line") {
  CHECK(to_lines(Sample{}) == "count 1\nseed 2\nrate 0.1\nlabel a b\ncolour 0\n");
}

TEST_CASE("unknown names are passed over, missing ones keep their value") {
  Sample s;
  REQUIRE(from_lines("later 5\ncount 7", s).ok());
  CHECK(s.count == 7);
  CHECK(s.seed == 2);
}

TEST_CASE("a value that is none is an error") {
  Sample s;
  for (const char* lines :
       {"count x\n", "count 7 \n", "count\n", "seed -1\n", "rate 1.5.2\n", "count 99999999999999999999\n", "\n"})
    CHECK_FALSE(from_lines(lines, s).ok());
}

TEST_CASE("differences name what changed") {
  Sample a, b;
  CHECK(differences(a, b).empty());
  b.count = 3, b.label = "c";
  CHECK(differences(a, b) == "count 1 is now 3, label a b is now c");
}
