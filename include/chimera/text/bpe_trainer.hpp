// Learning byte-pair encoding from texts: count the pieces of each language, then join the pair of tokens that occurs
// most often, again and again (Gage 1994, Sennrich et al. 2016). Pieces are counted once; a mix of the languages is a
// weight for each, so trying many mixes, as the search for equal cost does, costs only the joining.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/result.hpp>
#include <chimera/text/bytes.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/tokenizer.hpp>
#include <chimera/text/unicode.hpp>

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

/// A text whose pieces are counted in that column: a language, or one side of aligned sentences.
struct CountedText {
  std::string_view text;
  int column = 0;
};

/// The different pieces that pre-tokenization cuts from texts, and how often each occurs in each column. Pieces are views
/// of the texts, which must outlive this; they are in no particular order.
class PieceCounts {
 public:
  static PieceCounts count(const Cpu& q, PreTokenizer rules, std::span<const CountedText> texts, int columns);

  PreTokenizer rules() const { return rules_; }
  int columns() const { return columns_; }
  std::size_t size() const { return pieces_.size(); }
  std::string_view piece(std::size_t i) const { return pieces_[i]; }
  std::int64_t count(std::size_t i, int column) const {
    return counts_[i * width() + static_cast<std::size_t>(column)];
  }
  /// Pieces of a column, each as often as it occurs.
  std::int64_t total(int column) const {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < size(); ++i) sum += count(i, column);
    return sum;
  }

 private:
  PieceCounts(PreTokenizer rules, int columns) : rules_(rules), columns_(columns), slots_(1024) {}

  std::size_t width() const { return static_cast<std::size_t>(columns_); }

  /// The counters of a piece, one for each column.
  std::int64_t* find(std::string_view piece, std::uint64_t hash) {
    const std::size_t last = slots_.size() - 1;
    std::size_t at = hash & last;
    for (; slots_[at].index != 0; at = (at + 1) & last)
      if (slots_[at].check == hash >> 32 && pieces_[slots_[at].index - 1] == piece)
        return &counts_[(slots_[at].index - 1) * width()];
    pieces_.push_back(piece);
    counts_.resize(counts_.size() + width());
    slots_[at] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::uint32_t>(pieces_.size())};
    if (pieces_.size() * 2 > slots_.size()) grow();
    return &counts_[counts_.size() - width()];
  }
  void grow() {
    slots_.assign(slots_.size() * 4, {});
    const std::size_t last = slots_.size() - 1;
    for (std::size_t i = 0; i < size(); ++i) {
      const std::uint64_t hash = hash_bytes(pieces_[i]);
      std::size_t at = hash & last;
      while (slots_[at].index != 0) at = (at + 1) & last;
      slots_[at] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::uint32_t>(i + 1)};
    }
  }

  /// Cuts where every set of rules does: before a letter at the start of a line.
  static std::vector<CountedText> chunks(std::span<const CountedText> texts) {
    constexpr std::size_t usual = std::size_t{1} << 18;
    std::vector<CountedText> chunks;
    for (CountedText t : texts) {
      while (t.text.size() > usual) {
        std::size_t cut = t.text.find('\n', usual);
        while (cut < t.text.size() && !letter_at(t.text, cut + 1)) cut = t.text.find('\n', cut + 1);
        cut = std::min(cut, t.text.size() - 1) + 1;
        chunks.push_back({t.text.substr(0, cut), t.column});
        t.text.remove_prefix(cut);
      }
      if (!t.text.empty()) chunks.push_back(t);
    }
    return chunks;
  }
  static bool letter_at(std::string_view text, std::size_t at) {
    if (at >= text.size()) return false;
    const CharClass c = char_class(first_code_point(text.substr(at)).value);
    return c == CharClass::upper || c == CharClass::lower || c == CharClass::letter;
  }

  struct Slot {
    std::uint32_t check = 0, index = 0;  // the upper half of the hash; 1 + the piece's index, 0: free
  };

  PreTokenizer rules_;
  int columns_;
  std::vector<Slot> slots_;
  std::vector<std::string_view> pieces_;
  std::vector<std::int64_t> counts_;  // [pieces, columns]
};

