// What is remembered of one sequence of tokens: the model's state after them, how many they were, and the logits of the
// next one. A Reader does the work.
#pragma once

#include <chimera/core/checksum.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/model/packed_model.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

class Reader;

struct SessionSettings {
  std::int64_t context = 0;     // tokens that it holds: fewer take less memory; 0: as many as the config says
  std::int64_t piece = 256;     // tokens of a prompt that are read at once: more are faster and take more memory
  KvFormat kv = KvFormat::f16;  // in which keys and values are remembered
  bool slide = false;           // beyond the context: forget the oldest keys and values instead of an error
  int passes = 0;               // through the model's loop; 0: as many as the config says
  // No more of them where the state changes by less, in the mean over channels and a prompt's piece (LoopConfig::stop);
  // 0: never, negative: as the config says.
  float stop = -1.f;
};

namespace sequence_parts {

/// Where a sequence is. This lies in the sequence's block of memory: a pass finds it wherever the object is moved to.
struct Place {
  std::int64_t position = 0;  // tokens read
  std::int64_t end = 0;       // tokens read, and those that were given and wait
  bool answered = false;      // whether the logits are those of the last token read
  Reader* reader = nullptr;   // which has a turn of this sequence; null: none
};

}  // namespace sequence_parts

/// `create` allocates all that a sequence ever needs, as one block. A sequence may be moved at any time, and must live
/// until a turn of it that was begun is read.
class Sequence {
 public:
  using Logits = std::span<const float>;

  /// `weights` must outlive the sequence.
  static Result<Sequence> create(const PackedModel& weights, const SessionSettings& settings = {});

  /// Tokens read so far, how many fit, and how many were given and not yet read.
  std::int64_t position() const { return place_->position; }
  std::int64_t context() const { return settings_.context; }
  std::int64_t pending() const { return place_->end - place_->position; }
  const PackedModel& weights() const { return *weights_; }
  const SessionSettings& settings() const { return settings_; }
  /// Bytes of memory that this sequence takes.
  std::size_t bytes() const { return block_.size() * sizeof(float); }

  /// Logits [vocab] after the last token; empty before the first, and while tokens are pending.
  Logits logits() const;

  /// Forgets everything. No turn of it may be at work.
  void reset();

  /// Goes on from where the other is; allocates nothing. Both must have the same weights, context, format of keys and
  /// values and passes through a loop, and no tokens pending.
  Result<void> copy_from(const Sequence& other);

  /// All that is remembered, for `restore`.
  Result<std::vector<std::byte>> save() const;

  /// Goes on from where `save` was. Errors: what was saved is of another model, context, format of keys and values or
  /// number of passes, or damaged; nothing has changed then.
  Result<void> restore(std::span<const std::byte> saved);

  /// The same with a file, which appears whole or not at all.
  Result<void> save(const std::string& path) const;
  Result<void> restore(const std::string& path);

 protected:
  using Place = sequence_parts::Place;

  /// Null in a sequence that was moved from.
  Place* place() const { return block_.data() ? place_ : nullptr; }

  /// Why these tokens cannot come after those given so far.
  Result<void> fits(std::span<const std::int32_t> tokens) const;

 private:
  friend class Reader;

  /// What lies in front of the logits and the state in saved bytes; little-endian as all machines that run this.
  struct Saved {
    std::array<char, 16> magic;
    std::uint32_t version, model, kv, checksum;
    std::uint64_t state;
    std::int64_t position;
    std::uint32_t answered, passes;
  };

  Sequence() = default;

  const AnyModel& model() const { return weights_->model(); }
  std::size_t state_bytes() const { return model().state_bytes(settings_.kv, context()); }
  std::size_t logits_bytes() const { return static_cast<std::size_t>(weights_->config().vocab) * sizeof(float); }
  Saved expected() const;

  /// Hands out the block's parts, or counts its bytes where there is none.
  std::size_t bind(std::byte* block);

