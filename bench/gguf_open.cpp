// Time to open a GGUF file and to check all of its header.
//   gguf_open FILE         milliseconds, the best of many
//   gguf_open FILE make    writes FILE first: 500 MB of weights, 200,000 tokens and as many merges
#include <chimera/io/gguf.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/kernels/roofline.hpp>

#include <cstdio>
#include <string>
#include <vector>

using namespace chimera;

namespace {

Status make(const std::string& path) {
  GgufWriter writer;
  writer.set("general.architecture", "llama");
  std::vector<std::string> tokens, merges;
  for (int i = 0; i < 200'000; ++i) {
    tokens.push_back("token" + std::to_string(i));
    merges.push_back("left" + std::to_string(i) + " right" + std::to_string(i));
  }
  writer.set("tokenizer.ggml.tokens", tokens);
  writer.set("tokenizer.ggml.merges", merges);
  writer.set("tokenizer.ggml.token_type", std::vector<std::int32_t>(tokens.size(), 1));
  constexpr int tensors = 290;
  for (int i = 0; i < tensors; ++i)
    if (Status s = writer.add("blk." + std::to_string(i) + ".ffn_up.weight", {2048, 800}, Format::q8_0); !s) return s;
  if (Status s = writer.begin(path); !s) return s;
  const std::vector<std::byte> weights(static_cast<std::size_t>(format_bytes(Format::q8_0, 2048 * 800)));
  for (int i = 0; i < tensors; ++i)
    if (Status s = writer.append(weights); !s) return s;
  return writer.commit();
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return std::printf("usage: gguf_open FILE [make]\n"), 1;
  const std::string path = arguments[1];
  Status status;
  if (count > 2) status = make(path);
  const double seconds = roofline::best_seconds(0.5, [&] {
    if (status.ok())
      if (const auto file = Gguf::open(path); !file) status = file.error();
  });
  if (!status.ok()) return std::printf("%s\n", status.error().message.c_str()), 1;
  std::printf("%.3f\n", 1e3 * seconds);
}
