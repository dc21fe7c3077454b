// An order of includes that once gave `Gguf` another type of its index, and broke: kernels before the readers of files.
#include <chimera/exchange/pack.hpp>
#include <chimera/model/language_model.hpp>

#include <chimera/exchange/hugging_face.hpp>

#include <type_traits>

static_assert(std::is_move_constructible_v<chimera::Gguf>);
