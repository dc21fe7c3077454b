// chimera-align grpo, and the problems that it asks: its flags, where rewards come from, and what is said of a run.
#pragma once

#include "reward_command.hpp"
#include "training_run.hpp"

#include <chimera/align/arithmetic.hpp>
#include <chimera/align/environment.hpp>
#include <chimera/align/grpo.hpp>
#include <chimera/align/rollouts.hpp>
#include <chimera/core/checksum.hpp>
#include <chimera/core/fields.hpp>
#include <chimera/io/json.hpp>
#include <chimera/train/windows.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

enum class GrpoTaskKind : std::uint8_t { arithmetic, gsm8k, prompts };

/// What the command is told; a run's folder has it, too.
struct GrpoTask {
  GrpoTaskKind kind = GrpoTaskKind::arithmetic;
  chimera::RolloutSettings rollouts;
  chimera::Grpo grpo;
  bool raw_advantages = false;  // not divided by the deviation
  std::int64_t updates = 1;
  bool q8 = false;
  chimera::ArithmeticSettings arithmetic;
  std::int64_t held_out = 128;
  std::string command;
  double command_seconds = 30;
  std::string model;  // whose weights the run began with, and what tells them from others
  std::uint32_t began = 0;

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("task", s.kind), f("group", s.rollouts.group), f("completion", s.rollouts.completion);
    f("temperature", s.rollouts.temperature), f("draws", s.rollouts.draws), f("live", s.rollouts.live);
    f("q8_rollouts", s.q8), f("raw_advantages", s.raw_advantages), f("updates", s.updates);
    f("reduction", s.grpo.reduction), f("ratio_clip", s.grpo.clip), f("ratio_clip_high", s.grpo.clip_high);
    f("kl", s.grpo.kl), f("operations", s.arithmetic.operations), f("least_digits", s.arithmetic.least_digits);
    f("digits", s.arithmetic.most_digits), f("words", s.arithmetic.words), f("hindi", s.arithmetic.hindi);
    f("devanagari", s.arithmetic.devanagari), f("instruct", s.arithmetic.instruct);
    f("arithmetic_seed", s.arithmetic.seed), f("held_out_problems", s.held_out);
    f("reward_command", s.command), f("reward_seconds", s.command_seconds);
    f("grpo_model", s.model), f("grpo_model_checksum", s.began);
  }
};

inline void add_arithmetic_flags(CLI::App& app, chimera::ArithmeticSettings& s) {
  app.add_option("--operations", s.operations, "of arithmetic: some of + - * /");
  app.add_option("--least-digits", s.least_digits, "of arithmetic: an operand's digits, at least")
      ->check(between(1, 4));
  app.add_option("--digits", s.most_digits, "of arithmetic: an operand's digits, at most")->check(between(1, 4));
  app.add_option("--words", s.words, "of arithmetic: share of problems of two steps, told in words")
      ->check(between(0, 1));
  app.add_option("--hindi", s.hindi, "of arithmetic: share of problems in Hindi")->check(between(0, 1));
  app.add_option("--devanagari", s.devanagari, "of arithmetic: share of those with Devanagari digits")
      ->check(between(0, 1));
  app.add_flag_callback(
      "--no-instruction", [&s] { s.instruct = false; }, "of arithmetic: problems do not say how to answer them");
  app.add_option("--problem-seed", s.seed, "of arithmetic: of the problems");
}

/// After the flags of training, whose --clip is the gradient's: here it is the ratio's, and the other's name is longer.
inline void add_grpo_flags(CLI::App& app, GrpoTask& task, double& gradient_clip) {
  using chimera::GrpoReduction;
  app.remove_option(app.get_option("--clip"));
  app.add_option("--gradient-clip", gradient_clip, "largest norm of the gradient; 0: no limit");
  add_choice(
      app, "--task", task.kind,
      {{"arithmetic", GrpoTaskKind::arithmetic}, {"gsm8k", GrpoTaskKind::gsm8k}, {"prompts", GrpoTaskKind::prompts}},
      "what is asked: arithmetic from a seed; questions of --data whose answers end with #### and a number; or\n"
      "any prompts of --data, for a --reward");
  app.add_option("--group", task.rollouts.group, "completions of a problem");
  app.add_option("--completion", task.rollouts.completion, "tokens of a completion, at most");
  app.add_option("--temperature", task.rollouts.temperature, "of completions")->check(positive());
  app.add_option("--draws", task.rollouts.draws,
                 "times that other problems are asked in place of those whose completions all earn the same");
  app.add_option("--live", task.rollouts.live, "completions that are written side by side, at most");
  app.add_flag("--q8-rollouts", task.q8, "completions are written by weights of 8 bits: faster, and a little off");
  app.add_option("--clip", task.grpo.clip, "how far a token's ratio may fall in one step")->check(between(0, 1));
  app.add_option("--clip-high", task.grpo.clip_high, "how far it may grow")->check(non_negative());
  app.add_option("--kl", task.grpo.kl, "weight of the distance from the model at the beginning")->check(non_negative());
  add_choice(app, "--reduction", task.grpo.reduction,
             {{"dapo", GrpoReduction::dapo}, {"grpo", GrpoReduction::grpo}, {"dr-grpo", GrpoReduction::dr_grpo}},
             "what tokens count: all alike, each completion as much as another, or whatever their number");
  app.add_flag("--raw-advantages", task.raw_advantages, "advantages are not divided by the group's deviation");
  app.add_option("--updates", task.updates, "updates from the same completions")->check(at_least(1));
  app.add_option("--held-out-problems", task.held_out,
                 "of arithmetic: problems of the operands kept apart, to ask at\n"
                 "each validation")
      ->check(at_least(1));
  app.add_option("--reward", task.command,
                 "a command that judges: for each completion it reads a line {\"prompt\", \"completion\", \"answer\"} "
                 "and writes a number")
      ->type_name("COMMAND")
      ->default_str("");
  app.add_option("--reward-seconds", task.command_seconds, "that it may take for one step's")->check(positive());
  add_arithmetic_flags(app, task.arithmetic);
}

