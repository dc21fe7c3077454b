// What every layer is.
//
// A layer is one file with four parts: its weights, forward, backward, and decode.
//   forward:  y += scale * layer(x)              x, y [B,T,width]; x is already normalised
//   backward: dx = scale * dlayer/dx . dy        weight gradients accumulate (+=)
//   decode:   y += scale * layer(norm(x)) for the tokens of a pass, with packed weights; y may be x
// What decoding carries of a sequence has two parts, state(kv, context): one that is read whole for every token, all
// zero at the sequence's start, the same for any context, and a ring that fills as the text goes on, of which later
// positions are never read; it is for `context` tokens, or fewer. A layer with a ring says how it is copied:
// copy_ring(kv, context, tokens, from, to). `temp` is working memory, at least temp_bytes(batch),
// or decode_bytes(rows). A layer whose work is more than its matrices says how much: flops(context), of forward, for
// one token.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/config/config.hpp>
#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/packed/matrix.hpp>
#include <chimera/kernels/packed/product.hpp>
#include <chimera/layers/adapter.hpp>
#include <chimera/layers/linear.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace chimera::inline CHIMERA_ABI {

static_assert(product_scratch_bytes(most_columns) <= Cpu::scratch_bytes);

/// An index of Layer::params whose tensor is a matrix; another does not compile.
template <class Layer>
struct MatrixParam {
  std::size_t index;

  consteval MatrixParam(std::size_t param) : index(param) {
    if (Layer::params[param].role != Role::matrix) not_a_matrix();
  }

 private:
  static void not_a_matrix() {}  // no constant expression: for the compiler's error
};

/// Offsets, in floats, of what is not a matrix; the last entry is the size of all.
template <class Layer>
inline constexpr auto vector_offsets = [] {
  std::array<std::size_t, Layer::params.size() + 1> o{};
  for (std::size_t i = 0; i < Layer::params.size(); ++i) {
    const Tensor& t = Layer::params[i];
    o[i + 1] = o[i] + (t.role == Role::matrix ? 0 : aligned_floats(static_cast<std::size_t>(t.size())));
  }
  return o;
}();

/// A layer's slice of an arena of weights (T = const float) or of gradients (T = float); or its weights in a base. A
/// base gets no gradients: those of vectors are then written where nobody reads them.
template <class Layer, class T = const float>
struct Weights {
  T* base;                                // of gradients of a base: room of vector_offsets<Layer>.back()
  const BaseTensor* tensors = nullptr;    // of a base: of each param
  const AdapterPass* adapters = nullptr;  // of a base

  auto matrix(MatrixParam<Layer> param) const {
    if constexpr (std::is_const_v<T>)
      return tensors ? Matrix::of(tensors[param.index], adapters) : Matrix{vector(param.index)};
    else
      return MatrixGradient{tensors ? nullptr : vector(param.index)};
  }
  T* vector(std::size_t param) const {
    if (!tensors) return base + offsets<Layer>[param];
    if constexpr (std::is_const_v<T>)
      return tensors[param].values;
    else
      return base + vector_offsets<Layer>[param];
  }
  /// Of a layer whose params stand among this one's, from `first` on.
  template <class Part>
  Weights<Part, T> part(std::size_t first) const {
    if (!tensors) return {vector(first)};
    return {std::is_const_v<T> ? base : vector(first), tensors + first, adapters};
  }
};

/// A layer's weights in decoding. The taps of a convolution (conv1d.weight) lie transposed here: [taps, channels].
template <class Layer>
struct PackedWeights {
  const PackedTensor* tensors;

  const PackedMatrix& matrix(MatrixParam<Layer> param) const { return tensors[param.index].matrix; }
  const float* vector(std::size_t param) const { return tensors[param].values; }
};

template <class L, class D = Cpu>
concept Layer = requires(const D& q, Weights<L> w, Weights<L, float> dw, const Batch& batch, const float* x, float* y,
                         typename L::Activations& a, PackedWeights<L> packed, const Pass& pass, const ProductInput& in,
                         Bump& memory, Bump temp) {
  { L::params.size() } -> std::convertible_to<std::size_t>;
  { L::bind(memory, batch) } -> std::same_as<typename L::Activations>;
  { L::temp_bytes(batch) } -> std::same_as<std::int64_t>;
  L::forward(q, w, batch, x, 1.f, y, a, temp);
  L::backward(q, w, dw, batch, x, x, 1.f, y, a, temp);
  { L::state(KvFormat::f16, std::int64_t{1}) } -> std::same_as<StateBytes>;
  { L::decode_bytes(std::int64_t{}) } -> std::same_as<std::int64_t>;
  L::decode(q, packed, pass, in, 1.f, y, temp);
};

}  // namespace chimera::inline CHIMERA_ABI
