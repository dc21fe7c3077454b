// What a model that learns writes itself: groups of completions, what they earned, and how much better than its group
// each was, as rows to learn from.
#pragma once

#include <chimera/align/environment.hpp>
#include <chimera/align/grpo.hpp>
#include <chimera/align/log_probs.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/float_bits.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/random.hpp>
#include <chimera/core/result.hpp>
#include <chimera/core/utf8.hpp>
#include <chimera/generate/reader.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/sequence.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/model/packed_model.hpp>
#include <chimera/text/chat_template.hpp>
#include <chimera/text/tokenizer.hpp>
#include <chimera/train/batch_source.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

struct RolloutSettings {
  std::int64_t group = 8;        // completions of a problem
  std::int64_t completion = 64;  // tokens of one, at most
  float temperature = 1.f;
  std::int64_t draws = 4;       // of a group, at most: where all earn the same, another problem is asked instead
  bool deviation = true;        // advantages are divided by the group's deviation
  std::int64_t live = 64;       // completions that are written side by side, at most
  Format format = Format::f32;  // of the weights that write: f32 or q8_0
  std::uint64_t seed = 1;
};

/// What was seen of the completions of one step, or of an examination.
struct RolloutSeen {
  // Sums over the completions that were drawn first:
  double completions = 0, reward = 0, exact = 0, ended = 0, tokens = 0, think = 0;  // exact: earned 1 or more
  // Of all of them:
  double written = 0;                      // tokens
  double again = 0, silent = 0;            // groups drawn again, and those in which all earned the same to the end
  double not_numbers = 0;                  // rewards that were NaN or infinite
  double seconds = 0, reward_seconds = 0;  // of packing and writing, and of judging
  double mean(double RolloutSeen::*sum) const { return completions > 0 ? this->*sum / completions : 0; }
};

/// Rows are completions, those of a group side by side, with the log-probabilities of when they were drawn and their
/// advantages. A prompt is read once for its group; completions of all groups are written side by side, from weights
/// that are packed anew for each step. A step's completions depend on its number and on the weights alone, and not on
/// the number of threads or of what is live.
class Rollouts : public BatchSource {
 public:
  /// `length`: tokens of a row. All but the settings must outlive it.
  static Result<Rollouts> create(const Cpu& q, const AnyModel& model, const Tokenizer& tokenizer,
                                 const ChatTemplate& form, Environment& environment, std::int64_t length,
                                 const RolloutSettings& settings);

  /// Whose weights write: those of a trainer, as they are when a step begins.
  Result<void> follow(const float* weights);
  /// Each target is compared with what these weights say of it, `rows` rows at once.
  Result<void> refer_to(const float* weights, std::int64_t rows);

  /// Of the newest step.
  const RolloutSeen& seen() const { return seen_; }
  /// The newest completions, until the next are written, and what they earned.
  std::span<const Completion> completions() const { return completions_; }
  std::span<const double> rewards() const { return rewards_; }

  /// Has so many problems of an environment, from number 0 on, answered once each, by the likeliest tokens.
  Result<RolloutSeen> examine(Environment& environment, std::int64_t problems);

  CHIMERA_FUNCTION Result<void> validate(std::int64_t length, std::int64_t vocab) const override;
  /// An error before it follows weights. Rows are numbered by completion: `first` and the buffer's rows are multiples
  /// of a group.
  CHIMERA_FUNCTION Result<void> fill(std::uint64_t first, BatchBuffer& batch) override;
  std::uint64_t rows(std::int64_t) const override {
    return environment_->problems() * static_cast<std::uint64_t>(settings_.group);
  }
  std::int64_t tokens() const override { return 0; }
  std::uint32_t checksum() const override { return environment_->checksum(); }

 private:
  /// A problem, and what the model reads of it.
  struct Asked {
    std::uint64_t number = 0;
    Problem problem = {};
    std::vector<std::int32_t> prompt = {};
  };

  /// A completion as it is written.
  struct Draft {
    const Asked* asked = nullptr;
    std::int64_t member = 0;  // of the group
    std::vector<std::int32_t> ids = {};
    std::vector<float> log_probs = {};  // of each, as the model's, whatever the temperature
    std::string bytes = {};             // of each but that which ended it
    bool ended = false;
  };

  /// A place where one completion is written after the other.
  struct Slot {
    Sequence sequence;
    Draft* draft = nullptr;  // null: free
    std::int32_t token = -1;
    float log_prob = 0;
  };

