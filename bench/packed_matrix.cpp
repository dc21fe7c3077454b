// Products with packed weights, format by format: decoding (one row of x, and four) against the memory's read
// bandwidth, prefill (252 rows) against the peak of int8, or of f32 for F32, F16 and BF16. Also what quantizing x
// costs, and packing.
//
//   packed_matrix [--json] [cols] [threads] [format ...]
#include "figure.hpp"

#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/packed/matrix.hpp>
#include <chimera/kernels/roofline.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

using namespace chimera;

namespace {

constexpr std::size_t weight_bytes = std::size_t{256} << 20, piece_bytes = std::size_t{4} << 20;
constexpr std::int64_t prompt = 252, few = 4, together = 4;  // rows of x; panels that are multiplied at once

std::vector<float> noise(std::int64_t n) {
  std::vector<float> x(static_cast<std::size_t>(n));
  std::uint32_t seed = 1;
  for (float& v : x) v = static_cast<float>(static_cast<std::int32_t>(seed = seed * 1664525 + 1013904223)) * 0x1p-31f;
  return x;
}

struct Peaks {
  double f32, int8;
};

template <class F>
double seconds(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Panels of equal content, far more than the caches hold.
struct Weights {
  PackedRows rows;
  Buffer memory;
  double pack_seconds = 0;
};

Weights make_weights(const Cpu& q, Format format, std::int64_t cols) {
  const std::size_t panel = panel_bytes(format, cols);
  const std::size_t panels = weight_bytes / panel;
  Weights w{{format, static_cast<std::int64_t>(panels) * panel_rows, cols}, *Buffer::create(panels * panel / 4)};
  auto* data = reinterpret_cast<std::byte*>(w.memory.data());
  const auto row_bytes = static_cast<std::size_t>(format_bytes(format, cols));
  std::vector<std::byte> file(row_bytes * panel_rows);
  (void)encode(q, format, noise(cols * panel_rows).data(), cols * panel_rows, file.data());
  const std::byte* rows[panel_rows];
  for (std::size_t r = 0; r < panel_rows; ++r) rows[r] = file.data() + r * row_bytes;
  w.pack_seconds = roofline::best_seconds(0.1, [&] { pack_panel(format, cols, rows, panel_rows, data); });
  for (std::size_t p = 1; p < panels; ++p) std::memcpy(data + p * panel, data, panel);
  w.rows.data = data;
  return w;
}

/// The first `rows` rows of noise.
struct Input {
  Buffer memory;
  PackedInput packed;
  double pack_seconds = 0;

  Input(const Cpu& q, Format format, std::int64_t rows, std::int64_t cols) {
    memory = *Buffer::of_bytes(static_cast<std::size_t>(packed_input_bytes(input_forms(format), rows, cols)));
    Bump take{memory.data()};
    packed = bind_packed_input(take, input_forms(format), rows, cols);
    const std::vector<float> x = noise(cols * rows);
    pack_seconds = roofline::best_seconds(0.1, [&] {
      for (std::int64_t t = 0; t < rows; ++t) pack_input(q.isa(), packed, t, x.data() + t * cols);
    });
  }
};

void report(const Cpu& q, Format format, std::int64_t cols, const Peaks& peaks, bool json) {
  const Weights w = make_weights(q, format, cols);
  const std::size_t panel = panel_bytes(format, cols);
  const std::int64_t panels = w.rows.panels(), cached_panels = 2 * together * q.threads();
  const Input one(q, format, 1, cols), some(q, format, few, cols), many(q, format, prompt, cols);
  const auto sum = [&](std::int64_t first, std::int64_t number) {
    parallel(q, number, [&](std::int64_t i, int worker) {
      const auto* at = reinterpret_cast<const float*>(w.rows.data + static_cast<std::size_t>(first + i) * panel);
      dispatch<roofline::Read>(q.isa(), at, static_cast<std::int64_t>(panel / 512 * 128), q.scratch(worker));
    });
  };
  const auto multiply = [&](std::int64_t first, std::int64_t number, const Input& x) {
    std::atomic<std::int64_t> next{first};
    parallel(q, q.threads(), [&](std::int64_t, int worker) {
      alignas(64) float out[together * prompt * panel_rows];
      for (std::int64_t at; (at = next.fetch_add(together, std::memory_order_relaxed)) < first + number;)
        multiply_panels(q.isa(), w.rows, at, std::min(together, first + number - at), x.packed, 0, x.packed.rows,
                        q.scratch(worker), out);
    });
  };
  // Decoding and plain reading take turns at pieces that the caches have forgotten: others' load troubles both alike.
  const std::int64_t piece = std::max<std::int64_t>(1, static_cast<std::int64_t>(piece_bytes / panel));
  double decode = 1e30, decode_few = 1e30, read = 1e30;
  for (int round = 0; round < 6; ++round)
    for (std::int64_t p = 0; p + 3 * piece <= panels; p += 3 * piece) {
      decode = std::min(decode, seconds([&] { multiply(p, piece, one); }));
      decode_few = std::min(decode_few, seconds([&] { multiply(p + piece, piece, some); }));
      read = std::min(read, seconds([&] { sum(p + 2 * piece, piece); }));
    }
  const double cached = roofline::best_seconds(0.2, [&] { multiply(0, 8, one); });
  const double prefill = roofline::best_seconds(0.5, [&] { multiply(0, cached_panels, many); });
  const auto rate = [&](double seconds, std::int64_t number) {
    return static_cast<double>(number) * static_cast<double>(panel) / seconds;
  };
  const double macs = static_cast<double>(cached_panels * panel_rows * cols * prompt) / prefill;
  const double peak = input_forms(format) == InputForms::f32 ? peaks.f32 : peaks.int8;
  if (json) {
    const std::string name = std::string(format_info(format)->name) + ", ";
    const char* const peak_name = input_forms(format) == InputForms::f32 ? "f32 peak" : "int8 peak";
    write_json({name + "one row", rate(decode, piece) * 1e-9, "GB/s", read / decode, "read beside it"});
    write_json({name + "4 rows", rate(decode_few, piece) * 1e-9, "GB/s", read / decode_few, "read beside it"});
    write_json({name + "252 rows", macs * 1e-9, "GMAC/s", 2 * macs / peak, peak_name});
    write_json({name + "quantizing x", many.pack_seconds / static_cast<double>(prompt * cols) * 1e9, "ns a number"});
    return;
  }
  std::printf("%-6s %8.1f %6.0f %% %8.1f %8.1f %10.1f %6.0f %% %8.2f %8.2f\n", format_info(format)->name.data(),
              rate(decode, piece) * 1e-9, 100 * read / decode, rate(decode_few, piece) * 1e-9, rate(cached, 8) * 1e-9,
              macs * 1e-9 / q.threads(), 100 * 2 * macs / peak,
              many.pack_seconds / static_cast<double>(prompt * cols) * 1e9,
              w.pack_seconds / static_cast<double>(panel_rows * cols) * 1e9);
}

}  // namespace

int main(int count, char** arguments) {
  const bool json = take_flag(count, arguments, "--json");
  const std::int64_t cols = count > 1 ? std::atoll(arguments[1]) : 2048;
  auto q = Cpu::create(count > 2 ? std::atoi(arguments[2]) : 0);
  if (!q) return std::fprintf(stderr, "%s\n", q.error().message.c_str()), 1;
  const Peaks peaks{roofline::measure_peak_f32(*q), roofline::measure_peak_int8(*q)};
  if (!json) {
    std::printf("%d threads, %s, %lld columns; f32 %.1f GMAC/s, int8 %.1f GMAC/s\n\n", q->threads(),
                name(q->isa()).data(), static_cast<long long>(cols), peaks.f32 * 0.5e-9, peaks.int8 * 0.5e-9);
    std::printf("%-6s %17s %8s %8s %19s %8s %8s\n", "", "one row, GB/s", "4 rows", "cached", "GMAC/s a thread", "x, ns",
                "pack, ns");
  }
  for (const FormatInfo& f : formats) {
    bool wanted = holds_weights(f.format) && cols % f.values == 0;
    if (count > 3)
      wanted = wanted && std::any_of(arguments + 3, arguments + count,
                                     [&](const char* a) { return format_named(a) == f.format; });
    if (wanted) report(*q, f.format, cols, peaks, json);
  }
}
