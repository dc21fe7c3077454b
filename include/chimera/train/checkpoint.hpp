// A run on disk: one file, whole or absent, with a checksum over each part.
//
//   bytes 0..   Header: magic, version, the file's size, a table of sections, a checksum of all that
//   "info"      text, one "name value" a line: CheckpointInfo, Progress and TrainerSettings
//   "weights"   the arena, f32, little-endian; each section starts on 64 bytes
//   the state of what learns: "moment1", "moment2" of AdamW
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/config/config_hash.hpp>
#include <chimera/config/config_text.hpp>
#include <chimera/core/checksum.hpp>
#include <chimera/core/fields.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/optim/optimizer.hpp>
#include <chimera/train/settings.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

static_assert(std::endian::native == std::endian::little, "chimera: checkpoints are little-endian");

/// Of the names, shapes and places of all weights in the arena.
std::uint64_t layout_hash(std::span<const NamedTensor> tensors);

/// Which model a checkpoint belongs to. A model is one, on whatever device it works.
struct CheckpointInfo {
  std::string config;
  std::uint64_t config_hash = 0, layout_hash = 0;
  std::int64_t parameters = 0;
  std::uint64_t adapters = 0;  // that the weights are, of a base that is not in the file
  ConfigFields model;          // vocab 0: the file does not say

  CheckpointInfo() = default;
  template <Device D>
  CheckpointInfo(const ModelTable<D>& m)
      : config(m.name),
        config_hash(chimera::config_hash(*m.config)),
        layout_hash(chimera::layout_hash(m.tensors)),
        parameters(m.parameters),
        adapters(m.base ? m.base->adapters : 0),
        model{*m.config} {}
  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("config", s.config), f("config_hash", s.config_hash), f("layout_hash", s.layout_hash);
    f("parameters", s.parameters), f("adapters", s.adapters);
    ConfigFields::each_field(s.model, f);
  }
};

/// Where a run stands: with the weights, the moments and the settings, all that decides its next step.
struct Progress {
  std::int64_t step = 0;     // done, skipped ones included
  std::int64_t updates = 0;  // steps that changed the weights
  std::int64_t tokens = 0;   // read
  std::int64_t skipped = 0;
  std::int64_t skipped_in_a_row = 0;
  std::uint64_t data_drawn = 0;      // rows that the source of batches has given; with settings.seed, its state
  std::int64_t data_tokens = 0;      // of the training split: to notice other data
  std::uint32_t data_checksum = 0;   // of its tokens; 0: not known
  double loss_mean = 0;              // running mean, to tell a spike
  double validation_loss = 0;        // the last
  std::int64_t validation_step = 0;  // after which step that was; 0: none yet
  double seconds = 0;                // spent in training

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("step", s.step), f("updates", s.updates), f("tokens", s.tokens);
    f("skipped", s.skipped), f("skipped_in_a_row", s.skipped_in_a_row);
    f("data_drawn", s.data_drawn), f("data_tokens", s.data_tokens);
    f("data_checksum", s.data_checksum), f("loss_mean", s.loss_mean);
    f("validation_loss", s.validation_loss), f("validation_step", s.validation_step), f("seconds", s.seconds);
  }
};

/// What a checkpoint says of itself.
struct CheckpointHeader {
  CheckpointInfo info;
  Progress progress;
  TrainerSettings settings;
};

/// A checkpoint file, mapped. `open` checks the header and the info, `section` one section, `verify` all of them.
class Checkpoint {
 public:
  static constexpr std::array<char, 8> magic{'c', 'h', 'i', 'm', 'e', 'r', 'a', '\x1A'};
  static constexpr std::uint32_t version = 1;
  static constexpr std::size_t max_sections = 8;

  struct Entry {
    std::array<char, 16> text{};
    std::uint64_t offset = 0, bytes = 0;
    std::uint64_t checksum = 0;  // CRC-32C

