// Errors as values: the library throws nothing and never aborts.
#pragma once

#include <chimera/core/version.hpp>

#include <optional>
#include <string>
#include <utility>

namespace chimera {

/// What went wrong, as one sentence for a person: what was expected and what was found.
struct Error {
  std::string message;
};

/// A T, or the Error that explains why there is none. `*r` and `r->` need `r.ok()`. What is taken out of a temporary
/// is a value, so that `for (float x : *session->step(t))` and `const auto& e = f().error()` do not outlive it.
template <class T>
class [[nodiscard]] Result {
 public:
  /// Two, for nvcc moves no local variable into an argument: `return value;` has to fit T&&.
  Result(const T& value) : value_(value) {}
  Result(T&& value) : value_(std::move(value)) {}
  [[gnu::cold, gnu::noinline]] Result(Error error) : error_(std::move(error)) {}

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  const Error& error() const& { return error_; }
  Error error() && { return std::move(error_); }

 private:
  std::optional<T> value_;
  Error error_;
};

/// Success, or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  [[gnu::cold, gnu::noinline]] Result(Error error) : error_(std::move(error)) {}

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const& { return *error_; }
  Error error() && { return *std::move(error_); }

 private:
  std::optional<Error> error_;
};

#if !defined(Status)  // as Xlib defines it
using Status = Result<void>;
#endif

}  // namespace chimera
