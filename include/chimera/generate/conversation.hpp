// A conversation with a chat model: its messages, what of them the model has read, and answers as they are written.
#pragma once

#include <chimera/core/files.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/generate/stop_strings.hpp>
#include <chimera/io/json.hpp>
#include <chimera/text/chat_template.hpp>
#include <chimera/text/token_decoder.hpp>
#include <chimera/text/tokenizer.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

struct ConversationSettings {
  std::string system{};             // a message before all others; empty: none
  std::int64_t tokens = 0;          // of an answer, at most; 0: until it ends
  std::vector<std::string> stop{};  // strings that end an answer, and are not part of it
};

/// Nothing is read twice: a message is read where the session is, after the answer before.
class Conversation {
 public:
  /// The tokenizer and the template must outlive the conversation.
  static Result<Conversation> create(const Tokenizer& tokenizer, const ChatTemplate& form, Session session,
                                     TokenSampler sampler, ConversationSettings settings = {});

  std::span<const ChatMessage> messages() const { return messages_; }

  /// Reads a message and writes the answer: show(text) gets each part of it. Where `stop` becomes true the answer ends;
  /// false is returned if it had not begun, and then the message does not count. An error in reading leaves the
  /// conversation as it was, one in the answer what was written before it.
  template <class Show>
  Result<bool> say(std::string text, Show show, const std::atomic<bool>* stop = nullptr) {
    messages_.push_back({"user", std::move(text)});
    if (Result<void> s = read(stop); !s) {
      messages_.pop_back();
      if (!stop || !stop->load(std::memory_order_relaxed)) return s.error();
      forget();
      return false;
    }
    if (Result<void> s = answer(show, stop); !s) return s.error();
    return true;
  }

  /// Forgets all messages but the system's.
  void reset();

  /// A file of JSON, a zero byte and what the session remembers.
  Result<void> save(const std::string& path) const;

  /// Goes on with a saved conversation. On an error nothing has changed. Where the session is of no use, of another
  /// model for example, the text is read again with the next message: then the result says why, else it is empty.
  Result<std::string> load(const std::string& path);

 private:
  Conversation(const Tokenizer& tokenizer, const ChatTemplate& form, Session session, TokenSampler sampler,
               StopStrings stop);

  /// The next message is read together with all before it.
  void forget();

  /// Reads up to where the answer begins. To be stopped is an error, too.
  Result<void> read(const std::atomic<bool>* stop);

  template <class Show>
  Result<void> answer(Show& show, const std::atomic<bool>* stop) {
    reads_all_ = end_is_read_ = false;
    stop_.reset();
    TokenDecoder decoder(*tokenizer_);
    ChatMessage& message = messages_.emplace_back(ChatMessage{"assistant", {}});
    const auto add = [&](const std::string& part) {
      message.text += part;
      show(std::string_view(part));
    };
    Result<void> status;
    for (std::int64_t n = 0; status && !stop_.stopped() && (limit_ == 0 || n < limit_); ++n) {
      if (stop && stop->load(std::memory_order_relaxed)) break;
      const auto token = sampler_.draw(session_.logits());
      if (!token) {
        status = token.error();
        break;
      }
      if (ends_answer(*tokenizer_, *form_, *token)) break;
      add(stop_.push(decoder.push(*token)));
      if (!session_.settings().slide && session_.position() == session_.context())
        status = Error{"the context of " + std::to_string(session_.context()) + " tokens is full"};
      else if (const auto logits = session_.step(*token); !logits)
        status = logits.error();
    }
    add(stop_.push(decoder.flush()) + stop_.flush());
    end_is_read_ = !form_->special && stop_.found() == form_->end;
    return status;
  }

  static Result<std::vector<ChatMessage>> messages_of(const Json& json);

