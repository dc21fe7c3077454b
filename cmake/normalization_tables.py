"""Writes include/chimera/text/normalization_tables.hpp. Needs two Python packages:

    pip install unicodedata2==16.0.0 tokenizers==0.23.3
    python3 cmake/normalization_tables.py > include/chimera/text/normalization_tables.hpp

A character that tokenizers does not normalize came after its data, Unicode 9.0, and is left out.
"""

import unicodedata2
from tokenizers.normalizers import NFD

assert unicodedata2.unidata_version == "16.0.0"
BLOCK = 256
CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and not 0xAC00 <= c < 0xD7A4]


def known(code):
    if unicodedata2.combining(chr(code)):
        # Behind a mark of a higher class, or before one of a lower, it moves.
        low, high = "\u0334", "\u0345"
        texts = ["a" + high + chr(code), "a" + chr(code) + low]
    else:
        texts = [chr(code)]
    return all(NFD().normalize_str(t) == unicodedata2.normalize("NFD", t) for t in texts)


marks = [(c, unicodedata2.combining(chr(c))) for c in CODES if unicodedata2.combining(chr(c)) and known(c)]
parts = {}
for c in CODES:
    found = unicodedata2.decomposition(chr(c))
    if found and not found.startswith("<") and known(c):
        parts[c] = [int(part, 16) for part in found.split()]
rows = sorted(parts)
pairs = sorted((p[0], p[1], rows.index(c)) for c, p in parts.items()
               if len(p) == 2 and unicodedata2.normalize("NFC", chr(c)) == chr(c))

# What may change where it stands: marks, what does not stay as it is, what composes with the letter before it.
unstable = {c for c, _ in marks} | {second for _, second, _ in pairs} | set(range(0x1161, 0x1176)) | \
    set(range(0x11A8, 0x11C3)) | {c for c in parts if unicodedata2.normalize("NFC", chr(c)) != chr(c)}
index, blocks = [], {}
for start in range(0, max(unstable) + 1, BLOCK):
    bits = tuple(sum(1 << i for i in range(32) if start + word + i in unstable) for word in range(0, BLOCK, 32))
    index.append(blocks.setdefault(bits, len(blocks)))
assert len(blocks) <= 256 and min(unstable) == 0x300


def array(type, name, values):
    lines = [f"inline constexpr std::array<{type}, {len(values)}> {name}{{"]
    line = "   "
    for value in values:
        if len(line) + len(str(value)) > 117:
            lines.append(line)
            line = "   "
        line += f" {value},"
    return "\n".join(lines + [line[:-1] + "};"])


def flat(rows):
    return [hex(value) for row in rows for value in row]


print(f"""// Canonical decompositions and compositions of Unicode 9.0, those of Hangul left out, and combining classes. Made by
// cmake/normalization_tables.py; do not edit.
#pragma once

#include <chimera/core/version.hpp>

#include <array>
#include <cstdint>

namespace chimera {{

// clang-format off
/// code << 8 | combining class, of all code points whose class is not 0, in their order.
{array("std::uint32_t", "combining_classes", [hex(c << 8 | k) for c, k in marks])}

/// Code, first part, second part or 0, of all that have parts, in the order of the codes.
{array("std::uint32_t", "canonical_parts", flat((c, p[0], p[1] if len(p) == 2 else 0) for c, p in sorted(parts.items())))}

/// Which of these rows compose, in the order of their parts.
{array("std::uint16_t", "canonical_pairs", [row for _, _, row in pairs])}

/// Which block of `unstable_blocks` holds the {BLOCK} code points from {BLOCK} i on; none behind the last is unstable.
{array("std::uint8_t", "unstable_index", index)}

/// One bit a code point, eight words a block: whether it may be another in form C, for itself or by what is before it.
{array("std::uint32_t", "unstable_blocks", [hex(w) for b in blocks for w in b])}
// clang-format on

}}  // namespace chimera""")
