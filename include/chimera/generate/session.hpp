// One conversation with a model: what it remembers, and working memory. Many sessions may read one PackedModel.
#pragma once

#include <chimera/core/checksum.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/model/packed_model.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

struct SessionSettings {
  std::int64_t piece = 256;     // tokens of a prompt that are read at once: more are faster and take more memory
  KvFormat kv = KvFormat::f16;  // in which keys and values are remembered
  bool slide = false;           // beyond the context: forget the oldest keys and values instead of an error
};

/// Reads tokens and answers with the logits of the next one. `create` allocates all it ever needs, as one block.
class Session {
 public:
  using Logits = std::span<const float>;

  /// `q` and `weights` must outlive the session.
  static Result<Session> create(const Cpu& q, const PackedModel& weights, const SessionSettings& settings = {}) {
    if (settings.piece < 1)
      return Error{"a prompt's piece must be at least 1 token, found " + std::to_string(settings.piece)};
    Session s;
    s.q_ = &q, s.weights_ = &weights, s.settings_ = settings;
    s.settings_.piece = std::min<std::int64_t>(settings.piece, s.context());
    auto block = Buffer::create(s.bind(nullptr));
    if (!block) return block.error();
    s.block_ = std::move(*block);
    s.bind(s.block_.data());
    if (s.model().keep_state_sparse) s.model().keep_state_sparse(settings.kv, s.state_);
    return s;
  }

  /// Tokens read so far, how many fit, and how many were pushed and not yet read.
  std::int64_t position() const { return position_; }
  std::int64_t context() const { return weights_->config().context; }
  std::int64_t pending() const { return queued_; }
  const PackedModel& weights() const { return *weights_; }
  const SessionSettings& settings() const { return settings_; }
  /// Of memory.
  std::size_t bytes() const { return block_.size() * sizeof(float); }

  /// Logits [vocab] after the last token; empty before the first, and while tokens are pending.
  Logits logits() const {
    return answered_ && queued_ == 0 ? Logits(logits_, static_cast<std::size_t>(weights_->config().vocab)) : Logits();
  }

  /// Logits [vocab] after one more token; they are overwritten by the next call. On an error nothing has changed.
  Result<Logits> step(std::int32_t token) { return prefill({&token, 1}); }

  /// As `step` for all these tokens, and faster. Where `stop` becomes true, reading ends between two pieces with an error,
  /// and the session goes on from the position it has reached.
  Result<Logits> prefill(std::span<const std::int32_t> tokens, const std::atomic<bool>* stop = nullptr) {
    if (tokens.empty()) return Error{"a prompt must have at least 1 token, found none"};
    if (Status s = push(tokens); !s) return s.error();
    while (queued_ > 0) {
      if (stop && stop->load(std::memory_order_relaxed)) {
        const std::int64_t dropped = cancel();
        return Error{"stopped: the last " + std::to_string(dropped) + " tokens of the prompt were not read"};
      }
      while (!run_stage()) {
      }
    }
    return logits();
  }

  /// Tokens for `step(budget)` to read. On an error nothing has changed.
  Status push(std::span<const std::int32_t> tokens) {
    const std::int64_t count = static_cast<std::int64_t>(tokens.size()), room = context() - queued_;
    if (count > room || (!settings_.slide && count > room - position_))
      return Error{"the context is full: it holds " + std::to_string(context()) + " tokens, " +
                   std::to_string(position_ + queued_) + " were read and " + std::to_string(count) +
                   " more were given"};
    const std::int32_t vocab = weights_->config().vocab;
    for (const std::int32_t token : tokens)
      if (token < 0 || token >= vocab)
        return Error{"token " + std::to_string(token) + " is not in the vocabulary of " + std::to_string(vocab)};
    if (first_ + queued_ + count > context()) {
      std::copy_n(queue_ + first_, queued_, queue_);
      first_ = 0;
    }
    std::copy(tokens.begin(), tokens.end(), queue_ + first_ + queued_);
    queued_ += count;
    return {};
  }

