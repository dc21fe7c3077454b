// A named number at some step of a run: what metrics files and TensorBoard hold.
#pragma once

#include <chimera/core/version.hpp>

#include <string_view>
#include <type_traits>

namespace chimera {

struct Metric {
  std::string_view name;  // letters, digits, '_', '/': no character that JSON would escape
  double value;

  template <class Number>
    requires std::is_arithmetic_v<Number>
  constexpr Metric(std::string_view n, Number v) : name(n), value(static_cast<double>(v)) {}
};

}  // namespace chimera
