// Numbers as people read them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

/// "700,599,840"
inline std::string grouped(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (std::size_t at = digits.size(); at > 3 + (n < 0); at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

template <class... T>
std::string formatted(const char* format, T... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

/// "904k", "700.6M", "10.7B"
inline std::string rounded(double n) {
  const char* unit = "";
  for (const char* next : {"k", "M", "B", "T"})
    if (n >= 999.5) n /= 1000, unit = next;
  return formatted(*unit && n < 99.95 ? "%.1f%s" : "%.0f%s", n, unit);
}

/// "1.31 GiB"
inline std::string size_text(double bytes) {
  const char* unit = "B";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"})
    if (bytes >= 1024) bytes /= 1024, unit = next;
  return formatted(bytes < 10 && *unit != 'B'    ? "%.2f %s"
                   : bytes < 100 && *unit != 'B' ? "%.1f %s"
                                                 : "%.0f %s",
                   bytes, unit);
}

/// "0:42", "1:02:03"
inline std::string duration(double seconds) {
  const auto s = std::llround(seconds);
  if (s < 3600) return formatted("%d:%02d", static_cast<int>(s / 60), static_cast<int>(s % 60));
  return formatted("%lld:%02d:%02d", static_cast<long long>(s / 3600), static_cast<int>(s / 60 % 60),
                   static_cast<int>(s % 60));
}
