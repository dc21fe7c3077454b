// Flags of the programs that run sessions.
#pragma once

#include "program.hpp"

#include <chimera/generate/session.hpp>

inline void add_kv_option(CLI::App& app, chimera::KvFormat& kv) {
  using chimera::KvFormat;
  add_choice(app, "--kv", kv,
             {{"f32", KvFormat::f32}, {"f16", KvFormat::f16}, {"q8_0", KvFormat::q8_0}, {"q4_0", KvFormat::q4_0}},
             "how keys and values are remembered");
}
