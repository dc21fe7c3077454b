// chimera-passkey: whether a model finds a number that was said long before it is asked for, by the length of the text
// and by where in it the number stands (Mohtashami and Jaggi, 2305.16300); and texts to learn that from.
#include "model_option.hpp"
#include "noted_tokenizer.hpp"
#include "numbers.hpp"
#include "plots.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "session_options.hpp"
#include "text_options.hpp"

#include <chimera/core/random.hpp>
#include <chimera/generate/reader.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/io/json.hpp>

#include <algorithm>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

using namespace chimera;

namespace {

struct Options {
  std::string model, file, svg, out;
  std::vector<std::int64_t> lengths{128, 256, 512};
  std::int64_t depths = 5, trials = 20, together = 8, seed = 1, length = 128;
  double share = 0.5;
  int threads = 0;
  SessionSettings session;
  bool hide_in_text = false, json = false;
};

std::string said(std::string_view key) {
  return "\nThe pass key is " + std::string(key) + ". Remember it: " + std::string(key) + ".\n";
}
constexpr std::string_view asked = "\nWhat is the pass key? The pass key is ";
constexpr std::string_view grass =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";

Result<std::string> read_file(const Options& o) {
  auto text = read_text(o.file);
  if (text && text->empty()) return Error{o.file + " is empty: give a text"};
  return text;
}

std::string draw_key(Random& random) { return std::to_string(10'000 + random.below(90'000)); }

/// n items of `all`, from a place drawn evenly, and from its start again after its end.
template <class All>
All some_of(const All& all, std::size_t n, Random& random) {
  All part;
  for (std::size_t at = random.below(all.size()); part.size() < n; ++at) part.push_back(all[at % all.size()]);
  return part;
}

/// Writes the file's text in pieces between texts that ask for pass keys, each at most as long as asked for.
Result<void> write_texts(const Options& o) {
  const auto file = read_file(o);
  if (!file) return file.error();
  const std::string filler(o.hide_in_text ? std::string_view(*file) : grass);
  const std::size_t fixed = said("12345").size() + asked.size() + 7;  // the answer, a full stop, and the line's end
  const auto most = static_cast<std::size_t>(o.length);
  if (most < fixed + 1)
    return Error{"--length must be at least " + std::to_string(fixed + 1) + " bytes, found " + std::to_string(most)};
  Random random{static_cast<std::uint64_t>(o.seed), 0};
  std::string all;
  std::size_t keys = 0;
  for (std::size_t at = 0; at < file->size();) {
    if (static_cast<double>(random.uniform()) >= o.share) {
      all.append(*file, at, most);
      at += most;
      continue;
    }
    const std::string key = draw_key(random);
    const std::size_t around = random.below(most - fixed + 1), before = random.below(around + 1);
    const std::string text = some_of(filler, around, random);
    all.append(text, 0, before).append(said(key));
    all.append(text, before).append(asked).append(key).append(".\n");
    ++keys;
  }
  if (Result<void> s = write_text(o.out, all); !s) return s;
  std::fprintf(stderr, "wrote %s: %s bytes, %s pass keys in texts of at most %s bytes\n", shell_word(o.out).c_str(),
               grouped(static_cast<std::int64_t>(all.size())).c_str(), grouped(static_cast<std::int64_t>(keys)).c_str(),
               grouped(o.length).c_str());
  return {};
}

/// A text that ends where the model is to say the key, and the key's tokens.
struct Trial {
  std::vector<std::int32_t> tokens, key;
};

/// Texts of one length and depth.
class Trials {
 public:
  static Result<Trials> create(const Options& o, const Tokenizer& tokenizer) {
    const auto filler = o.file.empty() ? Result<std::string>(std::string(grass)) : read_file(o);
    if (!filler) return filler.error();
    return Trials(static_cast<std::uint64_t>(o.seed), tokenizer, tokenizer.encode(*filler));
  }

