// The name that somebody meant who wrote another.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Letters to insert, remove or replace to turn a into b (Levenshtein).
inline std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = std::exchange(row[j + 1], std::min({replaced, row[j] + 1, row[j + 1] + 1}));
    }
  }
  return row[b.size()];
}

/// ": did you mean NAME?", or nothing where no name is near.
inline std::string did_you_mean(std::string_view given, std::span<const std::string> names) {
  given = given.substr(0, 100);
  const auto nearest = std::min_element(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    return edits(given, a) < edits(given, b);
  });
  if (nearest == names.end() || edits(given, *nearest) > 1 + std::max(nearest->size(), given.size()) / 4) return {};
  return ": did you mean " + *nearest + "?";
}
