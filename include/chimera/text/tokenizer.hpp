// Byte-pair encoding: text to token ids and back, without loss for any bytes. A `Tokenizer` is made of a `Vocabulary`
// once and never changes, so threads may share it.
#pragma once

#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/short_text.hpp>
#include <chimera/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace chimera {

/// as_text: control tokens are text like any other, to be encoded and to be written. as_token: their names in a text
/// become tokens, and tokens write no text.
enum class Special : bool { as_text, as_token };

class Tokenizer {
 public:
  /// Working memory of `merge`, which grows with the longest piece: 24 bytes for each of its bytes.
  class Buffers;

  /// Makes the list of merges if tokens merge by rank. Errors: too many tokens, a byte without a token, two equal
  /// tokens, a merge of or into what is no token, a special id that is none.
  static Result<Tokenizer> create(Vocabulary vocabulary);

  const Vocabulary& vocabulary() const { return v_; }
  /// Ids are below this.
  std::int32_t size() const { return static_cast<std::int32_t>(v_.tokens.size()); }

  /// What the token stands for; empty for an id that is none.
  std::string_view bytes(std::int32_t id) const {
    return id >= 0 && id < size() ? std::string_view(v_.tokens[static_cast<std::size_t>(id)].bytes) : "";
  }
  bool is_control(std::int32_t id) const {
    return id >= 0 && id < size() && is_control(v_.tokens[static_cast<std::size_t>(id)]);
  }
  /// Whether a model that writes this token has said all it wanted to.
  bool ends_text(std::int32_t id) const;
  /// The control or user-defined token of that text.
  std::optional<std::int32_t> special(std::string_view text) const;

  /// Calls `use(std::string_view text)` for text between special tokens and `use(std::int32_t id)` for those, in turn.
  /// Of tokens that begin at the same place the longest counts. Text is in form C if the vocabulary asks for that; it
  /// may end with the call.
  template <class Use>
  void split_specials(std::string_view text, Special control, Use&& use) const;

  /// Adds the ids of one piece of text, whose hash_bytes are given.
  void encode_piece(std::string_view piece, std::uint64_t hash, Buffers& buffers, std::vector<std::int32_t>& out) const;

  /// The ids of the text. Many texts are encoded faster by an `Encoder`, with the same ids.
  std::vector<std::int32_t> encode(std::string_view text, Special control = Special::as_text) const;

  /// The bytes of the tokens, joined.
  std::string decode(std::span<const std::int32_t> ids, Special control = Special::as_text) const;

 private:
  static constexpr std::uint32_t none = 0xFFFFFFFF;
  static constexpr std::uint64_t free_slot = ~std::uint64_t{0};
  static constexpr int id_bits = 21, rank_bits = 22;  // a slot of pairs_: left id, right id, rank

  explicit Tokenizer(Vocabulary v) : v_(std::move(v)) {}

  static bool is_control(const Token& t) { return t.type == TokenType::control || t.type == TokenType::unknown; }
  static bool is_word(const Token& t) {
    return t.type == TokenType::normal || t.type == TokenType::user_defined || t.type == TokenType::byte;
  }

  static std::size_t table_size(std::size_t entries) { return std::bit_ceil(std::max<std::size_t>(16, entries * 2)); }

  /// The token of those bytes, of the ones in words_; -1 if there is none.
  std::int32_t find(std::string_view bytes) const { return find(bytes, hash_bytes(bytes)); }
  std::int32_t find(std::string_view bytes, std::uint64_t h) const;
  void insert_word(std::size_t id);

