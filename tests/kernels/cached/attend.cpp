#include "numeric.hpp"

#include <chimera/kernels/cached/attend.hpp>

using namespace chimera;

namespace {

struct Case {
  std::int64_t T, heads, kv_heads, head_dim, window;
  bool alibi;
};
// Groups of one, two, three and five; head_dim below, at and above blocks of 32; windows below, at and above tiles and
// chunks; lengths around both.
constexpr Case cases[] = {{70, 3, 1, 5, 1000, false}, {300, 2, 2, 32, 64, true},   {65, 6, 2, 16, 9, false},
                          {130, 5, 1, 40, 1, false},  {520, 2, 1, 64, 1000, true}, {560, 1, 1, 96, 300, false}};

AttentionShape shape_of(const Case& c) { return {c.heads, c.kv_heads, c.head_dim, c.window, 0.4f, c.alibi}; }

/// Rows of queries, keys and values, where keys and values may be kept in 16 bits without loss.
Floats tokens_of(const AttentionShape& s, std::int64_t T) {
  Floats qkv = noise(T * s.row(), 1);
  for (float& x : qkv) x = std::round(x * 512.f) / 256.f;
  return qkv;
}

struct Ring {
  Ring(const Case& c, KvFormat format)
      : shape{c.kv_heads, c.head_dim, std::min(c.window, c.T)},
        memory(*Buffer::create(static_cast<std::size_t>(shape.bytes(format)) / 4)),
        cache{shape, format, reinterpret_cast<std::byte*>(memory.data())} {}

  void keep(Isa isa, const AttentionShape& s, std::int64_t position, const float* token) const {
    for (std::int64_t h = 0; h < s.kv_heads; ++h) {
      store_row(isa, cache, token + s.key(h), cache.key(h, position));
      store_row(isa, cache, token + s.value(h), cache.value(h, position));
    }
  }

  KvShape shape;
  Buffer memory;
  KvCache cache;
};

/// One token's heads, its past in chunks of `keys`.
Floats attend_one(Isa isa, const AttentionShape& s, const KvCache& cache, const float* token, std::int64_t position,
                  std::int64_t keys) {
  const std::int64_t width = cache.shape.row(), group = s.group();
  Floats out = zeros(s.heads * s.head_dim), scratch = room(attend_chunk_bytes(s, cache.shape));
  for (std::int64_t kv_head = 0; kv_head < s.kv_heads; ++kv_head) {
    Floats queries = zeros(group * width), all(static_cast<std::size_t>(Softmax::floats(group, width)), 0.f),
           more = all;
    const Softmax seen = Softmax::at(all.data(), group, width, 0), next = Softmax::at(more.data(), group, width, 0);
    std::fill_n(seen.largest, group, -std::numeric_limits<float>::infinity());
    for (std::int64_t g = 0; g < group; ++g)
      std::copy_n(token + (kv_head * group + g) * s.head_dim, s.head_dim, queries.data() + g * width);
    for (std::int64_t j = std::max<std::int64_t>(0, position - s.window + 1); j <= position; j += keys) {
      attend_chunk(isa, s, cache, kv_head, queries.data(), position, j, std::min(position + 1, j + keys),
                   Bump{scratch.data()}, next);
      add_softmax(isa, group, width, next, seen);
    }
    for (std::int64_t g = 0; g < group; ++g)
      for (std::int64_t i = 0; i < s.head_dim; ++i)
        out[static_cast<std::size_t>((kv_head * group + g) * s.head_dim + i)] = seen.mixed[g * width + i] / seen.sum[g];
  }
  return out;
}

}  // namespace

TEST_CASE("a token against the cache, in chunks of any size, is attention") {
  on_every_cpu([](const Cpu& q) {
    if (q.threads() > 1) return;  // serial
    for (const Case& c : cases)
      for (const KvFormat format : {KvFormat::f32, KvFormat::f16}) {
        CAPTURE(c.T);
        const AttentionShape s = shape_of(c);
        const Floats qkv = tokens_of(s, c.T);
        Floats want = filled(c.T * c.heads * c.head_dim, unwritten), lse = zeros(c.T * c.heads), got;
        attention(q, s, {.sequences = 1, .length = c.T}, qkv.data(), want.data(), lse.data());
        const Ring ring(c, format);
        for (std::int64_t t = 0; t < c.T; ++t) {
          ring.keep(q.isa(), s, t, qkv.data() + t * s.row());
          const Floats one = attend_one(q.isa(), s, ring.cache, qkv.data() + t * s.row(), t, t % 2 ? 256 : 1 + t % 100);
          got.insert(got.end(), one.begin(), one.end());
        }
        CHECK(difference(got, want) <= 3e-6);
      }
  });
}

TEST_CASE("a piece against the cache and itself is attention, at any length of past and piece") {
  on_every_cpu([](const Cpu& q) {
    if (q.threads() > 1) return;
    for (const Case& c : cases)
      for (const std::int64_t past : {std::int64_t{0}, std::int64_t{1}, c.T / 2, c.T - 3}) {
        CAPTURE(c.T);
        CAPTURE(past);
        const AttentionShape s = shape_of(c);
        const Floats qkv = tokens_of(s, c.T);
        const std::int64_t rows = c.heads * c.head_dim, count = c.T - past;
        Floats want = filled(c.T * rows, unwritten), lse = zeros(c.T * c.heads), got = filled(count * rows, unwritten);
        attention(q, s, {.sequences = 1, .length = c.T}, qkv.data(), want.data(), lse.data());
        const Ring ring(c, KvFormat::f16);
        for (std::int64_t t = 0; t < past; ++t) ring.keep(q.isa(), s, t, qkv.data() + t * s.row());
        REQUIRE(attend_tile_bytes(s, ring.shape) <= Cpu::scratch_bytes);
        for (std::int64_t kv_head = 0; kv_head < s.kv_heads; ++kv_head)
          for (std::int64_t first = 0; first < count; first += 64)
            attend_tile(q.isa(), s, ring.cache, kv_head, qkv.data() + past * s.row(), past, first,
                        std::min<std::int64_t>(64, count - first), Bump{q.scratch(0)}, got.data());
        CHECK(difference(got, Floats(want.begin() + past * rows, want.end())) <= 3e-6);
      }
  });
}

TEST_CASE("a softmax in parts: nothing adds nothing, large scores do not overflow") {
  on_every_cpu([](const Cpu& q) {
    constexpr Case c{40, 2, 1, 32, 1000, false};
    const AttentionShape s{2, 1, 32, 1000, 1.f};
    Floats qkv = tokens_of(s, c.T);
    for (float& x : qkv) x *= 100.f;
    const Ring ring(c, KvFormat::f32);
    for (std::int64_t t = 0; t < c.T; ++t) ring.keep(q.isa(), s, t, qkv.data() + t * s.row());
    const float* last = qkv.data() + 39 * s.row();
    for (const float x : attend_one(q.isa(), s, ring.cache, last, 39, 7)) CHECK(std::abs(x) <= 200.f);

    Floats scratch = room(attend_chunk_bytes(s, ring.shape)), one = zeros(Softmax::floats(2, 32)), two = one;
    const Softmax part = Softmax::at(one.data(), 2, 32, 0), all = Softmax::at(two.data(), 2, 32, 0);
    attend_chunk(q.isa(), s, ring.cache, 0, last, 39, 0, 40, Bump{scratch.data()}, part);
    std::fill_n(all.largest, 2, -std::numeric_limits<float>::infinity());
    add_softmax(q.isa(), 2, 32, part, all);
    CHECK(one == two);
  });
}
