// Tokens a second of whole training steps (forward, backward, clipping, AdamW), and the memory they take, of the
// models that train_step.py also times with PyTorch and of the 700M preset (batch 1 x 512, recomputing activations).
// usage: train_step [--json] [attention|hybrid|gdn|xlstm|titans|700m] [steps] [f32|bf16]
#include "figure.hpp"

#include <chimera/chimera.hpp>
#include <chimera/kernels/roofline.hpp>

#include <sys/resource.h>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace chimera;

// 33.6M weights: the size of a GPT-2 block of the same width, with a gated feed-forward of equal cost.
constexpr Config all_attention{.vocab = 4'096,
                               .width = 512,
                               .context = 256,
                               .layers = pattern("A", 10),
                               .attention = {.heads = 8},
                               .ffn = {.hidden = 1'368}};
// 43M weights: every fourth layer is attention.
constexpr Config mamba_hybrid{.vocab = 4'096,
                              .width = 512,
                              .context = 256,
                              .layers = pattern("M M M A", 12),
                              .attention = {.heads = 8, .kv_heads = 4},
                              .ffn = {.hidden = 1'280}};

// 33.4M weights, the memory of xLSTM in every layer: as all_attention otherwise.
constexpr Config all_memory{.vocab = 4'096,
                            .width = 512,
                            .context = 256,
                            .layers = pattern("XM", 10),
                            .mlstm = {.heads = 4},
                            .ffn = {.hidden = 1'368}};

// 44.2M weights, the memory of Titans in every layer: as all_attention otherwise.
constexpr Config all_titans{.vocab = 4'096,
                            .width = 512,
                            .context = 256,
                            .layers = pattern("TM", 10),
                            .titans = {.heads = 8},
                            .ffn = {.hidden = 1'368}};

// 41M weights: Gated DeltaNet, and every fourth layer attention, as Qwen3.5 has them.
constexpr Config gdn_hybrid{
    .vocab = 4'096,
    .width = 512,
    .context = 256,
    .layers = pattern("GD GD GD A", 12),
    .attention = {.heads = 8, .kv_heads = 4, .rope = {.dims = 16}, .qk_norm = true, .output_gate = true},
    .ffn = {.hidden = 1'280}};

int fail(const Error& error) {
  std::fprintf(stderr, "train_step: %s\n", error.message.c_str());
  return 1;
}

int time_steps(const AnyModel& model, std::int64_t sequences, std::int64_t length, int steps, Precision precision,
               bool json) {
  auto whole = Cpu::create();
  if (!whole) return fail(whole.error());
  const Cpu cpu = whole->with(precision);
  auto optimizer = AdamW::create(cpu, model.tensors, model.arena_floats, {});
  if (!optimizer) return fail(optimizer.error());
  auto learner = Gradient::create(cpu, model, std::make_unique<AdamW>(std::move(*optimizer)), 1.0);
  if (!learner) return fail(learner.error());
  auto weights = Buffer::create(model.arena_floats), memory = Buffer::of_bytes(learner->bytes(sequences, length));
  for (const auto* buffer : {&weights, &memory})
    if (!*buffer) return fail(buffer->error());
  model.initialize(weights->data(), 1);
  Random random{1, 1, 0};
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(sequences * length + 1));
  for (auto& t : tokens) t = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(model.config->vocab)));
  TokenBatch batch;
  batch.sequences = sequences, batch.length = length, batch.inputs = tokens.data(), batch.targets = tokens.data() + 1;

  TrainingHost host;
  double best = 1e30, loss = 0;
  for (int i = 0; i <= steps; ++i) {  // the first touches all memory and counts only if it is alone
    const auto start = std::chrono::steady_clock::now();
    const auto learned = learner->measure(cpu, weights->data(), {.batches = {&batch, 1}}, memory->bytes(), host);
    learner->update(cpu, weights->data(), {.number = i + 1, .rate = 3e-4});
    loss = learned->loss.mean();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i <= 1 || seconds < best) best = seconds;
  }
  const double rate = static_cast<double>(batch.tokens()) / best;
  const double flops = 6 * static_cast<double>(model.parameters) * rate;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double share = flops / roofline::measure_peak_f32(cpu),
               memory_gib = static_cast<double>(usage.ru_maxrss) / (1 << 20);
  if (json) {
    const std::string name = std::string(model.name) + (precision == Precision::bf16 ? ", BF16" : ", f32");
    write_json({name, rate, "tok/s", share, "f32 peak"});
    write_json({name + ", memory at most", memory_gib, "GiB"});
    return 0;
  }
  std::printf("%s parameters %lld tokens_per_second %.1f share_of_peak %.3f loss %.4f peak_memory_gib %.2f\n",
              model.name.data(), static_cast<long long>(model.parameters), rate, share, loss, memory_gib);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const bool json = take_flag(argc, argv, "--json");
  const std::string_view which = argc > 1 ? argv[1] : "attention";
  const int steps = argc > 2 ? std::atoi(argv[2]) : 3;
  const Precision precision = argc > 3 && argv[3] == std::string_view("bf16") ? Precision::bf16 : Precision::f32;
  if (which == "attention") return time_steps(any_model<all_attention>("attention"), 8, 256, steps, precision, json);
  if (which == "hybrid") return time_steps(any_model<mamba_hybrid>("hybrid"), 4, 256, steps, precision, json);
  if (which == "gdn") return time_steps(any_model<gdn_hybrid>("gdn"), 4, 256, steps, precision, json);
  if (which == "xlstm") return time_steps(any_model<all_memory>("xlstm"), 8, 256, steps, precision, json);
  if (which == "titans") return time_steps(any_model<all_titans>("titans"), 4, 256, steps, precision, json);
  if (which == "700m") return time_steps(any_model<presets::hybrid_700m>("700m"), 1, 512, steps, precision, json);
  std::fprintf(stderr, "usage: train_step [--json] [attention|hybrid|gdn|xlstm|titans|700m] [steps] [f32|bf16]\n");
  return 2;
}
