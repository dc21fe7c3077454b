#include <chimera/chimera.hpp>
#include <chimera/config/size.hpp>

#include <boost/hana/all_of.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

using namespace chimera;

namespace {

template <const Config& C>
constexpr std::int64_t parameters = LanguageModel<C>::parameters;

/// Weights within a quarter of what the name says.
constexpr bool about(std::int64_t count, double million) {
  const double found = static_cast<double>(count) / 1e6;
  return found > 0.75 * million && found < 1.25 * million;
}

}  // namespace

// Seed scales, exactly.
static_assert(parameters<presets::hybrid_700m> == 700'599'840);
static_assert(parameters<presets::griffin_small> == 123'937'536);
static_assert(parameters<presets::griffin_base> == 1'496'975'360);
static_assert(parameters<presets::griffin_large> == 3'013'020'160);
static_assert(parameters<presets::strategic_1_3b> == 1'439'844'800);
static_assert(parameters<presets::strategic_2_7b> == 2'561'522'320);
static_assert(parameters<presets::strategic_6_7b> == 5'958'344'448);
static_assert(parameters<presets::strategic_13b> == 10'661'212'160);

static_assert(parameters<presets::chimera_nano_4k> == 25'143'352);
static_assert(parameters<presets::chimera_tiny_16k> == 35'514'424);
static_assert(parameters<presets::chimera_tiny> == 36'939'832);
static_assert(parameters<presets::chimera_small> == 121'908'340);
static_assert(parameters<presets::chimera_medium> == 435'705'332);
static_assert(parameters<presets::chimera_full> == 4'136'520'728);

static_assert(parameters<presets::shakespeare> <= 850'000);  // the budget of nanoGPT's CPU recipe
static_assert(about(parameters<presets::nano>, 1) && about(parameters<presets::tiny>, 35));
static_assert(about(parameters<presets::griffin_nano>, 1) && about(parameters<presets::griffin_tiny>, 35));
static_assert(about(parameters<presets::xlstm_nano>, 1));
static_assert(about(parameters<presets::titans_nano>, 1));
static_assert(about(parameters<presets::gdn_nano>, 1) && about(parameters<presets::gdn_tiny>, 35));
static_assert(about(parameters<presets::strategic_nano>, 1) && about(parameters<presets::strategic_tiny>, 35));

// Titans' layer in the smallest model of its family.
constexpr Config titans{.width = 256, .layers = pattern("TM")};
static_assert([] {
  std::int64_t count = 0;
  for (const Tensor& t : TitansWeights::table(titans)) count += t.size();
  return count;
}() == 529'667);

/// Weights that a token is multiplied with: those of experts that it goes through, and those of a loop in each pass.
constexpr std::int64_t multiplications(const Config& c, int passes) {
  std::int64_t all = 0;
  for (const Tensor& t : end_weights(c)) all += t.role == Role::matrix ? t.size() : 0;
  for (int i = 0; i < c.layers.count; ++i) {
    std::int64_t block = 0;
    const auto add = [&](const Tensor& t) {
      if (t.role == Role::balance) return;
      block += t.name.ends_with("_exps.weight") ? t.size() / c.moe.experts * c.moe.top_k : t.size();
    };
    for (const Tensor& t : block_norms(c)) add(t);
    each_mixer(c, [&](auto, const auto& part) {
      for (const Tensor& t : part.weights(c))
        if (part.kind == c.layers[i]) add(t);
    });
    each_ffn(c, [&](const auto& part) {
      for (const Tensor& t : part.weights(c))
        if (part.ffn == c.layers.block(i).ffn) add(t);
    });
    all += i >= c.loop.first && i <= c.loop.last ? passes * block : block;
  }
  return all;
}
static_assert(multiplications(presets::chimera_nano_4k, 1) == 21'013'248);
static_assert(multiplications(presets::chimera_nano_4k, 2) == 35'100'874);
static_assert(multiplications(presets::chimera_tiny_16k, 1) == 29'319'936);
static_assert(multiplications(presets::chimera_tiny_16k, 2) == 47'093'962);
static_assert(multiplications(presets::chimera_tiny, 1) == 32'809'728);
static_assert(multiplications(presets::chimera_small, 1) == 105'390'652);
static_assert(multiplications(presets::chimera_medium, 1) == 369'639'868);
static_assert(multiplications(presets::chimera_full, 1) == 2'835'945'896);

// Each name stands for one preset.
static_assert(boost::hana::unpack(all_presets, [](const auto&... preset) {
  const std::array names{preset.name...};
  for (std::size_t i = 0; i < names.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (names[i] == names[j] || names[i].empty()) return false;
  return names.size() == 25;
}));

// Weights can be counted without the model's type.
constexpr Config others{.vocab = 11,
                        .width = 20,
                        .layers = pattern("R M A GD"),
                        .attention = {.heads = 6, .kv_heads = 3, .head_dim = 8},
                        .mamba2 = {.expand = 3, .head_dim = 5, .state = 7, .groups = 4, .conv = 3},
                        .rg_lru = {.inner = 24, .heads = 3, .conv = 2, .bias = true},
                        .gated_deltanet = {.key_heads = 2, .value_heads = 6, .value_dim = 7, .conv = 3},
                        .ffn = {.hidden = 9},
                        .tied = false};
static_assert(parameter_count(others) == parameters<others>);
static_assert(boost::hana::all_of(all_presets, [](auto preset) {
  return parameter_count(preset.config) == parameters<decltype(preset)::config>;
}));

// The arena: tensors in order, each on 64 bytes, none over the next.
template <const Config& C>
constexpr bool arena_is_sound() {
  using M = LanguageModel<C>;
  std::size_t end = 0;
  for (const NamedTensor& t : M::tensors) {
    if (t.offset % 16 != 0 || t.offset < end || t.size() <= 0 || t.name().empty()) return false;
    end = t.offset + static_cast<std::size_t>(t.size());
  }
  return end <= M::arena_floats;
}
static_assert(arena_is_sound<presets::nano>());
static_assert(arena_is_sound<presets::griffin_tiny>());
static_assert(arena_is_sound<presets::strategic_13b>());

// A model lives in its arena, not in the object.
static_assert(sizeof(LanguageModel<presets::strategic_13b>) == 1);
