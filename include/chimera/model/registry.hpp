// The layers behind the words of a pattern: the library's, and those of a host's own.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/layers/attention.hpp>
#include <chimera/layers/mamba2.hpp>
#include <chimera/layers/rg_lru.hpp>
#include <chimera/layers/swiglu.hpp>
#include <chimera/model/block.hpp>

#include <boost/hana/concat.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/tuple.hpp>
#include <boost/hana/type.hpp>

#include <cstddef>
#include <string_view>
#include <type_traits>

namespace chimera::inline CHIMERA_ABI {

/// A word of a pattern as a template argument.
template <std::size_t n>
struct Word {
  char text[n]{};

  consteval Word(const char (&word)[n]) {
    for (std::size_t i = 0; i < n; ++i) text[i] = word[i];
  }
};

/// The layer behind one word.
template <Word w, class L>
struct Mixer {
  static constexpr std::string_view word = w.text;
  using layer = L;
};

/// The library's. To add a layer: write its files, add it here.
template <const Config& C>
inline constexpr auto mixers =
    boost::hana::make_tuple(Mixer<"A", Attention<C>>{}, Mixer<"M", Mamba2<C>>{}, Mixer<"R", RgLru<C>>{});

/// A host's own for one config, whose pattern declares their words: a host specialises this with a tuple as above
/// (examples/own_layer).
template <const Config& C>
inline constexpr auto own_mixers = boost::hana::make_tuple();

template <Ffn f, class L>
struct FeedForward {
  static constexpr Ffn ffn = f;
  using layer = L;
};

template <const Config& C>
inline constexpr auto feed_forwards = boost::hana::make_tuple(FeedForward<Ffn::swiglu, SwiGlu<C>>{});

/// Whether C has such a block.
template <const Config& C>
constexpr bool has_block(BlockKind kind) {
  for (int i = 0; i < C.layers.count; ++i)
    if (C.layers.block(i) == kind) return true;
  return false;
}

/// Calls f(hana::type_c<Block<C, mixer, ffn>>) for the layers of that kind, if they are registered. Pairs that C does
/// not use are never instantiated.
template <const Config& C, class F>
constexpr void with_block(BlockKind kind, F f) {
  boost::hana::for_each(boost::hana::concat(mixers<C>, own_mixers<C>), [&](auto mixer) {
    using M = std::remove_cvref_t<decltype(mixer)>;  // g++ 12 sees a reference to it in the inner lambda
    boost::hana::for_each(feed_forwards<C>, [&](auto feed_forward) {
      using Feed = decltype(feed_forward);
      constexpr BlockKind pair{C.layers.kind_of(M::word), Feed::ffn};
      if constexpr (has_block<C>(pair))
        if (kind == pair) f(boost::hana::type_c<Block<C, typename M::layer, typename Feed::layer>>);
    });
  });
}

/// Whether a layer is registered for each word of the pattern.
template <const Config& C>
inline constexpr bool all_registered = [] {
  for (int i = 0; i < C.layers.count; ++i) {
    int found = 0;
    with_block<C>(C.layers.block(i), [&](auto) { ++found; });
    if (found != 1) return false;
  }
  return true;
}();

}  // namespace chimera::inline CHIMERA_ABI