  static std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) {
    return std::uint64_t{left} << id_bits | right;
  }
  std::size_t pair_slot(std::uint64_t key) const {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15) >> pair_shift_);
  }
  /// When those two tokens merge, none: never.
  std::uint32_t rank(std::uint32_t left, std::uint32_t right) const;
  static std::size_t byte_pair(char left, char right) {
    return static_cast<std::size_t>(static_cast<unsigned char>(left)) << 8 | static_cast<unsigned char>(right);
  }
  void insert_pair(std::int32_t left, std::int32_t right, std::uint32_t rank);
  Result<void> index();
  Result<void> index_merges();
  Result<void> index_ranks();
  std::pair<std::int32_t, std::int32_t> last_parts(std::string_view bytes) const;
  void index_words();
  void index_specials();

  void merge(std::string_view piece, Buffers& buffers, std::vector<std::int32_t>& out) const;
  void merge_short(std::string_view piece, std::vector<std::int32_t>& out) const;
  void merge_long(std::string_view piece, Buffers& buffers, std::vector<std::int32_t>& out) const;

  /// Special tokens sorted by their text, and whether one begins with a byte.
  struct Specials {
    std::vector<std::int32_t> sorted;
    std::array<bool, 256> begins{};
  };
  template <class Use>
  void split_by(const Specials& specials, std::string_view text, Use&& use) const;
  std::optional<std::int32_t> longest_special(const Specials& specials, std::string_view text) const;

  Vocabulary v_;
  std::array<std::uint32_t, 256> byte_tokens_{};
  std::vector<std::uint32_t> byte_ranks_;                            // [left byte][right byte]: rank of their tokens
  std::vector<std::uint64_t, TableAllocator<std::uint64_t>> words_;  // the upper half of a hash, a token id
  std::vector<std::uint64_t, TableAllocator<std::uint64_t>> pairs_;
  std::vector<std::uint32_t> merged_;  // the token that a merge of this rank makes
  int pair_shift_ = 0;
  std::array<std::array<Specials, 2>, 2> specials_;  // [user-defined; control as well][as they stand; normalized]
};

class Tokenizer::Buffers {
  friend class Tokenizer;
  std::vector<std::uint32_t> ids_, ranks_, before_, behind_;
  std::vector<std::uint64_t> queue_;
};

template <class Use>
void Tokenizer::split_specials(std::string_view text, Special control, Use&& use) const {
  const auto& [as_they_stand, normalized] = specials_[control == Special::as_token ? 1 : 0];
  split_by(as_they_stand, text, [&](auto part) {
    if constexpr (std::is_same_v<decltype(part), std::int32_t>) {
      use(part);
    } else if (v_.nfc) {
      std::string buffer;
      split_by(normalized, v_.nfc(part, buffer), use);
    } else {
      split_by(normalized, part, use);
    }
  });
}

template <class Use>
void Tokenizer::split_by(const Specials& specials, std::string_view text, Use&& use) const {
  std::size_t from = 0;
  if (!specials.sorted.empty())
    for (std::size_t at = 0; at < text.size(); ++at) {
      if (!specials.begins[static_cast<unsigned char>(text[at])]) continue;
      const auto id = longest_special(specials, text.substr(at));
      if (!id) continue;
      if (at > from) use(text.substr(from, at - from));
      use(*id);
      from = at + bytes(*id).size();
      at = from - 1;
    }
  if (from < text.size()) use(text.substr(from));
}

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<Tokenizer> Tokenizer::create(Vocabulary vocabulary) {
  Tokenizer t(std::move(vocabulary));
  if (Result<void> s = t.index(); !s) return s.error();
  t.pairs_.assign(table_size(t.v_.merge_by_rank ? t.v_.tokens.size() : t.v_.merges.size()), free_slot);
  t.pair_shift_ = 64 - std::countr_zero(t.pairs_.size());
  t.byte_ranks_.assign(256 * 256, none);
  if (Result<void> s = t.v_.merge_by_rank ? t.index_ranks() : t.index_merges(); !s) return s.error();
  if (!t.v_.whole_words) t.index_words();
  t.index_specials();
  return t;
}

