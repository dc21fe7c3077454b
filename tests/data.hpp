// Files for development, which are not part of the project: CHIMERA_DATA names their folder, and a test that needs them
// says SKIPPED without it.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

inline std::string data_path(const std::string& name) { return std::string(CHIMERA_DATA).append("/").append(name); }

/// The file's bytes, unpacked if its name ends in .gz; empty, with a word about it, where the file is not.
inline std::string read_data(const std::string& name) {
  const std::string path = data_path(name);
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    MESSAGE("SKIPPED: no file " << path);
    return {};
  }
  if (!path.ends_with(".gz")) return {std::istreambuf_iterator<char>(file), {}};
  std::FILE* gzip = popen(("gzip -dc '" + path + "'").c_str(), "r");
  std::string text;
  std::array<char, 65536> buffer;
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), gzip)) text.append(buffer.data(), n);
  pclose(gzip);
  return text;
}
