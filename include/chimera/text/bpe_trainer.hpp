// Learning byte-pair encoding from texts: join the pair of tokens that occurs most often, again and again (Gage 1994,
// Sennrich et al. 2016). Pieces are counted once; a mix of the languages is a weight for each, so trying many mixes, as
// the search for equal cost does, costs only the joining.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/text/bytes.hpp>
#include <chimera/text/piece_counts.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/unicode.hpp>
#include <chimera/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera {

/// Bounds of `train_bpe`: places are 32-bit numbers, and weighted counts stay below 2^61.
inline constexpr std::size_t max_bpe_bytes = 0xFFFFFFF0;

inline constexpr std::int64_t max_bpe_weight = std::int64_t{1} << 24;

struct BpeSettings {
  /// With the 256 bytes and the special tokens, which come last; less if the texts end first.
  std::int64_t vocab = 32768;
  std::int64_t min_count = 2;  // a pair that occurs less often is not merged; counted in the language of least weight
  std::vector<std::string> specials{byte_specials.begin(), byte_specials.end()};
  /// No token of several characters begins inside a grapheme cluster or holds part of a character, and those that end
  /// in a virama count half. Merges that would make one are not learned; encoding needs no rule for that.
  bool whole_clusters = true;
  /// A pair counts less the longer the token that it would make, by the square root of its bytes. Of pairs that occur
  /// as often in the texts to learn from, the shorter one is likelier to occur in others: at equal parity this takes
  /// half a percent off the tokens of English books that were left out.
  bool favour_short = true;
  /// Devanagari first: all of its characters, and each consonant with each vowel sign, are tokens whether or not the
  /// texts are rich enough to have them. Used if one byte in a hundred, by weight, is Devanagari and there is room.
  bool devanagari = true;
};

/// How a host follows a training and stops it: return false to do so. Called from any thread of the device, for each
/// 1,024 merges.
struct BpeWatch {
  bool (*go_on)(void* self, std::int64_t merges) = nullptr;
  void* self = nullptr;
};

/// What was learned: token i < 256 is byte i, token 256 + i comes of merge i.
struct BpeMerges {
  std::vector<std::pair<std::int32_t, std::int32_t>> merges;
  std::vector<std::int64_t> tokens;  // of each column of the counts
};

/// The work of `train_bpe`. All pieces lie in one row of bytes, with a gap between two pieces. A token is known at its
/// first and last byte, a pair of tokens at the first byte of its left one. So every place that a merge touches is
/// reached without a search, and what it changes is a counter of a pair. A pair is born by one merge, all its places at
/// once: its list of places never grows, and places that have become another pair since are passed over.
class BpeTraining {
 public:
  BpeTraining(const PieceCounts& counts, std::span<const std::int64_t> weights, const BpeSettings& settings);

  Result<BpeMerges> run(const BpeWatch& watch);

 private:
  static constexpr std::uint32_t none = 0xFFFFFFFF;

  /// What clusters need to know of a token.
  struct Token {
    std::uint32_t bytes = 1;
    std::array<char, 4> head{};  // while it is less than a character: its bytes
    std::uint8_t missing = 0;    // bytes to come until it is one whole character
    bool whole = false;          // whole characters, one or more
    bool dependent = false;      // its first character continues a cluster
    bool linked = false;         // its last character joins what follows to the cluster: virama, ZWJ
  };
  struct Pair {
    std::uint32_t left, right;
    std::int64_t count;
    std::uint32_t first, places;  // in places_
  };
  struct Entry {
    double score;
    std::uint64_t key;
    std::uint32_t pair;
    /// The highest score first; of equal ones the smallest left id, then the smallest right id.
    bool operator<(const Entry& o) const { return score != o.score ? score < o.score : key > o.key; }
  };
  struct Seed {
    std::uint32_t left, right;
  };
  struct Place {
    std::uint32_t pair, at;
  };

  static constexpr std::uint64_t key(std::uint32_t left, std::uint32_t right) {
    return std::uint64_t{left} << 32 | right;
  }

  void lay_out(std::span<const std::int64_t> weights);

  /// U+0900 to U+097F take the ids 258 to 385.
  void add_devanagari();

