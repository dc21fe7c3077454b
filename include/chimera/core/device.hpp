// The CPU as a device: an instruction level, a thread team, and scratch memory for each thread.
#pragma once

#include <chimera/core/isa.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

namespace chimera {

/// A unit of parallel work: run(context, index, worker), with 0 <= index < count and 0 <= worker < threads.
using TaskFunction = void (*)(void* context, std::int64_t index, int worker);

/// A host's own job system: run `count` tasks on at most `threads` workers and return when all are done.
struct Executor {
  int threads = 1;
  void (*run)(void* self, std::int64_t count, TaskFunction task, void* context) = nullptr;
  void* self = nullptr;
};

/// Threads that take tasks, beside the caller, who takes tasks, too, and waits for no thread that has none. Each takes
/// first from a stretch of its own, then helps others: what a worker wrote in one run is in its caches when it comes to
/// the same part in the next, and lines do not wander between processors. A thread that the system lets wait costs no
/// more than the task in its hands. Where that happens all the same, the caller works alone for a while, and longer if
/// it happens again: other programs want the processors. Threads spin for some microseconds after work, then sleep. No
/// more are woken than the process has processors.
/// One caller at a time; a task must not start another run.
class ThreadTeam {
 public:
  /// Starts threads - 1 workers; fewer if the system refuses, so `threads()` may be lower than asked.
  explicit ThreadTeam(int threads, int processors = platform::processors()) {
    for (int i = 1; i < threads && threads_ < max_threads; ++i) {
      Worker& w = workers_[threads_];
      w.team = this, w.index = threads_;
      w.thread = {&ThreadTeam::serve, &w};
      if (!platform::start(w.thread)) break;
      ++threads_;
    }
    awake_ = std::min(threads_, processors);
  }
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;
  ~ThreadTeam() {
    stop_.store(true);
    for (int i = 1; i < threads_; ++i) wake(workers_[i]), platform::join(workers_[i].thread);
  }

  int threads() const { return threads_; }
  /// Threads that run at the same time: no more than there are processors.
  int at_once() const { return awake_; }

  void run(std::int64_t count, TaskFunction task, void* context) {
    if (awake_ == 1 || count <= 1 || alone()) {
      for (std::int64_t i = 0; i < count; ++i) task(context, i, 0);
      return;
    }
    task_ = task, context_ = context;
    unfinished_.store(count, std::memory_order_relaxed);
    for (int i = 0; i < awake_; ++i) {
      workers_[i].next.store(count * i / awake_, std::memory_order_relaxed);
      workers_[i].end = count * (i + 1) / awake_;
    }
    left_.store(count);  // before `asleep` is read: a worker that falls asleep sees the tasks or is seen
    for (int i = 1; i < awake_ && i < count; ++i) wake(workers_[i]);
    take(0);
    for (int spin = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spin) {
      if (spin >= spins) return wait();
      pause();
    }
  }

 private:
  static constexpr int max_threads = 256;
  static constexpr int spins = 4096;  // about 50 us with `pause`: longer than the gap between two kernels of a layer
  static constexpr double shortest_rest = 1e-3, longest_rest = 0.25;  // seconds

  struct Worker {
    ThreadTeam* team = nullptr;
    int index = 0;
    platform::Thread thread{};
    std::int64_t preemptions = 0;
    alignas(64) std::atomic<int> asleep{0};
    alignas(64) std::atomic<std::int64_t> next{0};  // task of its stretch
    std::int64_t end = 0;                           // of the stretch
  };

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");  // as long as x86's pause; most processors pass over `yield`
#endif
  }

  static void wake(Worker& w) {
    if (w.asleep.load() != 0 && w.asleep.exchange(0) != 0) w.asleep.notify_one();
  }

  /// Takes tasks until none is left, and says how many are done. What a run's tasks are is read once one of them is
  /// taken: until it is done, the run lasts.
  void take(int worker) {
    std::int64_t done = 0;
    for (std::int64_t left = left_.load(std::memory_order_acquire); left > 0;) {
      if (!left_.compare_exchange_weak(left, left - 1, std::memory_order_acquire)) continue;
      task_(context_, next_task(worker), worker);
      ++done;
      left = left_.load(std::memory_order_acquire);
    }
    if (done == 0) return;
    if (late_.load(std::memory_order_relaxed)) confess(workers_[worker]);
    if (unfinished_.fetch_sub(done, std::memory_order_acq_rel) == done && worker != 0) unfinished_.notify_one();
  }

