// The loss curve of a run: as an SVG file, and as a drawing for a terminal.
#pragma once

#include "numbers.hpp"

#include <chimera/core/fields.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

struct CurvePoint {
  std::int64_t step;
  double loss;
};

struct Curve {
  std::vector<CurvePoint> train, validation;
  // What it is of: their names in a metrics file, and what stands beside the axis, which is logarithmic or not.
  std::string_view train_name = "loss", validation_name = "validation_loss", axis = "loss (nats per token)";
  bool logarithmic = true;

  static Curve of_rewards() { return {{}, {}, "reward", "held_out_reward", "reward", false}; }

  std::int64_t last_step() const { return train.empty() ? 1 : std::max<std::int64_t>(1, train.back().step); }

  /// What a metrics file of the trainer holds; lines without either are passed over.
  void read(std::string_view json_lines) {
    const auto key = [](std::string_view name) { return "\"" + std::string(name) + "\":"; };
    const std::string train_key = key(train_name), validation_key = key(validation_name);
    while (!json_lines.empty()) {
      const std::string_view line = json_lines.substr(0, json_lines.find('\n'));
      json_lines.remove_prefix(std::min(json_lines.size(), line.size() + 1));
      double step = 0, value = 0;
      if (!number(line, "\"step\":", step)) continue;
      if (number(line, train_key, value)) train.push_back({static_cast<std::int64_t>(step), value});
      if (number(line, validation_key, value)) validation.push_back({static_cast<std::int64_t>(step), value});
    }
  }

 private:
  static bool number(std::string_view line, std::string_view key, double& value) {
    const std::size_t at = line.find(key);
    if (at == std::string_view::npos) return false;
    const std::string_view rest = line.substr(at + key.size());
    return chimera::from_text(rest.substr(0, rest.find_first_of(",}")), value);
  }
};

/// Training losses of neighbouring steps taken together.
struct CurveBin {
  double step = 0, mean = 0, low = 0, high = 0;
};

inline std::vector<CurveBin> binned(const std::vector<CurvePoint>& points, std::size_t most) {
  std::vector<CurveBin> bins;
  const std::size_t each = std::max<std::size_t>(1, (points.size() + most - 1) / most);
  for (std::size_t first = 0; first < points.size(); first += each) {
    CurveBin bin{.low = INFINITY, .high = -INFINITY};
    double count = 0;
    for (std::size_t i = first; i < std::min(points.size(), first + each); ++i) {
      const auto& [step, loss] = points[i];
      if (!std::isfinite(loss)) continue;
      ++count, bin.step += static_cast<double>(step), bin.mean += loss;
      bin.low = std::min(bin.low, loss), bin.high = std::max(bin.high, loss);
    }
    if (count > 0) bin.step /= count, bin.mean /= count, bins.push_back(bin);
  }
  return bins;
}

/// The losses that a drawing must show; never empty.
struct LossRange {
  double low = INFINITY, high = -INFINITY;
  bool logarithmic;

  LossRange(const std::vector<CurveBin>& train, const std::vector<CurvePoint>& validation, bool logs)
      : logarithmic(logs) {
    for (const CurveBin& b : train) include(b.low), include(b.high);
    for (const CurvePoint& p : validation) include(p.loss);
    if (low > high) low = 1, high = 2;
    if (!logarithmic) {
      const double some = std::max(0.01, 0.03 * (high - low));
      low -= some, high += some;
      return;
    }
    const double room = std::max(1.01, std::pow(high / low, 0.03));
    low /= room, high *= room;
  }

  /// 0 at the lowest loss, 1 at the highest, logarithmic or linear between.
  double height(double loss) const {
    if (!logarithmic) return (loss - low) / (high - low);
    return std::log(std::max(loss, 1e-6) / low) / std::log(high / low);
  }

 private:
  void include(double loss) {
    if (!std::isfinite(loss)) return;
    if (logarithmic) loss = std::max(loss, 1e-6);
    low = std::min(low, loss), high = std::max(high, loss);
  }
};

