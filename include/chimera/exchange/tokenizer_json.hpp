// tokenizer.json and tokenizer_config.json of Hugging Face: read if they are byte-level BPE, written so that the
// `tokenizers` package and `transformers` give the same ids.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/byte_level.hpp>
#include <chimera/exchange/python_json.hpp>
#include <chimera/io/json.hpp>
#include <chimera/text/normalize.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/tokenizer.hpp>
#include <chimera/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace chimera {

/// The texts of files that lie beside a tokenizer.json; empty: there is no such file.
struct TokenizerTexts {
  std::string_view tokenizer;                       // tokenizer.json
  std::string_view config{};                        // tokenizer_config.json: special tokens, chat templates
  std::string_view special_tokens{};                // special_tokens_map.json, which older folders have
  std::string_view generation{}, model{};           // generation_config.json, config.json: what ends a text
  std::string_view chat_template{};                 // chat_template.jinja, which is before the one of `config`
  std::string_view old_chat_template{};             // chat_template.json, which is behind it
  std::span<const NamedTemplate> more_templates{};  // additional_chat_templates/NAME.jinja
};

/// Where several files name a special token, the first counts that has one of the vocabulary; every token that ends a
/// text in any of them ends one.
Result<Tokenizer> read_tokenizer_json(const TokenizerTexts& texts);
inline Result<Tokenizer> read_tokenizer_json(std::string_view text, std::string_view config = "") {
  return read_tokenizer_json(TokenizerTexts{.tokenizer = text, .config = config});
}

/// The text of a tokenizer.json.
std::string tokenizer_json(const Tokenizer& tokenizer);

/// The text of the tokenizer_config.json beside it.
std::string tokenizer_config_json(const Tokenizer& tokenizer);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

