// What a program may write over: nothing that it reads, and other files only if the user agrees.
#pragma once

#include "shell_word.hpp"

#include <chimera/core/files.hpp>
#include <chimera/core/result.hpp>

#include <sys/stat.h>
#include <unistd.h>
#include <cstdio>
#include <string>

/// Both paths lead to one file or folder.
inline bool same_file(const std::string& a, const std::string& b) {
  struct stat x, y;
  return ::stat(a.c_str(), &x) == 0 && ::stat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/// Whether a file, or a folder with anything in it, would be lost. Devices and pipes are written to and stay.
inline bool holds_something(const std::string& path) {
  struct stat s;
  if (::stat(path.c_str(), &s) != 0) return false;
  if (!S_ISDIR(s.st_mode)) return S_ISREG(s.st_mode) && s.st_size > 0;
  const auto names = chimera::list_folder(path);
  return !names || !names->empty();
}

/// Asks on a terminal; elsewhere what exists is not replaced.
inline chimera::Result<void> may_replace(const std::string& path) {
  if (!holds_something(path)) return {};
  const std::string what = chimera::is_folder(path) ? "the folder " + path + " is not empty" : path + " exists";
  if (::isatty(STDIN_FILENO) != 1 || ::isatty(STDERR_FILENO) != 1)
    return chimera::Error{what + ": --force writes over it"};
  std::fprintf(stderr, "%s. Write over it? [y/N] ", what.c_str());
  char answer[16] = "";
  if (std::fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y')) return {};
  return chimera::Error{"nothing was written"};
}
