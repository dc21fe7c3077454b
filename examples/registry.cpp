#include "registry.hpp"

#include "nearest.hpp"

#include <chimera/config/presets.hpp>
#include <chimera/model/language_model.hpp>

#include <boost/hana/unpack.hpp>

#include <array>
#include <string>
#include <vector>

using namespace chimera;

namespace {

constexpr std::array models = boost::hana::unpack(
    all_presets, [](auto... preset) { return std::array{any_model<decltype(preset)::config>(preset.name)...}; });

}  // namespace

std::span<const AnyModel> all_models() { return models; }

const AnyModel* find_preset(const Config& config) {
  for (const AnyModel& model : models)
    if (*model.config == config) return &model;
  return nullptr;
}

Result<AnyModel> find_model(std::string_view name) {
  std::vector<std::string> names;
  for (const AnyModel& m : models) {
    if (m.name == name) return m;
    names.emplace_back(m.name);
  }
  std::string list;
  for (const std::string& n : names) list.append(list.empty() ? "" : ", ").append(n);
  return Error{"no config is named \"" + std::string(name) + "\"" + did_you_mean(name, names) + " (there are " + list +
               ")"};
}
