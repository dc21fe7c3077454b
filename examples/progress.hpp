// The clock, and how far a program is.
#pragma once

#include <unistd.h>
#include <chrono>
#include <cstdio>
#include <string>

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// How far a program is, on stderr: a line that is written over on a terminal, one now and then elsewhere.
class ProgressLine {
 public:
  /// Enough time has passed since the last line.
  bool due() const { return seconds_since(shown_) >= (terminal_ ? 0.2 : 5); }

  void show(const std::string& line) {
    shown_ = Clock::now();
    if (!terminal_) return void(std::fprintf(stderr, "%s\n", line.c_str()));
    std::fprintf(stderr, "\r%-*s", width_, line.c_str());
    width_ = static_cast<int>(line.size());
  }

  /// Takes the line away, so that other words can stand in its place.
  void clear() {
    if (width_ > 0) std::fprintf(stderr, "\r%*s\r", width_, "");
    width_ = 0;
  }

  /// Leaves the line as it is: what follows starts on its own.
  void end() {
    if (width_ > 0) std::fputc('\n', stderr);
    width_ = 0;
  }

 private:
  Clock::time_point shown_ = Clock::now();
  bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  int width_ = 0;  // characters on the terminal's line
};
