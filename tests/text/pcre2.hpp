// Regular expressions of PCRE2, as an independent reader of the patterns that our scanners implement by hand.
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

class Pcre2 {
 public:
  explicit Pcre2(std::string_view pattern) {
    int error = 0;
    PCRE2_SIZE at = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error,
                          &at, nullptr);
    if (code_ != nullptr) pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);
    match_ = pcre2_match_data_create(1, nullptr);
  }
  Pcre2(const Pcre2&) = delete;
  Pcre2& operator=(const Pcre2&) = delete;
  ~Pcre2() {
    pcre2_match_data_free(match_);
    pcre2_code_free(code_);
  }

  bool ok() const { return code_ != nullptr; }

  /// All matches in turn, as views of `text`.
  std::vector<std::string_view> find_all(std::string_view text) const {
    std::vector<std::string_view> found;
    for (std::size_t at = 0; at < text.size();) {
      if (pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK, match_,
                      nullptr) < 0)
        break;
      const PCRE2_SIZE* place = pcre2_get_ovector_pointer(match_);
      found.push_back(text.substr(place[0], place[1] - place[0]));
      at = place[1];
    }
    return found;
  }

 private:
  pcre2_code* code_ = nullptr;
  pcre2_match_data* match_ = nullptr;
};

/// The pieces of a text by expressions that stand a line each: every one cuts what those before it left, and keeps what
/// it does not match.
class Pcre2Rules {
 public:
  explicit Pcre2Rules(std::string_view lines) {
    for (std::size_t end; !lines.empty(); lines.remove_prefix(std::min(end + 1, lines.size()))) {
      end = std::min(lines.find('\n'), lines.size());
      stages_.push_back(std::make_unique<Pcre2>(lines.substr(0, end)));
    }
  }

  bool ok() const {
    return std::all_of(stages_.begin(), stages_.end(), [](const auto& stage) { return stage->ok(); });
  }

  std::vector<std::string_view> pieces(std::string_view text) const {
    std::vector<std::string_view> all{text};
    if (text.empty()) all.clear();
    for (const auto& stage : stages_) {
      std::vector<std::string_view> next;
      for (const std::string_view piece : all) {
        const char* at = piece.data();
        const auto add = [&](const char* end) {
          if (end > at) next.emplace_back(at, static_cast<std::size_t>(end - at));
          at = end;
        };
        for (const std::string_view match : stage->find_all(piece)) add(match.data()), add(match.data() + match.size());
        add(piece.data() + piece.size());
      }
      all = std::move(next);
    }
    return all;
  }

 private:
  std::vector<std::unique_ptr<Pcre2>> stages_;
};
