#include <doctest/doctest.h>
#include <chimera/core/random.hpp>
#include <chimera/core/read_number.hpp>

#include <cstdint>
#include <limits>
#include <string>

using namespace chimera;

namespace {

/// Both ways to read, side by side: value, error and end must be those of std::from_chars.
template <class T>
void compare(const std::string& text) {
  T standard = 7, own = 7;
  const char *const first = text.data(), *const last = first + text.size();
  const auto a = std::from_chars(first, last, standard);
  const auto b = read_number_parts::read_real(first, last, own);
  CAPTURE(text);
  CHECK(a.ec == b.ec);
  CHECK(a.ptr - first == b.ptr - first);
  CHECK((standard == own || (standard != standard && own != own)));
}

}  // namespace

TEST_CASE("where the library's from_chars takes no floats, ours reads the same") {
#if defined(__cpp_lib_to_chars)
  for (const char* text : {"0",
                           "-0",
                           "1.5",
                           ".5",
                           "5.",
                           ".",
                           "-",
                           "",
                           "+1",
                           " 1",
                           "1e",
                           "1e+",
                           "1e5",
                           "1E-5x",
                           "1e5.5",
                           "--1",
                           "0x10",
                           "inf",
                           "-inf",
                           "infinity",
                           "infinit",
                           "nan",
                           "-nan",
                           "NAN",
                           "Inf",
                           "in",
                           "1e400",
                           "-1e400",
                           "1e-400",
                           "1e39",
                           "1e-50",
                           "4.9e-324",
                           "1.17549435e-38",
                           "1e-45",
                           "0e999",
                           "0.000e-999",
                           "123456789012345678901234567890",
                           "1,5",
                           "0.1000000014901161193847656250000000001",
                           "9007199254740993",
                           "1.7976931348623159e308"}) {
    compare<float>(text);
    compare<double>(text);
  }
  Random random{5, 0, 0};
  const std::string letters = "0123456789.eE-+infa";
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (std::uint64_t n = random.below(14); n > 0; --n)
      text += letters[random.below(letters.size() - (i % 4 ? 4 : 0))];
    compare<float>(text);
    compare<double>(text);
  }
#endif
  std::string text = "1.5rest";
  double value = 0;
  const auto end = read_number(text.data(), text.data() + text.size(), value);
  CHECK(end.ec == std::errc{});
  CHECK(std::string(end.ptr) == "rest");
  CHECK(value == 1.5);
}
