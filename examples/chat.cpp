// chimera-chat: a conversation with a model, on a terminal or through pipes.
#include "columns.hpp"
#include "line_editor.hpp"
#include "model_option.hpp"
#include "noted_tokenizer.hpp"
#include "program.hpp"
#include "sampling_options.hpp"
#include "session_options.hpp"
#include "text_options.hpp"

#include <chimera/generate/conversation.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/text/chat_template.hpp>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#include <atomic>
#include <csignal>
#include <optional>
#include <string_view>
#include <vector>

using namespace chimera;

namespace {

constexpr const char* help =
    "/reset       forget the conversation\n"
    "/save FILE   keep the conversation in a file\n"
    "/load FILE   go on with one\n"
    "/exit        end; so do /quit, Ctrl-D and Ctrl-C twice\n"
    "Ctrl-C stops an answer. A line that ends in \\ goes on in the next; so does one that ends with Alt-Enter.\n";

struct Options {
  std::string model, form;
  int threads = 0;
  SessionSettings session;
  ConversationSettings conversation{.tokens = -1};
  TextOptions text;
  SamplingOptions sampling;
};

/// Ctrl-C: a flag for who works, and a pipe for who waits.
std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // or a signal's handler could not set it
int interrupts[2];                                      // the pipe's ends: to read, to write

Result<void> handle_interrupts() {
  if (::pipe2(interrupts, O_NONBLOCK | O_CLOEXEC) != 0) return file_error("make", "a pipe");
  struct sigaction action {};
  action.sa_handler = [](int) {
    interrupted = true;
    (void)!::write(interrupts[1], "", 1);  // a full pipe is as good
  };
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  return {};
}

/// The pipe first: who presses in between is seen by who waits next.
void forget_interrupts() {
  char bytes[64];
  while (::read(interrupts[0], bytes, sizeof bytes) > 0) {
  }
  interrupted = false;
}

/// Messages from standard input where it is no terminal: each is a line, or several of which all but the last end in a
/// backslash.
class Lines {
 public:
  Typed next(std::string& message) {
    message.clear();
    for (std::string line;;) {
      const Typed typed = next_line(line);
      if (typed == Typed::end && !message.empty()) return Typed::message;
      if (typed != Typed::message) return typed;
      message += line;
      if (!message.ends_with('\\')) return typed;
      message.back() = '\n';
    }
  }