  void count_bytes();

  /// The pair stands at that place from now on. `pair`: where its number is kept while it is new.
  void add(std::uint32_t& pair, std::uint32_t left, std::uint32_t right, std::uint32_t at);
  void remove(std::uint32_t at);

  /// Sorts the places of the pairs that have just been born by pair, and puts the pairs into the queue.
  void file_new_pairs(std::size_t first);

  double score(const Pair& p) const;

  /// The token that the two make, if it may exist.
  static std::optional<Token> join(const Token& a, const Token& b);

  /// Takes the best pair out of the queue. None if its score has fallen since it was put there: then it stands where it
  /// belongs by now, or has left.
  std::uint32_t pop();

  void merge(std::uint32_t left, std::uint32_t right, std::uint32_t pair);

  std::vector<std::int64_t> count_tokens() const;

  static constexpr double seed_score = 1e30;  // above every count

  const PieceCounts& counts_;
  bool clusters_, favour_short_;
  std::size_t most_tokens_;
  std::int64_t least_count_ = std::int64_t{1} << 62;
  std::vector<std::uint32_t> token_at_, pair_at_, piece_at_;  // by byte
  std::vector<std::int64_t> weights_;                         // by piece
  std::vector<Token> tokens_;
  std::vector<std::pair<std::int32_t, std::int32_t>> merges_;
  std::vector<Pair> pairs_;
  std::vector<std::uint32_t> places_;
  std::vector<Place> new_places_;
  std::vector<Entry> queue_;                 // a heap
  std::vector<std::uint32_t> left_, right_;  // the new pair that has that token on its left (right) side
  std::vector<Seed> seeds_;
  std::size_t seeded_ = 0;
};

/// Learns merges. `weights`: of the first columns of `counts`, one or more, all above -1 and one above 0; columns
/// behind those are only measured. The result depends on nothing but counts, weights and settings.
Result<BpeMerges> train_bpe(const PieceCounts& counts, std::span<const std::int64_t> weights,
                            const BpeSettings& settings, const BpeWatch& watch = {});

/// The vocabulary of those merges: bytes, merges, special tokens.
Vocabulary bpe_vocabulary(const BpeMerges& learned, PreTokenizer rules, const BpeSettings& settings);

/// Weights that give each language its share of the pieces: `shares` are of the first columns. Languages keep the
/// resolution of 1/1024 of a piece.
std::vector<std::int64_t> bpe_weights(const PieceCounts& counts, std::span<const double> shares);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<BpeMerges> train_bpe(const PieceCounts& counts, std::span<const std::int64_t> weights,
                                             const BpeSettings& settings, const BpeWatch& watch) {
  const std::int64_t least = 256 + static_cast<std::int64_t>(settings.specials.size());
  if (settings.vocab < least || settings.vocab > static_cast<std::int64_t>(Vocabulary::max_tokens))
    return Error{"the vocabulary must have " + std::to_string(least) +
                 " tokens (256 bytes and the special tokens) to " + std::to_string(Vocabulary::max_tokens) +
                 ", found " + std::to_string(settings.vocab)};
  if (settings.min_count < 1) return Error{"min_count must be at least 1, found " + std::to_string(settings.min_count)};
  if (weights.size() > static_cast<std::size_t>(counts.column_count()) ||
      std::none_of(weights.begin(), weights.end(), [](std::int64_t w) { return w > 0; }) ||
      std::any_of(weights.begin(), weights.end(), [](std::int64_t w) { return w < 0 || w > max_bpe_weight; }))
    return Error{"expected at most " + std::to_string(counts.column_count()) + " weights from 0 to " +
                 std::to_string(max_bpe_weight) + ", one of them above 0"};
  std::size_t bytes = 1;
  for (std::size_t i = 0; i < counts.size(); ++i) bytes += counts.piece(i).size() + 1;
  if (bytes > max_bpe_bytes)
    return Error{"expected at most " + std::to_string(max_bpe_bytes) + " bytes of different pieces, found " +
                 std::to_string(bytes) + ": train on less text"};
  return BpeTraining(counts, weights, settings).run(watch);
}