  const PackedModel* weights_ = nullptr;
  SessionSettings settings_;
  Buffer block_;
  Place* place_ = nullptr;
  float* logits_ = nullptr;  // [vocab]
  std::byte* state_ = nullptr;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<Sequence> Sequence::create(const PackedModel& weights, const SessionSettings& settings) {
  if (settings.piece < 1)
    return Error{"a prompt's piece must be at least 1 token, found " + std::to_string(settings.piece)};
  const std::int64_t most = weights.config().context;
  if (settings.context < 0 || settings.context > most)
    return Error{"a session's context must be from 1 to the model's " + std::to_string(most) + " tokens, found " +
                 std::to_string(settings.context)};
  const LoopConfig& loop = weights.config().loop;
  if (settings.passes < 0 || settings.passes > loop.most_passes())
    return Error{"a session's passes must be from 1 to the model's " + std::to_string(loop.most_passes()) + ", found " +
                 std::to_string(settings.passes)};
  Sequence s;
  s.weights_ = &weights, s.settings_ = settings;
  if (settings.passes == 0 || !loop.on()) s.settings_.passes = loop.on() ? loop.passes : 0;
  if (!(settings.stop >= 0)) s.settings_.stop = loop.stop;
  if (settings.context == 0) s.settings_.context = most;
  s.settings_.piece = std::min(settings.piece, s.context());
  auto block = Buffer::of_bytes(s.bind(nullptr));
  if (!block)
    return Error{block.error().message + " by a session of " + std::to_string(s.context()) +
                 " tokens; a smaller context, or keys and values in q8_0 or q4_0, take less"};
  s.block_ = std::move(*block);
  s.bind(s.block_.bytes());
  ::new (s.place_) sequence_parts::Place;
  if (s.model().keep_state_sparse) s.model().keep_state_sparse(settings.kv, s.context(), s.state_);
  return s;
}

CHIMERA_FUNCTION Sequence::Logits Sequence::logits() const {
  return place_->answered && pending() == 0 ? Logits(logits_, static_cast<std::size_t>(weights_->config().vocab))
                                            : Logits();
}

CHIMERA_FUNCTION void Sequence::reset() {
  model().clear_state(settings_.kv, state_);
  *place_ = {};
}

CHIMERA_FUNCTION Result<void> Sequence::copy_from(const Sequence& other) {
  if (other.weights_ != weights_ || other.settings_.kv != settings_.kv || other.context() != context())
    return Error{"a session can only be copied into one of the same weights, context and format of keys and values"};
  if (other.settings_.passes != settings_.passes)
    return Error{"a session of " + std::to_string(other.settings_.passes) +
                 " passes through the loop cannot be copied into one of " + std::to_string(settings_.passes)};
  if (other.pending() > 0 || pending() > 0) return Error{"a session with tokens pending cannot be copied"};
  model().copy_state(settings_.kv, context(), other.position(), other.state_, state_);
  std::copy_n(other.logits_, weights_->config().vocab, logits_);
  *place_ = *other.place_;
  return {};
}

CHIMERA_FUNCTION Result<std::vector<std::byte>> Sequence::save() const {
  if (pending() > 0) return Error{"a session with tokens pending cannot be saved"};
  std::vector<std::byte> bytes(sizeof(Saved) + logits_bytes() + state_bytes());
  std::memcpy(bytes.data() + sizeof(Saved), logits_, logits_bytes());
  model().copy_state(settings_.kv, context(), position(), state_, bytes.data() + sizeof(Saved) + logits_bytes());
  Saved head = expected();
  head.position = position(), head.answered = place_->answered;
  head.checksum = crc32c(bytes.data() + sizeof(Saved), bytes.size() - sizeof(Saved));
  std::memcpy(bytes.data(), &head, sizeof head);
  return bytes;
}

CHIMERA_FUNCTION Result<void> Sequence::restore(std::span<const std::byte> saved) {
  if (pending() > 0) return Error{"a session with tokens pending cannot be restored"};
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
  if (head.passes != want.passes)
    return Error{"the session was saved with " + std::to_string(head.passes) +
                 " passes through the loop, and this one has " + std::to_string(want.passes)};
  if (head.state != want.state)
    return Error{"the session was saved with another context than " + std::to_string(context()) + " tokens"};
  if (saved.size() != sizeof head + logits_bytes() + state_bytes())
    return Error{"the saved session is not whole: expected " +
                 std::to_string(sizeof head + logits_bytes() + state_bytes()) + " bytes, found " +
                 std::to_string(saved.size())};
  if (crc32c(saved.data() + sizeof head, saved.size() - sizeof head) != head.checksum)
    return Error{"the saved session is damaged: its checksum is wrong"};
  if (head.position < 0 || head.position > (settings_.slide ? INT64_MAX / 2 : context()) || head.answered > 1)
    return Error{"the saved session is at position " + std::to_string(head.position) + ", the context holds " +
                 std::to_string(context())};
  std::memcpy(logits_, saved.data() + sizeof head, logits_bytes());
  model().copy_state(settings_.kv, context(), head.position, saved.data() + sizeof head + logits_bytes(), state_);
  *place_ = {.position = head.position, .end = head.position, .answered = head.answered != 0};
  return {};
}

CHIMERA_FUNCTION Result<void> Sequence::save(const std::string& path) const {
  const auto bytes = save();
  if (!bytes) return bytes.error();
  auto file = AtomicFile::create(path);
  if (!file) return file.error();
  if (Result<void> s = file->write(bytes->data(), bytes->size()); !s) return s;
  return file->commit();
}

CHIMERA_FUNCTION Result<void> Sequence::restore(const std::string& path) {
  const auto file = MappedFile::copy(path);
  if (!file) return file.error();
  if (Result<void> s = restore(file->bytes()); !s) return Error{"cannot restore " + path + ": " + s.error().message};
  return {};
}

CHIMERA_FUNCTION Result<void> Sequence::fits(std::span<const std::int32_t> tokens) const {
  const std::int64_t count = static_cast<std::int64_t>(tokens.size()), room = context() - pending();
  if (count > room || (!settings_.slide && count > room - position()))
    return Error{"the context is full: it holds " + std::to_string(context()) + " tokens, " +
                 std::to_string(place_->end) + " were read and " + std::to_string(count) + " more were given"};
  const std::int32_t vocab = weights_->config().vocab;
  for (const std::int32_t token : tokens)
    if (token < 0 || token >= vocab)
      return Error{"token " + std::to_string(token) + " is not in the vocabulary of " + std::to_string(vocab)};
  return {};
}

CHIMERA_FUNCTION Sequence::Saved Sequence::expected() const {
  return {.magic = {'c', 'h', 'i', 'm', 'e', 'r', 'a', ' ', 's', 'e', 's', 's', 'i', 'o', 'n', 0},
          .version = 2,
          .model = weights_->fingerprint(),
          .kv = static_cast<std::uint32_t>(settings_.kv),
          .checksum = 0,
          .state = state_bytes(),
          .position = 0,
          .answered = 0,
          .passes = static_cast<std::uint32_t>(settings_.passes)};
}

CHIMERA_FUNCTION std::size_t Sequence::bind(std::byte* block) {
  Bump memory{block};
  const auto take = [&]<class T>(T*& part, std::size_t count) {
    part = memory.take<T>(static_cast<std::int64_t>(count));
  };
  take(place_, 1), take(logits_, static_cast<std::size_t>(weights_->config().vocab)), take(state_, state_bytes());
  return memory.used;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
