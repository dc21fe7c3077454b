#include "numeric.hpp"

#include <chimera/kernels/cached/kv_cache.hpp>

using namespace chimera;

namespace {

constexpr KvFormat all_formats[] = {KvFormat::f32, KvFormat::f16, KvFormat::q8_0, KvFormat::q4_0};

}  // namespace

TEST_CASE("a cache is two halves of rows, blocks of 32 each") {
  constexpr KvShape odd{3, 33, 7};
  static_assert(odd.row() == 64);
  static_assert(odd.bytes(KvFormat::f32) == 2 * 3 * 7 * 256 && odd.bytes(KvFormat::f16) == 2 * 3 * 7 * 128);
  static_assert(odd.bytes(KvFormat::q8_0) == 2 * 1472 && odd.bytes(KvFormat::q4_0) == 2 * 768);  // 1428 and 756 in use
}

TEST_CASE("rows come back as their format keeps them, the newest of a ring's") {
  on_every_cpu([](const Cpu& q) {
    for (const KvFormat format : all_formats) {
      constexpr KvShape shape{2, 33, 5};
      const double tolerance[] = {0, 5e-4, 5e-3, 0.126};
      CAPTURE(format_info(format_of(format))->name);
      auto memory = Buffer::create(static_cast<std::size_t>(shape.bytes(format) / 4));
      REQUIRE(memory);
      const KvCache cache{shape, format, reinterpret_cast<std::byte*>(memory->data())};
      const auto row = [](std::int64_t position, std::int64_t head, std::uint64_t which) {
        return noise(33, static_cast<std::uint64_t>(10 * position + head) * 2 + which);
      };
      for (std::int64_t position = 0; position < 13; ++position)
        for (std::int64_t head = 0; head < 2; ++head) {
          store_row(q.isa(), cache, row(position, head, 0).data(), cache.key(head, position));
          store_row(q.isa(), cache, row(position, head, 1).data(), cache.value(head, position));
        }
      CHECK(cache.together(8, 9) == 2);  // 8, 9 | 10, 11, 12
      CHECK(cache.together(10, 2) == 2);
      for (std::int64_t head = 0; head < 2; ++head)
        for (std::int64_t first = 8, n = 0; first < 13; first += n) {
          n = cache.together(first, 13 - first);
          alignas(64) float buffers[2][5 * 64];
          const float* keys = load_rows(q.isa(), cache, cache.key(head, first), n, buffers[0]);
          const float* values = load_rows(q.isa(), cache, cache.value(head, first), n, buffers[1]);
          for (std::int64_t i = 0; i < n; ++i) {
            const double most = tolerance[static_cast<std::size_t>(format)];
            CHECK(difference(Floats(keys + i * 64, keys + i * 64 + 33), row(first + i, head, 0)) <= most);
            CHECK(difference(Floats(values + i * 64, values + i * 64 + 33), row(first + i, head, 1)) <= most);
            CHECK(std::count(keys + i * 64 + 33, keys + i * 64 + 64, 0.f) == 31);
          }
        }
    }
  });
}
