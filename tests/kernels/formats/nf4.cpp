#include "numeric.hpp"

#include <chimera/kernels/formats/nf4.hpp>

#include <cstring>

using namespace chimera;

namespace {

Buffer stored(const Cpu& q, const Floats& x) {
  auto memory = Buffer::of_bytes(Nf4::bytes(std::ssize(x)));
  REQUIRE(memory);
  const Status s = encode_nf4(q, x.data(), std::ssize(x), memory->bytes());
  if (!s) FAIL(s.error().message);
  return std::move(*memory);
}

Floats decoded(const Cpu& q, const Nf4& w, std::int64_t first, std::int64_t n) {
  Floats x = filled(n, unwritten);
  decode_nf4(q.isa(), w, first, n, x.data());
  return x;
}

}  // namespace

TEST_CASE(
    "numbers in NF4 are the nearest levels of their blocks, at every level of instructions, the last block short") {
  constexpr std::int64_t n = 64 * 300 + 37;
  Floats x = noise(n, 1);
  std::fill_n(x.begin() + 64, 64, 0.f);
  for (std::int64_t i = 0; i < n; ++i) x[static_cast<std::size_t>(i)] *= 1.f + 0.2f * static_cast<float>(i / 64 % 5);
  Buffer first;
  on_every_cpu([&](const Cpu& q) {
    Buffer memory = stored(q, x);
    if (!first.data()) first = stored(q, x);
    CHECK(std::memcmp(memory.bytes(), first.bytes(), Nf4::bytes(n)) == 0);
    const Nf4 w = Nf4::at(memory.bytes(), n);
    const Floats y = decoded(q, w, 0, n);
    for (std::int64_t b = 0; b < w.blocks(); ++b) {
      const auto from = static_cast<std::size_t>(b * 64), end = std::min(from + 64, x.size());
      float most = 0;
      for (std::size_t i = from; i < end; ++i) most = std::max(most, std::abs(x[i]));
      // Half the widest gap between levels, and what a code of 8 bits leaves of the scale.
      for (std::size_t i = from; i < end; ++i) CHECK(std::abs(y[i] - x[i]) <= 0.1521f * most + 0.01f);
    }
    CHECK(decoded(q, w, 64, 64) == zeros(64));
  });
}

TEST_CASE("any run of numbers in NF4 is what stands there in all of them") {
  constexpr std::int64_t n = 64 * 7 + 9;
  const Floats x = noise(n, 2);
  on_every_cpu([&](const Cpu& q) {
    Buffer memory = stored(q, x);
    const Nf4 w = Nf4::at(memory.bytes(), n);
    const Floats all = decoded(q, w, 0, n);
    for (const auto& [from, count] :
         {std::pair<std::int64_t, std::int64_t>{0, 1}, {3, 130}, {63, 2}, {64, 64}, {400, 57}})
      CHECK(decoded(q, w, from, count) == Floats(all.begin() + from, all.begin() + from + count));
  });
}

TEST_CASE("what is no number is an error that says which") {
  const Cpu q = cpu(Isa::base, 1);
  Floats x = noise(200, 3);
  x[130] = std::numeric_limits<float>::infinity();
  auto memory = Buffer::of_bytes(Nf4::bytes(200));
  REQUIRE(memory);
  const Status s = encode_nf4(q, x.data(), 200, memory->bytes());
  REQUIRE(!s);
  CHECK(s.error().message == "number 130 is inf, and F32 takes magnitudes up to 3.40282e+38");
}

TEST_CASE("numbers that come in pieces are those that come at once") {
  const Floats x = noise(64 * 9 + 5, 4);
  on_every_cpu([&](const Cpu& q) {
    Buffer whole = stored(q, x);
    auto memory = Buffer::of_bytes(Nf4::bytes(std::ssize(x)));
    REQUIRE(memory);
    auto writer = Nf4Writer::create(std::ssize(x), memory->bytes());
    REQUIRE(writer);
    REQUIRE(writer->append(q, x.data(), 128));
    REQUIRE(writer->append(q, x.data() + 128, 64 * 6));
    REQUIRE(writer->append(q, x.data() + 512, 69));
    writer->finish();
    CHECK(std::memcmp(whole.bytes(), memory->bytes(), Nf4::bytes(std::ssize(x))) == 0);
  });
}
