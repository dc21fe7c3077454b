// chimera-tokenize: learns a tokenizer from texts, and uses it.
#include "aligned_sentences.hpp"
#include "noted_tokenizer.hpp"
#include "numbers.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "text_options.hpp"

#include <chimera/core/files.hpp>
#include <chimera/core/read_number.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/tokenizer_json.hpp>
#include <chimera/io/json.hpp>
#include <chimera/text/bpe_parity.hpp>
#include <chimera/text/bpe_trainer.hpp>
#include <chimera/text/encoder.hpp>
#include <chimera/text/normalize.hpp>
#include <chimera/text/piece_counts.hpp>
#include <chimera/text/token_statistics.hpp>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <deque>
#include <numeric>

using namespace chimera;

namespace {

volatile std::sig_atomic_t stop_asked = 0;

struct Options {
  std::vector<std::string> inputs, weights, specials{byte_specials.begin(), byte_specials.end()};
  std::string out, parallel, tokenizer;
  TextOptions text;
  std::int64_t vocab = 32768;
  double parity = 1.19;
  PreTokenizer rules = PreTokenizer::qwen35;
  int threads = 0;
  bool jsonl = false, special = false;
};

/// By what most letters of the text are: "hi" for Devanagari, "en" for Latin, "other".
std::string script_language(std::string_view text) {
  std::int64_t letters = 0, latin = 0, devanagari = 0;
  text = text.substr(0, 1 << 20);
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    const CharClass kind = char_class(c.value);
    if (kind >= CharClass::upper && kind <= CharClass::letter) {
      ++letters;
      latin += c.value < 0x250;
      devanagari += c.value >= 0x900 && c.value < 0x980;
    }
    text.remove_prefix(c.bytes);
  }
  return letters == 0 ? "other" : devanagari * 2 >= letters ? "hi" : latin * 2 >= letters ? "en" : "other";
}

/// Calls `use(line, number)` for each line that is not blank; stops at the first Error.
template <class Use>
Result<void> each_line(std::string_view text, Use&& use) {
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    const bool blank = line.find_first_not_of(" \t\r") == std::string_view::npos;
    if (Result<void> s = blank ? Result<void>{} : use(line, number); !s)
      return Error{"line " + std::to_string(number) + ": " + s.error().message};
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {};
}

/// Texts, each in the column of its language or of its side of aligned sentences.
struct Texts {
  std::vector<MappedFile> files;
  std::deque<std::string> sentences;  // what `texts` views stays where it is
  std::vector<std::string> languages;
  std::vector<CountedText> texts;
  int english = -1, hindi = -1;  // columns of the aligned sentences

  int columns() const { return std::max({static_cast<int>(languages.size()), english + 1, hindi + 1}); }
  std::optional<std::size_t> language(std::string_view name) const {
    const auto at = std::find(languages.begin(), languages.end(), name);
    if (at == languages.end()) return std::nullopt;
    return at - languages.begin();
  }

  /// `input`: FILE or LANGUAGE=FILE.
  Result<void> add(const std::string& input) {
    const std::size_t sign = exists(input) ? std::string::npos : input.find('=');
    auto file = MappedFile::open(sign == std::string::npos ? input : input.substr(sign + 1));
    if (!file) return file.error();
    const std::string name = sign == std::string::npos ? script_language(file->text()) : input.substr(0, sign);
    auto at = language(name);
    if (!at) languages.push_back(name), at = languages.size() - 1;
    texts.push_back({file->text(), static_cast<int>(*at)});
    files.push_back(std::move(*file));
    return {};
  }