  Rollouts(const Cpu& q, const AnyModel& model, const Tokenizer& tokenizer, const ChatTemplate& form,
           Environment& environment, std::int64_t length, const RolloutSettings& settings)
      : q_(&q),
        model_(model),
        tokenizer_(&tokenizer),
        form_(&form),
        environment_(&environment),
        length_(length),
        settings_(settings) {}

  Result<std::vector<TokenSampler>> samplers(float temperature) const;
  Result<Asked> ask(const Environment& environment, std::uint64_t number) const;
  /// Packs the weights as they are now.
  Result<void> repack(RolloutSeen& seen);
  /// Writes all of them; those of one problem lie side by side.
  Result<void> write(std::span<Draft> drafts, std::span<TokenSampler> samplers, RolloutSeen& seen);
  Result<void> begin(Slot& slot, Draft& draft);
  Result<void> draw(Slot& slot, TokenSampler& sampler) const;
  /// Whether it goes on after the token that was drawn.
  bool extend(Draft& draft, std::int32_t token, float log_prob) const;
  /// Judges what was written into completions_ and rewards_.
  void judge(Environment& environment, std::span<const Draft> drafts, bool first, RolloutSeen& seen);
  Completion completed(const Draft& draft) const;
  std::int64_t most_tokens(const Asked& asked) const {
    return std::min(settings_.completion, length_ + 1 - static_cast<std::int64_t>(asked.prompt.size()));
  }
  void write_row(const Draft& draft, float advantage, const BatchBuffer::Row& row) const;
  void compare(BatchBuffer& batch);

