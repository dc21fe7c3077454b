// One conversation with a model: a sequence, and the reader that works on it. Many sessions may read one PackedModel,
// and share a reader.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/generate/reader.hpp>
#include <chimera/generate/sequence.hpp>
#include <chimera/model/packed_model.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

/// Reads tokens and answers with the logits of the next one. `create` allocates all it ever needs. Sessions of one
/// reader take turns: where one is in the middle of a pass, the next to work ends that pass first.
class Session : public Sequence {
 public:
  /// The reader must outlive the session and stay where it is. A pass has `settings.piece` tokens of the session, or as
  /// many as the reader has rows.
  static Result<Session> create(Reader& reader, const SessionSettings& settings = {}) {
    return create(reader, nullptr, settings);
  }

  /// A session with a reader of its own, which its forks share. `q` and `weights` must outlive the session.
  static Result<Session> create(const Cpu& q, const PackedModel& weights, const SessionSettings& settings = {});

  Session(Session&&) = default;
  Session& operator=(Session&& other) noexcept;
  ~Session() { leave(); }

  const Reader& reader() const { return *reader_; }
  /// Reader::set_adapters, of all sessions of its reader.
  Result<void> set_adapters(const PackedAdapters* adapters) { return reader_->set_adapters(adapters); }

  /// Logits [vocab] after one more token; they are overwritten by the next call. On an error nothing has changed.
  Result<Logits> step(std::int32_t token) { return prefill({&token, 1}); }

  /// Logits [vocab] after all these tokens: the same as by `step`, and faster. Where `stop` becomes true, reading ends
  /// between two pieces with an error, and the session goes on from the position it has reached.
  Result<Logits> prefill(std::span<const std::int32_t> tokens, const std::atomic<bool>* stop = nullptr);

  /// Tokens for `work` to read. On an error nothing has changed.
  Result<void> push(std::span<const std::int32_t> tokens);

  /// Works on the tokens pushed until the time is over, which it overruns by no more than one block of the model takes
  /// for a piece. The logits when all are read; empty if there is more to do, or nothing was pushed.
  Logits work(std::chrono::nanoseconds budget);

  /// Forgets the tokens given and not yet read, but for those of the piece at hand, which it finishes. Returns how many
  /// it forgot.
  std::int64_t cancel();

  /// One token for each of these sessions in one pass: every matrix is read once for all of them. The reader is the
  /// first one's. Each gets the logits that it would get alone, bit for bit. Errors: sessions of different weights or
  /// cache formats, one that is given twice or has tokens pending; nothing has changed then.
  static Result<void> step_all(std::span<Session* const> sessions, std::span<const std::int32_t> tokens);

  /// Forgets everything.
  void reset();

  /// A session of its own that goes on from here, with the same reader. An error while tokens are pending, or where
  /// memory is lacking.
  Result<Session> fork() const;

 private:
  Session(Sequence sequence, Reader& reader, std::shared_ptr<Reader> own)
      : Sequence(std::move(sequence)), own_(std::move(own)), reader_(&reader) {}

  static Result<Session> create(Reader& reader, std::shared_ptr<Reader> own, const SessionSettings& settings);

  /// One stage of the piece at hand, which begins with the first token that waits, or of what the reader does before.
  void run_stage();

  /// Takes this session out of a pass that it is in the middle of.
  void leave() {
    if (Place* p = place(); p && p->reader) p->reader->leave(*p);
  }

