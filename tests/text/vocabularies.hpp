// Small vocabularies and tokenizers of them.
#pragma once

#include <chimera/text/tokenizer.hpp>
#include <chimera/text/vocabulary.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace vocabularies {

using namespace chimera;

using Ids = std::vector<std::int32_t>;

/// All bytes, then these tokens in this order.
inline Vocabulary bytes_and(std::initializer_list<std::string> more) {
  Vocabulary v;
  for (int b = 0; b < 256; ++b) v.tokens.push_back({std::string(1, static_cast<char>(b)), TokenType::normal});
  for (const std::string& token : more) v.tokens.push_back({token, TokenType::normal});
  return v;
}

inline std::int32_t id(char c) { return static_cast<unsigned char>(c); }

inline Tokenizer made(Vocabulary v) {
  auto t = Tokenizer::create(std::move(v));
  REQUIRE_MESSAGE(t.ok(), t.error().message);
  return std::move(*t);
}

}  // namespace vocabularies