  /// Works on the tokens pushed until the time is over, which it overruns by no more than one block of the model takes for
  /// a piece. The logits when all are read; empty if there is more to do, or nothing was pushed.
  Logits step(std::chrono::nanoseconds budget) {
    const auto start = std::chrono::steady_clock::now();
    while (queued_ > 0) {
      run_stage();
      if (std::chrono::steady_clock::now() - start >= budget) break;
    }
    return logits();
  }

  /// Forgets the tokens pushed and not yet read, but for those of the piece at hand, which it finishes. Returns how many
  /// it forgot.
  std::int64_t cancel() {
    if (stage_ > 0)
      while (!run_stage()) {
      }
    return std::exchange(queued_, 0);
  }

  /// One token for each of these sessions in one pass: every matrix is read once for all of them. Each gets the logits
  /// that it would get alone, bit for bit. Errors: sessions of different weights or cache formats, one that is given twice
  /// or has tokens pending, more sessions than the first one's piece; nothing has changed then.
  static Status step(std::span<Session* const> sessions, std::span<const std::int32_t> tokens) {
    if (sessions.empty() || sessions.size() != tokens.size())
      return Error{"expected one token for each of at least 1 session, found " + std::to_string(tokens.size()) +
                   " tokens for " + std::to_string(sessions.size()) + " sessions"};
    Session& lead = *sessions[0];
    if (static_cast<std::int64_t>(sessions.size()) > lead.settings_.piece)
      return Error{"the first session has room for a pass of " + std::to_string(lead.settings_.piece) +
                   " tokens, found " + std::to_string(sessions.size()) + " sessions"};
    for (std::size_t i = 0; i < sessions.size(); ++i) {
      const Session& s = *sessions[i];
      if (s.weights_ != lead.weights_ || s.settings_.kv != lead.settings_.kv)
        return Error{"sessions of one pass must have the same weights and the same format of keys and values"};
      if (s.queued_ > 0) return Error{"session " + std::to_string(i) + " has tokens pending"};
      if (std::find(sessions.begin(), sessions.begin() + static_cast<std::ptrdiff_t>(i), &s) !=
          sessions.begin() + static_cast<std::ptrdiff_t>(i))
        return Error{"session " + std::to_string(i) + " is given twice"};
    }
    for (std::size_t i = 0; i < sessions.size(); ++i)
      if (Status s = sessions[i]->push(tokens.subspan(i, 1)); !s) {
        for (std::size_t j = 0; j < i; ++j) sessions[j]->queued_ = 0;
        return Error{"session " + std::to_string(i) + ": " + s.error().message};
      }
    for (std::size_t i = 0; i < sessions.size(); ++i) {
      Session& s = *sessions[i];
      lead.runs_[i] = {static_cast<std::int64_t>(i), 1, s.position_, s.state_};
      lead.outputs_[i] = {static_cast<std::int64_t>(i), s.logits_};
      lead.tokens_[i] = tokens[i];
    }
    const ModelPass pass =
        lead.pass(sessions.size(), static_cast<std::int64_t>(sessions.size()), sessions.size(), lead.tokens_);
    for (int stage = 0; stage < lead.model().stages; ++stage)
      lead.model().decode(*lead.q_, lead.weights_->tensors(), pass, stage);
    for (Session* s : sessions) s->finish(1, true);
    return {};
  }

  /// Forgets everything.
  void reset() {
    model().clear_state(settings_.kv, state_);
    position_ = first_ = queued_ = 0;
    stage_ = 0;
    answered_ = false;
  }

  /// A session of its own that goes on from here. An error while tokens are pending, or for want of memory.
  Result<Session> fork() const {
    auto other = create(*q_, *weights_, settings_);
    if (!other) return other.error();
    if (Status s = other->copy_from(*this); !s) return s.error();
    return other;
  }