/// 1, 2 or 5 times a power of ten: about `count` of them cover `span`.
inline double nice_step(double span, double count) {
  const double raw = span / count, power = std::pow(10, std::floor(std::log10(raw)));
  return power * (raw / power < 1.5 ? 1 : raw / power < 3.5 ? 2 : raw / power < 7.5 ? 5 : 10);
}

/// Loss values to label: even steps on a narrow range, round numbers on a wide one.
inline std::vector<double> loss_ticks(const LossRange& range) {
  std::vector<double> ticks;
  if (!range.logarithmic || range.high < 3 * range.low) {
    const double step = nice_step(range.high - range.low, 6);
    for (double n = std::ceil(range.low / step); n * step <= range.high; ++n) ticks.push_back(n * step);
    return ticks;
  }
  const bool wide = range.high > 30 * range.low;
  const std::vector<double> digits =
      wide ? std::vector<double>{1, 2, 5} : std::vector<double>{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8};
  for (double power = std::pow(10, std::floor(std::log10(range.low))); power <= range.high; power *= 10)
    for (const double digit : digits)
      if (digit * power >= range.low && digit * power <= range.high) ticks.push_back(digit * power);
  return ticks;
}

inline std::string xml_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '&')
      out += "&amp;";
    else if (static_cast<unsigned char>(c) >= 32)
      out += c;
  }
  return out;
}

