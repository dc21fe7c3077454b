// A layer's weights as decoding takes them, in F32, and what holds for every layer's decode.
#pragma once

#include "checks.hpp"

#include <chimera/layers/layer.hpp>

namespace checks {

template <class L>
class Packed {
 public:
  explicit Packed(const Floats& w) {
    for (std::size_t p = 0; p < L::params.size(); ++p) {
      const Tensor& t = L::params[p];
      const float* from = w.data() + offsets<L>[p];
      tensors_[p].values = from;
      if (t.role == Role::taps) tensors_[p].values = transpose(t, from);
      if (t.role == Role::matrix && t.size() > 0) tensors_[p].matrix = pack(t, from);
    }
  }
  PackedWeights<L> weights() const { return {tensors_.data()}; }

 private:
  const float* transpose(const Tensor& t, const float* from) {
    float* to = memory_.emplace_back(*Buffer::create(static_cast<std::size_t>(t.size()))).data();
    for (std::int64_t i = 0; i < t.size(); ++i) to[i % t.cols * t.rows + i / t.cols] = from[i];
    return to;
  }

  PackedMatrix pack(const Tensor& t, const float* from) {
    PackedMatrix matrix{.parts = {}, .count = 0, .rows = t.rows, .cols = t.cols};
    for (std::int64_t first = 0, end = 0; first < t.rows; first = end) {
      end = part_end(t.parts, t.rows, first);
      const std::int64_t rows = end - first;
      const std::size_t bytes = packed_bytes(Format::f32, rows, t.cols);
      auto* data = memory_.emplace_back(*Buffer::of_bytes(bytes)).bytes();
      for (std::int64_t row = 0; row < rows; row += panel_rows) {
        const std::byte* lines[panel_rows] = {};
        const std::int64_t count = std::min(panel_rows, rows - row);
        for (std::int64_t r = 0; r < count; ++r)
          lines[r] = reinterpret_cast<const std::byte*>(from + (first + row + r) * t.cols);
        pack_panel(Format::f32, t.cols, lines, count,
                   data + static_cast<std::size_t>(row / panel_rows) * panel_bytes(Format::f32, t.cols));
      }
      matrix.parts[matrix.count++] = {{Format::f32, rows, t.cols, data}, first, 1.f};
    }
    return matrix;
  }

  std::array<PackedTensor, L::params.size()> tensors_;
  std::vector<Buffer> memory_;
};

/// Sequences that are decoded together, each from its start.
template <class L>
class Decoding {
 public:
  Decoding(const Cpu& q, const Floats& w, std::size_t sequences, KvFormat kv = KvFormat::f32)
      : q_(q), packed_(w), norm_(noise(L::width, 99)), kv_(kv), positions_(sequences, 0) {
    for (float& v : norm_) v += 2.f;
    for (std::size_t b = 0; b < sequences; ++b)
      states_.push_back(*Buffer::of_bytes(static_cast<std::size_t>(state(kv).whole + state(kv).ring)));
  }

  /// What forward is to be given: x [T,width], normalised as decode does.
  Floats normed(const Floats& x) const {
    Floats y = x;
    rms_norm(q_, {static_cast<std::int64_t>(x.size()) / L::width, L::width, L::width, eps}, x.data(), norm_.data(),
             y.data());
    return y;
  }

  /// One pass over the next tokens of every sequence: x[b] [count,width], where count may be 0. The layer's results,
  /// sequence after sequence; `in_place`: x + results / 2.
  Floats pass(const std::vector<Floats>& x, bool in_place = false) {
    Floats all;
    std::vector<Run> runs;
    for (std::size_t b = 0; b < x.size(); ++b) {
      const std::int64_t count = static_cast<std::int64_t>(x[b].size()) / L::width;
      if (count == 0) continue;
      const std::int64_t first = static_cast<std::int64_t>(all.size()) / L::width;
      std::byte* memory = states_[b].bytes();
      runs.push_back({.first = first,
                      .count = count,
                      .position = positions_[b],
                      .state = memory,
                      .ring = memory + state(kv_).whole});
      positions_[b] += count;
      all.insert(all.end(), x[b].begin(), x[b].end());
    }
    if (runs.empty()) return {};
    const std::int64_t rows = static_cast<std::int64_t>(all.size()) / L::width;
    Memory temp(L::decode_bytes(rows));
    Floats y = in_place ? all : zeros(rows * L::width);
    const ProductInput input{in_place ? y.data() : all.data(), L::width, norm_.data(), L::width, eps};
    L::decode(q_, packed_.weights(), Pass{runs, rows, kv_}, input, in_place ? 0.5f : 1.f, y.data(), temp.bump());
    return y;
  }

  std::int64_t position(std::size_t sequence) const { return positions_[sequence]; }

