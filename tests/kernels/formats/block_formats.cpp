#include "numeric.hpp"

#include <chimera/kernels/formats/block_formats.hpp>

#include <array>
#include <cstring>

using namespace chimera;

namespace {

using Bytes = std::vector<std::byte>;

constexpr std::array all = {Format::f32,  Format::f16,   Format::bf16, Format::q4_0, Format::q4_1,
                            Format::q5_0, Format::q5_1,  Format::q8_0, Format::q4_k, Format::q5_k,
                            Format::q6_k, Format::tq1_0, Format::tq2_0};

Bytes encoded(const Cpu& q, Format format, const Floats& x) {
  const auto n = static_cast<std::int64_t>(x.size());
  Bytes bytes(static_cast<std::size_t>(format_bytes(format, n)));
  const Status s = encode(q, format, x.data(), n, bytes.data());
  if (!s) FAIL(s.error().message);
  return bytes;
}

Floats decoded(const Cpu& q, Format format, const Bytes& bytes) {
  const FormatInfo& info = *format_info(format);
  Floats x = filled(static_cast<std::int64_t>(bytes.size()) / info.bytes * info.values, unwritten);
  const Status s = decode(q, format, bytes.data(), static_cast<std::int64_t>(x.size()), x.data());
  if (!s) FAIL(s.error().message);
  return x;
}

double root_mean_square(const Floats& x, const Floats& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += d * d;
  }
  return std::sqrt(sum / static_cast<double>(x.size()));
}

/// Numbers near a normal distribution.
Floats weights(std::int64_t n, std::uint64_t seed, float size = 0.05f) {
  Floats x = zeros(n);
  for (std::uint64_t k = 0; k < 6; ++k) {
    const Floats part = noise(n, 100 * seed + k);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += size * part[i];
  }
  return x;
}

/// One f16 by the definition of the format.
double value_of_f16(std::uint32_t bits) {
  const double sign = bits >> 15 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const auto fraction = static_cast<double>(bits & 1023);
  if (exponent == 31) return fraction > 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

float to_f16_and_back(float x) { return from_f16<1>(to_f16<1>(Vec<1>(x))).v[0]; }

}  // namespace

TEST_CASE("every f16 is read as the format says, and written back with the same bits") {
  on_every_cpu([](const Cpu& q) {
    Bytes bytes(2 << 16);
    for (std::uint32_t i = 0; i < 1 << 16; ++i) std::memcpy(&bytes[2 * i], &i, 2);
    const Floats x = decoded(q, Format::f16, bytes);
    int wrong = 0;
    Floats finite;
    Bytes of_finite;
    for (std::uint32_t i = 0; i < 1 << 16; ++i) {
      const double want = value_of_f16(i), got = static_cast<double>(x[i]);
      wrong += std::isnan(want) ? !std::isnan(got) : want != got || std::signbit(want) != std::signbit(got);
      const float by_integers = load_f16(&bytes[2 * i]);
      wrong += std::memcmp(&by_integers, &x[i], sizeof by_integers) != 0;
      if (!std::isfinite(want)) continue;
      finite.push_back(x[i]);
      of_finite.insert(of_finite.end(), &bytes[2 * i], &bytes[2 * i] + 2);
    }
    CHECK(wrong == 0);
    CHECK(encoded(q, Format::f16, finite) == of_finite);
  });
}

TEST_CASE("f32 go to the nearest f16, ties to even") {
  int wrong = 0;
  for (std::uint32_t i = 0; i < 0x7bff; ++i) {
    const double low = value_of_f16(i), high = value_of_f16(i + 1), middle = (low + high) / 2;
    const auto tie = static_cast<float>(middle);
    wrong += static_cast<double>(to_f16_and_back(tie)) != (i % 2 == 0 ? low : high);
    wrong += static_cast<double>(to_f16_and_back(std::nextafter(tie, 0.f))) != low;
    wrong += static_cast<double>(to_f16_and_back(std::nextafter(tie, 1e9f))) != high;
  }
  CHECK(wrong == 0);
  CHECK(to_f16_and_back(65519.f) == 65504.f);
  CHECK(std::isinf(to_f16_and_back(65520.f)));
  CHECK(std::isinf(to_f16_and_back(-1e30f)));
  CHECK(std::isnan(to_f16_and_back(std::nanf(""))));
  CHECK(to_f16_and_back(1e-40f) == 0.f);
  CHECK(std::signbit(to_f16_and_back(-0.f)));
}

TEST_CASE("BF16 is the upper half of an f32, to nearest") {
  on_every_cpu([](const Cpu& q) {
    const Floats x = {1.f, 1.00390625f, 1.01171875f, -3.1415926f, 1e-40f, 0.f, 3.3e38f};
    const Floats y = decoded(q, Format::bf16, encoded(q, Format::bf16, x));
    CHECK(y[0] == 1.f);
    CHECK(y[1] == 1.f);  // a tie goes to the even one
    CHECK(y[2] == 1.015625f);
    CHECK(y[3] == -3.140625f);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(std::abs(y[i] - x[i]) <= std::max(std::abs(x[i]) / 256, 1e-40f));
  });
}