CHIMERA_FUNCTION Vocabulary bpe_vocabulary(const BpeMerges& learned, PreTokenizer rules, const BpeSettings& settings) {
  Vocabulary v;
  v.pretokenizer = rules;
  v.merges = learned.merges;
  for (int b = 0; b < 256; ++b) v.tokens.push_back({std::string(1, static_cast<char>(b)), TokenType::normal});
  for (const auto& [left, right] : v.merges) {
    const std::string &l = v.tokens[static_cast<std::size_t>(left)].bytes,
                      &r = v.tokens[static_cast<std::size_t>(right)].bytes;
    v.tokens.push_back({l + r, TokenType::normal});
  }
  for (const std::string& special : settings.specials) {
    const std::int32_t id = static_cast<std::int32_t>(v.tokens.size());
    if (special == "<|endoftext|>") v.bos = v.eos = v.padding = id;
    if (special == "<|im_end|>") v.eot = id;
    v.tokens.push_back({special, TokenType::control});
  }
  return v;
}

CHIMERA_FUNCTION std::vector<std::int64_t> bpe_weights(const PieceCounts& counts, std::span<const double> shares) {
  std::vector<double> scale(shares.size());
  double all = 0, sum = 0;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const double pieces = static_cast<double>(counts.total(static_cast<int>(i)));
    all += pieces, sum += shares[i];
    scale[i] = pieces > 0 ? shares[i] / pieces : 0;
  }
  if (sum <= 0) return std::vector<std::int64_t>(shares.size());
  std::vector<std::int64_t> weights;
  weights.reserve(scale.size());
  for (const double s : scale)
    weights.push_back(static_cast<std::int64_t>(
        std::clamp((std::round)(1024 * s * all / sum), s > 0 ? 1.0 : 0.0, static_cast<double>(max_bpe_weight))));
  return weights;
}

CHIMERA_FUNCTION BpeTraining::BpeTraining(const PieceCounts& counts, std::span<const std::int64_t> weights,
                                          const BpeSettings& settings)
    : counts_(counts),
      clusters_(settings.whole_clusters),
      favour_short_(settings.favour_short),
      most_tokens_(static_cast<std::size_t>(settings.vocab) - settings.specials.size()) {
  for (const std::int64_t w : weights)
    if (w > 0) least_count_ = std::min(least_count_, w * settings.min_count);
  lay_out(weights);
  if (settings.devanagari) add_devanagari();
  count_bytes();
}

CHIMERA_FUNCTION Result<BpeMerges> BpeTraining::run(const BpeWatch& watch) {
  left_.assign(most_tokens_, none), right_.assign(most_tokens_, none);
  while (tokens_.size() < most_tokens_ && (seeded_ < seeds_.size() || !queue_.empty())) {
    if (merges_.size() % 1024 == 0 && watch.go_on &&
        !watch.go_on(watch.self, static_cast<std::int64_t>(merges_.size())))
      return Error{"the training was stopped after " + std::to_string(merges_.size()) + " merges"};
    if (seeded_ < seeds_.size()) {
      const Seed seed = seeds_[seeded_++];
      const bool occurs = !queue_.empty() && queue_.front().key == key(seed.left, seed.right);
      merge(seed.left, seed.right, occurs ? pop() : none);
    } else if (const std::uint32_t pair = pop(); pair != none) {
      merge(pairs_[pair].left, pairs_[pair].right, pair);
    }
  }
  return BpeMerges{std::move(merges_), count_tokens()};
}

CHIMERA_FUNCTION void BpeTraining::lay_out(std::span<const std::int64_t> weights) {
  std::size_t bytes = 1;
  for (std::size_t i = 0; i < counts_.size(); ++i) bytes += counts_.piece(i).size() + 1;
  token_at_.assign(bytes, none), pair_at_.assign(bytes, none), piece_at_.assign(bytes, none);
  weights_.resize(counts_.size());
  std::size_t at = 1;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    for (int c = 0; c < static_cast<int>(weights.size()); ++c)
      weights_[i] += counts_.count(i, c) * weights[static_cast<std::size_t>(c)];
    for (const char byte : counts_.piece(i)) {
      token_at_[at] = static_cast<unsigned char>(byte);
      piece_at_[at++] = static_cast<std::uint32_t>(i);
    }
    ++at;
  }
  for (int b = 0; b < 256; ++b) {
    Token t;
    t.head[0] = static_cast<char>(b);
    t.missing = b >= 0xF0 && b < 0xF5 ? 3 : b >= 0xE0 && b < 0xF0 ? 2 : b >= 0xC2 && b < 0xE0 ? 1 : 0;
    t.whole = b < 0x80;
    tokens_.push_back(t);
  }
}

