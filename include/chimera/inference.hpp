// What a program that runs models needs: weights from a file, sessions, choosing tokens, tokenizers and conversations.
// It brings nothing of training.
#pragma once

#include <chimera/config/presets.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/pack.hpp>
#include <chimera/generate/beam_search.hpp>
#include <chimera/generate/conversation.hpp>
#include <chimera/generate/dry_breakers.hpp>
#include <chimera/generate/reader.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/generate/stop_strings.hpp>
#include <chimera/model/language_model.hpp>
#include <chimera/text/bytes.hpp>
#include <chimera/text/chat_template.hpp>
#include <chimera/text/encoder.hpp>
#include <chimera/text/token_decoder.hpp>
