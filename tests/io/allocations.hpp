// Counts what this program takes from the heap with `new`.
#pragma once

#include <cstddef>

/// Bytes asked for since the program started, given back or not.
std::size_t allocated_bytes();
