// Conversations and preferences as people keep them: JSON, a record a line (JSON Lines) or one array of all.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/io/json.hpp>
#include <chimera/text/chat_template.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Two answers to one conversation, of which the first was preferred.
struct Preference {
  std::vector<ChatMessage> prompt;
  std::string chosen, rejected;
};

/// A conversation that ends with an answer. Forms:
///   {"messages": [{"role", "content"}, ...]}              as OpenAI and transformers have it; "conversations", too
///   {"conversations": [{"from", "value"}, ...]}           as ShareGPT has it
///   {"prompt", "completion"}                              texts, or lists of messages
///   {"instruction", "input", "output"}                    as Alpaca has it; "input" may be missing
///   {"question", "answer"}                                as GSM8K has it
/// and "system" beside any of them. Errors: another form, a role that is none of system, user, assistant and tool, no
/// answer at the end, or one without text.
Result<std::vector<ChatMessage>> conversation_of(const Json& record);

/// Forms: "chosen" and "rejected" are
///   texts beside "prompt", "conversations" or "instruction";
///   messages, or lists of them that begin with the prompt or with what stands beside them;
///   transcripts "\n\nHuman: ...\n\nAssistant: ..." (hh-rlhf).
/// Errors: another form, conversations that part before their last answer, an answer without text, two equal ones.
Result<Preference> preference_of(const Json& record);

/// Calls f(number, Result<Json>) for each record of a text, numbered from 1 by line or, in an array, by place. A record
/// is valid while f runs. Lines without anything are passed over.
template <class F>
void each_record(std::string_view text, F&& f) {
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start != text.npos && text[start] == '[') {
    const auto all = Json::parse(text);
    if (!all) return f(std::int64_t{1}, Result<Json>(all.error()));
    std::int64_t number = 0;
    for (const Json record : all->elements()) f(++number, Result<Json>(record));
    return;
  }
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.find_first_not_of(" \t\r") != line.npos) f(number, Json::parse(line));
  }
}

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace chat_data_parts {

/// Whether there is more than space in it.
inline bool says_something(std::string_view text) { return text.find_first_not_of(" \t\r\n") != text.npos; }

/// Our word for a role, as others call it; empty for a role that is not known.
inline std::string_view role_of(std::string_view word) {
  constexpr std::array<std::array<std::string_view, 2>, 10> words{{{"system", "system"},
                                                                   {"user", "user"},
                                                                   {"human", "user"},
                                                                   {"assistant", "assistant"},
                                                                   {"gpt", "assistant"},
                                                                   {"model", "assistant"},
                                                                   {"bot", "assistant"},
                                                                   {"tool", "tool"},
                                                                   {"function", "tool"},
                                                                   {"observation", "tool"}}};
  const auto* const found = std::find_if(words.begin(), words.end(), [&](const auto& w) { return w[0] == word; });
  return found == words.end() ? std::string_view() : (*found)[1];
}

/// The text of "content": as it is, or what the parts of type "text" say.
inline Result<std::string> content_of(const Json& value, std::string_view name) {
  if (auto text = value.string()) return std::move(*text);
  if (!value.is(Json::Kind::array))
    return Error{"\"" + std::string(name) + "\": expected a text, found " + std::string(Json::name_of(value.kind()))};
  std::string all;
  for (const Json part : value.elements()) {
    const auto type = part.string_at("type");
    if (!type || *type != "text") return Error{"\"" + std::string(name) + "\": expected parts of the type \"text\""};
    const auto text = part.string_at("text");
    if (!text) return text.error();
    all += *text;
  }
  return all;
}

inline Result<ChatMessage> message_of(const Json& value) {
  if (!value.is(Json::Kind::object))
    return Error{"expected a message, found " + std::string(Json::name_of(value.kind()))};
  const bool share = value.find("from").has_value();
  const auto role = value.string_at(share ? "from" : "role");
  if (!role) return role.error();
  const std::string_view name = share ? "value" : "content";
  const auto said = value.find(name);
  if (!said) return Error{"a message has no \"" + std::string(name) + "\""};
  auto text = content_of(*said, name);
  if (!text) return text.error();
  const std::string_view ours = role_of(*role);
  if (ours.empty()) return Error{"expected the role system, user, assistant or tool, found \"" + *role + "\""};
  return ChatMessage{std::string(ours), std::move(*text)};
}

inline Result<std::vector<ChatMessage>> messages_of(const Json& list) {
  std::vector<ChatMessage> all;
  for (const Json value : list.elements()) {
    auto message = message_of(value);
    if (!message) return message.error();
    all.push_back(std::move(*message));
  }
  return all;
}

/// What a text, a message or a list of messages under `name` says; a text is said by `role`.
inline Result<std::vector<ChatMessage>> said_under(const Json& record, std::string_view name, std::string_view role) {
  const auto value = record.find(name);
  if (!value) return Error{"it has no \"" + std::string(name) + "\""};
  if (value->is(Json::Kind::object)) {
    auto message = message_of(*value);
    if (!message) return message.error();
    return std::vector{std::move(*message)};
  }
  if (value->is(Json::Kind::array)) return messages_of(*value);
  const auto text = value->string();
  if (!text)
    return Error{"\"" + std::string(name) + "\": expected a text or messages, found " +
                 std::string(Json::name_of(value->kind()))};
  return std::vector{ChatMessage{std::string(role), *text}};
}

/// What stands before the answers of a record; nothing, if it says nothing of that.
inline Result<std::vector<ChatMessage>> prompt_of(const Json& record) {
  std::vector<ChatMessage> all;
  if (const auto system = record.find("system"); system && system->string() && says_something(*system->string()))
    all.push_back({"system", *system->string()});
  for (const std::string_view name : {"messages", "conversations", "prompt", "question"})
    if (record.find(name)) {
      auto said = said_under(record, name, "user");
      if (!said) return said.error();
      all.insert(all.end(), said->begin(), said->end());
      return all;
    }
  if (!record.find("instruction")) return all;
  auto task = record.string_at("instruction");
  if (!task) return task.error();
  if (record.find("input")) {
    const auto input = record.string_at("input");
    if (!input) return input.error();
    if (says_something(*input)) *task += "\n\n" + *input;
  }
  all.push_back({"user", *task});
  return all;
}

/// The turns of "\n\nHuman: ...\n\nAssistant: ..."; none if it is no transcript.
inline std::optional<std::vector<ChatMessage>> transcript(std::string_view text) {
  constexpr std::string_view human = "\n\nHuman:", assistant = "\n\nAssistant:";
  if (!text.starts_with(human)) return std::nullopt;
  std::vector<ChatMessage> all;
  while (!text.empty()) {
    const bool asks = text.starts_with(human);
    text.remove_prefix((asks ? human : assistant).size());
    const std::size_t end = std::min({text.find(human), text.find(assistant), text.size()});
    std::string_view turn = text.substr(0, end);
    turn.remove_prefix(std::min(turn.find_first_not_of(" \n"), turn.size()));
    all.push_back({asks ? "user" : "assistant", std::string(turn)});
    text.remove_prefix(end);
  }
  return all;
}

inline Result<void> check_conversation(const std::vector<ChatMessage>& all) {
  if (all.empty() || all.back().role != "assistant")
    return Error{"expected an assistant's answer at the end, found " +
                 (all.empty() ? std::string("nothing") : "the role " + all.back().role)};
  if (!says_something(all.back().text)) return Error{"the answer is empty"};
  return {};
}

}  // namespace chat_data_parts

