#include "io/use.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (chimera::use_safetensors({reinterpret_cast<const std::byte*>(data), size}) == chimera::Outcome::unsound)
    __builtin_trap();
  return 0;
}
