// Token ids to text, as a model writes them.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/utf8.hpp>
#include <chimera/text/tokenizer.hpp>

#include <cstdint>
#include <string>

namespace chimera {

/// Hands out the text of tokens in whole UTF-8 characters, so it can go to a terminal at once. Bytes that can never
/// become one turn into U+FFFD. The tokenizer must outlive it.
class TokenDecoder {
 public:
  explicit TokenDecoder(const Tokenizer& tokenizer, Special control = Special::as_token)
      : t_(&tokenizer), control_(control) {}

  std::string push(std::int32_t id);
  /// The end of the text: an unfinished character becomes U+FFFD.
  std::string flush() { return stream_.flush(); }

 private:
  const Tokenizer* t_;
  Special control_;
  Utf8Stream stream_;
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION std::string TokenDecoder::push(std::int32_t id) {
  if (control_ == Special::as_token && t_->is_control(id)) return stream_.flush();
  return stream_.push(t_->bytes(id));
}

}  // namespace chimera
#endif
