// The tokenizer that belongs to a model: the one beside its weights, or bytes.
#pragma once

#include <chimera/core/files.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/special_ids.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/exchange/tokenizer_json.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/text/tokenizer.hpp>
#include <chimera/text/vocabulary.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera {

/// Turns of a conversation between <|im_start|> and <|im_end|>, in Jinja.
inline constexpr std::string_view chatml_template =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The byte vocabulary (text/bytes.hpp) for a model of `vocab` tokens, at least 256: special tokens beyond it are left
/// out.
Result<Tokenizer> byte_tokenizer(int vocab);

/// Whether all of its text is single bytes.
bool is_bytes(const Tokenizer& tokenizer);

/// The same tokens; where the file did not say, <|endoftext|> ends a text and starts one: what is not said other
/// programs guess wrongly. A model whose file has no chat template was not trained to chat, and gets none. Ids that are
/// only there to fill a model's vocabulary lose their names, and so write nothing.
Result<Tokenizer> with_special_ids(const Tokenizer& tokenizer);

/// The tokenizer in the GGUF file of a model of `vocab` tokens; bytes if there is none.
Result<Tokenizer> tokenizer_of(const Gguf& file, int vocab);

/// The tokenizer in a GGUF file, or in the folder that `path` is or lies in; bytes if there is none.
Result<Tokenizer> tokenizer_of(const std::string& path, int vocab);

/// tokenizer.json, tokenizer_config.json, generation_config.json, which names all tokens that end a text, and chat
/// templates in files of their own, as transformers has them since 5.
Result<void> save_tokenizer(const std::string& folder, const Tokenizer& tokenizer);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<Tokenizer> byte_tokenizer(int vocab) {
  if (vocab < 256)
    return Error{"the model's vocabulary has " + std::to_string(vocab) + " tokens, text as bytes needs 256"};
  Vocabulary v = byte_vocabulary();
  const std::int32_t size = std::min(vocab, byte_vocab);
  v.tokens.resize(static_cast<std::size_t>(size));
  for (std::int32_t* id : {&v.bos, &v.eos, &v.eot, &v.padding})
    if (*id >= size) *id = -1;
  return Tokenizer::create(std::move(v));
}

CHIMERA_FUNCTION bool is_bytes(const Tokenizer& tokenizer) {
  return tokenizer.vocabulary().merges.empty() && !tokenizer.vocabulary().merge_by_rank;
}

CHIMERA_FUNCTION Result<Tokenizer> with_special_ids(const Tokenizer& tokenizer) {
  Vocabulary v = tokenizer.vocabulary();
  const auto id = [&](std::string_view text) { return tokenizer.special(text).value_or(-1); };
  for (std::size_t i = 0; i < v.tokens.size(); ++i)
    if (v.tokens[i].type == TokenType::unused && v.tokens[i].bytes == "[PAD" + std::to_string(i) + "]")
      v.tokens[i].bytes.clear();
  if (v.eos < 0) v.eos = id("<|endoftext|>");
  if (v.bos < 0) v.bos = v.eos;
  if (v.eot < 0) v.eot = id("<|im_end|>");
  std::erase_if(v.ends, [&](std::int32_t end) { return end == v.eos || end == v.eot; });
  if (v.padding < 0) v.padding = id("<|pad|>") >= 0 ? id("<|pad|>") : v.eos;
  return Tokenizer::create(std::move(v));
}

namespace model_tokenizer_parts {

/// What was found in `source`, as a model of `vocab` tokens uses it.
inline Result<Tokenizer> completed(const Tokenizer& found, const std::string& source, int vocab) {
  auto tokenizer = with_special_ids(found);
  if (!tokenizer) return Error{"cannot use the tokenizer of " + source + ": " + tokenizer.error().message};
  if (tokenizer->size() > vocab)
    return Error{"the tokenizer of " + source + " has " + std::to_string(tokenizer->size()) + " tokens, the model " +
                 std::to_string(vocab)};
  return tokenizer;
}

}  // namespace model_tokenizer_parts

CHIMERA_FUNCTION Result<Tokenizer> tokenizer_of(const Gguf& file, int vocab) {
  if (!file.has("tokenizer.ggml.model")) return byte_tokenizer(vocab);
  const auto tokenizer = read_tokenizer(file);
  if (!tokenizer) return Error{"cannot use the tokenizer of the model's file: " + tokenizer.error().message};
  return model_tokenizer_parts::completed(*tokenizer, "the model's file", vocab);
}

CHIMERA_FUNCTION Result<Tokenizer> tokenizer_of(const std::string& path, int vocab) {
  const bool gguf = path.ends_with(".gguf") && !is_folder(path);
  const std::string file = gguf ? path : (is_folder(path) ? path : folder_of(path)) + "/tokenizer.json";
  if (gguf) {
    const auto metadata = Gguf::open(path);
    if (!metadata) return metadata.error();
    if (!metadata->has("tokenizer.ggml.model")) return byte_tokenizer(vocab);
  } else if (!exists(file)) {
    return byte_tokenizer(vocab);
  }
  const auto tokenizer = load_tokenizer(file);
  if (!tokenizer) return Error{"cannot use the tokenizer of " + tokenizer.error().message};
  return model_tokenizer_parts::completed(*tokenizer, file, vocab);
}

CHIMERA_FUNCTION Result<void> save_tokenizer(const std::string& folder, const Tokenizer& tokenizer) {
  if (Result<void> s = write_text(folder + "/tokenizer.json", tokenizer_json(tokenizer)); !s) return s;
  const Vocabulary& v = tokenizer.vocabulary();
  const std::string usual = folder + "/chat_template.jinja", more = folder + "/additional_chat_templates";
  if (!v.chat_template.empty()) {
    if (Result<void> s = write_text(usual, v.chat_template); !s) return s;
  } else if (exists(usual) && !platform::remove(usual)) {
    return file_error("remove", usual);  // it was of another tokenizer
  }
  if (!v.named_templates.empty())
    if (Result<void> s = make_folder(more); !s) return s;
  for (const NamedTemplate& t : v.named_templates)
    if (Result<void> s = write_text(more + "/" + t.name + ".jinja", t.jinja); !s) return s;
  const std::string generation = generation_config_json(SpecialIds::of(v));
  if (Result<void> s = write_text(folder + "/generation_config.json", generation); !s) return s;
  return write_text(folder + "/tokenizer_config.json", tokenizer_config_json(tokenizer));
}

}  // namespace chimera
#endif
