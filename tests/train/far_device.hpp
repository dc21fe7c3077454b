// A device whose memory the host cannot see: its pages are closed but while a kernel runs, and kernels are the
// processor's. So a line of a model or of a trainer that reads or writes a device's memory by itself ends the test.
#pragma once

#include <chimera/training.hpp>

#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace far {

using namespace chimera;

struct Region {
  void* data;
  std::size_t bytes;
};

/// What all that is lent of one device shares.
struct State {
  std::vector<Region> regions;
  std::string error;  // the first

  void protect(int how) {
    for (const Region& r : regions)
      if (mprotect(r.data, r.bytes, how) != 0) error = "mprotect";
  }
};

class Memory {
 public:
  Memory() = default;
  Memory(std::shared_ptr<State> state, Region region) : state_(std::move(state)), region_(region) {
    state_->regions.push_back(region_);
  }
  Memory(Memory&& m) noexcept : state_(std::move(m.state_)), region_(m.region_) {}
  Memory& operator=(Memory&& m) noexcept {
    std::swap(state_, m.state_), std::swap(region_, m.region_);
    return *this;
  }
  ~Memory() {
    if (!state_) return;
    std::erase_if(state_->regions, [&](const Region& r) { return r.data == region_.data; });
    munmap(region_.data, region_.bytes);
  }

  float* data() { return static_cast<float*>(region_.data); }
  const float* data() const { return static_cast<const float*>(region_.data); }
  std::byte* bytes() { return static_cast<std::byte*>(region_.data); }

 private:
  std::shared_ptr<State> state_;
  Region region_{};
};

class Device {
 public:
  using Real = float;
  using Memory = far::Memory;
  static constexpr bool shares_memory = false;

  explicit Device(const Cpu& cpu) : state_(std::make_shared<State>()), cpu_(cpu.with(cpu.precision())) {}
  Device(std::shared_ptr<State> state, Cpu cpu) : state_(std::move(state)), cpu_(std::move(cpu)) {}

  Result<Memory> allocate(std::size_t bytes) const {
    constexpr std::size_t page = 4096;
    bytes = (bytes + page) / page * page;
    void* data = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return Error{"out of memory"};
    return Memory(state_, {data, bytes});
  }
  void upload(void* to, const void* from, std::size_t bytes) const {
    const std::vector<std::byte> hosts(static_cast<const std::byte*>(from),
                                       static_cast<const std::byte*>(from) + bytes);
    open([&] { std::memcpy(to, hosts.data(), bytes); });
  }
  void download(void* to, const void* from, std::size_t bytes) const {
    std::vector<std::byte> read(bytes);
    open([&] { std::memcpy(read.data(), from, bytes); });
    std::memcpy(to, read.data(), bytes);
  }
  Result<void> finish() const { return state_->error.empty() ? Result<void>{} : Error{state_->error}; }
  Device with(Precision precision) const { return {state_, cpu_.with(precision)}; }

  void fail(const std::string& error) const { state_->error = error; }

  /// Runs f(cpu) while the memory can be seen.
  template <class F>
  void open(F&& f) const {
    state_->protect(PROT_READ | PROT_WRITE);
    if constexpr (requires { f(cpu_); })
      f(cpu_);
    else
      f();
    state_->protect(PROT_NONE);
  }

 private:
  std::shared_ptr<State> state_;
  Cpu cpu_;
};

#define KERNEL(name)                                                            \
  template <class... A>                                                         \
  void name(const Device& q, A&&... a) {                                        \
    q.open([&](const Cpu& cpu) { chimera::name(cpu, std::forward<A>(a)...); }); \
  }