/// Fills words_ and byte_tokens_.
CHIMERA_FUNCTION Result<void> Tokenizer::index() {
  const auto name = [&](std::size_t id) { return "token " + std::to_string(id); };
  if (v_.tokens.size() > Vocabulary::max_tokens)
    return Error{"expected at most " + std::to_string(Vocabulary::max_tokens) + " tokens, found " +
                 std::to_string(v_.tokens.size())};
  std::vector<std::int32_t> ids = v_.ends;
  ids.insert(ids.end(), {v_.bos, v_.eos, v_.eot, v_.unknown, v_.padding});
  for (const std::int32_t id : ids)
    if (id < -1 || id >= size())
      return Error{"expected special ids below the number of tokens, " + std::to_string(size()) + ", found " +
                   std::to_string(id)};
  words_.assign(table_size(v_.tokens.size()), free_slot);
  // A user-defined token may repeat a normal one, which then is the one to merge.
  for (const TokenType type : {TokenType::normal, TokenType::byte, TokenType::user_defined})
    for (std::size_t id = 0; id < v_.tokens.size(); ++id) {
      if (v_.tokens[id].type != type) continue;
      if (v_.tokens[id].bytes.empty()) return Error{name(id) + " is empty"};
      if (const std::int32_t other = find(v_.tokens[id].bytes); other < 0)
        insert_word(id);
      else if (type == TokenType::normal)
        return Error{name(id) + " has the same bytes as " + name(static_cast<std::size_t>(other))};
    }
  for (std::size_t b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    const std::int32_t id = find({&byte, 1});
    if (id < 0) return Error{"expected a token for each of the 256 bytes, found none for byte " + std::to_string(b)};
    byte_tokens_[b] = static_cast<std::uint32_t>(id);
  }
  return {};
}

/// Fills pairs_, byte_ranks_ and merged_ from the list of merges.
CHIMERA_FUNCTION Result<void> Tokenizer::index_merges() {
  if (v_.merges.size() > Vocabulary::max_merges)
    return Error{"expected at most " + std::to_string(Vocabulary::max_merges) + " merges, found " +
                 std::to_string(v_.merges.size())};
  std::string whole;
  for (const auto& [left, right] : v_.merges) {
    whole.assign(bytes(left)).append(bytes(right));
    const std::int32_t id = bytes(left).empty() || bytes(right).empty() ? -1 : find(whole);
    if (id < 0)
      return Error{"merge " + std::to_string(merged_.size()) + ": the tokens " + std::to_string(left) + " and " +
                   std::to_string(right) + " make no token"};
    insert_pair(left, right, static_cast<std::uint32_t>(merged_.size()));
    merged_.push_back(static_cast<std::uint32_t>(id));
  }
  return {};
}

/// Fills the same, and makes the list of merges, from the order of the tokens. What merges within a token, whatever
/// stands around it, merges in the same order as in the token alone; so one pair makes it: the last two parts of the
/// token alone.
CHIMERA_FUNCTION Result<void> Tokenizer::index_ranks() {
  merged_.resize(v_.tokens.size());
  std::vector<std::array<std::int32_t, 3>> pairs;  // token, left, right
  const auto add = [&](std::int32_t id, std::int32_t left, std::int32_t right) {
    insert_pair(left, right, static_cast<std::uint32_t>(id));
    merged_[static_cast<std::size_t>(id)] = static_cast<std::uint32_t>(id);
    pairs.push_back({id, left, right});
  };
  // Where all that a token is made of has lower ids, as in what training makes, the merges so far leave these two
  // parts.
  std::vector<std::int32_t> rest, parts;
  Buffers buffers;
  for (std::int32_t id = 0; id < size(); ++id) {
    const Token& token = v_.tokens[static_cast<std::size_t>(id)];
    if (token.type != TokenType::normal || token.bytes.size() == 1) continue;
    parts.clear();
    merge(token.bytes, buffers, parts);
    if (parts.size() == 2)
      add(id, parts[0], parts[1]);
    else
      rest.push_back(id);
  }
  for (const std::int32_t id : rest) {
    constexpr std::size_t most = 256;
    if (bytes(id).size() > most)
      return Error{"token " + std::to_string(id) + ": expected at most " + std::to_string(most) + " bytes, found " +
                   std::to_string(bytes(id).size())};
    if (const auto [left, right] = last_parts(bytes(id)); right >= 0) add(id, left, right);
  }
  std::sort(pairs.begin(), pairs.end());
  v_.merges.clear();
  for (const auto& [id, left, right] : pairs) v_.merges.emplace_back(left, right);
  return {};
}

