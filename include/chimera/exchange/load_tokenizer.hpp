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
/// folder that has one. What lies beside a file named tokenizer.json says more of it (TokenizerTexts).
Result<Tokenizer> load_tokenizer(const std::string& path);

}  // namespace chimera

#if CHIMERA_BODIES
#include <chimera/core/files.hpp>
#include <chimera/exchange/rank_file.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/exchange/tokenizer_json.hpp>
#include <chimera/io/gguf.hpp>

#include <array>
#include <cstddef>
#include <vector>

namespace chimera {

namespace load_tokenizer_parts {

/// What lies beside a tokenizer.json. A file that is empty or missing has no text.
struct Beside {
  std::array<std::string, 6> files;
  std::vector<NamedTemplate> templates;

  static Result<Beside> read(const std::string& folder, std::string_view name) {
    constexpr std::array<std::string_view, 6> names{"tokenizer_config.json",  "special_tokens_map.json",
                                                    "generation_config.json", "config.json",
                                                    "chat_template.jinja",    "chat_template.json"};
    Beside beside;
    const auto take = [](const std::string& path, std::string& text) -> Result<void> {
      const auto info = platform::info(path);
      if (!info || (info->kind == platform::FileInfo::file && info->bytes == 0)) return {};
      const auto file = MappedFile::open(path);
      if (!file) return file.error();
      text = file->text();
      return {};
    };
    const bool whole = name == "tokenizer.json";  // else what lies around may be of anything
    for (std::size_t i = 0; i < (whole ? names.size() : 1); ++i)
      if (Result<void> s = take(folder + "/" + std::string(names[i]), beside.files[i]); !s) return s.error();
    const std::string more = folder + "/additional_chat_templates";
    if (!whole || !is_folder(more)) return beside;
    const auto found = list_folder(more);
    if (!found) return found.error();
    constexpr std::string_view suffix = ".jinja";
    for (const std::string& file : *found) {
      if (!file.ends_with(suffix)) continue;
      NamedTemplate& t = beside.templates.emplace_back(file.substr(0, file.size() - suffix.size()), "");
      if (Result<void> s = take(more + "/" + file, t.jinja); !s) return s.error();
    }
    return beside;
  }

  TokenizerTexts texts(std::string_view tokenizer) const {
    return {.tokenizer = tokenizer,
            .config = files[0],
            .special_tokens = files[1],
            .generation = files[2],
            .model = files[3],
            .chat_template = files[4],
            .old_chat_template = files[5],
            .more_templates = templates};
  }
};

}  // namespace load_tokenizer_parts

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
  const auto beside = load_tokenizer_parts::Beside::read(folder_of(path), path.substr(path.rfind('/') + 1));
  if (!beside) return beside.error();
  auto tokenizer = read_tokenizer_json(beside->texts(file->text()));
  if (!tokenizer) return named(tokenizer.error());
  return tokenizer;
}

}  // namespace chimera
#endif