inline PieceCounts PieceCounts::count(const Cpu& q, PreTokenizer rules, std::span<const CountedText> texts,
                                      int columns) {
  const std::vector<CountedText> parts = chunks(texts);
  std::vector<PieceCounts> tables(static_cast<std::size_t>(q.threads()), PieceCounts(rules, columns));
  parallel(q, static_cast<std::int64_t>(parts.size()), [&](std::int64_t i, int worker) {
    PieceCounts& table = tables[static_cast<std::size_t>(worker)];
    const CountedText& part = parts[static_cast<std::size_t>(i)];
    split(rules, part.text, [&](std::string_view piece) { ++table.find(piece, hash_bytes(piece))[part.column]; });
  });
  for (std::size_t t = 1; t < tables.size(); ++t)
    for (std::size_t i = 0; i < tables[t].size(); ++i) {
      std::int64_t* sums = tables[0].find(tables[t].piece(i), hash_bytes(tables[t].piece(i)));
      for (int c = 0; c < columns; ++c) sums[c] += tables[t].count(i, c);
    }
  return std::move(tables[0]);
}

/// Whether a character of that class, at the start of a token, leaves the cluster before it cut.
constexpr bool continues_cluster(GraphemeClass g) {
  using enum GraphemeClass;
  return g == extend || g == zwnj || g == linker || g == zwj || g == spacing || g == v || g == t;
}

/// Bounds of `train_bpe`: places are 32-bit numbers, and weighted counts stay below 2^61.
inline constexpr std::size_t max_bpe_bytes = 0xFFFFFFF0;
inline constexpr std::int64_t max_bpe_weight = std::int64_t{1} << 24;

struct BpeSettings {
  std::int64_t vocab =
      32768;  // with the 256 bytes and the special tokens, which come last; less if the texts end first
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
  BpeTraining(const PieceCounts& counts, std::span<const std::int64_t> weights, const BpeSettings& settings)
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