/// Problems of files, in an order by the seed, every epoch another.
class ListedProblems : public chimera::Environment {
 public:
  ListedProblems(std::vector<chimera::Problem> all, bool shuffled, std::uint64_t seed)
      : all_(std::move(all)), shuffled_(shuffled), seed_(seed) {}

  chimera::Problem problem(std::uint64_t number) const override {
    constexpr std::uint64_t stream = std::uint64_t{0x9A0B} << 40;  // apart from those of other draws
    const std::uint64_t n = all_.size();
    return all_[shuffled_ && n > 1 ? chimera::shuffled_index(number % n, n, seed_, stream + number / n) : number % n];
  }
  void reward(std::span<const chimera::Completion> completions, std::span<double> rewards) override {
    for (std::size_t i = 0; i < completions.size(); ++i)
      rewards[i] =
          chimera::answer_reward(completions[i].text, completions[i].problem->answer, chimera::AnswerForm::hashes);
  }
  std::uint64_t problems() const override { return all_.size(); }
  std::uint32_t checksum() const override {
    std::uint32_t sum = 0;
    for (const chimera::Problem& p : all_) {
      for (const chimera::ChatMessage& m : p.messages) sum = chimera::crc32c(m.text.data(), m.text.size(), sum);
      sum = chimera::crc32c(p.answer.data(), p.answer.size(), sum);
    }
    return sum;
  }

 private:
  std::vector<chimera::Problem> all_;
  bool shuffled_;
  std::uint64_t seed_;
};

/// The problems of another, judged by a command. What it fails to judge earns nothing.
class JudgedByCommand : public chimera::Environment {
 public:
  JudgedByCommand(std::unique_ptr<chimera::Environment> asked, std::string command, double seconds)
      : asked_(std::move(asked)), command_(std::move(command)), seconds_(seconds) {}

  /// Completions without a reward since this was last asked, and why: the first of them.
  std::pair<std::int64_t, std::string> failures() {
    return {std::exchange(failures_, 0), std::exchange(why_, std::string())};
  }

  chimera::Problem problem(std::uint64_t number) const override { return asked_->problem(number); }
  std::uint64_t problems() const override { return asked_->problems(); }
  std::uint32_t checksum() const override { return asked_->checksum(); }

  void reward(std::span<const chimera::Completion> completions, std::span<double> rewards) override {
    std::string lines;
    for (const chimera::Completion& c : completions)
      lines += "{\"prompt\":" + chimera::json_quoted(c.problem->messages.back().text) +
               ",\"completion\":" + chimera::json_quoted(c.text) +
               ",\"answer\":" + chimera::json_quoted(c.problem->answer) + "}\n";
    const auto said = run_command(command_, lines, seconds_);
    std::string_view rest = said ? *said : std::string_view();
    for (std::size_t i = 0; i < completions.size(); ++i) {
      std::string_view line = rest.substr(0, rest.find('\n'));
      const bool there = !rest.empty();
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
      if (there && chimera::from_text(line, rewards[i])) continue;
      rewards[i] = 0;
      if (failures_++ > 0) continue;
      why_ = !said   ? said.error().message
             : there ? "expected a number of the reward command, found " + chimera::json_quoted(line.substr(0, 40))
                     : "the reward command wrote " + std::to_string(i) + " numbers for " +
                           std::to_string(completions.size()) + " completions";
    }
  }

 private:
  std::unique_ptr<chimera::Environment> asked_;
  std::string command_;
  double seconds_;
  std::int64_t failures_ = 0;
  std::string why_;
};

/// What a GRPO run is made of besides the trainer, for the host that tells of it.
struct GrpoParts {
  chimera::Rollouts* rollouts;
  const chimera::GrpoUpdates* updates;
  const chimera::Grpo* grpo;
  chimera::Environment* held;
  JudgedByCommand *judge, *held_judge;  // null: there is no command
  std::int64_t held_problems;
  double last = -1;  // reward on the problems held out, at the end; negative: not asked
};

/// Says what completions earn.
class GrpoRun : public RunHost {
 public:
  template <class... Rest>
  explicit GrpoRun(GrpoParts& parts, Rest&&... rest) : RunHost(std::forward<Rest>(rest)...), parts_(parts) {}