  /// Call after the last `add`. The file has lines {"en": "...", "hi": "..."}.
  Result<void> add_parallel(const std::string& path) {
    auto file = MappedFile::open(path);
    if (!file) return file.error();
    const Result<void> status = each_line(file->text(), [&](std::string_view line, std::int64_t) -> Result<void> {
      const auto json = Json::parse(line);
      if (!json) return json.error();
      auto en = json->string_at("en"), hi = json->string_at("hi");
      if (!en) return en.error();
      if (!hi) return hi.error();
      add_pair(std::move(*en), std::move(*hi));
      return {};
    });
    if (!status) return Error{path + ", " + status.error().message};
    return {};
  }
  void add_pair(std::string en, std::string hi) {
    if (english < 0) english = static_cast<int>(languages.size()), hindi = english + 1;
    texts.push_back({sentences.emplace_back(std::move(en)), english});
    texts.push_back({sentences.emplace_back(std::move(hi)), hindi});
  }
};

std::string percent(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? "-" : formatted("%.1f %%", 100 * static_cast<double>(part) / static_cast<double>(whole));
}

/// What the tokens make of the texts, a line for each column.
void print_report(const Cpu& q, const Tokenizer& tokenizer, const Texts& texts, const PieceCounts& counts) {
  std::vector<bool> used(static_cast<std::size_t>(tokenizer.size()));
  const auto columns = measure_tokens(q, tokenizer, counts, &used);
  std::printf("%-12s %12s %12s %12s %12s %12s %16s\n", "text", "bytes", "tokens", "bytes/token", "tokens/word",
              "whole words", "cuts a cluster");
  for (int c = 0; c < counts.column_count(); ++c) {
    const TokenStatistics& s = columns[static_cast<std::size_t>(c)];
    if (s.tokens == 0) continue;
    const std::string name = c == texts.english ? "aligned en"
                             : c == texts.hindi ? "aligned hi"
                                                : texts.languages[static_cast<std::size_t>(c)];
    std::printf("%-12s %12s %12s %12.3f %12s %12s %16s\n", name.c_str(), grouped(s.bytes).c_str(),
                grouped(s.tokens).c_str(), s.bytes_per_token(),
                s.words > 0 ? formatted("%.3f", s.tokens_per_word()).c_str() : "-",
                percent(s.whole_words, s.words).c_str(), percent(s.inside_clusters, s.tokens).c_str());
  }
  if (texts.english >= 0) {
    const double hi = static_cast<double>(columns[static_cast<std::size_t>(texts.hindi)].tokens);
    const double en = static_cast<double>(columns[static_cast<std::size_t>(texts.english)].tokens);
    std::printf("parity: %.3f tokens of Hindi for one of English in aligned sentences\n", hi / en);
  }
  const auto unused = std::count(used.begin(), used.end(), false);
  std::printf("vocabulary: %s ids, %s of them not used in these texts\n", grouped(tokenizer.size()).c_str(),
              grouped(unused).c_str());
}

/// "hi=0.6" for each language; languages that are not named get 1.
Result<std::vector<double>> shares_of(const Texts& texts, const std::vector<std::string>& weights) {
  std::vector<double> shares(texts.languages.size(), 1);
  for (const std::string& w : weights) {
    const std::size_t sign = w.find('=');
    const auto language = texts.language(w.substr(0, sign));
    double value = -1;
    if (sign != std::string::npos) (void)read_number(w.data() + sign + 1, w.data() + w.size(), value);
    if (!language || !(value >= 0 && value <= 1e6)) {
      std::string names;
      for (const std::string& name : texts.languages) names += (names.empty() ? "" : ", ") + name;
      return Error{"--weight: expected LANGUAGE=NUMBER with a language of the texts (" + names + "), found " + w};
    }
    shares[*language] = value;
  }
  if (std::all_of(shares.begin(), shares.end(), [](double s) { return s == 0; }))
    return Error{"--weight: expected one above 0"};
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& s : shares) s /= sum;
  return shares;
}

