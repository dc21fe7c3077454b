// One number that tells models apart whose weights mean different things.
#pragma once

#include <chimera/config/config.hpp>

#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace chimera {

/// FNV-1a, 64 bits.
struct Hash {
  std::uint64_t value = 0xCBF29CE484222325;

  constexpr void byte(std::uint64_t b) { value = (value ^ b) * 0x100000001B3; }
  constexpr void add(std::string_view text) {
    for (char c : text) byte(static_cast<unsigned char>(c));
    byte(0);
  }
  template <class... T>
  constexpr void add(const T&... values) {
    (number(values), ...);
  }

 private:
  template <class T>
  constexpr void number(const T& v) {
    std::uint64_t bits = 0;
    if constexpr (std::is_same_v<T, float>)
      bits = std::bit_cast<std::uint32_t>(v);
    else
      bits = static_cast<std::uint64_t>(v);
    for (int i = 0; i < 64; i += 8) byte(bits >> i & 255);
  }
};

/// Of all that decides what the weights mean; not of dropout, checkpointing and context, which may change between
/// runs. The names taken apart are all fields: a new one stops compilation here, to be added or passed over.
constexpr std::uint64_t config_hash(const Config& c) {
  const auto& [vocab, width, context, layers, attention, mamba2, rg_lru, ffn, tied, sub_norm, norm_eps, embedding_scale,
               residual_scale, logit_scale, dropout, checkpointing] = c;
  Hash h;
  h.add(vocab, width, layers.count);
  for (int i = 0; i < layers.count; ++i) h.add(layers[i]);
  h.add(ffn.hidden, tied, norm_eps, embedding_scale, residual_scale, logit_scale);
  if (sub_norm) h.add(sub_norm);  // so that models without have the hash that they always had
  if (layers.count_of(Kind::attention) > 0) {
    const auto& [heads, kv_heads, head_dim, window, scale, position, rope] = attention;
    h.add(heads, c.kv_heads(), c.head_dim(), window, scale, position);
    if (position == Position::rope) {
      const auto& [base, dims, layout, scaling, factor, original_context, attention_factor, beta_fast, beta_slow,
                   mscale, mscale_all_dim, low_freq_factor, high_freq_factor, short_factor, long_factor] = rope;
      h.add(base, c.rope_dims(), layout, scaling);
      if (scaling != RopeScaling::none) {
        h.add(factor, original_context ? original_context : context, attention_factor, beta_fast, beta_slow, mscale,
              mscale_all_dim, low_freq_factor, high_freq_factor);
        for (float f : short_factor) h.add(f);
        for (float f : long_factor) h.add(f);
      }
    }
  }
  if (layers.count_of(Kind::mamba2) > 0) {
    const auto& [expand, head_dim, state, groups, conv, chunk, dt_min, dt_max] = mamba2;
    h.add(expand, head_dim, state, groups, conv, dt_min, dt_max);
  }
  if (layers.count_of(Kind::rg_lru) > 0) {
    const auto& [inner, heads, conv, bias] = rg_lru;
    h.add(c.rnn_inner(), c.rnn_heads(), conv, bias);
  }
  return h.value;
}

}  // namespace chimera