 private:
  Typed next_line(std::string& line) {
    while (true) {
      if (const std::size_t end = waiting_.find('\n'); end != std::string::npos || (ended_ && !waiting_.empty())) {
        line = waiting_.substr(0, end);
        waiting_.erase(0, end == std::string::npos ? end : end + 1);
        return Typed::message;
      }
      if (ended_) return Typed::end;
      ::pollfd ready[] = {{interrupts[0], POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
      if (::poll(ready, 2, -1) < 0) continue;  // a signal: the pipe tells
      if (ready[0].revents != 0) {
        forget_interrupts();
        waiting_.clear();
        return Typed::interrupt;
      }
      char part[4096];
      const ssize_t n = ::read(STDIN_FILENO, part, sizeof part);
      if (n > 0) waiting_.append(part, static_cast<std::size_t>(n));
      ended_ = n <= 0;
    }
  }

  std::string waiting_;
  bool ended_ = false;
};

/// A message, and the answer as it is written.
Result<void> say(Conversation& conversation, std::string message) {
  bool begun = false;
  WordWrap wrap(::isatty(STDOUT_FILENO) == 1 ? terminal_size(STDOUT_FILENO).first : 0);
  const auto print = [](const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  const auto show = [&](std::string_view part) {
    begun = true;
    print(wrap.push(part));
  };
  const auto answered = conversation.say(std::move(message), show, &interrupted);
  forget_interrupts();
  print(wrap.flush() + (answered || begun ? "\n" : ""));
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the answer");
  return answered ? Result<void>{} : Error{answered.error().message + ": /reset starts anew"};
}

/// The template asked for, or the model's own.
Result<const ChatTemplate*> choose_template(const std::string& name, const Tokenizer& tokenizer) {
  if (!name.empty()) {
    const ChatTemplate* form = chat_template_named(name);
    if (!form || can_write(tokenizer, *form)) return form;
    return Error{"the model has no token " + std::string(form->before_role) + ": choose another --template"};
  }
  if (const ChatTemplate* form = chat_template_of(tokenizer)) return form;
  if (tokenizer.vocabulary().chat_template.empty()) {
    std::fprintf(stderr,
                 "note: this model was not trained to chat (its file has no chat template), so it continues your text; "
                 "--template has it chat all the same\n");
    return chat_template_named("text");
  }
  std::fprintf(stderr,
               "note: the model's chat template is not one that is known; the plain one is used (--template)\n");
  return chat_template_named("plain");
}

/// A line that begins with a slash and a word. False: it is none.
bool command(Conversation& chat, const std::string& line, bool& quit, Result<void>& status) {
  const std::size_t word = std::min(line.find(' '), line.size());
  if (line[0] != '/' || line.find('/', 1) < word || line.find('\n') != line.npos) return false;
  const std::string name = line.substr(0, word), rest = line.substr(std::min(word + 1, line.size()));
  if ((name == "/save" || name == "/load") && rest.empty())
    status = Error{"name a file: " + name + " FILE"};
  else if (name == "/save") {
    status = chat.save(rest);
    if (status) std::fprintf(stderr, "saved %s\n", rest.c_str());
  } else if (name == "/load") {
    const auto note = chat.load(rest);
    if (!note) return status = note.error(), true;
    if (!note->empty()) std::fprintf(stderr, "note: the text will be read again: %s\n", note->c_str());
    std::fprintf(stderr, "loaded %zu messages\n", chat.messages().size());
  } else if (name == "/reset") {
    chat.reset();
    std::fputs("the conversation is forgotten\n", stderr);
  } else if (name == "/exit" || name == "/quit")
    quit = true;
  else if (name == "/help")
    std::fputs(help, stderr);
  else
    status = Error{"there is no command " + name + "; /help lists them"};
  return true;
}

Result<void> converse(const Options& options) {
  const auto saved = open_model(options.model);
  if (!saved) return saved.error();
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  const auto tokenizer = noted(saved->tokenizer());
  if (!tokenizer) return tokenizer.error();
  const auto form = choose_template(options.form, *tokenizer);
  if (!form) return form.error();
  const auto weights = saved->packed(*cpu);
  if (!weights) return weights.error();
  auto session = create_session(*cpu, *weights, options.session);
  if (!session) return session.error();
  const auto sampling = options.sampling.settings_for(*tokenizer, options.text);
  if (!sampling) return sampling.error();
  auto sampler = TokenSampler::create(saved->config().vocab, *sampling);
  if (!sampler) return sampler.error();
  ConversationSettings settings = options.conversation;
  settings.stop = options.sampling.stops(options.text);
  settings.system = options.text.flag_text(settings.system);
  settings.tokens = std::max<std::int64_t>(settings.tokens, 0);
  auto chat = Conversation::create(*tokenizer, **form, std::move(*session), std::move(*sampler), std::move(settings));
  if (!chat) return chat.error();

  std::string message;
  if (!options.text.prompt.empty() || !options.text.file.empty()) {
    auto first = options.text.text();
    if (!first) return first.error();
    message = std::move(*first);
  }
  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  if (terminal)
    std::fprintf(stderr, "%.*s, template %.*s; /help lists the commands\n", static_cast<int>(saved->model.name.size()),
                 saved->model.name.data(), static_cast<int>((*form)->name.size()), (*form)->name.data());
  if (Result<void> s = handle_interrupts(); !s) return s;
  std::optional<LineEditor> editor;
  if (LineEditor::possible()) editor.emplace(interrupts[0]);
  Lines lines;
  for (bool quit = false, warned = false; !quit; message.clear()) {
    if (message.empty()) {
      if (terminal) std::fputs(editor ? "\n" : "\n> ", stderr);
      const Typed typed = editor ? editor->next(message) : lines.next(message);
      if (typed == Typed::end) break;
      if (typed == Typed::interrupt) {
        forget_interrupts();
        quit = std::exchange(warned, true);
        if (!quit) std::fputs("\nCtrl-C once more, or /exit, ends this\n", stderr);
        continue;
      }
      warned = false;
    }
    if (message.empty()) continue;
    Result<void> status;
    if (!command(*chat, message, quit, status)) status = say(*chat, message);
    if (status) continue;
    if (!terminal) return status;
    fail("chimera-chat", status.error());
  }
  return {};
}

int program(int argc, char** argv) {
  Options options;
  Flags app{"A conversation with a model.", "chimera-chat"};
  app.end_help("chimera-chat -m model.gguf --system 'You are brief.'",
               std::string("In the conversation:\n") + help + "\n" + engine_help);
  add_model_option(app, options.model)->required();
  app.add_option("--system,--system-prompt", options.conversation.system,
                 "what the model is told before the conversation")
      ->default_str("");
  auto* prompt = app.add_option("-p,--prompt", options.text.prompt, "the first message")->default_str("");
  app.add_option("-f,--file", options.text.file, "a file with the first message; -: standard input")
      ->type_name("FILE")
      ->default_str("")
      ->excludes(prompt);
  std::string names;
  for (const ChatTemplate& t : chat_templates) names += (names.empty() ? "" : ", ") + std::string(t.name);
  app.add_option_function<std::string>(
         "--template,--chat-template",
         [&](const std::string& name) {
           if (!chat_template_named(name))
             throw CLI::ValidationError("--template", "expected one of " + names + ", found " + name);
           options.form = name;
         },
         "how conversations are written, if not as the model's file says: " + names)
      ->type_name("WORD");
  app.add_option("-n,--predict,--n-predict,--tokens", options.conversation.tokens,
                 "tokens of an answer, at most; -1: until it ends")
      ->check(at_least(-1));
  add_threads_option(app, options.threads);
  add_context_option(app, options.session);
  add_loop_options(app, options.session);
  add_kv_option(app, options.session.kv);
  app.add_flag("--slide,--context-shift", options.session.slide,
               "when the context is full, forget the oldest keys and values and go on");
  options.text.add_escape(app);
  options.sampling.add(app);
  return run(app, argc, argv, [&] { return converse(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-chat", [&] { return program(argc, argv); });
}
