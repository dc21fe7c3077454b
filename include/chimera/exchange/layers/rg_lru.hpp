// Griffin's recurrence in files: transformers' recurrent_gemma, with attention. llama.cpp has no layer like it.
#pragma once

#include <chimera/core/float_bits.hpp>
#include <chimera/exchange/layer_files.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

namespace rg_lru_files_parts {

using Shape = std::vector<std::int64_t>;

inline Shape conv(const Config&, std::int64_t channels, std::int64_t taps) { return {channels, 1, taps}; }
inline Shape gates(const Config&, std::int64_t rows, std::int64_t block) { return {rows / block, block, block}; }
inline Shape gate_bias(const Config& c, std::int64_t, std::int64_t inner) {
  const std::int64_t heads = c.rg_lru.resolved(c).heads;
  return {heads, inner / heads};
}

constexpr FileRow row(std::string_view ours, FileTensor theirs) { return {.ours = ours, .griffin = theirs}; }
inline constexpr std::array rows{row("rg_lru.gate.weight", {"temporal_block.linear_y.weight"}),
                                 row("rg_lru.gate.bias", {"temporal_block.linear_y.bias"}),
                                 row("rg_lru.in.weight", {"temporal_block.linear_x.weight"}),
                                 row("rg_lru.in.bias", {"temporal_block.linear_x.bias"}),
                                 row("rg_lru.conv1d.weight", {"temporal_block.conv_1d.weight", conv}),
                                 row("rg_lru.conv1d.bias", {"temporal_block.conv_1d.bias"}),
                                 row("rg_lru.update.weight", {"temporal_block.rg_lru.input_gate_weight", gates}),
                                 row("rg_lru.update.bias", {"temporal_block.rg_lru.input_gate_bias", gate_bias}),
                                 row("rg_lru.decay.weight", {"temporal_block.rg_lru.recurrent_gate_weight", gates}),
                                 row("rg_lru.decay.bias", {"temporal_block.rg_lru.recurrent_gate_bias", gate_bias}),
                                 row("rg_lru.lambda", {"temporal_block.rg_lru.recurrent_param"}),
                                 row("rg_lru.out.weight", {"temporal_block.linear_out.weight"}),
                                 row("rg_lru.out.bias", {"temporal_block.linear_out.bias"})};

inline std::string_view dense_type(const Config&) { return "recurrent_gemma"; }

/// What its embedding is multiplied with: the root of the width, as BF16.
inline float embedding_scale(const Config& c) {
  const auto bits = std::bit_cast<std::uint32_t>(std::sqrt(static_cast<float>(c.width)));
  return std::bit_cast<float>((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

inline std::string unknown_to_transformers(const Config& c, std::string_view) {
  const RgLruConfig r = c.rg_lru.resolved(c);
  if (!has_kind(c, Kind::attention)) return "its recurrent_gemma wants an attention layer";
  if (!r.bias) return "its recurrent_gemma has biases of the recurrence's matrices: rg_lru.bias must be true";
  if (r.heads != c.attention.heads) return "its recurrent_gemma wants rg_lru.heads to be attention.heads";
  if (c.logit_cap == 0) return "its recurrent_gemma caps logits: logit_cap must be above 0";
  if (c.embedding_scale != embedding_scale(c) || c.residual_scale != 1 || c.logit_scale != 1)
    return "its recurrent_gemma multiplies the embedding by the root of the width in BF16, " +
           to_text(embedding_scale(c)) + ", and has no other multipliers";
  return "";
}

/// Words that all blocks take in turn.
inline void json_blocks(const JsonKeys& k, Config& c) {
  if (!k.griffin()) return;
  FileFields<JsonFields>& p = k.fields;
  std::vector<std::string> turn{"recurrent", "recurrent", "attention"};
  if (p.has("block_types")) turn = p.texts("block_types");
  p.demand(!turn.empty(), "\"block_types\": expected a list of words");
  for (std::size_t i = 0; p.status() && i < static_cast<std::size_t>(c.layers.count); ++i) {
    const std::string& word = turn[i % turn.size()];
    p.demand(word == "recurrent" || word == "attention",
             "\"block_types\": expected recurrent or attention, found " + word);
    if (word == "recurrent") c.layers.kind[i] = Kind::rg_lru;
  }
  p.demand(has_kind(c, Kind::rg_lru), "\"block_types\": expected a recurrent block");
}

inline void read_json(const JsonKeys& k, Config& c) {
  FileFields<JsonFields>& p = k.fields;
  const int heads = p.integer("num_attention_heads", 1, FileLimits::heads);
  const int inner = k.integer_or("lru_width", 1, FileLimits::width, c.width, c.width);
  c.rg_lru = {.inner = inner == c.width ? 0 : inner,
              .heads = heads == c.attention.heads ? 0 : heads,
              .conv = p.integer("conv1d_width", 1, 8, 4),
              .bias = true};
  c.logit_cap = p.number("logits_soft_cap", 1e-3, 1e6, 30);
  c.embedding_scale = embedding_scale(c);
}

inline void write_json(JsonMembers& m, const Config& c, std::string_view type) {
  if (type != "recurrent_gemma") return;
  const RgLruConfig r = c.rg_lru.resolved(c);
  std::string blocks;
  for (int i = 0; i < c.layers.count; ++i)
    blocks.append(i ? ", " : "").append(c.layers[i] == Kind::rg_lru ? "\"recurrent\"" : "\"attention\"");
  m.add("block_types", "[" + blocks + "]");
  m.add_number("lru_width", std::int64_t{r.inner}), m.add_number("conv1d_width", std::int64_t{r.conv});
  m.add("logits_soft_cap", real_text(to_text(c.logit_cap)));
  m.add_text("hidden_activation", "gelu_pytorch_tanh");
}

}  // namespace rg_lru_files_parts

inline constexpr LayerFiles rg_lru_files{.kind = Kind::rg_lru,
                                         .rows = rg_lru_files_parts::rows,
                                         .dense_type = rg_lru_files_parts::dense_type,
                                         .json_blocks = rg_lru_files_parts::json_blocks,
                                         .unknown_to_transformers = rg_lru_files_parts::unknown_to_transformers,
                                         .read_json = rg_lru_files_parts::read_json,
                                         .write_json = rg_lru_files_parts::write_json};

}  // namespace chimera::inline CHIMERA_ABI
