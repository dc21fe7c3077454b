// The memory that the system can still give.
#pragma once

#include <cstdio>

/// Bytes; 0: unknown.
inline double available_memory() {
  double kibibytes = 0;
  if (std::FILE* file = std::fopen("/proc/meminfo", "r")) {
    char line[128];
    while (std::fgets(line, sizeof line, file))
      if (std::sscanf(line, "MemAvailable: %lf", &kibibytes) == 1) break;
    std::fclose(file);
  }
  return 1024 * kibibytes;
}
