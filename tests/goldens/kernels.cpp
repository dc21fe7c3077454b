// Golden cases of kernels, the loss and the optimizer: their shapes are run-time arguments.
#include "golden.hpp"

#include <chimera/align/dpo.hpp>
#include <chimera/align/grpo.hpp>
#include <chimera/core/format.hpp>
#include <chimera/exchange/ternary_codes.hpp>
#include <chimera/kernels/f32/cross_entropy.hpp>
#include <chimera/kernels/f32/delta_rule.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/f32/mlstm.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/f32/rg_lru.hpp>
#include <chimera/kernels/f32/rope.hpp>
#include <chimera/kernels/f32/ssd.hpp>
#include <chimera/kernels/f32/titans.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/formats/nf4.hpp>
#include <chimera/kernels/ternary/product.hpp>
#include <chimera/layers/linear.hpp>
#include <chimera/optim/adamw.hpp>
#include <chimera/optim/schedule.hpp>

namespace goldens {
namespace {

using namespace chimera;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

Floats unwritten(std::int64_t n) { return Floats(static_cast<std::size_t>(n), nan); }
Floats zeros(std::int64_t n) { return Floats(static_cast<std::size_t>(n), 0.f); }

void rms_norm_case(Golden& g, const Cpu& q) {
  const std::int64_t D = g.number("D"), n = 2 * g.number("T");
  const NormShape s{n, D, D, g.config().at("eps")};
  const Floats x = g.get("in.x", n * D), w = g.get("param.weight", D), dy = g.get("cotangent.y", n * D);
  Floats y = unwritten(n * D), dx = zeros(n * D), dw = zeros(D);
  Arena temp = Arena::of_bytes(norm_backward_bytes(n, D));
  rms_norm(q, s, x.data(), w.data(), y.data());
  rms_norm_backward(q, s, x.data(), w.data(), dy.data(), dx.data(), dw.data(), Bump{temp.data()});
  g.compare("out.y", y, g["out.y"], forward_tolerance);
  g.compare("grad.x", dx, g["grad.x"], gradient_tolerance);
  g.compare("grad.weight", dw, g["grad.weight"], gradient_tolerance);
  if (!temp.intact()) g.fail("rms_norm_backward writes behind its memory");
}

/// A norm with a gate before it, or behind it.
template <auto norm, auto norm_backward>
void gated_norm_case(Golden& g, const Cpu& q) {
  const std::int64_t D = g.number("D"), n = 2 * g.number("T");
  const NormShape s{n, D, D / g.number("groups"), g.config().at("eps")};
  const Floats x = g.get("in.x", n * D), z = g.get("in.z", n * D), w = g.get("param.weight", D),
               dy = g.get("cotangent.y", n * D);
  Floats y = unwritten(n * D), dx = unwritten(n * D), dz = unwritten(n * D), dw = zeros(D);
  Arena temp = Arena::of_bytes(norm_backward_bytes(n, D));
  norm(q, s, x.data(), z.data(), D, w.data(), y.data());
  norm_backward(q, s, x.data(), z.data(), D, w.data(), dy.data(), dx.data(), dz.data(), dw.data(), Bump{temp.data()});
  g.compare("out.y", y, g["out.y"], forward_tolerance);
  g.compare("grad.x", dx, g["grad.x"], gradient_tolerance);
  g.compare("grad.z", dz, g["grad.z"], gradient_tolerance);
  g.compare("grad.weight", dw, g["grad.weight"], gradient_tolerance);
  if (!temp.intact()) g.fail("the backward pass writes behind its memory");
}

/// Channels (i, i + rotary/2) of every head, moved to (2i, 2i + 1).
Floats to_adjacent(const Floats& x, std::int64_t head_dim, std::int64_t rotary) {
  Floats y = x;
  for (std::size_t head = 0; head < x.size(); head += static_cast<std::size_t>(head_dim))
    for (std::size_t i = 0; i < static_cast<std::size_t>(rotary / 2); ++i)
      y[head + 2 * i] = x[head + i], y[head + 2 * i + 1] = x[head + i + static_cast<std::size_t>(rotary / 2)];
  return y;
}

void rope_case(Golden& g, const Cpu& q) {
  const std::int64_t B = 2, T = g.number("T"), H = g.number("heads"), KV = g.number("kv_heads"),
                     D = g.number("head_dim");
  const std::int64_t rotary = g.number("rotary_dim"), start = g.number("start");
  const auto rows = [&](const std::string& prefix) {
    return side_by_side(B * T, {swap_axes(g[prefix + "q"], B, H, T, D), swap_axes(g[prefix + "k"], B, KV, T, D)});
  };
  Rope config;
  config.base = g.config().at("theta");
  RopeTurns turns;
  turns.factor = rope_frequencies(config, static_cast<int>(rotary), 0, 0, turns.inverse.data());
  const Batch batch{.sequences = B, .length = T, .position = start};
  for (const RopeLayout layout : {RopeLayout::halves, RopeLayout::adjacent}) {
    const bool adjacent = layout == RopeLayout::adjacent;
    const auto laid = [&](const Floats& x) { return adjacent ? to_adjacent(x, D, rotary) : x; };
    Floats table = unwritten(T * rope_row(rotary, layout));
    rope_table(q, turns, rotary, layout, start, T, table.data());
    if (!adjacent)
      g.compare("aux.cos, aux.sin", table, side_by_side(T, {g["aux.cos"], g["aux.sin"]}), forward_tolerance);
    const RopeShape s{H + KV, D, rotary, (H + KV) * D, layout};
    Floats x = laid(rows("in.")), dx = laid(rows("cotangent."));
    rope(q, s, batch, 1.f, table.data(), x.data());
    rope(q, s, batch, -1.f, table.data(), dx.data());
    const std::string where = adjacent ? " (adjacent)" : "";
    g.compare("out.q, out.k" + where, x, laid(rows("out.")), forward_tolerance);
    g.compare("grad.q, grad.k" + where, dx, laid(rows("grad.")), gradient_tolerance);
  }
}

void rope_tables_case(Golden& g, const Cpu&) {
  const std::int64_t dims = g.number("head_dim"), original = g.number("original_max_position_embeddings");
  for (const auto& [name, given] : g.config().at("tables").items()) {
    const auto value = [&, &t = given](const char* key) {
      return t.contains(key) ? t.at(key).template get<float>() : 0.f;
    };
    const std::string kind = given.at("rope_type");
    Rope r;
    r.base = g.config().at("theta");
    r.scaling = kind == "linear"               ? RopeScaling::linear
                : kind == "ntk-aware (static)" ? RopeScaling::ntk
                : kind == "dynamic"            ? RopeScaling::dynamic_ntk
                : kind == "yarn"               ? RopeScaling::yarn
                : kind == "llama3"             ? RopeScaling::llama3
                : kind == "longrope"           ? RopeScaling::longrope
                                               : RopeScaling::none;
    if (kind != "default") r.factor = value("factor");
    r.original_context =
        static_cast<int>(kind == "dynamic" ? given.at("max_position_embeddings").get<std::int64_t>() : original);
    r.attention_factor = value("attention_factor");
    r.mscale = value("mscale"), r.mscale_all_dim = value("mscale_all_dim");
    if (given.contains("beta_fast")) r.beta_fast = value("beta_fast"), r.beta_slow = value("beta_slow");
    if (kind == "llama3") r.low_freq_factor = value("low_freq_factor"), r.high_freq_factor = value("high_freq_factor");
    if (kind == "longrope") {
      const Floats near = g.get("in.longrope.short_factor", dims / 2), far = g.get("in.longrope.long_factor", dims / 2);
      std::copy(near.begin(), near.end(), r.short_factor.begin());
      std::copy(far.begin(), far.end(), r.long_factor.begin());
    }
    const auto length = given.value("seq_len", nlohmann::json());
    Floats inverse = unwritten(dims / 2);
    const float factor = rope_frequencies(r, static_cast<int>(dims), static_cast<int>(original),
                                          length.is_number() ? length.get<int>() : 1, inverse.data());
    const Floats want = g.get("out." + name + ".inv_freq", dims / 2);
    double worst = 0;
    for (std::size_t i = 0; i < want.size(); ++i)
      worst = std::max(worst, std::isnan(inverse[i]) ? 1.0 : std::abs(double{inverse[i]} / double{want[i]} - 1));
    g.record("out." + name + ".inv_freq", worst, 1e-6);
    g.compare("out." + name + ".scaling", {&factor, 1}, g["out." + name + ".scaling"], 1e-6);
  }
}

void ssd_case(Golden& g, const Cpu& q) {
  const std::int64_t B = 2, T = g.number("T"), n = B * T, H = g.number("heads"), P = g.number("head_dim");
  const std::int64_t N = g.number("state"), G = g.number("groups"), state = B * H * P * N;
  const auto limit = g.config().at("dt_limit");
  const float low = limit.is_null() ? 0.f : limit.at(0).get<float>();
  const float high = limit.is_null() ? std::numeric_limits<float>::infinity() : limit.at(1).get<float>();
  const Floats xbc = side_by_side(n, {g.get("in.x", n * H * P), g.get("in.B", n * G * N), g.get("in.C", n * G * N)});
  const Floats raw = g.get("in.dt", n * H), bias = g.get("param.dt_bias", H), D = g.get("param.D", H);
  const Floats initial = g.get("in.initial_state", state), dy = g.get("cotangent.y", n * H * P),
               dlast = g.get("cotangent.final_state", state);
  Floats A = g.get("param.A_log", H), dt = unwritten(n * H);
  for (float& a : A) a = -std::exp(a);
  ssd_step_size(q, n, H, raw.data(), H, bias.data(), low, high, dt.data());

  for (const std::int64_t chunk : {1, 7, 16, 64}) {
    const std::string where = " (chunk " + std::to_string(chunk) + ")";
    const SsdShape s{H, P, N, G, chunk};
    const Batch batch{.sequences = B, .length = T};
    Arena states(ssd_states(s, batch)), products(ssd_products(s, batch)),
        temp = Arena::of_bytes(ssd_backward_bytes(s, batch));
    Floats y = unwritten(n * H * P), last = unwritten(state);
    ssd(q, s, batch, xbc.data(), dt.data(), A.data(), D.data(), initial.data(), y.data(), states.data(),
        products.data(), last.data());
    g.compare("out.y" + where, y, g["out.y"], forward_tolerance);
    g.compare("out.final_state" + where, last, g["out.final_state"], forward_tolerance);

    Floats dxbc = unwritten(n * s.row()), ddt = unwritten(n * H), dA = zeros(H), dD = zeros(H),
           dinitial = unwritten(state);
    Floats draw = unwritten(n * H), dbias = zeros(H);
    ssd_backward(q, s, batch, xbc.data(), dt.data(), A.data(), D.data(), states.data(), products.data(), dy.data(),
                 {.dxbc = dxbc.data(),
                  .ddt = ddt.data(),
                  .dA = dA.data(),
                  .dD = dD.data(),
                  .dlast = dlast.data(),
                  .dinitial = dinitial.data()},
                 Bump{temp.data()});
    ssd_step_size_backward(q, n, H, raw.data(), H, bias.data(), low, high, ddt.data(), draw.data(), dbias.data());
    for (std::size_t h = 0; h < A.size(); ++h) dA[h] *= A[h];
    g.compare("grad.x" + where, columns(dxbc, s.row(), 0, H * P), g["grad.x"], gradient_tolerance);
    g.compare("grad.B" + where, columns(dxbc, s.row(), s.b(0), G * N), g["grad.B"], gradient_tolerance);
    g.compare("grad.C" + where, columns(dxbc, s.row(), s.c(0), G * N), g["grad.C"], gradient_tolerance);
    g.compare("grad.dt" + where, draw, g["grad.dt"], gradient_tolerance);
    g.compare("grad.dt_bias" + where, dbias, g["grad.dt_bias"], gradient_tolerance);
    g.compare("grad.A_log" + where, dA, g["grad.A_log"], gradient_tolerance);
    g.compare("grad.D" + where, dD, g["grad.D"], gradient_tolerance);
    g.compare("grad.initial_state" + where, dinitial, g["grad.initial_state"], gradient_tolerance);
    if (!states.intact() || !products.intact() || !temp.intact()) g.fail("the scan writes behind its memory" + where);
  }

  const SsdShape s{H, P, N, G, 64};
  Floats y = unwritten(n * H * P), S = initial;
  for (std::int64_t t = 0; t < n; ++t)
    ssd_step(q, s, xbc.data() + t * s.row(), dt.data() + t * H, A.data(), D.data(), S.data() + t / T * H * P * N,
             y.data() + t * H * P);
  g.compare("out.y, token by token", y, g["out.y"], forward_tolerance);
  g.compare("out.final_state, token by token", S, g["out.final_state"], forward_tolerance);
}

void delta_rule_case(Golden& g, const Cpu& q) {
  const std::int64_t B = 2, T = g.number("T"), n = B * T, Hk = g.number("k_heads"), H = Hk * g.number("v_per_k");
  const std::int64_t K = g.number("k_dim"), V = g.number("v_dim"), state = B * H * K * V;
  const HeadOrder values{Hk, H, V}, gates{Hk, H, 1}, matrices{Hk, H, K * V};
  const Floats qkv =
      side_by_side(n, {g.get("in.q", n * Hk * K), g.get("in.k", n * Hk * K), values.ours(g.get("in.v", n * H * V), n)});
  const Floats decay = gates.ours(g.get("in.g", n * H), n), beta = gates.ours(g.get("in.beta", n * H), n);
  const Floats initial = matrices.ours(g.get("in.initial_state", state), B),
               dy = values.ours(g.get("cotangent.y", n * H * V), n),
               dlast = matrices.ours(g.get("cotangent.final_state", state), B);
  const auto compare = [&](const std::string& name, const HeadOrder& order, const Floats& got, std::int64_t rows,
                           const std::string& where,
                           double tolerance) { g.compare(name + where, order.theirs(got, rows), g[name], tolerance); };
  for (const std::int64_t chunk : {1, 7, 16, 64}) {
    const std::string where = " (chunk " + std::to_string(chunk) + ")";
    const DeltaRuleShape s{Hk, H, K, V, chunk};
    const Batch batch{.sequences = B, .length = T};
    Arena states(delta_rule_states(s, batch));
    Floats y = unwritten(n * H * V), last = unwritten(state), dqkv = unwritten(n * s.row()), dg = unwritten(n * H),
           dbeta = unwritten(n * H), dinitial = unwritten(state);
    delta_rule(q, s, batch, qkv.data(), decay.data(), beta.data(), initial.data(), y.data(), states.data(),
               last.data());
    compare("out.y", values, y, n, where, forward_tolerance);
    compare("out.final_state", matrices, last, B, where, forward_tolerance);
    delta_rule_backward(q, s, batch, qkv.data(), decay.data(), beta.data(), states.data(), dy.data(),
                        {.dqkv = dqkv.data(),
                         .dg = dg.data(),
                         .dbeta = dbeta.data(),
                         .dlast = dlast.data(),
                         .dinitial = dinitial.data()});
    g.compare("grad.q" + where, columns(dqkv, s.row(), 0, s.keys()), g["grad.q"], gradient_tolerance);
    g.compare("grad.k" + where, columns(dqkv, s.row(), s.k(0), s.keys()), g["grad.k"], gradient_tolerance);
    compare("grad.v", values, columns(dqkv, s.row(), s.v(0), s.values()), n, where, gradient_tolerance);
    compare("grad.g", gates, dg, n, where, gradient_tolerance);
    compare("grad.beta", gates, dbeta, n, where, gradient_tolerance);
    compare("grad.initial_state", matrices, dinitial, B, where, gradient_tolerance);
    if (!states.intact()) g.fail("the delta rule writes behind its memory" + where);
  }

  const DeltaRuleShape s{Hk, H, K, V, 64};
  Floats y = unwritten(n * H * V), S = initial;
  for (std::int64_t t = 0; t < n; ++t)
    delta_rule_step(q, s, qkv.data() + t * s.row(), decay.data() + t * H, beta.data() + t * H,
                    S.data() + t / T * H * K * V, y.data() + t * H * V);
  compare("out.y", values, y, n, ", token by token", forward_tolerance);
  compare("out.final_state", matrices, S, B, ", token by token", forward_tolerance);
}

/// The states of all heads as the library has them: C, n and m of each.
Floats mlstm_states_of(const MlstmShape& s, const Floats& C, const Floats& n, const Floats& m) {
  Floats states = zeros(static_cast<std::int64_t>(m.size()) * s.state());
  for (std::size_t i = 0; i < m.size(); ++i) {
    float* state = states.data() + static_cast<std::int64_t>(i) * s.state();
    std::copy_n(C.data() + static_cast<std::int64_t>(i) * s.matrix(), s.matrix(), state);
    std::copy_n(n.data() + static_cast<std::int64_t>(i) * s.qk, s.qk, state + s.matrix());
    state[s.matrix() + s.qk] = m[i];
  }
  return states;
}

void compare_mlstm_states(Golden& g, const MlstmShape& s, const Floats& states, const std::string& prefix,
                          const std::string& suffix, const std::string& where, double tolerance) {
  Floats C, n;
  for (std::int64_t at = 0; at < static_cast<std::int64_t>(states.size()); at += s.state()) {
    C.insert(C.end(), states.begin() + at, states.begin() + at + s.matrix());
    n.insert(n.end(), states.begin() + at + s.matrix(), states.begin() + at + s.matrix() + s.qk);
  }
  g.compare(prefix + "c" + suffix + where, C, g[prefix + "c" + suffix], tolerance);
  g.compare(prefix + "n" + suffix + where, n, g[prefix + "n" + suffix], tolerance);
}

void mlstm_case(Golden& g, const Cpu& q) {
  const std::int64_t B = 2, T = g.number("T"), n = B * T, H = g.number("heads"), K = g.number("qk_dim"),
                     V = g.number("v_dim");
  const auto rows = [&](const std::string& name, std::int64_t inner) { return swap_axes(g[name], B, H, T, inner); };
  const Floats qkvo = side_by_side(n, {rows("in.q", K), rows("in.k", K), rows("in.v", V), zeros(n * H * V)});
  const Floats raw_f = rows("in.fgate", 1), dh = rows("cotangent.y", V), m0 = g.get("in.m0", B * H);
  Floats gates = side_by_side(n, {rows("in.igate", 1), raw_f});
  for (std::int64_t t = 0; t < n; ++t)
    for (std::int64_t h = 0; h < H; ++h) {
      float& f = gates[static_cast<std::size_t>((2 * t + 1) * H + h)];
      f = static_cast<float>(-std::log1p(std::exp(-double{f})));
    }

  for (const std::int64_t chunk : {1, 7, 16, 64}) {
    const std::string where = " (chunk " + std::to_string(chunk) + ")";
    const MlstmShape s{H, K, V, chunk};
    const Batch batch{.sequences = B, .length = T};
    const Floats initial = mlstm_states_of(s, g["in.c0"], g["in.n0"], m0);
    const Floats dlast = mlstm_states_of(s, g["cotangent.c"], g["cotangent.n"], zeros(B * H));
    Arena states(mlstm_states(s, batch)), dots(n * H), temp = Arena::of_bytes(mlstm_backward_bytes(s, batch));
    Floats h = unwritten(n * H * V), last = unwritten(B * H * s.state());
    mlstm(q, s, batch, qkvo.data(), gates.data(), initial.data(), h.data(), states.data(), dots.data(), last.data());
    g.compare("out.y" + where, h, rows("out.y", V), forward_tolerance);
    compare_mlstm_states(g, s, last, "out.", "", where, forward_tolerance);
    Floats m;
    for (std::int64_t i = 0; i < B * H; ++i)
      m.push_back(last[static_cast<std::size_t>(i * s.state() + s.matrix() + K)]);
    g.compare("out.m" + where, m, g["out.m"], forward_tolerance);

    Floats dqkvo = zeros(n * s.row()), dgates = unwritten(n * 2 * H), dinitial = unwritten(B * H * s.state());
    mlstm_backward(q, s, batch, qkvo.data(), gates.data(), states.data(), dots.data(), h.data(), dh.data(),
                   {.dqkvo = dqkvo.data(), .dgates = dgates.data(), .dlast = dlast.data(), .dinitial = dinitial.data()},
                   Bump{temp.data()});
    // The file's gradients also go through the m that the last C and n are divided by: to the exponent that it is.
    Floats dm0 = zeros(B * H);
    for (std::int64_t i = 0; i < B * H; ++i) {
      const std::int64_t b = i / H, head = i % H;
      const auto gate = [&](std::int64_t t) { return (b * T + t) * 2 * H + head; };
      double dm = 0, d_m0 = 0, later = 0, most = -std::numeric_limits<double>::infinity();
      for (std::int64_t c = 0; c < s.matrix() + K; ++c) {
        const auto at = static_cast<std::size_t>(i * s.state() + c);
        dm -= double{dlast[at]} * double{last[at]};
        d_m0 += double{dinitial[at]} * double{initial[at]};
      }
      std::int64_t owner = -1;
      for (std::int64_t t = T - 1; t >= 0; later += double{gates[static_cast<std::size_t>(gate(t--) + H)]})
        if (const double x = later + double{gates[static_cast<std::size_t>(gate(t))]}; x > most) most = x, owner = t;
      if (later + double{m0[static_cast<std::size_t>(i)]} > most) owner = -1, d_m0 += dm;
      if (owner >= 0) dgates[static_cast<std::size_t>(gate(owner))] += static_cast<float>(dm);
      for (std::int64_t t = owner + 1; t < T; ++t)
        dgates[static_cast<std::size_t>(gate(t) + H)] += static_cast<float>(dm);
      dm0[static_cast<std::size_t>(i)] = static_cast<float>(d_m0);
    }
    Floats df = columns(dgates, 2 * H, H, H);
    for (std::size_t t = 0; t < df.size(); ++t) df[t] /= 1.f + std::exp(raw_f[t]);
    g.compare("grad.q" + where, columns(dqkvo, s.row(), 0, H * K), rows("grad.q", K), gradient_tolerance);
    g.compare("grad.k" + where, columns(dqkvo, s.row(), s.keys(), H * K), rows("grad.k", K), gradient_tolerance);
    g.compare("grad.v" + where, columns(dqkvo, s.row(), s.values(), H * V), rows("grad.v", V), gradient_tolerance);
    g.compare("grad.igate" + where, columns(dgates, 2 * H, 0, H), rows("grad.igate", 1), gradient_tolerance);
    g.compare("grad.fgate" + where, df, rows("grad.fgate", 1), gradient_tolerance);
    g.compare("grad.m0" + where, dm0, g["grad.m0"], gradient_tolerance);
    compare_mlstm_states(g, s, dinitial, "grad.", "0", where, gradient_tolerance);
    if (!states.intact() || !dots.intact() || !temp.intact()) g.fail("the memory writes behind its memory" + where);
  }

  const MlstmShape s{H, K, V, 64};
  Floats h = unwritten(n * H * V), S = mlstm_states_of(s, g["in.c0"], g["in.n0"], m0);
  for (std::int64_t t = 0; t < n; ++t)
    mlstm_step(q, s, qkvo.data() + t * s.row(), gates.data() + t * 2 * H, S.data() + t / T * H * s.state(),
               h.data() + t * H * V);
  g.compare("out.y, token by token", h, rows("out.y", V), forward_tolerance);
  compare_mlstm_states(g, s, S, "out.", "", ", token by token", forward_tolerance);
}

/// The memory alone: its keys, values, queries and gates come from the file. `columns`: what one task makes.
void titans_case_in(Golden& g, const Cpu& q, std::int64_t columns) {
  const std::int64_t B = 2, T = g.number("T"), n = B * T, D = g.number("dim"), segment = g.number("chunk");
  const bool deep = g.config().at("memory") == "mlp";
  const TitansShape s{D, 1, 1, 0, segment, 1, deep ? g.number("hidden") : 0, 0};
  const Batch batch{.sequences = B, .length = T};
  const std::vector<std::string> names =
      deep ? std::vector<std::string>{"m0.w1", "m0.w2"} : std::vector<std::string>{"m0"};
  Floats m0[2], dm0[2];
  TitansMemory start{};
  TitansMemoryGradient dstart{};
  for (std::size_t m = 0; m < names.size(); ++m) {
    m0[m] = g["param." + names[m]], dm0[m] = zeros(s.matrix(static_cast<int>(m)));
    start.m[m] = m0[m].data(), dstart.m[m] = dm0[m].data();
  }
  Bump count;
  const auto bind = [&](Bump& memory) {
    return std::pair(bind_titans_segments(memory, n, s.steps(T)), bind_titans_tokens(memory, s, n, true));
  };
  bind(count);
  Arena kept = Arena::of_bytes(static_cast<std::int64_t>(count.used)), states(titans_states(s, batch)),
        last(B * s.state());
  Bump memory{kept.data()};
  const auto [segments, tokens] = bind(memory);
  titans_segments(q, s, batch, tokens, nullptr, states.data(), last.data(), segments);
  const auto ordered = [&](const Floats& x, std::int64_t width, float* to, std::int64_t stride, float scale) {
    for (std::int64_t r = 0; r < n; ++r)
      for (std::int64_t i = 0; i < width; ++i)
        to[r * stride + i] = scale * x[static_cast<std::size_t>(segments.token[r] * width + i)];
  };
  const auto as_in_file = [&](const float* x, std::int64_t width, std::int64_t stride, float scale) {
    Floats y = unwritten(n * width);
    for (std::int64_t r = 0; r < n; ++r)
      for (std::int64_t i = 0; i < width; ++i)
        y[static_cast<std::size_t>(segments.token[r] * width + i)] = scale * x[r * stride + i];
    return y;
  };
  ordered(g.get("in.k", n * D), D, tokens.rows + s.key(0), s.row(), 1.f);
  ordered(g.get("in.v", n * D), D, tokens.rows + s.error(s.last()), s.row(), -2.f);
  ordered(g.get("in.q", n * D), D, tokens.query[0], D, 1.f);
  const std::vector<std::string> gates{"alpha", "eta", "theta"};
  for (std::size_t i = 0; i < gates.size(); ++i) ordered(g.get("in." + gates[i], n), 1, tokens.gates + i, 3, 1.f);
  titans_steps(q, segments, columns, TitansOrder::forwards,
               [&](const Cpu& on, const TitansStep& step) { titans_update(on, s, step, start, tokens); });
  g.compare("out.y", as_in_file(tokens.read[s.last()], D, D, 1.f), g["out.y"], forward_tolerance);

  // Of the last states; in their place the gradients.
  for (const auto& [what, to_file] : {std::pair("out.", true), std::pair("cotangent.", false)})
    for (const auto& [name, offset] : {std::pair("memory.", std::int64_t{0}), std::pair("momentum.", s.weights())})
      for (int m = 0; m < s.matrices(); ++m) {
        const std::string full = what + std::string(name) + std::to_string(m);
        const Floats file = g[full];
        Floats got;
        for (std::int64_t b = 0; b < B; ++b) {
          float* at = last.data() + b * s.state() + offset + s.first(m);
          if (to_file)
            got.insert(got.end(), at, at + s.matrix(m));
          else
            std::copy_n(file.begin() + b * s.matrix(m), s.matrix(m), at);
        }
        if (to_file) g.compare(full, got, file, forward_tolerance);
      }

  Floats dread = unwritten(n * D), dquery = dread, dkey = dread, dvalue = dread, dgates = unwritten(n * 3),
         none = zeros(n * D);
  ordered(g.get("cotangent.y", n * D), D, dread.data(), D, 1.f);
  Bump scratch_count;
  bind_titans_scratch(scratch_count, s, n, columns);
  Arena room = Arena::of_bytes(static_cast<std::int64_t>(scratch_count.used));
  Bump rest{room.data()};
  const TitansScratch scratch = bind_titans_scratch(rest, s, n, columns);
  for (float* unused : {tokens.query_x, tokens.active_x})
    std::fill_n(unused, n * (unused == tokens.query_x ? D : s.all_hidden()), 0.f);
  const TitansGradients d{.read = dread.data(),
                          .query = dquery.data(),
                          .key = dkey.data(),
                          .value = dvalue.data(),
                          .gates = dgates.data(),
                          .h = none.data(),
                          .query_x = none.data()};
  std::fill_n(scratch.hidden_x, n * s.all_hidden(), 0.f);
  titans_steps(q, segments, columns, TitansOrder::backwards, [&](const Cpu& on, const TitansStep& step) {
    titans_update_backward(on, s, step, start, tokens, d, scratch);
    titans_states_backward(on, s, step, tokens, d, scratch, dstart);
  });
  g.compare("grad.q", as_in_file(d.query, D, D, 1.f), g["grad.q"], gradient_tolerance);
  g.compare("grad.k", as_in_file(d.key, D, D, 1.f), g["grad.k"], gradient_tolerance);
  g.compare("grad.v", as_in_file(d.value, D, D, -2.f), g["grad.v"], gradient_tolerance);
  for (std::size_t i = 0; i < gates.size(); ++i)
    g.compare("grad." + gates[i], as_in_file(d.gates + i, 1, 3, 1.f), g["grad." + gates[i]], gradient_tolerance);
  for (std::size_t m = 0; m < names.size(); ++m)
    g.compare("grad." + names[m], dm0[m], g["grad." + names[m]], gradient_tolerance);
  if (!kept.intact() || !states.intact() || !last.intact() || !room.intact())
    g.fail("the memory writes behind its memory");
}

void titans_case(Golden& g, const Cpu& q) {
  for (const std::int64_t columns : {TitansShape::training_columns, std::int64_t{5}}) titans_case_in(g, q, columns);
}

/// y = x W + b for block-diagonal W [heads, block, block], in double.
Floats block_linear(const Floats& x, const Floats& w, const Floats& b, std::int64_t n, std::int64_t block) {
  const auto width = static_cast<std::int64_t>(b.size());
  Floats y(x.size());
  for (std::int64_t t = 0; t < n; ++t)
    for (std::int64_t c = 0; c < width; ++c) {
      const std::int64_t h = c / block, o = c % block;
      double sum = b[static_cast<std::size_t>(c)];
      for (std::int64_t i = 0; i < block; ++i)
        sum += double{x[static_cast<std::size_t>(t * width + h * block + i)]} *
               double{w[static_cast<std::size_t>((h * block + i) * block + o)]};
      y[static_cast<std::size_t>(t * width + c)] = static_cast<float>(sum);
    }
  return y;
}

/// Its gradients: dx +=, dw and db =.
void block_linear_backward(const Floats& x, const Floats& w, const Floats& dy, std::int64_t n, std::int64_t block,
                           Floats& dx, Floats& dw, Floats& db) {
  const auto width = static_cast<std::int64_t>(x.size()) / n;
  dw = zeros(static_cast<std::int64_t>(w.size())), db = zeros(width);
  for (std::int64_t t = 0; t < n; ++t)
    for (std::int64_t c = 0; c < width; ++c) {
      const std::int64_t h = c / block, o = c % block;
      const float d = dy[static_cast<std::size_t>(t * width + c)];
      db[static_cast<std::size_t>(c)] += d;
      for (std::int64_t i = 0; i < block; ++i) {
        const auto in = static_cast<std::size_t>(t * width + h * block + i),
                   at = static_cast<std::size_t>((h * block + i) * block + o);
        dx[in] += d * w[at];
        dw[at] += d * x[in];
      }
    }
}

void rg_lru_case(Golden& g, const Cpu& q) {
  const std::int64_t B = 2, T = g.number("T"), n = B * T, W = g.number("width"), block = W / g.number("heads");
  const Batch batch{.sequences = B, .length = T, .position = g.number("start_position")};
  const Floats x = g.get("in.x", n * W), initial = g.get("in.initial_state", B * W),
               lambda = g.get("param.recurrent_param", W);
  const Floats wi = g.get("param.input_gate_weight", W * block), wr = g.get("param.recurrent_gate_weight", W * block);
  const Floats i = block_linear(x, wi, g.get("param.input_gate_bias", W), n, block);
  const Floats r = block_linear(x, wr, g.get("param.recurrent_gate_bias", W), n, block);
  const Floats dy = g.get("cotangent.y", n * W), dlast = g.get("cotangent.final_state", B * W);

  Floats h = unwritten(n * W), last = unwritten(B * W);
  rg_lru(q, W, batch, x.data(), r.data(), i.data(), lambda.data(), initial.data(), h.data(), last.data());
  g.compare("out.y", h, g["out.y"], forward_tolerance);
  g.compare("out.final_state", last, g["out.final_state"], forward_tolerance);

  Floats dx = unwritten(n * W), dr = unwritten(n * W), di = unwritten(n * W), dlambda = zeros(W),
         dinitial = unwritten(B * W);
  Arena temp = Arena::of_bytes(rg_lru_backward_bytes(W, batch));
  rg_lru_backward(q, W, batch, x.data(), r.data(), i.data(), lambda.data(), initial.data(), h.data(), dy.data(),
                  {.dx = dx.data(),
                   .dr = dr.data(),
                   .di = di.data(),
                   .dlambda = dlambda.data(),
                   .dlast = dlast.data(),
                   .dinitial = dinitial.data()},
                  Bump{temp.data()});
  Floats dwi, dbi, dwr, dbr;
  block_linear_backward(x, wi, di, n, block, dx, dwi, dbi);
  block_linear_backward(x, wr, dr, n, block, dx, dwr, dbr);
  g.compare("grad.x", dx, g["grad.x"], gradient_tolerance);
  g.compare("grad.initial_state", dinitial, g["grad.initial_state"], gradient_tolerance);
  g.compare("grad.recurrent_param", dlambda, g["grad.recurrent_param"], gradient_tolerance);
  g.compare("grad.input_gate_weight", dwi, g["grad.input_gate_weight"], gradient_tolerance);
  g.compare("grad.input_gate_bias", dbi, g["grad.input_gate_bias"], gradient_tolerance);
  g.compare("grad.recurrent_gate_weight", dwr, g["grad.recurrent_gate_weight"], gradient_tolerance);
  g.compare("grad.recurrent_gate_bias", dbr, g["grad.recurrent_gate_bias"], gradient_tolerance);
  if (!temp.intact()) g.fail("rg_lru_backward writes behind its memory");

  Floats stepped = unwritten(n * W), state = initial;
  for (std::int64_t t = 0; t < n; ++t) {
    const Batch one{.sequences = 1, .length = 1, .position = batch.position + t % T};
    float* carried = state.data() + t / T * W;
    rg_lru(q, W, one, x.data() + t * W, r.data() + t * W, i.data() + t * W, lambda.data(), carried,
           stepped.data() + t * W, carried);
  }
  g.compare("out.y, token by token", stepped, g["out.y"], forward_tolerance);
  g.compare("out.final_state, token by token", state, g["out.final_state"], forward_tolerance);
}

/// Mean loss over the counted rows and its gradient.
void compare_loss(Golden& g, const Cpu& q, CrossEntropy s, std::int64_t vocab, const std::vector<std::int32_t>& targets,
                  const Floats& logits, const std::string& loss_name, const std::string& gradient_name) {
  const auto rows = static_cast<std::int64_t>(targets.size());
  const auto counted = std::count_if(targets.begin(), targets.end(), [](std::int32_t t) { return t >= 0; });
  for (const bool gradient : {false, true}) {
    Floats x = logits;
    std::vector<double> losses(targets.size());
    double sum = 0;
    cross_entropy(q, s, rows, vocab, targets.data(), 1.f / static_cast<float>(counted), gradient, x.data(),
                  losses.data());
    add_losses(q, rows, losses.data(), &sum);
    const float mean = static_cast<float>(sum / static_cast<double>(counted));
    g.compare(loss_name, {&mean, 1}, g[loss_name], forward_tolerance);
    g.compare(gradient ? gradient_name : "in.logits untouched", x, gradient ? g[gradient_name] : logits,
              gradient ? gradient_tolerance : 0.1 * forward_tolerance);
  }
}

void cross_entropy_case(Golden& g, const Cpu& q) {
  const std::int64_t vocab = g.number("vocab");
  const Floats logits = g.get("in.logits", g.number("rows") * vocab);
  const std::vector<std::int32_t> targets = g.data().integers("in.target");
  const float smoothing = g.config().at("label_smoothing"), z = g.config().at("z_loss");
  for (const auto& [name, s] : {std::pair<std::string, CrossEntropy>{"plain", {}},
                                {"smooth", {smoothing, 0.f}},
                                {"z", {0.f, z}},
                                {"smooth_z", {smoothing, z}}})
    compare_loss(g, q, s, vocab, targets, logits, "out." + name + ".loss", "grad." + name + ".logits");
}

void sft_case(Golden& g, const Cpu& q) {
  const std::int64_t T = g.number("T"), vocab = g.number("vocab");
  const auto tokens = g.data().integers("in.tokens"), prompt = g.data().integers("in.prompt_length"),
             length = g.data().integers("in.length");
  const auto labels = g.data().integers("aux.labels");
  std::vector<std::int32_t> targets(tokens.size(), -100);
  bool labels_agree = true;
  for (std::size_t at = 0; at < tokens.size(); ++at) {
    const auto b = at / static_cast<std::size_t>(T);
    const auto t = static_cast<std::int64_t>(at) % T;
    const std::int32_t label = t < prompt[b] || t >= length[b] ? -100 : tokens[at];
    labels_agree &= label == labels[at];
    if (t > 0) targets[at - 1] = label;
  }
  g.record("aux.labels", labels_agree ? 0 : 1, 0.5);
  compare_loss(g, q, {}, vocab, targets, g.get("in.logits", static_cast<std::int64_t>(tokens.size()) * vocab),
               "out.loss", "grad.logits");
}

/// `policy` and `reference`: log-probabilities of all rows' targets. `gradient` becomes that of the mean loss.
double dpo_loss(Dpo dpo, std::int64_t rows, std::int64_t length, const std::vector<std::int32_t>& targets,
                const Floats& policy, const Floats& reference, Floats& gradient) {
  TokenBatch batch;
  batch.sequences = rows, batch.length = length, batch.targets = targets.data(), batch.reference = reference.data();
  const Objective objective = dpo.objective();
  const double loss = objective.weigh(objective.self, batch, policy.data(), gradient.data()),
               pairs = static_cast<double>(objective.counted(batch));
  for (float& x : gradient) x /= -static_cast<float>(pairs);
  return loss / pairs;
}

void dpo_case(Golden& g, const Cpu& q) {
  const std::int64_t pairs = g.number("pairs"), T = g.number("T"), vocab = g.number("vocab");
  const auto n = static_cast<std::size_t>(pairs);
  const double beta = g.config().at("beta"), noise = g.config().at("label_smoothing");
  const auto mixed = [&](const std::string& before) {  // chosen and rejected in turns
    const Floats chosen = g.get(before + "_chosen", pairs), rejected = g.get(before + "_rejected", pairs);
    Floats all;
    for (std::size_t i = 0; i < n; ++i) all.push_back(chosen[i]), all.push_back(rejected[i]);
    return all;
  };
  const Floats policy = mixed("in.policy"), reference = mixed("in.reference");
  for (const auto& [name, loss] : {std::pair<std::string, DpoLoss>{"sigmoid", DpoLoss::sigmoid},
                                   {"cdpo", DpoLoss::conservative},
                                   {"ipo", DpoLoss::ipo}}) {
    Floats gradient = unwritten(2 * pairs);
    const auto found = static_cast<float>(dpo_loss({.loss = loss, .beta = beta, .noise = noise}, 2 * pairs, 1,
                                                   std::vector<std::int32_t>(2 * n, 0), policy, reference, gradient));
    g.compare("out." + name + ".loss", {&found, 1}, g["out." + name + ".loss"], forward_tolerance);
    g.compare("grad." + name, gradient, mixed("grad." + name + ".policy"), gradient_tolerance);
  }
  // The whole way from logits, rows of one pair after the other.
  const auto length = static_cast<std::size_t>(T);
  Floats logits, before(4 * length, 0.f), said = unwritten(4 * T), gradient = zeros(4 * T);
  std::vector<std::int32_t> targets(4 * length, -1);
  for (std::size_t row = 0; row < 4; ++row) {
    const std::string side = row % 2 == 0 ? "chosen" : "rejected";
    const std::size_t pair = row / 2, at = pair * length;
    const Floats x = g["in." + side + ".logits"];
    const auto tokens = g.data().integers("in." + side + ".tokens");
    const auto mask = g.data().bytes("in." + side + ".completion_mask");
    const auto begin = x.begin() + static_cast<std::ptrdiff_t>(at) * vocab;
    logits.insert(logits.end(), begin, begin + T * vocab);
    for (std::size_t t = 0; t + 1 < length; ++t)
      if (mask[at + t + 1] != std::byte{0}) targets[row * length + t] = tokens[at + t + 1];
    before[row * length + length - 2] = g["in.reference_logp." + side][pair];  // all at one target: sums count
  }
  target_log_probs(q, 4 * T, vocab, targets.data(), logits.data(), said.data());
  const auto loss = static_cast<float>(dpo_loss({.beta = beta}, 4, T, targets, said, before, gradient));
  g.compare("out.from_logits.loss", {&loss, 1}, g["out.from_logits.loss"], forward_tolerance);
  std::vector<double> unread(4 * length);
  for (float& x : gradient) x = -x;
  cross_entropy(q, {}, 4 * T, vocab, targets.data(), 1.f, true, logits.data(), unread.data(), gradient.data());
  const auto count = static_cast<std::size_t>(T * vocab);
  for (std::size_t row = 0; row < 4; ++row) {
    const Floats all = g[std::string("grad.from_logits.") + (row % 2 == 0 ? "chosen" : "rejected")];
    g.compare("grad.from_logits", std::span(logits).subspan(row * count, count),
              std::span(all).subspan(row / 2 * count, count), gradient_tolerance);
  }
}

void grpo_case(Golden& g, const Cpu&) {
  const std::int64_t group = g.number("group"), rows = g.number("prompts") * group, T = g.number("max_length");
  const Floats rewards = g["in.rewards"], policy = g["in.logp"], old = g["in.old_logp"],
               reference = g["in.reference_logp"];
  const auto mask = g.data().bytes("in.mask");
  std::vector<std::int32_t> targets;
  for (const std::byte counted : mask) targets.push_back(counted == std::byte{0} ? -1 : 0);
  const double clip = g.config().at("clip"), high = g.config().at("clip_high"), kl = g.config().at("kl_beta");
  const struct {
    const char* name;
    Grpo grpo;
    bool deviation;
  } cases[] = {
      {"grpo", {.reduction = GrpoReduction::grpo, .clip = clip, .clip_high = clip, .kl = kl}, true},
      {"token_mean", {.clip = clip, .clip_high = clip, .kl = kl}, true},
      {"dapo", {.clip = clip, .clip_high = high}, true},
      {"dr_grpo", {.reduction = GrpoReduction::dr_grpo, .clip = clip, .clip_high = clip, .longest = T}, false}};
  for (auto [name, grpo, deviation] : cases) {
    Floats advantage, each;  // of completions, and of their tokens
    for (std::int64_t first = 0; first < rows; first += group) {
      const std::vector<double> earned(rewards.begin() + first, rewards.begin() + first + group);
      advantage.resize(static_cast<std::size_t>(first + group));
      group_advantages(earned, deviation, std::span(advantage).subspan(static_cast<std::size_t>(first)));
    }
    g.compare(deviation ? "aux.advantage" : "aux.advantage_unscaled", advantage,
              g[deviation ? "aux.advantage" : "aux.advantage_unscaled"], forward_tolerance);
    for (const float a : advantage) each.insert(each.end(), static_cast<std::size_t>(T), a);
    TokenBatch batch;
    batch.sequences = rows, batch.length = T, batch.targets = targets.data();
    batch.reference = reference.data(), batch.old = old.data(), batch.advantages = each.data();
    const Objective objective = grpo.objective();
    Floats gradient = zeros(rows * T);
    const double sum = objective.weigh(objective.self, batch, policy.data(), gradient.data()),
                 count = static_cast<double>(objective.counted(batch));
    for (float& x : gradient) x /= -static_cast<float>(count);
    const auto loss = static_cast<float>(sum / count);
    const std::string of = name;
    g.compare("out." + of + ".loss", {&loss, 1}, g["out." + of + ".loss"], forward_tolerance);
    g.compare("grad." + of + ".logp", gradient, g["grad." + of + ".logp"], gradient_tolerance);
  }
}

void adamw_case(Golden& g, const Cpu& q) {
  const auto w0 = g["in.w"], b0 = g["in.b"];
  NamedTensor w{.rows = static_cast<std::int64_t>(b0.size()),
                .cols = static_cast<std::int64_t>(w0.size() / b0.size()),
                .role = Role::matrix};
  NamedTensor b{.rows = 1, .cols = static_cast<std::int64_t>(b0.size()), .offset = aligned_floats(w0.size())};
  const std::vector<NamedTensor> table{w, b};
  const std::size_t arena = b.offset + aligned_floats(b0.size());
  Floats weights(arena, 0.f), gradient(arena, 0.f), temp(arena, 0.f);
  std::copy(w0.begin(), w0.end(), weights.begin());
  std::copy(b0.begin(), b0.end(), weights.begin() + static_cast<std::ptrdiff_t>(b.offset));
  auto optimizer = AdamW::create(
      q, table, arena,
      {g.config().at("beta1"), g.config().at("beta2"), g.config().at("eps"), g.config().at("weight_decay")});
  if (!optimizer) throw std::runtime_error(optimizer.error().message);
  const auto compare = [&](const std::string& name, const float* got, double tolerance) {
    g.compare("out." + name + ".w", {got, w0.size()}, g["out." + name + ".w"], tolerance);
    g.compare("out." + name + ".b", {got + b.offset, b0.size()}, g["out." + name + ".b"], tolerance);
  };
  const Floats norms = g["out.norms"];
  for (std::int64_t t = 1; t <= g.number("steps"); ++t) {
    const Floats gw = g["in.grad." + std::to_string(t) + ".w"], gb = g["in.grad." + std::to_string(t) + ".b"];
    std::copy(gw.begin(), gw.end(), gradient.begin());
    std::copy(gb.begin(), gb.end(), gradient.begin() + static_cast<std::ptrdiff_t>(b.offset));
    double norm = 0;
    gradient_norm(q, static_cast<std::int64_t>(arena), gradient.data(), &norm, Bump{temp.data()});
    const float found = static_cast<float>(norm);
    g.compare("out.norms", {&found, 1}, {&norms.at(static_cast<std::size_t>(t - 1)), 1}, forward_tolerance);
    optimizer->update(
        q, weights.data(), gradient.data(),
        {.number = t, .rate = g.config().at("lr"), .scale = clip_factor(norm, g.config().at("max_norm"))});
    compare(std::to_string(t), weights.data(), forward_tolerance);
  }
  compare("m", optimizer->first_moment(), forward_tolerance);
  compare("v", optimizer->second_moment(), forward_tolerance);
}

void schedules_case(Golden& g, const Cpu&) {
  for (const auto& [name, shape] : {std::pair<std::string, ScheduleShape>{"cosine", ScheduleShape::cosine},
                                    {"wsd_linear", ScheduleShape::wsd_linear},
                                    {"wsd_sqrt", ScheduleShape::wsd_sqrt}}) {
    const Schedule schedule{shape, g.number("total"), g.number("warmup"), g.number("decay"), g.config().at("floor")};
    Floats factors;
    for (std::int64_t t = 0; t <= schedule.steps; ++t) factors.push_back(static_cast<float>(schedule.factor(t)));
    g.compare("out." + name, factors, g["out." + name], 1e-6);
  }
}

double squared_error(std::span<const float> got, std::span<const float> want) {
  double sum = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = double{got[i]} - double{want[i]};
    sum += d * d;
  }
  return sum;
}

/// Decoding is the reference's bit for bit. Encoding is at least as near to the numbers, row by row, as the reference's
/// quantizers, and gives their very bytes where these follow from the format.
void ternary_packed_case(Golden& g, const Cpu& q) {
  const Floats scale = g.get("in.scale", 1);
  Floats codes;
  for (const std::byte b : g.data().bytes("in.ternary"))
    codes.push_back(static_cast<float>(static_cast<std::int8_t>(b)));
  const auto n = static_cast<std::int64_t>(codes.size());
  Floats weights = codes;
  for (float& w : weights) w *= scale[0];
  for (const auto& [name, format] : {std::pair("TQ1_0", Format::tq1_0), std::pair("TQ2_0", Format::tq2_0)}) {
    const std::span<const std::byte> want = g.data().bytes("out." + std::string(name));
    std::vector<std::byte> bytes(static_cast<std::size_t>(format_bytes(format, n)));
    Floats back(weights.size());
    if (!encode(q, format, weights.data(), n, bytes.data()) || !decode(q, format, want.data(), n, back.data()) ||
        !std::equal(bytes.begin(), bytes.end(), want.begin(), want.end()))
      g.fail(name);
    g.compare(std::string("out.") + name + ".dequantized", back, g["out." + std::string(name) + ".dequantized"], 0);
  }
  for (const auto& [name, order] :
       {std::pair("I2_S", CodeOrder::runs()), std::pair("row_interleaved", CodeOrder::rows(n))}) {
    const std::span<const std::byte> given = g.data().bytes("out." + std::string(name)).first(codes.size() / 4);
    std::vector<std::byte> want(given.begin(), given.end());  // the scale of I2_S follows
    Floats back(codes.size());
    if (pack_codes(order, codes) != want || !unpack_codes(order, want, back) || back != codes) g.fail(name);
    want[7] |= std::byte{3};
    if (unpack_codes(order, want, back)) g.fail(std::string(name) + ", with the code 3");
  }
}

void gguf_blocks_case(Golden& g, const Cpu& q) {
  const std::int64_t rows = g.number("rows"), cols = g.number("cols");
  const Floats x = g.get("in.x", rows * cols);
  const auto decoded = [&](Format format, std::span<const std::byte> bytes, std::size_t n) {
    Floats values = unwritten(static_cast<std::int64_t>(n));
    if (const Status s = decode(q, format, bytes.data(), static_cast<std::int64_t>(n), values.data()); !s)
      g.fail(s.error().message);
    return values;
  };
  const auto differences = [](const auto& a, const auto& b) {
    double count = 0;
    for (std::size_t i = 0; i < a.size(); ++i) count += std::memcmp(&a[i], &b[i], sizeof a[i]) != 0;
    return a.size() == b.size() ? count : std::numeric_limits<double>::infinity();
  };
  for (const Format format : {Format::bf16, Format::q4_0, Format::q4_1, Format::q5_0, Format::q5_1, Format::q8_0,
                              Format::q4_k, Format::q5_k, Format::q6_k, Format::tq1_0, Format::tq2_0}) {
    const std::string name(format_info(format)->name);
    const std::span<const std::byte> bytes = g.data().bytes("bytes." + name);
    const Floats want = g["dequantized." + name];
    g.record("dequantized." + name, differences(decoded(format, bytes, want.size()), want), 0.5);
    if (g.data().has("random.bytes." + name)) {
      const Floats random = g["random.dequantized." + name];
      g.record("random.dequantized." + name,
               differences(decoded(format, g.data().bytes("random.bytes." + name), random.size()), random), 0.5);
    }

    std::vector<std::byte> ours(bytes.size());
    if (const Status s = encode(q, format, x.data(), rows * cols, ours.data()); !s) g.fail(s.error().message);
    const bool fitted = format == Format::q4_k || format == Format::q5_k || format == Format::q6_k;
    if (!fitted) {
      g.record("bytes." + name, differences(ours, bytes), 0.5);
      continue;
    }
    const Floats got = decoded(format, ours, want.size());
    const auto row = [&](const Floats& values, std::int64_t r) {
      return std::span(values).subspan(static_cast<std::size_t>(r * cols), static_cast<std::size_t>(cols));
    };
    for (std::int64_t r = 0; r < rows; ++r)
      g.record("error of " + name + ", row " + std::to_string(r) + ", over the reference's",
               std::sqrt(squared_error(row(got, r), row(x, r)) / squared_error(row(want, r), row(x, r))), 1.0);
  }
}

void nf4_case(Golden& g, const Cpu& q) {
  const Floats w = g["in.w"], levels = g["aux.nf4_code_values"], scale_levels = g["aux.dynamic_code_values"];
  const auto n = static_cast<std::int64_t>(w.size());
  const auto different = [&](const std::string& name, const auto* ours, std::size_t count) {
    const std::span<const std::byte> want = g.data().bytes(name);
    g.record(name, want.size() == count * sizeof *ours && std::memcmp(ours, want.data(), want.size()) == 0 ? 0 : 1,
             0.5);
  };
  different("aux.nf4_code_values", nf4_levels.data(), nf4_levels.size());
  different("aux.dynamic_code_values", nf4_scale_levels.data(), nf4_scale_levels.size());
  Arena memory = Arena::of_bytes(static_cast<std::int64_t>(Nf4::bytes(n)));
  if (const Status s = encode_nf4(q, w.data(), n, memory.bytes()); !s) g.fail(s.error().message);
  const Nf4 ours = Nf4::at(memory.bytes(), n);
  different("out.packed", ours.codes, w.size() / 2);
  different("out.absmax_code", ours.scales, static_cast<std::size_t>(ours.blocks()));
  different("out.absmax_outer", ours.steps, static_cast<std::size_t>(ours.runs()));
  different("out.offset", ours.steps + ours.runs(), 1);
  Floats values = unwritten(n);
  decode_nf4(q.isa(), ours, 0, n, values.data());
  different("out.double", values.data(), values.size());
  if (!memory.intact()) g.fail("encode_nf4 writes behind its memory");
}

/// A ternary layer by its kernels: rounding, the product of integers, and gradients that pass through the rounding.
void bit_linear_case(Golden& g, const Cpu& q) {
  const TernaryShape s{g.number("out_features"), g.number("in_features"), g.number("group_size")};
  const std::int64_t n = 2 * g.number("T"), weights = s.out * s.in;
  const bool normed = g.config().at("rms_norm");
  const NormShape norm{n, s.in, s.in, g.config().at("eps")};
  const Floats in = g.get("in.x", n * s.in), w = g.get("param.weight", weights), dy = g.get("cotangent.y", n * s.out);
  Floats x = in;
  if (normed) rms_norm(q, norm, in.data(), g.get("param.norm.weight", s.in).data(), x.data());

  Floats scales = unwritten(s.out * s.groups()), rounded_w = unwritten(weights), rounded_x = unwritten(n * s.in),
         y = unwritten(n * s.out);
  ternary_scales(q, s, w.data(), scales.data());
  ternary_weights(q, s, w.data(), scales.data(), rounded_w.data());
  rounded_rows(q, n, s.in, x.data(), s.in, rounded_x.data());
  ternary_product(q, s, n, 1.f, x.data(), s.in, w.data(), scales.data(), 0.f, y.data(), s.out);
  const Floats want_scales = g["aux.weight_scale"], a = g.get("aux.act_scale", n);
  Floats codes = rounded_w, bytes = rounded_x;
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] /= scales[i / static_cast<std::size_t>(s.group_size())];
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] *= a[i / static_cast<std::size_t>(s.in)];
  if (want_scales.size() == 1) scales.resize(1);
  g.compare("aux.weight_scale", scales, want_scales, forward_tolerance);
  g.compare("aux.weight_ternary", codes, g["aux.weight_ternary"], forward_tolerance);
  g.compare("aux.x_int8", bytes, g["aux.x_int8"], forward_tolerance);
  g.compare("out.y", y, g["out.y"], forward_tolerance);

  scales = unwritten(s.out * s.groups());
  ternary_scales(q, s, w.data(), scales.data());
  Floats dx = unwritten(n * s.in), dweights = unwritten(weights), dw = zeros(weights);
  gemm(q, n, s.in, s.out, 1.f, row_major(dy.data(), s.out), row_major(rounded_w.data(), s.in), 0.f, dx.data(), s.in);
  gemm(q, s.out, s.in, n, 1.f, transposed(dy.data(), s.out), row_major(rounded_x.data(), s.in), 0.f, dweights.data(),
       s.in);
  ternary_gradient(q, s, {g.config().at("deep_zero")}, w.data(), scales.data(), dweights.data(), dw.data());
  if (normed) {
    const Floats du = dx, weight = g["param.norm.weight"];
    Floats dnorm = zeros(s.in);
    dx = zeros(n * s.in);
    Arena temp = Arena::of_bytes(norm_backward_bytes(n, s.in));
    rms_norm_backward(q, norm, in.data(), weight.data(), du.data(), dx.data(), dnorm.data(), Bump{temp.data()});
    g.compare("grad.norm.weight", dnorm, g["grad.norm.weight"], gradient_tolerance);
  }
  g.compare("grad.x", dx, g["grad.x"], gradient_tolerance);
  g.compare("grad.weight", dw, g["grad.weight"], gradient_tolerance);
}

