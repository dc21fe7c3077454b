// error: lacks_decode<Half<bad>
#include "good.hpp"

#include <chimera/model/language_model.hpp>

// A layer of the host's own that has all parts but one.
template <const Config& C>
struct Half {
  static constexpr std::array params{vector_tensor("half", C.width, Init::constant(0.5f))};
  struct Activations {};
  static Activations bind(Bump&, const Batch&) { return {}; }
  static std::int64_t temp_bytes(const Batch&) { return 0; }
  static void forward(const auto&...) {}
  static void backward(const auto&...) {}
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {}; }
};

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("H", 2, {"H"});
  return c;
}();
template <>
inline constexpr auto chimera::own_mixers<bad> = boost::hana::make_tuple(Mixer<"H", Half<bad>>{});
constexpr auto count = LanguageModel<bad>::parameters;
