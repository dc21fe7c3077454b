// The numbers of a config by their names in a file: metadata of GGUF, members of a config.json.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/core/fields.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera {

/// A JSON object with the words of Gguf; a member that is null is not there.
class JsonFields {
 public:
  explicit JsonFields(Json object) : object_(object) {}

  bool has(std::string_view key) const;
  bool is_null(std::string_view key) const;
  Result<std::int64_t> integer(std::string_view key) const { return object_.integer_at(key); }
  Result<double> number(std::string_view key) const;
  Result<bool> boolean(std::string_view key) const { return object_.boolean_at(key); }
  Result<std::string> text(std::string_view key) const { return object_.string_at(key); }
  Result<std::vector<std::string>> texts(std::string_view key) const {
    return list<std::string>(key, [](const Json& item) { return item.string(); });
  }
  Result<std::vector<std::int64_t>> integers(std::string_view key) const {
    return list<std::int64_t>(key, [](const Json& item) { return item.integer(); });
  }
  Result<std::vector<double>> numbers(std::string_view key) const {
    return list<double>(key,
                        [](const Json& item) { return item.is(Json::Kind::object) ? tagged(item) : item.number(); });
  }
  /// The members of a member; none if it is not there or has none. An error if it is no object.
  Result<std::optional<JsonFields>> object(std::string_view key) const;
  /// The name of the first member that is an object itself; empty if none is.
  std::string first_object() const;

 private:
  template <class T, class Read>
  Result<std::vector<T>> list(std::string_view key, Read read) const {
    const auto array = object_.at(key, Json::Kind::array);
    if (!array) return array.error();
    std::vector<T> values;
    for (const Json& item : array->elements()) {
      auto value = read(item);
      if (!value)
        return Error{"\"" + std::string(key) + "\": item " + std::to_string(values.size()) +
                     " is not what was expected, found " + std::string(item.text().substr(0, 40))};
      values.push_back(std::move(*value));
    }
    return values;
  }
  /// What transformers 5 writes for numbers that JSON has no word for: {"__float__": "Infinity"}.
  static std::optional<double> tagged(const Json& item);

  Json object_;
};

/// Reads what a config needs; every number is held against its bounds. After the first error, which `status` keeps,
/// what is read is the lower bound or nothing.
template <class File>
class FileFields {
 public:
  /// All keys get that prefix.
  explicit FileFields(const File& file, std::string prefix = "") : file_(file), prefix_(std::move(prefix)) {}

  const Result<void>& status() const { return status_; }
  bool has(std::string_view key) const { return file_.has(prefix_ + std::string(key)); }

  /// From `low` to `high`; a key that is not there must have another meaning: `otherwise`.
  int integer(std::string_view key, int low, int high, std::optional<int> otherwise = std::nullopt) {
    if (otherwise && !has(key)) return *otherwise;
    const auto value = file_.integer(prefix_ + std::string(key));
    if (!value) return fail(value.error()), low;
    return bounded(key, *value, low, high);
  }

  float number(std::string_view key, double low, double high, std::optional<double> otherwise = std::nullopt) {
    if (otherwise && !has(key)) return static_cast<float>(*otherwise);
    const auto value = file_.number(prefix_ + std::string(key));
    if (!value) return fail(value.error()), static_cast<float>(low);
    return bounded_number(key, *value, low, high);
  }

  bool boolean(std::string_view key, bool otherwise) {
    if (!has(key)) return otherwise;
    const auto value = file_.boolean(prefix_ + std::string(key));
    if (!value) return fail(value.error()), otherwise;
    return *value;
  }

  std::string text(std::string_view key, std::string_view otherwise) {
    if (!has(key)) return std::string(otherwise);
    const auto value = file_.text(prefix_ + std::string(key));
    if (!value) return fail(value.error()), std::string(otherwise);
    return std::string(*value);
  }

  std::vector<std::string> texts(std::string_view key) {
    const auto value = file_.texts(prefix_ + std::string(key));
    if (!value) return fail(value.error()), std::vector<std::string>{};
    return {value->begin(), value->end()};
  }

  /// One number for each of `count` layers: a list of so many, or one number for all.
  std::vector<int> per_layer(std::string_view key, int count, int low, int high) {
    const std::string name = prefix_ + std::string(key);
    if (const auto one = file_.integer(name); one)
      return std::vector<int>(static_cast<std::size_t>(count), bounded(key, *one, low, high));
    const auto list = file_.integers(name);
    if (!list) return fail(list.error()), std::vector<int>(static_cast<std::size_t>(count), low);
    demand(list->size() == static_cast<std::size_t>(count), name + ": expected one number for each of " +
                                                                std::to_string(count) + " layers, found " +
                                                                std::to_string(list->size()));
    std::vector<int> values(static_cast<std::size_t>(count), low);
    for (std::size_t i = 0; status_ && i < values.size(); ++i) values[i] = bounded(key, (*list)[i], low, high);
    return values;
  }