  Result<BpeMerges> run(const BpeWatch& watch) {
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

  void lay_out(std::span<const std::int64_t> weights) {
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

  /// U+0900 to U+097F take the ids 258 to 385.
  void add_devanagari() {
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

  void count_bytes() {
    std::vector<std::uint32_t> pair_of(65536, none);
    for (std::uint32_t at = 1; at + 1 < token_at_.size(); ++at) {
      const std::uint32_t left = token_at_[at], right = token_at_[at + 1];
      if (left != none && right != none) add(pair_of[left << 8 | right], left, right, at);
    }
    file_new_pairs(0);
  }

  /// The pair stands at that place from now on. `pair`: where its number is kept while it is new.
  void add(std::uint32_t& pair, std::uint32_t left, std::uint32_t right, std::uint32_t at) {
    if (pair == none) {
      pair = static_cast<std::uint32_t>(pairs_.size());
      pairs_.push_back({left, right, 0, 0, 0});
    }
    pairs_[pair].count += weights_[piece_at_[at]];
    ++pairs_[pair].places;
    pair_at_[at] = pair;
    new_places_.push_back({pair, at});
  }
  void remove(std::uint32_t at) {
    if (pair_at_[at] == none) return;
    pairs_[pair_at_[at]].count -= weights_[piece_at_[at]];
    pair_at_[at] = none;
  }

  /// Sorts the places of the pairs that have just been born by pair, and puts the pairs into the queue.
  void file_new_pairs(std::size_t first) {
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

  double score(const Pair& p) const {
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

  /// The token that the two make, if it may exist.
  static std::optional<Token> join(const Token& a, const Token& b) {
    Token joined = a;
    joined.bytes = a.bytes + b.bytes;
    joined.linked = b.linked;
    if (a.whole && b.whole) return a.dependent ? std::nullopt : std::optional(joined);
    if (a.missing == 0 || b.bytes != 1 || (b.head[0] & 0xC0) != 0x80) return std::nullopt;
    joined.head[a.bytes] = b.head[0];
    joined.missing = static_cast<std::uint8_t>(a.missing - 1);
    if (joined.missing > 0) return joined;
    const std::string_view character(joined.head.data(), joined.bytes);
    if (utf8_length(character) != joined.bytes) return std::nullopt;
    const GraphemeClass g = grapheme_class(first_code_point(character).value);
    joined.whole = true;
    joined.dependent = continues_cluster(g);
    joined.linked = g == GraphemeClass::linker || g == GraphemeClass::zwj;
    return joined;
  }

  /// Takes the best pair out of the queue. None if its score has fallen since it was put there: then it stands where it
  /// belongs by now, or has left.
  std::uint32_t pop() {
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

  void merge(std::uint32_t left, std::uint32_t right, std::uint32_t pair) {
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

  std::vector<std::int64_t> count_tokens() const {
    std::vector<std::int64_t> sums(static_cast<std::size_t>(counts_.columns()));
    std::size_t at = 1;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      std::int64_t tokens = 0;
      for (; token_at_[at] != none; at += tokens_[token_at_[at]].bytes) ++tokens;
      for (int c = 0; c < counts_.columns(); ++c) sums[static_cast<std::size_t>(c)] += tokens * counts_.count(i, c);
      ++at;
    }
    return sums;
  }

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

/// Learns merges. `weights`: of the first columns of `counts`, one or more, all above -1 and one above 0; columns behind
/// those are only measured. The result depends on nothing but counts, weights and settings.
inline Result<BpeMerges> train_bpe(const PieceCounts& counts, std::span<const std::int64_t> weights,
                                   const BpeSettings& settings, const BpeWatch& watch = {}) {
  const std::int64_t least = 256 + static_cast<std::int64_t>(settings.specials.size());
  if (settings.vocab < least || settings.vocab > static_cast<std::int64_t>(Vocabulary::max_tokens))
    return Error{"the vocabulary must have " + std::to_string(least) +
                 " tokens (256 bytes and the special tokens) to " + std::to_string(Vocabulary::max_tokens) +
                 ", found " + std::to_string(settings.vocab)};
  if (settings.min_count < 1) return Error{"min_count must be at least 1, found " + std::to_string(settings.min_count)};
  if (weights.size() > static_cast<std::size_t>(counts.columns()) ||
      std::none_of(weights.begin(), weights.end(), [](std::int64_t w) { return w > 0; }) ||
      std::any_of(weights.begin(), weights.end(), [](std::int64_t w) { return w < 0 || w > max_bpe_weight; }))
    return Error{"expected at most " + std::to_string(counts.columns()) + " weights from 0 to " +
                 std::to_string(max_bpe_weight) + ", one of them above 0"};
  std::size_t bytes = 1;
  for (std::size_t i = 0; i < counts.size(); ++i) bytes += counts.piece(i).size() + 1;
  if (bytes > max_bpe_bytes)
    return Error{"expected at most " + std::to_string(max_bpe_bytes) + " bytes of different pieces, found " +
                 std::to_string(bytes) + ": train on less text"};
  return BpeTraining(counts, weights, settings).run(watch);
}

/// The vocabulary of those merges: bytes, merges, special tokens.
inline Vocabulary bpe_vocabulary(const BpeMerges& learned, PreTokenizer rules, const BpeSettings& settings) {
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

/// Weights that give each language its share of the pieces: `shares` are of the first columns. Languages keep the
/// resolution of 1/1024 of a piece.
inline std::vector<std::int64_t> bpe_weights(const PieceCounts& counts, std::span<const double> shares) {
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
        std::clamp(std::round(1024 * s * all / sum), s > 0 ? 1.0 : 0.0, static_cast<double>(max_bpe_weight))));
  return weights;
}

/// What the search for equal cost changes and looks at, all of them columns of the counts.
struct ParityGoal {
  int language = 0;                            // whose share is sought; the others share the rest as they did
  int text = 0, reference = 0;                 // aligned sentences in that language, and in the one it is held against
  double parity = 1.19;                        // tokens(text) / tokens(reference), at most
  double tolerance = 0.003;                    // how far below that is near enough
  double least_share = 0.2, most_share = 0.9;  // of the language
};

/// A mix of the languages, and what came of it.
struct BpeMix {
  std::vector<double> shares;
  BpeMerges learned;
  double parity = 0;

  bool reaches(const ParityGoal& goal) const { return parity <= goal.parity; }
};

/// Searches the least share of a language that brings parity: two mixes at a time, side by side on the device, first at
/// the ends, then about where a straight line between the nearest two crosses the goal. If no share does, the mix is that
/// of the largest. `shares`: of the first columns, where the search starts from.
inline Result<BpeMix> train_bpe_to_parity(const Cpu& q, const PieceCounts& counts, std::span<const double> shares,
                                          const ParityGoal& goal, const BpeSettings& settings,
                                          const BpeWatch& watch = {}) {
  double others = 0;
  for (std::size_t i = 0; i < shares.size(); ++i)
    others += i == static_cast<std::size_t>(goal.language) ? 0 : shares[i];
  if (others <= 0) return Error{"the search for parity needs texts of two languages to learn from, found one"};
  if (counts.total(goal.text) == 0 || counts.total(goal.reference) == 0)
    return Error{"the search for parity needs aligned sentences, found none"};
  const auto mix = [&](double share) -> Result<BpeMix> {
    BpeMix m{{shares.begin(), shares.end()}, {}, 0};
    for (std::size_t i = 0; i < shares.size(); ++i)
      m.shares[i] = i == static_cast<std::size_t>(goal.language) ? share : shares[i] / others * (1 - share);
    auto learned = train_bpe(counts, bpe_weights(counts, m.shares), settings, watch);
    if (!learned) return learned.error();
    m.learned = std::move(*learned);
    m.parity = static_cast<double>(m.learned.tokens[static_cast<std::size_t>(goal.text)]) /
               static_cast<double>(m.learned.tokens[static_cast<std::size_t>(goal.reference)]);
    return m;
  };
  const auto both = [&](double a, double b) {
    std::array<Result<BpeMix>, 2> mixes{Error{}, Error{}};
    parallel(q, 2, [&](std::int64_t i, int) { mixes[static_cast<std::size_t>(i)] = mix(i == 0 ? a : b); });
    return mixes;
  };
  const auto share_of = [&](const BpeMix& m) { return m.shares[static_cast<std::size_t>(goal.language)]; };

  auto [low, high] = both(goal.least_share, goal.most_share);
  if (!low || low->reaches(goal)) return low;
  for (int round = 0; round < 6; ++round) {
    if (!high || !high->reaches(goal) || high->parity >= goal.parity - goal.tolerance) break;
    const double a = share_of(*low), b = share_of(*high);
    const double middle = (low->parity - goal.parity + goal.tolerance / 2) / (low->parity - high->parity), room = 0.1;
    const double near = std::clamp(middle, room, 1 - room);
    auto [left, right] = both(a + (b - a) * (near - room / 2), a + (b - a) * (near + room / 2));
    for (auto* m : {&left, &right}) {
      if (!*m) return *m;
      Result<BpeMix>& end = (*m)->reaches(goal) ? high : low;
      const bool nearer = (*m)->reaches(goal) ? share_of(**m) < share_of(*end) : share_of(**m) > share_of(*end);
      if (nearer) end = std::move(*m);
    }
  }
  return high;
}

/// What tokens make of a text.
struct TokenStatistics {
  std::int64_t bytes = 0, pieces = 0, tokens = 0;
  std::int64_t words = 0, word_tokens = 0, whole_words = 0;  // pieces with a letter; those that are one token
  std::int64_t inside_clusters = 0;                          // tokens that end inside a grapheme cluster

  double bytes_per_token() const { return static_cast<double>(bytes) / static_cast<double>(tokens); }
  /// Fertility.
  double tokens_per_word() const { return static_cast<double>(word_tokens) / static_cast<double>(words); }
};

/// Statistics of each column. `used`, if given: has an entry for each id, which becomes true if the token occurs.
inline std::vector<TokenStatistics> measure_tokens(const Cpu& q, const Tokenizer& tokenizer, const PieceCounts& counts,
                                                   std::vector<bool>* used = nullptr) {
  constexpr std::size_t block = 4096;
  struct Part {
    std::vector<TokenStatistics> columns;
    std::vector<bool> used;
    std::vector<std::int32_t> ids;
    Encoder encoder;
  };
  std::vector<Part> parts;
  parts.reserve(static_cast<std::size_t>(q.threads()));
  for (int worker = 0; worker < q.threads(); ++worker)
    parts.push_back({std::vector<TokenStatistics>(static_cast<std::size_t>(counts.columns())),
                     std::vector<bool>(static_cast<std::size_t>(tokenizer.size())),
                     {},
                     Encoder(tokenizer, 2)});
  parallel(q, static_cast<std::int64_t>((counts.size() + block - 1) / block), [&](std::int64_t index, int worker) {
    Part& part = parts[static_cast<std::size_t>(worker)];
    const std::size_t first = static_cast<std::size_t>(index) * block;
    for (std::size_t i = first; i < std::min(first + block, counts.size()); ++i) {
      const std::string_view piece = counts.piece(i);
      part.ids.clear();
      part.encoder.encode(piece, Special::as_text, part.ids);
      bool word = false;
      for (std::size_t at = 0; at < piece.size();) {
        const CodePoint c = first_code_point(piece.substr(at));
        const CharClass kind = char_class(c.value);
        word = word || (kind >= CharClass::upper && kind <= CharClass::letter);
        at += c.bytes;
      }
      std::int64_t inside = 0;
      std::size_t end = 0, cluster = 0;  // of the token, of the cluster that it ends in
      for (const std::int32_t id : part.ids) {
        part.used[static_cast<std::size_t>(id)] = true;
        end += tokenizer.bytes(id).size();
        while (cluster < end) cluster = next_grapheme(piece, cluster);
        inside += cluster > end;
      }
      const bool continued = continues_cluster(grapheme_class(first_code_point(piece).value));  // of the piece before
      const std::int64_t tokens = static_cast<std::int64_t>(part.ids.size());
      for (int column = 0; column < counts.columns(); ++column) {
        const std::int64_t n = counts.count(i, column);
        TokenStatistics& s = part.columns[static_cast<std::size_t>(column)];
        s.bytes += n * static_cast<std::int64_t>(piece.size());
        s.pieces += n;
        s.tokens += n * tokens;
        s.words += word ? n : 0;
        s.word_tokens += word ? n * tokens : 0;
        s.whole_words += word && tokens == 1 ? n : 0;
        s.inside_clusters += n * (inside + continued);
      }
    }
  });
  for (std::size_t p = 1; p < parts.size(); ++p)
    for (std::size_t c = 0; c < parts[0].columns.size(); ++c) {
      TokenStatistics &sum = parts[0].columns[c], &s = parts[p].columns[c];
      sum.bytes += s.bytes, sum.pieces += s.pieces, sum.tokens += s.tokens, sum.words += s.words;
      sum.word_tokens += s.word_tokens, sum.whole_words += s.whole_words, sum.inside_clusters += s.inside_clusters;
    }
  if (used)
    for (const Part& p : parts)
      for (std::size_t id = 0; id < p.used.size(); ++id) (*used)[id] = (*used)[id] || p.used[id];
  return parts[0].columns;
}

}  // namespace chimera
