"""Writes include/chimera/text/unicode_tables.hpp. Needs the Python package regex 2024.11.6, whose data is Unicode 16.0:

    pip install regex==2024.11.6 && python3 cmake/unicode_tables.py > include/chimera/text/unicode_tables.hpp

Unicode 16.0 is what the regex engines of tiktoken 0.14 and tokenizers 0.23 know.
"""

import regex

# In the order of CharClass and GraphemeClass in unicode.hpp; what matches none is the first of each, "other".
CHARS = [r"[\r\n]", r"[\s--\r\n]", r"\p{N}", r"\p{M}", r"\p{Lu}", r"\p{Ll}", r"\p{Lt}", r"\p{Lm}", r"\p{Lo}",
         r"\p{P}"]
GRAPHEMES = [r"[\p{GCB=Control}\r\n]", r"[\p{GCB=Extend}--\p{InCB=Linker}\u200c]", r"\u200c", r"\p{InCB=Linker}",
             r"\p{GCB=ZWJ}", r"\p{GCB=Regional_Indicator}", r"\p{GCB=Prepend}", r"\p{GCB=SpacingMark}", r"\p{GCB=L}",
             r"\p{GCB=V}", r"\p{GCB=T}", r"[\p{GCB=LV}\p{GCB=LVT}]", r"\p{Extended_Pictographic}", r"\p{InCB=Consonant}"]
BLOCK = 128

assert regex.__version__ == "2.5.148", "another version of regex holds another version of Unicode"
everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)


def classes_of(patterns):
    """The class of each code point: 1 for the first pattern."""
    classes = [0] * 0x110000
    for value, pattern in enumerate(patterns, 1):
        for char in regex.findall(pattern, everything, regex.V1):
            assert classes[ord(char)] == 0, "no code point may be in two classes"
            classes[ord(char)] = value
    return classes


def array(type, values):
    lines = [f"std::array<{type}, {len(values)}>{{"]
    line = "       "
    for value in values:
        if len(line) + len(str(value)) > 117:
            lines.append(line)
            line = "       "
        line += f" {value},"
    return "\n".join(lines + [line[:-1] + "}"])


def table(name, classes):
    """The blocks that differ, two classes a byte, and which of them each block of code points is."""
    while len(classes) > BLOCK and classes[-BLOCK:] == classes[-2 * BLOCK:-BLOCK]:
        del classes[-BLOCK:]  # the last block stands for all that follow
    index, blocks = [], {}
    for start in range(0, len(classes), BLOCK):
        index.append(blocks.setdefault(tuple(classes[start:start + BLOCK]), len(blocks)))
    assert len(blocks) <= 256
    # Between the last letters and the selectors of plane 14 nothing is assigned.
    selectors = 0xE0000 // BLOCK
    gap = max(i for i in range(selectors) if index[i] != index[selectors - 1]) + 1
    assert len(set(index[gap:selectors])) == 1
    del index[gap + 1:selectors]
    flat = [c for block in blocks for c in block]
    pairs = [low | high << 4 for low, high in zip(flat[::2], flat[1::2])]
    return f"""inline constexpr UnicodeTable {name}{{
    {gap + 1},
    {selectors - gap - 1},
    {array("std::uint8_t", index)},
    {array("std::uint8_t", pairs)}}};"""


print(f"""// Classes of all code points in Unicode 16.0. Made by cmake/unicode_tables.py; do not edit.
#pragma once

#include <chimera/core/version.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera {{

/// A class of 4 bits for each code point, in blocks of {BLOCK} code points.
template <std::size_t entries, std::size_t bytes>
struct UnicodeTable {{
  std::uint32_t gap, gap_blocks;             // of the blocks those from `gap` on, so many, are as the one before them
  std::array<std::uint8_t, entries> blocks;  // without that gap: where their classes are; the last: of all behind, too
  std::array<std::uint8_t, bytes> classes;   // two a byte, the first in the lower bits

  constexpr unsigned operator[](std::uint32_t c) const {{
    std::size_t block = c / {BLOCK};
    if (block >= gap) block = (block > gap + gap_blocks - 1 ? block : gap + gap_blocks - 1) - gap_blocks;
    const std::size_t at = blocks[block < entries ? block : entries - 1] * std::size_t{{{BLOCK}}} + c % {BLOCK};
    return static_cast<unsigned>(classes[at / 2]) >> at % 2 * 4 & 15;
  }}
}};
template <std::size_t entries, std::size_t bytes>
UnicodeTable(int, int, std::array<std::uint8_t, entries>, std::array<std::uint8_t, bytes>)
    -> UnicodeTable<entries, bytes>;

// clang-format off
/// CharClass.
{table("char_classes", classes_of(CHARS))}

/// GraphemeClass.
{table("grapheme_classes", classes_of(GRAPHEMES))}
// clang-format on

}}  // namespace chimera""")
