// What works: one pass at a time over tokens of any number of sequences, which share the memory that a pass takes.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/generate/sequence.hpp>
#include <chimera/generate/top_logits.hpp>
#include <chimera/model/packed_adapters.hpp>
#include <chimera/model/packed_model.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Tokens that a sequence reads, and what is asked about them. All logits and probabilities are of the token that comes
/// next. Tokens, rows and targets must stay where they are until the turn is read.
struct Turn {
  Sequence* sequence = nullptr;
  std::span<const std::int32_t> tokens;
  std::span<const std::int64_t> rows{};     // which of the tokens have their logits written, in ascending order
  float* logits = nullptr;                  // [rows, vocab]
  std::span<const std::int32_t> targets{};  // [tokens], or none; a negative one is not asked for
  float* log_probabilities = nullptr;       // [tokens]: natural, that target t follows token t
  bool answer = true;                       // whether the sequence keeps the logits after the last token
};

/// Reads turns. `create` allocates all that it needs for `rows` turns at once; more take memory for a list of them.
class Reader {
 public:
  /// `rows`: tokens of a pass, at most. `q` and `weights` must outlive the reader, and the reader what it reads.
  static Result<Reader> create(const Cpu& q, const PackedModel& weights, std::int64_t rows = 256);

  const Cpu& cpu() const { return *q_; }
  const PackedModel& weights() const { return *weights_; }
  /// From now on all that it reads goes through these adapters, too, or through none (null); what sequences have read
  /// stays as it is. What was begun is read to its end first. They must outlive their use. Errors: of other weights, or
  /// too many for so many rows.
  Result<void> set_adapters(const PackedAdapters* adapters);
  /// Tokens of a pass, at most.
  std::int64_t rows() const { return capacity_; }
  /// Bytes of memory that passes take.
  std::size_t bytes() const { return block_.size() * sizeof(float); }

  /// Reads all turns, in as few passes as they fit in. What a sequence computes is the same to the bit whatever else is
  /// read with it: its tokens are cut into pieces as its settings say, wherever passes end. On an error nothing has
  /// changed.
  Result<void> read(std::span<const Turn> turns);

  /// The same in slices: `work` goes on with turns that were begun. What was begun earlier is read to its end first.
  Result<void> begin(std::span<const Turn> turns);

  /// Works until the time is over, which it overruns by no more than one block of the model takes for a pass. True when
  /// all turns are read.
  bool work(std::chrono::nanoseconds budget);

 private:
  friend class Session;
  using Place = sequence_parts::Place;

  /// Logits of so many rows are held for probabilities: more rows of a pass have the model's head run again.
  static constexpr std::int64_t most_scored = 32;

  /// A turn that is being read.
  struct Job {
    Turn turn;
    Place* place;
    std::byte* state;
    float* last;  // the sequence's logits
    std::int64_t context;
    int passes;  // through the loop, and when no more of them are made
    float stop;
    std::int64_t piece;   // tokens of it in a pass, at most
    std::int64_t begun;   // position of its first token
    std::int64_t length;  // tokens

    std::int64_t read() const { return place->position - begun; }
  };

  /// What is asked of a row: its logits, or the probability of a target.
  struct Question {
    std::int64_t row;
    float* logits;
    float* log_probability;  // null: the logits
    std::int32_t target;
  };

  Reader() = default;

  const AnyModel& model() const { return weights_->model(); }
  std::int64_t vocab() const { return weights_->config().vocab; }
  std::int64_t scored_rows() const { return std::min(capacity_, most_scored); }
  bool busy() const { return !jobs_.empty(); }

  /// Hands out the block's parts, or counts its bytes where there is none.
  std::size_t bind(std::byte* block);

  /// Puts a turn behind those begun.
  Result<void> add(const Turn& turn);

  /// The same of a turn that is known to be right, and of whose tokens the sequence knows.
  void admit(const Turn& turn);

  /// Takes back what was begun, of which nothing was read.
  void drop();

  /// Has no more to do with a sequence. A pass of others is read to its end; a sequence alone stays where it is in it.
  void leave(Place& place);

  void finish() {
    while (busy()) run_stage();
  }

  /// One stage of the pass at hand.
  void run_stage();

  /// The next piece of each turn, as far as they fit.
  void begin_pass();

  /// What the turn asks of its tokens read .. read + count - 1, which are the rows from rows_ on.
  void ask_of(const Job& job, std::int64_t read, std::int64_t count);

  /// The next questions for the model's head, as many as there is room for.
  void ask();

  /// Probabilities of those that were asked last.
  void score();

  void end_pass();

