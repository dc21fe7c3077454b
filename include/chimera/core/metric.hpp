// A named number at some step of a run: what metrics files and TensorBoard hold.
#pragma once

#include <string_view>

namespace chimera {

struct Metric {
  std::string_view name;  // letters, digits, '_', '/': no character that JSON would escape
  double value;
};

}  // namespace chimera
