// A device's memory as the host sees it.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/result.hpp>

#include <cstddef>
#include <span>
#include <utility>

namespace chimera {

/// A piece of a device's memory: itself, where the host shares it, and else a copy that `fetch` and `send` renew.
template <Device D>
class HostView {
 public:
  static Result<HostView> create(void* memory, std::size_t bytes) {
    HostView v;
    v.memory_ = static_cast<std::byte*>(memory), v.bytes_ = bytes;
    if constexpr (!D::shares_memory) {
      auto copy = Buffer::of_bytes(bytes);
      if (!copy) return copy.error();
      v.copy_ = std::move(*copy);
    }
    return v;
  }

  std::span<std::byte> bytes() { return {D::shares_memory ? memory_ : copy_.bytes(), bytes_}; }
  float* floats() { return reinterpret_cast<float*>(bytes().data()); }

  /// Brings what kernels wrote to the host, and waits for it.
  Result<void> fetch(const D& q) {
    if constexpr (!D::shares_memory) q.download(copy_.bytes(), memory_, bytes_);
    return q.finish();
  }
  /// Brings what the host wrote to the device.
  void send(const D& q) {
    if constexpr (!D::shares_memory) q.upload(memory_, copy_.bytes(), bytes_);
  }

 private:
  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
  Buffer copy_;
};

}  // namespace chimera
