// A character's voice: a model that thinks a little in every frame.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/result.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/text/token_decoder.hpp>
#include <chimera/text/tokenizer.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

class Voice {
 public:
  using Clock = std::chrono::steady_clock;

  /// Short pieces: a step ends at most one block's time for a piece after its budget. A game has no end, so what is
  /// older than the context is forgotten.
  static chimera::SessionSettings settings_of(chimera::SessionSettings session) {
    session.piece = piece, session.slide = true;
    return session;
  }

  /// A session of those settings. The tokenizer must outlive the voice. All memory that thinking needs is taken here.
  static chimera::Result<Voice> create(chimera::Session session, const chimera::Tokenizer& tokenizer,
                                       const chimera::TokenSamplerSettings& settings) {
    // The system hands out memory when it is touched first, which may take 20 ms: here, not within a frame.
    if (const auto logits = session.prefill(std::array<std::int32_t, piece>{}); !logits) return logits.error();
    session.reset();
    auto sampler = chimera::TokenSampler::create(session.weights().config().vocab, settings);
    if (!sampler) return sampler.error();
    return Voice(tokenizer, std::move(session), std::move(*sampler));
  }

  /// Something to answer. It waits until the answer at hand is over; of several that wait the last counts.
  void hear(std::string text) { heard_ = std::move(text); }

  /// Reads and speaks for about that long.
  chimera::Result<void> think(std::chrono::nanoseconds budget) {
    const auto end = Clock::now() + budget;
    if (!speaking_ && !heard_.empty())
      if (chimera::Result<void> s = begin_answer(); !s) return s;
    while (speaking_) {
      const auto left = end - Clock::now();
      if (left <= left.zero()) break;
      const std::int64_t before = session_.position();
      const auto logits = session_.work(left);
      read_ += session_.position() - before;
      if (logits.empty()) break;
      if (chimera::Result<void> s = say(logits); !s) return s;
    }
    return {};
  }

  bool speaking() const { return speaking_; }
  /// The words of the answer at hand, or of the last one.
  const std::string& speech() const { return speech_; }
  /// Tokens so far: of all that was read, its own words too, and of its own words.
  std::int64_t read() const { return read_; }
  std::int64_t spoken() const { return spoken_; }

 private:
  static constexpr int longest = 60;  // tokens of an answer
  static constexpr int piece = 8;     // tokens that are read at once

  Voice(const chimera::Tokenizer& tokenizer, chimera::Session session, chimera::TokenSampler sampler)
      : tokenizer_(&tokenizer), decoder_(tokenizer), session_(std::move(session)), sampler_(std::move(sampler)) {}

  chimera::Result<void> begin_answer() {
    std::vector<std::int32_t> tokens = tokenizer_->encode(heard_);
    if (static_cast<std::int64_t>(tokens.size()) > session_.context())
      tokens.erase(tokens.begin(), tokens.end() - session_.context());
    heard_.clear(), speech_.clear();
    left_ = longest;
    speaking_ = true;
    return session_.push(tokens);
  }

  chimera::Result<void> say(std::span<const float> logits) {
    const auto token = sampler_.draw(logits);
    if (!token) return token.error();
    const std::string text = decoder_.push(*token);
    const std::size_t line = text.find('\n');
    speech_ += text.substr(0, line);
    ++spoken_;
    speaking_ = --left_ > 0 && !tokenizer_->ends_text(*token) && (line == text.npos || blank());
    return speaking_ ? session_.push({&*token, 1}) : chimera::Status{};
  }
  bool blank() const { return speech_.find_first_not_of(' ') == speech_.npos; }

  const chimera::Tokenizer* tokenizer_;
  chimera::TokenDecoder decoder_;
  chimera::Session session_;
  chimera::TokenSampler sampler_;
  std::string heard_, speech_;
  bool speaking_ = false;
  int left_ = 0;  // tokens
  std::int64_t read_ = 0, spoken_ = 0;
};