  std::shared_ptr<Reader> own_;  // null: the host's reader
  Reader* reader_ = nullptr;
  std::unique_ptr<std::int32_t[]> queue_;  // [context]: tokens from position queued_from_ to the end of those given
  std::int64_t queued_from_ = 0;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<Session> Session::create(const Cpu& q, const PackedModel& weights,
                                                 const SessionSettings& settings) {
  std::int64_t rows = std::min<std::int64_t>(settings.piece, weights.config().context);
  if (settings.context > 0) rows = std::min(rows, settings.context);
  if (rows < 1) return Sequence::create(weights, settings).error();
  auto reader = Reader::create(q, weights, rows);
  if (!reader) return reader.error();
  const auto own = std::make_shared<Reader>(std::move(*reader));
  return create(*own, own, settings);
}

CHIMERA_FUNCTION Session& Session::operator=(Session&& other) noexcept {
  if (this == &other) return *this;
  leave();
  own_ = std::move(other.own_), reader_ = other.reader_;
  queue_ = std::move(other.queue_), queued_from_ = other.queued_from_;
  Sequence::operator=(std::move(other));
  return *this;
}

CHIMERA_FUNCTION Result<Session::Logits> Session::prefill(std::span<const std::int32_t> tokens,
                                                          const std::atomic<bool>* stop) {
  if (tokens.empty()) return Error{"a prompt must have at least 1 token, found none"};
  if (Result<void> s = push(tokens); !s) return s.error();
  while (pending() > 0) {
    if (stop && !place()->reader && stop->load(std::memory_order_relaxed)) {
      const std::int64_t dropped = cancel();
      return Error{"stopped: the last " + std::to_string(dropped) + " tokens of the prompt were not read"};
    }
    run_stage();
  }
  return logits();
}

CHIMERA_FUNCTION Result<void> Session::push(std::span<const std::int32_t> tokens) {
  if (Result<void> s = fits(tokens); !s) return s;
  Place& p = *place();
  if (p.position == p.end) queued_from_ = p.position;
  const auto count = static_cast<std::int64_t>(tokens.size());
  if (p.end - queued_from_ + count > context()) {
    std::copy(queue_.get() + (p.position - queued_from_), queue_.get() + (p.end - queued_from_), queue_.get());
    queued_from_ = p.position;
  }
  std::copy(tokens.begin(), tokens.end(), queue_.get() + (p.end - queued_from_));
  p.end += count;
  return {};
}

CHIMERA_FUNCTION Session::Logits Session::work(std::chrono::nanoseconds budget) {
  const auto start = std::chrono::steady_clock::now();
  while (pending() > 0) {
    run_stage();
    if (std::chrono::steady_clock::now() - start >= budget) break;
  }
  return logits();
}

CHIMERA_FUNCTION std::int64_t Session::cancel() {
  Place& p = *place();
  while (p.reader) p.reader->run_stage();
  return std::exchange(p.end, p.position) - p.position;
}

CHIMERA_FUNCTION Result<void> Session::step_all(std::span<Session* const> sessions,
                                                std::span<const std::int32_t> tokens) {
  if (sessions.empty() || sessions.size() != tokens.size())
    return Error{"expected one token for each of at least 1 session, found " + std::to_string(tokens.size()) +
                 " tokens for " + std::to_string(sessions.size()) + " sessions"};
  Reader& reader = *sessions[0]->reader_;
  reader.finish();
  for (std::size_t i = 0; i < sessions.size(); ++i)
    if (Result<void> s = reader.add({.sequence = sessions[i], .tokens = tokens.subspan(i, 1)}); !s) {
      reader.drop();
      return s;
    }
  reader.finish();
  return {};
}

CHIMERA_FUNCTION void Session::reset() {
  leave();
  Sequence::reset();
}

CHIMERA_FUNCTION Result<Session> Session::fork() const {
  auto other = create(*reader_, own_, settings());
  if (!other) return other.error();
  if (Result<void> s = other->copy_from(*this); !s) return s.error();
  return other;
}

CHIMERA_FUNCTION Result<Session> Session::create(Reader& reader, std::shared_ptr<Reader> own,
                                                 const SessionSettings& settings) {
  auto sequence = Sequence::create(reader.weights(), settings);
  if (!sequence) return sequence.error();
  Session s(std::move(*sequence), reader, std::move(own));
  s.queue_.reset(new (std::nothrow) std::int32_t[static_cast<std::size_t>(s.context())]);
  if (!s.queue_) return Error{"out of memory for a context of " + std::to_string(s.context()) + " tokens"};
  return s;
}

CHIMERA_FUNCTION void Session::run_stage() {
  Place& p = *place();
  Reader& reader = p.reader ? *p.reader : *reader_;
  if (!reader.busy()) {
    const std::int64_t count = std::min(pending(), std::min(settings().piece, reader.rows()));
    const std::int32_t* first = queue_.get() + (p.position - queued_from_);
    reader.admit(
        {.sequence = this, .tokens = {first, static_cast<std::size_t>(count)}, .answer = p.position + count == p.end});
  }
  reader.run_stage();
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
