// Event files that TensorBoard reads. Framing: TensorFlow's record format, {u64 length, u32 masked CRC-32C of the
// length, bytes, u32 masked CRC-32C of the bytes}. Content: protocol buffers of tensorflow/core/util/event.proto.
#pragma once

#include <chimera/core/checksum.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/metric.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>

#include <bit>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <initializer_list>
#include <string>
#include <string_view>

namespace chimera {

/// One run's scalars. Each call is one write, so the file is whole up to its last record after a crash.
class EventFile {
 public:
  /// Makes a new event file in the folder; TensorBoard takes all of a folder's event files as one run. What older
  /// files hold of steps after `resumed_step` is hidden.
  static Result<EventFile> create(const std::string& folder, std::int64_t resumed_step = 0);

  const std::string& path() const { return path_; }

  Result<void> write(std::int64_t step, std::initializer_list<Metric> metrics);

 private:
  template <class T>
  static std::string fixed(T bits) {
    std::string out;
    for (std::size_t i = 0; i < sizeof(T); ++i, bits = static_cast<T>(bits >> 8)) out += static_cast<char>(bits & 255);
    return out;
  }
  static std::string varint(std::uint64_t n);
  /// A field of bytes: text or a message.
  static std::string field(unsigned number, std::string_view bytes) {
    return varint(number << 3 | 2).append(varint(bytes.size())).append(bytes);
  }
  /// Event { wall_time, step }
  static std::string stamp(std::int64_t step);

  Result<void> record(const std::string& event);

  std::string path_;
  FileHandle file_;
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<EventFile> EventFile::create(const std::string& folder, std::int64_t resumed_step) {
  EventFile events;
  const std::string start = folder + "/events.out.tfevents." + std::to_string(std::time(nullptr)) + ".chimera." +
                            std::to_string(platform::process_id()) + ".";
  for (int n = 0; !events.file_.ok(); ++n) {
    events.path_ = start + std::to_string(n);
    events.file_ = FileHandle(platform::open(events.path_, platform::Access::create));
    if (!events.file_.ok() && errno != EEXIST) return file_error("write", events.path_);
  }
  if (Result<void> s = events.record(stamp(0) + field(3, "brain.Event:2")); !s) return s.error();
  const std::string session_start{"\x08\x01", 2};  // SessionLog { status: START }
  if (resumed_step > 0)
    if (Result<void> s = events.record(stamp(resumed_step + 1) + field(7, session_start)); !s) return s.error();
  return events;
}

CHIMERA_FUNCTION Result<void> EventFile::write(std::int64_t step, std::initializer_list<Metric> metrics) {
  std::string summary;
  for (const Metric& m : metrics)
    summary += field(1, field(1, m.name) + '\x15' + fixed(std::bit_cast<std::uint32_t>(static_cast<float>(m.value))));
  return record(stamp(step) + field(5, summary));
}

CHIMERA_FUNCTION std::string EventFile::varint(std::uint64_t n) {
  std::string out;
  for (; n >= 128; n >>= 7) out += static_cast<char>(n | 128);
  return out + static_cast<char>(n);
}

CHIMERA_FUNCTION std::string EventFile::stamp(std::int64_t step) {
  std::timespec t{};
  std::timespec_get(&t, TIME_UTC);
  const double seconds = static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  return '\x09' + fixed(std::bit_cast<std::uint64_t>(seconds)) + '\x10' + varint(static_cast<std::uint64_t>(step));
}

CHIMERA_FUNCTION Result<void> EventFile::record(const std::string& event) {
  const auto checksum = [](const std::string& bytes) {
    return fixed(masked_crc32c(crc32c(bytes.data(), bytes.size())));
  };
  const std::string length = fixed(static_cast<std::uint64_t>(event.size()));
  const std::string framed = length + checksum(length) + event + checksum(event);
  if (!write_all(file_.fd(), framed.data(), framed.size())) return file_error("write", path_);
  return {};
}

}  // namespace chimera
#endif
