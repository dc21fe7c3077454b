#include <chimera/io/tensorboard.hpp>

#include "../temporary_folder.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

using namespace chimera;

namespace {

/// An event as an independent reader of the format sees it.
struct Event {
  double wall_time = 0;
  std::int64_t step = 0;
  std::string file_version;
  std::map<std::string, float> scalars;
  bool session_start = false;
};

/// CRC-32C bit by bit, from its polynomial.
std::uint32_t plain_crc32c(const std::string& bytes) {
  std::uint32_t crc = ~0u;
  for (char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
  }
  return ~crc;
}

template <class T>
T take(std::string& bytes) {
  REQUIRE(bytes.size() >= sizeof(T));
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  bytes.erase(0, sizeof value);
  return value;
}

std::uint64_t take_varint(std::string& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto b = take<unsigned char>(bytes);
    value |= static_cast<std::uint64_t>(b & 127) << shift;
    if (b < 128) return value;
  }
}

std::string take_bytes(std::string& bytes) {
  const std::uint64_t n = take_varint(bytes);
  REQUIRE(n <= bytes.size());
  std::string part = bytes.substr(0, n);
  bytes.erase(0, n);
  return part;
}

void check_masked(std::uint32_t masked, const std::string& bytes) {
  const std::uint32_t crc = plain_crc32c(bytes);
  CHECK(masked == ((crc >> 15) | (crc << 17)) + 0xa282ead8u);
}

Event decode(std::string bytes) {
  Event e;
  while (!bytes.empty()) {
    switch (take_varint(bytes)) {
      case 1 << 3 | 1: e.wall_time = take<double>(bytes); break;
      case 2 << 3 | 0: e.step = static_cast<std::int64_t>(take_varint(bytes)); break;
      case 3 << 3 | 2: e.file_version = take_bytes(bytes); break;
      case 5 << 3 | 2: {
        std::string summary = take_bytes(bytes);
        while (!summary.empty()) {
          REQUIRE(take_varint(summary) == (1 << 3 | 2));
          std::string value = take_bytes(summary), tag;
          while (!value.empty()) switch (take_varint(value)) {
              case 1 << 3 | 2: tag = take_bytes(value); break;
              case 2 << 3 | 5: e.scalars[tag] = take<float>(value); break;
              default: FAIL("unknown field of a value");
            }
        }
        break;
      }
      case 7 << 3 | 2: {
        std::string session = take_bytes(bytes);
        CHECK(session == std::string("\x08\x01"));
        e.session_start = true;
        break;
      }
      default: FAIL("unknown field of an event");
    }
  }
  return e;
}

std::vector<Event> read_events(const std::string& path) {
  std::string file = read_file(path);
  std::vector<Event> events;
  while (!file.empty()) {
    const std::string length_bytes = file.substr(0, 8);
    const auto length = take<std::uint64_t>(file);
    check_masked(take<std::uint32_t>(file), length_bytes);
    REQUIRE(length <= file.size());
    const std::string event = file.substr(0, length);
    file.erase(0, length);
    check_masked(take<std::uint32_t>(file), event);
    events.push_back(decode(event));
  }
  return events;
}

}  // namespace

TEST_CASE("events are what an independent decoder reads") {
  TemporaryFolder folder;
  auto file = EventFile::create(folder.path);
  REQUIRE(file);
  CHECK(file->path().find("events.out.tfevents.") != std::string::npos);
  REQUIRE(file->write(1, {{"train/loss", 5.5}, {"train/rate", 1e-3}}).ok());
  REQUIRE(file->write(3'000'000'000, {{"validation/loss", -0.25}}).ok());
  const auto events = read_events(file->path());
  REQUIRE(events.size() == 3);
  CHECK(events[0].file_version == "brain.Event:2");
  CHECK(events[1].step == 1);
  CHECK(events[1].scalars == std::map<std::string, float>{{"train/loss", 5.5f}, {"train/rate", 1e-3f}});
  CHECK(events[2].step == 3'000'000'000);
  CHECK(events[2].scalars.at("validation/loss") == -0.25f);
  CHECK(events[2].wall_time >= events[1].wall_time);
  CHECK(events[1].wall_time > 1.6e9);
}

TEST_CASE("a value that is not finite is written as it is") {
  TemporaryFolder folder;
  auto file = EventFile::create(folder.path);
  REQUIRE(file->write(1, {{"a", std::nan("")}, {"b", std::numeric_limits<double>::infinity()}, {"c", 1e300}}).ok());
  const auto scalars = read_events(file->path())[1].scalars;
  CHECK(std::isnan(scalars.at("a")));
  CHECK(std::isinf(scalars.at("b")));
  CHECK(std::isinf(scalars.at("c")));
}

TEST_CASE("a resumed run opens another file and marks where it starts") {
  TemporaryFolder folder;
  auto first = EventFile::create(folder.path), second = EventFile::create(folder.path, 20);
  REQUIRE(first);
  REQUIRE(second);
  CHECK(first->path() != second->path());
  const auto events = read_events(second->path());
  CHECK(events[1].session_start);
  CHECK(events[1].step == 21);
}

TEST_CASE("a folder that cannot be written to is an error") {
  CHECK(EventFile::create("/nowhere").error().message.find("cannot write /nowhere/") != std::string::npos);
}

TEST_CASE("the real tensorboard package reads the events") {
  if (std::system("python3 -c 'import tensorboard' >/dev/null 2>&1") != 0) {
    MESSAGE("SKIPPED: python3 has no tensorboard package");
    return;
  }
  TemporaryFolder folder;
  {
    auto first = EventFile::create(folder.path);
    for (int step = 1; step <= 30; ++step) REQUIRE(first->write(step, {{"train/loss", 1.0 / step}}).ok());
    auto second = EventFile::create(folder.path, 20);
    for (int step = 21; step <= 40; ++step) REQUIRE(second->write(step, {{"train/loss", step}}).ok());
  }
  const std::string script =
      write_file(folder / "read.py",
                 "import sys\n"
                 "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
                 "a = EventAccumulator(sys.argv[1]); a.Reload()\n"
                 "s = a.Scalars('train/loss')\n"
                 "assert [e.step for e in s] == list(range(1, 41)), s\n"
                 "assert s[19].value == 0.05 or abs(s[19].value - 0.05) < 1e-7, s[19]\n"
                 "assert [e.value for e in s[20:]] == list(range(21, 41)), s\n");
  CHECK(std::system(("python3 " + script + " " + folder.path + " 2>/dev/null").c_str()) == 0);
}
