// Tokenizers of other projects: tiktoken's rank files, the tokenizer.json of Hugging Face, the metadata of GGUF files.
// All are byte-level BPE; other kinds are refused. What a file says is held against its size before memory is taken.
#pragma once

#include <chimera/core/files.hpp>
#include <chimera/core/result.hpp>
#include <chimera/core/utf8.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/json.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace chimera {

/// A token that is not in a rank file, which leaves these to the program.
struct RankedSpecial {
  std::string_view text;
  std::int32_t id;
};
inline constexpr std::array<RankedSpecial, 2> o200k_specials{{{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}};
inline constexpr std::array<RankedSpecial, 5> cl100k_specials{{{"<|endoftext|>", 100257},
                                                               {"<|fim_prefix|>", 100258},
                                                               {"<|fim_middle|>", 100259},
                                                               {"<|fim_suffix|>", 100260},
                                                               {"<|endofprompt|>", 100276}}};
inline constexpr std::array<RankedSpecial, 1> gpt2_specials{{{"<|endoftext|>", 50256}}};

/// A rank file of tiktoken: lines of a token in base64, a space and its rank, which is its id.
inline Result<Tokenizer> read_rank_file(std::string_view text, PreTokenizer pretokenizer,
                                        std::span<const RankedSpecial> specials);

/// tokenizer.json, and tokenizer_config.json, which knows bos, eos and the chat template; "" if there is none. A
/// normalizer to NFC is passed over: text goes in as it is.
inline Result<Tokenizer> read_tokenizer_json(std::string_view text, std::string_view config = "");

/// tokenizer.ggml.* and tokenizer.chat_template.
inline Result<Tokenizer> read_tokenizer(const Gguf& file);

/// By its name: *.tiktoken (of o200k, cl100k, r50k or gpt2), *.gguf; all else is tokenizer.json, or a folder that has
/// one.
inline Result<Tokenizer> load_tokenizer(const std::string& path);

/// What the `tokenizers` package and `transformers` read, with the same ids.
inline std::string tokenizer_json(const Tokenizer& tokenizer);
inline std::string tokenizer_config_json(const Tokenizer& tokenizer);

/// Sets tokenizer.* for a model of `vocab` ids, at least as many as the tokenizer has; the rest are called [PADn].
inline void set_tokenizer(GgufWriter& file, const Tokenizer& tokenizer, std::int64_t vocab);

namespace tokenizer_files_parts {

/// In files of byte-level BPE each byte is a letter (GPT-2's bytes_to_unicode): printable ones stand for themselves, the
/// others for the code points from 256 on, in turn.
struct ByteLetters {
  std::array<std::uint16_t, 256> letters{};
  std::array<std::int16_t, 512> bytes{};

  constexpr ByteLetters() {
    bytes.fill(-1);
    std::uint16_t next = 256;
    for (std::uint16_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      letters[b] = printable ? b : next++;
      bytes[letters[b]] = static_cast<std::int16_t>(b);
    }
  }
};
inline constexpr ByteLetters byte_letters;

inline std::string to_letters(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) append_utf8(byte_letters.letters[static_cast<unsigned char>(c)], text);
  return text;
}

/// None if a letter stands for no byte.
inline std::optional<std::string> from_letters(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    if (c.value >= byte_letters.bytes.size() || byte_letters.bytes[c.value] < 0) return std::nullopt;
    bytes += static_cast<char>(byte_letters.bytes[c.value]);
    text.remove_prefix(c.bytes);
  }
  return bytes;
}

/// The token of a vocabulary whose text is that; one that is no sequence of letters can be written, but never read.
inline Token letter_token(std::string_view text) {
  if (auto bytes = from_letters(text)) return {std::move(*bytes), TokenType::normal};
  return {std::string(text), TokenType::unused};
}

/// Token ids by bytes, to read merges with. The vocabulary must stay as it is.
class TokenIndex {
 public:
  explicit TokenIndex(const Vocabulary& v) : v_(v) {
    ids_.reserve(v.tokens.size());
    for (const TokenType type : {TokenType::normal, TokenType::user_defined})
      for (std::size_t id = 0; id < v.tokens.size(); ++id)
        if (v.tokens[id].type == type) ids_.emplace(v.tokens[id].bytes, static_cast<std::int32_t>(id));
  }

  std::int32_t find(std::string_view bytes) const {
    const auto found = ids_.find(bytes);
    return found == ids_.end() ? -1 : found->second;
  }