    /// The text up to its first zero.
    std::string_view name() const {
      return {text.data(), static_cast<std::size_t>(std::find(text.begin(), text.end(), '\0') - text.begin())};
    }
  };
  struct Header {
    std::array<char, 8> magic{};
    std::uint32_t version = 0, sections = 0;
    std::uint64_t file_bytes = 0;
    std::array<Entry, max_sections> table{};
    std::uint64_t checksum = 0;  // CRC-32C of all before it
  };
  static_assert(sizeof(Entry) == 40 && sizeof(Header) == 352 && std::is_trivially_copyable_v<Header>);

  static Result<Checkpoint> open(const std::string& path);

  const CheckpointHeader& header() const { return says_; }

  /// The section's bytes, after its checksum was found right.
  Result<std::span<const std::byte>> section(std::string_view name) const;

  Result<void> validate() const;

  /// An error unless the file's weights are those of the model.
  Result<void> matches(const CheckpointInfo& model) const;

  /// The section's bytes, which must be so many.
  Result<std::span<const std::byte>> section(std::string_view name, std::size_t bytes) const;

  /// An error if the file has more state than these sections.
  Result<void> holds_only(std::span<const Section> sections) const;

 private:
  std::span<const Entry> table() const { return {header_.table.data(), header_.sections}; }
  Error wrong(const std::string& what) const { return Error{"cannot load " + path_ + ": " + what}; }

  std::string path_;
  MappedFile file_;
  Header header_;
  CheckpointHeader says_;
};

/// Writes a checkpoint; if that fails, the file that had the name is as before. `state`: "weights", and the sections of
/// what learns.
Result<void> save_checkpoint(const std::string& path, const CheckpointInfo& model, const Progress& progress,
                             const TrainerSettings& settings, std::span<const Section> state);

/// Fills all sections of a run's state, which must be those of the file; on any mismatch or damage nothing is changed.
Result<CheckpointHeader> load_checkpoint(const std::string& path, const CheckpointInfo& model,
                                         std::span<const Section> state);

/// The weights alone, model.arena_floats of them: for inference.
Result<void> load_weights(const std::string& path, const AnyModel& model, float* weights);

/// Config name, progress and settings, without reading the weights.
Result<CheckpointHeader> read_checkpoint_header(const std::string& path);

/// "runs/a/checkpoint-000123.chimera"
std::string checkpoint_path(const std::string& folder, std::int64_t step);

/// Steps of all checkpoints in a folder, the newest first.
Result<std::vector<std::int64_t>> list_checkpoints(const std::string& folder);

/// `path` itself if it is a file; in a folder the newest checkpoint without damage.
Result<std::string> find_checkpoint(const std::string& path);

/// Removes checkpoints older than the newest `keep` of those up to `step`, which was just written.
Result<void> remove_old_checkpoints(const std::string& folder, std::int64_t step, std::int64_t keep);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION std::uint64_t layout_hash(std::span<const NamedTensor> tensors) {
  Hash h;
  for (const NamedTensor& t : tensors) h.add(t.name()), h.add(t.rows, t.cols, t.offset);
  return h.value;
}

CHIMERA_FUNCTION Result<void> save_checkpoint(const std::string& path, const CheckpointInfo& model,
                                              const Progress& progress, const TrainerSettings& settings,
                                              std::span<const Section> state) {
  std::string info = to_lines(model) + to_lines(progress) + to_lines(settings);
  std::vector<Section> parts{{"info", std::as_writable_bytes(std::span(info))}};
  parts.insert(parts.end(), state.begin(), state.end());
  constexpr std::array<char, alignment> zeros{};
  const auto aligned = [](std::size_t n) { return (n + alignment - 1) / alignment * alignment; };

  Checkpoint::Header header{
      .magic = Checkpoint::magic, .version = Checkpoint::version, .sections = static_cast<std::uint32_t>(parts.size())};
  if (parts.size() > header.table.size())
    return Error{"a checkpoint has room for " + std::to_string(header.table.size()) + " sections, found " +
                 std::to_string(parts.size())};
  std::size_t at = sizeof header;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    at = aligned(at);
    Checkpoint::Entry& s = header.table[i];
    if (parts[i].name.size() >= s.text.size())
      return Error{"the name of a checkpoint's section has at most 15 letters, found \"" + std::string(parts[i].name) +
                   "\""};
    std::copy(parts[i].name.begin(), parts[i].name.end(), s.text.begin());
    s.offset = at, s.bytes = parts[i].bytes.size(), s.checksum = crc32c(parts[i].bytes.data(), s.bytes);
    at += s.bytes;
  }
  header.file_bytes = at;
  header.checksum = crc32c(&header, offsetof(Checkpoint::Header, checksum));

  auto file = AtomicFile::create(path);
  if (!file) return file.error();
  if (Result<void> s = file->write(&header, sizeof header); !s) return s;
  at = sizeof header;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (Result<void> s = file->write(zeros.data(), header.table[i].offset - at); !s) return s;
    if (Result<void> s = file->write(parts[i].bytes.data(), parts[i].bytes.size()); !s) return s;
    at = header.table[i].offset + parts[i].bytes.size();
  }
  return file->commit();
}

