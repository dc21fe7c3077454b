// The whole library. Nothing here prints, throws, aborts or keeps global state. A file that needs one room compiles
// faster with that room's headers alone.
#pragma once

#include <chimera/inference.hpp>
#include <chimera/training.hpp>

#include <chimera/align/rollouts.hpp>
#include <chimera/exchange/adapter_files.hpp>
#include <chimera/exchange/adapter_names.hpp>
#include <chimera/exchange/config_from_file.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/hugging_face.hpp>
#include <chimera/exchange/model_card.hpp>
#include <chimera/exchange/quantize.hpp>
#include <chimera/exchange/saved_model.hpp>
