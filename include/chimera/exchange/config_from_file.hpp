// A model's Config from whatever holds one: the files of others, or a run's own.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/config_from_gguf.hpp>
#include <chimera/exchange/config_from_hugging_face.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/train/checkpoint.hpp>

#include <string>

namespace chimera::inline CHIMERA_ABI {

/// Of a GGUF file, a Hugging Face folder or its config.json, a checkpoint or a run's folder.
Result<Config> config_from_file(const std::string& path);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<Config> config_from_file(const std::string& path) {
  const auto named = [&](const std::string& file, Result<Config> config) -> Result<Config> {
    if (config) return config;
    return Error{"cannot read the config of " + file + ": " + config.error().message};
  };
  if (path.ends_with(".gguf")) {
    const auto file = Gguf::open(path);
    if (!file) return file.error();
    return named(path, config_from_gguf(*file));
  }
  if (path.ends_with(".json") || exists(path + "/config.json")) return config_from_hugging_face(path);
  const auto checkpoint = find_checkpoint(path);
  if (!checkpoint) return checkpoint.error();
  const auto header = read_checkpoint_header(*checkpoint);
  if (!header) return header.error();
  const Config& config = header->info.model.config;
  if (config.vocab == 0) return named(*checkpoint, Error{"it was written before checkpoints held one"});
  if (const char* broken = broken_rule(config)) return named(*checkpoint, Error{broken});
  return config;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