  const Tokenizer* tokenizer_;
  const ChatTemplate* form_;
  Session session_;
  TokenSampler sampler_;
  StopStrings stop_;
  std::int64_t limit_ = 0;
  std::vector<ChatMessage> messages_;
  std::size_t kept_ = 0;      // of messages_, by a reset
  bool reads_all_ = true;     // the session has read none of messages_; else all
  bool end_is_read_ = false;  // and the end of the last answer, too
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<Conversation> Conversation::create(const Tokenizer& tokenizer, const ChatTemplate& form,
                                                           Session session, TokenSampler sampler,
                                                           ConversationSettings settings) {
  std::vector<std::string> ends = std::move(settings.stop);
  if (!form.special) ends.emplace_back(form.end);
  auto stop = StopStrings::create(std::move(ends));
  if (!stop) return stop.error();
  Conversation c(tokenizer, form, std::move(session), std::move(sampler), std::move(*stop));
  c.limit_ = settings.tokens;
  if (!settings.system.empty()) c.messages_.push_back({"system", std::move(settings.system)});
  c.kept_ = c.messages_.size();
  return c;
}

CHIMERA_FUNCTION void Conversation::reset() {
  messages_.resize(kept_);
  forget();
}

CHIMERA_FUNCTION Result<void> Conversation::save(const std::string& path) const {
  std::string text = "{\"template\": " + json_quoted(form_->name) + ", \"read\": " + (reads_all_ ? "false" : "true") +
                     ", \"end_is_read\": " + (end_is_read_ ? "true" : "false") + ", \"messages\": [";
  for (const char* separator = "\n  "; const ChatMessage& m : messages_) {
    text += separator + ("{\"role\": " + json_quoted(m.role)) + ", \"content\": " + json_quoted(m.text) + "}";
    separator = ",\n  ";
  }
  text += "\n]}\n";
  const auto state = session_.save();
  if (!state) return state.error();
  auto file = AtomicFile::create(path);
  if (!file) return file.error();
  if (Result<void> s = file->write(text.data(), text.size() + 1); !s) return s;
  if (Result<void> s = file->write(state->data(), state->size()); !s) return s;
  return file->commit();
}

CHIMERA_FUNCTION Result<std::string> Conversation::load(const std::string& path) {
  const auto file = MappedFile::copy(path);
  if (!file) return file.error();
  const std::string_view text = file->text().substr(0, file->text().find('\0'));
  const auto wrong = [&](const Error& why) { return Error{path + " is no saved conversation: " + why.message}; };
  const auto json = Json::parse(text);
  if (!json) return wrong(json.error());
  const auto form = json->string_at("template");
  const auto is_read = json->boolean_at("read"), end_is_read = json->boolean_at("end_is_read");
  auto messages = messages_of(*json);
  for (const Error* e : {form ? nullptr : &form.error(), is_read ? nullptr : &is_read.error(),
                         end_is_read ? nullptr : &end_is_read.error(), messages ? nullptr : &messages.error()})
    if (e) return wrong(*e);
  forget();
  messages_ = std::move(*messages);
  kept_ = !messages_.empty() && messages_[0].role == "system" ? 1 : 0;
  if (!*is_read) return std::string();
  if (*form != form_->name) return "it was saved with the template " + *form;
  if (Result<void> s = session_.restore(file->bytes().subspan(std::min(text.size() + 1, file->size()))); !s)
    return s.error().message;
  reads_all_ = false, end_is_read_ = *end_is_read;
  return std::string();
}

CHIMERA_FUNCTION Conversation::Conversation(const Tokenizer& tokenizer, const ChatTemplate& form, Session session,
                                            TokenSampler sampler, StopStrings stop)
    : tokenizer_(&tokenizer),
      form_(&form),
      session_(std::move(session)),
      sampler_(std::move(sampler)),
      stop_(std::move(stop)) {}

CHIMERA_FUNCTION void Conversation::forget() {
  session_.reset();
  sampler_.reset();
  reads_all_ = true, end_is_read_ = false;
}

CHIMERA_FUNCTION Result<void> Conversation::read(const std::atomic<bool>* stop) {
  std::vector<std::int32_t> ids;
  if (reads_all_) {
    ids = encode(*tokenizer_, *form_, messages_, true);
    if (const Vocabulary& v = tokenizer_->vocabulary(); v.add_bos && v.bos >= 0) ids.insert(ids.begin(), v.bos);
  } else if (end_is_read_) {
    ids = encode(*tokenizer_, *form_, {&messages_.back(), 1}, true);
  } else {
    ids = encode_next(*tokenizer_, *form_, messages_.back());
  }
  const auto count = static_cast<std::int64_t>(ids.size());
  const std::int64_t room = session_.context() - (session_.settings().slide ? 0 : session_.position());
  if (count > room)
    return Error{"the message takes " + std::to_string(count) + " tokens, and of the context of " +
                 std::to_string(session_.context()) + " " + std::to_string(room) + " are left"};
  const auto logits = session_.prefill(ids, stop);
  if (!logits) return logits.error();
  sampler_.accept(ids);
  return {};
}

CHIMERA_FUNCTION Result<std::vector<ChatMessage>> Conversation::messages_of(const Json& json) {
  const auto list = json.at("messages", Json::Kind::array);
  if (!list) return list.error();
  std::vector<ChatMessage> messages;
  for (const Json item : list->elements()) {
    auto role = item.string_at("role"), text = item.string_at("content");
    if (!role || !text) return (role ? text : role).error();
    if (*role != "system" && *role != "user" && *role != "assistant")
      return Error{"expected a role of system, user or assistant, found " + *role};
    messages.push_back({std::move(*role), std::move(*text)});
  }
  return messages;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
