// The facts of a model in words: a Markdown file beside the weights.
#pragma once

#include <chimera/config/config_text.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

/// The run that a model was trained in.
struct CardRun {
  std::string data;                           // what it read
  std::int64_t updates = 0, tokens = 0;       // done, read
  double loss_mean = 0, validation_loss = 0;  // nats per token
  std::int64_t validation_step = 0;           // after which the validation loss was taken; 0: none was
  double seconds = 0;
  std::string settings;  // "name value", one a line
};

/// What a card says beyond the model itself.
struct CardFacts {
  std::string name;
  std::string file;          // what the weights lie in: a GGUF file, or "" for a Hugging Face folder
  std::string architecture;  // as the file's reader calls it
  std::string format;        // of the matrices
  std::string tokenizer;
  std::string source;          // where the weights come from, unless from a run
  std::optional<CardRun> run;  // nothing: not trained here
  bool llama_cpp = false, transformers = false;
};

namespace card_parts {

/// Text for a cell of a table.
inline std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' || c == '\r' ? ' ' : c;
  }
  return out;
}

class Table {
 public:
  Table(std::string& out, std::string_view title) : out_(out) {
    out_.append("\n## ").append(title).append("\n\n| | |\n|---|---|\n");
  }
  void row(std::string_view name, std::string_view value) {
    out_.append("| ").append(cell(name)).append(" | ").append(cell(value)).append(" |\n");
  }
  void row(std::string_view name, std::int64_t value) { row(name, std::to_string(value)); }
  void loss(std::string_view name, double nats) {
    char text[48];
    std::snprintf(text, sizeof text, "%.4f nats per token", nats);
    row(name, text);
  }

 private:
  std::string& out_;
};

inline void add_usage(std::string& out, const CardFacts& facts) {
  const std::string path = facts.file.empty() ? "FOLDER" : facts.file;
  out += "\n## Use\n\n```sh\nchimera-generate --model " + path + " --prompt \"Once upon a time\"\n";
  if (facts.llama_cpp) out += "llama-cli -m " + path + " -no-cnv -p \"Once upon a time\"\n";
  out += "```\n";
  if (facts.transformers)
    out +=
        "\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained(\"FOLDER\")\n"
        "tokenizer = AutoTokenizer.from_pretrained(\"FOLDER\")\n"
        "tokens = tokenizer(\"Once upon a time\", return_tensors=\"pt\")\n"
        "print(tokenizer.decode(model.generate(**tokens, max_new_tokens=100)[0]))\n```\n";
}

}  // namespace card_parts

/// The whole file.
inline std::string model_card(const AnyModel& model, const CardFacts& facts) {
  using namespace card_parts;
  const Config& c = *model.config;
  std::string out = "---\nlicense: unknown\npipeline_tag: text-generation\n";
  if (facts.transformers) out += "library_name: transformers\n";
  out += "tags:\n- chimera\n---\n\n# " + cell(facts.name) +
         "\n\nA language model written by chimera. Its license is not known: whoever publishes it must state one.\n";

  Table weights(out, "Model");
  weights.row("weights", model.parameters);
  weights.row("stored as", facts.format);
  weights.row("architecture", facts.architecture);
  weights.row("layers", std::to_string(c.layers.count) + ": " + pattern_words(c.layers));
  weights.row("width", c.width);
  each_used_mixer(c, [&](std::string_view name, const auto& part) { weights.row(name, part_words(c, part)); });
  weights.row("ffn", part_words(c, c.ffn));
  if (c.loop.on()) weights.row("loop", part_words(c, c.loop));
  weights.row("vocabulary", std::to_string(c.vocab) + (c.tied ? ", output tied to the embedding" : ""));
  weights.row("context", c.context);
  weights.row("tokenizer", facts.tokenizer);
  if (!facts.source.empty()) weights.row("converted from", facts.source);

  if (facts.run) {
    const CardRun& run = *facts.run;
    Table training(out, "Training");
    if (!run.data.empty()) training.row("data", run.data);
    training.row("updates", run.updates);
    training.row("tokens read", run.tokens);
    training.loss("training loss, running mean", run.loss_mean);
    if (run.validation_step > 0)
      training.loss("validation loss after update " + std::to_string(run.validation_step), run.validation_loss);
    training.row("seconds", static_cast<std::int64_t>(run.seconds));
    for (std::string_view rest = run.settings; !rest.empty();) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      const std::size_t space = std::min(line.size(), line.find(' '));
      training.row(line.substr(0, space), line.substr(std::min(line.size(), space + 1)));
    }
  }
  add_usage(out, facts);
  return out;
}

}  // namespace chimera::inline CHIMERA_ABI
