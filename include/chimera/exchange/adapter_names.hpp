// Which matrices are meant by words that people know: of PEFT's target modules, of llama.cpp's tensors, of our own.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/weights.hpp>
#include <chimera/model/adapted_model.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// The matrices that these words name, commas between them: all; attention, ffn, mixer (the layers before ffn); the
/// names of PEFT (q_proj), of llama.cpp (attn_q), of our tables (attn_qkv); q, k, v, o, gate, up, down. An error for a
/// word that names none.
Result<std::vector<AdapterTarget>> named_targets(const AnyModel& model, std::string_view words);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace adapter_name_parts {

/// A name without the block before it and ".weight" behind it.
inline std::string_view short_name(std::string_view name) {
  constexpr std::string_view suffix = ".weight";
  if (name.starts_with("blk.")) name.remove_prefix(name.find('.', 4) + 1);
  if (name.ends_with(suffix)) name.remove_suffix(suffix.size());
  return name;
}

struct Short {
  std::string_view word, gguf;
};
inline constexpr std::array<Short, 7> shorts{{{"q", "attn_q"},
                                              {"k", "attn_k"},
                                              {"v", "attn_v"},
                                              {"o", "attn_output"},
                                              {"gate", "ffn_gate"},
                                              {"up", "ffn_up"},
                                              {"down", "ffn_down"}}};

/// The parts of a tensor that a word names.
inline std::uint32_t parts_named(const NamedTensor& t, std::string_view word) {
  const std::string_view ours = short_name(t.name());
  const bool ffn = ours.starts_with("ffn_");
  if (word == ours) return all_parts(t);
  if (t.each == 0 && (word == "all" || (word == "attention" && ours.starts_with("attn_")) || (word == "ffn" && ffn) ||
                      (word == "mixer" && !ffn)))
    return all_parts(t);
  for (const Short& s : shorts)
    if (word == s.word) word = s.gguf;
  std::uint32_t bits = 0;
  weight_parts::each_row([&](const FileRow& row) {
    if (short_name(row.ours) != ours) return;
    for (const FileTensor* theirs : {&row.gguf, &row.granite, &row.llama, &row.xlstm, &row.griffin, &row.qwen35}) {
      const std::string_view name = short_name(theirs->name);
      if (!name.empty() && (name == word || name.substr(name.rfind('.') + 1) == word))
        bits |= row.part < 0 ? all_parts(t) : 1U << row.part;
    }
  });
  return bits;
}

/// llama.cpp's names of a model's matrices, or ours.
inline std::string names_of(const AnyModel& model) {
  std::set<std::string> all;
  for (const NamedTensor& t : model.tensors) {
    if (t.role != Role::matrix || t.block() < 0 || t.each > 0) continue;
    bool named = false;
    weight_parts::each_row([&](const FileRow& row) {
      if (short_name(row.ours) == short_name(t.name()) && row.ours.ends_with(".weight") && !row.gguf.name.empty())
        all.emplace(short_name(row.gguf.name)), named = true;
    });
    if (!named) all.emplace(short_name(t.name()));
  }
  std::string text;
  for (const std::string& name : all) text.append(text.empty() ? "" : ", ").append(name);
  return text;
}

}  // namespace adapter_name_parts

CHIMERA_FUNCTION Result<std::vector<AdapterTarget>> named_targets(const AnyModel& model, std::string_view words) {
  using namespace adapter_name_parts;
  std::vector<std::uint32_t> parts(model.tensors.size());
  while (!words.empty()) {
    const std::string_view word = words.substr(0, words.find(','));
    words.remove_prefix(std::min(words.size(), word.size() + 1));
    bool found = false;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const NamedTensor& t = model.tensors[i];
      if (t.role != Role::matrix || t.block() < 0) continue;
      const std::uint32_t bits = parts_named(t, word);
      parts[i] |= bits, found = found || bits != 0;
    }
    if (!found)
      return Error{"no matrix of " + std::string(model.name) + " is called " + std::string(word) +
                   ": expected all, attention, mixer, ffn, or some of " + names_of(model)};
  }
  std::vector<AdapterTarget> targets;
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (parts[i] != 0) targets.push_back({i, parts[i]});
  return targets;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