  /// The merge of two tokens in letters.
  Result<std::pair<std::int32_t, std::int32_t>> merge(std::string_view left, std::string_view right) const {
    const auto id = [&](std::string_view text) {
      const auto bytes = from_letters(text);
      return bytes ? find(*bytes) : -1;
    };
    const std::pair<std::int32_t, std::int32_t> ids{id(left), id(right)};
    if (ids.first < 0 || ids.second < 0)
      return Error{"merge " + std::to_string(v_.merges.size()) + ": expected two tokens, found \"" +
                   std::string((ids.first < 0 ? left : right).substr(0, 60)) + "\", which is none"};
    return ids;
  }

 private:
  const Vocabulary& v_;
  std::unordered_map<std::string_view, std::int32_t> ids_;
};

/// "" for text that is no base64.
inline std::string from_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return "";
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string bytes;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t digit = digits.find(text[i]);
    if (digit == std::string_view::npos) return "";
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    if (i % 4 != 0) bytes += static_cast<char>(bits >> (6 - i % 4 * 2) & 255);
  }
  return bytes;
}

/// Makes room for the id; false if it is none, or beyond what a file of `entries` tokens may hold.
inline bool make_room(Vocabulary& v, std::int64_t id, std::size_t entries) {
  constexpr std::size_t gap = 65536;
  if (id < 0 || static_cast<std::size_t>(id) >= std::min(entries + gap, Vocabulary::max_tokens)) return false;
  if (static_cast<std::size_t>(id) >= v.tokens.size()) v.tokens.resize(static_cast<std::size_t>(id) + 1);
  return true;
}

// What a tokenizer.json of ours says of each part; `read_pretokenizer` reads the same.

inline std::string byte_level(bool use_regex) {
  return std::string(R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": )") +
         (use_regex ? "true}" : "false}");
}
inline std::string pretokenizer_json(PreTokenizer id) {
  if (id == PreTokenizer::gpt2) return byte_level(true);
  return R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": )" +
         json_quoted(rules(id).regex) + R"(}, "behavior": "Isolated", "invert": false}, )" + byte_level(false) + "]}";
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
  bool byte_level = false;
  const auto read = [&](const Json& part) -> Status {
    const std::string type = text_at(part, "type");
    if (type == "ByteLevel") {
      byte_level = true;
      if (flag_at(part, "add_prefix_space", true)) return Error{"pre_tokenizer: add_prefix_space is not supported"};
      if (!flag_at(part, "use_regex", true)) return {};
      if (found) return Error{"pre_tokenizer: expected one rule to split by, found two"};
      found = PreTokenizer::gpt2;
      return {};
    }
    if (type != "Split") return Error{"pre_tokenizer: expected Split and ByteLevel, found \"" + type + "\""};
    const auto pattern = part.find("pattern");
    const std::string regex = pattern ? text_at(*pattern, "Regex") : "";
    const std::string behavior = text_at(part, "behavior");
    const bool inverted = flag_at(part, "invert", false);
    if (!(behavior == "Isolated" && !inverted) && !(behavior == "Removed" && inverted))
      return Error{"pre_tokenizer: expected the behavior \"Isolated\", found \"" + behavior + "\""};
    if (found || byte_level) return Error{"pre_tokenizer: expected one rule to split by, found two"};
    found = pretokenizer_of_regex(regex);
    if (!found) return Error{"pre_tokenizer: no known rules have the regular expression " + regex.substr(0, 200)};
    return {};
  };
  if (text_at(json, "type") != "Sequence") {
    if (Status s = read(json); !s) return s.error();
  } else if (const auto parts = json.find("pretokenizers")) {
    for (const Json& part : parts->elements())
      if (Status s = read(part); !s) return s.error();
  }
  if (!byte_level || !found) return Error{"pre_tokenizer: expected Split and ByteLevel, or ByteLevel alone"};
  return *found;
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

inline Status read_config(std::string_view text, const auto& id_of, Vocabulary& v) {
  const auto json = Json::parse(text);
  if (!json) return Error{"tokenizer_config.json: " + json.error().message};
  for (const auto& [name, id] :
       {std::pair{"bos_token", &v.bos}, {"eos_token", &v.eos}, {"unk_token", &v.unknown}, {"pad_token", &v.padding}}) {
    const auto token = json->find(name);
    if (!token) continue;
    const std::string content =
        token->is(Json::Kind::object) ? text_at(*token, "content") : token->string().value_or("");
    if (const std::int32_t known = id_of(content); known >= 0) *id = known;
  }
  v.add_bos = flag_at(*json, "add_bos_token", v.add_bos);
  v.add_eos = flag_at(*json, "add_eos_token", v.add_eos);
  v.chat_template = text_at(*json, "chat_template");
  return {};
}

}  // namespace tokenizer_files_parts

