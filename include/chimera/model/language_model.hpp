// A language model is a type: the blocks of its pattern between an embedding and a head, all weights in one flat arena.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/model/decoding.hpp>
#include <chimera/model/initialize.hpp>
#include <chimera/model/layout.hpp>
#include <chimera/model/training.hpp>

#include <cstdint>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

/// What a config must be before a model of it is compiled. First of LanguageModel's bases: a config that breaks a rule
/// stops compilation there, and not somewhere in a layer.
template <const Config& C>
struct CheckedConfig : Check<C> {
  static_assert(Check<C>::ok);
  static_assert(
      all_registered<C>(),
      "chimera: a word of the pattern has no layer; own_mixers<C> has the host's, the library has" CHIMERA_MIXER_WORDS);
};

/// The functions and tables of AnyModel, as static members.
template <const Config& C>
struct LanguageModel : CheckedConfig<C>, ModelLayout<C>, ModelTraining<C>, ModelDecoding<C> {
  static constexpr const Config& config = C;

  static void initialize(float* weights, std::uint64_t seed) {
    initialize_weights(LanguageModel::tensors, weights, seed);
  }
};

/// The model without its type, for decoding alone: nothing of whole batches is compiled, and `loss`, `forward` and
/// `train` are null.
template <const Config& C, Device D = Cpu>
constexpr ModelTable<D> inference_model(std::string_view name) {
  using M = LanguageModel<C>;
  return {.name = name,
          .config = &C,
          .tensors = M::tensors,
          .parameters = M::parameters,
          .arena_floats = M::arena_floats,
          .flops = M::flops,
          .of_batches = {.initialize = initialize_weights},
          .slot_count = M::slot_count,
          .state_bytes = M::state_bytes,
          .clear_state = M::clear_state,
          .copy_state = M::copy_state,
          .keep_state_sparse = M::keep_state_sparse,
          .decode_bytes = M::decode_bytes,
          .stages = M::stages,
          .head = M::stages - M::head_stages,
          .decode = M::template decode<D>};
}

/// The same with losses and logits of whole batches, and no backward.
template <const Config& C, Device D = Cpu>
constexpr ModelTable<D> evaluation_model(std::string_view name) {
  ModelTable<D> model = inference_model<C, D>(name);
  model.of_batches.loss_bytes = LanguageModel<C>::template loss_bytes<D>;
  model.of_batches.loss = LanguageModel<C>::template loss<D>;
  model.of_batches.forward = LanguageModel<C>::template forward<D>;
  return model;
}

/// The model without its type.
template <const Config& C, Device D = Cpu>
constexpr ModelTable<D> any_model(std::string_view name) {
  ModelTable<D> model = evaluation_model<C, D>(name);
  model.of_batches.train_bytes = LanguageModel<C>::template train_bytes<D>;
  model.of_batches.train = LanguageModel<C>::template train<D>;
  return model;
}

}  // namespace chimera::inline CHIMERA_ABI
