// odd_model FILE: writes a GGUF file of a model whose shape is no preset, and prints the likeliest text after "The.".
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/model/language_model.hpp>
#include <chimera/text/bytes.hpp>

#include <cstdio>
#include <string>

using namespace chimera;

inline constexpr Config odd{.vocab = 277,
                            .width = 72,
                            .context = 100,
                            .layers = pattern("R M A M A"),
                            .attention = {.heads = 3, .kv_heads = 1, .head_dim = 20, .window = 9},
                            .mamba2 = {.head_dim = 24, .state = 17, .groups = 2},
                            .rg_lru = {.inner = 60, .heads = 5},
                            .ffn = {.hidden = 91},
                            .tied = false,
                            .residual_scale = 0.7f};

static Status write(const std::string& path) {
  const AnyModel model = inference_model<odd>("odd");
  const auto cpu = Cpu::create(1);
  if (!cpu) return cpu.error();
  auto weights = Buffer::create(model.arena_floats);
  if (!weights) return weights.error();
  model.initialize(weights->data(), 1);
  for (std::size_t i = 0; i < weights->size(); ++i)
    weights->data()[i] *= 1.5f;  // so that texts differ from the first token
  const auto words = [](GgufWriter& file) { set_tokenizer(file, *byte_tokenizer(odd.vocab), odd.vocab); };
  if (Status s = save_gguf(*cpu, path, model, weights->data(), file_types[0], "odd", words); !s) return s;

  const auto packed = PackedModel::create(*cpu, model, weights->data());
  if (!packed) return packed.error();
  auto session = Session::create(*cpu, *packed);
  if (!session) return session.error();
  auto sampler = TokenSampler::create(odd.vocab, {.temperature = 0});
  if (!sampler) return sampler.error();
  const std::string prompt = "The.";
  ByteDecoder decoder;
  std::string text = prompt;
  auto logits = session->prefill(encode_bytes(prompt));
  for (int i = 0; i < 40 && logits; ++i) {
    const auto token = sampler->draw(*logits);
    if (!token) return token.error();
    if (*token == end_of_text) break;
    text += decoder.push(*token);
    logits = session->step(*token);
  }
  if (!logits) return logits.error();
  std::printf("%s\n", (text + decoder.flush()).c_str());
  return {};
}

int main(int argc, char** argv) {
  const Status status = argc == 2 ? write(argv[1]) : Error{"expected the file to write"};
  if (!status) std::fprintf(stderr, "odd_model: %s\n", status.error().message.c_str());
  return !status;
}
