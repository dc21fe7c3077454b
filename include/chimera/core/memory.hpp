// Aligned memory that fails with a Result, never with an exception.
#pragma once

#include <chimera/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace chimera {

/// Alignment of every buffer and of every tensor in an arena, in bytes: one cache line, one AVX-512 register.
inline constexpr std::size_t alignment = 64;

/// `count` rounded up so that the next f32 tensor starts on `alignment`.
constexpr std::size_t aligned_floats(std::size_t count) { return (count + 15) / 16 * 16; }

/// A block of f32, zeroed, 64-byte aligned; on huge pages where the system offers them.
class Buffer {
 public:
  Buffer() = default;

  static Result<Buffer> create(std::size_t floats) {
    constexpr std::size_t huge_page = std::size_t{2} << 20;
    const bool large = floats >= huge_page / sizeof(float);
    const std::size_t unit = large ? huge_page : alignment;
    if (floats > (SIZE_MAX - unit) / sizeof(float))
      return Error{"cannot address " + std::to_string(floats) + " floats"};
    const std::size_t bytes = (floats * sizeof(float) + unit - 1) / unit * unit;
    Buffer b;
    b.size_ = floats;
    if (bytes == 0) return b;
    b.data_.reset(static_cast<float*>(std::aligned_alloc(unit, bytes)));
    if (!b.data_) return Error{"out of memory: " + std::to_string(bytes >> 20) + " MiB were asked for"};
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (large) (void)madvise(b.data_.get(), bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
#endif
    std::memset(b.data_.get(), 0, bytes);
    return b;
  }

  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  std::size_t size_ = 0;
};

/// For vectors that are read here and there: large ones come on huge pages where the system offers them, so that finding
/// an entry costs one miss of the cache and not a second one for its page.
template <class T>
struct TableAllocator {
  using value_type = T;
  static constexpr std::size_t huge_page = std::size_t{2} << 20;

  TableAllocator() = default;
  template <class U>
  TableAllocator(const TableAllocator<U>&) {}

  static bool large(std::size_t n) { return n >= huge_page / 2 / sizeof(T) && n <= SIZE_MAX / 2 / sizeof(T); }

  T* allocate(std::size_t n) {
    if (!large(n)) return std::allocator<T>().allocate(n);
    const std::size_t bytes = (n * sizeof(T) + huge_page - 1) / huge_page * huge_page;
    void* data = ::operator new(bytes, std::align_val_t{huge_page});
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    (void)madvise(data, bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
#endif
    return static_cast<T*>(data);
  }
  void deallocate(T* data, std::size_t n) {
    if (!large(n)) return std::allocator<T>().deallocate(data, n);
    ::operator delete(static_cast<void*>(data), std::align_val_t{huge_page});
  }
  bool operator==(const TableAllocator&) const { return true; }
};

}  // namespace chimera