  const Cpu* q_ = nullptr;
  const PackedModel* weights_ = nullptr;
  const PackedTensor* tensors_ = nullptr;  // of the weights, or of these with adapters
  std::int64_t capacity_ = 0;
  Buffer block_;
  Run* runs_ = nullptr;             // [capacity], as the next three
  std::size_t* jobs_of_ = nullptr;  // whose runs they are
  Output* outputs_ = nullptr;
  std::int32_t* tokens_ = nullptr;
  Question* questions_ = nullptr;  // [3 capacity]: a row's logits, those that its sequence keeps, and a probability
  std::byte* memory_ = nullptr;
  float* scored_ = nullptr;      // [scored_rows, vocab]
  std::vector<Job> jobs_;        // turns that are not read to their end
  KvFormat kv_ = KvFormat::f16;  // of all of them
  // The pass at hand:
  int stage_ = 0;  // its next one; 0: there is none
  std::int64_t rows_ = 0;
  std::size_t run_count_ = 0, question_count_ = 0;
  std::int64_t scored_count_ = 0;
  std::size_t answered_ = 0, output_count_ = 0;  // questions: those before, and those that the head works on
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<Reader> Reader::create(const Cpu& q, const PackedModel& weights, std::int64_t rows) {
  if (rows < 1) return Error{"a reader's pass must have at least 1 row, found " + std::to_string(rows)};
  Reader r;
  r.q_ = &q, r.weights_ = &weights, r.tensors_ = weights.tensors(), r.capacity_ = rows;
  auto block = Buffer::of_bytes(r.bind(nullptr));
  if (!block) return block.error();
  r.block_ = std::move(*block);
  r.bind(r.block_.bytes());
  r.jobs_.reserve(static_cast<std::size_t>(rows));
  return r;
}

CHIMERA_FUNCTION Result<void> Reader::set_adapters(const PackedAdapters* adapters) {
  if (adapters && &adapters->model() != weights_) return Error{"the adapters are of other weights than the reader's"};
  constexpr auto room = static_cast<std::int64_t>(Cpu::shared_floats);
  if (adapters && capacity_ * 2 * adapters->ranks() > room)  // of two matrices that are joined
    return Error{"a reader of " + std::to_string(capacity_) + " rows takes adapters of at most " +
                 std::to_string(room / (2 * capacity_)) + " columns, found " + std::to_string(adapters->ranks())};
  finish();
  tensors_ = adapters ? adapters->tensors() : weights_->tensors();
  return {};
}

CHIMERA_FUNCTION Result<void> Reader::read(std::span<const Turn> turns) {
  if (Result<void> s = begin(turns); !s) return s;
  finish();
  return {};
}

CHIMERA_FUNCTION Result<void> Reader::begin(std::span<const Turn> turns) {
  finish();
  for (std::size_t i = 0; i < turns.size(); ++i)
    if (Result<void> s = add(turns[i]); !s) {
      drop();
      return s;
    }
  return {};
}

CHIMERA_FUNCTION bool Reader::work(std::chrono::nanoseconds budget) {
  const auto start = std::chrono::steady_clock::now();
  while (busy()) {
    run_stage();
    if (std::chrono::steady_clock::now() - start >= budget) break;
  }
  return !busy();
}

CHIMERA_FUNCTION std::size_t Reader::bind(std::byte* block) {
  Bump memory{block};
  const auto take = [&]<class T>(T*& part, std::size_t count) {
    part = memory.take<T>(static_cast<std::int64_t>(count));
  };
  const std::size_t rows = static_cast<std::size_t>(capacity_);
  take(runs_, rows), take(jobs_of_, rows), take(outputs_, rows), take(tokens_, rows), take(questions_, 3 * rows);
  std::size_t most = 0;  // a pass of one row may want more than larger ones do
  for (const std::int64_t n : {std::int64_t{1}, capacity_}) most = std::max(most, model().decode_bytes(n));
  take(memory_, most);
  take(scored_, static_cast<std::size_t>(scored_rows() * vocab()));
  return memory.used;
}

CHIMERA_FUNCTION Result<void> Reader::add(const Turn& turn) {
  const Sequence& s = *turn.sequence;
  const auto wrong = [&](const std::string& why) { return Error{"session " + std::to_string(jobs_.size()) + why}; };
  if (s.weights_ != weights_ || (busy() && s.settings_.kv != kv_))
    return Error{"sessions of one pass must have the same weights and the same format of keys and values"};
  if (s.place_->reader == this) return wrong(" is given twice");
  if (s.pending() > 0) return wrong(" has tokens pending");
  if (turn.tokens.empty()) return wrong(" has a turn without tokens");
  if (Result<void> fits = s.fits(turn.tokens); !fits) return wrong(": " + fits.error().message);
  const auto length = static_cast<std::int64_t>(turn.tokens.size());
  for (std::size_t i = 0; i < turn.rows.size(); ++i)
    if (turn.rows[i] >= length || turn.rows[i] < (i == 0 ? 0 : turn.rows[i - 1] + 1))
      return wrong(": rows are tokens of the turn in ascending order, found row " + std::to_string(turn.rows[i]));
  if (!turn.targets.empty() && turn.targets.size() != turn.tokens.size())
    return wrong(": expected a target for each of " + std::to_string(length) + " tokens, found " +
                 std::to_string(turn.targets.size()));
  for (const std::int32_t target : turn.targets)
    if (target >= vocab())
      return wrong(": target " + std::to_string(target) + " is not in the vocabulary of " + std::to_string(vocab()));
  s.place_->end += length;
  admit(turn);
  return {};
}

CHIMERA_FUNCTION void Reader::admit(const Turn& turn) {
  const Sequence& s = *turn.sequence;
  kv_ = s.settings_.kv;
  jobs_.push_back({.turn = turn,
                   .place = s.place_,
                   .state = s.state_,
                   .last = s.logits_,
                   .context = s.context(),
                   .passes = s.settings_.passes,
                   .stop = s.settings_.stop,
                   .piece = std::min(s.settings_.piece, capacity_),
                   .begun = s.position(),
                   .length = static_cast<std::int64_t>(turn.tokens.size())});
  s.place_->reader = this;
}

CHIMERA_FUNCTION void Reader::drop() {
  for (const Job& job : jobs_) job.place->end = job.begun, job.place->reader = nullptr;
  jobs_.clear();
}

CHIMERA_FUNCTION void Reader::leave(Place& place) {
  if (place.reader != this) return;
  while (stage_ > 0 && jobs_.size() > 1) run_stage();
  std::erase_if(jobs_, [&](const Job& job) { return job.place == &place; });
  place.reader = nullptr;
  if (jobs_.empty()) stage_ = 0;
}

CHIMERA_FUNCTION void Reader::run_stage() {
  if (stage_ == 0) begin_pass();
  ModelPass pass;
  pass.runs = {runs_, run_count_}, pass.rows = rows_, pass.kv = kv_;
  pass.tokens = tokens_, pass.outputs = {outputs_, output_count_}, pass.memory = memory_;
  model().decode(*q_, tensors_, pass, stage_++);
  if (stage_ < model().stages) return;
  score();
  answered_ += output_count_;
  if (answered_ < question_count_)
    ask(), stage_ = model().head;
  else
    end_pass();
}

CHIMERA_FUNCTION void Reader::begin_pass() {
  rows_ = 0, run_count_ = question_count_ = answered_ = 0;
  for (std::size_t j = 0; j < jobs_.size() && rows_ < capacity_; ++j) {
    const Job& job = jobs_[j];
    const std::int64_t read = job.read(), count = std::min(job.piece, job.length - read);
    if (rows_ + count > capacity_) continue;
    runs_[run_count_] = {.first = rows_,
                         .count = count,
                         .position = job.place->position,
                         .state = job.state,
                         .context = job.context,
                         .passes = job.passes,
                         .stop = job.stop};
    jobs_of_[run_count_++] = j;
    std::copy_n(job.turn.tokens.begin() + read, count, tokens_ + rows_);
    ask_of(job, read, count);
    rows_ += count;
  }
  ask();
}

CHIMERA_FUNCTION void Reader::ask_of(const Job& job, std::int64_t read, std::int64_t count) {
  const Turn& turn = job.turn;
  const auto put = [&](std::int64_t token, float* logits, float* log_probability, std::int32_t target) {
    questions_[question_count_++] = {rows_ + token - read, logits, log_probability, target};
  };
  if (turn.answer && read + count == job.length) put(job.length - 1, job.last, nullptr, -1);
  const auto first = std::lower_bound(turn.rows.begin(), turn.rows.end(), read);
  for (auto row = first; row != turn.rows.end() && *row < read + count; ++row)
    put(*row, turn.logits + (row - turn.rows.begin()) * vocab(), nullptr, -1);
  if (turn.targets.empty()) return;
  for (std::int64_t t = read; t < read + count; ++t)
    if (const std::int32_t target = turn.targets[static_cast<std::size_t>(t)]; target >= 0)
      put(t, nullptr, turn.log_probabilities + t, target);
}

CHIMERA_FUNCTION void Reader::ask() {
  output_count_ = 0, scored_count_ = 0;
  for (std::size_t i = answered_; i < question_count_ && output_count_ < static_cast<std::size_t>(capacity_); ++i) {
    const Question& asked = questions_[i];
    if (asked.log_probability && scored_count_ == scored_rows()) break;
    outputs_[output_count_++] = {asked.row, asked.log_probability ? scored_ + scored_count_++ * vocab() : asked.logits};
  }
}

CHIMERA_FUNCTION void Reader::score() {
  if (scored_count_ == 0) return;
  parallel(*q_, static_cast<std::int64_t>(output_count_), [&](std::int64_t i, int) {
    const Question& asked = questions_[answered_ + static_cast<std::size_t>(i)];
    if (asked.log_probability)
      *asked.log_probability =
          log_probability(q_->isa(), {outputs_[i].logits, static_cast<std::size_t>(vocab())}, asked.target);
  });
}

CHIMERA_FUNCTION void Reader::end_pass() {
  stage_ = 0;
  for (std::size_t r = 0; r < run_count_; ++r) {
    const Job& job = jobs_[jobs_of_[r]];
    Place& place = *job.place;
    place.position += runs_[r].count;
    const bool done = job.read() == job.length;
    place.answered = done && job.turn.answer;
    if (done) place.reader = nullptr;
  }
  std::erase_if(jobs_, [](const Job& job) { return job.place->reader == nullptr; });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