  /// The next task of the worker's stretch, or else of another's: there is one for each that was taken from `left_`.
  std::int64_t next_task(int worker) {
    for (int i = worker;; i = i + 1 < awake_ ? i + 1 : 0) {
      Worker& w = workers_[i];
      for (std::int64_t at = w.next.load(std::memory_order_relaxed); at < w.end;)
        if (w.next.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) return at;
    }
  }

  /// A worker for which the caller waits says whether it did not run all the time.
  void confess(Worker& w) {
    const std::int64_t preemptions = platform::preemptions();
    if (preemptions > w.preemptions) preempted_.store(true, std::memory_order_relaxed);
    w.preemptions = preemptions;
  }

  /// Asleep until the last task is done.
  void wait() {
    late_.store(true, std::memory_order_relaxed);
    for (std::int64_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;)
      unfinished_.wait(left, std::memory_order_acquire);
    late_.store(false, std::memory_order_relaxed);
    if (!preempted_.exchange(false, std::memory_order_relaxed)) return;
    const double now = platform::seconds();
    rest_ = now - rest_end_ > 8 * rest_ ? shortest_rest : std::min(2 * rest_, longest_rest);
    rest_end_ = now + rest_;
    resting_ = true;
  }

  bool alone() {
    if (resting_) resting_ = platform::seconds() < rest_end_;
    return resting_;
  }

  static void serve(void* self) {
    auto& w = *static_cast<Worker*>(self);
    ThreadTeam& t = *w.team;
    while (!t.stop_.load(std::memory_order_relaxed)) {
      int spin = 0;
      while (spin < spins && t.left_.load(std::memory_order_relaxed) <= 0) pause(), ++spin;
      if (spin < spins) {
        t.take(w.index);
        continue;
      }
      w.asleep.store(1);
      if (t.left_.load() > 0 || t.stop_.load()) w.asleep.store(0);
      while (w.asleep.load(std::memory_order_acquire) != 0) w.asleep.wait(1, std::memory_order_acquire);
      w.preemptions = platform::preemptions();
    }
  }

  Worker workers_[max_threads];
  int threads_ = 1, awake_ = 1;
  alignas(64) std::atomic<std::int64_t> left_{0};        // tasks that nobody has taken
  alignas(64) std::atomic<std::int64_t> unfinished_{0};  // that are not done
  std::atomic<bool> late_{false}, preempted_{false}, stop_{false};
  TaskFunction task_ = nullptr;
  void* context_ = nullptr;
  double rest_ = 0, rest_end_ = 0;  // how long, and until when the caller works alone
  bool resting_ = false;
};

/// What large products of training round their inputs to. Sums are f32.
enum class Precision : std::uint8_t { f32, bf16 };

/// What layers, models and trainers are written for, once: kernels are overloads on their first argument, the device.
/// Kernels, upload and download come in the order of their calls, and may still be under way when a call returns; what
/// upload reads may change then.
template <class D>
concept Device = requires(const D& q, std::size_t bytes, void* to, const void* from) {
  typename D::Real;                                                   // of activations, and of matrices in products
  typename D::Memory;                                                 // has data(), f32, and bytes()
  { D::shares_memory } -> std::convertible_to<bool>;                  // the host reads and writes it, too
  { q.allocate(bytes) } -> std::same_as<Result<typename D::Memory>>;  // zeroed
  q.upload(to, from, bytes);                                          // from the host
  q.download(to, from, bytes);                                        // to the host
  { q.finish() } -> std::same_as<Result<void>>;                       // waits for all; the first error that there was
  { q.with(Precision::f32) } -> std::same_as<D>;                      // the same device, with products of a precision
};

/// The device of this file. Cheap to pass by reference; one user at a time; many may live in one process.
class Cpu {
 public:
  using Real = float;
  using Memory = Buffer;
  static constexpr bool shares_memory = true;

  /// Bytes of private scratch for each worker: packed GEMM panels, attention and scan tiles.
  static constexpr std::int64_t scratch_bytes = std::int64_t{2} << 20;
  /// f32 of scratch shared by a team: the packed right-hand side of one large product.
  static constexpr std::size_t shared_floats = std::size_t{3} << 20;

