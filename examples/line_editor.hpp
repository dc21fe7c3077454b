// A message typed on a terminal: it can be edited, pasted in several lines, and called back.
#pragma once

#include "columns.hpp"

#include <chimera/core/files.hpp>

#include <poll.h>
#include <termios.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

enum class Typed { message, interrupt, end };

/// Reads keys from standard input and shows what is typed on standard error. While it lives the terminal neither echoes
/// nor waits for whole lines; Ctrl-C is a signal all the same.
class LineEditor {
 public:
  /// Whether there is a terminal that can do it.
  static bool possible() {
    const char* const kind = std::getenv("TERM");
    return ::isatty(STDIN_FILENO) == 1 && ::isatty(STDERR_FILENO) == 1 && kind && std::string_view(kind) != "dumb";
  }

  /// `interrupts`: the end of a pipe that can be read from when Ctrl-C was pressed.
  explicit LineEditor(int interrupts) : interrupts_(interrupts) {
    if (::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | IEXTEN);
    raw.c_iflag &= ~static_cast<tcflag_t>(ICRNL | IXON);
    raw.c_cc[VMIN] = 1, raw.c_cc[VTIME] = 0;
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    show("\x1b[?2004h");  // what is pasted comes between marks
  }
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;
  ~LineEditor() {
    show("\x1b[?2004l");
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }

