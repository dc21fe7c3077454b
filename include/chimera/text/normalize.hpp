// Unicode's normalization form C (UAX #15): what can be written in several ways is written in one, letters joined with
// their marks. Of Unicode 9.0, as the normalizer of tokenizers 0.23; characters that came later stay as they are.
#pragma once

#include <chimera/core/namespace.hpp>

#include <string>
#include <string_view>

namespace chimera {

/// The text in form C: `text` itself where nothing in it can change, else what is put into `buffer`. Bytes that are no
/// UTF-8 stay.
std::string_view to_nfc(std::string_view text, std::string& buffer);

}  // namespace chimera

#if CHIMERA_BODIES
#include <chimera/core/utf8.hpp>
#include <chimera/text/normalization_tables.hpp>
#include <chimera/text/unicode.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace chimera {

namespace normalize_parts {

struct Letter {
  std::uint32_t code;
  std::uint8_t combining;  // its class; 0: a starter, behind which marks are in order
};

/// Syllables of Hangul are arithmetic: L, V and perhaps T.
struct Hangul {
  static constexpr std::uint32_t s = 0xAC00, l = 0x1100, v = 0x1161, t = 0x11A7;
  static constexpr std::uint32_t ls = 19, vs = 21, ts = 28, syllables = ls * vs * ts;
};

constexpr bool is_unstable(std::uint32_t c) {
  const std::size_t block = c / 256;
  if (block >= unstable_index.size()) return false;
  return (unstable_blocks[unstable_index[block] * std::size_t{8} + c % 256 / 32] >> c % 32) & 1;
}

inline std::uint8_t combining_class(std::uint32_t c) {
  const auto found = std::lower_bound(combining_classes.begin(), combining_classes.end(), c << 8);
  return found != combining_classes.end() && *found >> 8 == c ? static_cast<std::uint8_t>(*found & 255) : 0;
}

/// A code point and its one or two parts.
inline const std::uint32_t* row(std::size_t i) { return canonical_parts.data() + 3 * i; }

/// The row of that code point; null if it has no parts.
inline const std::uint32_t* parts_of(std::uint32_t c) {
  std::size_t low = 0, high = canonical_parts.size() / 3;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (row(middle)[0] < c)
      low = middle + 1;
    else
      high = middle;
  }
  return low < canonical_parts.size() / 3 && row(low)[0] == c ? row(low) : nullptr;
}

inline void decompose(std::uint32_t c, std::vector<Letter>& out) {
  if (c - Hangul::s < Hangul::syllables) {
    const std::uint32_t i = c - Hangul::s, last = i % Hangul::ts;
    out.push_back({Hangul::l + i / (Hangul::vs * Hangul::ts), 0});
    out.push_back({Hangul::v + i / Hangul::ts % Hangul::vs, 0});
    if (last > 0) out.push_back({Hangul::t + last, 0});
  } else if (const std::uint32_t* parts = parts_of(c)) {
    decompose(parts[1], out);
    if (parts[2] != 0) decompose(parts[2], out);
  } else {
    out.push_back({c, combining_class(c)});
  }
}

/// What two code points make together; 0 if nothing.
inline std::uint32_t composed(std::uint32_t a, std::uint32_t b) {
  if (a - Hangul::l < Hangul::ls && b - Hangul::v < Hangul::vs)
    return Hangul::s + ((a - Hangul::l) * Hangul::vs + (b - Hangul::v)) * Hangul::ts;
  if (a - Hangul::s < Hangul::syllables && (a - Hangul::s) % Hangul::ts == 0 && b - Hangul::t - 1 < Hangul::ts - 1)
    return a + (b - Hangul::t);
  const auto found = std::partition_point(canonical_pairs.begin(), canonical_pairs.end(), [&](std::uint16_t i) {
    return row(i)[1] < a || (row(i)[1] == a && row(i)[2] < b);
  });
  const bool same = found != canonical_pairs.end() && row(*found)[1] == a && row(*found)[2] == b;
  return same ? row(*found)[0] : 0;
}

/// Runs of marks in the order of their classes.
inline void sort_marks(std::vector<Letter>& letters) {
  const auto is_starter = [](const Letter& l) { return l.combining == 0; };
  for (auto at = letters.begin(); at != letters.end();) {
    const auto end = std::find_if(at, letters.end(), is_starter);
    std::stable_sort(at, end, [](const Letter& a, const Letter& b) { return a.combining < b.combining; });
    at = std::find_if_not(end, letters.end(), is_starter);
  }
}

/// Joins each starter with what behind it makes one with it and has nothing of its own class, or a starter, between.
inline void compose(std::vector<Letter>& letters) {
  std::size_t starter = letters.size(), kept = 0;
  for (const Letter& l : letters) {
    if (starter < kept) {
      const bool blocked = kept > starter + 1 && letters[kept - 1].combining >= l.combining;
      if (const std::uint32_t whole = blocked ? 0 : composed(letters[starter].code, l.code)) {
        letters[starter].code = whole;
        continue;
      }
    }
    if (l.combining == 0) starter = kept;
    letters[kept++] = l;
  }
  letters.resize(kept);
}

}  // namespace normalize_parts

CHIMERA_FUNCTION std::string_view to_nfc(std::string_view text, std::string& buffer) {
  using namespace normalize_parts;
  std::vector<Letter> letters;
  std::size_t done = 0;   // of the text, in the buffer
  std::size_t start = 0;  // of the last character that nothing behind it can change alone
  for (std::size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      start = at++;
      continue;
    }
    const CodePoint c = first_code_point(text.substr(at));
    if (!is_unstable(c.value)) {
      start = at, at += c.bytes;
      continue;
    }
    // From that character on to the next.
    letters.clear();
    const CodePoint first = first_code_point(text.substr(start));
    if (first.bytes == 1 && static_cast<unsigned char>(text[start]) >= 0x80) ++start;  // no character
    std::size_t end = start;
    while (end < text.size()) {
      const CodePoint next = first_code_point(text.substr(end));
      if (end > start && !is_unstable(next.value)) break;
      decompose(next.value, letters);
      end += next.bytes;
    }
    sort_marks(letters);
    compose(letters);
    if (done == 0) buffer.clear();
    buffer.append(text.substr(done, start - done));
    for (const Letter& l : letters) append_utf8(l.code, buffer);
    done = start = at = end;
  }
  if (done == 0) return text;
  buffer.append(text.substr(done));
  return buffer;
}

}  // namespace chimera
#endif
