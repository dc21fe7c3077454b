// Two models whose configs are read from a file when the project is built.
#include <chimera/model/language_model.hpp>
#include <host/model.hpp>
#include <small/model.hpp>

#include <cstdio>

int main() {
  static_assert(chimera::LanguageModel<small>::parameters == chimera::LanguageModel<own>::parameters);
  std::printf("small: width %d; own: width %d\n", small.width, own.width);
}
