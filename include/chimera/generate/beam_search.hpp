// Beam search: the likeliest whole continuations, not one likely token after another.
#pragma once

#include <chimera/core/float_bits.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/generate/top_logits.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// What a search needs of a session: the logits of the next token, copies, and one token for each of several sessions.
template <class S>
concept BeamSession =
    requires(S& session, const S& other, std::span<S* const> all, std::span<const std::int32_t> tokens) {
      { other.logits() } -> std::convertible_to<std::span<const float>>;
      { other.fork() } -> std::same_as<Result<S>>;
      { session.copy_from(other) } -> std::same_as<Result<void>>;
      { S::step_all(all, tokens) } -> std::same_as<Result<void>>;
    };

struct BeamSettings {
  static constexpr std::int64_t most_beams = 64;

  std::int64_t width = 4;      // beams, each of which holds a session
  float length_penalty = 1.f;  // alpha, of a beam's score: 0 prefers short texts, more longer ones
  std::int64_t tokens = 100;   // at most; the session's context must have room for them

  Result<void> validate() const;
};

struct Beam {
  std::vector<std::int32_t> tokens;  // with the one that ends the text
  double log_probability = 0;        // natural, of all tokens
  double score = 0;                  // log_probability / length^alpha
  bool ended = false;                // or cut off at the most tokens
};

/// A beam that goes on, and which of the search's sessions has read it.
struct LiveBeam {
  Beam beam;
  std::size_t session = 0;
};

/// Each of these beams has the session of the one that it continues, and gets one of its own: the first such keeps it,
/// others copy it into a session that no beam has, or fork it.
template <BeamSession Session>
Result<void> share_out(std::vector<Session>& sessions, std::span<LiveBeam> beams) {
  std::vector<bool> taken(sessions.size());
  std::vector<LiveBeam*> copies;
  for (LiveBeam& b : beams) {
    if (taken[b.session]) copies.push_back(&b);
    taken[b.session] = true;
  }
  for (LiveBeam* b : copies) {
    const auto free = static_cast<std::size_t>(std::find(taken.begin(), taken.end(), false) - taken.begin());
    if (free == sessions.size()) {
      auto fork = sessions[b->session].fork();
      if (!fork) return fork.error();
      sessions.push_back(std::move(*fork)), taken.push_back(true);
    } else {
      if (Result<void> s = sessions[free].copy_from(sessions[b->session]); !s) return s;
      taken[free] = true;
    }
    b->session = free;
  }
  return {};
}

/// Continues `start`, which has logits, and returns at most `width` beams, best score first. `ends_text(token)` tells
/// what ends one. Of the continuations of all beams the likeliest `width` that do not end go on, all in one pass. The
/// search is over when no beam can come to a better score than those that have ended.
template <BeamSession Session, class EndsText>
Result<std::vector<Beam>> beam_search(const Session& start, const BeamSettings& settings, EndsText ends_text) {
  if (Result<void> s = settings.validate(); !s) return s.error();
  const std::span<const float> first_logits = start.logits();
  if (first_logits.empty()) return Error{"a search begins after a prompt, found a session without logits"};
  auto top = TopLogits::create(static_cast<std::int64_t>(first_logits.size()));
  if (!top) return top.error();
  auto first = start.fork();
  if (!first) return first.error();
  std::vector<Session> sessions;
  sessions.push_back(std::move(*first));
  std::vector<LiveBeam> live(1);
  std::vector<Beam> finished;

  struct Continuation {
    double log_probability;
    std::size_t beam;
    std::int32_t token;
  };
  const std::size_t width = static_cast<std::size_t>(settings.width);
  const auto score = [&](double log_probability, std::int64_t length) {
    return log_probability / std::pow(static_cast<double>(length), static_cast<double>(settings.length_penalty));
  };
  for (std::int64_t length = 1; !live.empty(); ++length) {
    std::vector<Continuation> continuations;
    for (std::size_t b = 0; b < live.size(); ++b) {
      if (Result<void> s = top->read(sessions[live[b].session].logits()); !s) return s.error();
      const double shift = static_cast<double>(top->best()) + std::log(top->mass(1.f));
      for (const Candidate& c : top->top(std::min(2 * width, top->vocab())))
        continuations.push_back({live[b].beam.log_probability + (static_cast<double>(c.logit) - shift), b, c.token});
    }
    std::sort(continuations.begin(), continuations.end(), [](const Continuation& a, const Continuation& b) {
      return std::tie(b.log_probability, a.beam, a.token) < std::tie(a.log_probability, b.beam, b.token);
    });

    const bool last = length == settings.tokens;
    std::vector<LiveBeam> next;
    for (const Continuation& c : continuations) {
      if (next.size() == width) break;
      const LiveBeam& parent = live[c.beam];
      Beam beam{parent.beam.tokens, c.log_probability, score(c.log_probability, length), ends_text(c.token)};
      beam.tokens.push_back(c.token);
      if (beam.ended)
        finished.push_back(std::move(beam));
      else
        next.push_back({std::move(beam), parent.session});
    }
    if (last)
      for (LiveBeam& b : next) finished.push_back(std::move(b.beam));
    std::stable_sort(finished.begin(), finished.end(), [](const Beam& a, const Beam& b) { return a.score > b.score; });
    finished.resize(std::min(finished.size(), width));
    if (last || next.empty()) break;
    // A longer text is never likelier, and no divisor is above that of the most tokens.
    const double reachable = score(next[0].beam.log_probability, settings.tokens);
    if (finished.size() == width && finished.back().score >= reachable) break;

    if (Result<void> s = share_out(sessions, std::span(next)); !s) return s.error();
    std::vector<Session*> stepping;
    std::vector<std::int32_t> tokens;
    for (const LiveBeam& b : next) stepping.push_back(&sessions[b.session]), tokens.push_back(b.beam.tokens.back());
    if (Result<void> s = Session::step_all(stepping, tokens); !s) return s.error();
    live = std::move(next);
  }
  return finished;
}

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<void> BeamSettings::validate() const {
  if (width < 1 || width > most_beams)
    return Error{"a search has 1 to " + std::to_string(most_beams) + " beams, found " + std::to_string(width)};
  if (!is_finite(length_penalty) || length_penalty < 0.f)
    return Error{"the length penalty must be 0 or more, found " + std::to_string(length_penalty)};
  if (tokens < 1) return Error{"a search writes at least 1 token, found " + std::to_string(tokens)};
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
