#include "text/vocabularies.hpp"

#include <chimera/text/token_decoder.hpp>

#include <doctest/doctest.h>

using namespace chimera;
using namespace vocabularies;

TEST_CASE("a decoder hands out whole characters, and nothing for control tokens") {
  Vocabulary v = bytes_and({"\xE0\xA4", " \xE0"});
  v.tokens.push_back({"<|end|>", TokenType::control});
  const Tokenizer t = made(v);
  TokenDecoder decoder(t);
  CHECK(decoder.push(256) == "");
  CHECK(decoder.push(id('\x95')) == "\u0915");
  CHECK(decoder.push(257) == " ");
  CHECK(decoder.push(258) == "\uFFFD");
  CHECK(decoder.push('a') == "a");
  CHECK(decoder.push(256) == "");
  CHECK(decoder.flush() == "\uFFFD");
  CHECK(TokenDecoder(t, Special::as_text).push(258) == "<|end|>");
}
