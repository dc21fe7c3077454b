// Aligned memory that fails with a Result, never with an exception.
#pragma once

#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>

namespace chimera {

/// Alignment of every buffer and of every tensor in an arena, in bytes: one cache line, one AVX-512 register.
inline constexpr std::size_t alignment = 64;

/// `bytes` rounded up so that what follows starts on `alignment`.
constexpr std::size_t aligned_bytes(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

/// `count` rounded up so that the next f32 tensor starts on `alignment`.
constexpr std::size_t aligned_floats(std::size_t count) { return (count + 15) / 16 * 16; }

/// Of x86 and AArch64, in bytes: what the system offers for large tables.
inline constexpr std::size_t huge_page = std::size_t{2} << 20;

/// A block of f32, zeroed, 64-byte aligned; a large one on huge pages where the system offers them, and in memory only
/// as far as it was touched.
class Buffer {
 public:
  Buffer() = default;

  static Result<Buffer> create(std::size_t floats) {
    if (floats > (SIZE_MAX - 2 * huge_page) / sizeof(float))
      return Error{"cannot address " + std::to_string(floats) + " floats"};
    const bool large = floats >= huge_page / sizeof(float);
    const std::size_t unit = large ? huge_page : alignment, bytes = (floats * sizeof(float) + unit - 1) / unit * unit;
    Buffer b;
    b.size_ = floats;
    if (bytes == 0) return b;
    b.data_ = large ? Pages(map(bytes), Free(bytes)) : Pages(static_cast<float*>(std::aligned_alloc(unit, bytes)));
    if (!b.data_) return Error{"out of memory: " + std::to_string(bytes >> 20) + " MiB were asked for"};
    if (!large) std::memset(b.data_.get(), 0, bytes);
    return b;
  }

  /// At least so many bytes, for what is not f32, or not alone.
  static Result<Buffer> of_bytes(std::size_t bytes) {
    return create(bytes / sizeof(float) + (bytes % sizeof(float) != 0));
  }

  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::byte* bytes() { return reinterpret_cast<std::byte*>(data()); }

 private:
  struct Free {
    std::size_t mapped;  // bytes; 0: from the heap
    Free() : mapped(0) {}
    explicit Free(std::size_t bytes) : mapped(bytes) {}
    void operator()(float* p) const {
      if (mapped > 0)
        platform::unmap(p, mapped);
      else
        std::free(p);
    }
  };
  using Pages = std::unique_ptr<float, Free>;

  /// Zeros from the system, aligned to huge pages; null if there are none.
  static float* map(std::size_t bytes) {
    void* const data = platform::map(bytes, huge_page);
    if (data) platform::advise(data, bytes, platform::PageSize::large);
    return static_cast<float*>(data);
  }

  Pages data_;
  std::size_t size_ = 0;
};

/// For a part of a Buffer of which little may ever be touched: it comes in small pages, so that memory is taken, and
/// cleared, only where it is. Nothing of it may have been touched yet. The large page in which it begins stays whole.
inline void keep_sparse(void* data, std::size_t bytes) {
  constexpr std::uintptr_t page = 4096;
  const auto first = (reinterpret_cast<std::uintptr_t>(data) + huge_page - 1) / huge_page * huge_page,
             last = (reinterpret_cast<std::uintptr_t>(data) + bytes) / page * page;
  if (first < last) platform::advise(reinterpret_cast<void*>(first), last - first, platform::PageSize::base);
}

/// For vectors that are read here and there: large ones come on huge pages where the system offers them, so that
/// finding an entry costs one miss of the cache and not a second one for its page.
template <class T>
struct TableAllocator {
  using value_type = T;

  TableAllocator() = default;
  template <class U>
  TableAllocator(const TableAllocator<U>&) {}

  static bool large(std::size_t n) { return n >= huge_page / 2 / sizeof(T) && n <= SIZE_MAX / 2 / sizeof(T); }

  T* allocate(std::size_t n) {
    if (!large(n)) return std::allocator<T>().allocate(n);
    const std::size_t bytes = (n * sizeof(T) + huge_page - 1) / huge_page * huge_page;
    void* data = ::operator new(bytes, std::align_val_t{huge_page});
    platform::advise(data, bytes, platform::PageSize::large);
    return static_cast<T*>(data);
  }
  void deallocate(T* data, std::size_t n) {
    if (!large(n)) return std::allocator<T>().deallocate(data, n);
    ::operator delete(static_cast<void*>(data), std::align_val_t{huge_page});
  }
  bool operator==(const TableAllocator&) const { return true; }
};

}  // namespace chimera
