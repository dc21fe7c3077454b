// The byte vocabulary in the forms of others: a byte-level BPE without merges, in which token i < 256 is the byte i.
#pragma once

#include <chimera/core/utf8.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/json.hpp>
#include <chimera/text/bytes.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chimera {

/// Turns of a conversation between <|im_start|> and <|im_end|>, in Jinja.
inline constexpr std::string_view chat_template =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

namespace byte_parts {

/// The character that stands for a byte in vocabularies of byte-level BPE (GPT-2's bytes_to_unicode).
inline std::string letter(int byte) {
  const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  std::uint32_t code = static_cast<std::uint32_t>(byte);
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += !printable(b);
  }
  std::string text;
  append_utf8(code, text);
  return text;
}

inline constexpr std::int32_t im_end = 258, pad = 264;
static_assert(byte_specials[im_end - 256] == "<|im_end|>" && byte_specials[pad - 256] == "<|pad|>");

}  // namespace byte_parts

/// tokenizer.* metadata for a model of `vocab` tokens; those that are not used are called [PADn].
inline void set_byte_vocabulary(GgufWriter& file, int vocab) {
  constexpr std::int32_t normal = 1, control = 3, unused = 5;
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  for (int i = 0; i < vocab; ++i) {
    const bool special = i >= 256 && i < byte_vocab;
    tokens.push_back(i < 256   ? byte_parts::letter(i)
                     : special ? std::string(byte_specials[static_cast<std::size_t>(i - 256)])
                               : "[PAD" + std::to_string(i) + "]");
    types.push_back(i < 256 ? normal : special ? control : unused);
  }
  file.set("tokenizer.ggml.model", "gpt2");
  file.set("tokenizer.ggml.pre", "gpt-2");
  file.set("tokenizer.ggml.tokens", tokens);
  file.set("tokenizer.ggml.token_type", types);
  file.set("tokenizer.ggml.merges", std::vector<std::string>{});
  if (vocab > end_of_text) {
    file.set("tokenizer.ggml.bos_token_id", static_cast<std::uint32_t>(end_of_text));
    file.set("tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(end_of_text));
  }
  if (vocab >= byte_vocab) {
    file.set("tokenizer.ggml.eot_token_id", static_cast<std::uint32_t>(byte_parts::im_end));
    file.set("tokenizer.ggml.padding_token_id", static_cast<std::uint32_t>(byte_parts::pad));
    file.set("tokenizer.chat_template", chat_template);
  }
  file.set("tokenizer.ggml.add_bos_token", false);
  file.set("tokenizer.ggml.add_eos_token", false);
  file.set("tokenizer.ggml.add_space_prefix", false);
}

/// tokenizer_config.json beside byte_tokenizer_json.
inline std::string byte_tokenizer_config_json() {
  const std::string end = json_quoted(byte_specials[0]), pad = json_quoted(byte_specials[byte_parts::pad - 256]);
  return "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"bos_token\": " + end +
         ",\n  \"eos_token\": " + end + ",\n  \"pad_token\": " + pad +
         ",\n  \"add_bos_token\": false,\n  \"add_eos_token\": false,\n"
         "  \"clean_up_tokenization_spaces\": false,\n  \"chat_template\": " +
         json_quoted(chat_template) + "\n}\n";
}

/// tokenizer.json, as the tokenizers package reads it.
inline std::string byte_tokenizer_json() {
  std::string specials, vocab;
  for (std::size_t i = 0; i < byte_specials.size(); ++i)
    specials += std::string(i ? ",\n    " : "") + "{\"id\": " + std::to_string(256 + i) +
                ", \"content\": " + json_quoted(byte_specials[i]) +
                ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": "
                "true}";
  for (int i = 0; i < 256; ++i)
    vocab += (i ? ", " : "") + json_quoted(byte_parts::letter(i)) + ": " + std::to_string(i);
  return "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [\n    " +
         specials +
         "],\n  \"normalizer\": null,\n"
         "  \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, "
         "\"use_regex\": true},\n"
         "  \"post_processor\": null,\n"
         "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, "
         "\"use_regex\": true},\n"
         "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": "
         "null, \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": "
         "false,\n    \"vocab\": {" +
         vocab + "},\n    \"merges\": []}\n}\n";
}

}  // namespace chimera
