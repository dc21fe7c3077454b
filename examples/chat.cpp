// chimera-chat: a conversation with a model, on a terminal or through pipes.
#include "model_option.hpp"
#include "noted_tokenizer.hpp"
#include "program.hpp"
#include "sampling_options.hpp"
#include "session_options.hpp"

#include <chimera/generate/conversation.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/text/chat_template.hpp>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#include <atomic>
#include <csignal>
#include <string_view>
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
  std::string model, form;
  int threads = 0;
  SessionSettings session;
  ConversationSettings conversation;
  SamplingOptions sampling;
};

/// Ctrl-C: a flag for who works, and a pipe for who waits.
std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // or a signal's handler could not set it
int interrupts[2];                                      // the pipe's ends: to read, to write

Status handle_interrupts() {
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
      ::pollfd ready[] = {{interrupts[0], POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
      if (::poll(ready, 2, -1) < 0) continue;  // a signal: the pipe tells
      if (ready[0].revents != 0) {
        forget_interrupts();
        waiting_.clear();
        return Read::interrupt;
      }
      char part[4096];
      const ssize_t n = ::read(STDIN_FILENO, part, sizeof part);
      if (n > 0) waiting_.append(part, static_cast<std::size_t>(n));
      ended_ = n <= 0;
    }
  }

 private:
  std::string waiting_;
  bool ended_ = false;
};

/// A message, and the answer as it is written.
Status say(Conversation& conversation, std::string message) {
  bool begun = false;
  const auto show = [&](std::string_view part) {
    begun = true;
    std::fwrite(part.data(), 1, part.size(), stdout);
    std::fflush(stdout);
  };
  const auto answered = conversation.say(std::move(message), show, &interrupted);
  forget_interrupts();
  if (answered || begun) std::printf("\n");
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the answer");
  return answered ? Status{} : Error{answered.error().message + ": /reset starts anew"};
}

/// The template asked for, or the model's own.
Result<const ChatTemplate*> choose_template(const std::string& name, const Tokenizer& tokenizer) {
  if (!name.empty()) {
    const ChatTemplate* form = chat_template_named(name);
    if (!form || can_write(tokenizer, *form)) return form;
    return Error{"the model has no token " + std::string(form->before_role) + ": choose another --template"};
  }
  if (const ChatTemplate* form = chat_template_of(tokenizer)) return form;
  std::fprintf(stderr, "note: %s; a plain one is used (see --template)\n",
               tokenizer.vocabulary().chat_template.empty() ? "the model has no chat template"
                                                            : "the model's chat template is not one that is known");
  return chat_template_named("plain");
}

/// A line that begins with a slash and a word. False: it is none.
bool command(Conversation& chat, const std::string& line, bool& quit, Status& status) {
  const std::size_t word = std::min(line.find(' '), line.size());
  if (line[0] != '/' || line.find('/', 1) < word) return false;
  const std::string name = line.substr(0, word), rest = line.substr(std::min(word + 1, line.size()));
  if ((name == "/save" || name == "/load") && rest.empty())
    status = Error{"name a file: " + name + " FILE"};
  else if (name == "/save")
    status = chat.save(rest);
  else if (name == "/load") {
    const auto note = chat.load(rest);
    if (!note) return status = note.error(), true;
    if (!note->empty()) std::fprintf(stderr, "note: the text is read anew: %s\n", note->c_str());
    std::fprintf(stderr, "loaded %zu messages\n", chat.messages().size());
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
  auto session = Session::create(*cpu, *weights, options.session);
  if (!session) return session.error();
  const auto sampling = options.sampling.settings_for(*tokenizer);
  if (!sampling) return sampling.error();
  auto sampler = TokenSampler::create(saved->config().vocab, *sampling);
  if (!sampler) return sampler.error();
  ConversationSettings settings = options.conversation;
  settings.stop = options.sampling.stop;
  auto chat = Conversation::create(*tokenizer, **form, std::move(*session), std::move(*sampler), std::move(settings));
  if (!chat) return chat.error();

  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  if (terminal)
    std::fprintf(stderr, "%.*s, template %.*s; /help lists the commands\n", static_cast<int>(saved->model.name.size()),
                 saved->model.name.data(), static_cast<int>((*form)->name.size()), (*form)->name.data());
  if (Status s = handle_interrupts(); !s) return s;
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
    if (!command(*chat, message, quit, status)) status = say(*chat, message);
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
  app.add_option("--system", options.conversation.system, "what the model is told before the conversation");
  std::vector<std::string> names;
  for (const ChatTemplate& t : chat_templates) names.emplace_back(t.name);
  app.add_option("--template", options.form, "how conversations are written; usually as the model's file says")
      ->check(CLI::IsMember(names));
  app.add_option("-n,--tokens", options.conversation.tokens, "of an answer, at most; 0: until it ends")
      ->check(non_negative());
  options.sampling.add(app);
  add_kv_option(app, options.session.kv);
  app.add_flag("--slide", options.session.slide, "in a full context forget the oldest keys and values and go on");
  app.add_option("--threads", options.threads, "0: one for each processor")->check(non_negative());
  return run(app, argc, argv, [&] { return converse(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-chat", [&] { return program(argc, argv); });
}
