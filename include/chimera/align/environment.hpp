// What a model is asked, and what its answers are worth: where rewards come from.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/text/chat_template.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// A conversation that ends where the model is to answer.
struct Problem {
  std::vector<ChatMessage> messages;
  std::string answer;  // what is right, in the environment's own words; may be empty
};

/// What a model wrote.
struct Completion {
  const Problem* problem;
  std::string text;
  bool ended;           // by itself, and not because it became too long
  std::int64_t tokens;  // with that which ended it
  std::int64_t think;   // those of them between <think> and </think>
};

struct Environment {
  virtual ~Environment() = default;
  /// A function of the number alone: that is why a run can be resumed.
  virtual Problem problem(std::uint64_t number) const = 0;
  /// What each completion earns, of any size; NaN and infinity count as 0. All completions of a step come together.
  virtual void reward(std::span<const Completion> completions, std::span<double> rewards) = 0;
  /// Problems after which they come again; 0: never. And what tells them from others.
  virtual std::uint64_t problems() const { return 0; }
  virtual std::uint32_t checksum() const { return 0; }
};

}  // namespace chimera::inline CHIMERA_ABI