  /// `length` tokens, the key's at its end included; `depth` from 0 (the start) to 1. Trial `number` has the same key and
  /// filler for all models of one tokenizer.
  Result<Trial> text(std::int64_t length, double depth, std::int64_t number) const {
    Random random{seed_, static_cast<std::uint64_t>(length) << 32 | static_cast<std::uint64_t>(number)};
    const std::string key = draw_key(random);
    const Vocabulary& v = tokenizer_->vocabulary();
    const auto fact = tokenizer_->encode(said(key));
    const auto question = tokenizer_->encode(asked), whole = tokenizer_->encode(std::string(asked) + key);
    Trial t;
    // The key's tokens are those that follow what both texts begin with.
    const auto [in_question, in_whole] = std::mismatch(question.begin(), question.end(), whole.begin(), whole.end());
    t.key.assign(in_whole, whole.end());
    const bool bos = v.add_bos && v.bos >= 0;
    const auto fixed = static_cast<std::int64_t>(fact.size() + whole.size()) + bos;
    if (length < fixed)
      return Error{"a text with a pass key has at least " + std::to_string(fixed) + " tokens, found --lengths " +
                   std::to_string(length)};
    const auto filler = some_of(filler_, static_cast<std::size_t>(length - fixed), random);
    const auto before = filler.begin() + std::llround(depth * static_cast<double>(filler.size()));
    if (bos) t.tokens.push_back(v.bos);
    t.tokens.insert(t.tokens.end(), filler.begin(), before);
    t.tokens.insert(t.tokens.end(), fact.begin(), fact.end());
    t.tokens.insert(t.tokens.end(), before, filler.end());
    t.tokens.insert(t.tokens.end(), whole.begin(), whole.end() - 1);
    return t;
  }

 private:
  Trials(std::uint64_t seed, const Tokenizer& tokenizer, std::vector<std::int32_t> filler)
      : seed_(seed), tokenizer_(&tokenizer), filler_(std::move(filler)) {}

  std::uint64_t seed_;
  const Tokenizer* tokenizer_;
  std::vector<std::int32_t> filler_;
};

/// How many of the keys are what the model would write, token by token the likeliest: each token of a key is then the
/// likeliest after those before it.
Result<std::int64_t> count_found(Reader& reader, std::span<Session> sessions, std::span<const Trial> trials,
                                 std::int64_t vocab) {
  struct Answer {
    std::vector<std::int64_t> rows;
    std::vector<float> logits;
  };
  std::vector<Answer> answers(trials.size());
  std::vector<Turn> turns;
  for (std::size_t i = 0; i < trials.size(); ++i) {
    const Trial& t = trials[i];
    answers[i].rows.resize(t.key.size());
    std::iota(answers[i].rows.begin(), answers[i].rows.end(),
              static_cast<std::int64_t>(t.tokens.size() - t.key.size()));
    answers[i].logits.resize(t.key.size() * static_cast<std::size_t>(vocab));
    sessions[i].reset();
    turns.push_back({.sequence = &sessions[i],
                     .tokens = t.tokens,
                     .rows = answers[i].rows,
                     .logits = answers[i].logits.data(),
                     .answer = false});
  }
  if (Result<void> s = reader.read(turns); !s) return s.error();
  std::int64_t found = 0;
  for (std::size_t i = 0; i < trials.size(); ++i) {
    bool right = true;
    for (std::size_t k = 0; k < trials[i].key.size(); ++k) {
      const auto logits = answers[i].logits.begin() + static_cast<std::ptrdiff_t>(k) * vocab;
      right = right && std::max_element(logits, logits + vocab) - logits == trials[i].key[k];
    }
    found += right;
  }
  return found;
}

