// chimera-chat: a conversation with a model, on a terminal or through pipes.
#include "engine.hpp"
#include "program.hpp"
#include "sampling_options.hpp"
#include "session_options.hpp"

#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/generate/stop_strings.hpp>
#include <chimera/io/json.hpp>
#include <chimera/text/chat_template.hpp>
#include <chimera/text/token_decoder.hpp>

#include <unistd.h>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <span>
#include <vector>

using namespace chimera;

namespace {

constexpr const char* help =
    "/reset       forget the conversation\n"
    "/save FILE   keep the conversation in a file\n"
    "/load FILE   go on with one\n"
    "/quit        end; so does Ctrl-D, or Ctrl-C twice\n"
    "Ctrl-C stops an answer. A line that ends in \\ goes on in the next.\n";

struct Options {
  std::string model, system, form;
  std::int64_t tokens = 0;
  int threads = 0;
  SessionSettings session;
  SamplingOptions sampling;
};

/// Whether Ctrl-C was pressed.
std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // or a signal's handler could not set it

void handle_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = true; };  // without SA_RESTART: it ends a read
  ::sigaction(SIGINT, &action, nullptr);
}

/// Standard input, line by line.
class Lines {
 public:
  enum class Read { line, interrupt, end };

  Read next(std::string& line) {
    while (true) {
      if (const std::size_t end = waiting_.find('\n'); end != std::string::npos || (ended_ && !waiting_.empty())) {
        line = waiting_.substr(0, end);
        waiting_.erase(0, end == std::string::npos ? end : end + 1);
        return Read::line;
      }
      if (ended_) return Read::end;
      char part[4096];
      const ssize_t n = ::read(STDIN_FILENO, part, sizeof part);
      if (n < 0 && errno == EINTR) {
        if (!interrupted.exchange(false)) continue;
        waiting_.clear();
        return Read::interrupt;
      }
      if (n > 0) waiting_.append(part, static_cast<std::size_t>(n));
      ended_ = n <= 0;
    }
  }

 private:
  std::string waiting_;
  bool ended_ = false;
};

class Chat {
 public:
  Chat(const Options& options, const Tokenizer& tokenizer, const ChatTemplate& form, Session session,
       TokenSampler sampler, StopStrings stop)
      : limit_(options.tokens),
        tokenizer_(tokenizer),
        form_(form),
        session_(std::move(session)),
        sampler_(std::move(sampler)),
        stop_(std::move(stop)) {
    if (!options.system.empty()) messages_.push_back({"system", options.system});
    kept_ = messages_.size();
  }

  /// Reads a message and writes the answer. An error leaves the conversation as it was.
  Status say(std::string text) {
    interrupted = false;
    messages_.push_back({"user", std::move(text)});
    if (Status s = read(); !s) {
      messages_.pop_back();
      if (!interrupted.exchange(false)) return s;
      forget();
      std::printf("\n");
      return {};
    }
    return answer();
  }

  void reset() {
    messages_.resize(kept_);
    forget();
  }

  /// A file of JSON, a zero byte and what the session remembers.
  Status save(const std::string& path) const {
    std::string text = "{\"template\": " + json_quoted(form_.name) + ", \"read\": " + (reads_all_ ? "false" : "true") +
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
    if (Status s = file->write(text.data(), text.size() + 1); !s) return s;
    if (Status s = file->write(state->data(), state->size()); !s) return s;
    return file->commit();
  }

  /// On an error nothing has changed. Where the session is of no use, of another model, the text is read again.
  Status load(const std::string& path) {
    const auto file = MappedFile::copy(path);
    if (!file) return file.error();
    const std::string_view text = file->text().substr(0, file->text().find('\0'));
    const auto wrong = [&](const Error& why) {
      return Error{path + " is no conversation of chimera-chat: " + why.message};
    };
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
    if (!*is_read) return {};
    const Status restored = *form != form_.name
                                ? Error{"it was saved with the template " + *form}
                                : session_.restore(file->bytes().subspan(std::min(text.size() + 1, file->size())));
    if (restored)
      reads_all_ = false, end_is_read_ = *end_is_read;
    else
      std::fprintf(stderr, "note: the text is read anew: %s\n", restored.error().message.c_str());
    return {};
  }