/// What two tokens merge last, by rank, to make a token of those bytes; -1 if none do.
CHIMERA_FUNCTION std::pair<std::int32_t, std::int32_t> Tokenizer::last_parts(std::string_view bytes) const {
  std::vector<std::size_t> cuts(bytes.size() + 1);
  std::iota(cuts.begin(), cuts.end(), std::size_t{0});
  const auto part = [&](std::size_t first, std::size_t count) {
    return find(bytes.substr(cuts[first], cuts[first + count] - cuts[first]));
  };
  while (cuts.size() > 3) {
    std::size_t best = 0;
    std::int32_t lowest = -1;
    for (std::size_t i = 0; i + 2 < cuts.size(); ++i)
      if (const std::int32_t id = part(i, 2); id >= 0 && (lowest < 0 || id < lowest)) best = i, lowest = id;
    if (lowest < 0) return {-1, -1};
    cuts.erase(cuts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  return {part(0, 1), part(1, 1)};
}

/// Leaves in words_ what merges lead to.
CHIMERA_FUNCTION void Tokenizer::index_words() {
  std::vector<std::size_t> words;
  Buffers buffers;
  std::vector<std::int32_t> merged;
  for (const std::uint64_t slot : words_) {
    if (slot == free_slot) continue;
    const std::size_t id = slot & none;
    merged.clear();
    merge(v_.tokens[id].bytes, buffers, merged);
    if (merged.size() == 1) words.push_back(id);
  }
  words_.assign(words_.size(), free_slot);
  for (const std::size_t id : words) insert_word(id);
}

/// Enters a merge. Of two merges of the same pair the first counts.
CHIMERA_FUNCTION void Tokenizer::insert_pair(std::int32_t left, std::int32_t right, std::uint32_t rank) {
  const std::uint64_t key = pair_key(static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right));
  const std::size_t last = pairs_.size() - 1;
  std::size_t i = pair_slot(key);
  for (; pairs_[i] != free_slot; i = (i + 1) & last)
    if (pairs_[i] >> rank_bits == key) return;
  pairs_[i] = key << rank_bits | rank;
  if (bytes(left).size() == 1 && bytes(right).size() == 1)
    byte_ranks_[byte_pair(bytes(left).front(), bytes(right).front())] = rank;
}

CHIMERA_FUNCTION void Tokenizer::index_specials() {
  for (std::int32_t id = 0; id < size(); ++id) {
    const Token& t = v_.tokens[static_cast<std::size_t>(id)];
    if (t.bytes.empty() || !(is_control(t) || t.type == TokenType::user_defined)) continue;
    for (auto& list : specials_) {
      if (&list == &specials_[0] && is_control(t)) continue;
      Specials& s = list[t.normalized ? 1 : 0];
      s.sorted.push_back(id);
      s.begins[static_cast<unsigned char>(t.bytes.front())] = true;
    }
  }
  for (auto& list : specials_)
    for (Specials& s : list)
      std::stable_sort(s.sorted.begin(), s.sorted.end(), [&](auto a, auto b) { return bytes(a) < bytes(b); });
}

/// The longest special token that `text` begins with.
CHIMERA_FUNCTION std::optional<std::int32_t> Tokenizer::longest_special(const Specials& specials,
                                                                        std::string_view text) const {
  auto first = specials.sorted.begin(), last = specials.sorted.end();  // those that agree with the text so far
  std::optional<std::int32_t> found;
  for (std::size_t n = 0; first != last; ++n) {
    if (bytes(*first).size() == n) {
      found = *first;
      while (first != last && bytes(*first).size() == n) ++first;
    }
    if (n == text.size()) break;
    const auto byte = [n](std::string_view t) { return static_cast<unsigned char>(t[n]); };
    const unsigned char wanted = byte(text);
    first = std::partition_point(first, last, [&](std::int32_t id) { return byte(bytes(id)) < wanted; });
    last = std::partition_point(first, last, [&](std::int32_t id) { return byte(bytes(id)) == wanted; });
  }
  return found;
}

/// Merges of the lowest rank first, of those the leftmost, until none is left.
CHIMERA_FUNCTION void Tokenizer::merge(std::string_view piece, Buffers& buffers, std::vector<std::int32_t>& out) const {
  constexpr std::size_t most = std::size_t{1} << 24;  // of a piece: bounds the memory; no word is as long
  for (; piece.size() > most; piece.remove_prefix(most)) merge_long(piece.substr(0, most), buffers, out);
  if (piece.size() <= 64)
    merge_short(piece, out);
  else
    merge_long(piece, buffers, out);
}

/// Looks through all pairs for the next merge.
CHIMERA_FUNCTION void Tokenizer::merge_short(std::string_view piece, std::vector<std::int32_t>& out) const {
  std::array<std::uint32_t, 64> ids, ranks;  // ranks[i]: of ids[i] and ids[i + 1]
  std::size_t n = piece.size();
  for (std::size_t i = 0; i < n; ++i) ids[i] = byte_tokens_[static_cast<unsigned char>(piece[i])];
  for (std::size_t i = 0; i + 1 < n; ++i) ranks[i] = byte_ranks_[byte_pair(piece[i], piece[i + 1])];
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == none) break;
    ids[best] = merged_[ranks[best]];
    --n;
    for (std::size_t i = best + 1; i < n; ++i) ids[i] = ids[i + 1];
    for (std::size_t i = best; i + 1 < n; ++i) ranks[i] = ranks[i + 1];
    if (best + 1 < n) ranks[best] = rank(ids[best], ids[best + 1]);
    if (best > 0) ranks[best - 1] = rank(ids[best - 1], ids[best]);
  }
  for (std::size_t i = 0; i < n; ++i) out.push_back(static_cast<std::int32_t>(ids[i]));
}