  Typed next(std::string& message) {
    text_.clear(), at_ = 0, row_ = 0, recalled_ = history_.size();
    draw();
    while (true) {
      while (!keys_.empty()) {
        const std::size_t used = key();
        if (used == 0) break;  // the rest of it is still to come
        keys_.erase(0, used);
        if (entered_ || (ended_ && text_.empty())) break;
      }
      if (std::exchange(entered_, false)) {
        at_ = text_.size();
        draw();
        show("\n");
        message = text_;
        if (!message.empty() && (history_.empty() || history_.back() != message)) history_.push_back(message);
        return Typed::message;
      }
      if (ended_) return at_ = text_.size(), draw(), show("\n"), Typed::end;
      draw();
      ::pollfd ready[] = {{interrupts_, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
      if (::poll(ready, 2, -1) < 0) continue;
      if (ready[0].revents != 0) return keys_.clear(), pasting_ = false, Typed::interrupt;
      char part[4096];
      const ssize_t n = ::read(STDIN_FILENO, part, sizeof part);
      if (n > 0)
        keys_.append(part, static_cast<std::size_t>(n));
      else if (n == 0 || errno != EINTR)
        ended_ = true;
    }
  }

 private:
  static constexpr std::string_view prompt = "> ", next_line = "  ";

  static void show(std::string_view text) { (void)chimera::write_all(STDERR_FILENO, text.data(), text.size()); }

  static constexpr char control(char letter) { return static_cast<char>(letter & 31); }

  /// Takes one key, or one pasted character, from keys_. The bytes of it; 0: it is not whole.
  std::size_t key() {
    constexpr std::string_view paste = "\x1b[200~", end = "\x1b[201~";
    const std::string_view keys = keys_;
    if (keys.starts_with(paste)) return pasting_ = true, paste.size();
    if (pasting_) {
      if (keys.starts_with(end)) return pasting_ = false, end.size();
      if (end.starts_with(keys)) return 0;
      if (keys.starts_with("\r\n")) return insert("\n"), 2;
      if (keys[0] == '\r' || keys[0] == '\n') return insert("\n"), 1;
      return character(keys);
    }
    if (keys[0] == '\x1b') return escape(keys);
    switch (keys[0]) {
      case '\r':
      case '\n': enter(); break;
      case control('A'): at_ = line_start(); break;
      case control('E'): at_ = line_end(); break;
      case control('B'): at_ = before(at_); break;
      case control('F'): at_ = after(at_); break;
      case control('P'): recall(-1); break;
      case control('N'): recall(1); break;
      case control('U'): erase(line_start(), at_); break;
      case control('K'): erase(at_, line_end()); break;
      case control('W'): erase(word_before(), at_); break;
      case control('L'): show("\x1b[H\x1b[2J"), row_ = 0; break;
      case control('H'):
      case 0x7F: erase(before(at_), at_); break;
      case control('D'):
        if (text_.empty())
          ended_ = true;
        else
          erase(at_, after(at_));
        break;
      default: return character(keys);
    }
    return 1;
  }

  /// Keys that terminals send as ESC and more: arrows and their like.
  std::size_t escape(std::string_view keys) {
    if (keys.size() < 2) return 0;
    if (keys[1] == '\r' || keys[1] == '\n') return insert("\n"), 2;
    if (keys[1] == 'b') return at_ = word_before(), 2;
    if (keys[1] == 'f') return at_ = word_after(), 2;
    if (keys[1] == 0x7F) return erase(word_before(), at_), 2;
    if (keys[1] != '[' && keys[1] != 'O') return 2;
    std::size_t last = 2;
    while (last < keys.size() && (keys[last] < 0x40 || keys[last] > 0x7E)) ++last;
    if (last == keys.size()) return last < 32 ? 0 : last;
    const std::string_view number = keys.substr(2, last - 2);
    const bool by_word = number.ends_with(";5") || number.ends_with(";3");
    switch (keys[last]) {
      case 'A': recall(-1); break;
      case 'B': recall(1); break;
      case 'C': at_ = by_word ? word_after() : after(at_); break;
      case 'D': at_ = by_word ? word_before() : before(at_); break;
      case 'H': at_ = line_start(); break;
      case 'F': at_ = line_end(); break;
      case '~':
        if (number == "1" || number == "7") at_ = line_start();
        if (number == "4" || number == "8") at_ = line_end();
        if (number == "3") erase(at_, after(at_));
        break;
      default: break;
    }
    return last + 1;
  }

  std::size_t character(std::string_view keys) {
    const auto lead = static_cast<unsigned char>(keys[0]);
    const std::size_t whole = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (keys.size() < whole && chimera::utf8_size(keys) == 0 && !ended_) return 0;
    const std::size_t bytes = chimera::utf8_size(keys);
    if (bytes == 0) return 1;  // no UTF-8
    if (lead >= 0x20 || lead == '\t') insert(keys[0] == '\t' ? " " : keys.substr(0, bytes));
    return bytes;
  }

  void insert(std::string_view text) { text_.insert(at_, text), at_ += text.size(); }
  void erase(std::size_t from, std::size_t to) { text_.erase(from, to - from), at_ = from; }

  /// A line that ends in a backslash goes on in the next.
  void enter() {
    if (at_ != text_.size() || !text_.ends_with('\\')) return void(entered_ = true);
    text_.back() = '\n';
  }

  void recall(int step) {
    const std::size_t to = recalled_ + static_cast<std::size_t>(step);
    if (to > history_.size()) return;  // also before the first
    if (recalled_ == history_.size()) draft_ = text_;
    recalled_ = to;
    text_ = to == history_.size() ? draft_ : history_[to];
    at_ = text_.size();
  }

  std::size_t before(std::size_t at) const {
    if (at == 0) return 0;
    for (--at; at > 0 && (text_[at] & 0xC0) == 0x80;) --at;
    return at;
  }
  std::size_t after(std::size_t at) const {
    return at == text_.size() ? at : at + first_character(std::string_view(text_).substr(at)).bytes;
  }
  std::size_t line_start() const { return at_ == 0 ? 0 : text_.rfind('\n', at_ - 1) + 1; }
  std::size_t line_end() const { return std::min(text_.find('\n', at_), text_.size()); }
  std::size_t word_before() const {
    std::size_t at = at_;
    while (at > 0 && is_space(text_[at - 1])) --at;
    while (at > 0 && !is_space(text_[at - 1])) --at;
    return at;
  }
  std::size_t word_after() const {
    std::size_t at = at_;
    while (at < text_.size() && is_space(text_[at])) ++at;
    while (at < text_.size() && !is_space(text_[at])) ++at;
    return at;
  }
  static bool is_space(char c) { return c == ' ' || c == '\n'; }

  /// Writes the text over what was shown of it. Where it has more rows than the screen, those about the cursor show.
  void draw() {
    const auto [columns, most] = terminal_size(STDERR_FILENO);
    std::vector<std::string> rows{std::string(prompt)};
    int column = 2, cursor_column = 2;
    std::size_t cursor_row = 0;
    const auto new_row = [&](std::string_view start) {
      rows.emplace_back(start), column = static_cast<int>(start.size());
    };
    for (std::size_t i = 0;; i = after(i)) {
      const Character c = i < text_.size() ? first_character(std::string_view(text_).substr(i)) : Character{0, 0};
      if (column + std::max(c.columns, 1) > columns) new_row("");
      if (i == at_) cursor_row = rows.size() - 1, cursor_column = column;
      if (i == text_.size()) break;
      if (text_[i] == '\n')
        new_row(next_line);
      else
        rows.back().append(text_, i, c.bytes), column += c.columns;
    }
    const std::size_t height = std::min(rows.size(), static_cast<std::size_t>(most));
    const std::size_t first = cursor_row < height ? 0 : cursor_row - height + 1;
    std::string out = "\r";
    if (row_ > 0) out += "\x1b[" + std::to_string(row_) + "A";
    out += "\x1b[J";
    for (std::size_t r = first; r < first + height; ++r) out += (r > first ? "\r\n" : "") + rows[r];
    row_ = cursor_row - first;
    if (const std::size_t up = height - 1 - row_; up > 0) out += "\x1b[" + std::to_string(up) + "A";
    out += "\r";
    if (cursor_column > 0) out += "\x1b[" + std::to_string(cursor_column) + "C";
    show(out);
  }

  int interrupts_;
  termios before_{};
  std::string keys_;  // read and not yet used
  std::string text_, draft_;
  std::size_t at_ = 0;   // of the cursor, in bytes
  std::size_t row_ = 0;  // of the cursor, on the screen, from the first that shows
  std::vector<std::string> history_;
  std::size_t recalled_ = 0;  // which of them is shown; all: none
  bool pasting_ = false, entered_ = false, ended_ = false;
};
