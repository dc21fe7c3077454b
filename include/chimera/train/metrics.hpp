// A run's numbers as JSON lines: one object a line, each written at once, so that the file is whole after a crash.
#pragma once

#include <chimera/core/fields.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/float_bits.hpp>
#include <chimera/core/metric.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

/// {"step":12,"loss":2.5,...}: JSON has no NaN and no infinity, so they are null.
class MetricsLog {
 public:
  /// Opens for appending. Lines of steps after `step` are cut off, and with them all that follow: a resumed run
  /// writes them again. A last line that a crash left unfinished goes too. A file of other content is an error.
  static Result<MetricsLog> open(const std::string& path, std::int64_t step);

  /// One line, in one write.
  Result<void> write(std::int64_t step, std::initializer_list<Metric> metrics);

 private:
  /// Bytes up to the first line that is unfinished or of a step after `step`.
  static Result<std::size_t> kept(std::string_view text, std::int64_t step);

  std::string path_;
  FileHandle file_;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<MetricsLog> MetricsLog::open(const std::string& path, std::int64_t step) {
  MetricsLog log;
  log.path_ = path;
  log.file_ = FileHandle(platform::open(path, platform::Access::append));
  if (!log.file_.ok()) return file_error("write", path);
  const auto info = platform::info(log.file_.fd());
  if (!info) return file_error("write", path);
  if (info->bytes == 0) return log;
  auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  const auto keep = kept(mapped->text(), step);
  if (!keep) return Error{"cannot write " + path + ": " + keep.error().message};
  if (!platform::resize(log.file_.fd(), *keep)) return file_error("write", path);
  return log;
}

CHIMERA_FUNCTION Result<void> MetricsLog::write(std::int64_t step, std::initializer_list<Metric> metrics) {
  std::string line = "{\"step\":" + std::to_string(step);
  for (const Metric& m : metrics)
    line.append(",\"").append(m.name).append("\":").append(is_finite(m.value) ? to_text(m.value) : "null");
  line += "}\n";
  if (!write_all(file_.fd(), line.data(), line.size())) return file_error("write", path_);
  return {};
}

CHIMERA_FUNCTION Result<std::size_t> MetricsLog::kept(std::string_view text, std::int64_t step) {
  constexpr std::string_view opening = "{\"step\":";
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string_view::npos) break;
    const std::string_view line = text.substr(at, end - at);
    const std::size_t number = std::min(opening.size(), line.size());
    std::int64_t found = 0;
    if (line.substr(0, number) != opening || !from_text(line.substr(number, line.find_first_of(",}") - number), found))
      return Error{"it exists and is no metrics file (byte " + std::to_string(at) + ")"};
    if (found > step) break;
    at = end + 1;
  }
  return at;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