Result<void> train(const Options& options) {
  const auto start = Clock::now();
  auto out = AtomicFile::create(options.out);
  if (!out) return out.error();
  auto q = Cpu::create(options.threads);
  if (!q) return q.error();
  Texts texts;
  for (const std::string& input : options.inputs)
    if (Result<void> s = texts.add(input); !s) return s;
  const auto shares = shares_of(texts, options.weights);
  if (!shares) return shares.error();
  const auto en = texts.language("en"), hi = texts.language("hi");
  const bool balanced = en && hi && options.weights.empty();
  if (!options.parallel.empty()) {
    if (Result<void> s = texts.add_parallel(options.parallel); !s) return s;
  } else if (balanced) {
    for (const AlignedSentence& s : aligned_sentences) texts.add_pair(std::string(s.en), std::string(s.hi));
  }

  const PieceCounts counts = PieceCounts::count(*q, options.rules, texts.texts, texts.columns());
  std::fprintf(stderr, "%s different pieces, %.1f s\n", grouped(static_cast<std::int64_t>(counts.size())).c_str(),
               seconds_since(start));
  BpeSettings settings;
  settings.vocab = options.vocab, settings.specials = options.specials;
  const BpeWatch watch{[](void*, std::int64_t) { return stop_asked == 0; }, nullptr};
  BpeMix mix{*shares, {}, 0};
  if (balanced) {
    const ParityGoal goal{.language = static_cast<int>(*hi),
                          .text = texts.hindi,
                          .reference = texts.english,
                          .parity = options.parity - (options.parallel.empty() ? 0.01 : 0)};  // few sentences
    auto found = train_bpe_to_parity(*q, counts, *shares, goal, settings, watch);
    if (!found) return found.error();
    mix = std::move(*found);
    if (!mix.reaches(goal))
      std::fprintf(stderr, "no mix brings parity to %.3f; the nearest has %.3f\n", goal.parity, mix.parity);
  } else {
    auto learned = train_bpe(counts, bpe_weights(counts, *shares), settings, watch);
    if (!learned) return learned.error();
    mix.learned = std::move(*learned);
  }
  for (std::size_t i = 0; i < texts.languages.size(); ++i)
    std::fprintf(stderr, "share of %s: %.3f\n", texts.languages[i].c_str(), mix.shares[i]);

  auto tokenizer = Tokenizer::create(bpe_vocabulary(mix.learned, options.rules, settings));
  if (!tokenizer) return tokenizer.error();
  if (tokenizer->size() < options.vocab)
    std::fprintf(stderr, "the texts have no more than %s tokens\n", grouped(tokenizer->size()).c_str());
  if (Result<void> s = out->write(tokenizer_json(*tokenizer)); !s) return s;
  if (Result<void> s = out->commit(); !s) return s;
  std::fprintf(stderr, "saved %s, %.1f s\n", options.out.c_str(), seconds_since(start));
  print_report(*q, *tokenizer, texts, counts);
  return {};
}

Result<void> statistics(const Options& options) {
  auto q = Cpu::create(options.threads);
  if (!q) return q.error();
  auto tokenizer = noted(load_tokenizer(options.tokenizer));
  if (!tokenizer) return tokenizer.error();
  Texts texts;
  for (const std::string& input : options.inputs)
    if (Result<void> s = texts.add(input); !s) return s;
  if (!options.parallel.empty())
    if (Result<void> s = texts.add_parallel(options.parallel); !s) return s;
  if (tokenizer->vocabulary().nfc)
    for (CountedText& each : texts.texts) {
      std::string& buffer = texts.sentences.emplace_back();
      each.text = to_nfc(each.text, buffer);
    }
  if (texts.texts.empty()) return Error{"name texts with --input, aligned sentences with --parallel, or both"};
  const PieceCounts counts = PieceCounts::count(*q, tokenizer->vocabulary().pretokenizer, texts.texts, texts.columns());
  print_report(*q, *tokenizer, texts, counts);
  return {};
}

/// The text of the file, or of standard input if none is named.
Result<std::string> read_all(const std::string& path) { return read_text(path.empty() ? "-" : path); }

Result<void> write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) return file_error("write", "standard output");
  return {};
}

std::string joined(const std::vector<std::int32_t>& ids, std::string_view separator) {
  std::string text;
  for (const std::int32_t id : ids) {
    if (!text.empty()) text += separator;
    text += std::to_string(id);
  }
  return text;
}

