// Adapters that a program is told of: FILE, or FILE:SCALE.
#pragma once

#include <chimera/core/fields.hpp>
#include <chimera/core/files.hpp>
#include <chimera/exchange/adapter_files.hpp>

#include <CLI/CLI.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

inline void add_adapter_option(CLI::App& app, const char* flag, std::vector<std::string>& adapters, const char* help) {
  app.add_option(flag, adapters, help)->type_name("PATH[:SCALE] ...")->default_str("");
}

/// The adapters of a model, each counted as often as its scale says.
inline chimera::Result<std::vector<chimera::LoadedAdapter>> load_adapters(const chimera::Cpu& cpu,
                                                                          const chimera::AnyModel& model,
                                                                          const std::vector<std::string>& told) {
  std::vector<chimera::LoadedAdapter> all;
  for (const std::string& text : told) {
    std::string path = text;
    float scale = 1.f;
    if (const std::size_t colon = text.rfind(':'); colon != text.npos && !chimera::exists(text))
      if (chimera::from_text(std::string_view(text).substr(colon + 1), scale)) path = text.substr(0, colon);
    auto loaded = chimera::load_adapter(cpu, path, model);
    if (!loaded) return loaded.error();
    for (chimera::Adapter& a : loaded->table->adapters) a.scale *= scale;
    all.push_back(std::move(*loaded));
  }
  return all;
}
