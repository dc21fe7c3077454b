// What a loop does before each pass, as a layer: x = kept h + added e (kernels/f32/injection.hpp). Its norm makes e of
// what entered the loop.
#pragma once

#include <chimera/kernels/f32/injection.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/layers/layer.hpp>

#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct Injection : LoopWeights {
  static constexpr std::int64_t width = C.width;

  // 1. Weights.
  static constexpr auto params = C.loop.weights(C);

  // 2. Forward. entered, e, h, x [rows, width]; h null: zero; x may be h.
  static void enter(const Device auto& q, Weights<Injection> w, std::int64_t rows, const float* entered, float* e) {
    rms_norm(q, norm_shape(rows), entered, w.vector(norm), e);
  }
  static void forward(const Device auto& q, Weights<Injection> w, std::int64_t rows, const float* h, const float* e,
                      float* x) {
    inject(q, rows, width, channels(w), h, e, x);
  }

  // 3. Backward. dx becomes dh, de +=; at the end de gives dentered =.
  static void backward(const Device auto& q, Weights<Injection> w, Weights<Injection, float> dw, std::int64_t rows,
                       const float* h, const float* e, float* dx, float* de) {
    inject_backward(q, rows, width, channels(w), h, e, dx, de,
                    InjectionGradients{dw.vector(a_log), dw.vector(delta), dw.vector(input)});
  }
  static void enter_backward(const Device auto& q, Weights<Injection> w, Weights<Injection, float> dw,
                             std::int64_t rows, const float* entered, const float* de, float* dentered, Bump temp) {
    zero(q, rows * width, dentered);
    rms_norm_backward(q, norm_shape(rows), entered, w.vector(norm), de, dentered, dw.vector(norm), temp);
  }

  // 4. Decode.
  static void enter(const Device auto& q, PackedWeights<Injection> w, std::int64_t rows, const float* entered,
                    float* e) {
    rms_norm(q, norm_shape(rows), entered, w.vector(norm), e);
  }
  static void decode(const Device auto& q, PackedWeights<Injection> w, std::int64_t rows, const float* h,
                     const float* e, float* x) {
    inject(q, rows, width, channels(w), h, e, x);
  }

 private:
  static constexpr NormShape norm_shape(std::int64_t rows) { return {rows, width, width, C.norm_eps}; }
  static InjectionWeights channels(const auto& w) { return {w.vector(a_log), w.vector(delta), w.vector(input)}; }
};

}  // namespace chimera::inline CHIMERA_ABI
