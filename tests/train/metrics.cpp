#include <chimera/train/metrics.hpp>

#include "../temporary_folder.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace chimera;

TEST_CASE("a line is one JSON object") {
  TemporaryFolder folder;
  auto log = MetricsLog::open(folder / "m.jsonl", 0);
  REQUIRE(log);
  REQUIRE(log->write(1, {{"loss", 2.5}, {"rate", 1e-3}}).ok());
  CHECK(read_file(folder / "m.jsonl") == "{\"step\":1,\"loss\":2.5,\"rate\":0.001}\n");
  REQUIRE(log->write(2, {{"loss", std::nan("")}, {"norm", std::numeric_limits<double>::infinity()}}).ok());
  REQUIRE(log->write(3, {}).ok());
  CHECK(read_file(folder / "m.jsonl") ==
        "{\"step\":1,\"loss\":2.5,\"rate\":0.001}\n{\"step\":2,\"loss\":null,\"norm\":null}\n{\"step\":3}\n");
}

TEST_CASE("a resumed run cuts off what came after its checkpoint, and what a crash left unfinished") {
  TemporaryFolder folder;
  const std::string path = folder / "m.jsonl";
  {
    auto log = MetricsLog::open(path, 0);
    for (int step = 1; step <= 9; ++step) REQUIRE(log->write(step, {{"loss", step * 0.5}}).ok());
  }
  write_file(path, read_file(path) + "{\"step\":10,\"lo");
  {
    auto log = MetricsLog::open(path, 100);
    REQUIRE(log);
    const std::string whole = read_file(path);
    CHECK(whole.ends_with("{\"step\":9,\"loss\":4.5}\n"));
  }
  auto log = MetricsLog::open(path, 2);
  REQUIRE(log);
  REQUIRE(log->write(3, {{"loss", 7}}).ok());
  CHECK(read_file(path) == "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":1}\n{\"step\":3,\"loss\":7}\n");
  CHECK(MetricsLog::open(path, 0).ok());
  CHECK(read_file(path).empty());
}

TEST_CASE("a file of other content is left alone") {
  TemporaryFolder folder;
  for (const char* content : {"notes\n", "{\"step\":x}\n", "\n", "{\"step\":1}\n[]\n", "{\"step\":\n"}) {
    const auto log = MetricsLog::open(write_file(folder / "m", content), 100);
    REQUIRE_FALSE(log.ok());
    CHECK(log.error().message.find("no metrics file") != std::string::npos);
    CHECK(read_file(folder / "m") == content);
  }
}

TEST_CASE("a log that cannot be written says so") {
  CHECK_FALSE(MetricsLog::open("/nowhere/m.jsonl", 0).ok());
  auto full = MetricsLog::open("/dev/full", 0);
  REQUIRE(full);
  const Status s = full->write(1, {{"loss", 1}});
  REQUIRE_FALSE(s.ok());
  CHECK(s.error().message == "cannot write /dev/full: No space left on device");
}
