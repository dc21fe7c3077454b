// The ids of special tokens as config.json and generation_config.json of Hugging Face name them.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/exchange/json_members.hpp>
#include <chimera/text/vocabulary.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace chimera {

/// -1: there is none.
struct SpecialIds {
  std::int32_t bos = -1, eos = -1, pad = -1;
  std::vector<std::int32_t> ends{};  // further tokens that end a text

  static SpecialIds of(const Vocabulary& v);

  void add_to(JsonMembers& m) const;
};

/// The text of a generation_config.json.
std::string generation_config_json(const SpecialIds& ids);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION SpecialIds SpecialIds::of(const Vocabulary& v) {
  SpecialIds ids{v.bos, v.eos, v.padding, v.ends};
  if (v.eot >= 0 && v.eot != v.eos) ids.ends.insert(ids.ends.begin(), v.eot);
  return ids;
}

CHIMERA_FUNCTION void SpecialIds::add_to(JsonMembers& m) const {
  std::string all = eos < 0 ? "" : std::to_string(eos);
  for (const std::int32_t id : ends) all += (all.empty() ? "" : ", ") + std::to_string(id);
  m.add_id("bos_token_id", bos);
  m.add("eos_token_id", all.empty() ? "null" : all.find(',') == std::string::npos ? all : "[" + all + "]");
  m.add_id("pad_token_id", pad);
}

CHIMERA_FUNCTION std::string generation_config_json(const SpecialIds& ids) {
  JsonMembers m;
  ids.add_to(m);
  return m.text() + "\n";
}

}  // namespace chimera
#endif
