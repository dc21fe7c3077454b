// A GGUF file in another format: tensor by tensor, in pieces, so that memory does not grow with the model.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/config_from_gguf.hpp>
#include <chimera/exchange/quantization_mix.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// How far what is stored lies from what was read, over `count` numbers.
struct QuantizationError {
  std::int64_t count = 0;
  double squares = 0, error_squares = 0;  // sums of x^2 and of (x - stored)^2
  float largest = 0.f;                    // |x - stored|

  double root_mean_square() const { return count ? std::sqrt(error_squares / static_cast<double>(count)) : 0; }
  /// Root mean square error over the root mean square of the numbers.
  double relative() const { return squares > 0 ? std::sqrt(error_squares / squares) : 0; }

  void add(const QuantizationError& e) {
    count += e.count, squares += e.squares, error_squares += e.error_squares;
    largest = std::max(largest, e.largest);
  }
};

struct QuantizedTensor {
  std::string name;
  Format from, to;
  std::int64_t bytes_read, bytes_written;
  QuantizationError error;  // zero where from == to: the bytes are copied
};

namespace quantize_parts {

struct Sums {
  float squares, error_squares, largest;
};

/// Of n numbers x, and of what differs from them as they are stored.
Sums compare_numbers(Isa isa, std::int64_t n, const float* x, const float* stored);

/// Reads, encodes and writes pieces of tensors: while one piece is encoded, the one before it is written.
class Quantizer {
 public:
  /// Numbers that one worker treats at a time, whole blocks that fit its caches, and numbers written at a time.
  static constexpr std::int64_t run = 8192, piece = 128 * run;

  Quantizer(const Cpu& q, GgufWriter& out) : q_(q), out_(out), sums_(static_cast<std::size_t>(piece / run)) {}

  /// `count` numbers of a tensor from `first`, which is a multiple of `piece`. What it adds to `error` comes from sums
  /// of fixed order.
  Result<void> encode_piece(const GgufTensor& t, Format to, std::int64_t first, std::int64_t count,
                            QuantizationError& error) {
    std::vector<std::byte>& bytes = bytes_[turn_];
    turn_ = 1 - turn_;
    bytes.resize(static_cast<std::size_t>(format_bytes(to, count)));
    const std::int64_t runs = (count + run - 1) / run;
    std::vector<Result<void>> encoded(static_cast<std::size_t>(runs));
    Result<void> written;
    parallel(q_, runs + 1, [&](std::int64_t task, int worker) {
      if (task == 0) {
        written = out_.append(waiting_);
        return;
      }
      const std::int64_t at = (task - 1) * run, n = std::min(run, count - at);
      encoded[static_cast<std::size_t>(task - 1)] =
          encode_run(t, to, first + at, n, q_.scratch(worker), bytes.data() + format_bytes(to, at),
                     sums_[static_cast<std::size_t>(task - 1)]);
    });
    if (!written) return written;
    for (std::size_t i = 0; i < encoded.size(); ++i) {
      if (!encoded[i]) return Error{"tensor " + t.name + ": " + encoded[i].error().message};
      error.add(sums_[i]);
    }
    waiting_ = bytes;
    return {};
  }

  Result<void> flush() {
    const auto last = std::exchange(waiting_, {});
    return out_.append(last);
  }

 private:
  Result<void> encode_run(const GgufTensor& t, Format to, std::int64_t first, std::int64_t n, float* x, std::byte* out,
                          QuantizationError& error) const {
    float* const stored = x + run;
    const Isa isa = q_.isa();
    if (Result<void> s = decode(isa, t.format, t.data.data() + format_bytes(t.format, first), n, x); !s) return s;
    if (Result<void> s = encode(isa, to, x, n, out, first); !s) return s;
    if (Result<void> s = decode(isa, to, out, n, stored); !s) return s;
    const Sums sums = compare_numbers(isa, n, x, stored);
    error = {n, double{sums.squares}, double{sums.error_squares}, sums.largest};
    return {};
  }

  const Cpu& q_;
  GgufWriter& out_;
  std::vector<std::byte> bytes_[2];
  int turn_ = 0;
  std::span<const std::byte> waiting_;  // encoded, not yet written
  std::vector<QuantizationError> sums_;
};

}  // namespace quantize_parts

/// Writes `in` as a file of that type, whole or not at all: the metadata key for key, with the new file type, and each
/// tensor in the format of QuantizationMix. `progress(i, bytes)` is called as it goes: tensor i is being written, and
/// so many bytes of all tensors have been read. Errors: a model of ternary matrices (Config::ternary), numbers that a
/// format cannot hold (NaN, infinity), a full disk.
template <class F>
Result<std::vector<QuantizedTensor>> quantize_gguf(const Cpu& q, const Gguf& in, const std::string& path,
                                                   const FileType& type, F&& progress) {
  using quantize_parts::Quantizer;
  if (const auto config = config_from_gguf(in); config && config->ternary.on)
    return Error{"a file with ternary.on holds the weights that its products round to three values: " +
                 std::string(type.name) + " would round them before"};
  const QuantizationMix mix(type, in.tensors());
  GgufWriter out;
  out.set_all(in);
  out.set("general.file_type", type.id);
  out.set("general.quantization_version", std::uint32_t{2});
  std::vector<QuantizedTensor> tensors;
  for (const GgufTensor& t : in.tensors()) {
    const Format to = mix.format_of(t);
    const std::span<const std::int64_t> ne(t.ne.data(), static_cast<std::size_t>(t.dims));
    if (Result<void> s = out.add(t.name, ne, to); !s) return s.error();
    tensors.push_back({t.name, t.format, to, format_bytes(t.format, t.size()), format_bytes(to, t.size()), {}});
  }
  if (Result<void> s = out.begin(path); !s) return s.error();

  Quantizer quantizer(q, out);
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const GgufTensor& t = in.tensors()[i];
    QuantizedTensor& report = tensors[i];
    progress(i, bytes);
    if (report.to == t.format) {
      if (Result<void> s = quantizer.flush(); !s) return s.error();
      if (Result<void> s = out.append(t.data); !s) return s.error();
    } else {
      for (std::int64_t first = 0; first < t.size(); first += Quantizer::piece) {
        const std::int64_t count = std::min(Quantizer::piece, t.size() - first);
        if (Result<void> s = quantizer.encode_piece(t, report.to, first, count, report.error); !s) return s.error();
        progress(i, bytes + format_bytes(t.format, first + count));
      }
    }
    bytes += report.bytes_read;
  }
  if (Result<void> s = quantizer.flush(); !s) return s.error();
  if (Result<void> s = out.commit(); !s) return s.error();
  return tensors;
}

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {
namespace quantize_parts {

struct CompareNumbers {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, const float* stored, Sums* sums) {
    Vec<W> squares, errors, largest;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> v = io.load(x + i), d = v - io.load(stored + i);
      squares = fma<W>(v, v, squares);
      errors = fma<W>(d, d, errors);
      largest = max<W>(largest, max<W>(d, -d));
    });
    *sums = {sum<W>(squares), sum<W>(errors), chimera::largest<W>(largest)};
  }
};

CHIMERA_FUNCTION Sums compare_numbers(Isa isa, std::int64_t n, const float* x, const float* stored) {
  Sums sums{};
  dispatch<CompareNumbers>(isa, n, x, stored, &sums);
  return sums;
}

}  // namespace quantize_parts
}  // namespace chimera::inline CHIMERA_ABI
#endif
