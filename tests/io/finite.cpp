#include <chimera/io/finite.hpp>

#include "hostile.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <string_view>

using namespace chimera;
using hostile::bytes_of;

TEST_CASE("numbers that are not finite are found") {
  const auto found = [](Format format, std::string block, std::size_t at, std::string_view change) {
    const std::string good = block;
    block.replace(at, change.size(), change);
    CHECK(find_not_finite(format, bytes_of(good + good)).count == 0);
    const NotFinite n = find_not_finite(format, bytes_of(good + block + block));
    return n.count == 2 && n.block == 1;
  };
  const auto zeros = [](Format f) { return std::string(static_cast<std::size_t>(format_info(f)->bytes), '\0'); };
  const std::string_view inf_half("\x00\x7C", 2), nan_half("\x01\xFE", 2);
  CHECK(found(Format::f32, zeros(Format::f32), 2, "\x80\x7F"));
  CHECK(found(Format::f64, zeros(Format::f64), 6, "\xF8\xFF"));
  CHECK(found(Format::bf16, zeros(Format::bf16), 0, "\x80\xFF"));
  CHECK(found(Format::f16, zeros(Format::f16), 0, nan_half));
  for (Format f : {Format::q4_0, Format::q4_1, Format::q5_0, Format::q5_1, Format::q8_0, Format::q4_k, Format::q5_k})
    CHECK(found(f, zeros(f), 0, inf_half));
  for (Format f : {Format::q4_1, Format::q5_1, Format::q4_k, Format::q5_k}) CHECK(found(f, zeros(f), 2, nan_half));
  for (Format f : {Format::q6_k, Format::tq1_0, Format::tq2_0})
    CHECK(found(f, zeros(f), zeros(f).size() - 2, inf_half));
  for (std::size_t at : {0u, 7u, 63u}) CHECK(found(Format::tq2_0, zeros(Format::tq2_0), at, "\x0C"));
  CHECK(find_not_finite(Format::i32, bytes_of(std::string(8, '\xFF'))).count == 0);
  CHECK(find_not_finite(Format::q8_0, bytes_of(std::string(2, '\0') + std::string(32, '\xFF'))).count == 0);
}