KERNEL(zero)
KERNEL(copy)
KERNEL(add_scaled)
KERNEL(sum_rows)
KERNEL(add_bias)
KERNEL(swiglu)
KERNEL(swiglu_backward)
KERNEL(soft_cap)
KERNEL(soft_cap_backward)
KERNEL(gelu_gate)
KERNEL(gelu_gate_backward)
KERNEL(sigmoid_gate)
KERNEL(sigmoid_gate_backward)
KERNEL(dropout)
KERNEL(dropout_rows)
KERNEL(embed)
KERNEL(embed_backward)
KERNEL(rms_norm)
KERNEL(rms_norm_backward)
KERNEL(gated_rms_norm)
KERNEL(gated_rms_norm_backward)
KERNEL(head_norm)
KERNEL(head_norm_backward)
KERNEL(rope_table)
KERNEL(rope)
KERNEL(attention)
KERNEL(attention_backward)
KERNEL(causal_conv)
KERNEL(causal_conv_backward)
KERNEL(ssd_step_size)
KERNEL(ssd_step_size_backward)
KERNEL(decay_rate)
KERNEL(decay_rate_backward)
KERNEL(ssd)
KERNEL(rg_lru)
KERNEL(rms_norm_then_gate)
KERNEL(rms_norm_then_gate_backward)
KERNEL(delta_gates)
KERNEL(delta_gates_backward)
KERNEL(delta_rule)
KERNEL(mlstm_gates)
KERNEL(mlstm_gates_backward)
KERNEL(mlstm)
KERNEL(mlstm_norm)
KERNEL(mlstm_norm_backward)
KERNEL(turn_heads)
KERNEL(turn_heads_backward)
KERNEL(span_knot)
KERNEL(cached_span_knot)
KERNEL(titans_segments)
KERNEL(titans_gather)
KERNEL(titans_scatter)
KERNEL(titans_steps)
KERNEL(titans_queries)
KERNEL(titans_recall)
KERNEL(titans_turn)
KERNEL(titans_attention)
KERNEL(titans_inputs)
KERNEL(titans_update)
KERNEL(titans_output)
KERNEL(titans_output_backward)
KERNEL(titans_update_backward)
KERNEL(titans_inputs_backward)
KERNEL(titans_attention_backward)
KERNEL(titans_persistent_backward)
KERNEL(titans_recall_backward)
KERNEL(titans_states_backward)
KERNEL(titans_queries_backward)
KERNEL(cached_titans_start)
KERNEL(cached_titans_segments)
KERNEL(cached_titans_keep)
KERNEL(gemm)
KERNEL(gemm_batched)
KERNEL(cross_entropy)
KERNEL(target_log_probs)
KERNEL(add_losses)
KERNEL(gradient_norm)
KERNEL(adamw_update)
KERNEL(cached_attention)
KERNEL(route)
KERNEL(route_backward)
KERNEL(gather_pairs)
KERNEL(add_pairs)
KERNEL(weigh_pairs)
KERNEL(expert_linear)
KERNEL(expert_input_gradient)
KERNEL(expert_weight_gradient)
KERNEL(balance_experts)
KERNEL(router_logits)
KERNEL(expert_gates)
KERNEL(expert_products)
KERNEL(inject)
KERNEL(inject_backward)
KERNEL(truncated_normal)
KERNEL(mean_change)
#undef KERNEL

