#include <chimera/config/config_hash.hpp>

#include <chimera/config/config_text.hpp>
#include <chimera/config/presets.hpp>
#include <chimera/core/checksum.hpp>

#include <doctest/doctest.h>

#include <boost/hana/for_each.hpp>

#include <cstdint>
#include <string>
#include <string_view>

using namespace chimera;

namespace {

/// What files hold that were written before the layers said their fields themselves: the hash is in checkpoints, the
/// text in checkpoints and GGUF files, and its checksum in saved sessions.
struct Written {
  std::string_view name;
  std::uint64_t hash;
  std::uint32_t lines;
};
constexpr Written written[] = {
    {"shakespeare", 0xC688CE256825B3B2U, 0x2163480B},    {"nano", 0x59D7006075B3C95BU, 0x4CCFE5B4},
    {"tiny", 0x9DC6C041550BBC90U, 0xDE0343BD},           {"hybrid-700m", 0xFFA2361EE1DE0C25U, 0x0BDCB6AA},
    {"griffin-nano", 0xBA5022FAC7420A4AU, 0x9FD7F36A},   {"griffin-tiny", 0xCE8015FB17D3E9B6U, 0x0CA103CE},
    {"griffin-small", 0xAE39A63CBAA40CCEU, 0x2A7FAADD},  {"griffin-base", 0xCB1C366A577FD158U, 0x811DE7A0},
    {"griffin-large", 0xE8B9676AB4FA2E06U, 0xA325856D},  {"strategic-nano", 0x8A7841769AE02FBEU, 0xEAE96FF2},
    {"strategic-tiny", 0xE6CCAA0A7B424F07U, 0xBF5795D5}, {"strategic-1.3b", 0xB68FE6FEDAEF5F56U, 0x3B7BEFE5},
    {"strategic-2.7b", 0x3E062889E24BE7F5U, 0x389656CD}, {"strategic-6.7b", 0x7CC7601E883CC1A2U, 0x2FC42B6F},
    {"strategic-13b", 0x405A86E736C0BE16U, 0xA2CC4760}};

std::uint32_t lines_sum(const Config& c) {
  const std::string lines = config_lines(c);
  return crc32c(lines.data(), lines.size());
}

/// Everything is unusual.
constexpr Config odd{
    .vocab = 512,
    .width = 128,
    .context = 256,
    .layers = pattern("M A R A", 4),
    .attention = {.heads = 4,
                  .kv_heads = 2,
                  .head_dim = 48,
                  .window = 64,
                  .scale = 0.125f,
                  .rope = {.base = 5e5f,
                           .dims = 32,
                           .layout = RopeLayout::halves,
                           .scaling = RopeScaling::yarn,
                           .factor = 4.f,
                           .original_context = 128,
                           .attention_factor = 1.5f,
                           .mscale = 1.f,
                           .mscale_all_dim = .5f}},
    .mamba2 =
        {.expand = 3, .head_dim = 32, .state = 16, .groups = 2, .conv = 3, .chunk = 32, .dt_min = .001f, .dt_max = .1f},
    .rg_lru = {.inner = 160, .heads = 5, .conv = 3, .bias = true},
    .ffn = {.hidden = 320},
    .tied = false,
    .sub_norm = true,
    .norm_eps = 1e-6f,
    .embedding_scale = 2.f,
    .residual_scale = .5f,
    .logit_scale = 3.f,
    .dropout = .1f,
    .checkpointing = true};

}  // namespace

TEST_CASE("hashes and texts of configs are those that files hold") {
  std::size_t presets = 0;
  boost::hana::for_each(all_presets, [&](auto preset) {
    for (const Written& w : written)
      if (w.name == preset.name) {
        ++presets;
        CHECK_MESSAGE(config_hash(preset.config) == w.hash, w.name);
        CHECK_MESSAGE(lines_sum(preset.config) == w.lines, w.name);
      }
  });
  CHECK(presets == std::size(written));

  CHECK(config_hash(odd) == 0xCE745968E2E845C2U);
  CHECK(lines_sum(odd) == 0x3C02CDC2);
  Config alibi = odd;
  alibi.attention.position = Position::alibi;
  CHECK(config_hash(alibi) == 0x4AD1C301EFE32CCBU);
  Config longrope = odd;
  longrope.attention.rope.scaling = RopeScaling::longrope, longrope.attention.rope.original_context = 0;
  longrope.attention.rope.short_factor[0] = 1.5f, longrope.attention.rope.long_factor[3] = 2.5f;
  CHECK(config_hash(longrope) == 0x75DC6E42CFE0D852U);
  CHECK(lines_sum(longrope) == 0x9815CEDA);
  Config zeros = odd;
  zeros.rg_lru.inner = zeros.rg_lru.heads = 0, zeros.sub_norm = false;
  CHECK(config_hash(zeros) == 0x6190EDCDB22C6A46U);
  CHECK(lines_sum(zeros) == 0xCBC6C077);

  Config biased = odd;
  biased.attention.qkv_bias = biased.attention.qk_norm = true;
  CHECK(config_hash(*config_from_lines(config_lines(biased))) == config_hash(biased));
  CHECK(config_from_lines(config_lines(biased))->attention == biased.attention);

  Config experts = odd;
  experts.layers = pattern("A M+E R A+E"), experts.sub_norm = false;
  experts.moe = {.experts = 6, .top_k = 3, .score = ExpertScore::sigmoid, .balance_loss = .5f};
  CHECK(config_from_lines(config_lines(experts))->layers == experts.layers);
  CHECK(config_from_lines(config_lines(experts))->moe == experts.moe);
}

