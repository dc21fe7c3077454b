// Writes a header of all configs, each as its source, and a table of them.
#include "configs.hpp"

#include <chimera/exchange/config_source.hpp>

#include <cstdio>

int main() {
  std::string table;
  std::size_t n = 0;
  std::puts("#include <chimera/config/config.hpp>");
  for (const chimera::Config& c : all_configs()) {
    const std::string name = "c" + std::to_string(n++);
    const auto source = chimera::config_source(c, name);
    if (!source) return std::fprintf(stderr, "%s\n", source.error().message.c_str()), 1;
    std::puts(source->c_str());
    table += "&" + name + ", ";
  }
  std::printf("inline constexpr const chimera::Config* compiled[]{%s};\n", table.c_str());
}