/// A queue of pairs over a linked list of tokens: n log n steps for n bytes.
CHIMERA_FUNCTION void Tokenizer::merge_long(std::string_view piece, Buffers& b, std::vector<std::int32_t>& out) const {
  const std::uint32_t n = static_cast<std::uint32_t>(piece.size());
  b.ids_.resize(n), b.ranks_.resize(n), b.before_.resize(n), b.behind_.resize(n);
  b.queue_.clear();
  for (std::uint32_t i = 0; i < n; ++i) {
    b.ids_[i] = byte_tokens_[static_cast<unsigned char>(piece[i])];
    b.before_[i] = i - 1, b.behind_[i] = i + 1;
  }
  const auto later = [](std::uint64_t x, std::uint64_t y) { return x > y; };
  // An entry is old, and of no effect, when the pair at its place has another rank by now.
  const auto add = [&](std::uint32_t i) {
    b.ranks_[i] = b.behind_[i] < n ? rank(b.ids_[i], b.ids_[b.behind_[i]]) : none;
    if (b.ranks_[i] == none) return;
    b.queue_.push_back(std::uint64_t{b.ranks_[i]} << 32 | i);
    std::push_heap(b.queue_.begin(), b.queue_.end(), later);
  };
  for (std::uint32_t i = 0; i < n; ++i) {
    b.ranks_[i] = i + 1 < n ? byte_ranks_[byte_pair(piece[i], piece[i + 1])] : none;
    if (b.ranks_[i] != none) b.queue_.push_back(std::uint64_t{b.ranks_[i]} << 32 | i);
  }
  std::make_heap(b.queue_.begin(), b.queue_.end(), later);
  while (!b.queue_.empty()) {
    std::pop_heap(b.queue_.begin(), b.queue_.end(), later);
    const std::uint32_t rank = static_cast<std::uint32_t>(b.queue_.back() >> 32);
    const std::uint32_t i = static_cast<std::uint32_t>(b.queue_.back());
    b.queue_.pop_back();
    if (b.ranks_[i] != rank) continue;
    const std::uint32_t gone = b.behind_[i];
    b.ids_[i] = merged_[rank];
    b.ranks_[gone] = none;
    b.behind_[i] = b.behind_[gone];
    if (b.behind_[i] < n) b.before_[b.behind_[i]] = i;
    add(i);
    if (i > 0) add(b.before_[i]);
  }
  for (std::uint32_t i = 0; i < n; i = b.behind_[i]) out.push_back(static_cast<std::int32_t>(b.ids_[i]));
}

