// A clearing at night: a fire, a storyteller, fireflies, and a traveller who catches them. Lengths are pixels.
#pragma once

#include "terminal.hpp"

#include <chimera/core/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

class Scene {
 public:
  Scene(int width, int height)
      : width_(width),
        height_(height),
        ground_(height * 4 / 5),
        fire_x_(width * 3 / 5),
        x_(static_cast<float>(width) * 0.2f) {
    paint();
    for (Firefly& f : fireflies_) place(f);
  }

  void walk(float direction) { speed_ = 0.55f * direction; }
  void stop() { speed_ = 0; }
  void jump() {
    if (lift_ <= 0) rise_ = 1.25f;
  }

  int caught() const { return caught_; }

  /// Goes for the nearest firefly.
  void play_alone() {
    const Firefly* nearest = &fireflies_[0];
    for (const Firefly& f : fireflies_)
      if (std::abs(f.x - x_) < std::abs(nearest->x - x_)) nearest = &f;
    const float distance = nearest->x - x_;
    if (std::abs(distance) > 2)
      walk(distance > 0 ? 1.f : -1.f);
    else
      stop();
    if (std::abs(distance) < 6) jump();
  }

  /// One sixtieth of a second. True when a firefly was caught.
  bool move() {
    time_ += 1.f / 60;
    if (speed_ != 0) facing_ = speed_ > 0;
    x_ = std::clamp(x_ + speed_, 4.f, static_cast<float>(width_) - 4);
    lift_ = std::max(0.f, lift_ + rise_);
    rise_ = lift_ > 0 ? rise_ - 0.06f : 0;
    bool caught = false;
    for (Firefly& f : fireflies_) {
      f.age += 1.f / 60;
      f.x += 0.25f * std::sin(f.age * 0.9f + f.phase) + 0.05f * std::sin(f.age * 2.3f);
      f.y += 0.12f * std::cos(f.age * 1.3f + 2 * f.phase);
      const float dx = f.x - x_, dy = f.y - (static_cast<float>(ground_) - lift_ - 6);
      if (dx * dx + dy * dy > 16) continue;
      ++caught_, caught = true;
      place(f);
    }
    burn();
    return caught;
  }

