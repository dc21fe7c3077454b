// A session that outlives its program: save_restore MODEL FILE writes 40 bytes of text, from where the session in FILE
// was, or from the beginning if there is no such file, and saves the session in it. Two runs write what one of twice
// the length would.
#include <chimera/config/presets.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/files.hpp>
#include <chimera/exchange/saved_model.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/model/language_model.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

using namespace chimera;

static constexpr AnyModel models[] = {inference_model<presets::nano>("nano")};

static Status go_on(const char* path, const char* file, int length) {
  const auto cpu = Cpu::create();
  if (!cpu) return cpu.error();
  const auto saved = SavedModel::open(path, models);
  if (!saved) return saved.error();
  const auto weights = saved->packed(*cpu);
  if (!weights) return weights.error();
  auto session = Session::create(*cpu, *weights);
  if (!session) return session.error();

  if (exists(file)) {
    if (Status s = session->restore(file); !s) return s;
  } else if (const auto logits = session->step('\n'); !logits) {
    return logits.error();
  }
  for (int i = 0; i < length; ++i) {  // the likeliest byte: this model's tokens are bytes, and a few more
    const Session::Logits logits = session->logits();
    const auto token =
        static_cast<std::int32_t>(std::max_element(logits.begin(), logits.begin() + 256) - logits.begin());
    std::putchar(token);
    if (const auto next = session->step(token); !next) return next.error();
  }
  return session->save(file);
}

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return std::fprintf(stderr, "usage: save_restore MODEL FILE [LENGTH]\n"), 2;
  const Status status = go_on(argv[1], argv[2], argc == 4 ? std::atoi(argv[3]) : 40);
  if (!status) std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return !status;
}
