// Flags whose values are text: escapes in them, files and standard input.
#pragma once

#include "program.hpp"

#include <chimera/core/files.hpp>
#include <chimera/core/result.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cstddef>
#include <string>
#include <string_view>

/// \n \r \t \' \" \\ and \xNN become what they stand for; other escapes stay as they are (as in llama.cpp).
inline std::string unescaped(std::string_view text) {
  const auto hexadecimal = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    switch (const char c = text[++i]) {
      case 'n': out += '\n'; break;
      case 'r': out += '\r'; break;
      case 't': out += '\t'; break;
      case '\'':
      case '"':
      case '\\': out += c; break;
      case 'x':
        if (i + 2 < text.size() && hexadecimal(text[i + 1]) >= 0 && hexadecimal(text[i + 2]) >= 0) {
          out += static_cast<char>(16 * hexadecimal(text[i + 1]) + hexadecimal(text[i + 2]));
          i += 2;
          break;
        }
        [[fallthrough]];
      default: (out += '\\') += c;
    }
  }
  return out;
}

/// All of a file, or of standard input where it is named "-".
inline chimera::Result<std::string> read_text(const std::string& path) {
  const chimera::FileHandle file(path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const std::string name = path == "-" ? "standard input" : path;
  if (!file.ok()) return chimera::file_error("open", name);
  std::string text;
  char part[65536];
  while (true) {
    const ssize_t n = ::read(file.fd(), part, sizeof part);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return chimera::file_error("read", name);
    if (n == 0) return text;
    text.append(part, static_cast<std::size_t>(n));
  }
}

/// Whether text is piped to this program, or comes from a file.
inline bool is_piped() {
  struct stat s;
  return ::fstat(STDIN_FILENO, &s) == 0 && (S_ISFIFO(s.st_mode) || S_ISREG(s.st_mode));
}

/// The text that a program is given: by a flag, from a file, or from a pipe.
struct TextOptions {
  std::string prompt, file;
  bool escape = true;

  void add_escape(CLI::App& app) {
    app.add_flag(
           "-e,--escape,!--no-escape", escape,
           "\\n, \\t, \\\", \\\\ and \\xNN in texts given as flags become what they stand for; this is the default, "
           "--no-escape takes them as they are")
        ->default_str("");
  }

  std::string flag_text(const std::string& text) const { return escape ? unescaped(text) : text; }

  /// Of a file the last line break does not count.
  chimera::Result<std::string> text() const {
    if (!prompt.empty() || (file.empty() && !is_piped())) return flag_text(prompt);
    auto text = read_text(file.empty() ? "-" : file);
    if (text && text->ends_with('\n')) text->pop_back();
    return text;
  }
};
