// What chimera's headers are: a program and an engine that it compiles must have the same.
#pragma once

#include <chimera/config/config_hash.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/result.hpp>

#include <cstdint>
#include <string>
#include <string_view>

/// Adds names and contents of all headers below a folder.
inline chimera::Result<void> add_headers(const std::string& folder, chimera::Hash& hash) {
  const auto names = chimera::list_folder(folder);
  if (!names) return names.error();
  for (const std::string& name : *names) {
    const std::string path = folder + "/" + name;
    if (chimera::is_folder(path)) {
      if (chimera::Result<void> s = add_headers(path, hash); !s) return s;
    } else if (name.ends_with(".hpp")) {
      const auto file = chimera::MappedFile::open(path);
      if (!file) return file.error();
      hash.add(std::string_view(name)), hash.add(file->text());
    }
  }
  return {};
}

/// Of all headers of the library in an include folder.
inline chimera::Result<std::uint64_t> headers_hash(const std::string& include) {
  chimera::Hash hash;
  if (chimera::Result<void> s = add_headers(include + "/chimera", hash); !s) return s.error();
  return hash.value;
}