  std::size_t messages() const { return messages_.size(); }

 private:
  /// The next message is read together with all before it.
  void forget() {
    session_.reset();
    sampler_.reset();
    reads_all_ = true, end_is_read_ = false;
  }

  /// Up to where the answer begins. Ctrl-C is an error, too.
  Status read() {
    std::vector<std::int32_t> ids;
    if (reads_all_) {
      ids = encode(tokenizer_, form_, messages_, true);
      if (const Vocabulary& v = tokenizer_.vocabulary(); v.add_bos && v.bos >= 0) ids.insert(ids.begin(), v.bos);
    } else if (end_is_read_) {
      ids = encode(tokenizer_, form_, {&messages_.back(), 1}, true);
    } else {
      ids = encode_next(tokenizer_, form_, messages_.back());
    }
    const auto count = static_cast<std::int64_t>(ids.size());
    const std::int64_t room = session_.context() - (session_.settings().slide ? 0 : session_.position());
    if (count > room)
      return Error{"the message takes " + grouped(count) + " tokens, and of the context of " +
                   grouped(session_.context()) + " " + grouped(room) + " are left: /reset starts anew"};
    const auto logits = session_.prefill(ids, &interrupted);
    if (!logits) return logits.error();
    sampler_.accept(ids);
    return {};
  }

  Status answer() {
    reads_all_ = end_is_read_ = false;
    stop_.reset();
    TokenDecoder decoder(tokenizer_);
    std::string text;
    const auto show = [&](const std::string& part) {
      text += part;
      std::fwrite(part.data(), 1, part.size(), stdout);
      std::fflush(stdout);
    };
    Status status;
    for (std::int64_t n = 0; status && !stop_.stopped() && (limit_ == 0 || n < limit_); ++n) {
      if (interrupted.exchange(false)) break;
      const auto token = sampler_.draw(session_.logits());
      if (!token) {
        status = token.error();
        break;
      }
      if (ends_answer(tokenizer_, form_, *token)) break;
      show(stop_.push(decoder.push(*token)));
      if (!session_.settings().slide && session_.position() == session_.context())
        status = Error{"the context of " + grouped(session_.context()) + " tokens is full: /reset starts anew"};
      else if (const auto logits = session_.step(*token); !logits)
        status = logits.error();
    }
    show(stop_.push(decoder.flush()) + stop_.flush());
    end_is_read_ = !form_.special && stop_.found() == form_.end;
    std::printf("\n");
    messages_.push_back({"assistant", std::move(text)});
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the answer");
    return status;
  }

