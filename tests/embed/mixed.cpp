// host.cpp twice in one program: built plainly, and for AVX2. Each must keep its own code and say the same.
#include <cstdio>

int host_plain();
int host_avx2();

int main() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    std::puts("SKIPPED: this processor has no AVX2");
    return 0;
  }
  return host_plain() || host_avx2();
}