inline Result<Tokenizer> read_rank_file(std::string_view text, PreTokenizer pretokenizer,
                                        std::span<const RankedSpecial> specials) {
  Vocabulary v;
  v.merge_by_rank = v.whole_words = true;
  v.pretokenizer = pretokenizer;
  const std::size_t lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  for (std::size_t line = 1; !text.empty(); ++line) {
    std::string_view rest = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), rest.size() + 1));
    if (rest.ends_with('\r')) rest.remove_suffix(1);
    if (rest.empty()) continue;
    const std::size_t blank = rest.find(' ');
    std::string bytes = tokenizer_files_parts::from_base64(rest.substr(0, blank));
    const std::string_view digits = blank == std::string_view::npos ? "" : rest.substr(blank + 1);
    std::int64_t rank = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    const auto wrong = [&](const std::string& what) { return Error{"line " + std::to_string(line) + ": " + what}; };
    if (bytes.empty() || error != std::errc{} || end != digits.data() + digits.size())
      return wrong("expected a token in base64, a space and its rank, found \"" + std::string(rest.substr(0, 60)) +
                   "\"");
    if (!tokenizer_files_parts::make_room(v, rank, lines))
      return wrong("expected a rank not far above the number of lines, found " + std::to_string(rank));
    Token& token = v.tokens[static_cast<std::size_t>(rank)];
    if (!token.bytes.empty()) return wrong("the rank " + std::to_string(rank) + " is there twice");
    token = {std::move(bytes), TokenType::normal};
  }
  for (const RankedSpecial& special : specials) {
    if (!tokenizer_files_parts::make_room(v, special.id, v.tokens.size()))
      return Error{"the special token " + std::string(special.text) + " does not fit: its id is " +
                   std::to_string(special.id) + ", and there are " + std::to_string(v.tokens.size()) + " ranks"};
    Token& token = v.tokens[static_cast<std::size_t>(special.id)];
    if (!token.bytes.empty())
      return Error{"the special token " + std::string(special.text) + " has the id of another, " +
                   std::to_string(special.id)};
    token = {std::string(special.text), TokenType::control};
    if (special.text == "<|endoftext|>") v.eos = special.id;
  }
  return Tokenizer::create(std::move(v));
}

inline Result<Tokenizer> read_tokenizer_json(std::string_view text, std::string_view config) {
  using namespace tokenizer_files_parts;
  const auto json = Json::parse(text);
  if (!json) return json.error();
  const auto model = json->at("model", Json::Kind::object);
  if (!model) return model.error();
  if (const std::string type = text_at(*model, "type"); !type.empty() && type != "BPE")
    return Error{"model: expected the type \"BPE\", found \"" + type + "\""};
  for (const char* part : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const std::string found = text_at(*model, part); !found.empty())
      return Error{"model: expected no " + std::string(part) + ", found \"" + found + "\""};
  if (flag_at(*model, "byte_fallback", false)) return Error{"model: expected byte-level BPE, found byte_fallback"};
  if (const auto normalizer = json->find("normalizer"); normalizer && normalizer->is(Json::Kind::object))
    if (const std::string type = text_at(*normalizer, "type"); type != "NFC")
      return Error{"normalizer: expected none or NFC, found \"" + type + "\""};

  Vocabulary v;
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
      v.tokens[static_cast<std::size_t>(*id)] = {
          *content, flag_at(token, "special", false) ? TokenType::control : TokenType::user_defined};
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

  const auto id_of = [&](const std::string& content) {
    const auto found = added.find(content);
    return found == added.end() ? -1 : found->second;
  };
  if (const auto processor = json->find("post_processor")) read_template(*processor, id_of, v);
  if (!config.empty())
    if (Status s = read_config(config, id_of, v); !s) return s.error();
  return Tokenizer::create(std::move(v));
}