CHIMERA_FUNCTION std::vector<std::int32_t> Tokenizer::encode(std::string_view text, Special control) const {
  std::vector<std::int32_t> out;
  Buffers buffers;
  split_specials(text, control, [&](auto part) {
    if constexpr (std::is_same_v<decltype(part), std::int32_t>)
      out.push_back(part);
    else
      split(v_.pretokenizer, part,
            [&](std::string_view piece) { encode_piece(piece, hash_bytes(piece), buffers, out); });
  });
  return out;
}

CHIMERA_FUNCTION bool Tokenizer::ends_text(std::int32_t id) const {
  constexpr std::array<std::string_view, 5> names{"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>",
                                                  "</s>"};
  return id >= 0 && (id == v_.eos || id == v_.eot || std::find(v_.ends.begin(), v_.ends.end(), id) != v_.ends.end() ||
                     (is_control(id) && std::find(names.begin(), names.end(), bytes(id)) != names.end()));
}

CHIMERA_FUNCTION std::optional<std::int32_t> Tokenizer::special(std::string_view text) const {
  for (const Specials& s : specials_[1])
    if (const auto found = longest_special(s, text); found && bytes(*found) == text) return found;
  return std::nullopt;
}

CHIMERA_FUNCTION void Tokenizer::encode_piece(std::string_view piece, std::uint64_t hash, Buffers& buffers,
                                              std::vector<std::int32_t>& out) const {
  if (const std::int32_t word = find(piece, hash); word >= 0)
    out.push_back(word);
  else
    merge(piece, buffers, out);
}

CHIMERA_FUNCTION std::string Tokenizer::decode(std::span<const std::int32_t> ids, Special control) const {
  std::string text;
  for (const std::int32_t id : ids)
    if (control == Special::as_text || !is_control(id)) text += bytes(id);
  return text;
}

CHIMERA_FUNCTION std::int32_t Tokenizer::find(std::string_view bytes, std::uint64_t h) const {
  const std::size_t last = words_.size() - 1;
  for (std::size_t i = h & last;; i = (i + 1) & last) {
    const std::uint64_t slot = words_[i];
    if (slot == free_slot) return -1;
    const std::size_t id = slot & none;
    if (slot >> 32 == h >> 32 && v_.tokens[id].bytes == bytes) return static_cast<std::int32_t>(id);
  }
}

CHIMERA_FUNCTION void Tokenizer::insert_word(std::size_t id) {
  const std::uint64_t h = hash_bytes(v_.tokens[id].bytes);
  const std::size_t last = words_.size() - 1;
  std::size_t i = h & last;
  while (words_[i] != free_slot) i = (i + 1) & last;
  words_[i] = (h >> 32) << 32 | id;
}

CHIMERA_FUNCTION std::uint32_t Tokenizer::rank(std::uint32_t left, std::uint32_t right) const {
  const std::uint64_t key = pair_key(left, right);
  const std::size_t last = pairs_.size() - 1;
  for (std::size_t i = pair_slot(key);; i = (i + 1) & last) {
    const std::uint64_t slot = pairs_[i];
    if (slot >> rank_bits == key) return static_cast<std::uint32_t>(slot & ((1u << rank_bits) - 1));
    if (slot == free_slot) return none;
  }
}

}  // namespace chimera
#endif
