// How long frames took, and how many of them took too long.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <string>

class FrameTimes {
 public:
  static constexpr double budget = 1000.0 / 60;  // ms

  void add(double ms) {
    ++frames_;
    late_ += ms > budget;
    sum_ += ms, worst_ = std::max(worst_, ms);
    ++buckets_[std::min(static_cast<std::size_t>(ms), buckets_.size() - 1)];
  }

  void print(const char* what) const {
    const double frames = static_cast<double>(std::max(frames_, 1L));
    std::printf("%s: mean %.2f ms, worst %.2f ms, over %.1f ms: %ld of %ld (%.2f %%)\n", what, sum_ / frames, worst_,
                budget, late_, frames_, 100 * static_cast<double>(late_) / frames);
  }

  /// One line for each millisecond in which frames ended.
  void print_chart(const char* what) const {
    std::printf("%s, ms\n", what);
    const long most = *std::max_element(buckets_.begin(), buckets_.end());
    for (std::size_t ms = 0; ms < buckets_.size(); ++ms) {
      if (buckets_[ms] == 0) continue;
      const auto width = static_cast<std::size_t>((buckets_[ms] * 40 + most - 1) / most);
      const std::string end = ms + 1 < buckets_.size() ? std::to_string(ms + 1) : "";
      std::printf("  %2zu-%-4s %7ld  %s\n", ms, end.c_str(), buckets_[ms], std::string(width, '#').c_str());
    }
  }

 private:
  std::array<long, 34> buckets_{};  // of a millisecond each; the last has all that took longer
  long frames_ = 0, late_ = 0;
  double sum_ = 0, worst_ = 0;
};
