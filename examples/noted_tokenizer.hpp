// A tokenizer, and what there is to say of its file.
#pragma once

#include <chimera/core/result.hpp>
#include <chimera/text/tokenizer.hpp>

#include <cstdio>

/// The same; what its file says and cannot be is printed.
inline chimera::Result<chimera::Tokenizer> noted(chimera::Result<chimera::Tokenizer> tokenizer) {
  if (tokenizer && !tokenizer->vocabulary().note.empty())
    std::fprintf(stderr, "note: %s\n", tokenizer->vocabulary().note.c_str());
  return tokenizer;
}
