#include "golden.hpp"

#include <chimera/exchange/hugging_face.hpp>
#include <chimera/exchange/pack.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/model/any_model.hpp>

namespace goldens {
namespace {

using namespace chimera;

/// Of ternary models one input that is rounded the other way moves some logits by tenths. Decoding rounds them in blocks.
void compare_outputs(Golden& g, const AnyModel& model, const std::string& what, const Floats& got, const Floats& want,
                     double mean = 0.02) {
  if (model.config->ternary.on) return g.compare_mean(what, got, want, mean);
  g.compare(what, got, want, logits_tolerance);
}

void compare_decoding(Golden& g, const Cpu& q, const PackedModel& model, const std::vector<std::int32_t>& tokens,
                      const Floats& want) {
  const std::size_t V = static_cast<std::size_t>(model.config().vocab), T = tokens.size() / 2;
  Floats decoded(want.size());
  for (const std::size_t cut : {std::size_t{0}, T / 2}) {
    for (std::size_t b = 0; b < 2; ++b) {
      auto session = Session::create(q, model, {.kv = KvFormat::f32});
      if (!session) throw std::runtime_error(session.error().message);
      const std::span text(tokens.data() + b * T, T);
      const auto keep = [&](std::size_t t, const Result<Session::Logits>& logits) {
        if (!logits) throw std::runtime_error(logits.error().message);
        std::copy(logits->begin(), logits->end(), decoded.begin() + static_cast<std::ptrdiff_t>((b * T + t) * V));
      };
      if (cut > 0) keep(cut - 1, session->prefill(text.first(cut)));
      for (std::size_t t = cut; t < T; ++t) keep(t, session->step(text[t]));
    }
    compare_outputs(g, model.model(), cut ? "out.logits, half, then token by token" : "out.logits, token by token",
                    decoded, want, 0.05);
  }
}

void compare_greedy(Golden& g, const Cpu& q, const PackedModel& model, const std::string& name) {
  const std::vector<std::int32_t> prompt = g.data().integers("in.prompt"), want = g.data().integers(name);
  auto session = Session::create(q, model);
  if (!session) throw std::runtime_error(session.error().message);
  auto logits = session->prefill(prompt);
  int wrong = 0;
  for (const std::int32_t token : want) {
    if (!logits) throw std::runtime_error(logits.error().message);
    wrong += std::max_element(logits->begin(), logits->end()) - logits->begin() != token;
    logits = session->step(token);
  }
  g.record(name + ", tokens that differ", wrong, 0.5);
}

/// The two rows of tokens, each with its next token as target.
struct Text {
  std::vector<std::int32_t> tokens, targets;
  TokenBatch batch;

  explicit Text(const Golden& g) : tokens(g.data().integers("in.tokens")), targets(tokens.begin() + 1, tokens.end()) {
    targets.push_back(-1);
    targets[tokens.size() / 2 - 1] = -1;
    batch.sequences = 2, batch.length = static_cast<std::int64_t>(tokens.size()) / 2;
    batch.inputs = tokens.data(), batch.targets = targets.data();
  }
};

void compare_logits(Golden& g, const Cpu& q, const AnyModel& model, const float* weights, const Text& text,
                    const std::string& name) {
  const Floats want = g.get(name, text.batch.tokens() * model.config->vocab);
  Floats logits(want.size());
  Arena memory = Arena::of_bytes(static_cast<std::int64_t>(model.loss_bytes(2, text.batch.length)));
  model.forward(q, weights, text.batch, memory.bytes(), logits.data());
  compare_outputs(g, model, name, logits, want);
  if (!memory.intact()) g.fail("the forward pass writes behind its memory");
}

void compare_checkpoint(Golden& g, const Cpu& q, const AnyModel& model, const float* weights, const Text& text) {
  const TokenBatch& batch = text.batch;
  Arena memory = Arena::of_bytes(static_cast<std::int64_t>(model.loss_bytes(2, batch.length)));
  const auto counted = static_cast<double>(batch.counted());
  double sum = 0;
  model.loss(q, weights, batch, {}, memory.bytes(), &sum);
  const float loss = static_cast<float>(sum / counted);
  g.compare("out.loss", {&loss, 1}, g["out.loss"], forward_tolerance);
  if (!memory.intact()) g.fail("the loss writes behind its memory");
  compare_logits(g, q, model, weights, text, "out.logits");
  const auto packed = PackedModel::create(q, model, weights);
  if (!packed) throw std::runtime_error(packed.error().message);
  compare_decoding(g, q, *packed, text.tokens, g["out.logits"]);
  compare_greedy(g, q, *packed, "out.greedy");
  const auto table = file_weights(model, hugging_face_parts::family_of(hugging_face_parts::type_of(*model.config)));
  if (!g.data().has("grad." + table->front().name)) return;

  Arena training = Arena::of_bytes(static_cast<std::int64_t>(model.train_bytes(2, batch.length))),
        gradients(static_cast<std::int64_t>(model.arena_floats));
  std::fill_n(gradients.data(), gradients.size(), 0.f);
  const TrainingStep step{.scale = 1.f / static_cast<float>(batch.counted())};
  sum = 0;
  model.train(q, weights, batch, step, training.bytes(), gradients.data(), &sum);
  const float trained = static_cast<float>(sum / counted);
  g.compare("out.loss, in training", {&trained, 1}, g["out.loss"], forward_tolerance);
  for (const FileWeight& w : *table) {
    Floats gradient;
    for (std::int64_t i = 0; i < w.size(); ++i)
      gradient.push_back(
          gradients
              .data()[w.offset + static_cast<std::size_t>(w.our_row(i / w.cols) * w.cols + w.our_col(i % w.cols))]);
    g.compare("grad." + w.name, gradient, g.get("grad." + w.name, w.size()), model_gradient_tolerance);
  }
  if (!training.intact() || !gradients.intact()) g.fail("training writes behind its memory");
}

}  // namespace

void run_model(Golden& g, const Cpu& q, const AnyModel& model) {
  const Text text(g);
  Arena weights(static_cast<std::int64_t>(model.arena_floats));
  const auto loaded = [&](const Status& status) {
    if (!status) throw std::runtime_error(status.error().message);
    if (!weights.intact()) g.fail("loading writes behind the weights");
  };
  bool found = false;
  if (const auto folder = g.checkpoint(); std::filesystem::exists(folder / "model.safetensors")) {
    loaded(load_hugging_face(q, folder, model, weights.data()));
    compare_checkpoint(g, q, model, weights.data(), text);
    found = true;
  }
  for (const std::string type : {"f32", "q8_0", "q4_0", "q4_k_m"}) {
    const auto path = g.checkpoint() / ("model-" + type + ".gguf");
    if (!std::filesystem::exists(path)) continue;
    const auto file = Gguf::open(path);
    if (!file) throw std::runtime_error(file.error().message);
    loaded(load_gguf(q, *file, model, weights.data()));
    compare_logits(g, q, model, weights.data(), text, type == "f32" ? "out.logits" : "out." + type + ".logits");
    found = true;
  }
  if (!found) g.skip("the folder has no weights of this model");
}

}  // namespace goldens
