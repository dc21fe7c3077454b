// The terminal: colours for pixels of half a character, text over them, and keys.
#pragma once

#include <chimera/core/files.hpp>

#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

/// 0 is dark, 1 is bright.
struct Color {
  float r = 0, g = 0, b = 0;

  Color operator+(Color c) const { return {r + c.r, g + c.g, b + c.b}; }
  Color operator*(Color c) const { return {r * c.r, g * c.g, b * c.b}; }
  Color operator*(float x) const { return {r * x, g * x, b * x}; }
};
inline Color mix(Color a, Color b, float share) { return a * (1 - share) + b * share; }

/// A picture of columns x 2 rows pixels, with text in some of its character cells.
class Picture {
 public:
  Picture(int columns, int rows) : columns_(columns), rows_(rows) {
    pixels_.resize(static_cast<std::size_t>(columns) * static_cast<std::size_t>(rows) * 2);
    cells_.resize(pixels_.size() / 2);
    shown_.resize(cells_.size());
  }

  int columns() const { return columns_; }
  int rows() const { return rows_; }
  int width() const { return columns_; }
  int height() const { return 2 * rows_; }
  bool inside(int x, int y) const { return x >= 0 && x < width() && y >= 0 && y < height(); }
  Color& at(int x, int y) { return pixels_[index(x, y)]; }
  void set(int x, int y, Color c) {
    if (inside(x, y)) at(x, y) = c;
  }
  void glow(int x, int y, Color c) {
    if (inside(x, y)) at(x, y) = at(x, y) + c;
  }

  void clear_text() {
    for (Cell& c : cells_) c.letter = 0;
  }
  /// UTF-8, one cell for each character; those that may be wider show as a dot.
  void write(int column, int row, std::string_view text, Color ink) {
    for (std::size_t i = 0; i < text.size(); ++column) {
      std::uint32_t letter = static_cast<unsigned char>(text[i++]);
      if (letter >= 0xC0) letter &= letter >= 0xF0 ? 0x07u : letter >= 0xE0 ? 0x0Fu : 0x1Fu;
      for (; i < text.size() && (text[i] & 0xC0) == 0x80; ++i)
        letter = letter << 6 | (static_cast<unsigned char>(text[i]) & 0x3Fu);
      const bool narrow = (letter >= 0x20 && letter < 0x7F) || (letter >= 0xA1 && letter < 0x300) ||
                          (letter >= 0x2010 && letter < 0x2028) || (letter >= 0x2190 && letter < 0x2600);
      if (column < 0 || column >= columns_ || row < 0 || row >= rows_) continue;
      Cell& cell = cells_[index(column, row)];
      cell.letter = narrow ? letter : 0xB7;
      cell.ink = packed(ink, 0, 0);
    }
  }

  /// What takes the terminal from the picture shown last to this one.
  const std::string& update() {
    out_.clear();
    std::uint32_t ink = none, paper = none;
    std::size_t cursor = cells_.size();
    for (int row = 0; row < rows_; ++row)
      for (int column = 0; column < columns_; ++column) {
        const std::size_t i = index(column, row);
        Cell cell = cells_[i];
        const std::uint32_t upper = packed(at(column, 2 * row), column, 2 * row),
                            lower = packed(at(column, 2 * row + 1), column, 2 * row + 1);
        if (cell.letter == 0)
          cell = {0x2580, upper, lower};  // the upper half is ink, the lower paper
        else
          cell.paper = packed(mix(at(column, 2 * row), at(column, 2 * row + 1), 0.5f) * 0.6f, 0, 0);
        if (cell == shown_[i]) continue;
        shown_[i] = cell;
        if (cursor != i) out_ += "\x1b[" + std::to_string(row + 1) + ";" + std::to_string(column + 1) + "H";
        if (cell.ink != ink) color(38, ink = cell.ink);
        if (cell.paper != paper) color(48, paper = cell.paper);
        letter(cell.letter);
        cursor = column + 1 < columns_ ? i + 1 : cells_.size();
      }
    return out_;
  }

 private:
  static constexpr std::uint32_t none = 0xFFFFFFFF;

  struct Cell {
    std::uint32_t letter = 0, ink = none, paper = none;
    bool operator==(const Cell&) const = default;
  };

  std::size_t index(int x, int y) const {
    return static_cast<std::size_t>(y) * static_cast<std::size_t>(columns_) + static_cast<std::size_t>(x);
  }

  /// 24 bits. Levels are 6 apart, so that a flicker of light changes few pixels; a pattern of pixels hides the edges
  /// between them.
  static std::uint32_t packed(Color c, int x, int y) {
    constexpr float step = 6, pattern[2][2] = {{0.125f, 0.625f}, {0.875f, 0.375f}};
    const auto level = [&](float v) {
      const float bright = std::sqrt(std::clamp(v, 0.f, 1.f)) * 255;
      return static_cast<std::uint32_t>(std::min(255.f, std::floor(bright / step + pattern[y & 1][x & 1]) * step));
    };
    return level(c.r) << 16 | level(c.g) << 8 | level(c.b);
  }

  void color(int what, std::uint32_t c) {
    char text[32];
    std::snprintf(text, sizeof text, "\x1b[%d;2;%u;%u;%um", what, c >> 16, c >> 8 & 255, c & 255);
    out_ += text;
  }
  void letter(std::uint32_t c) {
    const auto add = [&](std::uint32_t byte) { out_ += static_cast<char>(byte); };
    if (c < 0x80) return add(c);
    if (c < 0x800)
      add(0xC0 | c >> 6);
    else
      add(0xE0 | c >> 12), add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  }

  int columns_, rows_;
  std::vector<Color> pixels_;  // [2 rows, columns]; light adds up, as it does in nature: the eye's curve comes last
  std::vector<Cell> cells_, shown_;
  std::string out_;
};

/// Takes keys as they are pressed and hides the cursor, until it goes. Without a terminal it does nothing.
class Terminal {
 public:
  Terminal() : present_(::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1) {
    if (!present_ || ::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 0, raw.c_cc[VTIME] = 0;
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    struct sigaction action {};
    action.sa_handler = [](int) { stopped_ = 1; };
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
    show("\x1b[?1049h\x1b[?25l\x1b[2J");
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() {
    if (!present_) return;
    show("\x1b[0m\x1b[?25h\x1b[?1049l");
    ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }

  bool present() const { return present_; }
  bool stopped() const { return stopped_ != 0; }
  /// Columns and rows, within bounds.
  std::pair<int, int> size() const {
    winsize w{};
    if (!present_ || ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col == 0) return {100, 30};
    return {std::clamp<int>(w.ws_col, 60, 140), std::clamp<int>(w.ws_row, 20, 45)};
  }
  void show(std::string_view text) const {
    if (present_) (void)chimera::write_all(STDOUT_FILENO, text.data(), text.size());
  }
  /// What was pressed since the last call.
  std::string keys() const {
    char text[64];
    const ssize_t n = present_ ? ::read(STDIN_FILENO, text, sizeof text) : 0;
    return {text, static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
  }

 private:
  inline static volatile std::sig_atomic_t stopped_ = 0;
  bool present_;
  termios before_{};
};
