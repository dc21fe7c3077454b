// One figure of a measurement. With --json a program writes each as a line of JSON, and all.py makes one table of them.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>

struct Figure {
  std::string what;  // no quotation marks
  double value;
  const char* unit;
  double share = 0;     // 0: of nothing
  const char* of = "";  // what the share is of
};

inline void write_json(const Figure& f) {
  std::printf("{\"what\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"share\": %.4f, \"of\": \"%s\"}\n",
              f.what.c_str(), f.value, f.unit, f.share, f.of);
  std::fflush(stdout);
}

/// Whether the flag is among the arguments; it is taken out of them.
inline bool take_flag(int& argc, char** argv, std::string_view flag) {
  char** const end = argv + argc;
  char** const kept = std::remove_if(argv + 1, end, [&](const char* a) { return a == flag; });
  argc = static_cast<int>(kept - argv);
  return kept != end;
}