TEST_CASE("a block is its fields, one by one") {
  const Cpu q = cpu(Isa::base, 1);
  Floats x = zeros(32);
  x[0] = -8.f, x[1] = 7.f, x[16] = 3.f, x[31] = -1.f;
  const Bytes q4 = encoded(q, Format::q4_0, x);
  CHECK(load_f16(q4.data()) == 1.f);
  CHECK(q4[2] == std::byte{0xb0});  // x[0] -> 0, x[16] -> 11
  CHECK(q4[3] == std::byte{0x8f});
  CHECK(q4[17] == std::byte{0x78});
  CHECK(decoded(q, Format::q4_0, q4) == x);
  x[2] = 127.f;
  const Bytes q8 = encoded(q, Format::q8_0, x);
  CHECK(load_f16(q8.data()) == 1.f);
  CHECK(q8[2] == std::byte{0xf8});
  CHECK(q8[4] == std::byte{127});
  CHECK(decoded(q, Format::q8_0, q8) == x);
}

TEST_CASE("numbers of a format's grid are kept as they are") {
  struct Grid {
    Format format;
    int least, largest;  // quanta
  };
  on_every_cpu([](const Cpu& q) {
    for (const Grid g : {Grid{Format::f32, -99, 99}, Grid{Format::f16, -99, 99}, Grid{Format::bf16, -99, 99},
                         Grid{Format::q4_0, -8, 7}, Grid{Format::q4_1, -3, 12}, Grid{Format::q5_0, -16, 15},
                         Grid{Format::q5_1, -30, 1}, Grid{Format::q8_0, -127, 127}, Grid{Format::tq1_0, -1, 1},
                         Grid{Format::tq2_0, -1, 1}}) {
      CAPTURE(format_info(g.format)->name);
      Floats x = zeros(512);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const int k = static_cast<int>(i * 7 + i / 32) % (g.largest - g.least + 1);
        x[i] = 0.25f * static_cast<float>(i % 32 == 0 ? g.least : i % 32 == 9 ? g.largest : g.least + k);
      }
      CHECK(decoded(q, g.format, encoded(q, g.format, x)) == x);
    }
  });
}

TEST_CASE("ternary weights of any scale survive but for the rounding of their scale") {
  on_every_cpu([](const Cpu& q) {
    for (const Format format : {Format::tq1_0, Format::tq2_0}) {
      const Floats sign = noise(1024, 3);
      Floats x = zeros(1024);
      for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = (sign[i] > 0.3f ? 1.f : sign[i] < -0.3f ? -1.f : 0.f) * (0.0123f + 0.01f * static_cast<float>(i / 256));
      const Floats y = decoded(q, format, encoded(q, format, x));
      for (std::size_t i = 0; i < x.size(); ++i) CHECK(y[i] == to_f16_and_back(x[i]));
    }
  });
}

TEST_CASE("the error of each format is what its bits allow") {
  // Root mean square error over that of the numbers, for nearly normal weights.
  const std::array<double, all.size()> limits = {0,      2.2e-4, 1.75e-3, 0.105,  0.093, 0.053, 0.045,
                                                 0.0067, 0.083,  0.0415,  0.0205, 0.8,   0.8};
  on_every_cpu([&](const Cpu& q) {
    for (const float size : {0.05f, 1e-3f, 300.f}) {
      const Floats x = weights(16384, 5, size);
      const double scale = root_mean_square(x, zeros(16384));
      for (std::size_t f = 0; f < all.size(); ++f) {
        CAPTURE(format_info(all[f])->name);
        CHECK(root_mean_square(decoded(q, all[f], encoded(q, all[f], x)), x) <= limits[f] * scale);
      }
    }
  });
}

TEST_CASE("the same bytes at every level and for every number of threads, also in part") {
  Floats x = weights(3 * 8192 + 512, 7);
  for (std::size_t i = 0; i < x.size(); i += 997) x[i] *= 40.f;
  for (const Format format : all) {
    CAPTURE(format_info(format)->name);
    const Bytes first = encoded(cpu(Isa::base, 1), format, x);
    const Floats values = decoded(cpu(Isa::base, 1), format, first);
    on_every_cpu([&](const Cpu& q) {
      CHECK(encoded(q, format, x) == first);
      CHECK(decoded(q, format, first) == values);
      const Floats tail(x.end() - 512, x.end());
      const Bytes of_tail = encoded(q, format, tail);
      CHECK(std::equal(of_tail.rbegin(), of_tail.rend(), first.rbegin()));
    });
  }
}

TEST_CASE("a single number of a half, and sizes that fill no vector") {
  on_every_cpu([](const Cpu& q) {
    for (const Format format : {Format::f32, Format::f16, Format::bf16})
      for (const std::int64_t n : {0, 1, 3, 7, 17, 33}) {
        const Floats x = noise(n, 11);
        CHECK(difference(decoded(q, format, encoded(q, format, x)), x) <= 4e-3);
      }
  });
}

