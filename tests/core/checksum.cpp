#include <chimera/core/checksum.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace chimera;

// RFC 3720, appendix B.4, and the check value of the CRC catalogues.
TEST_CASE("crc32c gives the published values") {
  const std::vector<unsigned char> zeros(32, 0), ones(32, 255);
  std::vector<unsigned char> rising(32), falling(32);
  for (unsigned char i = 0; i < 32; ++i) rising[i] = i, falling[i] = static_cast<unsigned char>(31 - i);
  CHECK(crc32c(zeros.data(), 32) == 0x8A9136AA);
  CHECK(crc32c(ones.data(), 32) == 0x62A8AB43);
  CHECK(crc32c(rising.data(), 32) == 0x46DD794E);
  CHECK(crc32c(falling.data(), 32) == 0x113FDB5C);
  CHECK(crc32c("123456789", 9) == 0xE3069283);
  CHECK(crc32c("", 0) == 0);
}

TEST_CASE("one table, eight tables and the instruction agree, at any length and start") {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 37 + 11);
  for (std::size_t start = 0; start < 9; ++start)
    for (std::size_t n = 0; n + start <= text.size(); ++n) {
      const auto* p = reinterpret_cast<const unsigned char*>(text.data() + start);
      REQUIRE(crc32c(p, n) == ~checksum_parts::crc32c_portable<1>(~0u, p, n));
      REQUIRE(crc32c(p, n) == ~checksum_parts::crc32c_portable<8>(~0u, p, n));
    }
}

TEST_CASE("a checksum can be taken in parts") {
  const std::string text = "The quick brown fox jumps over the lazy dog";
  const std::uint32_t whole = crc32c(text.data(), text.size());
  for (std::size_t cut = 0; cut <= text.size(); ++cut)
    CHECK(crc32c(text.data() + cut, text.size() - cut, crc32c(text.data(), cut)) == whole);
}

// LevelDB's crc32c_test.cc: masking is never the identity, and this is its formula undone.
TEST_CASE("masked checksums unmask to themselves") {
  for (std::uint32_t crc : {0u, 1u, 0xE3069283u, 0xFFFFFFFFu}) {
    const std::uint32_t masked = masked_crc32c(crc), rotated = masked - 0xA282EAD8u;
    CHECK(masked != crc);
    CHECK((rotated >> 17 | rotated << 15) == crc);
  }
}