Result<void> test(const Options& o) {
  const std::int64_t longest = *std::max_element(o.lengths.begin(), o.lengths.end());
  const auto saved = open_model(o.model, longest);
  if (!saved) return saved.error();
  const auto cpu = Cpu::create(o.threads);
  if (!cpu) return cpu.error();
  const auto tokenizer = noted(saved->tokenizer());
  if (!tokenizer) return tokenizer.error();
  const auto texts = Trials::create(o, *tokenizer);
  if (!texts) return texts.error();
  const auto packed = saved->packed(*cpu);
  if (!packed) return packed.error();
  auto reader = Reader::create(*cpu, *packed);
  if (!reader) return reader.error();

  HeatMap map{.title = "Pass keys found by " + std::string(saved->path),
              .down = "length",
              .across = "depth of the key",
              .rows = {},
              .columns = {},
              .values = {}};
  const auto depth_of = [&](std::int64_t i) {
    return o.depths > 1 ? static_cast<double>(i) / static_cast<double>(o.depths - 1) : 0.5;
  };
  for (std::int64_t i = 0; i < o.depths; ++i) map.columns.push_back(formatted("%.0f %%", 100 * depth_of(i)));
  std::string json;
  ProgressLine line;
  for (const std::int64_t length : o.lengths) {
    std::vector<Session> sessions;
    SessionSettings settings = o.session;
    settings.context = length;
    for (std::int64_t i = 0; i < std::min(o.trials, o.together); ++i) {
      auto session = Session::create(*reader, settings);
      if (!session) return Error{session.error().message + "; --together 1 reads one text at a time"};
      sessions.push_back(std::move(*session));
    }
    map.rows.push_back(grouped(length));
    for (std::int64_t d = 0; d < o.depths; ++d) {
      std::int64_t found = 0;
      for (std::int64_t done = 0; done < o.trials;) {
        std::vector<Trial> trials;
        for (; std::ssize(trials) < std::ssize(sessions) && done < o.trials; ++done) {
          auto t = texts->text(length, depth_of(d), done);
          if (!t) return t.error();
          trials.push_back(std::move(*t));
        }
        const auto right = count_found(*reader, sessions, trials, saved->config().vocab);
        if (!right) return right.error();
        found += *right;
      }
      const double share = static_cast<double>(found) / static_cast<double>(o.trials);
      map.values.push_back(share);
      json += formatted("%s\n  {\"length\": %lld, \"depth\": %.4f, \"found\": %.4f}", json.empty() ? "" : ",",
                        static_cast<long long>(length), depth_of(d), share);
      if (line.due())
        line.show(formatted("length %s, depth %s: %.2f", map.rows.back().c_str(),
                            map.columns[static_cast<std::size_t>(d)].c_str(), share));
    }
  }
  line.end();
  if (!o.svg.empty())
    if (Result<void> s = write_text(o.svg, heat_map_svg(map)); !s) return s;
  if (o.json)
    std::printf("{\"model\": %s, \"trials\": %lld, \"results\": [%s\n]}\n", json_quoted(saved->path).c_str(),
                static_cast<long long>(o.trials), json.c_str());
  else
    std::printf("pass keys found, by length (down) and depth of the key (across):\n%s", table_of(map).c_str());
  return {};
}

int program(int argc, char** argv) {
  Options o;
  Flags app{"Tests whether a model finds a number that was said long before it is asked for.", "chimera-passkey"};
  app.end_help("chimera-passkey test -m model.gguf --lengths 128 512",
               std::string("A number of five digits is said once in a text that has nothing to do with it, and asked "
                           "for at its end. It counts as\nfound if all its digits are the likeliest. Models learn that "
                           "from texts as `write` makes them of any text.\n\n") +
                   engine_help);
  app.require_subcommand(1);

  CLI::App* examine = app.add_subcommand("test", "how many numbers a model finds, by length and depth");
  add_model_option(*examine, o.model)->required();
  examine->add_option("-f,--file", o.file, "the text that numbers are hidden in; else sentences about grass")
      ->type_name("FILE")
      ->default_str("");
  examine->add_option("--lengths", o.lengths, "tokens of a text, the number at its end included")
      ->take_all()
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->check(at_least(1));
  examine->add_option("--depths", o.depths, "places of the number, from the start of a text to its end")
      ->check(between(1, 1000));
  examine->add_option("--trials", o.trials, "numbers for each length and depth")->check(at_least(1));
  examine->add_option("-s,--seed", o.seed, "of the numbers and of what is around them")->check(non_negative());
  examine->add_option("--svg", o.svg, "draws the table there")->type_name("FILE")->default_str("");
  examine->add_option("--together", o.together, "texts that are read side by side")->check(between(1, 256));
  add_kv_option(*examine, o.session.kv);
  add_threads_option(*examine, o.threads);
  examine->add_flag("--json", o.json, "write one JSON object");

  CLI::App* writer = app.add_subcommand("write", "a text to train on, in which numbers are asked for");
  writer->add_option("-f,--file", o.file, "the text that they are mixed with")->type_name("FILE")->required();
  writer->add_option("--out", o.out, "where it goes")->type_name("FILE")->required();
  writer->add_option("--length", o.length, "bytes of a text with a number, at most")->check(at_least(1));
  writer->add_option("--share", o.share, "of such texts among pieces of that length")->check(between(0, 1));
  writer->add_flag("--hide-in-text", o.hide_in_text,
                   "numbers lie in the text, too, and not among sentences about grass");
  writer->add_option("-s,--seed", o.seed, "of the numbers and their places")->check(non_negative());
  for (CLI::App* command : {examine, writer}) {
    command->option_defaults()->always_capture_default()->take_last();
    command->set_help_flag("-h,--help", "print this and end");
    command->group("Commands");
  }
  return run(app, argc, argv, [&] { return writer->parsed() ? write_texts(o) : test(o); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-passkey", [&] { return program(argc, argv); });
}