  /// Goes on from where the other is; allocates nothing. Both must have the same weights and format of keys and values,
  /// and no tokens pending.
  Status copy_from(const Session& other) {
    if (other.weights_ != weights_ || other.settings_.kv != settings_.kv)
      return Error{"a session can only be copied into one of the same weights and the same format of keys and values"};
    if (other.queued_ > 0 || queued_ > 0) return Error{"a session with tokens pending cannot be copied"};
    model().copy_state(settings_.kv, other.position_, other.state_, state_);
    std::copy_n(other.logits_, weights_->config().vocab, logits_);
    position_ = other.position_, answered_ = other.answered_;
    return {};
  }

  /// All that the session remembers, for `restore`.
  Result<std::vector<std::byte>> save() const {
    if (queued_ > 0) return Error{"a session with tokens pending cannot be saved"};
    std::vector<std::byte> bytes(sizeof(Saved) + logits_bytes() + state_bytes());
    std::memcpy(bytes.data() + sizeof(Saved), logits_, logits_bytes());
    model().copy_state(settings_.kv, position_, state_, bytes.data() + sizeof(Saved) + logits_bytes());
    Saved head = expected();
    head.position = position_, head.answered = answered_;
    head.checksum = crc32c(bytes.data() + sizeof(Saved), bytes.size() - sizeof(Saved));
    std::memcpy(bytes.data(), &head, sizeof head);
    return bytes;
  }

  /// Goes on from where `save` was. Errors: what was saved is of another model or format of keys and values, or damaged;
  /// nothing has changed then.
  Status restore(std::span<const std::byte> saved) {
    if (queued_ > 0) return Error{"a session with tokens pending cannot be restored"};
    Saved head;
    if (saved.size() < sizeof head)
      return Error{"expected a saved session, found " + std::to_string(saved.size()) + " bytes"};
    std::memcpy(&head, saved.data(), sizeof head);
    const Saved want = expected();
    if (head.magic != want.magic) return Error{"expected a saved session, found something else"};
    if (head.version != want.version)
      return Error{"expected version " + std::to_string(want.version) + " of saved sessions, found " +
                   std::to_string(head.version)};
    if (head.model != want.model)
      return Error{"the session was saved with another model than " + std::string(model().name)};
    if (head.kv != want.kv) return Error{"the session was saved with another format of keys and values"};
    if (saved.size() != sizeof head + logits_bytes() + state_bytes() || head.state != want.state)
      return Error{"the saved session is not whole: expected " +
                   std::to_string(sizeof head + logits_bytes() + state_bytes()) + " bytes, found " +
                   std::to_string(saved.size())};
    if (crc32c(saved.data() + sizeof head, saved.size() - sizeof head) != head.checksum)
      return Error{"the saved session is damaged: its checksum is wrong"};
    if (head.position < 0 || head.position > (settings_.slide ? INT64_MAX / 2 : context()) || head.answered > 1)
      return Error{"the saved session is at position " + std::to_string(head.position) + ", the context holds " +
                   std::to_string(context())};
    std::memcpy(logits_, saved.data() + sizeof head, logits_bytes());
    model().copy_state(settings_.kv, head.position, saved.data() + sizeof head + logits_bytes(), state_);
    position_ = head.position, answered_ = head.answered != 0;
    return {};
  }

  /// The same with a file, which appears whole or not at all.
  Status save(const std::string& path) const {
    const auto bytes = save();
    if (!bytes) return bytes.error();
    auto file = AtomicFile::create(path);
    if (!file) return file.error();
    if (Status s = file->write(bytes->data(), bytes->size()); !s) return s;
    return file->commit();
  }
  Status restore(const std::string& path) {
    const auto file = MappedFile::copy(path);
    if (!file) return file.error();
    if (Status s = restore(file->bytes()); !s) return Error{"cannot restore " + path + ": " + s.error().message};
    return {};
  }

