#include "text/vocabularies.hpp"

#include <chimera/text/bytes.hpp>
#include <chimera/text/vocabulary.hpp>

#include <doctest/doctest.h>

using namespace chimera;
using namespace vocabularies;

TEST_CASE("the byte vocabulary is a tokenizer") {
  const Tokenizer t = made(byte_vocabulary(512));
  CHECK(t.size() == 512);
  CHECK(t.encode("né\xFF") == encode_bytes("né\xFF"));
  CHECK(t.encode("a<|endoftext|>", Special::as_token) == Ids{'a', end_of_text});
  CHECK(t.ends_text(end_of_text));
}
