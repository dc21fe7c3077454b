// One golden file while it is compared: its tensors, its config, and the largest difference found so far.
#pragma once

#include "safetensors.hpp"

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace goldens {

using Floats = std::vector<float>;

// Allowed |a - b| / max|b|. Stricter than the files ask for (max(1, max|b|)): a small gradient must be right, too.
inline constexpr double smallest_scale = 1e-3;
inline constexpr double forward_tolerance = 1e-5, gradient_tolerance = 1e-4;
inline constexpr double logits_tolerance = 1e-4, model_gradient_tolerance = 1e-3;

class Golden {
 public:
  explicit Golden(const std::filesystem::path& file) : folder_(file.parent_path()), data_(file) {
    const auto golden = nlohmann::json::parse(data_.metadata("golden"));
    name_ = golden.at("case");
    config_ = golden.at("config");
  }

  const std::string& name() const { return name_; }
  const nlohmann::json& config() const { return config_; }
  const Safetensors& data() const { return data_; }
  /// The folder of a whole model's checkpoint.
  std::filesystem::path checkpoint() const { return folder_ / name_; }
  std::int64_t number(const std::string& key) const { return config_.at(key); }

  Floats operator[](const std::string& name) const { return data_.floats(name); }
  /// The values of a tensor that must have that many.
  Floats get(const std::string& name, std::int64_t count) const {
    Floats values = data_.floats(name);
    if (static_cast<std::int64_t>(values.size()) != count)
      throw std::runtime_error(name + " has " + std::to_string(values.size()) + " values, expected " +
                               std::to_string(count));
    return values;
  }

  /// Where the next comparisons run; part of a failure's line.
  void set_place(std::string place) { place_ = std::move(place); }
  /// Prints every comparison.
  void set_verbose() { verbose_ = true; }

  void compare(const std::string& what, std::span<const float> got, std::span<const float> want, double tolerance) {
    double difference = got.size() == want.size() ? 0 : std::numeric_limits<double>::infinity(),
           largest = smallest_scale;
    for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
      const double d = std::abs(double{got[i]} - double{want[i]});
      difference = std::isnan(d) ? std::numeric_limits<double>::infinity() : std::max(difference, d);
      largest = std::max(largest, std::abs(double{want[i]}));
    }
    record(what, difference / largest, tolerance);
  }
  /// The mean difference: where roundings that go the other way move some numbers far.
  void compare_mean(const std::string& what, std::span<const float> got, std::span<const float> want,
                    double tolerance) {
    double sum = got.size() == want.size() ? 0 : std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i)
      sum += std::abs(double{got[i]} - double{want[i]}) / static_cast<double>(got.size());
    record(what + ", mean", std::isnan(sum) ? std::numeric_limits<double>::infinity() : sum, tolerance);
  }
  void record(const std::string& what, double difference, double tolerance) {
    if (verbose_) std::printf("  %-20s %-40s %.1e of %.0e\n", place_.c_str(), what.c_str(), difference, tolerance);
    ++compared_;
    failed_ += difference > tolerance;
    if (difference / tolerance <= share_) return;
    share_ = difference / tolerance;
    worst_ = what + ": largest difference " + text(difference) + ", allowed " + text(tolerance) + " (" + place_ + ")";
  }
  void fail(const std::string& what) {
    ++failed_;
    share_ = std::numeric_limits<double>::infinity();
    worst_ = what;
  }

  /// This case cannot be run; why, in words.
  void skip(const std::string& why) { skipped_ = why; }

  const std::string& skipped() const { return skipped_; }
  int compared() const { return compared_; }
  int failed() const { return failed_; }
  const std::string& worst() const { return worst_; }
  /// The worst difference over what is allowed for it.
  double share() const { return share_; }

 private:
  static std::string text(double x) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.1e", x);
    return buffer;
  }

  std::filesystem::path folder_;
  Safetensors data_;
  std::string name_, place_, worst_, skipped_;
  nlohmann::json config_;
  bool verbose_ = false;
  int compared_ = 0, failed_ = 0;
  double share_ = -1;
};

