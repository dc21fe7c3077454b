// A layer of one's own, with a word of its own in the pattern: trained, saved, loaded and decoded.
#include <chimera/chimera.hpp>

#include <cmath>
#include <cstdio>

using namespace chimera;

/// Running means of what a projection sees, each channel with a memory of its own:
///   u = W_in x,   h_t = a h_{t-1} + (1 - a) u_t with a = sigmoid(memory),   y = W_out h
template <const Config& C>
struct RunningMean {
  static constexpr std::int64_t width = C.width;
  static constexpr Linear square{width, width};
  // 1. Weights, in arena order.
  enum Param : std::size_t { input, memory, output };
  static constexpr std::array params{
      Tensor{"mean.in.weight", width, width}, vector_tensor("mean.memory", width, Init::uniform(0.f, 4.f)),
      Tensor{"mean.out.weight", width, width, Role::matrix, Init::branch(C.layers.count)}};
  struct Activations {
    float *u, *h;  // [B,T,width]
  };
  static Activations bind(Bump& memory, const Batch& b) { return {memory.take(floats(b)), memory.take(floats(b))}; }
  static std::int64_t temp_bytes(const Batch& b) { return bytes_of({floats(b), floats(b)}); }
  // 2. Forward.
  static void forward(const Device auto& q, Weights<RunningMean> w, const Batch& batch, const float* x, float scale,
                      float* y, Activations& a, Bump) {
    const std::int64_t n = batch.tokens();
    linear(q, square, w.matrix(input), n, 1.f, x, width, 0.f, a.u, width);
    parallel(q, width, [&](std::int64_t c, int) {
      const float keep = sigmoid(w.vector(memory)[c]);
      for (std::int64_t t = 0, at = c; t < n; ++t, at += width)
        a.h[at] = (starts(batch, t) ? 0.f : keep * a.h[at - width]) + (1 - keep) * a.u[at];
    });
    linear(q, square, w.matrix(output), n, scale, a.h, width, 1.f, y, width);
  }
  // 3. Backward: g_t = dh_t + a g_{t+1},   du_t = (1 - a) g_t,   da += g_t (h_{t-1} - u_t).
  static void backward(const Device auto& q, Weights<RunningMean> w, Weights<RunningMean, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* dh = temp.take(n * width);
    float* du = temp.take(n * width);
    linear_backward(q, square, w.matrix(output), dw.matrix(output), n, scale, dy, width, a.h, width, 0.f, dh);
    parallel(q, width, [&](std::int64_t c, int) {
      const float keep = sigmoid(w.vector(memory)[c]);
      for (std::int64_t t = n; t-- > 0;) {
        const std::int64_t at = t * width + c;
        const bool first = starts(batch, t), last = t + 1 == n || starts(batch, t + 1);
        if (!last) dh[at] += keep * dh[at + width];
        du[at] = (1 - keep) * dh[at];
        dw.vector(memory)[c] += keep * (1 - keep) * dh[at] * ((first ? 0.f : a.h[at - width]) - a.u[at]);
      }
    });
    linear_backward(q, square, w.matrix(input), dw.matrix(input), n, 1.f, du, width, x, width, 0.f, dx);
  }
  // 4. Decode. A sequence carries h [width].
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {.whole = bytes_of({width})}; }
  static std::int64_t decode_bytes(std::int64_t rows) { return bytes_of({rows * width}) + product_bytes(rows, width); }
  static void decode(const Device auto& q, PackedWeights<RunningMean> w, const Pass& pass, const ProductInput& x,
                     float scale, float* y, Bump temp) {
    float* u = temp.take(pass.rows * width);
    product(q, w.matrix(input), pass.rows, x, Then::store(u, width), temp);
    for (const Run& run : pass.runs)
      parallel(q, width, [&](std::int64_t c, int) {
        float& h = reinterpret_cast<float*>(run.state)[c];
        const float keep = sigmoid(w.vector(memory)[c]);
        for (std::int64_t t = run.first; t < run.first + run.count; ++t)
          u[t * width + c] = h = keep * h + (1 - keep) * u[t * width + c];
      });
    product(q, w.matrix(output), pass.rows, {u, width}, Then::add(y, width, scale), temp);
  }

 private:
  static std::int64_t floats(const Batch& b) { return b.tokens() * width; }
  static float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }
  static bool starts(const Batch& b, std::int64_t t) {
    return b.document_start ? b.document_start[t] == t % b.length : t % b.length == 0;
  }
};

inline constexpr Config mine{.vocab = 256,
                             .width = 64,
                             .context = 128,
                             .layers = pattern("W W A", 3, {"W"}),
                             .attention = {.heads = 2},
                             .ffn = {.hidden = 128}};

template <>
inline constexpr auto chimera::own_mixers<mine> = boost::hana::make_tuple(Mixer<"W", RunningMean<mine>>{});
int fail(const Error& e) { return std::fprintf(stderr, "own_layer: %s\n", e.message.c_str()), 1; }
int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: own_layer TEXT MODEL.gguf\n"), 2;
  const AnyModel model = any_model<mine>("mine");
  const auto cpu = Cpu::create();
  if (!cpu) return fail(cpu.error());
  const auto text = Corpus::open(argv[1], mine.vocab);
  if (!text) return fail(text.error());
  auto trainer =
      Trainer::create(*cpu, model, split(*text), {.steps = 200, .batch = 8, .context = 64, .learning_rate = 4e-3});
  if (!trainer) return fail(trainer.error());
  TrainingHost host;
  if (const auto ended = trainer->run(host); !ended) return fail(ended.error());
  std::printf("validation: %.3f nats a byte\n", trainer->progress().validation_loss);
  const auto plain = [](GgufWriter&) {};  // no tokenizer: bytes
  const Status saved = save_gguf(*cpu, argv[2], model, trainer->weights(), *file_type_named("f32"), "mine", plain);
  if (!saved) return fail(saved.error());
  const auto packed = pack_gguf(*cpu, argv[2], model);
  if (!packed) return fail(packed.error());
  auto session = Session::create(*cpu, *packed);
  if (!session) return fail(session.error());
  std::int32_t token = '\n';
  for (int i = 0; i < 100; ++i) {
    const auto logits = session->step(token);
    if (!logits) return fail(logits.error());
    token = static_cast<std::int32_t>(std::max_element(logits->begin(), logits->end()) - logits->begin());
    std::putchar(token);
  }
}