namespace tokenizer_json_parts {

using namespace byte_level_parts;

// What a tokenizer.json of ours says of each part; `read_pretokenizer` reads the same.

inline std::string byte_level(bool use_regex) {
  return std::string(R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": )") +
         (use_regex ? "true}" : "false}");
}

inline std::string pretokenizer_json(PreTokenizer id) {
  if (id == PreTokenizer::gpt2) return byte_level(true);
  std::string text = R"({"type": "Sequence", "pretokenizers": [)";
  if (id == PreTokenizer::smollm)
    return text + R"({"type": "Digits", "individual_digits": true}, )" + byte_level(true) + "]}";
  std::string_view rest = rules(id).regex;
  for (std::size_t end; !rest.empty(); rest.remove_prefix(std::min(end + 1, rest.size()))) {
    end = std::min(rest.find('\n'), rest.size());
    text += R"({"type": "Split", "pattern": {"Regex": )" + json_quoted(rest.substr(0, end)) +
            R"(}, "behavior": "Isolated", "invert": false}, )";
  }
  return text + byte_level(false) + "]}";
}

inline std::string text_at(const Json& object, std::string_view name) {
  const auto value = object.find(name);
  return value ? value->string().value_or("") : "";
}

inline bool flag_at(const Json& object, std::string_view name, bool otherwise) {
  const auto value = object.find(name);
  return value ? value->boolean().value_or(otherwise) : otherwise;
}

inline Result<PreTokenizer> read_pretokenizer(const Json& json) {
  std::optional<PreTokenizer> found;
  std::string regexes;  // a line each
  bool byte_level = false, digits = false;
  const auto read = [&](const Json& part) -> Result<void> {
    const std::string type = text_at(part, "type");
    if (type == "ByteLevel") {
      byte_level = true;
      if (flag_at(part, "add_prefix_space", true)) return Error{"pre_tokenizer: add_prefix_space is not supported"};
      if (!flag_at(part, "use_regex", true)) return {};
      if (found) return Error{"pre_tokenizer: expected one rule to split by, found two"};
      found = digits ? PreTokenizer::smollm : PreTokenizer::gpt2;
      return {};
    }
    if (type == "Digits" && !byte_level && !digits && regexes.empty()) {
      digits = true;
      if (!flag_at(part, "individual_digits", false))
        return Error{"pre_tokenizer: expected Digits one by one, found individual_digits false"};
      return {};
    }
    if (type != "Split") return Error{"pre_tokenizer: expected Split and ByteLevel, found \"" + type + "\""};
    const auto pattern = part.find("pattern");
    const std::string regex = pattern ? text_at(*pattern, "Regex") : "";
    const std::string behavior = text_at(part, "behavior");
    const bool inverted = flag_at(part, "invert", false);
    if (!(behavior == "Isolated" && !inverted) && !(behavior == "Removed" && inverted))
      return Error{"pre_tokenizer: expected the behavior \"Isolated\", found \"" + behavior + "\""};
    if (byte_level) return Error{"pre_tokenizer: expected Split before ByteLevel, found it behind"};
    regexes += (regexes.empty() ? "" : "\n") + regex;
    return {};
  };
  if (text_at(json, "type") != "Sequence") {
    if (Result<void> s = read(json); !s) return s.error();
  } else if (const auto parts = json.find("pretokenizers")) {
    for (const Json& part : parts->elements())
      if (Result<void> s = read(part); !s) return s.error();
  }
  if (!regexes.empty()) {
    if (found) return Error{"pre_tokenizer: expected one rule to split by, found two"};
    found = pretokenizer_of_regex(regexes);
    if (!found) return Error{"pre_tokenizer: no known rules have the regular expression " + regexes.substr(0, 200)};
  }
  if (!byte_level || !found || (digits && *found != PreTokenizer::smollm))
    return Error{"pre_tokenizer: expected Split and ByteLevel, Digits and ByteLevel, or ByteLevel alone"};
  return *found;
}

/// Of several merges of the same pair the last counts, as in `tokenizers`.
inline void keep_last(std::vector<std::pair<std::int32_t, std::int32_t>>& merges) {
  std::unordered_set<std::uint64_t> known;
  known.reserve(merges.size());
  auto kept = merges.end();
  for (auto at = merges.end(); at != merges.begin();) {
    --at;
    if (known.insert(static_cast<std::uint64_t>(at->first) << 32 | static_cast<std::uint32_t>(at->second)).second)
      *--kept = *at;
  }
  merges.erase(merges.begin(), kept);
}

/// What a TemplateProcessing, alone or in a Sequence, puts before and behind a text.
inline void read_template(const Json& json, const auto& id_of, Vocabulary& v) {
  if (const auto parts = json.find("processors"))
    for (const Json& part : parts->elements()) read_template(part, id_of, v);
  const auto single = json.find("single");
  if (text_at(json, "type") != "TemplateProcessing" || !single) return;
  bool behind = false;
  for (const Json& item : single->elements()) {
    behind = behind || item.find("Sequence").has_value();
    const auto special = item.find("SpecialToken");
    if (!special) continue;
    const std::int32_t id = id_of(text_at(*special, "id"));
    if (id < 0) continue;
    (behind ? v.eos : v.bos) = id;
    (behind ? v.add_eos : v.add_bos) = true;
  }
}

/// Special tokens by their texts, of tokenizer_config.json or special_tokens_map.json. `named`: those of before.
inline void read_special_tokens(const Json& json, const auto& id_of, Vocabulary& v, std::array<bool, 4>& named) {
  constexpr std::array<const char*, 4> names{"bos_token", "eos_token", "unk_token", "pad_token"};
  const std::array<std::int32_t*, 4> ids{&v.bos, &v.eos, &v.unknown, &v.padding};
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto token = json.find(names[i]);
    if (!token || named[i]) continue;
    const std::string content =
        token->is(Json::Kind::object) ? text_at(*token, "content") : token->string().value_or("");
    if (const std::int32_t id = id_of(content); id >= 0) *ids[i] = id, named[i] = true;
  }
}

/// A text, or a list of texts with names, one of them "default".
inline void read_chat_templates(const Json& json, Vocabulary& v) {
  const auto found = json.find("chat_template");
  if (!found || found->is(Json::Kind::null)) return;
  v.chat_template.clear(), v.named_templates.clear();
  if (const auto jinja = found->string()) v.chat_template = *jinja;
  if (!found->is(Json::Kind::array)) return;
  for (const Json& item : found->elements()) add_template(v, text_at(item, "name"), text_at(item, "template"));
}