CHIMERA_FUNCTION Result<std::vector<ChatMessage>> conversation_of(const Json& record) {
  using namespace chat_data_parts;
  if (!record.is(Json::Kind::object))
    return Error{"expected an object, found " + std::string(Json::name_of(record.kind()))};
  auto all = prompt_of(record);
  if (!all) return all.error();
  for (const std::string_view name : {"completion", "output", "answer"})
    if (record.find(name)) {
      const auto said = said_under(record, name, "assistant");
      if (!said) return said.error();
      all->insert(all->end(), said->begin(), said->end());
      break;
    }
  if (all->empty())
    return Error{
        "expected \"messages\", \"conversations\", \"prompt\" with \"completion\", \"instruction\" with "
        "\"output\", or \"question\" with \"answer\""};
  if (Result<void> s = check_conversation(*all); !s) return s.error();
  return all;
}

CHIMERA_FUNCTION Result<Preference> preference_of(const Json& record) {
  using namespace chat_data_parts;
  if (!record.is(Json::Kind::object))
    return Error{"expected an object, found " + std::string(Json::name_of(record.kind()))};
  const auto prompt = prompt_of(record);
  if (!prompt) return prompt.error();
  std::array<std::vector<ChatMessage>, 2> both;
  for (std::size_t i = 0; i < 2; ++i) {
    auto said = said_under(record, i == 0 ? "chosen" : "rejected", "assistant");
    if (!said) return said.error();
    if (prompt->empty() && said->size() == 1)
      if (auto turns = transcript(said->front().text)) *said = std::move(*turns);
    const bool whole = said->size() > 1;  // and not the answer alone
    if (!whole || !std::equal(prompt->begin(), prompt->end(), said->begin(),
                              said->begin() + static_cast<std::ptrdiff_t>(std::min(prompt->size(), said->size()))))
      both[i] = *prompt;
    both[i].insert(both[i].end(), said->begin(), said->end());
    if (Result<void> s = check_conversation(both[i]); !s)
      return Error{(i == 0 ? "\"chosen\": " : "\"rejected\": ") + s.error().message};
  }
  Preference p{{}, std::move(both[0].back().text), std::move(both[1].back().text)};
  both[0].pop_back(), both[1].pop_back();
  if (both[0] != both[1]) return Error{"\"chosen\" and \"rejected\" part before their last answer"};
  if (both[0].empty()) return Error{"there is no prompt before the answers"};
  if (p.chosen == p.rejected) return Error{"the two answers are equal"};
  p.prompt = std::move(both[0]);
  return p;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
