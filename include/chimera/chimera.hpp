// The whole library. Nothing here prints, throws, aborts or keeps global state. A file that needs one room compiles
// faster with that room's headers alone.
#pragma once

#include <chimera/config/presets.hpp>
#include <chimera/exchange/config_from_file.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/hugging_face.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/model_card.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/pack.hpp>
#include <chimera/exchange/quantize.hpp>
#include <chimera/generate/beam_search.hpp>
#include <chimera/generate/dry_breakers.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/generate/stop_strings.hpp>
#include <chimera/model/language_model.hpp>
#include <chimera/text/bpe_parity.hpp>
#include <chimera/text/bpe_trainer.hpp>
#include <chimera/text/bytes.hpp>
#include <chimera/text/chat_template.hpp>
#include <chimera/text/encoder.hpp>
#include <chimera/text/token_decoder.hpp>
#include <chimera/text/token_statistics.hpp>
#include <chimera/train/trainer.hpp>
