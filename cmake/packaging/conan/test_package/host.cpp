#include <chimera/io/json.hpp>

#include <cstdio>

int main() {
  const auto json = chimera::Json::parse("[1, 2.5]");
  if (!json) return std::puts(json.error().message.c_str()), 1;
  std::puts("chimera reads JSON");
}