 private:
  /// In front of the logits and the state; little-endian as all machines that run this.
  struct Saved {
    std::array<char, 16> magic;
    std::uint32_t version, model, kv, checksum;
    std::uint64_t state;
    std::int64_t position;
    std::uint64_t answered;
  };

  Session() = default;

  const AnyModel& model() const { return weights_->model(); }
  std::size_t state_bytes() const { return model().state_bytes(settings_.kv); }
  std::size_t logits_bytes() const { return static_cast<std::size_t>(weights_->config().vocab) * sizeof(float); }
  Saved expected() const {
    return {.magic = {'c', 'h', 'i', 'm', 'e', 'r', 'a', ' ', 's', 'e', 's', 's', 'i', 'o', 'n', 0},
            .version = 2,
            .model = weights_->fingerprint(),
            .kv = static_cast<std::uint32_t>(settings_.kv),
            .checksum = 0,
            .state = state_bytes(),
            .position = 0,
            .answered = 0};
  }

  /// Hands out the block's parts, or counts its floats where there is none.
  std::size_t bind(float* block) {
    Bump memory{block};
    const auto take = [&]<class T>(T*& part, std::size_t count) {
      part = reinterpret_cast<T*>(memory.take(static_cast<std::int64_t>((count * sizeof(T) + 3) / sizeof(float))));
    };
    const std::size_t piece = static_cast<std::size_t>(settings_.piece);
    take(logits_, static_cast<std::size_t>(weights_->config().vocab));
    take(queue_, static_cast<std::size_t>(context()));
    take(runs_, piece), take(outputs_, piece), take(tokens_, piece);
    std::size_t most = 0;  // a pass of one row may want more than larger ones do
    for (const std::int64_t rows : {std::int64_t{1}, settings_.piece})
      most = std::max(most, model().decode_floats(rows));
    take(memory_, most);
    take(state_, state_bytes());
    return memory.used;
  }

  ModelPass pass(std::size_t runs, std::int64_t rows, std::size_t outputs, const std::int32_t* tokens) const {
    ModelPass p;
    p.runs = {runs_, runs}, p.rows = rows, p.kv = settings_.kv;
    p.tokens = tokens, p.outputs = {outputs_, outputs}, p.memory = memory_;
    return p;
  }

  /// One stage of the piece at hand, which begins with the first of the queued tokens. True when the piece is done.
  bool run_stage() {
    if (stage_ == 0) rows_ = std::min(queued_, settings_.piece), last_ = rows_ == queued_;
    runs_[0] = {0, rows_, position_, state_};
    outputs_[0] = {rows_ - 1, logits_};
    const ModelPass p = pass(1, rows_, last_ ? 1 : 0, queue_ + first_);
    model().decode(*q_, weights_->tensors(), p, stage_++);
    if (stage_ < model().stages) return false;
    finish(rows_, last_);
    return true;
  }
  void finish(std::int64_t rows, bool answered) {
    position_ += rows, first_ += rows, queued_ -= rows;
    stage_ = 0, answered_ = answered;
    if (queued_ == 0) first_ = 0;
  }

  const Cpu* q_ = nullptr;
  const PackedModel* weights_ = nullptr;
  SessionSettings settings_;
  Buffer block_;
  std::byte* state_ = nullptr;     // all that is remembered
  float* logits_ = nullptr;        // [vocab]
  std::int32_t* queue_ = nullptr;  // [context]: tokens first_ .. first_ + queued_ - 1 wait
  Run* runs_ = nullptr;            // [piece], as the next two
  Output* outputs_ = nullptr;
  std::int32_t* tokens_ = nullptr;
  float* memory_ = nullptr;
  std::int64_t position_ = 0, first_ = 0, queued_ = 0;
  std::int64_t rows_ = 0;  // of the piece at hand
  int stage_ = 0;          // its next one
  bool last_ = false;      // whether it is the last of what was queued when it began
  bool answered_ = false;  // whether logits_ are those of the last token
};

}  // namespace chimera::inline CHIMERA_ABI