  static Curve new_curve() { return Curve::of_rewards(); }

  /// Asks the problems held out, and shows one of them.
  chimera::Status examine(std::int64_t step) {
    if (parts_.held_problems == 0) return {};
    chimera::Rollouts& rollouts = *parts_.rollouts;
    const auto seen = rollouts.examine(*parts_.held, parts_.held_problems);
    if (!seen) return seen.error();
    tell_failures(parts_.held_judge);
    using S = chimera::RolloutSeen;
    parts_.last = seen->mean(&S::reward);
    write(step, {{"held_out_reward", parts_.last},
                 {"held_out_exact", seen->mean(&S::exact)},
                 {"held_out_tokens", seen->mean(&S::tokens)},
                 {"held_out_think_tokens", seen->mean(&S::think)}});
    point_held_out(step, parts_.last);
    say(
        formatted("step %lld: of %.0f problems held out %.1f %% are exact; reward %.4f, %.1f tokens, %.1f of them "
                  "thoughts",
                  static_cast<long long>(step), seen->completions, 100 * seen->mean(&S::exact), parts_.last,
                  seen->mean(&S::tokens), seen->mean(&S::think)));
    const chimera::Completion& shown = rollouts.completions().front();
    say("  asked " + chimera::json_quoted(shown.problem->messages.back().text) + "\n  wrote " +
        chimera::json_quoted(shown.text) + formatted(", worth %g", rollouts.rewards().front()));
    return {};
  }

  void on_begin(std::int64_t step) override {
    if (step == 0) record(examine(0));
  }

  void on_step(const chimera::StepReport& r) override {
    using S = chimera::RolloutSeen;
    const S& seen = parts_.rollouts->seen();
    const chimera::GrpoSeen &before = parts_.updates->before(), &last = parts_.grpo->seen;
    write(r.step, {{"reward", seen.mean(&S::reward)},
                   {"exact", seen.mean(&S::exact)},
                   {"completion_tokens", seen.mean(&S::tokens)},
                   {"think_tokens", seen.mean(&S::think)},
                   {"ended", seen.mean(&S::ended)},
                   {"groups_again", seen.again},
                   {"groups_silent", seen.silent},
                   {"rollout_kl", before.moved_kl()},
                   {"rollout_farthest", before.farthest},
                   {"clipped", last.clipped_share()},
                   {"kl", last.reference_kl()},
                   {"rollout_tokens_per_second", seen.written / seen.seconds},
                   {"rollout_seconds", seen.seconds},
                   {"reward_seconds", seen.reward_seconds},
                   {"step_seconds", step_seconds(r)}});
    if (seen.not_numbers > 0 && !told_not_numbers_) {
      told_not_numbers_ = true;
      say(formatted("step %lld: %.0f rewards are no numbers and count as 0", static_cast<long long>(r.step),
                    seen.not_numbers));
    }
    tell_failures(parts_.judge);
    RunHost::on_step(r);
    const std::int64_t every = validation_interval();
    if (r.step == r.steps || (every > 0 && r.step % every == 0)) record(examine(r.step));
  }

 protected:
  double shown(const chimera::StepReport&) const override {
    return parts_.rollouts->seen().mean(&chimera::RolloutSeen::reward);
  }
  std::string line(const chimera::StepReport& r) const override {
    using S = chimera::RolloutSeen;
    const S& seen = parts_.rollouts->seen();
    return formatted(
        "step %lld/%lld  reward %.3f  exact %.0f %%  %.1f tokens  KL %.1e  %s tok/s written  %.2f s a "
        "step  %s left",
        static_cast<long long>(r.step), static_cast<long long>(r.steps), seen.mean(&S::reward),
        100 * seen.mean(&S::exact), seen.mean(&S::tokens), parts_.updates->before().moved_kl(),
        grouped(static_cast<std::int64_t>(seen.written / seen.seconds)).c_str(), step_seconds(r),
        duration(r.seconds_left).c_str());
  }

 private:
  /// Every failure counts; the first is told, and each that is another.
  void tell_failures(JudgedByCommand* judge) {
    if (!judge) return;
    const auto [count, why] = judge->failures();
    failures_ += count;
    if (count == 0 || why == told_) return;
    told_ = why;
    say(formatted("warning: %s; ", why.c_str()) + grouped(failures_) + " completions earned nothing for such so far");
  }

  GrpoParts& parts_;
  bool told_not_numbers_ = false;
  std::int64_t failures_ = 0;
  std::string told_;
};

/// One of them for each line of JSON, with a worked answer: what sft learns from before.
inline void write_arithmetic(const chimera::ArithmeticSettings& settings, chimera::Operands operands,
                             std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const chimera::ArithmeticProblem p = arithmetic_problem(settings, operands, static_cast<std::uint64_t>(i));
    std::printf("{\"prompt\":%s,\"completion\":%s,\"answer\":%s}\n", chimera::json_quoted(p.question).c_str(),
                chimera::json_quoted("<think>" + p.thought + "</think>" + p.answer).c_str(),
                chimera::json_quoted(p.answer).c_str());
  }
}
