// headers_hash INCLUDE: prints the hash of the headers there as a C++ constant. It runs when the programs are built.
#include "headers.hpp"

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto hash = headers_hash(argv[1]);
  if (!hash) return std::fprintf(stderr, "headers_hash: %s\n", hash.error().message.c_str()), 1;
  std::printf("inline constexpr unsigned long long built_from_headers = 0x%016llx;\n",
              static_cast<unsigned long long>(*hash));
}
