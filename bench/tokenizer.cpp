// Encoding speed on one thread: bench/tokenizer TOKENIZER FILE... prints for each file megabytes a second, best of
// five, and the number of ids. bench/tokenizer.py runs it beside other tokenizers.
#include <chimera/core/files.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/text/encoder.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <vector>

using namespace chimera;

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s TOKENIZER FILE...\n", argv[0]);
    return 2;
  }
  const auto now = [] { return std::clock(); };  // of this process: what others run does not count
  const auto seconds = [&](std::clock_t start) { return static_cast<double>(now() - start) / CLOCKS_PER_SEC; };
  const auto start = now();
  const auto tokenizer = load_tokenizer(argv[1]);
  if (!tokenizer) {
    std::fprintf(stderr, "%s\n", tokenizer.error().message.c_str());
    return 1;
  }
  std::printf("load %.3f s\n", seconds(start));
  for (int i = 2; i < argc; ++i) {
    const auto file = MappedFile::open(argv[i]);
    if (!file) {
      std::fprintf(stderr, "%s\n", file.error().message.c_str());
      return 1;
    }
    Encoder encoder(*tokenizer);
    double best = 1e9;
    std::size_t ids = 0;
    for (int round = 0; round < 5; ++round) {
      std::vector<std::int32_t> out;
      const auto begin = now();
      encoder.encode(file->text(), Special::as_text, out);
      best = std::min(best, seconds(begin));
      ids = out.size();
    }
    std::printf("%s %.1f MB/s %zu ids\n", argv[i], static_cast<double>(file->size()) / best / 1e6, ids);
  }
}
