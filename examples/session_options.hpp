// Flags of the programs that run sessions, and a session of them.
#pragma once

#include "memory.hpp"
#include "numbers.hpp"
#include "program.hpp"

#include <chimera/generate/session.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

inline void add_kv_option(CLI::App& app, chimera::KvFormat& kv) {
  using chimera::KvFormat;
  add_choice(app, "--kv", kv,
             {{"f32", KvFormat::f32}, {"f16", KvFormat::f16}, {"q8_0", KvFormat::q8_0}, {"q4_0", KvFormat::q4_0}},
             "format of the keys and values in memory");
}

inline void add_context_option(CLI::App& app, chimera::SessionSettings& settings) {
  app.add_option("-c,--ctx-size,--context", settings.context,
                 "tokens to keep in memory, fewer take less; 0: as many as the model was made for")
      ->check(non_negative());
}

inline void add_loop_options(CLI::App& app, chimera::SessionSettings& settings) {
  app.add_option("--passes", settings.passes, "passes through the model's loop; 0: as many as the model was made for")
      ->check(non_negative());
  app.add_option("--stop-passes", settings.stop, "no more passes where the state changes by less; 0: never");
}

/// Sessions that fit into the memory that is free: "; -c 4096 needs 512 MiB, -c 8192 --kv q8_0 needs 544 MiB".
inline std::string what_fits(const chimera::AnyModel& model, const chimera::SessionSettings& asked) {
  const double free = available_memory();
  const std::int64_t most = asked.context > 0 ? asked.context : model.config->context;
  std::string text;
  for (const auto& [kv, flag] : {std::pair{asked.kv, ""}, std::pair{chimera::KvFormat::q8_0, " --kv q8_0"}}) {
    std::int64_t context = 4096;
    const auto bytes = [&, kv = kv](std::int64_t n) { return static_cast<double>(model.state_bytes(kv, n)); };
    while (free > 0 && 2 * context < most && bytes(2 * context) < 0.75 * free) context *= 2;
    if (context < most)
      text +=
          (text.empty() ? "; -c " : ", -c ") + std::to_string(context) + flag + " needs " + size_text(bytes(context));
  }
  return text;
}

/// A session with a reader of its own. Where memory is lacking, the error says which flags would help.
inline chimera::Result<chimera::Session> create_session(const chimera::Cpu& cpu, const chimera::PackedModel& weights,
                                                        const chimera::SessionSettings& settings) {
  if (settings.context > weights.config().context)
    return chimera::Error{"-c must be at most the model's context of " + std::to_string(weights.config().context) +
                          " tokens, found " + std::to_string(settings.context)};
  auto session = chimera::Session::create(cpu, weights, settings);
  if (session) return session;
  return chimera::Error{session.error().message + what_fits(weights.model(), settings)};
}
