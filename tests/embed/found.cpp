// An application that finds the library, its packages and its threads: where that is asked, and not how a model runs.
#include <chimera/inference.hpp>

#include <cstdio>

int main() {
  const auto cpu = chimera::Cpu::create();
  if (!cpu) return 1;
  std::printf("%d threads\n", cpu->threads());
  return 0;
}