CHIMERA_FUNCTION void BpeTraining::add_devanagari() {
  std::int64_t bytes = 0, devanagari = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    const std::string_view piece = counts_.piece(i);
    bytes += weights_[i] * static_cast<std::int64_t>(piece.size());
    for (std::size_t at = 0; at + 2 < piece.size(); ++at)
      if (piece[at] == '\xE0' && (piece[at + 1] == '\xA4' || piece[at + 1] == '\xA5')) devanagari += 3 * weights_[i];
  }
  if (devanagari * 100 < bytes || most_tokens_ < 8192) return;
  const auto id = [](std::uint32_t code) { return 258 + code - 0x900; };
  seeds_.push_back({0xE0, 0xA4});
  seeds_.push_back({0xE0, 0xA5});
  for (std::uint32_t code = 0x900; code < 0x980; ++code)
    seeds_.push_back({code < 0x940 ? 256u : 257u, 0x80 + code % 64});
  for (std::uint32_t consonant = 0x915; consonant <= 0x939; ++consonant)
    if (consonant != 0x919 && consonant != 0x91E && consonant != 0x929 && consonant != 0x931 && consonant != 0x933 &&
        consonant != 0x934)
      for (const std::uint32_t sign :
           {0x93Eu, 0x93Fu, 0x940u, 0x941u, 0x942u, 0x943u, 0x947u, 0x948u, 0x949u, 0x94Bu, 0x94Cu, 0x94Du})
        seeds_.push_back({id(consonant), id(sign)});
}

CHIMERA_FUNCTION void BpeTraining::count_bytes() {
  std::vector<std::uint32_t> pair_of(65536, none);
  for (std::uint32_t at = 1; at + 1 < token_at_.size(); ++at) {
    const std::uint32_t left = token_at_[at], right = token_at_[at + 1];
    if (left != none && right != none) add(pair_of[left << 8 | right], left, right, at);
  }
  file_new_pairs(0);
}

CHIMERA_FUNCTION void BpeTraining::add(std::uint32_t& pair, std::uint32_t left, std::uint32_t right, std::uint32_t at) {
  if (pair == none) {
    pair = static_cast<std::uint32_t>(pairs_.size());
    pairs_.push_back({left, right, 0, 0, 0});
  }
  pairs_[pair].count += weights_[piece_at_[at]];
  ++pairs_[pair].places;
  pair_at_[at] = pair;
  new_places_.push_back({pair, at});
}

CHIMERA_FUNCTION void BpeTraining::remove(std::uint32_t at) {
  if (pair_at_[at] == none) return;
  pairs_[pair_at_[at]].count -= weights_[piece_at_[at]];
  pair_at_[at] = none;
}

CHIMERA_FUNCTION void BpeTraining::file_new_pairs(std::size_t first) {
  std::uint32_t end = static_cast<std::uint32_t>(places_.size());
  for (std::size_t p = first; p < pairs_.size(); ++p) {
    pairs_[p].first = end;
    end += std::exchange(pairs_[p].places, 0);
  }
  places_.resize(end);
  for (const Place& place : new_places_) {
    Pair& p = pairs_[place.pair];
    places_[p.first + p.places++] = place.at;
  }
  new_places_.clear();
  for (std::size_t p = first; p < pairs_.size(); ++p) {
    const double s = score(pairs_[p]);
    if (s <= 0) continue;
    queue_.push_back({s, key(pairs_[p].left, pairs_[p].right), static_cast<std::uint32_t>(p)});
    std::push_heap(queue_.begin(), queue_.end());
  }
}