  void draw(Picture& p, bool speaking) {
    const float flicker = 0.8f + 0.1f * std::sin(time_ * 11) + 0.07f * std::sin(time_ * 17 + 1) + 0.05f * noise();
    const Color fire = Color{1.f, 0.42f, 0.13f} * flicker, moon{0.10f, 0.12f, 0.2f};
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) {
        const Point& at = points_[index(x, y)];
        const float twinkle = at.star > 0 ? 0.6f + 0.4f * std::sin(time_ * (1 + 3 * at.star) + 40 * at.star) : 0;
        p.at(x, y) = at.sky + Color{0.8f, 0.85f, 1.f} * (at.star * twinkle) + at.surface * (moon + fire * at.firelight);
      }
    for (int i = 0; i < 7; ++i) p.set(fire_x_ - 3 + i, ground_ + 1, Color{0.03f, 0.015f, 0.006f});
    const auto lit = [&](int x, int y) { return moon + fire * (1.4f * points_[index(x, y)].firelight); };
    const int nod = speaking && std::sin(time_ * 9) > 0 ? 1 : 0;
    sprite(p, storyteller, fire_x_ + 9, ground_ + 1, false, lit, nod);
    const bool step = std::fmod(time_ * 6, 2.f) < 1 && speed_ != 0 && lift_ <= 0;
    sprite(p, step ? stride : stand, static_cast<int>(x_) - 2, ground_ - static_cast<int>(lift_), !facing_, lit, 0);
    draw_fire(p);
    for (const Firefly& f : fireflies_) {
      const float bright = std::min(1.f, f.age) * (0.55f + 0.45f * std::sin(f.age * 2.1f + 3 * f.phase));
      for (int y = -4; y <= 4; ++y)
        for (int x = -4; x <= 4; ++x) {
          const float near = 0.5f / (0.6f + 2 * static_cast<float>(x * x + y * y)) - 0.014f;
          p.glow(static_cast<int>(f.x) + x, static_cast<int>(f.y) + y,
                 Color{0.75f, 0.95f, 0.2f} * (bright * std::max(0.f, near)));
        }
    }
  }

  /// What is said, over the storyteller's head: the last of its lines.
  void draw_speech(Picture& p, std::string_view said) const {
    if (said.empty()) return;
    constexpr std::size_t columns = 38, most = 5;
    std::vector<std::string> lines{""};
    std::size_t used = 0;  // columns of the line at hand
    for (std::size_t at = 0; at < said.size();) {
      const std::size_t end = std::min(said.find(' ', at), said.size());
      std::string_view word = said.substr(at, end - at);
      while (!word.empty()) {
        const std::size_t letters = letters_of(word), gap = used > 0;
        if (used > 0 && used + 1 + letters > columns) lines.emplace_back(), used = 0;
        const std::string_view part = first_letters(word, columns);
        if (used > 0) lines.back() += ' ';
        lines.back().append(part);
        used = used + (used > 0 ? gap : 0) + letters_of(part);
        word.remove_prefix(part.size());
      }
      at = end + 1;
    }
    if (lines.size() > most) lines.erase(lines.begin(), lines.end() - most);
    const Color ink{0.9f, 0.8f, 0.6f}, frame{0.35f, 0.25f, 0.15f};
    const int width = static_cast<int>(columns) + 4, rows = static_cast<int>(lines.size()) + 2;
    const int left = std::clamp(fire_x_ + 13 - width / 2, 0, p.columns() - width);
    const int top = std::max(0, (ground_ - 12) / 2 - rows);
    std::string bar;
    for (int i = 0; i < width - 2; ++i) bar += "─";
    p.write(left, top, "╭" + bar + "╮", frame);
    p.write(left, top + rows - 1, "╰" + bar + "╯", frame);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const int row = top + 1 + static_cast<int>(i);
      p.write(left, row, "│" + std::string(columns + 2, ' ') + "│", frame);
      p.write(left + 2, row, lines[i], ink);
    }
  }

 private:
  struct Point {
    Color sky, surface;  // what shines, and how much of the light that falls on it comes back
    float firelight = 0, star = 0;
  };
  struct Firefly {
    float x = 0, y = 0, phase = 0, age = 0;
  };
  using Sprite = std::array<std::string_view, 10>;

  static constexpr Sprite storyteller{"...rrrr...s", "..rrrrrr..s", "..effrrr..s", "..ffwrrrr.s", "..wwwwrrr.s",
                                      "..wwwrrrrrs", ".rwwrrrrrrf", ".rrrrrrrrrs", "rrrrrrrrrrs", "rrrrrrrrrrs"};
  static constexpr Sprite stand{"", "", ".hhh.", ".hff.", ".fff.", "cccc.", "cccf.", ".ccc.", ".b.b.", ".b.b."};
  static constexpr Sprite stride{"", "", ".hhh.", ".hff.", ".fff.", "cccc.", "ccfc.", ".ccc.", "bb.b.", "b..bb"};

  static Color color_of(char c) {
    switch (c) {
      case 'r': return {0.30f, 0.10f, 0.35f};
      case 'f': return {0.80f, 0.50f, 0.35f};
      case 'e': return {0.02f, 0.02f, 0.02f};
      case 'w': return {0.85f, 0.85f, 0.80f};
      case 's': return {0.35f, 0.22f, 0.10f};
      case 'h': return {0.35f, 0.18f, 0.05f};
      case 'c': return {0.10f, 0.35f, 0.45f};
      default: return {0.15f, 0.10f, 0.06f};
    }
  }

  static std::size_t letters_of(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
  }
  static std::string_view first_letters(std::string_view text, std::size_t n) {
    std::size_t end = 0;
    for (; end < text.size(); ++end)
      if ((text[end] & 0xC0) != 0x80 && n-- == 0) break;
    return text.substr(0, end);
  }

  std::size_t index(int x, int y) const {
    x = std::clamp(x, 0, width_ - 1), y = std::clamp(y, 0, height_ - 1);
    return static_cast<std::size_t>(y) * static_cast<std::size_t>(width_) + static_cast<std::size_t>(x);
  }
  float noise() { return random_.uniform(-1.f, 1.f); }

  void place(Firefly& f) {
    f.x = random_.uniform(6.f, static_cast<float>(width_) - 6);
    f.y = static_cast<float>(ground_) - random_.uniform(6.f, 17.f);
    f.phase = random_.uniform(0.f, 6.f), f.age = 0;
  }

  /// What does not move.
  void paint() {
    points_.resize(static_cast<std::size_t>(width_) * static_cast<std::size_t>(height_));
    const float w = static_cast<float>(width_), h = static_cast<float>(height_), g = static_cast<float>(ground_);
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) {
        Point& at = points_[index(x, y)];
        const float fx = static_cast<float>(x), fy = static_cast<float>(y), grain = random_.uniform();
        const float down = fy / h;
        at.sky = mix({0.003f, 0.005f, 0.018f}, {0.03f, 0.022f, 0.055f}, down * down * 1.4f);
        if (random_.uniform() < 0.02f) at.star = random_.uniform() * random_.uniform();
        const float mx = fx - w * 0.14f, my = fy - h * 0.2f, far = mx * mx + my * my;
        const float crater = std::sin(mx * 1.3f + 1) * std::sin(my * 1.7f) > 0.5f ? 0.75f : 1.f;
        at.sky = at.sky + Color{0.05f, 0.06f, 0.09f} * (30 / (30 + far));
        if (far < 20) at.sky = Color{0.75f, 0.75f, 0.62f} * crater, at.star = 0;
        const float hill = g - 9 - 4 * std::sin(fx * 0.05f + 1) - 2 * std::sin(fx * 0.13f);
        if (fy > hill) at.sky = {0.006f, 0.008f, 0.018f}, at.star = 0;
        if (fy > g) {
          at.sky = {}, at.star = 0;
          at.surface = mix({0.06f, 0.14f, 0.05f}, {0.13f, 0.24f, 0.07f}, grain) * (0.5f + 0.5f * (fy - g) / (h - g));
        }
        const float dx = fx - static_cast<float>(fire_x_), dy = 1.3f * (fy - g + 2);
        at.firelight = 3.f / (1 + (dx * dx + dy * dy) / 60);
      }
    for (int i = 0; i < width_ / 9; ++i) plant_tree(random_.uniform(0.f, w), random_.uniform(14.f, 26.f));
  }

  /// A fir; none where the fire is.
  void plant_tree(float x, float size) {
    if (std::abs(x - static_cast<float>(fire_x_)) < 24) return;
    for (int y = 0; y < static_cast<int>(size); ++y) {
      const float fy = static_cast<float>(y), layer = std::fmod(fy, 5.f) / 5;
      const int half = static_cast<int>((fy / size + 0.35f * layer) * size * 0.24f);
      for (int dx = -half; dx <= half; ++dx) {
        const int px = static_cast<int>(x) + dx, py = ground_ + 1 - static_cast<int>(size) + y;
        if (px < 0 || px >= width_ || py < 0) continue;
        Point& at = points_[index(px, py)];
        at.sky = {0.002f, 0.004f, 0.004f}, at.star = 0;
        at.surface = Color{0.03f, 0.08f, 0.04f} * (0.5f + 0.5f * random_.uniform());
      }
    }
  }

  /// Heat rises, cools and drifts.
  void burn() {
    if (++tick_ % 3 != 0) return;
    for (int x = 0; x < heat_width; ++x) {
      const float middle = 1 - std::abs(static_cast<float>(x) - 6) / 7;
      heat(x, heat_height - 1) = std::clamp(middle * 1.5f + 0.35f * noise(), 0.f, 1.f);
    }
    for (int y = 0; y + 1 < heat_height; ++y)
      for (int x = 0; x < heat_width; ++x) {
        const int from = std::clamp(x + static_cast<int>(std::lround(1.2f * noise())), 0, heat_width - 1);
        heat(x, y) = std::max(0.f, heat(from, y + 1) - 0.13f * random_.uniform());
      }
  }
  float& heat(int x, int y) { return heat_[static_cast<std::size_t>(y) * heat_width + static_cast<std::size_t>(x)]; }
  void draw_fire(Picture& p) {
    for (int y = 0; y < heat_height; ++y)
      for (int x = 0; x < heat_width; ++x)
        if (const float t = heat(x, y); t > 0.08f)
          p.glow(fire_x_ - 6 + x, ground_ + 1 - heat_height + y,
                 Color{1.3f * t, 1.1f * t * t * t, 0.5f * t * t * t * t * t});
  }

  template <class Light>
  void sprite(Picture& p, const Sprite& rows, int left, int bottom, bool mirrored, Light light, int nod) {
    for (int r = 0; r < static_cast<int>(rows.size()); ++r) {
      const std::string_view row = rows[static_cast<std::size_t>(r)];
      const int wide = static_cast<int>(row.size());
      for (int c = 0; c < wide; ++c) {
        const char letter = row[static_cast<std::size_t>(mirrored ? wide - 1 - c : c)];
        const int x = left + c, y = bottom - static_cast<int>(rows.size()) + 1 + r + (r < 5 && letter != 's' ? nod : 0);
        if (letter != '.') p.set(x, y, color_of(letter) * light(x, y));
      }
    }
  }

  static constexpr int heat_width = 13, heat_height = 12;

  int width_, height_, ground_, fire_x_;
  std::vector<Point> points_;
  chimera::Random random_{7, 1, 0};
  std::array<Firefly, 7> fireflies_{};
  std::array<float, heat_width * heat_height> heat_{};
  int tick_ = 0, caught_ = 0;
  float time_ = 0, x_, lift_ = 0, speed_ = 0, rise_ = 0;
  bool facing_ = true;
};
