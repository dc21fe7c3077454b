// What the compiler made of the header is what it was written from.
#include "configs.hpp"
#include "written.hpp"

#include <cstdio>

int main() {
  std::size_t n = 0;
  int wrong = 0;
  for (const chimera::Config& c : all_configs()) {
    if (*compiled[n++] == c) continue;
    std::printf("config %zu is not what was written\n", n - 1);
    ++wrong;
  }
  std::printf("%zu configs, %d wrong\n", n, wrong);
  return wrong > 0;
}
