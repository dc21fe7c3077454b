// Conversations as the text, and the tokens, that chat models are trained on. A model's own template is a program
// (Jinja); as in llama.cpp it is recognised by the special tokens it speaks of, and not run.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace chimera {

struct ChatMessage {
  std::string role, text;  // role: system, user or assistant

  bool operator==(const ChatMessage&) const = default;
};

/// A message is written as before_role, its role, after_role, its text, after_text. Messages do not change what stands
/// before them, so a conversation grows by its new messages alone.
struct ChatTemplate {
  std::string_view name, before_role, after_role, after_text;
  std::string_view end;  // begins after_text: what a model writes when its answer is complete
  bool trims = false;    // space around a text is left out
  bool special = true;   // before_role and end are special tokens
  bool roles = true;     // else a message is its text alone, and what is written after it continues it
};

/// plain: for models that know no special tokens. text: for those that know no conversations. An answer of these is one
/// paragraph.
inline constexpr std::array<ChatTemplate, 5> chat_templates{{
    {"chatml", "<|im_start|>", "\n", "<|im_end|>\n", "<|im_end|>"},
    {"llama3", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", "<|eot_id|>", true},
    {"granite", "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>\n", "<|end_of_text|>"},
    {"plain", "", ":\n", "\n\n", "\n\n", true, false},
    {"text", "", "", "\n\n", "\n\n", false, false, false},
}};

/// The template of that name; null if there is none.
constexpr const ChatTemplate* chat_template_named(std::string_view name) {
  for (const ChatTemplate& t : chat_templates)
    if (t.name == name) return &t;
  return nullptr;
}

/// The one that writes what this Jinja source does; null if none is known to.
constexpr const ChatTemplate* chat_template_of(std::string_view jinja) {
  const auto has = [&](std::string_view text) { return jinja.find(text) != std::string_view::npos; };
  if (has("<|im_start|>")) {
    const bool other = has("<|im_sep|>") || has("<end_of_utterance>");  // of Phi-4 and SmolVLM
    return other ? nullptr : chat_template_named("chatml");
  }
  if (has("<|start_header_id|>") && has("<|end_header_id|>")) return chat_template_named("llama3");
  if (has("<|start_of_role|>")) return chat_template_named("granite");
  return nullptr;
}

/// Whether the vocabulary has the template's special tokens.
bool can_write(const Tokenizer& tokenizer, const ChatTemplate& t);

/// The template that the tokenizer's model was trained on; null if none is known, or cannot be written.
inline const ChatTemplate* chat_template_of(const Tokenizer& tokenizer) {
  const ChatTemplate* t = chat_template_of(std::string_view(tokenizer.vocabulary().chat_template));
  return t && can_write(tokenizer, *t) ? t : nullptr;
}

/// Whether a model that writes this token has finished its answer.
bool ends_answer(const Tokenizer& tokenizer, const ChatTemplate& t, std::int32_t id);

/// Tokens of a conversation, and which of them the model says itself.
struct MarkedTokens {
  std::vector<std::int32_t> ids;
  std::vector<bool> said;  // [ids]
};

namespace chat_parts {

/// Hands out the parts of a conversation in turn: form(text) of the template's, text(text) of a message's. Calls
/// said(true) before what a model writes itself, its answer and the end of it, and said(false) behind that.
template <class Form, class Text, class Said>
void write_chat(const ChatTemplate& t, std::span<const ChatMessage> messages, bool begin_answer, Form form, Text text,
                Said said) {
  const auto head = [&](std::string_view role) {
    if (t.roles) form(t.before_role), text(role), form(t.after_role);
  };
  for (const ChatMessage& m : messages) {
    std::string_view trimmed = m.text;
    if (t.trims) {
      constexpr std::string_view space = " \t\n\v\f\r";
      trimmed.remove_prefix(std::min(trimmed.find_first_not_of(space), trimmed.size()));
      trimmed = trimmed.substr(0, trimmed.find_last_not_of(space) + 1);
    }
    const bool answer = m.role == "assistant";
    head(m.role);
    if (answer) said(true);
    text(trimmed);
    if (answer) form(t.end), said(false), form(t.after_text.substr(t.end.size()));
    if (!answer && (t.roles || m.role != "user")) form(t.after_text);
  }
  if (begin_answer) head("assistant");
}

/// Text between two special tokens of a template is encoded as one, whoever it comes from; that of an answer, where
/// answers are told apart, by itself: a model that answers goes on from the tokens before it.
class ChatEncoder {
 public:
  explicit ChatEncoder(const Tokenizer& tokenizer) : t_(tokenizer) {}

  /// Special tokens become tokens.
  void form(std::string_view text) {
    t_.split_specials(text, Special::as_token, [&](auto part) {
      if constexpr (std::is_same_v<decltype(part), std::int32_t>)
        encode_waiting(), add({&part, 1});
      else
        waiting_ += part;
    });
  }

  /// Special tokens stay text: where the vocabulary has a template's token as a user-defined one, which matches
  /// everywhere, its first character is encoded apart from the rest.
  void text(std::string_view text, const ChatTemplate& t) {
    t_.split_specials(text, Special::as_text, [&](auto part) {
      if constexpr (std::is_same_v<decltype(part), std::int32_t>) {
        const std::string_view name = t_.bytes(part);
        waiting_ += name.substr(0, 1);
        if (t.before_role == name || t.after_role.starts_with(name) || t.end == name) encode_waiting();
        waiting_ += name.substr(1);
      } else {
        waiting_ += part;
      }
    });
  }

  /// What comes now is said by the model, or no more.
  void said(bool now) {
    encode_waiting();
    saying_ = now;
  }

  std::vector<std::int32_t> finish() {
    encode_waiting();
    return std::move(ids_);
  }
  MarkedTokens finish_marked() {
    encode_waiting();
    return {std::move(ids_), std::move(said_)};
  }

 private:
  void encode_waiting() {
    add(t_.encode(waiting_));
    waiting_.clear();
  }

  void add(std::span<const std::int32_t> ids) {
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    said_.insert(said_.end(), ids.size(), saying_);
  }

  const Tokenizer& t_;
  std::string waiting_;
  bool saying_ = false;
  std::vector<std::int32_t> ids_;
  std::vector<bool> said_;
};

}  // namespace chat_parts

/// The conversation as text; with `begin_answer` it ends where the model is to go on.
std::string render(const ChatTemplate& t, std::span<const ChatMessage> messages, bool begin_answer);

/// The ids of `render`'s text, in which special tokens are those of the template alone: what a message says of
/// <|im_end|> is text. Without the token that begins a text (Vocabulary::add_bos).
std::vector<std::int32_t> encode(const Tokenizer& tokenizer, const ChatTemplate& t,
                                 std::span<const ChatMessage> messages, bool begin_answer);

/// The same ids, but that each answer is encoded by itself, as it is written when a model says it: answers and the ends
/// of answers are what it says.
MarkedTokens encode_answers(const Tokenizer& tokenizer, const ChatTemplate& t, std::span<const ChatMessage> messages);

/// What a model reads after its answer, whose tokens it has read without the one that ended it: the end of the answer,
/// `message`, and the beginning of the next answer.
std::vector<std::int32_t> encode_next(const Tokenizer& tokenizer, const ChatTemplate& t, const ChatMessage& message);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION bool can_write(const Tokenizer& tokenizer, const ChatTemplate& t) {
  return !t.special || (tokenizer.special(t.before_role) && tokenizer.special(t.end));
}

CHIMERA_FUNCTION bool ends_answer(const Tokenizer& tokenizer, const ChatTemplate& t, std::int32_t id) {
  return tokenizer.ends_text(id) || (t.special && tokenizer.special(t.end) == id);
}

CHIMERA_FUNCTION std::string render(const ChatTemplate& t, std::span<const ChatMessage> messages, bool begin_answer) {
  std::string out;
  const auto add = [&](std::string_view text) { out += text; };
  chat_parts::write_chat(t, messages, begin_answer, add, add, [](bool) {});
  return out;
}

CHIMERA_FUNCTION std::vector<std::int32_t> encode(const Tokenizer& tokenizer, const ChatTemplate& t,
                                                  std::span<const ChatMessage> messages, bool begin_answer) {
  chat_parts::ChatEncoder encoder(tokenizer);
  chat_parts::write_chat(
      t, messages, begin_answer, [&](std::string_view text) { encoder.form(text); },
      [&](std::string_view text) { encoder.text(text, t); }, [](bool) {});
  return encoder.finish();
}

CHIMERA_FUNCTION MarkedTokens encode_answers(const Tokenizer& tokenizer, const ChatTemplate& t,
                                             std::span<const ChatMessage> messages) {
  chat_parts::ChatEncoder encoder(tokenizer);
  chat_parts::write_chat(
      t, messages, false, [&](std::string_view text) { encoder.form(text); },
      [&](std::string_view text) { encoder.text(text, t); }, [&](bool now) { encoder.said(now); });
  return encoder.finish_marked();
}

CHIMERA_FUNCTION std::vector<std::int32_t> encode_next(const Tokenizer& tokenizer, const ChatTemplate& t,
                                                       const ChatMessage& message) {
  chat_parts::ChatEncoder encoder(tokenizer);
  encoder.form(t.after_text);
  chat_parts::write_chat(
      t, {&message, 1}, true, [&](std::string_view text) { encoder.form(text); },
      [&](std::string_view text) { encoder.text(text, t); }, [](bool) {});
  return encoder.finish();
}

}  // namespace chimera
#endif