/// Memory for what is under test: NaN everywhere, so that nothing is read before it is written, and known bits behind
/// the end, so that nothing is written there.
class Arena {
 public:
  explicit Arena(std::int64_t floats) : floats_(static_cast<std::size_t>(floats)) {
    auto buffer = chimera::Buffer::create(floats_ + guard);
    if (!buffer) throw std::runtime_error(buffer.error().message);
    buffer_ = std::move(*buffer);
    std::fill_n(data(), floats_, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(data() + floats_, guard, sentinel);
  }

  /// For working memory.
  static Arena of_bytes(std::int64_t bytes) { return Arena(bytes / std::int64_t{sizeof(float)}); }

  float* data() { return buffer_.data(); }
  std::byte* bytes() { return buffer_.bytes(); }
  std::size_t size() const { return floats_; }
  bool intact() {
    return std::all_of(data() + floats_, data() + floats_ + guard, [](float x) { return x == sentinel; });
  }

 private:
  static constexpr std::size_t guard = 1024;
  static constexpr float sentinel = 12345.f;
  std::size_t floats_;
  chimera::Buffer buffer_;
};

/// [outer, rows, cols] -> [outer, cols, rows], the runs of `inner` floats kept.
inline Floats swap_axes(std::span<const float> x, std::int64_t outer, std::int64_t rows, std::int64_t cols,
                        std::int64_t inner) {
  if (static_cast<std::int64_t>(x.size()) != outer * rows * cols * inner)
    throw std::runtime_error("a tensor has " + std::to_string(x.size()) + " values, expected " +
                             std::to_string(outer * rows * cols * inner));
  Floats y(x.size());
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c)
        std::copy_n(x.data() + ((o * rows + r) * cols + c) * inner, inner,
                    y.data() + ((o * cols + c) * rows + r) * inner);
  return y;
}

/// Puts the columns of several matrices with the same number of rows side by side.
inline Floats side_by_side(std::int64_t rows, const std::vector<Floats>& parts) {
  Floats y;
  for (std::int64_t r = 0; r < rows; ++r)
    for (const Floats& p : parts) {
      const auto n = static_cast<std::int64_t>(p.size()) / rows;
      y.insert(y.end(), p.begin() + r * n, p.begin() + (r + 1) * n);
    }
  return y;
}

/// Columns first .. first + n - 1 of a matrix of `cols` columns.
inline Floats columns(std::span<const float> x, std::int64_t cols, std::int64_t first, std::int64_t n) {
  Floats y;
  for (std::int64_t r = 0; r * cols < static_cast<std::int64_t>(x.size()); ++r)
    y.insert(y.end(), x.begin() + r * cols + first, x.begin() + r * cols + first + n);
  return y;
}

/// Of the value heads that stand `dim` values each behind the first `before` values of every row: theirs read key head
/// h / (value_heads / key_heads), ours h mod key_heads. Forth from theirs, or back.
struct HeadOrder {
  std::int64_t key_heads, value_heads, dim, before = 0;

  Floats ours(const Floats& x, std::int64_t rows) const { return moved(x, rows, key_heads); }
  Floats theirs(const Floats& x, std::int64_t rows) const { return moved(x, rows, value_heads / key_heads); }

 private:
  Floats moved(const Floats& x, std::int64_t rows, std::int64_t outer) const {
    const std::int64_t values = value_heads * dim, row = before + values;
    return side_by_side(rows, {columns(x, row, 0, before),
                               swap_axes(columns(x, row, before, values), rows, outer, value_heads / outer, dim)});
  }
};

using Run = void (*)(Golden&, const chimera::Cpu&);

/// Cases whose shapes are run-time arguments; null for a case that none of them is.
Run kernel_case(const std::string& name);

struct Entry {
  const char* name;
  Run run;
};
/// The cases of layers and models, which `generate` wrote for one folder.
extern const std::span<const Entry> generated_cases;

}  // namespace goldens
