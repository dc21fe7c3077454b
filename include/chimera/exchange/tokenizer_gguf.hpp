// The tokenizer in the metadata of a GGUF file: tokenizer.ggml.* and tokenizer.chat_template.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/byte_level.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/tokenizer.hpp>
#include <chimera/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera {

/// The tokenizer of the file; an error if it has none, or one that is no byte-level BPE.
Result<Tokenizer> read_tokenizer(const Gguf& file);

/// Sets tokenizer.* for a model of `vocab` ids, at least as many as the tokenizer has; the rest are called [PADn].
void set_tokenizer(GgufWriter& file, const Tokenizer& tokenizer, std::int64_t vocab);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<Tokenizer> read_tokenizer(const Gguf& file) {
  using namespace byte_level_parts;
  const auto model = file.text("tokenizer.ggml.model");
  if (!model) return model.error();
  if (*model != "gpt2")
    return Error{"tokenizer.ggml.model: expected \"gpt2\" (byte-level BPE), found \"" + std::string(*model) + "\""};
  Vocabulary v;
  std::string_view name = "default";
  if (file.has("tokenizer.ggml.pre")) {
    const auto pre = file.text("tokenizer.ggml.pre");
    if (!pre) return pre.error();
    name = *pre;
  } else {
    add_note(v, "the file has no tokenizer.ggml.pre, so text is cut by llama.cpp's default rules, perhaps not its own");
  }
  const auto pretokenizer = pretokenizer_named(name);
  if (!pretokenizer) return Error{"tokenizer.ggml.pre: no known rules have the name \"" + std::string(name) + "\""};
  v.pretokenizer = *pretokenizer;
  // What llama.cpp derives from the name alone.
  constexpr std::array<std::string_view, 3> by_merges{"gpt-4o", "smaug-bpe", "chatglm-bpe"};
  const bool lookup = *pretokenizer == PreTokenizer::llama3 || *pretokenizer == PreTokenizer::o200k ||
                      *pretokenizer == PreTokenizer::tekken;
  v.whole_words = lookup && std::find(by_merges.begin(), by_merges.end(), name) == by_merges.end();
  v.add_bos = v.whole_words && *pretokenizer != PreTokenizer::o200k;

  const auto tokens = file.texts("tokenizer.ggml.tokens");
  if (!tokens) return tokens.error();
  std::vector<std::int64_t> types;
  if (file.has("tokenizer.ggml.token_type")) {
    auto found = file.integers("tokenizer.ggml.token_type");
    if (!found) return found.error();
    if (found->size() < tokens->size())
      return Error{"tokenizer.ggml.token_type: expected " + std::to_string(tokens->size()) + " types, found " +
                   std::to_string(found->size())};
    types = std::move(*found);
  }
  v.tokens.reserve(tokens->size());
  for (std::size_t id = 0; id < tokens->size(); ++id) {
    const std::int64_t type = types.empty() ? 1 : types[id];
    if (type < 2 || type > 6)  // a type that llama.cpp does not know is nothing special to it
      v.tokens.push_back(letter_token((*tokens)[id]));
    else
      v.tokens.push_back({std::string((*tokens)[id]), static_cast<TokenType>(type)});
  }
  if (file.has("tokenizer.ggml.merges")) {
    const auto merges = file.texts("tokenizer.ggml.merges");
    if (!merges) return merges.error();
    const TokenIndex index(v);
    v.merges.reserve(merges->size());
    for (const std::string_view merge : *merges) {
      const std::size_t blank = merge.find(' ', 1);
      const auto ids =
          index.merge(merge.substr(0, blank), blank == std::string_view::npos ? "" : merge.substr(blank + 1));
      if (!ids) return Error{"tokenizer.ggml.merges: " + ids.error().message};
      v.merges.push_back(*ids);
    }
  }
  std::int32_t eom = -1;
  for (const auto& [key, id] : {std::pair{"bos", &v.bos},
                                {"eos", &v.eos},
                                {"eot", &v.eot},
                                {"eom", &eom},
                                {"unknown", &v.unknown},
                                {"padding", &v.padding}}) {
    const std::string whole = "tokenizer.ggml." + std::string(key) + "_token_id";
    if (!file.has(whole)) continue;
    const auto value = file.integer(whole);
    if (!value) return value.error();
    *id = known_id(v, whole, *value);
  }
  add_end(v, eom);
  for (const auto& [key, flag] :
       {std::pair{"tokenizer.ggml.add_bos_token", &v.add_bos}, {"tokenizer.ggml.add_eos_token", &v.add_eos}}) {
    if (!file.has(key)) continue;
    const auto value = file.boolean(key);
    if (!value) return value.error();
    *flag = *value;
  }
  if (const auto chat = file.text("tokenizer.chat_template")) v.chat_template = *chat;
  if (const auto names = file.texts("tokenizer.chat_templates"))
    for (const std::string_view chat : *names)
      if (const auto jinja = file.text("tokenizer.chat_template." + std::string(chat)))
        add_template(v, std::string(chat), std::string(*jinja));
  return Tokenizer::create(std::move(v));
}

CHIMERA_FUNCTION void set_tokenizer(GgufWriter& file, const Tokenizer& tokenizer, std::int64_t vocab) {
  using namespace byte_level_parts;
  const Vocabulary& v = tokenizer.vocabulary();
  std::vector<std::string> tokens, merges;
  std::vector<std::int32_t> types;
  for (std::int64_t id = 0; id < std::max<std::int64_t>(vocab, tokenizer.size()); ++id) {
    Token token = id < tokenizer.size() ? v.tokens[static_cast<std::size_t>(id)] : Token{};
    if (token.type == TokenType::normal || token.type == TokenType::byte)
      token = {to_letters(token.bytes), TokenType::normal};
    if (token.type == TokenType::unused) token.bytes = "[PAD" + std::to_string(id) + "]";
    types.push_back(static_cast<std::int32_t>(token.type));
    tokens.push_back(std::move(token.bytes));
  }
  for (const auto& [left, right] : v.merges)
    merges.push_back(to_letters(tokenizer.bytes(left)) + " " + to_letters(tokenizer.bytes(right)));
  file.set("tokenizer.ggml.model", "gpt2");
  file.set("tokenizer.ggml.pre", rules(v.pretokenizer).name);
  file.set("tokenizer.ggml.tokens", tokens);
  file.set("tokenizer.ggml.token_type", types);
  file.set("tokenizer.ggml.merges", merges);
  // A file has room for three tokens that end a text.
  std::vector<std::int32_t> ends = v.ends;
  if (v.eot >= 0) ends.insert(ends.begin(), v.eot);
  ends.resize(2, -1);
  for (const auto& [key, id] : {std::pair{"bos", v.bos},
                                {"eos", v.eos},
                                {"eot", ends[0]},
                                {"eom", ends[1]},
                                {"unknown", v.unknown},
                                {"padding", v.padding}})
    if (id >= 0) file.set("tokenizer.ggml." + std::string(key) + "_token_id", static_cast<std::uint32_t>(id));
  file.set("tokenizer.ggml.add_bos_token", v.add_bos);
  file.set("tokenizer.ggml.add_eos_token", v.add_eos);
  file.set("tokenizer.ggml.add_space_prefix", false);
  if (!v.chat_template.empty()) file.set("tokenizer.chat_template", v.chat_template);
  std::vector<std::string> names;
  for (const NamedTemplate& t : v.named_templates) {
    file.set("tokenizer.chat_template." + t.name, t.jinja);
    names.push_back(t.name);
  }
  if (!names.empty()) file.set("tokenizer.chat_templates", names);
}

}  // namespace chimera
#endif
