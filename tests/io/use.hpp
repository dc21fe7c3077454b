// Readers put to use on bytes that may be anything. A file is an error or valid; unsound is what must never be: a
// valid file whose parts do not fit together.
#pragma once

#include <chimera/io/finite.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/json.hpp>
#include <chimera/io/safetensors.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace chimera {

enum class Outcome : std::uint8_t { error, valid, unsound };

/// All that the file offers.
inline Outcome use_gguf(std::span<const std::byte> bytes) {
  const auto file = Gguf::parse(bytes);
  if (!file) return file.error().message.empty() ? Outcome::unsound : Outcome::error;
  bool sound = true;
  for (const GgufEntry& e : file->entries()) {
    sound = sound && file->find(e.key) == &e.value;
    if (e.value.element == GgufType::text)
      sound = sound && (e.value.is_array() ? file->texts(e.key).ok() : file->text(e.key).ok());
    else if (e.value.is_array())
      sound = sound && (file->numbers(e.key).ok() || file->integers(e.key).ok());
    else
      sound = sound && file->number(e.key).ok() != file->boolean(e.key).ok();
  }
  for (const GgufTensor& t : file->tensors()) {
    sound = sound && file->tensor(t.name) == &t;
    sound = sound && static_cast<std::int64_t>(t.data.size()) == format_bytes(t.format, t.size());
    sound = sound && find_not_finite(t.format, t.data).count <= t.size();
  }
  return sound ? Outcome::valid : Outcome::unsound;
}

inline Outcome use_safetensors(std::span<const std::byte> bytes) {
  const auto file = Safetensors::parse(bytes);
  if (!file) return file.error().message.empty() ? Outcome::unsound : Outcome::error;
  bool sound = true;
  std::size_t sum = 0, all = 0;
  for (const SafetensorsTensor& t : file->tensors()) {
    std::int64_t size = 1;
    for (std::int64_t n : t.shape) size *= n;
    sound = sound && file->tensor(t.name) == &t && t.size() == size;
    for (std::byte b : t.data) sum += static_cast<std::size_t>(b);
    all += t.data.size();
  }
  sound = sound && sum <= 255 * all && all <= bytes.size();
  for (const auto& [name, text] : file->metadata()) sound = sound && file->metadata(name) == text;
  return sound ? Outcome::valid : Outcome::unsound;
}

/// Each value in it, and each string written and read again.
inline bool sound_json(const Json& json) {
  bool sound = true;
  if (const auto text = json.string()) {
    const std::string quoted = json_quoted(*text);
    const auto again = Json::parse(quoted);
    sound = again.ok() && again->string() == text;
  }
  if (const auto n = json.integer()) sound = sound && json.number().has_value();
  for (const Json& element : json.elements()) sound = sound && sound_json(element);
  for (const auto& [key, value] : json.members())
    sound = sound && key.string() && json.find(*key.string()) && sound_json(value);
  return sound;
}

inline Outcome use_json(std::string_view text) {
  const auto json = Json::parse(text);
  if (!json) return json.error().message.empty() ? Outcome::unsound : Outcome::error;
  return sound_json(*json) ? Outcome::valid : Outcome::unsound;
}

}  // namespace chimera