  /// The one value of all layers that have one (not 0).
  int common(const std::vector<int>& values, std::string_view key) {
    int value = 0;
    for (const int v : values) {
      demand(v == 0 || value == 0 || v == value, std::string(key) + ": expected the same number in all layers, found " +
                                                     std::to_string(value) + " and " + std::to_string(v));
      if (v != 0) value = v;
    }
    return value;
  }

  /// `count` numbers from `low` to `high`.
  std::vector<float> numbers(std::string_view key, std::size_t count, double low, double high) {
    const auto list = file_.numbers(prefix_ + std::string(key));
    if (!list) return fail(list.error()), std::vector<float>(count, static_cast<float>(low));
    demand(list->size() == count, prefix_ + std::string(key) + ": expected " + std::to_string(count) +
                                      " numbers, found " + std::to_string(list->size()));
    std::vector<float> values(count, static_cast<float>(low));
    for (std::size_t i = 0; status_ && i < count; ++i) values[i] = bounded_number(key, (*list)[i], low, high);
    return values;
  }

  void demand(bool holds, std::string message) {
    if (!holds) fail(Error{std::move(message)});
  }

  /// A key that would change results in a way that no model here has, unless it is not there, or all that it says is
  /// among `neutral` (false: 0, true: 1).
  void demand_neutral(std::string_view key, std::initializer_list<double> neutral) {
    if (!has(key)) return;
    const std::string name = prefix_ + std::string(key);
    std::vector<double> found;
    if (const auto number = file_.number(name))
      found = {*number};
    else if (const auto flag = file_.boolean(name))
      found = {*flag ? 1. : 0.};
    else if (const auto numbers = file_.numbers(name))
      found = *numbers;
    else if (const auto flags = file_.integers(name))
      found.assign(flags->begin(), flags->end());
    else
      return fail(
          Error{name + ": expected " + to_text(*neutral.begin()) + ", for models with others are not known here"});
    for (const double value : found)
      demand(std::any_of(neutral.begin(), neutral.end(),
                         [&](double n) { return std::fabs(value - n) <= 1e-6 * std::fabs(n); }),
             name + ": expected " + to_text(*neutral.begin()) + ", found " + to_text(value) +
                 ": models with it are not known here");
  }

 private:
  void fail(Error error) {
    if (status_) status_ = std::move(error);
  }
  int bounded(std::string_view key, std::int64_t value, int low, int high) {
    demand(value >= low && value <= high, prefix_ + std::string(key) + ": expected a number from " +
                                              std::to_string(low) + " to " + std::to_string(high) + ", found " +
                                              std::to_string(value));
    return value >= low && value <= high ? static_cast<int>(value) : low;
  }
  float bounded_number(std::string_view key, double value, double low, double high) {
    const bool good = value >= low && value <= high;  // false for NaN
    demand(good, prefix_ + std::string(key) + ": expected a number from " + to_text(low) + " to " + to_text(high) +
                     ", found " + to_text(value));
    return static_cast<float>(good ? value : low);
  }

  const File& file_;
  std::string prefix_;
  Result<void> status_;
};

/// Bounds of what a file may say; broken_rule holds the rest against one another.
struct FileLimits {
  static constexpr int vocab = 1 << 24, width = most_columns, context = 1 << 24, heads = 1 << 12;
};

/// The config, if everything could be read and a model can have these numbers.
template <class File>
Result<Config> checked_config(const Config& c, const FileFields<File>& fields) {
  if (!fields.status()) return fields.status().error();
  if (const char* broken = broken_rule(c)) return Error{std::string("no model can have these numbers: ") + broken};
  return c;
}

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION bool JsonFields::has(std::string_view key) const {
  const auto member = object_.find(key);
  return member && !member->is(Json::Kind::null);
}

CHIMERA_FUNCTION bool JsonFields::is_null(std::string_view key) const {
  const auto member = object_.find(key);
  return member && member->is(Json::Kind::null);
}

CHIMERA_FUNCTION Result<double> JsonFields::number(std::string_view key) const {
  const auto member = object_.find(key);
  const auto value = member ? tagged(*member) : std::nullopt;
  if (value) return *value;
  return object_.number_at(key);
}

CHIMERA_FUNCTION std::optional<double> JsonFields::tagged(const Json& item) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto tag = item.find("__float__");
  const std::string word = tag ? tag->string().value_or("") : "";
  if (word == "Infinity") return infinity;
  if (word == "-Infinity") return -infinity;
  if (word == "NaN") return std::numeric_limits<double>::quiet_NaN();
  return std::nullopt;
}

CHIMERA_FUNCTION Result<std::optional<JsonFields>> JsonFields::object(std::string_view key) const {
  if (!has(key)) return std::optional<JsonFields>();
  const auto member = object_.at(key, Json::Kind::object);
  if (!member) return member.error();
  if (member->members().begin() == member->members().end()) return std::optional<JsonFields>();
  return std::optional(JsonFields(*member));
}

CHIMERA_FUNCTION std::string JsonFields::first_object() const {
  for (const Json::Member& m : object_.members())
    if (m.value.is(Json::Kind::object)) return m.key.string().value_or("");
  return "";
}

}  // namespace chimera
#endif
