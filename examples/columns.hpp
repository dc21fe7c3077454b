// Text on a terminal: how wide it is, and where its lines break.
#pragma once

#include <chimera/core/utf8.hpp>

#include <sys/ioctl.h>
#include <unistd.h>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

/// Columns and rows of the terminal.
inline std::pair<int, int> terminal_size(int fd) {
  winsize w{};
  if (::ioctl(fd, TIOCGWINSZ, &w) != 0 || w.ws_col < 8 || w.ws_row < 2) return {80, 24};
  return {w.ws_col, w.ws_row};
}

/// The first character: its bytes, and its columns. What is no UTF-8 is a byte of one column.
struct Character {
  std::size_t bytes;
  int columns;
};

inline Character first_character(std::string_view text) {
  const std::size_t bytes = chimera::utf8_size(text);
  if (bytes <= 1) return {1, static_cast<unsigned char>(text[0]) >= 0x20 && text[0] != 0x7F ? 1 : 0};
  std::uint32_t c = static_cast<unsigned char>(text[0]) & (0xFFu >> (bytes + 1));
  for (std::size_t i = 1; i < bytes; ++i) c = c << 6 | (static_cast<unsigned char>(text[i]) & 63u);
  const auto in = [&](std::uint32_t first, std::uint32_t last) { return c >= first && c <= last; };
  const bool joins = in(0x300, 0x36F) || in(0x591, 0x5C7) || in(0x64B, 0x65F) || in(0x900, 0x902) || c == 0x93C ||
                     in(0x941, 0x948) || c == 0x94D || in(0x200B, 0x200F) || in(0x20D0, 0x20FF) || in(0xFE00, 0xFE0F) ||
                     in(0x80, 0x9F);
  const bool wide = in(0x1100, 0x115F) || in(0x2E80, 0xA4CF) || in(0xAC00, 0xD7A3) || in(0xF900, 0xFAFF) ||
                    in(0xFE30, 0xFE6F) || in(0xFF00, 0xFF60) || in(0xFFE0, 0xFFE6) || in(0x1F300, 0x1FAFF) ||
                    in(0x20000, 0x3FFFD);
  return {bytes, joins ? 0 : wide ? 2 : 1};
}

/// Breaks lines between words while text streams, at `columns`; 0: hands it on as it is. On a terminal characters that
/// control it are left out.
class WordWrap {
 public:
  explicit WordWrap(int columns) : columns_(columns) {}

  std::string push(std::string_view text) {
    if (columns_ == 0) return std::string(text);
    std::string out;
    while (!text.empty()) {
      const Character c = first_character(text);
      add(text.substr(0, c.bytes), c.columns, out);
      text.remove_prefix(c.bytes);
    }
    return out;
  }

  /// The word at the end.
  std::string flush() {
    std::string out;
    place(out);
    return out;
  }

 private:
  void add(std::string_view character, int columns, std::string& out) {
    if (character == "\n") {
      place(out);
      out += '\n', at_ = 0, spaces_ = 0;
    } else if (character == " " || character == "\t") {
      place(out);
      ++spaces_;
    } else if (columns > 0 || character.size() > 1) {
      if (columns == 2 || word_columns_ + columns > columns_) place(out);
      word_ += character, word_columns_ += columns;
      if (columns == 2) place(out);
    }
  }

  /// Writes the word that waits, on the next line if it does not fit on this one.
  void place(std::string& out) {
    if (word_.empty()) return;
    if (at_ > 0 && at_ + spaces_ + word_columns_ > columns_)
      out += '\n', at_ = 0;
    else
      out.append(static_cast<std::size_t>(spaces_), ' '), at_ += spaces_;
    out += word_, at_ += word_columns_;
    word_.clear(), word_columns_ = spaces_ = 0;
  }

  int columns_;
  int at_ = 0;        // columns of the line that is begun
  int spaces_ = 0;    // after it
  std::string word_;  // after those
  int word_columns_ = 0;
};