/// The base of QLoRA, of whose parts the file has each in a tensor of its own.
Nf4 nf4_base(Golden& g, std::int64_t n, std::byte* memory) {
  const Nf4 w = Nf4::at(memory, n);
  const auto put = [&](const std::string& name, const void* at) {
    const std::span<const std::byte> bytes = g.data().bytes("param.base." + name);
    std::memcpy(const_cast<void*>(at), bytes.data(), bytes.size());
  };
  put("absmax_outer", w.steps), put("offset", w.steps + w.runs()), put("absmax_code", w.scales), put("packed", w.codes);
  return w;
}

/// A matrix with an adapter, in two parts whose A is the same: as one it has the golden file's numbers. QLoRA's matrix
/// stays as it is stored.
void lora_case(Golden& g, const Cpu& q) {
  const Linear s{g.number("out_features"), g.number("in_features")};
  const std::int64_t n = 2 * g.number("T"), r = g.number("r");
  const bool quantized = g.data().has("param.base.packed");
  const Floats x = g.get("in.x", n * s.in), w = g.get(quantized ? "param.base.double" : "param.weight", s.out * s.in),
               dy = g.get("cotangent.y", n * s.out), a = g.get("param.lora_A.weight", r * s.in),
               b = g.get("param.lora_B.weight", s.out * r);
  Arena memory = Arena::of_bytes(static_cast<std::int64_t>(Nf4::bytes(s.out * s.in)));
  StoredMatrix stored;
  if (quantized) {
    stored = StoredMatrix::of(nf4_base(g, s.out * s.in, memory.bytes()), s.out, s.in);
    Floats decoded = unwritten(s.out * s.in);
    decode_part(q.isa(), stored, 0, s.out, 0, s.in, decoded.data(), s.in);
    g.record("param.base.double", decoded == w ? 0 : 1, 0.5);
  }
  for (const std::int64_t parts : {1, 2}) {
    g.set_place(std::to_string(parts) + " parts");
    Adapter adapter{.b = static_cast<std::size_t>(parts * r * s.in),
                    .rank = r,
                    .scale = g.config().at("alpha").get<float>() / static_cast<float>(r),
                    .count = parts};
    for (std::int64_t p = 0; p < parts; ++p)
      adapter.parts[static_cast<std::size_t>(p)] = {p * s.out / parts, s.out / parts};
    Floats arena;
    for (std::int64_t p = 0; p < parts; ++p) arena.insert(arena.end(), a.begin(), a.end());
    arena.insert(arena.end(), b.begin(), b.end());
    Floats gradients = zeros(static_cast<std::int64_t>(arena.size())), y = unwritten(n * s.out),
           dx = unwritten(n * s.in), merged = w;
    const BaseWeights base{.ranks = adapter.ranks()};
    Arena room = Arena::of_bytes(base.room_bytes(n));
    const AdapterPass pass{.weights = arena.data(), .gradients = gradients.data(), .room = room.data()};
    const Matrix m{.w = quantized ? nullptr : w.data(),
                   .stored = quantized ? &stored : nullptr,
                   .adapter = &adapter,
                   .pass = &pass};
    linear(q, s, m, n, 1.f, x.data(), s.in, 0.f, y.data(), s.out);
    linear_backward(q, s, m, {}, n, 1.f, dy.data(), s.out, x.data(), s.in, 0.f, dx.data());
    merge_adapter(q, s.in, adapter, arena.data(), merged.data());
    Floats da = zeros(r * s.in);
    for (std::size_t i = 0; i < da.size() * static_cast<std::size_t>(parts); ++i) da[i % da.size()] += gradients[i];
    g.compare("out.y", y, g["out.y"], forward_tolerance);
    g.compare("grad.x", dx, g["grad.x"], gradient_tolerance);
    g.compare("grad.lora_A.weight", da, g["grad.lora_A.weight"], gradient_tolerance);
    g.compare("grad.lora_B.weight", std::span(gradients).subspan(adapter.b), g["grad.lora_B.weight"],
              gradient_tolerance);
    g.compare("out.merged_weight", merged, g["out.merged_weight"], forward_tolerance);
    if (!room.intact()) g.fail("the adapter writes behind its memory");
  }
}

}  // namespace