Result<void> encode(const Options& options) {
  const auto tokenizer = noted(load_tokenizer(options.tokenizer));
  if (!tokenizer) return tokenizer.error();
  const auto input = options.text.prompt.empty() ? read_all(options.text.file)
                                                 : Result<std::string>(options.text.flag_text(options.text.prompt));
  if (!input) return input.error();
  Encoder encoder(*tokenizer);
  if (!options.jsonl)
    return write_out(joined(encoder.encode(*input, options.special ? Special::as_token : Special::as_text), " ") +
                     "\n");
  return each_line(*input, [&](std::string_view line, std::int64_t) -> Result<void> {
    const auto json = Json::parse(line);
    if (!json) return json.error();
    const auto text = json->string_at("text");
    if (!text) return text.error();
    bool special = options.special;
    if (json->find("special")) {
      const auto asked = json->boolean_at("special");
      if (!asked) return asked.error();
      special = *asked;
    }
    const auto ids = encoder.encode(*text, special ? Special::as_token : Special::as_text);
    return write_out("{\"ids\": [" + joined(ids, ", ") + "]}\n");
  });
}

/// The token's id, if the tokenizer has it.
Result<std::int32_t> known_id(const Tokenizer& tokenizer, std::string_view text) {
  std::int32_t id = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc{} || end != text.data() + text.size() || id < 0 || id >= tokenizer.size())
    return Error{"expected token ids from 0 to " + std::to_string(tokenizer.size() - 1) + ", found " +
                 std::string(text.substr(0, 40))};
  return id;
}

Result<void> decode(const Options& options) {
  const auto tokenizer = noted(load_tokenizer(options.tokenizer));
  if (!tokenizer) return tokenizer.error();
  const auto input = read_all(options.text.file);
  if (!input) return input.error();
  std::vector<std::int32_t> ids;
  const auto add = [&](std::string_view text) -> Result<void> {
    const auto id = known_id(*tokenizer, text);
    if (!id) return id.error();
    ids.push_back(*id);
    return {};
  };
  if (options.jsonl)
    return each_line(*input, [&](std::string_view line, std::int64_t) -> Result<void> {
      const auto json = Json::parse(line);
      if (!json) return json.error();
      const auto list = json->at("ids", Json::Kind::array);
      if (!list) return list.error();
      ids.clear();
      for (const Json id : list->elements())
        if (Result<void> s = add(id.text()); !s) return s;
      return write_out("{\"text\": " + json_quoted(tokenizer->decode(ids)) + "}\n");
    });
  constexpr std::string_view blanks = " \t\r\n,[]";
  for (std::size_t at = input->find_first_not_of(blanks); at != std::string::npos;) {
    const std::size_t end = std::min(input->find_first_of(blanks, at), input->size());
    if (Result<void> s = add(std::string_view(*input).substr(at, end - at)); !s) return s;
    at = input->find_first_not_of(blanks, end);
  }
  return write_out(tokenizer->decode(ids));
}

