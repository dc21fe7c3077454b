// What mixes tokens in one block: the kinds of layers, and the word of a pattern for each. To add one, add it here; its
// numbers are a member of Config.
#pragma once

#include <chimera/core/version.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

// One list makes the enum, the table of words, and the words in messages of the compiler, which wants a literal.

// clang-format off
/// The layers there are.
#define CHIMERA_MIXERS(mixer) \
  mixer(attention, "A")  /* grouped-query attention */ \
  mixer(mamba2, "M")     /* Mamba-2, a state-space layer */ \
  mixer(rg_lru, "R")     /* Griffin's real-gated linear recurrent unit */ \
  mixer(gated_deltanet, "GD") \
  mixer(mlstm, "XM")     /* xLSTM's matrix memory */ \
  mixer(span_knot, "SK") /* this library's own: attention over spans, the older ones as knots */ \
  mixer(titans, "TM")    /* Titans' neural memory */
// clang-format on

#define CHIMERA_MIXER_KIND(kind, word) kind,
enum class Kind : std::uint8_t {
  CHIMERA_MIXERS(CHIMERA_MIXER_KIND)  //
  own,  // the first of a host's own layers, with a word that the pattern declares; own + i: the others
  none = 255,
};
#undef CHIMERA_MIXER_KIND

struct Mnemonic {
  std::string_view word;
  Kind kind;
};

/// The library's words. A host's own layer has none of these.
#define CHIMERA_MIXER_MNEMONIC(kind, word) Mnemonic{word, Kind::kind},
inline constexpr std::array mnemonics{CHIMERA_MIXERS(CHIMERA_MIXER_MNEMONIC)};
#undef CHIMERA_MIXER_MNEMONIC
static_assert(mnemonics.size() == static_cast<std::size_t>(Kind::own));

#define CHIMERA_MIXER_WORD(kind, word) " " word
/// " A M R GD XM SK TM", for messages.
#define CHIMERA_MIXER_WORDS CHIMERA_MIXERS(CHIMERA_MIXER_WORD)

/// What follows the mixer in one block. A word of the pattern says it behind the mixer's: "A" is attention and SwiGLU,
/// "A+E" attention and experts.
enum class Ffn : std::uint8_t { swiglu, moe };
inline constexpr std::array<std::string_view, 2> ffn_words{"", "+E"};

}  // namespace chimera
