// game_loop: a small game at 60 frames a second in which a model speaks. It thinks for 2 ms of each frame, on the thread
// that draws.
#include "../model_option.hpp"
#include "../numbers.hpp"
#include "../program.hpp"
#include "../progress.hpp"
#include "../sampling_options.hpp"
#include "../session_options.hpp"
#include "frame_times.hpp"
#include "scene.hpp"
#include "voice.hpp"

#include <chrono>
#include <ctime>
#include <limits>

using namespace chimera;

namespace {

/// Without a model's file the storyteller murmurs: letters, as often as English has them, of a model that knows nothing.
std::vector<LogitBias> letters_alone(int vocab) {
  constexpr std::string_view letters = " etaoinshrdlcumwfgypbvk.";
  constexpr std::array<int, letters.size()> percent{19, 10, 7, 6, 6, 6, 5, 5, 5, 5, 3, 3,
                                                    2,  2,  2, 2, 2, 2, 2, 1, 1, 1, 1, 2};
  std::vector<LogitBias> bias;
  for (std::int32_t token = 0; token < vocab; ++token) {
    const std::size_t at = token < 256 ? letters.find(static_cast<char>(token)) : letters.npos;
    bias.push_back({token, at == letters.npos ? -std::numeric_limits<float>::infinity()
                                              : std::log(static_cast<float>(percent[at]))});
  }
  return bias;
}

Result<PackedModel> untrained(const Cpu& cpu, const AnyModel& model) {
  auto weights = Buffer::create(model.arena_floats);
  if (!weights) return weights.error();
  model.initialize(weights->data(), 1);
  return PackedModel::create(cpu, model, weights->data());
}

struct Options {
  std::string model;
  std::int64_t frames = 0;
  double budget = 2;
  int threads = 1;
  std::int64_t seed = -1;
  SessionSettings session;
  TokenSamplerSettings sampling;
};

double milliseconds(Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

/// The processor time of this thread: no time in which others had the processor.
double processor_milliseconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

/// Sleeps until then: the rest of the frame is for others.
void wait_until(Clock::time_point time) {
  const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(time - Clock::now()).count();
  if (left <= 0) return;
  const timespec t{.tv_sec = static_cast<std::time_t>(left / 1'000'000'000), .tv_nsec = left % 1'000'000'000};
  ::nanosleep(&t, nullptr);
}

class Game {
 public:
  Game(const Options& options, Voice& voice, const Terminal& terminal)
      : options_(options),
        voice_(voice),
        terminal_(terminal),
        picture_(terminal_.size().first, terminal_.size().second),
        scene_(picture_.width(), picture_.height()) {}

  Result<void> run() {
    voice_.hear(
        "It is night. An old storyteller sits by a fire and talks with a traveller.\n\nTraveller: Good evening. "
        "May I sit with you?\nStoryteller:");
    const auto start = Clock::now();
    for (std::int64_t frame = 0; !quit_ && !terminal_.stopped() && (options_.frames == 0 || frame < options_.frames);) {
      const auto begin = Clock::now();
      const double processor = processor_milliseconds();
      if (Result<void> s = draw_frame(); !s) return s;
      last_ = milliseconds(Clock::now() - begin);
      frames_.add(last_), own_.add(processor_milliseconds() - processor);
      wait_until(start + ++frame * std::chrono::nanoseconds(16'666'667));
    }
    seconds_ = milliseconds(Clock::now() - start) / 1000;
    return {};
  }

  void report() const {
    frames_.print_chart("time of frames");
    frames_.print("frames");
    own_.print("frames but for times when other programs had the processor");
    thoughts_.print("of it the model's share, where it thought");
    std::printf("%.1f s, %d fireflies; %lld tokens read and %lld spoken, %.0f tok/s while it thought\n", seconds_,
                scene_.caught(), static_cast<long long>(voice_.read()), static_cast<long long>(voice_.spoken()),
                static_cast<double>(voice_.read()) * 1000 / std::max(thinking_, 1e-3));
  }

 private:
  Result<void> draw_frame() {
    listen();
    if (scene_.move())
      voice_.hear("\nTraveller: I caught a firefly! Now I have " + std::to_string(scene_.caught()) + ".\nStoryteller:");

    const std::int64_t spoken = voice_.spoken();
    const double before = processor_milliseconds();
    const auto begin = Clock::now();
    if (Result<void> s = voice_.think(std::chrono::nanoseconds(static_cast<std::int64_t>(options_.budget * 1e6))); !s)
      return s;
    if (voice_.speaking() || voice_.spoken() > spoken) {
      thinking_ += milliseconds(Clock::now() - begin);
      thoughts_.add(processor_milliseconds() - before);
    }

    picture_.clear_text();
    scene_.draw(picture_, letters_ < voice_.speech().size());
    draw_text();
    terminal_.show(picture_.update());
    return {};
  }

  void listen() {
    if (options_.frames > 0) return scene_.play_alone();
    const std::string keys = terminal_.keys();
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const bool arrow = keys.compare(i, 2, "\x1b[") == 0 && i + 2 < keys.size();
      switch (const char key = arrow ? keys[i += 2] : keys[i]; key) {
        case 'q': quit_ = true; break;
        case 't': voice_.hear("\nTraveller: Tell me a story.\nStoryteller:"); break;
        case ' ': scene_.jump(); break;
        case 'a': scene_.walk(-1); break;
        case 'd': scene_.walk(1); break;
        default: break;
      }
      if (!arrow) continue;
      if (keys[i] == 'A') scene_.jump();
      if (keys[i] == 'B') scene_.stop();
      if (keys[i] == 'C') scene_.walk(1);
      if (keys[i] == 'D') scene_.walk(-1);
    }
  }

  /// The speech, letter by letter, and a line about the game.
  void draw_text() {
    const std::string& speech = voice_.speech();
    if (letters_ > speech.size()) letters_ = 0;  // a new one
    do letters_ = std::min(letters_ + 1, speech.size());
    while (letters_ < speech.size() && (speech[letters_] & 0xC0) == 0x80);
    scene_.draw_speech(picture_, std::string_view(speech).substr(0, letters_));

    history_[static_cast<std::size_t>(++drawn_) % history_.size()] = last_;
    std::string curve;
    for (std::size_t i = 1; i <= history_.size(); ++i) {
      const double ms = history_[(static_cast<std::size_t>(drawn_) + i) % history_.size()];
      constexpr std::array<const char*, 8> bars{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
      curve += bars[std::min(static_cast<std::size_t>(ms / FrameTimes::budget * 8), bars.size() - 1)];
    }
    const int row = picture_.rows() - 1;
    const Color pale{0.45f, 0.5f, 0.55f};
    picture_.write(1, row, formatted("* %d   ← → walk   ↓ stop   space jump   t talk   q quit", scene_.caught()), pale);
    picture_.write(picture_.columns() - 33, row, curve, {0.3f, 0.6f, 0.25f});
    picture_.write(picture_.columns() - 9, row, formatted("%5.1f ms", last_), pale);
  }

  const Options& options_;
  Voice& voice_;
  const Terminal& terminal_;
  Picture picture_;
  Scene scene_;
  FrameTimes frames_, own_, thoughts_;
  std::array<double, 24> history_{};
  std::int64_t drawn_ = 0;
  std::size_t letters_ = 0;                       // bytes of the speech that are shown
  double last_ = 0, thinking_ = 0, seconds_ = 0;  // thinking_: ms
  bool quit_ = false;
};

Result<void> play(const Options& options) {
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  TokenSamplerSettings sampling = options.sampling;
  Result<Tokenizer> tokenizer = Error{};
  Result<PackedModel> weights = Error{};
  if (options.model.empty()) {
    const auto model = find_model("nano");
    if (!model) return model.error();
    sampling.logit_bias = letters_alone(model->config->vocab);
    tokenizer = byte_tokenizer(model->config->vocab);
    weights = untrained(*cpu, *model);
  } else {
    const auto saved = open_model(options.model);
    if (!saved) return saved.error();
    tokenizer = saved->tokenizer();
    weights = saved->packed(*cpu);
  }
  if (!tokenizer) return tokenizer.error();
  if (!weights) return weights.error();
  sampling.seed = chosen_seed(options.seed);
  auto session = create_session(*cpu, *weights, Voice::settings_of(options.session));
  if (!session) return session.error();
  auto voice = Voice::create(std::move(*session), *tokenizer, sampling);
  if (!voice) return voice.error();

  std::optional<Terminal> terminal(std::in_place);
  if (!terminal->present() && options.frames == 0)
    return Error{"expected a terminal to play on, or --frames to play alone without one"};
  Game game(options, *voice, *terminal);
  const Result<void> status = game.run();
  terminal.reset();
  game.report();
  return status;
}

int program(int argc, char** argv) {
  Options options;
  Flags app{"A small game at 60 frames a second in which a model speaks.", "game_loop"};
  app.end_help("game_loop -m model.gguf", engine_help);
  add_model_option(app, options.model)
      ->description(std::string(model_help) + "; without one the storyteller says random letters");
  app.add_option("--frames", options.frames,
                 "frames that the game plays by itself, with or without a terminal; 0: you play")
      ->check(non_negative());
  app.add_option("--budget", options.budget, "milliseconds of each frame that the model has")->check(positive());
  add_threads_option(app, options.threads);
  add_context_option(app, options.session);
  add_kv_option(app, options.session.kv);
  app.add_option("--temp,--temperature", options.sampling.temperature, "higher is more surprising");
  add_seed_option(app, options.seed);
  return run(app, argc, argv, [&] { return play(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("game_loop", [&] { return program(argc, argv); });
}