/// Ids of special tokens in config.json or generation_config.json, numbers or lists. The first counts where none is
/// known yet, and all that end a text do.
inline void read_special_ids(std::string_view text, const std::string& file, Vocabulary& v) {
  if (text.empty()) return;
  const std::string strict = config_json_text(text);
  const auto json = Json::parse(strict);
  if (!json) return add_note(v, file + " is passed over: " + json.error().message);
  for (const auto& [name, id] :
       {std::pair{"bos_token_id", &v.bos}, {"eos_token_id", &v.eos}, {"pad_token_id", &v.padding}}) {
    const auto read = [&](const Json& value) {
      if (value.is(Json::Kind::null)) return;
      const auto number = value.integer();
      if (number == -1) return;  // as older files say that there is none
      const std::int32_t found = known_id(v, file + ", \"" + name + "\"", number.value_or(-1));
      if (*id < 0) *id = found;
      if (id == &v.eos) add_end(v, found);
    };
    const auto value = json->find(name);
    if (!value) continue;
    if (!value->is(Json::Kind::array)) {
      read(*value);
      continue;
    }
    for (const Json& item : value->elements()) read(item);
  }
}

/// No normalizer, NFC, or a sequence of such: whether it is NFC.
inline Result<bool> read_normalizer(const Json& json) {
  if (json.is(Json::Kind::null)) return false;
  const std::string type = text_at(json, "type");
  if (type == "NFC") return true;
  const auto parts = json.find("normalizers");
  if (type != "Sequence" || !parts || !parts->is(Json::Kind::array))
    return Error{"normalizer: expected none or NFC, found \"" + type + "\""};
  bool nfc = false;
  for (const Json& part : parts->elements()) {
    auto read = read_normalizer(part);
    if (!read) return read;
    nfc = nfc || *read;
  }
  return nfc;
}

}  // namespace tokenizer_json_parts