TEST_CASE("writing what was read changes nothing that matters") {
  on_every_cpu([](const Cpu& q) {
    const Floats x = weights(4096, 13);
    for (const Format format : all) {
      CAPTURE(format_info(format)->name);
      const Floats once = decoded(q, format, encoded(q, format, x));
      const Floats twice = decoded(q, format, encoded(q, format, once));
      CHECK(root_mean_square(twice, once) <= 0.35 * root_mean_square(once, x) + 1e-9);
    }
  });
}

TEST_CASE("extreme numbers give finite ones, and zeros stay zeros") {
  on_every_cpu([](const Cpu& q) {
    for (const Format format : all) {
      CAPTURE(format_info(format)->name);
      CHECK(decoded(q, format, encoded(q, format, zeros(256))) == zeros(256));
      const float most = std::min(largest_of(format), 65504.f);
      for (const float size : {1e-45f, 1e-39f, 1e-30f, 1e-12f, 6e-8f, 1e-5f, 1.f, most}) {
        CAPTURE(size);
        for (const int kind : {0, 1, 2, 3, 4}) {
          CAPTURE(kind);
          Floats x = noise(256, 17);
          for (std::size_t i = 0; i < x.size(); ++i) {
            if (kind == 0) x[i] *= size;
            if (kind == 1) x[i] = i % 2 ? size : -size;
            if (kind == 2) x[i] = size;
            if (kind == 3) x[i] = -size;
            if (kind == 4) x[i] = i == 77 ? -size : 0.f;  // one outlier
          }
          const Floats y = decoded(q, format, encoded(q, format, x));
          const bool ternary = format == Format::tq1_0 || format == Format::tq2_0;
          // The scale of a block is an f16, whose least step is 6e-8; 128 of them make the largest quantum.
          for (std::size_t i = 0; i < x.size(); ++i)
            CHECK(std::abs(y[i] - x[i]) <= (ternary ? 0.51f : 0.15f) * size + 128 * 6e-8f);
        }
      }
    }
  });
}

TEST_CASE("one outlier does not spoil the other sub-blocks") {
  const Cpu q = cpu(Isa::avx512, 1);
  Floats x = weights(256, 19);
  const double before = root_mean_square(decoded(q, Format::q6_k, encoded(q, Format::q6_k, x)), x);
  x[40] = 5.f;
  const Floats y = decoded(q, Format::q6_k, encoded(q, Format::q6_k, x));
  CHECK(std::abs(y[40] - 5.f) <= 0.1f);
  const Floats far(x.begin() + 64, x.end()), far_y(y.begin() + 64, y.end());
  CHECK(root_mean_square(far_y, far) <= 12 * before);
}

TEST_CASE("what a format cannot hold is an error that says where") {
  on_every_cpu([](const Cpu& q) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const Format format : all) {
      CAPTURE(format_info(format)->name);
      for (const float bad : {std::nanf(""), -std::nanf(""), infinity, -infinity, 1e6f}) {
        Floats x = noise(5 * 8192, 23);
        x[20000] = bad, x[39999] = bad;
        Bytes bytes(static_cast<std::size_t>(format_bytes(format, 5 * 8192)));
        const Status parallel = encode(q, format, x.data(), 5 * 8192, bytes.data());
        const Status alone = encode(q.isa(), format, x.data(), 5 * 8192, bytes.data());
        const bool fits = bad == 1e6f && largest_of(format) > 1e6f;
        REQUIRE(parallel.ok() == fits);
        REQUIRE(alone.ok() == fits);
        if (fits) continue;
        CHECK(parallel.error().message.find("number 20000 is ") != std::string::npos);
        CHECK(parallel.error().message == alone.error().message);
      }
    }
    Floats x = zeros(300);
    Bytes bytes(4096);
    CHECK(encode(q, Format::q4_0, x.data(), 300, bytes.data()).error().message ==
          "Q4_0 holds blocks of 32 numbers, found 300");
    CHECK_FALSE(decode(q, Format::q6_k, bytes.data(), 300, x.data()).ok());
    CHECK(decode(q, Format::i32, bytes.data(), 300, x.data()).error().message ==
          "expected a format of weights, found I32");
    CHECK_FALSE(decode(q, static_cast<Format>(99), bytes.data(), 300, x.data()).ok());
  });
}

TEST_CASE("any bytes are read: nothing is written outside") {
  on_every_cpu([](const Cpu& q) {
    for (const Format format : all) {
      const FormatInfo& info = *format_info(format);
      Bytes bytes(static_cast<std::size_t>(3 * info.bytes));
      std::uint32_t seed = 1;
      for (std::byte& b : bytes) b = static_cast<std::byte>((seed = seed * 1664525 + 1013904223) >> 24);
      Floats x = filled(3 * info.values + 64, 4242.f);
      REQUIRE(decode(q, format, bytes.data(), 3 * info.values, x.data()).ok());
      CHECK(std::count(x.end() - 64, x.end(), 4242.f) == 64);
    }
  });
}
