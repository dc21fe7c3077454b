#include "registry.hpp"

#include <chimera/config/presets.hpp>
#include <chimera/model/language_model.hpp>

#include <boost/hana/unpack.hpp>

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

using namespace chimera;

namespace {

constexpr std::array models = boost::hana::unpack(
    all_presets, [](auto... preset) { return std::array{any_model<decltype(preset)::config>(preset.name)...}; });

/// Letters to insert, remove or replace to turn a into b (Levenshtein).
std::size_t edits(std::string_view a, std::string_view b) {
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

}  // namespace

std::span<const AnyModel> all_models() { return models; }

Result<AnyModel> find_model(std::string_view name) {
  const AnyModel* nearest = &models[0];
  for (const AnyModel& m : models) {
    if (m.name == name) return m;
    if (edits(name, m.name) < edits(name, nearest->name)) nearest = &m;
  }
  std::string names;
  for (const AnyModel& m : models) names.append(names.empty() ? "" : ", ").append(m.name);
  const bool near = 3 * edits(name, nearest->name) <= nearest->name.size();
  return Error{"no config is named \"" + std::string(name) + "\"" +
               (near ? ": did you mean " + std::string(nearest->name) + "?" : "") + " (there are " + names + ")"};
}
