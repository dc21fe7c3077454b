#include "numeric.hpp"

#include <chimera/kernels/f32/attention.hpp>

using namespace chimera;

namespace {

/// Every score, in double.
Doubles reference(const AttentionShape& s, const Batch& batch, const Doubles& qkv) {
  const std::int64_t T = batch.length, D = s.head_dim;
  Doubles out;
  for (std::int64_t at = 0; at < batch.tokens(); ++at)
    for (std::int64_t h = 0; h < s.heads; ++h) {
      const std::int64_t b = at / T, i = at % T, kv = h / s.group();
      const std::int64_t start = batch.document_start ? batch.document_start[at] : 0;
      const double* query = qkv.data() + at * s.row() + h * D;
      Doubles mixed(static_cast<std::size_t>(D), 0.0);
      double total = 0;
      for (std::int64_t j = std::max(start, i - s.window + 1); j <= i; ++j) {
        const double* token = qkv.data() + (b * T + j) * s.row();
        double score = -static_cast<double>(s.slope(h)) * static_cast<double>(i - j);
        for (std::int64_t d = 0; d < D; ++d) score += static_cast<double>(s.scale) * query[d] * token[s.key(kv) + d];
        const double p = std::exp(score);
        total += p;
        for (std::int64_t d = 0; d < D; ++d) mixed[static_cast<std::size_t>(d)] += p * token[s.value(kv) + d];
      }
      for (const double v : mixed) out.push_back(v / total);
    }
  return out;
}

struct Case {
  std::int64_t T, heads, kv_heads, head_dim, window;
  bool alibi;
};
// Lengths around the tile of 64, groups of one and three, windows below, at and above a tile, head_dim of no vector.
constexpr Case cases[] = {{1, 3, 1, 5, 1000, false},    {63, 3, 1, 5, 1000, true}, {64, 2, 2, 8, 64, false},
                          {65, 6, 2, 16, 9, false},     {130, 3, 1, 5, 1, false},  {130, 6, 2, 7, 70, true},
                          {200, 3, 1, 33, 1000, false}, {193, 2, 1, 12, 64, true}};

}  // namespace

TEST_CASE("attention and its gradient: groups, windows, ALiBi, documents") {
  on_every_cpu([](const Cpu& q) {
    if (q.threads() == 2) return;  // one and three threads are enough here: the bits are compared below
    for (const Case& c : cases) {
      CAPTURE(c.T);
      CAPTURE(c.window);
      const std::int64_t B = 2, T = c.T;
      const AttentionShape s{c.heads, c.kv_heads, c.head_dim, c.window, 0.4f, c.alibi};
      const std::vector<std::int32_t> start = documents(T, {{1, 30, 40, 1}, {100}});
      for (const std::int32_t* documents_of : {static_cast<const std::int32_t*>(nullptr), start.data()}) {
        const Batch batch{.sequences = B, .length = T, .document_start = documents_of};
        Floats qkv = noise(B * T * s.row(), 1);
        for (float& x : qkv) x *= 2.f;
        const std::int64_t n = B * T * c.heads * c.head_dim;
        Floats out = filled(n, unwritten), lse = filled(B * T * c.heads, unwritten),
               dqkv = filled(B * T * s.row(), unwritten);
        Floats temp = room(attention_backward_bytes(s, batch));
        const Floats dout = noise(n, 2);
        attention(q, s, batch, qkv.data(), out.data(), lse.data());
        CHECK(difference(out, reference(s, batch, doubles(qkv))) <= 2e-6);
        attention_backward(q, s, batch, qkv.data(), out.data(), lse.data(), dout.data(), dqkv.data(),
                           Bump{temp.data()});
        check_gradient([&](const Doubles& x) { return inner_product(reference(s, batch, x), dout); }, qkv, dqkv);
      }
    }
  });
}

TEST_CASE("large scores do not overflow") {
  on_every_cpu([](const Cpu& q) {
    const AttentionShape s{2, 1, 8, 1000, 1.f};
    const Batch batch{.sequences = 1, .length = 100};
    Floats qkv = noise(100 * s.row(), 1);
    for (float& x : qkv) x *= 100.f;
    Floats out = zeros(100 * 16), lse = zeros(200), dqkv = zeros(100 * s.row()), temp = zeros(200);
    attention(q, s, batch, qkv.data(), out.data(), lse.data());
    attention_backward(q, s, batch, qkv.data(), out.data(), lse.data(), out.data(), dqkv.data(), Bump{temp.data()});
    for (const float x : out) CHECK(std::abs(x) <= 100.f);
    for (const float x : dqkv) CHECK(std::isfinite(x));
  });
}

TEST_CASE("ALiBi's slopes are those of the paper") {
  for (std::int64_t h = 0; h < 8; ++h) CHECK(alibi_slope(8, h) == std::exp2(-static_cast<float>(h + 1)));
  Floats slopes;  // the four of 4 heads, then the first and third of 8 heads
  for (std::int64_t h = 0; h < 6; ++h) slopes.push_back(alibi_slope(6, h));
  CHECK(slopes == Floats{0.25f, 0.0625f, 0.015625f, 0.00390625f, 0.5f, 0.125f});
  const AttentionShape plain{6, 2, 8, 16, 1.f};
  CHECK(plain.slope(0) == 0.f);
}

TEST_CASE("attention is the same bits for every number of threads") {
  same_on_every_cpu([](const Cpu& q) {
    const AttentionShape s{6, 2, 7, 90, 0.4f};
    const Batch batch{.sequences = 2, .length = 130};
    const Floats qkv = noise(260 * s.row(), 1), dout = noise(260 * 42, 2);
    Floats out = zeros(260 * 42), lse = zeros(260 * 6), dqkv = zeros(260 * s.row()), temp = zeros(260 * 6);
    attention(q, s, batch, qkv.data(), out.data(), lse.data());
    attention_backward(q, s, batch, qkv.data(), out.data(), lse.data(), dout.data(), dqkv.data(), Bump{temp.data()});
    for (const Floats& part : {lse, dqkv}) out.insert(out.end(), part.begin(), part.end());
    return out;
  });
}