Run kernel_case(const std::string& name) {
  if (name == "rmsnorm") return rms_norm_case;
  if (name.starts_with("rmsnorm_gated_g")) return gated_norm_case<gated_rms_norm, gated_rms_norm_backward>;
  if (name == "rmsnorm_then_gate") return gated_norm_case<rms_norm_then_gate, rms_norm_then_gate_backward>;
  if (name == "rope" || name == "rope_partial") return rope_case;
  if (name == "rope_tables") return rope_tables_case;
  if (name == "mamba2_scan" || name == "mamba2_scan_dt_limit") return ssd_case;
  if (name == "gdn_core") return delta_rule_case;
  if (name == "rglru_scan" || name == "rglru_scan_continued") return rg_lru_case;
  if (name == "mlstm_core") return mlstm_case;
  if (name.starts_with("titans_") && !name.starts_with("titans_mac_")) return titans_case;
  if (name == "cross_entropy") return cross_entropy_case;
  if (name == "sft") return sft_case;
  if (name == "dpo") return dpo_case;
  if (name == "grpo") return grpo_case;
  if (name.starts_with("bitlinear")) return bit_linear_case;
  if (name == "lora" || name == "qlora_nf4") return lora_case;
  if (name == "gguf_blocks") return gguf_blocks_case;
  if (name == "nf4") return nf4_case;
  if (name == "ternary_packed") return ternary_packed_case;
  if (name == "adamw") return adamw_case;
  if (name == "schedules") return schedules_case;
  return nullptr;
}

}  // namespace goldens