  /// threads 0: one for each processor that the process may use.
  static Result<Cpu> create(int threads = 0) {
    if (threads < 0)
      return Error{"threads must be 0 (one for each processor) or more, found " + std::to_string(threads)};
    if (threads == 0) threads = platform::processors();
    Cpu cpu;
    cpu.team_.reset(new (std::nothrow) ThreadTeam(threads));
    if (!cpu.team_) return Error{"out of memory for a team of " + std::to_string(threads) + " threads"};
    const auto run = [](void* team, std::int64_t count, TaskFunction task, void* context) {
      static_cast<ThreadTeam*>(team)->run(count, task, context);
    };
    cpu.executor_ = {.threads = cpu.team_->threads(), .run = run, .self = cpu.team_.get()};
    cpu.own_ = cpu.team_.get();
    return with_scratch(std::move(cpu));
  }

  /// Runs on the host's threads instead of its own.
  static Result<Cpu> create(Executor executor) {
    if (executor.threads < 1 || !executor.run) return Error{"an executor needs a run function and at least one thread"};
    Cpu cpu;
    cpu.executor_ = executor;
    return with_scratch(std::move(cpu));
  }

  /// The level of the kernels: CHIMERA_ISA where that is the only one compiled (kernels/simd.hpp).
  Isa isa() const {
#if defined(CHIMERA_ISA)
    return Isa::CHIMERA_ISA;
#else
    return isa_;
#endif
  }
  int threads() const { return executor_.threads; }
  /// Threads that run at the same time: for so many work is divided.
  int at_once() const { return own_ ? own_->at_once() : executor_.threads; }
  Precision precision() const { return precision_; }
  float* scratch(int worker) const { return memory_ + scratch_floats * worker; }
  float* shared() const { return scratch(threads()); }

  /// Lowers (never raises) the instruction level to the best that the processor runs: how tests run every variant.
  void limit(Isa isa) { isa_ = best_isa(isa < isa_ ? isa : isa_); }

  /// This device with products of another precision. It has no threads and no memory of its own: one of the two works
  /// at a time, and this one lives longer.
  Cpu with(Precision precision) const {
    Cpu cpu;
    cpu.isa_ = isa_, cpu.precision_ = precision, cpu.executor_ = executor_, cpu.own_ = own_, cpu.memory_ = memory_;
    return cpu;
  }

  Result<Buffer> allocate(std::size_t bytes) const { return Buffer::of_bytes(bytes); }
  void upload(void* to, const void* from, std::size_t bytes) const { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) const { std::memcpy(to, from, bytes); }
  Result<void> finish() const { return {}; }

  /// By way of a pointer, so that a team wakes and sleeps in the code that started it: a library that was compiled
  /// apart has a table of sleepers of its own, in which nobody sleeps.
  void run(std::int64_t count, TaskFunction task, void* context) const {
    executor_.run(executor_.self, count, task, context);
  }

 private:
  static constexpr std::int64_t scratch_floats = scratch_bytes / std::int64_t{sizeof(float)};

  Cpu() = default;
  static Result<Cpu> with_scratch(Cpu cpu) {
    auto buffer = Buffer::create(static_cast<std::size_t>(scratch_floats * cpu.threads()) + shared_floats);
    if (!buffer) return buffer.error();
    cpu.scratch_.reset(new (std::nothrow) Buffer(std::move(*buffer)));
    if (!cpu.scratch_) return Error{"out of memory for scratch buffers"};
    cpu.memory_ = cpu.scratch_->data();
    return cpu;
  }

  Isa isa_ = detect_isa();
  std::unique_ptr<ThreadTeam> team_;
  std::unique_ptr<Buffer> scratch_;
  Executor executor_;
  const ThreadTeam* own_ = nullptr;  // of team_, or lent; null: the host's threads
  float* memory_ = nullptr;          // of scratch_, or lent
  Precision precision_ = Precision::f32;
};

/// Calls f(index, worker) for every index in [0, count), in parallel and in no order. Results must not depend on the
/// order or on the worker: that keeps them equal, bit for bit, for every number of threads.
template <class F>
void parallel(const Cpu& q, std::int64_t count, F&& f) {
  using Function = std::remove_reference_t<F>;
  q.run(
      count, [](void* context, std::int64_t index, int worker) { (*static_cast<Function*>(context))(index, worker); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

/// The same for tasks that go over about so many bytes, all together: few are gone over by the caller alone before
/// another thread would have come.
template <class F>
void parallel(const Cpu& q, std::int64_t count, std::int64_t bytes, F&& f) {
  constexpr std::int64_t few = std::int64_t{128}
                               << 10;  // about 10 us, of which another thread's coming takes one or two
  if (bytes >= few) return parallel(q, count, f);
  for (std::int64_t i = 0; i < count; ++i) f(i, 0);
}

}  // namespace chimera
