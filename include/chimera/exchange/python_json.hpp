// JSON as Python's json writes it, whose numbers may be none.
#pragma once

#include <chimera/core/namespace.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace chimera {

/// A config.json as JSON: Infinity, -Infinity and NaN, which Python writes as they are, become objects as transformers 5
/// writes them: {"__float__": "Infinity"}.
std::string config_json_text(std::string_view text);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION std::string config_json_text(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '"') {
      std::size_t end = at + 1;
      while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, text.size());
      out += text.substr(at, end - at);
      at = end;
      continue;
    }
    bool found = false;
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"}) {
      if (!text.substr(at).starts_with(word)) continue;
      out.append("{\"__float__\": \"").append(word).append("\"}");
      at += word.size();
      found = true;
      break;
    }
    if (!found) out += text[at++];
  }
  return out;
}

}  // namespace chimera
#endif
