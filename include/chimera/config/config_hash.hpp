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

namespace config_hash_parts {

template <class T>
constexpr void add_value(Hash& h, const T& value) {
  if constexpr (HasFields<T>) {
    T::each_field(value, [&](std::string_view name, const auto& field, auto... mark) {
      if (meaning(mark...) == Meaning::some) add_value(h, field);
      if (meaning(mark...) == Meaning::added && field != std::remove_cvref_t<decltype(field)>{})
        h.add(name), add_value(h, field);
    });
  } else if constexpr (std::is_same_v<T, Layers>) {
    h.add(value.count);
    for (int i = 0; i < value.count && i < Layers::max; ++i) h.add(value[i]);
    for (int i = 0; i < value.count && i < Layers::max; ++i)
      if (value.block(i).ffn != Ffn::swiglu) h.add(i, value.block(i).ffn);
    for (const OwnWord& own : value.own)
      if (!own.name().empty()) h.add(own.name());
  } else if constexpr (requires { value.begin(); }) {
    for (const auto& item : value) add_value(h, item);
  } else {
    h.add(value);
  }
}

}  // namespace config_hash_parts

/// Of all that decides what the weights mean, as each field says; not of dropout, checkpointing and context, which may
/// change between runs. What zeros stand for is one with it said. Parts of layers that are not there count for nothing.
constexpr std::uint64_t config_hash(const Config& c) {
  Hash h;
  const auto model = [&](Meaning which) {
    Config::each_field(c, [&](std::string_view name, const auto& field, auto... mark) {
      using T = std::remove_cvref_t<decltype(field)>;
      if constexpr (!MixerConfig<T> && !std::is_same_v<T, MoeConfig>) {
        if (meaning(mark...) != which || (which != Meaning::some && field == T{})) return;
        if (which == Meaning::added) h.add(name);
        config_hash_parts::add_value(h, field);
      }
    });
  };
  model(Meaning::some), model(Meaning::later), model(Meaning::added);
  each_used_mixer(c, [&](std::string_view, const auto& part) {
    if constexpr (requires { part.resolved(c); })
      config_hash_parts::add_value(h, part.resolved(c));
    else
      config_hash_parts::add_value(h, part);
  });
  if (has_ffn(c, Ffn::moe)) config_hash_parts::add_value(h, c.moe.resolved(c));
  return h.value;
}

}  // namespace chimera
