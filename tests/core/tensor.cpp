#include <chimera/core/tensor.hpp>

#include <doctest/doctest.h>

#include <cmath>

using namespace chimera;

TEST_CASE("parts of a weight end where their rows do") {
  constexpr Tensor qkv{"qkv", 10, 4, Role::matrix, Init::normal(), {6, 3, 1}};
  static_assert(part_end(qkv.parts, qkv.rows, 0) == 6 && part_end(qkv.parts, qkv.rows, 5) == 6);
  static_assert(part_end(qkv.parts, qkv.rows, 6) == 9 && part_end(qkv.parts, qkv.rows, 9) == 10);
  constexpr Tensor one{"one", 10, 4};
  static_assert(part_end(one.parts, one.rows, 0) == 10 && part_end(one.parts, one.rows, 9) == 10);
  static_assert(vector_tensor("v", 7, Init::constant(1.f)).role == Role::vector);
}

TEST_CASE("laws have the numbers of the papers, as the library's square root gives them") {
  for (const int layers : {1, 4, 10, 12, 32, 40})
    CHECK(Init::branch(layers).a == 0.02f / std::sqrt(2.f * static_cast<float>(layers)));
  for (const std::int64_t n : {4, 32, 640}) {
    CHECK(Init::fan_in(n).a == 1.f / std::sqrt(static_cast<float>(n)));
    CHECK(Init::taps(n) ==
          Init::uniform(-1.f / std::sqrt(static_cast<float>(n)), 1.f / std::sqrt(static_cast<float>(n))));
  }
}

TEST_CASE("pieces of any type are aligned, and counted in the same bytes where there is no memory") {
  auto memory = Buffer::of_bytes(1024);
  REQUIRE(memory);
  Bump counts, takes(memory->bytes());
  const auto take = [](Bump& b) {
    b.take(17);
    b.take<double>(8);
    return b.take<std::byte>(1);
  };
  CHECK(take(counts) == nullptr);
  CHECK(take(takes) == memory->bytes() + 192);
  CHECK(counts.used == 256);
  CHECK(takes.used == 256);
  static_assert(bytes_of({17}) + bytes_of<double>({8}) + bytes_of<std::byte>({1}) == 256);
  static_assert(bytes_of({17, 0, 1}) == 192);
}