inline void training_gemm(const Device& q, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a,
                          ConstView b, float beta, float* c, std::int64_t ldc) {
  q.open([&](const Cpu& cpu) { chimera::training_gemm(cpu, m, n, k, alpha, a, b, beta, c, ldc); });
}
inline void stored_product(const Device& q, const StoredMatrix& w, std::int64_t n, float scale, const float* x,
                           std::int64_t ldx, float beta, float* y, std::int64_t ldy) {
  q.open([&](const Cpu& cpu) { chimera::stored_product(cpu, w, n, scale, x, ldx, beta, y, ldy); });
}
inline void stored_input_gradient(const Device& q, const StoredMatrix& w, std::int64_t n, float scale, const float* dy,
                                  std::int64_t ldy, float beta, float* dx, std::int64_t ldx) {
  q.open([&](const Cpu& cpu) { chimera::stored_input_gradient(cpu, w, n, scale, dy, ldy, beta, dx, ldx); });
}
inline void stored_embed(const Device& q, const StoredMatrix& w, std::int64_t n, const std::int32_t* tokens,
                         float scale, float* x) {
  q.open([&](const Cpu& cpu) { chimera::stored_embed(cpu, w, n, tokens, scale, x); });
}
inline void ssd_backward(const Device& q, const SsdShape& s, const Batch& batch, const float* xbc, const float* dt,
                         const float* A, const float* D, const float* states, const float* products, const float* dy,
                         const SsdGradients& out, Bump temp) {
  q.open([&](const Cpu& cpu) { chimera::ssd_backward(cpu, s, batch, xbc, dt, A, D, states, products, dy, out, temp); });
}
inline void rg_lru_backward(const Device& q, std::int64_t channels, const Batch& batch, const float* x, const float* r,
                            const float* i, const float* lambda, const float* initial, const float* h, const float* dh,
                            const RgLruGradients& out, Bump temp) {
  q.open([&](const Cpu& cpu) {
    chimera::rg_lru_backward(cpu, channels, batch, x, r, i, lambda, initial, h, dh, out, temp);
  });
}
inline void delta_rule_backward(const Device& q, const DeltaRuleShape& s, const Batch& batch, const float* qkv,
                                const float* g, const float* beta, const float* states, const float* dy,
                                const DeltaRuleGradients& out) {
  q.open([&](const Cpu& cpu) { chimera::delta_rule_backward(cpu, s, batch, qkv, g, beta, states, dy, out); });
}
inline void cached_delta_rule(const Device& q, const CachedDeltaRuleShape& s, const Pass& pass, const ProductInput& x,
                              const float* qkvz, const CachedDeltaRuleWeights& w, float* mixed, Bump temp) {
  q.open([&](const Cpu& cpu) { chimera::cached_delta_rule(cpu, s, pass, x, qkvz, w, mixed, temp); });
}
inline void mlstm_backward(const Device& q, const MlstmShape& s, const Batch& batch, const float* qkvo,
                           const float* gates, const float* states, const float* dots, const float* h, const float* dh,
                           const MlstmGradients& out, Bump temp) {
  q.open([&](const Cpu& cpu) { chimera::mlstm_backward(cpu, s, batch, qkvo, gates, states, dots, h, dh, out, temp); });
}
inline void cached_mlstm(const Device& q, const CachedMlstmShape& s, const Pass& pass, const float* qkvo,
                         const float* raw, const CachedMlstmWeights& w, float* y, Bump temp) {
  q.open([&](const Cpu& cpu) { chimera::cached_mlstm(cpu, s, pass, qkvo, raw, w, y, temp); });
}
inline void span_knot_backward(const Device& q, const SpanKnotShape& s, const Batch& batch, const SpanKnotInput& in,
                               const float* knots, const float* out, const float* lse, const float* least,
                               const float* dout, const SpanKnotGradients& d, Bump temp) {
  q.open(
      [&](const Cpu& cpu) { chimera::span_knot_backward(cpu, s, batch, in, knots, out, lse, least, dout, d, temp); });
}
inline void gate_product(const Device& q, const float* w, std::int64_t n, std::int64_t cols, std::int64_t rows,
                         const ProductInput& x, float* y) {
  q.open([&](const Cpu& cpu) { chimera::gate_product(cpu, w, n, cols, rows, x, y); });
}
inline void product(const Device& q, const PackedMatrix& w, std::int64_t rows, const ProductInput& x, const Then& then,
                    Bump temp) {
  q.open([&](const Cpu& cpu) { chimera::product(cpu, w, rows, x, then, temp); });
}
inline void cached_ssd(const Device& q, const CachedSsdShape& s, const Pass& pass, const float* zxbcdt,
                       const CachedSsdWeights& w, float* gated, Bump temp) {
  q.open([&](const Cpu& cpu) { chimera::cached_ssd(cpu, s, pass, zxbcdt, w, gated, temp); });
}
inline void cached_rg_lru(const Device& q, const CachedRgLruShape& s, const Pass& pass, float* gate_input,
                          const CachedRgLruWeights& w, float* mixed, Bump temp) {
  q.open([&](const Cpu& cpu) { chimera::cached_rg_lru(cpu, s, pass, gate_input, w, mixed, temp); });
}

static_assert(chimera::Device<Device>);

}  // namespace far