 private:
  static constexpr float eps = 1e-5f;
  static StateBytes state(KvFormat kv) { return L::state(kv, Run{}.context); }

  const Cpu& q_;
  Packed<L> packed_;
  Floats norm_;
  KvFormat kv_;
  std::vector<std::int64_t> positions_;
  std::vector<Buffer> states_;
};

/// Tokens first .. first + count - 1 of x [T,width].
template <class L>
Floats tokens(const Floats& x, std::int64_t first, std::int64_t count) {
  return Floats(x.begin() + first * L::width, x.begin() + (first + count) * L::width);
}

/// One sequence in pieces of these lengths, and token by token behind them.
template <class L>
Floats decoded(const Cpu& q, const Floats& w, const Floats& x, const std::vector<std::int64_t>& lengths,
               KvFormat kv = KvFormat::f32) {
  Decoding<L> decoding(q, w, 1, kv);
  Floats y;
  const std::int64_t T = static_cast<std::int64_t>(x.size()) / L::width;
  std::int64_t at = 0;
  for (std::size_t piece = 0; at < T; ++piece) {
    const std::int64_t n = piece < lengths.size() ? std::min(lengths[piece], T - at) : 1;
    const Floats part = decoding.pass({tokens<L>(x, at, n)});
    y.insert(y.end(), part.begin(), part.end());
    at += n;
  }
  return y;
}

/// In any pieces what forward makes of the whole sequence.
template <class L>
void decodes(std::int64_t T, const std::vector<std::int64_t>& lengths, KvFormat kv = KvFormat::f32,
             double tolerance = 1e-5) {
  on_every_cpu([&](const Cpu& q) {
    const Floats w = weights_of<L>(1), x = noise(T * L::width, 2);
    const Floats want = forward<L>(q, w, {.sequences = 1, .length = T}, Decoding<L>(q, w, 0).normed(x));
    CHECK(difference(decoded<L>(q, w, x, lengths, kv), want) <= tolerance);
  });
}

/// Tokens of several sequences in one pass are, bit for bit, what each sequence's are in passes of their own.
template <class L>
void decodes_together(KvFormat kv = KvFormat::f16) {
  on_every_cpu([&](const Cpu& q) {
    const Floats w = weights_of<L>(1);
    std::vector<Floats> x;
    std::vector<Floats> want;
    for (std::uint64_t b = 0; b < 7; ++b) {
      x.push_back(noise(40 * L::width, 10 + b));
      // Sequence b starts with b tokens of its own; then come passes of all.
      want.push_back(decoded<L>(q, w, x.back(), {static_cast<std::int64_t>(b), 1, 1, 11, 1, 3}, kv));
    }
    Decoding<L> together(q, w, x.size(), kv);
    std::vector<Floats> got(x.size());
    const auto read = [&](const std::vector<std::int64_t>& counts) {
      std::vector<Floats> parts;
      for (std::size_t b = 0; b < x.size(); ++b) parts.push_back(tokens<L>(x[b], together.position(b), counts[b]));
      const Floats y = together.pass(parts);
      std::int64_t at = 0;
      for (std::size_t b = 0; b < x.size(); ++b) {
        const Floats mine = tokens<L>(y, at, counts[b]);
        got[b].insert(got[b].end(), mine.begin(), mine.end());
        at += counts[b];
      }
    };
    read({0, 1, 2, 3, 4, 5, 6});
    read({1, 1, 1, 1, 1, 1, 1});
    read({1, 0, 1, 0, 1, 0, 1});  // some sequences wait
    read({11, 1, 11, 1, 11, 1, 11});
    read({1, 11, 1, 11, 1, 11, 1});
    read({3, 1, 3, 1, 3, 1, 3});
    for (std::size_t b = 0; b < x.size(); ++b) {
      CAPTURE(b);
      CHECK(got[b] == Floats(want[b].begin(), want[b].begin() + static_cast<std::ptrdiff_t>(got[b].size())));
    }
  });
}

/// y += scale layer(x), where y may be x; the same bits for every number of threads.
template <class L>
void decodes_in_place() {
  same_on_every_cpu([&](const Cpu& q) {
    const Floats w = weights_of<L>(1), x = noise(30 * L::width, 2);
    Decoding<L> apart(q, w, 1), in_place(q, w, 1);
    Floats all;
    for (const std::int64_t n : {13, 1, 1, 15}) {
      const Floats part = tokens<L>(x, apart.position(0), n);
      Floats y = apart.pass({part});
      for (std::size_t i = 0; i < y.size(); ++i) y[i] = part[i] + 0.5f * y[i];
      CHECK(difference(in_place.pass({part}, true), y) <= 1e-6);
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  });
}

}  // namespace checks