  static Result<std::vector<ChatMessage>> messages_of(const Json& json) {
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

  std::int64_t limit_;  // tokens of an answer; 0: none
  const Tokenizer& tokenizer_;
  const ChatTemplate& form_;
  Session session_;
  TokenSampler sampler_;
  StopStrings stop_;
  std::vector<ChatMessage> messages_;
  std::size_t kept_;          // of messages_, by a reset
  bool reads_all_ = true;     // the session has read none of messages_; else all
  bool end_is_read_ = false;  // and the end of the last answer, too
};

/// The template asked for, or the model's own.
Result<const ChatTemplate*> choose_template(const std::string& name, const Tokenizer& tokenizer) {
  if (!name.empty()) {
    const ChatTemplate* form = chat_template_named(name);
    if (!form || can_write(tokenizer, *form)) return form;
    return Error{"the model has no token " + std::string(form->before_role) + ": choose another --template"};
  }
  const std::string& source = tokenizer.vocabulary().chat_template;
  const ChatTemplate* form = chat_template_of(source);
  if (form && can_write(tokenizer, *form)) return form;
  std::fprintf(
      stderr, "note: %s; a plain one is used (see --template)\n",
      source.empty() ? "the model has no chat template" : "the model's chat template is not one that is known");
  return chat_template_named("plain");
}

/// A line that begins with a slash and a word. False: it is none.
bool command(Chat& chat, const std::string& line, bool& quit, Status& status) {
  const std::size_t word = std::min(line.find(' '), line.size());
  if (line[0] != '/' || line.find('/', 1) < word) return false;
  const std::string name = line.substr(0, word), rest = line.substr(std::min(word + 1, line.size()));
  if ((name == "/save" || name == "/load") && rest.empty())
    status = Error{"name a file: " + name + " FILE"};
  else if (name == "/save")
    status = chat.save(rest);
  else if (name == "/load") {
    status = chat.load(rest);
    if (status) std::fprintf(stderr, "loaded %zu messages\n", chat.messages());
  } else if (name == "/reset")
    chat.reset();
  else if (name == "/quit")
    quit = true;
  else if (name == "/help")
    std::fputs(help, stderr);
  else
    status = Error{"there is no command " + name + "; /help lists them"};
  return true;
}

Status converse(const Options& options) {
  const auto saved = SavedModel::find(options.model);
  if (!saved) return saved.error();
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  const auto tokenizer = saved->tokenizer();
  if (!tokenizer) return tokenizer.error();
  const auto form = choose_template(options.form, *tokenizer);
  if (!form) return form.error();
  const auto weights = saved->packed(*cpu);
  if (!weights) return weights.error();
  auto session = Session::create(*cpu, *weights, options.session);
  if (!session) return session.error();
  const auto sampling = options.sampling.settings_for(*tokenizer);
  if (!sampling) return sampling.error();
  auto sampler = TokenSampler::create(saved->model.config->vocab, *sampling);
  if (!sampler) return sampler.error();
  std::vector<std::string> ends = options.sampling.stop;
  if (!(*form)->special) ends.emplace_back((*form)->end);
  auto stop = StopStrings::create(std::move(ends));
  if (!stop) return stop.error();
  Chat chat(options, *tokenizer, **form, std::move(*session), std::move(*sampler), std::move(*stop));

  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  if (terminal)
    std::fprintf(stderr, "%.*s, template %.*s; /help lists the commands\n", static_cast<int>(saved->model.name.size()),
                 saved->model.name.data(), static_cast<int>((*form)->name.size()), (*form)->name.data());
  handle_interrupts();
  Lines lines;
  std::string message, line;
  for (bool quit = false, warned = false; !quit;) {
    if (terminal) std::fputs(message.empty() ? "\n> " : "  ", stderr);
    switch (lines.next(line)) {
      case Lines::Read::end: quit = true; continue;
      case Lines::Read::interrupt:
        quit = warned;
        if (!quit) std::fputs("\nCtrl-C once more, or /quit, ends this\n", stderr);
        warned = true;
        message.clear();
        continue;
      case Lines::Read::line: warned = false;
    }
    message += line;
    if (message.ends_with('\\')) {
      message.back() = '\n';
      continue;
    }
    if (message.empty()) continue;
    Status status;
    if (!command(chat, message, quit, status)) status = chat.say(message);
    message.clear();
    if (status) continue;
    if (!terminal) return status;
    fail("chimera-chat", status.error());
  }
  return {};
}

int program(int argc, char** argv) {
  Options options;
  CLI::App app{"A conversation with a model.", "chimera-chat"};
  app.footer(std::string("In the conversation:\n") + help + "\n" + engine_help);
  app.option_defaults()->always_capture_default()->take_last();
  app.add_option("--model", options.model, model_help)->required();
  app.add_option("--system", options.system, "what the model is told before the conversation");
  std::vector<std::string> names;
  for (const ChatTemplate& t : chat_templates) names.emplace_back(t.name);
  app.add_option("--template", options.form, "how conversations are written; usually as the model's file says")
      ->check(CLI::IsMember(names));
  app.add_option("-n,--tokens", options.tokens, "of an answer, at most; 0: until it ends")->check(non_negative());
  options.sampling.add(app);
  add_kv_option(app, options.session.kv);
  app.add_flag("--slide", options.session.slide, "in a full context forget the oldest keys and values and go on");
  app.add_option("--threads", options.threads, "0: one for each processor")->check(non_negative());
  if (const auto code = parse(app, argc, argv)) return *code;
  const Status status = converse(options);
  return status ? success : fail("chimera-chat", status.error());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-chat", [&] { return program(argc, argv); });
}
