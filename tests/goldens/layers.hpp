// Runs one layer of the library on a golden file: its weights from there, forward, backward, and what they give.
#pragma once

#include "golden.hpp"

#include <chimera/layers/attention.hpp>
#include <chimera/layers/gated_deltanet.hpp>
#include <chimera/layers/mamba2.hpp>
#include <chimera/layers/mlstm.hpp>
#include <chimera/layers/moe.hpp>
#include <chimera/layers/rg_lru.hpp>
#include <chimera/layers/swiglu.hpp>
#include <chimera/layers/titans.hpp>

#include <functional>
#include <map>

namespace goldens {

/// The golden tensors that stand one upon the other in each of the layer's weights; `ours(name, values)` puts one's
/// values in our order.
using Names = std::vector<std::vector<std::string>>;

template <class L>
void run_layer(
    Golden& g, const chimera::Cpu& q, const Names& names, auto&& check_activations,
    const std::function<Floats(const std::string&, const Floats&)>& ours = [](const std::string&, const Floats& x) {
      return x;
    }) {
  constexpr std::int64_t width = L::width;
  const std::int64_t B = 2, T = g.number("T"), n = B * T;
  const Floats x = g.get("in.x", n * width), want = g.get("out.y", n * width), dy = g.get("cotangent.y", n * width);

  Arena weights(chimera::offsets<L>.back()), gradients(chimera::offsets<L>.back());
  std::fill_n(weights.data(), weights.size(), 0.f);
  std::fill_n(gradients.data(), gradients.size(), 0.f);
  const chimera::Weights<L> w{weights.data()};
  const chimera::Weights<L, float> dw{gradients.data()};
  for (std::size_t p = 0; p < names.size(); ++p) {
    if (names[p].empty()) continue;  // zero in the files
    Floats stacked;
    for (const std::string& name : names[p]) {
      const Floats part = ours(name, g["param." + name]);
      stacked.insert(stacked.end(), part.begin(), part.end());
    }
    if (static_cast<std::int64_t>(stacked.size()) != L::params[p].size())
      throw std::runtime_error(std::string(L::params[p].name) + ": the file's weights have another size");
    std::copy(stacked.begin(), stacked.end(), weights.data() + chimera::offsets<L>[p]);
  }

  const chimera::Batch batch{.sequences = B, .length = T};
  chimera::Bump count;
  L::bind(count, batch);
  Arena kept = Arena::of_bytes(static_cast<std::int64_t>(count.used)), temp = Arena::of_bytes(L::temp_bytes(batch));
  chimera::Bump memory{kept.data()};
  auto a = L::bind(memory, batch);
  Floats y(x.size(), 0.f), dx(x.size(), std::numeric_limits<float>::quiet_NaN());
  L::forward(q, w, batch, x.data(), 1.f, y.data(), a, chimera::Bump{temp.data()});
  g.compare("out.y", y, want, forward_tolerance);
  check_activations(a);
  L::backward(q, w, dw, batch, x.data(), dy.data(), 1.f, dx.data(), a, chimera::Bump{temp.data()});
  g.compare("grad.x", dx, g["grad.x"], gradient_tolerance);
  for (std::size_t p = 0; p < names.size(); ++p) {
    const float* at = gradients.data() + chimera::offsets<L>[p];
    for (const std::string& name : names[p]) {
      const Floats part = ours(name, g["grad." + name]);
      g.compare("grad." + name, {at, part.size()}, part, gradient_tolerance);
      at += part.size();
    }
  }
  if (!weights.intact() || !gradients.intact() || !kept.intact() || !temp.intact())
    g.fail("the layer writes behind its memory");
}

template <const chimera::Config& C>
void run_attention(Golden& g, const chimera::Cpu& q) {
  using L = chimera::Attention<C>;
  const std::int64_t B = 2, T = g.number("T"), D = L::head_dim;
  const auto rows = [&](const std::string& name, std::int64_t heads) { return swap_axes(g[name], B, heads, T, D); };
  run_layer<L>(g, q, {{"q_proj.weight", "k_proj.weight", "v_proj.weight"}, {"o_proj.weight"}},
               [&](const typename L::Activations& a) {
                 const Floats qkv = side_by_side(
                     B * T, {rows("aux.q", L::heads), rows("aux.k", L::kv_heads), rows("aux.v", L::kv_heads)});
                 g.compare("aux.q, aux.k, aux.v", {a.qkv, qkv.size()}, qkv, forward_tolerance);
                 const Floats mixed = rows("aux.o", L::heads);
                 g.compare("aux.o", {a.mixed, mixed.size()}, mixed, forward_tolerance);
               });
}

template <const chimera::Config& C>
void run_swiglu(Golden& g, const chimera::Cpu& q) {
  run_layer<chimera::SwiGlu<C>>(g, q, {{"gate_proj.weight", "up_proj.weight"}, {"down_proj.weight"}},
                                [](const auto&) {});
}

template <const chimera::Config& C>
void run_relu2(Golden& g, const chimera::Cpu& q) {
  run_layer<chimera::SwiGlu<C>>(g, q, {{"up_proj.weight"}, {"down_proj.weight"}}, [](const auto&) {});
}

template <const chimera::Config& C>
void run_moe(Golden& g, const chimera::Cpu& q) {
  using L = chimera::Moe<C>;
  const std::int64_t n = 2 * g.number("T"), E = L::experts, D = L::width;
  run_layer<L>(g, q, {{"router.weight"}, {}, {"gate_up_proj"}, {"down_proj"}}, [&](const typename L::Activations& a) {
    const Floats logits = g["aux.router_logits"];
    g.compare("aux.router_logits", {a.logits, logits.size()}, logits, forward_tolerance);
    const auto counts = g.data().integers("aux.expert_count"), slots = g.data().integers("aux.sorted_slot");
    for (std::size_t e = 0; e < counts.size(); ++e)
      if (a.routing.first[e + 1] - a.routing.first[e] != counts[e]) g.fail("aux.expert_count");
    for (std::size_t i = 0; i < slots.size(); ++i)
      if (a.routing.token[i] != slots[i] / L::top_k) g.fail("aux.sorted_slot");
    // The auxiliary loss has a gradient of its own.
    const Floats x = g["in.x"], w = g["param.router.weight"], none(slots.size(), 0.f);
    Floats dlogits(logits.size()), dx(x.size()), dw(w.size()), chosen(counts.size());
    chimera::route_backward(q, {E, L::top_k, false}, n, a.logits, a.routing, none.data(), {1.f, 0.f}, dlogits.data(),
                            chosen.data());
    chimera::gemm(q, n, D, E, 1.f, chimera::row_major(dlogits.data(), E), chimera::row_major(w.data(), D), 0.f,
                  dx.data(), D);
    chimera::gemm(q, E, D, n, 1.f, chimera::transposed(dlogits.data(), E), chimera::row_major(x.data(), D), 0.f,
                  dw.data(), D);
    g.compare("grad_aux_loss.x", dx, g["grad_aux_loss.x"], gradient_tolerance);
    g.compare("grad_aux_loss.router.weight", dw, g["grad_aux_loss.router.weight"], gradient_tolerance);
  });
}

template <const chimera::Config& C>
void run_mamba2(Golden& g, const chimera::Cpu& q) {
  using L = chimera::Mamba2<C>;
  run_layer<L>(g, q,
               {{"in_proj.weight"},
                {"conv1d.weight"},
                {"conv1d.bias"},
                {"dt_bias"},
                {"A_log"},
                {"D"},
                {"norm.weight"},
                {"out_proj.weight"}},
               [](const auto&) {});
}

template <const chimera::Config& C>
void run_gated_deltanet(Golden& g, const chimera::Cpu& q) {
  using L = chimera::GatedDeltaNet<C>;
  const std::int64_t keys = 2 * L::rule.keys(), dim = L::rule.value_dim;
  // What stands before the value heads, and a head's size, in values; a matrix whose rows are of heads is one long row.
  struct Move {
    std::int64_t before, dim, rows = 1;
  };
  const std::map<std::string, Move> moves{{"in_proj_qkv.weight", {keys * L::width, dim * L::width}},
                                          {"in_proj_z.weight", {0, dim * L::width}},
                                          {"conv1d.weight", {keys * L::sizes.conv, dim * L::sizes.conv}},
                                          {"in_proj_a.weight", {0, L::width}},
                                          {"in_proj_b.weight", {0, L::width}},
                                          {"dt_bias", {0, 1}},
                                          {"A_log", {0, 1}},
                                          {"out_proj.weight", {0, dim, L::width}}};
  run_layer<L>(
      g, q,
      {{"in_proj_qkv.weight", "in_proj_z.weight"},
       {"conv1d.weight"},
       {"in_proj_a.weight", "in_proj_b.weight"},
       {"dt_bias"},
       {"A_log"},
       {"norm.weight"},
       {"out_proj.weight"}},
      [](const auto&) {},
      [&](const std::string& name, const Floats& x) {
        const auto found = moves.find(name);
        if (found == moves.end()) return x;
        const auto [before, of_head, rows] = found->second;
        return HeadOrder{L::rule.key_heads, L::rule.value_heads, of_head, before}.ours(x, rows);
      });
}

template <const chimera::Config& C>
void run_mlstm(Golden& g, const chimera::Cpu& q) {
  using L = chimera::Mlstm<C>;
  run_layer<L>(g, q,
               {{"q.weight", "k.weight", "v.weight", "ogate_preact.weight"},
                {"igate_preact.weight", "fgate_preact.weight"},
                {"igate_preact.bias"},
                {"fgate_preact.bias"},
                {"multihead_norm.weight"},
                {"out_proj.weight"}},
               [](const auto&) {});
}

template <const chimera::Config& C>
void run_titans(Golden& g, const chimera::Cpu& q) {
  using L = chimera::Titans<C>;
  const bool deep = L::sizes.memory_depth == 2;
  const std::int64_t T = g.number("T");
  Arena last(2 * L::shape.state());
  run_layer<L>(g, q,
               {{"attn.q_proj.weight"},
                {"attn.k_proj.weight", "attn.v_proj.weight"},
                {"attn.o_proj.weight"},
                {"memory.q_proj.weight"},
                {"memory.k_proj.weight", "memory.v_proj.weight"},
                {"memory.alpha.weight", "memory.eta.weight", "memory.theta.weight"},
                {"memory.alpha.bias"},
                {"memory.eta.bias"},
                {"memory.theta.bias"},
                {deep ? "m0.w1" : "m0"},
                deep ? std::vector<std::string>{"m0.w2"} : std::vector<std::string>{},
                {"persistent"},
                {"norm_y.weight"},
                {"norm_m.weight"}},
               // The file's loss has the last memory and momentum in it, too: a row's last segment passes theirs on.
               [&](const typename L::Activations& a) {
                 for (std::int64_t i = 0; i < a.segments.first_segment[a.segments.steps]; ++i) {
                   chimera::TitansSegment& segment = a.segments.all[i];
                   const std::int64_t token = a.segments.token[segment.first + segment.count - 1];
                   if (token % T != T - 1) continue;
                   segment.next = last.data() + token / T * L::shape.state(), segment.learns = true;
                   for (int m = 0; m < L::shape.matrices(); ++m)
                     for (const auto& [name, at] :
                          {std::pair("memory.", std::int64_t{0}), std::pair("momentum.", L::shape.weights())}) {
                       const Floats file = g["cotangent." + std::string(name) + std::to_string(m)];
                       std::copy_n(file.begin() + token / T * L::shape.matrix(m), L::shape.matrix(m),
                                   segment.next + at + L::shape.first(m));
                     }
                 }
               });
}

template <const chimera::Config& C>
void run_griffin(Golden& g, const chimera::Cpu& q) {
  using L = chimera::RgLru<C>;
  run_layer<L>(g, q,
               {{"linear_y.weight"},
                {"linear_y.bias"},
                {"linear_x.weight"},
                {"linear_x.bias"},
                {"conv_1d.weight"},
                {"conv_1d.bias"},
                {"rg_lru.input_gate_weight"},
                {"rg_lru.input_gate_bias"},
                {"rg_lru.recurrent_gate_weight"},
                {"rg_lru.recurrent_gate_bias"},
                {"rg_lru.recurrent_param"},
                {"linear_out.weight"},
                {"linear_out.bias"}},
               [](const auto&) {});
}

}  // namespace goldens