TEST_CASE("the hash of a config knows what shapes the weights") {
  static constexpr Config base{.vocab = 512,
                               .width = 128,
                               .context = 64,
                               .layers = pattern("M A", 2),
                               .attention = {.heads = 4},
                               .ffn = {.hidden = 320}};
  const auto with = [](auto&& change) {
    Config c = base;
    change(c);
    return config_hash(c);
  };
  static_assert(config_hash(base) != 0);
  CHECK(with([](Config& c) { c.context = 128; }) == config_hash(base));
  CHECK(with([](Config& c) { c.dropout = 0.1f; }) == config_hash(base));
  CHECK(with([](Config& c) { c.checkpointing = true; }) == config_hash(base));
  CHECK(with([](Config& c) { c.attention.kv_heads = 4; }) == config_hash(base));
  CHECK(with([](Config& c) { c.rg_lru.inner = 99; }) == config_hash(base));
  CHECK(with([](Config& c) { c.moe.experts = 99; }) == config_hash(base));
  CHECK(with([](Config& c) { c.vocab = 513; }) != config_hash(base));
  const auto with_experts = [&](auto&& change) {
    return with([&](Config& c) {
      c.layers = pattern("M A+E", 2);
      change(c);
    });
  };
  const std::uint64_t experts = with_experts([](Config&) {});
  CHECK(experts != config_hash(base));
  CHECK(with_experts([](Config& c) { c.moe.expert_hidden = 80; }) == experts);
  CHECK(with_experts([](Config& c) { c.moe.balance_rate = 0; }) == experts);
  CHECK(with_experts([](Config& c) { c.moe.top_k = 1; }) != experts);
  CHECK(with_experts([](Config& c) { c.layers = pattern("M+E A", 2); }) != experts);
  CHECK(with([](Config& c) { c.layers.kind[0] = Kind::attention; }) != config_hash(base));
  CHECK(with([](Config& c) { c.attention.kv_heads = 2; }) != config_hash(base));
  CHECK(with([](Config& c) { c.mamba2.state = 64; }) != config_hash(base));
  CHECK(with([](Config& c) { c.attention.rope.base = 1e6f; }) != config_hash(base));
  CHECK(with([](Config& c) { c.tied = false; }) != config_hash(base));
  CHECK(with([](Config& c) { c.norm_eps = 1e-6f; }) != config_hash(base));
  CHECK(with([](Config& c) { c.attention.qkv_bias = true; }) != config_hash(base));
  CHECK(with([](Config& c) { c.attention.qkv_bias = true; }) != with([](Config& c) { c.attention.qk_norm = true; }));
  CHECK(with([](Config& c) { c.attention.qkv_bias = true; }) !=
        with([](Config& c) { c.attention.output_bias = true; }));
  CHECK(with([](Config& c) { c.ternary.on = true; }) != config_hash(base));
  CHECK(with([](Config& c) { c.ternary.on = true; }) != with([](Config& c) { c.ternary = {.on = true, .group = 64}; }));
  CHECK(with([](Config& c) { c.ternary.on = true; }) ==
        with([](Config& c) { c.ternary = {.on = true, .deep_zero = 0.f, .most_zeros = 1.f}; }));
  const auto looped = [&](LoopConfig loop) { return with([&](Config& c) { c.loop = loop; }); };
  CHECK(looped({.first = 0, .last = 0}) != config_hash(base));
  CHECK(looped({.first = 0, .last = 1}) != looped({.first = 0, .last = 0}));
  CHECK(looped({.first = 0, .last = 1}) != looped({.first = 0, .last = 1, .passes = 3}));
  CHECK(looped({.first = 0, .last = 1}) ==
        looped({.first = 0, .last = 1, .most = 6, .mean = 2.f, .backprop = 1, .stop = .5f}));
  CHECK(with([](Config& c) { c.layers = pattern("M MINE", {"MINE"}); }) !=
        with([](Config& c) { c.layers = pattern("M YOURS", {"YOURS"}); }));
}
