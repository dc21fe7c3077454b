// Figures of measurements as SVG files: a table as a heat map, and lines over lengths.
#pragma once

#include "curve.hpp"
#include "numbers.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plots_parts {

/// A figure that is begun; `text` and `svg` add to it, `end` is the whole.
struct Figure {
  std::string svg;

  Figure(double width, double height) {
    svg = formatted("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\">\n",
                    width, height, width, height);
    svg += R"(<style>
svg { background: #ffffff; font: 13px system-ui, sans-serif; fill: #3f3f46 }
.title { font-size: 18px; font-weight: 600; fill: #18181b }
.grid { stroke: #e4e4e7 } .axis { stroke: #a1a1aa; fill: none } .line { stroke: #2563eb; stroke-width: 2; fill: none }
.dot { fill: #2563eb } .on-dark { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  svg { background: #18181b; fill: #a1a1aa } .title { fill: #f4f4f5 } .grid { stroke: #3f3f46 } .axis { stroke: #71717a }
  .line { stroke: #60a5fa } .dot { fill: #60a5fa }
}
</style>
)";
  }
  void text(double x, double y, std::string_view look, std::string_view content) {
    svg += formatted("<text x=\"%.1f\" y=\"%.1f\" ", x, y) + std::string(look) + ">" + xml_text(content) + "</text>\n";
  }
  std::string end() { return svg + "</svg>\n"; }
};

}  // namespace plots_parts

/// Shares from 0 to 1: `values` [rows, columns].
struct HeatMap {
  std::string title, down, across;  // what it shows, and what rows and columns are
  std::vector<std::string> rows, columns;
  std::vector<double> values;

  double value(std::size_t row, std::size_t column) const { return values[row * columns.size() + column]; }
  double mean(std::size_t row) const {
    double sum = 0;
    for (std::size_t c = 0; c < columns.size(); ++c) sum += value(row, c);
    return sum / static_cast<double>(columns.size());
  }
};

/// The same as lines of text, with the mean of each row.
inline std::string table_of(const HeatMap& map) {
  std::string text = formatted("%10s", map.down.c_str());
  for (const std::string& column : map.columns) text += formatted("%8s", column.c_str());
  text += formatted("%8s\n", "mean");
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    text += formatted("%10s", map.rows[r].c_str());
    for (std::size_t c = 0; c < map.columns.size(); ++c) text += formatted("%8.2f", map.value(r, c));
    text += formatted("%8.2f\n", map.mean(r));
  }
  return text;
}

inline std::string heat_map_svg(const HeatMap& map) {
  constexpr double left = 92, top = 76, cell_width = 72, cell_height = 40, bottom = 58;
  const double wide = cell_width * static_cast<double>(map.columns.size()),
               high = cell_height * static_cast<double>(map.rows.size());
  plots_parts::Figure figure(std::max(left + wide + 24, 420.), top + high + bottom);
  figure.text(left, 34, "class=\"title\"", map.title);
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    const double y = top + cell_height * static_cast<double>(r);
    figure.text(left - 10, y + cell_height / 2 + 4, "text-anchor=\"end\"", map.rows[r]);
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      const double x = left + cell_width * static_cast<double>(c), share = map.value(r, c);
      const auto mix = [&](double from, double to) {
        return static_cast<int>(std::lround(from + share * (to - from)));
      };
      figure.svg += formatted("<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" fill=\"#%02x%02x%02x\"/>\n", x, y,
                              cell_width - 2, cell_height - 2, mix(0xE4, 0x1D), mix(0xE4, 0x4E), mix(0xE7, 0xD8));
      figure.text(x + cell_width / 2 - 1, y + cell_height / 2 + 4,
                  share > 0.5 ? "text-anchor=\"middle\" class=\"on-dark\"" : "text-anchor=\"middle\" fill=\"#3f3f46\"",
                  formatted("%.2f", share));
    }
  }
  for (std::size_t c = 0; c < map.columns.size(); ++c)
    figure.text(left + cell_width * (static_cast<double>(c) + 0.5) - 1, top + high + 18, "text-anchor=\"middle\"",
                map.columns[c]);
  figure.text(left + wide / 2, top + high + 42, "text-anchor=\"middle\"", map.across);
  figure.text(left - 10, top - 10, "text-anchor=\"end\"", map.down);
  return figure.end();
}

/// A line over x, which is logarithmic; all x are above 0 and ascend.
struct LinePlot {
  std::string title, subtitle, down, across;
  std::vector<std::pair<double, double>> points;
};

inline std::string line_svg(const LinePlot& plot) {
  constexpr double width = 920, height = 540, left = 72, right = 40, top = 76, bottom = 58;
  constexpr double wide = width - left - right, high = height - top - bottom;
  double low = INFINITY, most = -INFINITY, first = 1, last = 1;
  for (const auto& [x, y] : plot.points) low = std::min(low, y), most = std::max(most, y);
  if (!plot.points.empty()) first = plot.points.front().first, last = plot.points.back().first;
  if (!(low < most)) low = plot.points.empty() ? 0 : low - 0.5, most = low + 1;
  if (!(first < last)) last = 2 * first;
  const double room = 0.05 * (most - low);
  low -= room, most += room;
  const auto at_x = [&](double x) { return left + wide * std::log(x / first) / std::log(last / first); };
  const auto at_y = [&](double y) { return top + high * (most - y) / (most - low); };
  plots_parts::Figure figure(width, height);
  figure.text(left, 34, "class=\"title\"", plot.title);
  figure.text(left, 56, "", plot.subtitle);
  const double step = nice_step(most - low, 6);
  for (double n = std::ceil(low / step); n * step <= most; ++n) {
    figure.svg += formatted("<path class=\"grid\" d=\"M%g %.1fH%g\"/>\n", left, at_y(n * step), left + wide);
    figure.text(left - 10, at_y(n * step) + 4, "text-anchor=\"end\"", formatted("%.4g", n * step));
  }
  for (double x = std::exp2(std::ceil(std::log2(first))); x <= last; x *= 2) {
    figure.svg += formatted("<path class=\"grid\" d=\"M%.1f %gV%g\"/>\n", at_x(x), top, top + high);
    figure.text(at_x(x), top + high + 20, "text-anchor=\"middle\"", grouped(std::llround(x)));
  }
  figure.svg += formatted("<path class=\"axis\" d=\"M%g %gV%gH%g\"/>\n", left, top, top + high, left + wide);
  figure.text(left + wide / 2, height - 14, "text-anchor=\"middle\"", plot.across);
  figure.svg +=
      formatted("<text transform=\"translate(20 %.1f) rotate(-90)\" text-anchor=\"middle\">", top + high / 2) +
      xml_text(plot.down) + "</text>\n";
  std::string line;
  for (const auto& [x, y] : plot.points) {
    line += formatted("%.1f,%.1f ", at_x(x), at_y(y));
    figure.svg += formatted("<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", at_x(x), at_y(y));
  }
  figure.svg += "<polyline class=\"line\" points=\"" + line + "\"/>\n";
  return figure.end();
}