int program(int argc, char** argv) {
  Options options;
  Flags app{"Learns a tokenizer from texts, and uses it.", "chimera-tokenize"};
  app.end_help("chimera-tokenize train --vocab 8192 --input text.txt --out tokenizer.json");
  app.require_subcommand(1);

  CLI::App* training =
      app.add_subcommand("train", "learns byte-pair encoding from texts and writes it as tokenizer.json");
  CLI::App* encoding = app.add_subcommand("encode", "text to token ids");
  CLI::App* decoding = app.add_subcommand("decode", "token ids to text");
  CLI::App* statistic = app.add_subcommand("stats", "how many tokens a tokenizer makes of texts");
  for (CLI::App* command : {training, encoding, decoding, statistic}) {
    command->option_defaults()->always_capture_default()->take_last();
    command->set_help_flag("-h,--help", "print this and end");
    command->group("Commands");
  }
  training->footer(
      "Example:\n  chimera-tokenize train --vocab 8192 --input english.txt hindi.txt --out tokenizer.json");
  encoding->footer("Example:\n  chimera-tokenize encode --tokenizer tokenizer.json -p 'Hello, world'");
  decoding->footer("Example:\n  echo 72 105 | chimera-tokenize decode --tokenizer tokenizer.json");
  statistic->footer("Example:\n  chimera-tokenize stats --tokenizer tokenizer.json --input text.txt");

  training->add_option("--vocab", options.vocab, "tokens, 256 bytes and the special ones among them");
  training->add_option("--out", options.out, "the tokenizer.json to write")
      ->type_name("FILE")
      ->default_str("")
      ->required();
  training
      ->add_option("--weight", options.weights,
                   "LANGUAGE=NUMBER: its share of the mix, 1 for each that is not named; "
                   "without this the mix of hi and en is searched that --parity asks for")
      ->take_all()
      ->default_str("");
  training->add_option("--parity", options.parity, "tokens of Hindi for each of English in the same sentences, at most")
      ->check(positive());
  training->add_option("--special", options.specials, "special tokens, which get the last ids")
      ->take_all()
      ->type_name("NAME ...")
      ->default_str("<|endoftext|>, <|im_start|>, <|im_end|> and six more");
  add_choice(*training, "--pretokenizer", options.rules,
             {{"qwen35", PreTokenizer::qwen35},
              {"o200k", PreTokenizer::o200k},
              {"tekken", PreTokenizer::tekken},
              {"llama3", PreTokenizer::llama3},
              {"qwen2", PreTokenizer::qwen2},
              {"cl100k", PreTokenizer::cl100k},
              {"gpt2", PreTokenizer::gpt2}},
             "how text is cut before it is encoded");
  for (CLI::App* command : {training, statistic}) {
    CLI::Option* inputs =
        command->add_option("--input", options.inputs,
                            "text files, FILE or LANGUAGE=FILE; without a language it is hi or en, by the script");
    inputs->take_all()->expected(1, CLI::detail::expected_max_vector_size)->type_name("FILE ...")->default_str("");
    if (command == training) inputs->required();
    command
        ->add_option("--parallel", options.parallel,
                     R"(aligned sentences to compare the languages on, lines {"en": "...", "hi": "..."})")
        ->type_name("FILE")
        ->default_str("");
    add_threads_option(*command, options.threads);
  }
  for (CLI::App* command : {encoding, decoding, statistic})
    command->add_option("-m,--tokenizer,--model", options.tokenizer, "tokenizer.json, a .tiktoken file or a GGUF file")
        ->type_name("FILE")
        ->default_str("")
        ->required();
  auto* prompt = encoding->add_option("-p,--prompt", options.text.prompt, "the text itself")->default_str("");
  encoding->add_option("FILE,-f,--file", options.text.file, "a file with the text; without it, standard input")
      ->type_name("FILE")
      ->default_str("")
      ->excludes(prompt);
  options.text.add_escape(*encoding);
  encoding->add_flag("--special", options.special, "names of special tokens in the text count as such");
  encoding->add_flag("--jsonl", options.jsonl, R"(lines {"text": "...", "special": false} to lines {"ids": [...]})");
  decoding->add_option("FILE,-f,--file", options.text.file, "a file with the ids; without it, standard input")
      ->type_name("FILE")
      ->default_str("");
  decoding->add_flag("--jsonl", options.jsonl, R"(lines {"ids": [...]} to lines {"text": "..."})");

  return run(app, argc, argv, [&] {
    Result<void> status;
    if (training->parsed()) {
      struct sigaction action {};
      action.sa_handler = [](int) { stop_asked = 1; };
      action.sa_flags = static_cast<int>(SA_RESETHAND);
      sigaction(SIGINT, &action, nullptr);
      sigaction(SIGTERM, &action, nullptr);
      status = train(options);
    } else {
      status = encoding->parsed() ? encode(options) : decoding->parsed() ? decode(options) : statistics(options);
    }
    return status;
  });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-tokenize", [&] { return program(argc, argv); });
}
