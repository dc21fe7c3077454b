// A rank file; what reads as one encodes and decodes.
#include <chimera/exchange/rank_file.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

using namespace chimera;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = read_rank_file(file, PreTokenizer::o200k, {});
  if (!tokenizer) {
    if (tokenizer.error().message.empty()) __builtin_trap();
    return 0;
  }
  if (tokenizer->decode(tokenizer->encode(file)) != file) __builtin_trap();
  return 0;
}