CHIMERA_FUNCTION Result<CheckpointHeader> load_checkpoint(const std::string& path, const CheckpointInfo& model,
                                                          std::span<const Section> state) {
  auto file = Checkpoint::open(path);
  if (!file) return file.error();
  if (Result<void> s = file->matches(model); !s) return s.error();
  std::vector<std::span<const std::byte>> found;
  for (const Section& s : state) {
    const auto bytes = file->section(s.name, s.bytes.size());
    if (!bytes) return bytes.error();
    found.push_back(*bytes);
  }
  if (Result<void> s = file->holds_only(state); !s) return s.error();
  for (std::size_t i = 0; i < state.size(); ++i) std::copy(found[i].begin(), found[i].end(), state[i].bytes.begin());
  return file->header();
}

CHIMERA_FUNCTION Result<void> load_weights(const std::string& path, const AnyModel& model, float* weights) {
  auto file = Checkpoint::open(path);
  if (!file) return file.error();
  if (Result<void> s = file->matches(model); !s) return s.error();
  const auto bytes = file->section("weights", model.arena_floats * sizeof(float));
  if (!bytes) return bytes.error();
  std::memcpy(weights, bytes->data(), bytes->size());
  return {};
}

CHIMERA_FUNCTION Result<CheckpointHeader> read_checkpoint_header(const std::string& path) {
  auto file = Checkpoint::open(path);
  if (!file) return file.error();
  return file->header();
}

CHIMERA_FUNCTION std::string checkpoint_path(const std::string& folder, std::int64_t step) {
  std::string digits = std::to_string(step);
  if (digits.size() < 6) digits.insert(0, 6 - digits.size(), '0');
  return folder + "/checkpoint-" + digits + ".chimera";
}

