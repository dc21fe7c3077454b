// A small tokenizer that has everything, and when two tokenizers are the same.
#pragma once

#include <chimera/text/tokenizer.hpp>

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

namespace chimera {

inline Tokenizer good(Result<Tokenizer> t) {
  REQUIRE_MESSAGE(t.ok(), t.error().message);
  return std::move(*t);
}

/// All bytes, merges in two scripts, a whole word, specials of each kind, and a gap.
inline Vocabulary small_vocabulary() {
  Vocabulary v = byte_vocabulary();
  for (const char* token : {"ab", "abc", " ab", "\xE0\xA4", "\xE0\xA4\x95", "\xFF\xFE"})
    v.tokens.push_back({token, TokenType::normal});
  v.tokens.push_back({"<tool \"x\">", TokenType::user_defined});
  v.tokens.push_back({});
  v.tokens.push_back({"<|last|>", TokenType::control});
  v.merge_by_rank = true;
  v.add_bos = true;
  v.chat_template = "{{ messages }}\n";
  v.pretokenizer = PreTokenizer::qwen35;
  return v;
}

inline const std::vector<std::string> samples{"abc ab xabcab", "\u0915\u0916 don't 123\n\n",
                                              "<tool \"x\"><|last|><|endoftext|>ab", "\xFF\xFE\xFF\xC3", ""};

inline void same(const Tokenizer& a, const Tokenizer& b) {
  CHECK(a.vocabulary().pretokenizer == b.vocabulary().pretokenizer);
  CHECK(a.vocabulary().merges == b.vocabulary().merges);
  CHECK(a.vocabulary().bos == b.vocabulary().bos);
  CHECK(a.vocabulary().eos == b.vocabulary().eos);
  CHECK(a.vocabulary().padding == b.vocabulary().padding);
  CHECK(a.vocabulary().add_bos == b.vocabulary().add_bos);
  CHECK(a.vocabulary().add_eos == b.vocabulary().add_eos);
  CHECK(a.vocabulary().chat_template == b.vocabulary().chat_template);
  for (const std::string& text : samples)
    for (const Special s : {Special::as_text, Special::as_token}) CHECK(a.encode(text, s) == b.encode(text, s));
}

}  // namespace chimera
