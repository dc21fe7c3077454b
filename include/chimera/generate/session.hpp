// One conversation with a model: its weights, what it remembers, and working memory.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

/// Reads tokens and answers with the logits of the next one. `create` allocates all it ever needs.
class Session {
 public:
  /// `q`, the model's tables and `weights` [model.arena_floats] must outlive the session. A prompt is read in pieces
  /// of at most `piece` tokens: larger ones are faster and need more memory.
  static Result<Session> create(const Cpu& q, const AnyModel& model, const float* weights, std::int64_t piece = 256) {
    if (piece < 1) return Error{"a prompt's piece must be at least 1 token, found " + std::to_string(piece)};
    Session s;
    s.q_ = &q, s.model_ = model, s.weights_ = weights;
    s.piece_ = std::min<std::int64_t>(piece, model.config->context);
    auto state = Buffer::create(model.state_floats);
    if (!state) return state.error();
    auto memory = Buffer::create(std::max(model.decode_floats(), model.prefill_floats(s.piece_)));
    if (!memory) return memory.error();
    auto logits = Buffer::create(static_cast<std::size_t>(model.config->vocab));
    if (!logits) return logits.error();
    s.state_ = std::move(*state), s.memory_ = std::move(*memory), s.logits_ = std::move(*logits);
    return s;
  }

  /// Tokens read so far, and how many fit.
  std::int64_t position() const { return position_; }
  std::int64_t context() const { return model_.config->context; }

  /// Logits [vocab] after one more token; they are overwritten by the next call. On an error nothing has changed.
  Result<std::span<const float>> step(std::int32_t token) {
    if (Status s = fits({&token, 1}); !s) return s.error();
    model_.step(*q_, weights_, token, position_++, state_.data(), memory_.data(), logits_.data());
    return logits();
  }

  /// As `step` for all these tokens, and faster. To be able to stop in between, hand a long prompt in by parts.
  Result<std::span<const float>> prefill(std::span<const std::int32_t> tokens) {
    if (tokens.empty()) return Error{"a prompt must have at least 1 token, found none"};
    if (Status s = fits(tokens); !s) return s.error();
    while (!tokens.empty()) {
      const auto part = tokens.first(std::min(tokens.size(), static_cast<std::size_t>(piece_)));
      const std::int64_t length = static_cast<std::int64_t>(part.size());
      model_.prefill(*q_, weights_, part.data(), length, position_, state_.data(), memory_.data(), logits_.data());
      position_ += length;
      tokens = tokens.subspan(part.size());
    }
    return logits();
  }

  /// Forgets everything.
  void reset() {
    if (state_.size() > 0) std::memset(state_.data(), 0, state_.size() * sizeof(float));
    position_ = 0;
  }

 private:
  Session() = default;

  Status fits(std::span<const std::int32_t> tokens) const {
    const std::int64_t count = static_cast<std::int64_t>(tokens.size());
    if (count > context() - position_)
      return Error{"the context is full: it holds " + std::to_string(context()) + " tokens, " +
                   std::to_string(position_) + " were read and " + std::to_string(count) + " more were given"};
    for (const std::int32_t token : tokens)
      if (token < 0 || token >= model_.config->vocab)
        return Error{"token " + std::to_string(token) + " is not in the vocabulary of " +
                     std::to_string(model_.config->vocab)};
    return {};
  }
  std::span<const float> logits() const { return {logits_.data(), logits_.size()}; }

  const Cpu* q_ = nullptr;
  AnyModel model_;
  const float* weights_ = nullptr;
  std::int64_t piece_ = 0, position_ = 0;
  Buffer state_, memory_, logits_;
};

}  // namespace chimera::inline CHIMERA_ABI
