#include <chimera/config/check.hpp>

#include <chimera/config/config_text.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>

using namespace chimera;

namespace {

constexpr Config good{.vocab = 512,
                      .width = 128,
                      .layers = pattern("M R A", 3),
                      .attention = {.heads = 4, .kv_heads = 2},
                      .mamba2 = {.head_dim = 32, .state = 32},
                      .ffn = {.hidden = 256}};

template <class F>
std::string broken_by(F&& change) {
  Config c = good;
  change(c);
  const char* broken = broken_rule(c);
  return broken ? broken : "";
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("a config that comes at run time breaks the rules that the compiler knows") {
  static_assert(broken_rule(good) == nullptr && Check<good>::ok);
  CHECK(broken_by([](Config&) {}).empty());
  CHECK(contains(broken_by([](Config& c) { c.vocab = 0; }), "vocab must be"));
  CHECK(contains(broken_by([](Config& c) { c.ffn.hidden = 0; }), "ffn.hidden must be"));
  CHECK(contains(broken_by([](Config& c) { c.attention.kv_heads = 3; }), "kv_heads must divide"));
  CHECK(contains(broken_by([](Config& c) { c.mamba2.chunk = 129; }), "mamba2.chunk"));
  CHECK(contains(broken_by([](Config& c) { c.rg_lru.heads = 7; }), "rg_lru.heads"));
  CHECK(contains(broken_by([](Config& c) { c.layers = pattern("GD"), c.gated_deltanet.value_heads = 6; }),
                 "multiple of gated_deltanet.key_heads"));
  CHECK(contains(broken_by([](Config& c) { c.ternary = {.on = true, .group = 192}; }), "ternary.group must divide"));
  CHECK(contains(broken_by([](Config& c) { c.ffn.hidden = 131'073; }), "at most 131072"));
  CHECK(contains(
      broken_by([](Config& c) { c.vocab = 2'147'483'647, c.width = 2'147'483'520, c.attention.head_dim = 32; }),
      "the sum of the weights overflows"));
  CHECK(contains(broken_by([](Config& c) { c.layers = read_pattern("M Q1 Q2 Q3 Q4 Q5"); }),
                 "words are A M R GD XM SK TM"));
}

TEST_CASE("rules of a layer bear on models that have it") {
  CHECK(broken_by([](Config& c) { c.layers = pattern("M A"), c.rg_lru.conv = 9; }).empty());
  CHECK(broken_by([](Config& c) { c.layers = pattern("A"), c.mamba2.groups = 0; }).empty());
  CHECK(broken_by([](Config& c) { c.layers = pattern("M"), c.attention.heads = 0; }).empty());
}

// It passed, and then stopped the compiler of the model made for the file.
TEST_CASE("a file's config with too many query heads on a key head is an error") {
  Config c = good;
  c.context = 262'144, c.attention.heads = 128, c.attention.kv_heads = 1, c.attention.head_dim = 64;
  const auto read = config_from_lines(config_lines(c));
  REQUIRE_FALSE(read.ok());
  CHECK(contains(read.error().message, "too many query heads share a key head"));
  c.context = 1'024;
  CHECK(config_from_lines(config_lines(c)).ok());
}
