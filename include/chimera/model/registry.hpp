// The layers behind the words of a pattern: the library's, and those of a host's own.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/layers/attention.hpp>
#include <chimera/layers/gated_deltanet.hpp>
#include <chimera/layers/mamba2.hpp>
#include <chimera/layers/mlstm.hpp>
#include <chimera/layers/moe.hpp>
#include <chimera/layers/rg_lru.hpp>
#include <chimera/layers/span_knot.hpp>
#include <chimera/layers/swiglu.hpp>
#include <chimera/layers/titans.hpp>
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

namespace registry_parts {

// Never defined: a compiler that wants one names it, and with it the layer and the part that is missing (layer.hpp).
template <class L>
struct lacks_params;
template <class L>
struct lacks_bind;
template <class L>
struct lacks_temp_bytes;
template <class L>
struct lacks_forward;
template <class L>
struct lacks_backward;
template <class L>
struct lacks_state;
template <class L>
struct lacks_decode;

/// Whether a layer has all its parts; what it lacks stops compilation here.
template <class L>
consteval bool complete() {
  if constexpr (!requires { L::params.size(); })
    return static_cast<bool>(sizeof(lacks_params<L>));
  else if constexpr (!requires(Bump memory, const Batch& batch) { L::bind(memory, batch); })
    return static_cast<bool>(sizeof(lacks_bind<L>));
  else if constexpr (!requires(const Batch& batch) { L::temp_bytes(batch); })
    return static_cast<bool>(sizeof(lacks_temp_bytes<L>));
  else if constexpr (!requires(const Cpu& q, Weights<L> w, const Batch& batch, float* x, typename L::Activations& a,
                               Bump temp) { L::forward(q, w, batch, x, 1.f, x, a, temp); })
    return static_cast<bool>(sizeof(lacks_forward<L>));
  else if constexpr (!requires(const Cpu& q, Weights<L> w, Weights<L, float> dw, const Batch& batch, float* x,
                               typename L::Activations& a,
                               Bump temp) { L::backward(q, w, dw, batch, x, x, 1.f, x, a, temp); })
    return static_cast<bool>(sizeof(lacks_backward<L>));
  else if constexpr (!requires { L::state(KvFormat::f16, std::int64_t{1}).whole; })
    return static_cast<bool>(sizeof(lacks_state<L>));
  else if constexpr (!Layer<L>)
    return static_cast<bool>(sizeof(lacks_decode<L>));
  else
    return true;
}

}  // namespace registry_parts

/// The layer behind one word.
template <Word w, class L>
struct Mixer {
  static constexpr std::string_view word = w.text;
  using layer = L;
};

/// The library's. To add a layer: write its files, add it here.
template <const Config& C>
inline constexpr auto mixers = boost::hana::make_tuple(
    Mixer<"A", Attention<C>>{}, Mixer<"M", Mamba2<C>>{}, Mixer<"R", RgLru<C>>{}, Mixer<"GD", GatedDeltaNet<C>>{},
    Mixer<"XM", Mlstm<C>>{}, Mixer<"SK", SpanKnot<C>>{}, Mixer<"TM", Titans<C>>{});

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
inline constexpr auto feed_forwards =
    boost::hana::make_tuple(FeedForward<Ffn::swiglu, SwiGlu<C>>{}, FeedForward<Ffn::moe, Moe<C>>{});

/// Whether C has such a block.
template <const Config& C>
constexpr bool has_block(BlockKind kind) {
  for (int i = 0; i < C.layers.count; ++i)
    if (C.layers.block(i) == kind) return true;
  return false;
}

namespace registry_parts {

/// Calls f with the block of a mixer and a feed-forward layer if it is of that kind. Pairs that C does not use are never
/// instantiated.
template <const Config& C, class M, class Feed, class F>
constexpr void with_pair(BlockKind kind, F& f) {
  constexpr BlockKind pair{C.layers.kind_of(M::word), Feed::ffn};
  if constexpr (has_block<C>(pair)) {
    static_assert(complete<typename M::layer>());
    if (kind == pair) f(boost::hana::type_c<Block<C, typename M::layer, typename Feed::layer>>);
  }
}

}  // namespace registry_parts

/// Calls f(hana::type_c<Block<C, mixer, ffn>>) for the layers of that kind, if they are registered.
template <const Config& C, class F>
constexpr void with_block(BlockKind kind, F f) {
  boost::hana::for_each(boost::hana::concat(mixers<C>, own_mixers<C>), [&](auto mixer) {
    using M = std::remove_cvref_t<decltype(mixer)>;  // g++ 12 sees a reference to it in the inner lambda
    boost::hana::for_each(feed_forwards<C>,
                          [&](auto feed_forward) { registry_parts::with_pair<C, M, decltype(feed_forward)>(kind, f); });
  });
}

/// Whether a layer is registered for each word of the pattern.
template <const Config& C>
constexpr bool all_registered() {
  for (int i = 0; i < C.layers.count; ++i) {
    int found = 0;
    with_block<C>(C.layers.block(i), [&](auto) { ++found; });
    if (found != 1) return false;
  }
  return true;
}

}  // namespace chimera::inline CHIMERA_ABI
