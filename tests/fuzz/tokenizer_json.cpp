// A tokenizer.json; what reads as one is written and read again, and encodes alike.
#include <chimera/exchange/tokenizer_json.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

using namespace chimera;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = read_tokenizer_json(file);
  if (!tokenizer) {
    if (tokenizer.error().message.empty()) __builtin_trap();
    return 0;
  }
  const auto again = read_tokenizer_json(tokenizer_json(*tokenizer));
  if (!again) __builtin_trap();
  for (const Special control : {Special::as_text, Special::as_token}) {
    const auto ids = tokenizer->encode(file, control);
    if (tokenizer->decode(ids) != file || again->encode(file, control) != ids) __builtin_trap();
  }
  return 0;
}
