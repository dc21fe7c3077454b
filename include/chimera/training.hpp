// What a program that trains needs: models, their data, optimizers, the trainer and its checkpoints; learning from
// conversations; and learning tokenizers. It reads and writes no files of other projects.
#pragma once

#include <chimera/align/arithmetic.hpp>
#include <chimera/align/chat_data.hpp>
#include <chimera/align/conversations.hpp>
#include <chimera/align/dpo.hpp>
#include <chimera/align/environment.hpp>
#include <chimera/align/grpo.hpp>
#include <chimera/align/log_probs.hpp>
#include <chimera/align/preferences.hpp>
#include <chimera/config/longer_context.hpp>
#include <chimera/config/presets.hpp>
#include <chimera/model/adapted_model.hpp>
#include <chimera/model/language_model.hpp>
#include <chimera/model/stored_base.hpp>
#include <chimera/optim/adamw.hpp>
#include <chimera/optim/schedule.hpp>
#include <chimera/text/bpe_parity.hpp>
#include <chimera/text/bpe_trainer.hpp>
#include <chimera/text/bytes.hpp>
#include <chimera/text/token_statistics.hpp>
#include <chimera/train/batch_source.hpp>
#include <chimera/train/checkpoint.hpp>
#include <chimera/train/corpus.hpp>
#include <chimera/train/metrics.hpp>
#include <chimera/train/rope_search.hpp>
#include <chimera/train/trainer.hpp>
#include <chimera/train/windows.hpp>
