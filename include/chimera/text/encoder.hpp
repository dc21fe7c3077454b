// Many texts to token ids, fast.
#pragma once

#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/short_text.hpp>
#include <chimera/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

namespace chimera {

/// Encodes many texts fast: remembers the ids of words it has met, in memory of a fixed size. For one thread at a time;
/// the tokenizer must outlive it.
class Encoder {
 public:
  /// `words`: how many it remembers at most, 64 bytes each; rounded up to a power of two.
  explicit Encoder(const Tokenizer& tokenizer, std::size_t words = 1 << 17)
      : t_(&tokenizer), words_(std::bit_ceil(std::max<std::size_t>(2, words))) {}

  /// Adds the ids of the text. Bytes that are no UTF-8 are encoded as they are.
  void encode(std::string_view text, Special control, std::vector<std::int32_t>& out);
  std::vector<std::int32_t> encode(std::string_view text, Special control = Special::as_text);

 private:
  struct alignas(64) Word {
    ShortText text;
    std::array<std::int32_t, 7> ids;
    std::uint8_t bytes = 0, count = 0;
  };
  static_assert(sizeof(Word) == 64);

  /// A short piece on its way: its place in memory is fetched while others are looked at.
  struct Piece {
    std::string_view text;
    ShortText key;
    std::uint64_t hash;
  };

  void wait(std::string_view piece, const char* end, std::vector<std::int32_t>& out);

  void add_waiting(std::vector<std::int32_t>& out);

  /// A word has two places, side by side; the one that came last takes the first.
  std::size_t place(const Piece& piece) const { return piece.hash & (words_.size() - 1); }

  const Word* find(const Piece& piece) const;

  void add(const Piece& piece, std::vector<std::int32_t>& out);

  const Tokenizer* t_;
  std::vector<Word, TableAllocator<Word>> words_;
  std::array<Piece, 32> next_;
  std::size_t waiting_ = 0;
  Tokenizer::Buffers buffers_;
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION void Encoder::encode(std::string_view text, Special control, std::vector<std::int32_t>& out) {
  t_->split_specials(text, control, [&](auto part) {
    if constexpr (std::is_same_v<decltype(part), std::int32_t>) {
      out.push_back(part);
    } else {
      split(t_->vocabulary().pretokenizer, part,
            [&](std::string_view piece) { wait(piece, part.data() + part.size(), out); });
      add_waiting(out);
    }
  });
}

CHIMERA_FUNCTION std::vector<std::int32_t> Encoder::encode(std::string_view text, Special control) {
  std::vector<std::int32_t> out;
  encode(text, control, out);
  return out;
}

CHIMERA_FUNCTION void Encoder::wait(std::string_view piece, const char* end, std::vector<std::int32_t>& out) {
  if (piece.size() > ShortText::most) {
    add_waiting(out);
    return t_->encode_piece(piece, hash_bytes(piece), buffers_, out);
  }
  Piece& next = next_[waiting_];
  next.text = piece;
  next.key = ShortText::of(piece, end);
  next.hash = next.key.hash(piece.size());
  __builtin_prefetch(&words_[place(next)]);
  if (++waiting_ == next_.size()) add_waiting(out);
}

CHIMERA_FUNCTION void Encoder::add_waiting(std::vector<std::int32_t>& out) {
  std::array<std::int32_t, std::tuple_size_v<decltype(next_)> * std::tuple_size_v<decltype(Word::ids)>> ids;
  std::size_t n = 0;
  for (const Piece& piece : std::span(next_).first(waiting_)) {
    const Word* word = find(piece);
    if (word == nullptr) {
      out.insert(out.end(), ids.data(), ids.data() + n);
      n = 0;
      add(piece, out);
      continue;
    }
    std::copy(word->ids.begin(), word->ids.end(), ids.data() + n);  // of a fixed length: no loop
    n += word->count;
  }
  out.insert(out.end(), ids.data(), ids.data() + n);
  waiting_ = 0;
}

CHIMERA_FUNCTION const Encoder::Word* Encoder::find(const Piece& piece) const {
  for (const std::size_t at : {place(piece), place(piece) ^ 1})
    if (words_[at].bytes == piece.text.size() && words_[at].text == piece.key) return &words_[at];
  return nullptr;
}

CHIMERA_FUNCTION void Encoder::add(const Piece& piece, std::vector<std::int32_t>& out) {
  const std::size_t before = out.size();
  t_->encode_piece(piece.text, piece.hash, buffers_, out);
  const std::size_t count = out.size() - before;
  Word& word = words_[place(piece)];
  if (count > word.ids.size()) return;
  words_[place(piece) ^ 1] = word;
  word.text = piece.key;
  word.bytes = static_cast<std::uint8_t>(piece.text.size());
  word.count = static_cast<std::uint8_t>(count);
  std::copy(out.end() - static_cast<std::ptrdiff_t>(count), out.end(), word.ids.begin());
}

}  // namespace chimera
#endif
