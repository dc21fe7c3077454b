// The CPU as a device: an instruction level, a thread team, and scratch memory for each thread.
#pragma once

#include <chimera/core/isa.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>

#include <atomic>
#include <cstdint>
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

/// Threads that take tasks from a shared counter. They spin for some microseconds after work, then sleep.
/// One caller at a time; a task must not start another run.
class ThreadTeam {
 public:
  /// Starts threads - 1 workers; fewer if the system refuses, so `threads()` may be lower than asked.
  explicit ThreadTeam(int threads) {
    for (int i = 1; i < threads && threads_ < max_threads; ++i) {
      Worker& w = workers_[threads_];
      w = Worker{this, threads_, {&ThreadTeam::main, &w}};
      if (!platform::start(w.thread)) break;
      ++threads_;
    }
  }
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;
  ~ThreadTeam() {
    stop_.store(true, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    for (int i = 1; i < threads_; ++i) platform::join(workers_[i].thread);
  }

  int threads() const { return threads_; }

  void run(std::int64_t count, TaskFunction task, void* context) {
    if (threads_ == 1 || count <= 1) {
      for (std::int64_t i = 0; i < count; ++i) task(context, i, 0);
      return;
    }
    task_ = task, context_ = context, count_ = count;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(threads_ - 1, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    take(0);
    for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin) {
      if (spin < spins) {
        pause();
        continue;
      }
      if (const int left = busy_.load(std::memory_order_acquire)) busy_.wait(left, std::memory_order_acquire);
    }
  }

 private:
  static constexpr int max_threads = 256;
  static constexpr int spins = 4096;  // about 50 us with `pause`: longer than the gap between two kernels of a layer

  struct Worker {
    ThreadTeam* team = nullptr;
    int index = 0;
    platform::Thread thread;
  };

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");  // as long as x86's pause; most processors pass over `yield`
#endif
  }

  void take(int worker) {
    for (std::int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) task_(context_, i, worker);
  }

  static void main(void* self) {
    auto& w = *static_cast<Worker*>(self);
    ThreadTeam& t = *w.team;
    for (std::uint32_t seen = 0;;) {
      for (int spin = 0; t.epoch_.load(std::memory_order_acquire) == seen; ++spin) {
        if (spin < spins)
          pause();
        else
          t.epoch_.wait(seen, std::memory_order_acquire);
      }
      ++seen;
      if (t.stop_.load(std::memory_order_relaxed)) return;
      t.take(w.index);
      if (t.busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) t.busy_.notify_one();
    }
  }

  Worker workers_[max_threads];
  int threads_ = 1;
  alignas(64) std::atomic<std::uint32_t> epoch_{0};
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) std::atomic<int> busy_{0};
  std::atomic<bool> stop_{false};
  TaskFunction task_ = nullptr;
  void* context_ = nullptr;
  std::int64_t count_ = 0;
};

/// What layers are written for, once: kernels are overloads on their first argument, the device. `Real` is what it
/// holds activations in, and matrices that it multiplies.
template <class D>
concept Device = requires { typename D::Real; };

/// The device of this file. Cheap to pass by reference; one user at a time; many may live in one process.
class Cpu {
 public:
  using Real = float;

  /// Bytes of private scratch for each worker: packed GEMM panels, attention and scan tiles.
  static constexpr std::int64_t scratch_bytes = std::int64_t{2} << 20;
  /// f32 of scratch shared by a team: the packed right-hand side of one large product.
  static constexpr std::size_t shared_floats = std::size_t{3} << 20;

  /// threads 0: one for each processor.
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
  float* scratch(int worker) const { return scratch_.get()->data() + scratch_floats * worker; }
  float* shared() const { return scratch(threads()); }

  /// Lowers (never raises) the instruction level to the best that the processor runs: how tests run every variant.
  void limit(Isa isa) { isa_ = best_isa(isa < isa_ ? isa : isa_); }

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
    return cpu;
  }

  Isa isa_ = detect_isa();
  std::unique_ptr<ThreadTeam> team_;
  std::unique_ptr<Buffer> scratch_;
  Executor executor_;
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

}  // namespace chimera
