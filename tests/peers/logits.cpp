// peer_logits MODEL OUT KV PIECE ID ...: the logits of a model of any shape behind each piece of the tokens, f32
// [pieces, vocab], PIECE tokens each. KV: the format of keys and values.
#include "engine.hpp"

#include <chimera/exchange/saved_model.hpp>
#include <chimera/generate/reader.hpp>
#include <chimera/generate/session.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

using namespace chimera;

static Status write_logits(char** argv, int argc) {
  const auto cpu = Cpu::create(2);
  if (!cpu) return cpu.error();
  const auto saved = SavedModel::open(argv[1], {}, find_engine);
  if (!saved) return saved.error();
  const auto packed = saved->packed(*cpu);
  if (!packed) return packed.error();
  const std::string kv = argv[3];
  SessionSettings settings;
  settings.kv = kv == "f16"    ? KvFormat::f16
                : kv == "q8_0" ? KvFormat::q8_0
                : kv == "q4_0" ? KvFormat::q4_0
                               : KvFormat::f32;
  const int piece = std::atoi(argv[4]);
  auto session = Session::create(*cpu, *packed, settings);
  if (!session) return session.error();
  std::FILE* out = std::fopen(argv[2], "wb");
  if (!out) return file_error("write", argv[2]);
  std::vector<std::int32_t> tokens;
  for (int i = 5; i < argc; ++i) tokens.push_back(std::atoi(argv[i]));
  Status status;
  for (std::size_t at = 0; status && at < tokens.size();) {
    const std::size_t n = std::min(static_cast<std::size_t>(piece), tokens.size() - at);
    const auto logits = n == 1 ? session->step(tokens[at]) : session->prefill(std::span(tokens).subspan(at, n));
    if (!logits)
      status = logits.error();
    else
      std::fwrite(logits->data(), sizeof(float), logits->size(), out);
    at += n;
  }
  return std::fclose(out) == 0 ? status : file_error("write", argv[2]);
}

int main(int argc, char** argv) {
  const Status status = argc > 5 ? write_logits(argv, argc) : Status(Error{"expected MODEL OUT KV PIECE ID ..."});
  if (!status) std::fprintf(stderr, "peer_logits: %s\n", status.error().message.c_str());
  return !status;
}
