#include <chimera/core/device.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <vector>

using namespace chimera;

TEST_CASE("parallel calls every index once, on a worker that exists") {
  for (int threads : {1, 2, 5}) {
    auto q = Cpu::create(threads);
    REQUIRE(q);
    for (std::int64_t count : {0, 1, 2, 3, 1'000}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
      std::atomic<bool> worker_exists = true;
      parallel(*q, count, [&](std::int64_t i, int worker) {
        ++calls[static_cast<std::size_t>(i)];
        if (worker < 0 || worker >= q->threads()) worker_exists = false;
      });
      for (const auto& c : calls) CHECK(c == 1);
      CHECK(worker_exists);
    }
  }
}

TEST_CASE("many short runs in a row keep their order") {
  auto q = Cpu::create(3);
  REQUIRE(q);
  std::vector<int> values(64, 0);
  for (int round = 0; round < 2'000; ++round)
    parallel(*q, 64, [&](std::int64_t i, int) { ++values[static_cast<std::size_t>(i)]; });
  for (int v : values) CHECK(v == 2'000);
}

TEST_CASE("runs follow each other without a task lost or done twice, with more threads than processors") {
  struct Run {
    std::vector<std::atomic<int>> calls;
    static void task(void* self, std::int64_t i, int) {
      if (i % 5 == 0) platform::seconds();  // of different length
      ++static_cast<Run*>(self)->calls[static_cast<std::size_t>(i)];
    }
  };
  ThreadTeam team(6, 6);
  for (int round = 0; round < 3'000; ++round) {
    const std::int64_t count = round % 41;
    Run run{std::vector<std::atomic<int>>(static_cast<std::size_t>(count))};  // gone when a late thread comes
    team.run(count, Run::task, &run);
    for (const auto& c : run.calls) CHECK(c == 1);
  }
}

TEST_CASE("a worker begins with a stretch of its own, the same in every run") {
  struct Run {
    std::atomic<std::int64_t> first{-1};  // task of the other worker
    static void task(void* self, std::int64_t i, int worker) {
      std::atomic<std::int64_t>& first = static_cast<Run*>(self)->first;
      std::int64_t none = -1;
      if (worker == 1) first.compare_exchange_strong(none, i);
      const double begin = platform::seconds();  // the caller waits in its first, but not for a thread that has no time
      while (i == 0 && first < 0 && platform::seconds() < begin + 1) {
      }
    }
  };
  ThreadTeam team(2, 2);
  for (const std::int64_t count : {2, 3, 64, 1001}) {
    Run run;
    team.run(count, Run::task, &run);
    if (run.first >= 0) CHECK(run.first == count / 2);
  }
}

TEST_CASE("a team wakes no more threads than the process may use, and none for a single one") {
  const auto used_of = [](ThreadTeam& team) {
    std::vector<std::atomic<int>> tasks(static_cast<std::size_t>(team.threads()));
    for (int round = 0; round < 200; ++round)
      team.run(
          64,
          [](void* all, std::int64_t, int worker) {
            ++(*static_cast<std::vector<std::atomic<int>>*>(all))[static_cast<std::size_t>(worker)];
          },
          &tasks);
    return std::count_if(tasks.begin(), tasks.end(), [](const auto& n) { return n > 0; });
  };
  ThreadTeam two(5, 2), one(5, 1);
  CHECK(two.threads() == 5);
  CHECK(used_of(two) <= 2);
  CHECK(used_of(one) == 1);
  CHECK(two.at_once() == 2);
  CHECK(Cpu::create(64)->at_once() <= platform::processors());
}

TEST_CASE("the caller waits for no thread that has no task in its hands") {
  // The first task of the second thread never ends while the first has work: the caller does all the others.
  struct Run {
    std::atomic<int> done{0}, held{-1};
    static void task(void* self, std::int64_t, int worker) {
      auto& r = *static_cast<Run*>(self);
      int nobody = -1;
      if (worker != 0 && r.held.compare_exchange_strong(nobody, worker))
        while (r.done.load() < 99) platform::seconds();
      ++r.done;
    }
  } run;
  ThreadTeam team(3, 3);
  team.run(100, Run::task, &run);
  CHECK(run.done == 100);
}

TEST_CASE("little work is done by the caller alone") {
  auto q = Cpu::create(4);
  REQUIRE(q);
  int plain = 0;  // as no other thread touches it, no atomic
  parallel(*q, 1'000, std::int64_t{1'000}, [&](std::int64_t, int worker) { plain += 1 + worker; });
  CHECK(plain == 1'000);
  std::atomic<int> shared = 0;
  parallel(*q, 1'000, std::int64_t{1} << 40, [&](std::int64_t, int) { ++shared; });
  CHECK(shared == 1'000);
}

TEST_CASE("each worker has scratch of its own") {
  auto q = Cpu::create(3);
  REQUIRE(q);
  for (int i = 0; i < q->threads(); ++i) {
    constexpr std::int64_t size = Cpu::scratch_bytes / std::int64_t{sizeof(float)};
    CHECK((i + 1 < q->threads() ? q->scratch(i + 1) : q->shared()) - q->scratch(i) == size);
    q->scratch(i)[0] = q->scratch(i)[size - 1] = 1.f;
  }
  q->shared()[Cpu::shared_floats - 1] = 1.f;
}

TEST_CASE("a host's own job system runs the tasks") {
  struct Host {
    int runs = 0;
    static void run(void* self, std::int64_t count, TaskFunction task, void* context) {
      ++static_cast<Host*>(self)->runs;
      for (std::int64_t i = count; i-- > 0;) task(context, i, static_cast<int>(i % 2));
    }
  } host;
  auto q = Cpu::create(Executor{2, &Host::run, &host});
  REQUIRE(q);
  CHECK(q->threads() == 2);
  int sum = 0;
  parallel(*q, 10, [&](std::int64_t i, int) { sum += static_cast<int>(i); });
  CHECK(sum == 45);
  CHECK(host.runs == 1);
}

TEST_CASE("a device that cannot be is an error") {
  CHECK(Cpu::create(-1).error().message.find("found -1") != std::string::npos);
  CHECK_FALSE(Cpu::create(Executor{}).ok());
}

#if !defined(CHIMERA_ISA)  // which is the level whatever is asked for
TEST_CASE("the instruction level can be lowered, never raised") {
  auto q = Cpu::create(1);
  REQUIRE(q);
  const Isa best = q->isa();
  for (const Isa isa : all_levels)
    if (isa >= best) {
      q->limit(isa);
      CHECK(q->isa() == best);
    }
  q->limit(Isa::base);
  CHECK(q->isa() == Isa::base);
  q->limit(Isa::avx2);
  CHECK(q->isa() == Isa::base);
}
#endif