CHIMERA_FUNCTION Result<Tokenizer> read_tokenizer_json(const TokenizerTexts& texts) {
  using namespace byte_level_parts;
  using namespace tokenizer_json_parts;
  const auto json = Json::parse(texts.tokenizer);
  if (!json) return json.error();
  const auto model = json->at("model", Json::Kind::object);
  if (!model) return model.error();
  if (const std::string type = text_at(*model, "type"); !type.empty() && type != "BPE")
    return Error{"model: expected the type \"BPE\", found \"" + type + "\""};
  for (const char* part : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const std::string found = text_at(*model, part); !found.empty())
      return Error{"model: expected no " + std::string(part) + ", found \"" + found + "\""};
  if (flag_at(*model, "byte_fallback", false)) return Error{"model: expected byte-level BPE, found byte_fallback"};

  Vocabulary v;
  if (const auto normalizer = json->find("normalizer")) {
    const auto nfc = read_normalizer(*normalizer);
    if (!nfc) return nfc.error();
    v.nfc = *nfc ? to_nfc : nullptr;
  }
  v.whole_words = flag_at(*model, "ignore_merges", false);
  const auto pretokenizer = json->at("pre_tokenizer", Json::Kind::object);
  if (!pretokenizer) return pretokenizer.error();
  const auto known = read_pretokenizer(*pretokenizer);
  if (!known) return known.error();
  v.pretokenizer = *known;

  const auto vocab = model->at("vocab", Json::Kind::object);
  if (!vocab) return vocab.error();
  std::size_t entries = 0;
  for (const auto& member : vocab->members()) entries += member.key.is(Json::Kind::string);
  for (const auto& [key, value] : vocab->members()) {
    const std::string token = *key.string();
    const std::int64_t id = value.integer().value_or(-1);
    if (!make_room(v, id, entries))
      return Error{"model.vocab: expected an id for \"" + token.substr(0, 60) + "\", found " +
                   std::string(value.text().substr(0, 20))};
    if (!v.tokens[static_cast<std::size_t>(id)].bytes.empty())
      return Error{"model.vocab: the id " + std::to_string(id) + " is there twice"};
    v.tokens[static_cast<std::size_t>(id)] = letter_token(token);
  }

  std::unordered_map<std::string, std::int32_t> added;
  const auto added_tokens = json->find("added_tokens");
  if (added_tokens)
    for (const Json& token : added_tokens->elements()) {
      const auto content = token.string_at("content");
      const auto id = token.integer_at("id");
      if (!content) return Error{"added_tokens: " + content.error().message};
      if (!id) return Error{"added_tokens: " + id.error().message};
      for (const char* flag : {"lstrip", "rstrip", "single_word"})
        if (flag_at(token, flag, false))
          return Error{"added_tokens: " + std::string(flag) + " of \"" + *content + "\" is not supported"};
      if (content->empty() || !make_room(v, *id, entries + added.size()))
        return Error{"added_tokens: \"" + *content + "\" of id " + std::to_string(*id) + " does not fit"};
      Token& added_token = v.tokens[static_cast<std::size_t>(*id)];
      added_token = {*content, flag_at(token, "special", false) ? TokenType::control : TokenType::user_defined,
                     flag_at(token, "normalized", false)};
      std::string buffer;
      if (v.nfc && added_token.normalized) added_token.bytes = to_nfc(*content, buffer);
      added.emplace(*content, static_cast<std::int32_t>(*id));
    }

  const auto merges = model->at("merges", Json::Kind::array);
  if (!merges) return merges.error();
  const TokenIndex index(v);
  for (const Json& merge : merges->elements()) {
    std::array<std::string, 2> parts;
    std::size_t n = 0;
    if (const auto joined = merge.string()) {
      const std::size_t blank = joined->find(' ');
      parts = {joined->substr(0, blank), blank == std::string::npos ? "" : joined->substr(blank + 1)};
    } else {
      for (const Json& part : merge.elements())
        if (n < 2) parts[n++] = part.string().value_or("");
    }
    const auto ids = index.merge(parts[0], parts[1]);
    if (!ids) return Error{"model.merges: " + ids.error().message};
    v.merges.push_back(*ids);
  }

  keep_last(v.merges);

  const auto id_of = [&](const std::string& content) {
    if (const auto found = added.find(content); found != added.end()) return found->second;
    return content.empty() ? -1 : index.find(content);
  };
  if (const auto processor = json->find("post_processor")) read_template(*processor, id_of, v);
  if (!texts.old_chat_template.empty()) {
    const auto old = Json::parse(texts.old_chat_template);
    if (old)
      read_chat_templates(*old, v);
    else
      add_note(v, "chat_template.json is passed over: " + old.error().message);
  }
  std::array<bool, 4> named{};
  if (!texts.config.empty()) {
    const std::string plain = config_json_text(texts.config);
    const auto config = Json::parse(plain);
    if (!config) return Error{"tokenizer_config.json: " + config.error().message};
    read_special_tokens(*config, id_of, v, named);
    v.add_bos = flag_at(*config, "add_bos_token", v.add_bos);
    v.add_eos = flag_at(*config, "add_eos_token", v.add_eos);
    read_chat_templates(*config, v);
  }
  if (!texts.special_tokens.empty())
    if (const auto map = Json::parse(texts.special_tokens)) read_special_tokens(*map, id_of, v, named);
  read_special_ids(texts.generation, "generation_config.json", v);
  read_special_ids(texts.model, "config.json", v);
  if (!texts.chat_template.empty() || !texts.more_templates.empty())
    v.chat_template = texts.chat_template, v.named_templates.clear();
  for (const NamedTemplate& t : texts.more_templates) add_template(v, t.name, t.jinja);
  return Tokenizer::create(std::move(v));
}