CHIMERA_FUNCTION double BpeTraining::score(const Pair& p) const {
  for (std::size_t i = seeded_; i < seeds_.size(); ++i)
    if (seeds_[i].left == p.left && seeds_[i].right == p.right)
      return seed_score * static_cast<double>(seeds_.size() - i);
  if (p.count < least_count_) return 0;
  double score = static_cast<double>(p.count);
  if (favour_short_) score /= std::sqrt(static_cast<double>(tokens_[p.left].bytes + tokens_[p.right].bytes));
  if (!clusters_) return score;
  const std::optional<Token> joined = join(tokens_[p.left], tokens_[p.right]);
  if (!joined) return 0;
  return joined->linked ? score / 2 : score;
}

CHIMERA_FUNCTION std::optional<BpeTraining::Token> BpeTraining::join(const Token& a, const Token& b) {
  Token joined = a;
  joined.bytes = a.bytes + b.bytes;
  joined.linked = b.linked;
  if (a.whole && b.whole) return a.dependent ? std::nullopt : std::optional(joined);
  if (a.missing == 0 || b.bytes != 1 || (b.head[0] & 0xC0) != 0x80) return std::nullopt;
  joined.head[a.bytes] = b.head[0];
  joined.missing = static_cast<std::uint8_t>(a.missing - 1);
  if (joined.missing > 0) return joined;
  const std::string_view character(joined.head.data(), joined.bytes);
  if (utf8_size(character) != joined.bytes) return std::nullopt;
  const GraphemeClass g = grapheme_class(first_code_point(character).value);
  joined.whole = true;
  joined.dependent = continues_cluster(g);
  joined.linked = g == GraphemeClass::linker || g == GraphemeClass::zwj;
  return joined;
}

CHIMERA_FUNCTION std::uint32_t BpeTraining::pop() {
  Entry entry = queue_.front();
  std::pop_heap(queue_.begin(), queue_.end());
  queue_.pop_back();
  const double now = score(pairs_[entry.pair]);
  if (now == entry.score || entry.score >= seed_score) return entry.pair;
  if (now <= 0) return none;
  entry.score = now;
  queue_.push_back(entry);
  std::push_heap(queue_.begin(), queue_.end());
  return none;
}

CHIMERA_FUNCTION void BpeTraining::merge(std::uint32_t left, std::uint32_t right, std::uint32_t pair) {
  const std::uint32_t made = static_cast<std::uint32_t>(tokens_.size());
  merges_.emplace_back(static_cast<std::int32_t>(left), static_cast<std::int32_t>(right));
  Token joined;
  joined.bytes = tokens_[left].bytes + tokens_[right].bytes;
  if (clusters_) joined = *join(tokens_[left], tokens_[right]);
  tokens_.push_back(joined);
  if (pair == none) return;

  const std::size_t first_new = pairs_.size();
  for (std::uint32_t i = 0; i < pairs_[pair].places; ++i) {
    const std::uint32_t at = places_[pairs_[pair].first + i];
    if (pair_at_[at] != pair) continue;
    const std::uint32_t middle = at + tokens_[left].bytes, end = at + joined.bytes;
    const std::uint32_t before = token_at_[at - 1], behind = token_at_[end];
    remove(at);
    remove(middle);
    token_at_[at] = token_at_[end - 1] = made;
    if (before != none) {
      const std::uint32_t start = at - tokens_[before].bytes;
      remove(start);
      add(left_[before], before, made, start);
    }
    if (behind != none) add(right_[behind], made, behind, at);
  }
  for (std::size_t p = first_new; p < pairs_.size(); ++p) left_[pairs_[p].left] = right_[pairs_[p].right] = none;
  file_new_pairs(first_new);
}

CHIMERA_FUNCTION std::vector<std::int64_t> BpeTraining::count_tokens() const {
  std::vector<std::int64_t> sums(static_cast<std::size_t>(counts_.column_count()));
  std::size_t at = 1;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    std::int64_t tokens = 0;
    for (; token_at_[at] != none; at += tokens_[token_at_[at]].bytes) ++tokens;
    for (int c = 0; c < counts_.column_count(); ++c) sums[static_cast<std::size_t>(c)] += tokens * counts_.count(i, c);
    ++at;
  }
  return sums;
}

}  // namespace chimera
#endif