inline Result<Tokenizer> read_tokenizer(const Gguf& file) {
  using namespace tokenizer_files_parts;
  const auto model = file.text("tokenizer.ggml.model");
  if (!model) return model.error();
  if (*model != "gpt2")
    return Error{"tokenizer.ggml.model: expected \"gpt2\" (byte-level BPE), found \"" + std::string(*model) + "\""};
  std::string_view name = "gpt-2";
  if (file.has("tokenizer.ggml.pre")) {
    const auto pre = file.text("tokenizer.ggml.pre");
    if (!pre) return pre.error();
    name = *pre;
  }
  const auto pretokenizer = pretokenizer_named(name);
  if (!pretokenizer) return Error{"tokenizer.ggml.pre: no known rules have the name \"" + std::string(name) + "\""};
  Vocabulary v;
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
    if (type < 0 || type > 6) return Error{"tokenizer.ggml.token_type: expected 1 to 6, found " + std::to_string(type)};
    if (type <= 1)
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
  for (const auto& [key, id] :
       {std::pair{"bos", &v.bos}, {"eos", &v.eos}, {"eot", &v.eot}, {"unknown", &v.unknown}, {"padding", &v.padding}}) {
    const std::string whole = "tokenizer.ggml." + std::string(key) + "_token_id";
    if (!file.has(whole)) continue;
    const auto value = file.integer(whole);
    if (!value) return value.error();
    if (*value < 0 || *value >= static_cast<std::int64_t>(v.tokens.size()))
      return Error{whole + ": expected the id of one of " + std::to_string(v.tokens.size()) + " tokens, found " +
                   std::to_string(*value)};
    *id = static_cast<std::int32_t>(*value);
  }
  for (const auto& [key, flag] :
       {std::pair{"tokenizer.ggml.add_bos_token", &v.add_bos}, {"tokenizer.ggml.add_eos_token", &v.add_eos}}) {
    if (!file.has(key)) continue;
    const auto value = file.boolean(key);
    if (!value) return value.error();
    *flag = *value;
  }
  if (const auto chat = file.text("tokenizer.chat_template")) v.chat_template = *chat;
  return Tokenizer::create(std::move(v));
}

inline Result<Tokenizer> load_tokenizer(const std::string& path) {
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

inline std::string tokenizer_json(const Tokenizer& tokenizer) {
  using namespace tokenizer_files_parts;
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
             ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": " +
             (token.type == TokenType::user_defined ? "false}" : "true}");
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
         "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": " + pretokenizer_json(v.pretokenizer) +
         ",\n  \"post_processor\": " + processor + ",\n  \"decoder\": " + byte_level(true) +
         ",\n  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
         "\"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null, \"fuse_unk\": false, "
         "\"byte_fallback\": false, \"ignore_merges\": " +
         (v.whole_words ? "true" : "false") + ",\n    \"vocab\": {" + vocab + "\n    },\n    \"merges\": [" + merges +
         "\n    ]\n  }\n}\n";
}

inline std::string tokenizer_config_json(const Tokenizer& tokenizer) {
  const Vocabulary& v = tokenizer.vocabulary();
  std::string out = "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"clean_up_tokenization_spaces\": false";
  for (const auto& [name, id] :
       {std::pair{"bos_token", v.bos}, {"eos_token", v.eos}, {"unk_token", v.unknown}, {"pad_token", v.padding}})
    if (id >= 0) out += ",\n  \"" + std::string(name) + "\": " + json_quoted(tokenizer.bytes(id));
  out += std::string(",\n  \"add_bos_token\": ") + (v.add_bos ? "true" : "false") +
         ",\n  \"add_eos_token\": " + (v.add_eos ? "true" : "false");
  if (!v.chat_template.empty()) out += ",\n  \"chat_template\": " + json_quoted(v.chat_template);
  return out + "\n}\n";
}

inline void set_tokenizer(GgufWriter& file, const Tokenizer& tokenizer, std::int64_t vocab) {
  using namespace tokenizer_files_parts;
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
  for (const auto& [key, id] :
       {std::pair{"bos", v.bos}, {"eos", v.eos}, {"eot", v.eot}, {"unknown", v.unknown}, {"padding", v.padding}})
    if (id >= 0) file.set("tokenizer.ggml." + std::string(key) + "_token_id", static_cast<std::uint32_t>(id));
  file.set("tokenizer.ggml.add_bos_token", v.add_bos);
  file.set("tokenizer.ggml.add_eos_token", v.add_eos);
  file.set("tokenizer.ggml.add_space_prefix", false);
  if (!v.chat_template.empty()) file.set("tokenizer.chat_template", v.chat_template);
}

}  // namespace chimera