CHIMERA_FUNCTION std::string tokenizer_json(const Tokenizer& tokenizer) {
  using namespace byte_level_parts;
  using namespace tokenizer_json_parts;
  const Vocabulary& v = tokenizer.vocabulary();
  std::string added, vocab, merges;
  std::unordered_set<std::string> words;
  const auto add_word = [&](const std::string& text, std::size_t id) {
    if (words.insert(text).second)
      vocab += (vocab.empty() ? "\n      " : ",\n      ") + json_quoted(text) + ": " + std::to_string(id);
  };
  for (std::size_t id = 0; id < v.tokens.size(); ++id)
    if (v.tokens[id].type == TokenType::normal || v.tokens[id].type == TokenType::byte)
      add_word(to_letters(v.tokens[id].bytes), id);
  for (std::size_t id = 0; id < v.tokens.size(); ++id) {
    const Token& token = v.tokens[id];
    if (token.type == TokenType::normal || token.type == TokenType::byte || token.type == TokenType::unused) continue;
    add_word(token.bytes, id);  // the package gives an added token that is not in the vocabulary an id of its own
    added += (added.empty() ? "\n    {\"id\": " : ",\n    {\"id\": ") + std::to_string(id) +
             ", \"content\": " + json_quoted(token.bytes) +
             ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": " +
             (token.normalized ? "true" : "false") +
             ", \"special\": " + (token.type == TokenType::user_defined ? "false}" : "true}");
  }
  for (const auto& [left, right] : v.merges)
    merges += (merges.empty() ? "\n      [" : ",\n      [") + json_quoted(to_letters(tokenizer.bytes(left))) + ", " +
              json_quoted(to_letters(tokenizer.bytes(right))) + "]";

  std::string processor = byte_level(true);
  if ((v.add_bos && v.bos >= 0) || (v.add_eos && v.eos >= 0)) {
    std::string specials;
    const auto special = [&](bool wanted, std::int32_t id, std::string_view type) -> std::string {
      if (!wanted || id < 0) return "";
      const std::string name = json_quoted(tokenizer.bytes(id));
      if (specials.find(name + ": ") == std::string::npos)
        specials += (specials.empty() ? "" : ", ") + name + ": {\"id\": " + name + ", \"ids\": [" + std::to_string(id) +
                    "], \"tokens\": [" + name + "]}";
      return "{\"SpecialToken\": {\"id\": " + name + ", \"type_id\": " + std::string(type) + "}}";
    };
    const auto sequence = [&](const std::string& name, const std::string& type) {
      const std::string bos = special(v.add_bos, v.bos, type), eos = special(v.add_eos, v.eos, type);
      return bos + (bos.empty() ? "" : ", ") + "{\"Sequence\": {\"id\": \"" + name + "\", \"type_id\": " + type + "}}" +
             (eos.empty() ? "" : ", ") + eos;
    };
    const std::string a = sequence("A", "0"), b = sequence("B", "1");
    processor = "{\"type\": \"TemplateProcessing\", \"single\": [" + a + "], \"pair\": [" + a + ", " + b +
                "], \"special_tokens\": {" + specials + "}}";
  }
  return "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [" + added +
         "\n  ],\n  \"normalizer\": " + (v.nfc ? "{\"type\": \"NFC\"}" : "null") +
         ",\n  \"pre_tokenizer\": " + pretokenizer_json(v.pretokenizer) + ",\n  \"post_processor\": " + processor +
         ",\n  \"decoder\": " + byte_level(true) +
         ",\n  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
         "\"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null, \"fuse_unk\": false, "
         "\"byte_fallback\": false, \"ignore_merges\": " +
         (v.whole_words ? "true" : "false") + ",\n    \"vocab\": {" + vocab + "\n    },\n    \"merges\": [" + merges +
         "\n    ]\n  }\n}\n";
}

CHIMERA_FUNCTION std::string tokenizer_config_json(const Tokenizer& tokenizer) {
  const Vocabulary& v = tokenizer.vocabulary();
  std::string out = "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"clean_up_tokenization_spaces\": false";
  for (const auto& [name, id] :
       {std::pair{"bos_token", v.bos}, {"eos_token", v.eos}, {"unk_token", v.unknown}, {"pad_token", v.padding}})
    if (id >= 0) out += ",\n  \"" + std::string(name) + "\": " + json_quoted(tokenizer.bytes(id));
  out += std::string(",\n  \"add_bos_token\": ") + (v.add_bos ? "true" : "false") +
         ",\n  \"add_eos_token\": " + (v.add_eos ? "true" : "false");
  std::string named;
  const auto add_named = [&](std::string_view name, std::string_view jinja) {
    named += ", {\"name\": " + json_quoted(name) + ", \"template\": " + json_quoted(jinja) + "}";
  };
  if (!v.named_templates.empty() && !v.chat_template.empty()) add_named("default", v.chat_template);
  for (const NamedTemplate& t : v.named_templates) add_named(t.name, t.jinja);
  if (!named.empty())
    out += ",\n  \"chat_template\": [" + named.substr(2) + "]";
  else if (!v.chat_template.empty())
    out += ",\n  \"chat_template\": " + json_quoted(v.chat_template);
  return out + "\n}\n";
}

}  // namespace chimera
#endif
