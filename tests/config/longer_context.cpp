#include <chimera/config/longer_context.hpp>

#include <chimera/config/check.hpp>
#include <chimera/config/config_hash.hpp>

#include <doctest/doctest.h>

#include <string>

using namespace chimera;

namespace {

Config attention(int context) {
  return {.vocab = 256,
          .width = 32,
          .context = context,
          .layers = pattern("A"),
          .attention = {.heads = 2},
          .ffn = {.hidden = 32}};
}
std::string error_of(const Result<Config>& config) { return config ? "" : config.error().message; }

}  // namespace

TEST_CASE("a longer context changes the context and the scaling, and nothing else") {
  const Config old = attention(1024);
  const auto yarn = longer_context(old, RopeScaling::yarn, 4, 128);
  REQUIRE(yarn);
  Config expected = old;
  expected.context = 512;
  expected.attention.rope.scaling = RopeScaling::yarn;
  expected.attention.rope.factor = 4, expected.attention.rope.original_context = 128;
  CHECK(*yarn == expected);

  const auto unscaled = longer_context(old, RopeScaling::none, 2.5f, 1024);
  REQUIRE(unscaled);
  CHECK(unscaled->context == 2560);
  CHECK(config_hash(*unscaled) == config_hash(old));

  const auto again = longer_context(*yarn, RopeScaling::yarn, 16, 512);
  REQUIRE(again);
  CHECK(again->context == 2048);
  CHECK(again->attention.rope.original_context == 128);

  const auto longrope = longer_context(old, RopeScaling::longrope, 4, 128);
  REQUIRE(longrope);
  CHECK(longrope->attention.rope.long_factor[7] == 4);
  CHECK(longrope->attention.rope.long_factor[8] == 0);
  CHECK(broken_rule(*longrope) == nullptr);
}

TEST_CASE("room for more tokens leaves the frequencies as they are") {
  Config yarn = attention(512);
  yarn.attention.rope.scaling = RopeScaling::yarn, yarn.attention.rope.factor = 4;
  const Config longer = with_context(yarn, 2048);
  CHECK(longer.context == 2048);
  CHECK(longer.attention.rope.original_context == 512);
  CHECK(config_hash(longer) == config_hash(yarn));
  CHECK(with_context(attention(512), 2048).attention.rope.original_context == 0);
}

TEST_CASE("what cannot be made longer is said") {
  const Config old = attention(128);
  CHECK(error_of(longer_context(old, RopeScaling::yarn, 1, 128)) ==
        "the factor of a longer context must be above 1, found 1");
  CHECK(error_of(longer_context(old, RopeScaling::yarn, 1e9f, 128)).starts_with("a context must be at most 16777216"));
  Config alibi = old, memory = old;
  alibi.attention.position = Position::alibi;
  memory.layers = pattern("M");
  for (const Config& c : {alibi, memory}) {
    CHECK(error_of(longer_context(c, RopeScaling::ntk, 4, 128)).starts_with("the model has no rotary attention"));
    CHECK(longer_context(c, RopeScaling::none, 4, 128));
  }
  const auto linear = longer_context(old, RopeScaling::linear, 4, 128);
  REQUIRE(linear);
  CHECK(error_of(longer_context(*linear, RopeScaling::yarn, 8, 512)) ==
        "the model's positions are scaled by linear already: go on with that, found yarn");
  CHECK(error_of(longer_context(*linear, RopeScaling::linear, 4, 512)) ==
        "the model's context is 4 times the 128 tokens that it learned first: expected a larger factor, found 4");
}