  const Cpu* q_;
  AnyModel model_;
  const Tokenizer* tokenizer_;
  const ChatTemplate* form_;
  Environment* environment_;
  std::int64_t length_;
  RolloutSettings settings_;
  const float* weights_ = nullptr;
  std::unique_ptr<PackedModel> packed_;  // of them
  std::unique_ptr<Reader> reader_;
  std::vector<Sequence> prompt_;     // one: what the groups' completions go on from
  const Asked* prompted_ = nullptr;  // what it has read
  std::vector<Slot> slots_;
  std::vector<TokenSampler> drawing_, likeliest_;  // one for each thread
  const float* reference_ = nullptr;
  std::int64_t reference_rows_ = 0;
  Buffer reference_memory_;
  std::vector<Asked> asked_;  // of the newest step, one for each group
  std::vector<Draft> drafts_;
  std::vector<Completion> completions_;
  std::vector<double> rewards_;
  RolloutSeen seen_;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<Rollouts> Rollouts::create(const Cpu& q, const AnyModel& model, const Tokenizer& tokenizer,
                                                   const ChatTemplate& form, Environment& environment,
                                                   std::int64_t length, const RolloutSettings& settings) {
  const auto wrong = [](const char* rule, auto found) {
    return Error{std::string(rule) + ", found " + std::to_string(found)};
  };
  if (settings.group < 2) return wrong("a group must have at least 2 completions", settings.group);
  if (settings.completion < 1 || settings.completion > length)
    return wrong("tokens of a completion must be at least 1 and at most those of a row", settings.completion);
  if (!(settings.temperature > 0)) return wrong("the temperature of rollouts must be above 0", settings.temperature);
  if (settings.draws < 1 || settings.draws > 256) return wrong("draws must be between 1 and 256", settings.draws);
  if (settings.live < 1) return wrong("at least 1 completion must be live", settings.live);
  if (settings.format != Format::f32 && settings.format != Format::q8_0)
    return Error{"rollouts are written by weights in f32 or q8_0"};
  Rollouts r(q, model, tokenizer, form, environment, length, settings);
  auto drawing = r.samplers(settings.temperature), likeliest = r.samplers(0.f);
  if (!drawing) return drawing.error();
  if (!likeliest) return likeliest.error();
  r.drawing_ = std::move(*drawing), r.likeliest_ = std::move(*likeliest);
  return r;
}

CHIMERA_FUNCTION Result<std::vector<TokenSampler>> Rollouts::samplers(float temperature) const {
  std::vector<TokenSampler> all;
  for (int i = 0; i < q_->threads(); ++i) {
    auto sampler = TokenSampler::create(
        model_.config->vocab, {.temperature = temperature, .top_k = 0, .top_p = 1.f, .min_p = 0.f, .repeat_last_n = 0});
    if (!sampler) return sampler.error();
    all.push_back(std::move(*sampler));
  }
  return all;
}

CHIMERA_FUNCTION Result<void> Rollouts::follow(const float* weights) {
  auto packed = PackedModel::create(*q_, model_, weights, settings_.format);
  if (!packed) return packed.error();
  packed_ = std::make_unique<PackedModel>(std::move(*packed));
  auto reader = Reader::create(*q_, *packed_, std::max<std::int64_t>(256, settings_.live));
  if (!reader) return reader.error();
  reader_ = std::make_unique<Reader>(std::move(*reader));
  auto prompt = Sequence::create(*packed_, {.context = length_, .kv = KvFormat::f32});
  if (!prompt) return prompt.error();
  slots_.clear(), prompt_.clear();
  prompt_.push_back(std::move(*prompt));
  weights_ = weights;
  return {};
}

CHIMERA_FUNCTION Result<void> Rollouts::refer_to(const float* weights, std::int64_t rows) {
  auto memory = Buffer::of_bytes(model_.loss_bytes(rows, length_));
  if (!memory) return memory.error();
  reference_memory_ = std::move(*memory);
  reference_ = weights, reference_rows_ = rows;
  return {};
}

CHIMERA_FUNCTION Result<void> Rollouts::validate(std::int64_t length, std::int64_t) const {
  if (length == length_) return {};
  return Error{"the rollouts were made for rows of " + std::to_string(length_) + " tokens, asked for are " +
               std::to_string(length)};
}

CHIMERA_FUNCTION Result<void> Rollouts::fill(std::uint64_t first, BatchBuffer& batch) {
  constexpr std::uint64_t apart = std::uint64_t{1} << 32;  // from a problem to the one that is asked instead
  const auto group = static_cast<std::size_t>(settings_.group), rows = static_cast<std::size_t>(batch.rows());
  if (!packed_) return Error{"the rollouts follow no model's weights yet"};
  if (rows % group != 0 || first % group != 0)
    return Error{"expected a step's rows to be whole groups of " + std::to_string(group) + ", found " +
                 std::to_string(rows) + " rows from number " + std::to_string(first)};
  seen_ = {};
  if (Result<void> s = repack(seen_); !s) return s;
  asked_.assign(rows / group, {}), drafts_.assign(rows, {});
  std::vector<float> advantages(rows, 0.f);
  std::vector<std::size_t> open;  // groups to be drawn
  for (std::size_t g = 0; g < asked_.size(); ++g) open.push_back(g);
  for (std::int64_t number = 0; number < settings_.draws && !open.empty(); ++number) {
    std::vector<Draft> now;
    for (const std::size_t g : open) {
      auto asked = ask(*environment_, first / group + g + static_cast<std::uint64_t>(number) * apart);
      if (!asked) return asked.error();
      asked_[g] = std::move(*asked);
      for (std::int64_t m = 0; m < settings_.group; ++m) now.push_back({.asked = &asked_[g], .member = m});
    }
    if (Result<void> s = write(now, drawing_, seen_); !s) return s;
    judge(*environment_, now, number == 0, seen_);
    if (number > 0) seen_.again += static_cast<double>(open.size());
    std::vector<std::size_t> silent;
    for (std::size_t i = 0; i < open.size(); ++i) {
      const std::size_t g = open[i];
      const auto earned = std::span(rewards_).subspan(i * group, group);
      if (std::equal(earned.begin() + 1, earned.end(), earned.begin())) silent.push_back(g);
      group_advantages(earned, settings_.deviation, std::span(advantages).subspan(g * group, group));
      std::move(now.begin() + static_cast<std::ptrdiff_t>(i * group),
                now.begin() + static_cast<std::ptrdiff_t>((i + 1) * group),
                drafts_.begin() + static_cast<std::ptrdiff_t>(g * group));
    }
    open = std::move(silent);
  }
  seen_.silent = static_cast<double>(open.size());
  for (std::size_t r = 0; r < rows; ++r) write_row(drafts_[r], advantages[r], batch.row(static_cast<std::int64_t>(r)));
  batch.set_drawn(true);
  if (reference_) compare(batch);
  return {};
}

CHIMERA_FUNCTION Result<RolloutSeen> Rollouts::examine(Environment& environment, std::int64_t problems) {
  if (!packed_) return Error{"the rollouts follow no model's weights yet"};
  RolloutSeen seen;
  if (Result<void> s = repack(seen); !s) return s.error();
  asked_.clear();
  for (std::int64_t i = 0; i < problems; ++i) {
    auto asked = ask(environment, static_cast<std::uint64_t>(i));
    if (!asked) return asked.error();
    asked_.push_back(std::move(*asked));
  }
  std::vector<Draft> drafts(asked_.size());
  for (std::size_t i = 0; i < drafts.size(); ++i) drafts[i].asked = &asked_[i];
  if (Result<void> s = write(drafts, likeliest_, seen); !s) return s.error();
  judge(environment, drafts, true, seen);
  return seen;
}

CHIMERA_FUNCTION Result<void> Rollouts::repack(RolloutSeen& seen) {
  const double start = platform::seconds();
  Result<void> done = packed_->repack(*q_, weights_, settings_.format);
  seen.seconds += platform::seconds() - start;
  return done;
}

CHIMERA_FUNCTION Result<Rollouts::Asked> Rollouts::ask(const Environment& environment, std::uint64_t number) const {
  Asked asked{number, environment.problem(number)};
  asked.prompt = encode(*tokenizer_, *form_, asked.problem.messages, true);
  if (const Vocabulary& v = tokenizer_->vocabulary(); v.add_bos && v.bos >= 0)
    asked.prompt.insert(asked.prompt.begin(), v.bos);
  if (asked.prompt.empty() || most_tokens(asked) < 1)
    return Error{"problem " + std::to_string(number) + " has " + std::to_string(asked.prompt.size()) +
                 " tokens, expected at least 1 and at most a row's " + std::to_string(length_)};
  return asked;
}

CHIMERA_FUNCTION Result<void> Rollouts::write(std::span<Draft> drafts, std::span<TokenSampler> samplers,
                                              RolloutSeen& seen) {
  const double start = platform::seconds();
  const std::size_t places = std::min(drafts.size(), static_cast<std::size_t>(settings_.live));
  while (slots_.size() < places) {
    auto sequence = Sequence::create(*packed_, {.context = length_, .kv = KvFormat::f32});
    if (!sequence) return sequence.error();
    slots_.push_back({.sequence = std::move(*sequence)});
  }
  prompted_ = nullptr;
  for (Slot& slot : slots_) slot.draft = nullptr;
  std::vector<Slot*> live;
  std::vector<Turn> turns;
  for (auto next = drafts.begin();;) {
    live.clear(), turns.clear();
    for (Slot& slot : slots_) {
      if (!slot.draft && next != drafts.end())
        if (Result<void> s = begin(slot, *next++); !s) return s;
      if (slot.draft) live.push_back(&slot);
    }
    if (live.empty()) break;
    parallel(*q_, static_cast<std::int64_t>(live.size()), [&](std::int64_t i, int worker) {
      (void)draw(*live[static_cast<std::size_t>(i)], samplers[static_cast<std::size_t>(worker)]);
    });
    for (Slot* slot : live) {
      if (slot->token < 0)  // asked for again by the thread that reports it
        if (Result<void> s = draw(*slot, samplers[0]); !s) return s;
      if (extend(*slot->draft, slot->token, slot->log_prob))
        turns.push_back({.sequence = &slot->sequence, .tokens = {&slot->token, 1}});
      else
        slot->draft = nullptr;
    }
    if (!turns.empty())
      if (Result<void> s = reader_->read(turns); !s) return s;
  }
  seen.seconds += platform::seconds() - start;
  return {};
}

/// Its group's prompt is read before the first of the group.
CHIMERA_FUNCTION Result<void> Rollouts::begin(Slot& slot, Draft& draft) {
  Sequence& prompt = prompt_.front();
  if (prompted_ != draft.asked) {
    prompt.reset();
    const Turn turn{.sequence = &prompt, .tokens = draft.asked->prompt};
    if (Result<void> s = reader_->read({&turn, 1}); !s) return s;
    prompted_ = draft.asked;
  }
  slot.draft = &draft;
  return slot.sequence.copy_from(prompt);
}

CHIMERA_FUNCTION Result<void> Rollouts::draw(Slot& slot, TokenSampler& sampler) const {
  constexpr std::uint64_t stream = std::uint64_t{0x6290} << 40;  // apart from those of other draws
  const Draft& draft = *slot.draft;
  slot.token = -1;
  const auto choice = sampler.distribution(slot.sequence.logits());
  if (!choice) return choice.error();
  const std::uint64_t place = static_cast<std::uint64_t>(draft.member) << 32 | draft.ids.size();
  const float number = unit(philox(settings_.seed, stream + draft.asked->number, place)[0]);
  slot.token = choice->candidates[chosen_candidate(*choice, number)].token;
  slot.log_prob = log_probability(q_->isa(), slot.sequence.logits(), slot.token);
  return {};
}

CHIMERA_FUNCTION bool Rollouts::extend(Draft& draft, std::int32_t token, float log_prob) const {
  draft.ids.push_back(token), draft.log_probs.push_back(log_prob);
  draft.ended = ends_answer(*tokenizer_, *form_, token);
  if (draft.ended) return false;
  draft.bytes += tokenizer_->bytes(token);
  if (!form_->special)
    if (const std::size_t end = draft.bytes.find(form_->end); end != std::string::npos) {
      draft.bytes.resize(end), draft.ended = true;
      return false;
    }
  return static_cast<std::int64_t>(draft.ids.size()) < most_tokens(*draft.asked);
}

CHIMERA_FUNCTION Completion Rollouts::completed(const Draft& draft) const {
  constexpr std::string_view opened = "<think>", closed = "</think>";
  Utf8Stream whole;
  std::string text = whole.push(draft.bytes);
  text += whole.flush();
  std::int64_t think = 0;
  if (const std::size_t begin = draft.bytes.find(opened); begin != std::string::npos) {
    const std::size_t end = draft.bytes.find(closed, begin);
    std::size_t at = 0;
    for (const std::int32_t id : draft.ids) {
      think += at >= begin + opened.size() && at < end && at < draft.bytes.size();
      at += tokenizer_->bytes(id).size();
    }
  }
  return {&draft.asked->problem, std::move(text), draft.ended, static_cast<std::int64_t>(draft.ids.size()), think};
}

CHIMERA_FUNCTION void Rollouts::judge(Environment& environment, std::span<const Draft> drafts, bool first,
                                      RolloutSeen& seen) {
  const double start = platform::seconds();
  completions_.clear();
  for (const Draft& draft : drafts) completions_.push_back(completed(draft));
  rewards_.assign(drafts.size(), 0.);
  environment.reward(completions_, rewards_);
  for (std::size_t i = 0; i < drafts.size(); ++i) {
    if (!is_finite(rewards_[i])) rewards_[i] = 0, ++seen.not_numbers;
    const Completion& c = completions_[i];
    const auto tokens = static_cast<double>(c.tokens);
    seen.written += tokens;
    if (!first) continue;
    ++seen.completions, seen.reward += rewards_[i], seen.exact += rewards_[i] >= 1, seen.ended += c.ended;
    seen.tokens += tokens, seen.think += static_cast<double>(c.think);
  }
  seen.reward_seconds += platform::seconds() - start;
}

CHIMERA_FUNCTION void Rollouts::write_row(const Draft& draft, float advantage, const BatchBuffer::Row& row) const {
  const std::vector<std::int32_t>& prompt = draft.asked->prompt;
  const std::size_t asked = prompt.size(), end = asked + draft.ids.size() - 1;  // the last token is a target alone
  for (std::size_t t = 0; t < row.tokens.size(); ++t) {
    const bool counts = t + 1 >= asked && t < end;
    const std::size_t i = counts ? t + 1 - asked : 0;  // of what was drawn
    row.tokens[t] = t < asked ? prompt[t] : t < end ? draft.ids[t - asked] : 0;
    row.targets[t] = counts ? draft.ids[i] : -1;
    row.old[t] = counts ? draft.log_probs[i] : 0.f;
    row.advantages[t] = counts ? advantage : 0.f;
  }
}

CHIMERA_FUNCTION void Rollouts::compare(BatchBuffer& batch) {
  LogProbs said;
  double unread = 0;
  for (std::int64_t first = 0; first < batch.rows(); first += reference_rows_) {
    const std::int64_t count = std::min(reference_rows_, batch.rows() - first);
    model_.loss(*q_, reference_, batch.batch(first, count), said.objective(), reference_memory_.bytes(), &unread);
    for (std::int64_t r = 0; r < count; ++r)
      std::copy_n(said.values.begin() + r * batch.length(), batch.length(), batch.row(first + r).reference.begin());
  }
  batch.set_reference(true);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
