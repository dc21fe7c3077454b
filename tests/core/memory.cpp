#include <chimera/core/memory.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace chimera;

TEST_CASE("a buffer is zero and aligned, small or large") {
  for (std::size_t floats :
       {std::size_t{1}, std::size_t{15}, std::size_t{16}, std::size_t{1'000}, std::size_t{3'000'000}}) {
    auto b = Buffer::create(floats);
    REQUIRE(b);
    CHECK(b->size() == floats);
    CHECK(reinterpret_cast<std::uintptr_t>(b->data()) % alignment == 0);
    CHECK(std::all_of(b->data(), b->data() + floats, [](float x) { return x == 0.f; }));
  }
}

TEST_CASE("an empty buffer is no error") {
  auto b = Buffer::create(0);
  REQUIRE(b);
  CHECK(b->size() == 0);
}

// With AddressSanitizer, too: let a size that cannot be had be refused, not end the program.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

TEST_CASE("a size that cannot be had is an error, not an exception") {
  CHECK_FALSE(Buffer::create(SIZE_MAX / 4).ok());
  CHECK_FALSE(Buffer::create(SIZE_MAX / 8).ok());
  CHECK_FALSE(Buffer::of_bytes(SIZE_MAX).ok());
  CHECK(Buffer::create(SIZE_MAX).error().message.find("cannot address") != std::string::npos);
}

TEST_CASE("sizes round up to whole cache lines") {
  CHECK(aligned_floats(0) == 0);
  CHECK(aligned_floats(1) == 16);
  CHECK(aligned_floats(16) == 16);
  CHECK(aligned_floats(17) == 32);
  CHECK(aligned_bytes(0) == 0);
  CHECK(aligned_bytes(1) == 64);
  CHECK(aligned_bytes(64) == 64);
  CHECK(aligned_bytes(65) == 128);
}

TEST_CASE("a table is a vector like any other, small or large") {
  for (const std::size_t size : {std::size_t{0}, std::size_t{3}, std::size_t{1} << 17, std::size_t{1} << 20}) {
    std::vector<std::uint64_t, TableAllocator<std::uint64_t>> table(size, 7), copy = table;
    table.push_back(8);
    CHECK(std::count(copy.begin(), copy.end(), 7) == static_cast<std::ptrdiff_t>(size));
    CHECK(table.back() == 8);
    CHECK(table.size() == size + 1);
  }
}
