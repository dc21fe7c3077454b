// A tokenizer from a file of any kind that is known.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/tokenizer.hpp>

#include <span>
#include <string>
#include <string_view>

namespace chimera {

/// The kind is told by the name: *.tiktoken (of o200k, cl100k, r50k or gpt2), *.gguf; all else is tokenizer.json, or a
/// folder that has one.
Result<Tokenizer> load_tokenizer(const std::string& path);

}  // namespace chimera

#if CHIMERA_BODIES
#include <chimera/core/files.hpp>
#include <chimera/exchange/rank_file.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/exchange/tokenizer_json.hpp>
#include <chimera/io/gguf.hpp>

namespace chimera {

CHIMERA_FUNCTION Result<Tokenizer> load_tokenizer(const std::string& path) {
  const auto named = [&](const Error& error) { return Error{path + ": " + error.message}; };
  if (is_folder(path)) return load_tokenizer(path + "/tokenizer.json");
  if (path.ends_with(".gguf")) {
    const auto file = Gguf::open(path);
    if (!file) return file.error();
    auto tokenizer = read_tokenizer(*file);
    if (!tokenizer) return named(tokenizer.error());
    return tokenizer;
  }
  const auto file = MappedFile::open(path);
  if (!file) return file.error();
  if (path.ends_with(".tiktoken")) {
    const std::string name = path.substr(path.rfind('/') + 1);
    struct Known {
      std::string_view prefix;
      PreTokenizer pretokenizer;
      std::span<const RankedSpecial> specials;
    };
    for (const Known& k :
         {Known{"o200k", PreTokenizer::o200k, o200k_specials}, Known{"cl100k", PreTokenizer::cl100k, cl100k_specials},
          Known{"r50k", PreTokenizer::gpt2, gpt2_specials}, Known{"gpt2", PreTokenizer::gpt2, gpt2_specials}}) {
      if (!name.starts_with(k.prefix)) continue;
      auto tokenizer = read_rank_file(file->text(), k.pretokenizer, k.specials);
      if (!tokenizer) return named(tokenizer.error());
      return tokenizer;
    }
    return Error{path +
                 ": a rank file says nothing of its rules; expected a name that begins with o200k, cl100k, r50k or "
                 "gpt2"};
  }
  const std::string beside = folder_of(path) + "/tokenizer_config.json";
  std::string config;
  if (exists(beside)) {
    const auto mapped = MappedFile::open(beside);
    if (!mapped) return mapped.error();
    config = mapped->text();
  }
  auto tokenizer = read_tokenizer_json(file->text(), config);
  if (!tokenizer) return named(tokenizer.error());
  return tokenizer;
}

}  // namespace chimera
#endif