CHIMERA_FUNCTION Result<std::vector<std::int64_t>> list_checkpoints(const std::string& folder) {
  auto names = list_folder(folder);
  if (!names) return names.error();
  std::vector<std::int64_t> steps;
  for (const std::string& name : *names) {
    constexpr std::string_view before = "checkpoint-", after = ".chimera";
    std::int64_t step = 0;
    if (name.size() > before.size() + after.size() && name.starts_with(before) && name.ends_with(after) &&
        from_text(std::string_view(name).substr(before.size(), name.size() - before.size() - after.size()), step))
      steps.push_back(step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

CHIMERA_FUNCTION Result<std::string> find_checkpoint(const std::string& path) {
  if (!is_folder(path)) {
    if (!exists(path)) return Error{"cannot find " + path + ": no such file or folder"};
    return path;
  }
  auto steps = list_checkpoints(path);
  if (!steps) return steps.error();
  std::string damage;
  for (std::int64_t step : *steps) {
    std::string file = checkpoint_path(path, step);
    auto checkpoint = Checkpoint::open(file);
    const Result<void> status = checkpoint ? checkpoint->validate() : Result<void>(checkpoint.error());
    if (status) return file;
    if (damage.empty()) damage = "; " + status.error().message;
  }
  return Error{"the folder " + path + " has no checkpoint that can be read" + damage};
}

CHIMERA_FUNCTION Result<void> remove_old_checkpoints(const std::string& folder, std::int64_t step, std::int64_t keep) {
  auto steps = list_checkpoints(folder);
  if (!steps) return steps.error();
  for (std::int64_t s : *steps)
    if (s <= step && --keep < 0 && !platform::remove(checkpoint_path(folder, s)))
      return file_error("remove", checkpoint_path(folder, s));
  return {};
}

CHIMERA_FUNCTION Result<Checkpoint> Checkpoint::open(const std::string& path) {
  auto file = MappedFile::open(path);
  if (!file) return file.error();
  Checkpoint c;
  c.path_ = path, c.file_ = std::move(*file);
  Header& h = c.header_;
  if (c.file_.size() < sizeof h.magic || std::memcmp(c.file_.bytes().data(), magic.data(), sizeof magic) != 0)
    return c.wrong("it is no chimera checkpoint");
  if (c.file_.size() < sizeof h) return c.wrong("it was cut short inside its header");
  std::memcpy(&h, c.file_.bytes().data(), sizeof h);
  if (h.version != version)
    return c.wrong("expected version " + std::to_string(version) + " of the format, found " +
                   std::to_string(h.version));
  if (h.checksum != crc32c(&h, offsetof(Header, checksum))) return c.wrong("its header is damaged");
  if (h.file_bytes != c.file_.size())
    return c.wrong("expected " + std::to_string(h.file_bytes) + " bytes, found " + std::to_string(c.file_.size()) +
                   (c.file_.size() < h.file_bytes ? ": it was cut short" : ""));
  if (h.sections > max_sections) return c.wrong("its header is damaged");
  for (const Entry& s : c.table())
    if (s.offset > h.file_bytes || s.bytes > h.file_bytes - s.offset) return c.wrong("its header is damaged");
  auto info = c.section("info");
  if (!info) return info.error();
  const std::string_view text{reinterpret_cast<const char*>(info->data()), info->size()};
  CheckpointHeader& says = c.says_;
  for (const Result<void>& s :
       {from_lines(text, says.info), from_lines(text, says.progress), from_lines(text, says.settings)})
    if (!s) return c.wrong(s.error().message);
  return c;
}

CHIMERA_FUNCTION Result<std::span<const std::byte>> Checkpoint::section(std::string_view name) const {
  for (const Entry& s : table()) {
    if (name != s.name()) continue;
    const auto bytes = file_.bytes().subspan(s.offset, s.bytes);
    if (crc32c(bytes.data(), bytes.size()) != s.checksum)
      return wrong("its section \"" + std::string(name) + "\" is damaged (the checksum differs)");
    return bytes;
  }
  return wrong("it has no section \"" + std::string(name) + "\"");
}

CHIMERA_FUNCTION Result<void> Checkpoint::validate() const {
  for (const Entry& s : table())
    if (auto bytes = section(s.name()); !bytes) return bytes.error();
  return {};
}

CHIMERA_FUNCTION Result<void> Checkpoint::matches(const CheckpointInfo& expected) const {
  const CheckpointInfo& found = says_.info;
  if (found.config != expected.config)
    return wrong("it is a checkpoint of config " + found.config + ", the model is " + expected.config);
  if (found.config_hash != expected.config_hash)
    return wrong("the config " + found.config + " has changed since it was written");
  if (found.adapters > 0 && expected.adapters == 0)
    return wrong("it has adapters alone, to be read beside the model that they were trained on");
  if (found.layout_hash != expected.layout_hash)
    return wrong("the layout of the weights of " + found.config + " has changed since it was written");
  return {};
}

CHIMERA_FUNCTION Result<std::span<const std::byte>> Checkpoint::section(std::string_view name,
                                                                        std::size_t bytes) const {
  auto found = section(name);
  if (found && found->size() != bytes)
    return wrong("its section \"" + std::string(name) + "\" should have " + std::to_string(bytes) + " bytes, found " +
                 std::to_string(found->size()));
  return found;
}

CHIMERA_FUNCTION Result<void> Checkpoint::holds_only(std::span<const Section> sections) const {
  for (const Entry& s : table()) {
    const auto same = [&](const Section& known) { return known.name == s.name(); };
    if (s.name() != "info" && std::none_of(sections.begin(), sections.end(), same))
      return wrong("it has a section \"" + std::string(s.name()) + "\", which this run does not know");
  }
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
