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
classes = [0] * 0x110000
for shift, patterns in ((0, CHARS), (4, GRAPHEMES)):
    for value, pattern in enumerate(patterns, 1):
        for char in regex.findall(pattern, everything, regex.V1):
            assert classes[ord(char)] >> shift == 0, "no code point may be in two classes"
            classes[ord(char)] |= value << shift

while len(classes) > BLOCK and classes[-BLOCK:] == classes[-2 * BLOCK:-BLOCK]:
    del classes[-BLOCK:]  # the last block stands for all that follow
index, blocks = [], {}
for start in range(0, len(classes), BLOCK):
    index.append(blocks.setdefault(tuple(classes[start:start + BLOCK]), len(blocks)))
assert index[0] == 0
# Between the last letters and the selectors of plane 14 nothing is assigned.
selectors = 0xE0000 // BLOCK
gap = max(i for i in range(selectors) if index[i] != index[selectors - 1]) + 1
gap_blocks = selectors - gap - 1  # one of them stays
assert len(set(index[gap:selectors])) == 1
del index[gap + 1:selectors]


def array(type, name, values):
    lines = [f"inline constexpr std::array<{type}, {len(values)}> {name}{{"]
    line = "   "
    for value in values:
        if len(line) + len(str(value)) > 117:
            lines.append(line)
            line = "   "
        line += f" {value},"
    return "\n".join(lines + [line[:-1] + "};"])


print(f"""// Classes of all code points in Unicode 16.0. Made by cmake/unicode_tables.py; do not edit.
#pragma once

#include <chimera/core/version.hpp>

#include <array>
#include <cstdint>

namespace chimera {{

// clang-format off
/// Of the blocks of {BLOCK} code points those from {gap + 1} on, so many, are like the one before them, and not listed.
inline constexpr std::uint32_t unicode_gap = {gap + 1}, unicode_gap_blocks = {gap_blocks};

/// Which block of `unicode_classes` holds those of each; the last entry also stands for all behind.
{array("std::uint16_t", "unicode_index", index)}

/// CharClass + 16 GraphemeClass, in blocks of {BLOCK}.
{array("std::uint8_t", "unicode_classes", [c for block in blocks for c in block])}
// clang-format on

}}  // namespace chimera""")