/// Steps against loss, both splits, on a logarithmic loss axis. Training losses are a line of means in a band from
/// the least to the greatest.
inline std::string loss_svg(const Curve& curve, std::string_view title, std::string_view subtitle) {
  constexpr double width = 920, height = 540, left = 72, right = 136, top = 76, bottom = 58;
  constexpr double plot_width = width - left - right, plot_height = height - top - bottom;
  const std::vector<CurveBin> train = binned(curve.train, 240);
  const LossRange range(train, curve.validation, curve.logarithmic);
  const auto x = [&](double step) { return left + plot_width * step / static_cast<double>(curve.last_step()); };
  const auto y = [&](double loss) { return top + plot_height * (1 - range.height(loss)); };
  const auto point = [&](double step, double loss) { return formatted("%.1f,%.1f ", x(step), y(loss)); };

  std::string svg =
      formatted("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\">\n", width,
                height, width, height);
  svg += R"(<style>
svg { background: #ffffff; font: 13px system-ui, sans-serif; fill: #3f3f46 }
.title { font-size: 18px; font-weight: 600; fill: #18181b }
.grid { stroke: #e4e4e7 } .axis { stroke: #a1a1aa }
.band { fill: #3b82f6; opacity: .18 } .train { stroke: #2563eb; stroke-width: 2; fill: none }
.validation { stroke: #ea580c; stroke-width: 2; fill: none } .dot { fill: #ea580c }
.train-name { fill: #2563eb; font-weight: 600 } .validation-name { fill: #ea580c; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  svg { background: #18181b; fill: #a1a1aa } .title { fill: #f4f4f5 } .grid { stroke: #3f3f46 } .axis { stroke: #71717a }
  .train { stroke: #60a5fa } .train-name { fill: #60a5fa }
  .validation { stroke: #fb923c } .validation-name, .dot { fill: #fb923c }
}
</style>
)";
  const auto text = [&](double at_x, double at_y, std::string_view look, std::string_view content) {
    svg += formatted("<text x=\"%.1f\" y=\"%.1f\" ", at_x, at_y) + std::string(look) + ">" + xml_text(content) +
           "</text>\n";
  };
  text(left, 34, "class=\"title\"", title);
  text(left, 56, "", subtitle);

  for (const double tick : loss_ticks(range)) {
    svg += formatted("<path class=\"grid\" d=\"M%g %.1fH%g\"/>\n", left, y(tick), left + plot_width);
    text(left - 10, y(tick) + 4, "text-anchor=\"end\"", formatted("%.4g", tick));
  }
  const double step_tick = std::max(1.0, nice_step(static_cast<double>(curve.last_step()), 6));
  for (double step = 0; step <= static_cast<double>(curve.last_step()); step += step_tick) {
    svg += formatted("<path class=\"grid\" d=\"M%.1f %gV%g\"/>\n", x(step), top, top + plot_height);
    text(x(step), top + plot_height + 20, "text-anchor=\"middle\"", grouped(static_cast<std::int64_t>(step)));
  }
  svg += formatted("<path class=\"axis\" fill=\"none\" d=\"M%g %gV%gH%g\"/>\n", left, top, top + plot_height,
                   left + plot_width);
  text(left + plot_width / 2, height - 14, "text-anchor=\"middle\"", "step");
  svg +=
      formatted("<text transform=\"translate(20 %.1f) rotate(-90)\" text-anchor=\"middle\">", top + plot_height / 2) +
      std::string(curve.axis) + "</text>\n";

  std::string band, line;
  for (const CurveBin& b : train) band += point(b.step, b.high), line += point(b.step, b.mean);
  for (auto b = train.rbegin(); b != train.rend(); ++b) band += point(b->step, b->low);
  svg += "<polygon class=\"band\" points=\"" + band + "\"/>\n<polyline class=\"train\" points=\"" + line + "\"/>\n";

  // The names stand where the lines end, a line of text apart.
  double train_name = train.empty() ? top : y(train.back().mean), validation_name = train_name;
  std::string validation;
  for (const auto& [step, loss] : curve.validation) {
    if (!std::isfinite(loss)) continue;
    validation += point(static_cast<double>(step), loss), validation_name = y(loss);
    svg +=
        formatted("<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", x(static_cast<double>(step)), y(loss));
  }
  if (!validation.empty()) {
    svg += "<polyline class=\"validation\" points=\"" + validation + "\"/>\n";
    if (const double gap = 18 - std::abs(train_name - validation_name); gap > 0) {
      const double side = train_name < validation_name ? gap / 2 : -gap / 2;
      train_name -= side, validation_name += side;
    }
    text(left + plot_width + 8, validation_name + 4, "class=\"validation-name\"",
         formatted("validation %.3f", curve.validation.back().loss));
  }
  if (!train.empty())
    text(left + plot_width + 8, train_name + 4, "class=\"train-name\"", formatted("train %.3f", train.back().mean));
  return svg + "</svg>\n";
}

/// The training losses in braille dots, two by four to a character.
inline std::string loss_chart(const Curve& curve) {
  constexpr std::size_t columns = 64, rows = 10;
  const std::vector<CurveBin> bins = binned(curve.train, 2 * columns);
  if (bins.size() < 2) return "";
  std::vector<CurvePoint> means(bins.size());
  std::transform(bins.begin(), bins.end(), means.begin(), [](const CurveBin& b) { return CurvePoint{0, b.mean}; });
  const LossRange range({}, means, curve.logarithmic);
  std::array<std::array<unsigned, columns>, rows> cells{};
  const auto dot = [&](std::size_t at_x, std::size_t at_y) {
    constexpr unsigned bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    cells[at_y / 4][at_x / 2] |= bits[at_y % 4][at_x % 2];
  };
  std::size_t before = 0;
  for (std::size_t at_x = 0; at_x < 2 * columns; ++at_x) {
    const CurveBin& b = bins[at_x * bins.size() / (2 * columns)];
    const std::size_t at_y = static_cast<std::size_t>(std::lround((1 - range.height(b.mean)) * (4 * rows - 1)));
    if (at_x == 0) before = at_y;
    for (std::size_t i = std::min(before, at_y); i <= std::max(before, at_y); ++i) dot(at_x, i);
    before = at_y;
  }
  std::string chart;
  for (std::size_t row = 0; row < rows; ++row) {
    const double label = row == 0 ? range.high : range.low;
    chart += row == 0 || row + 1 == rows ? formatted("%8.3f ", label) : std::string(9, ' ');
    for (const unsigned cell : cells[row]) {  // U+2800 + cell, in UTF-8
      chart += '\xE2';
      chart += static_cast<char>(0xA0 + (cell >> 6));
      chart += static_cast<char>(0x80 + (cell & 63));
    }
    chart += '\n';
  }
  const std::string last = grouped(curve.last_step());
  return chart + formatted("%10s", "1") +
         std::string(columns - 1 - std::min<std::size_t>(columns - 1, last.size()), ' ') + last + '\n';
}
