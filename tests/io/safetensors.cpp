#include <chimera/io/safetensors.hpp>

#include "../temporary_folder.hpp"
#include "allocations.hpp"
#include "hostile.hpp"
#include "use.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace chimera;
using hostile::bytes_of;

namespace {

constexpr std::size_t most_allocated = 64 << 20;

/// Makes a file of about 4 KB with tensors of every type; gives its bytes.
std::string sample(const std::string& path) {
  SafetensorsWriter writer;
  writer.set_metadata("format", "pt");
  writer.set_metadata("note", "\"नमस्ते\"\n");
  REQUIRE(writer.add("f64", {2}, Dtype::f64).ok());
  REQUIRE(writer.add("i64", {1, 1}, Dtype::i64).ok());
  REQUIRE(writer.add("f32", {20, 30}, Dtype::f32).ok());
  REQUIRE(writer.add("i32", {}, Dtype::i32).ok());
  REQUIRE(writer.add("f16", {0, 7}, Dtype::f16).ok());
  REQUIRE(writer.add("bf16", {3}, Dtype::bf16).ok());
  REQUIRE(writer.add("i16", {2}, Dtype::i16).ok());
  REQUIRE(writer.add("i8", {5}, Dtype::i8).ok());
  REQUIRE(writer.add("u8", {6}, Dtype::u8).ok());
  REQUIRE(writer.add("bool", {7}, Dtype::boolean).ok());
  REQUIRE(writer.begin(path).ok());
  for (std::size_t bytes : {16u, 8u, 2400u, 4u, 0u, 6u, 4u, 5u, 6u, 7u}) {
    const std::string data(bytes, static_cast<char>(bytes));
    REQUIRE(writer.append(bytes_of(data).first(bytes / 3)).ok());  // in pieces
    REQUIRE(writer.append(bytes_of(data).subspan(bytes / 3)).ok());
  }
  REQUIRE(writer.commit().ok());
  return read_file(path);
}

/// A shard with one tensor of 4 bytes.
std::string shard(const std::string& name) {
  return hostile::safetensors("{\"" + name + R"(":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4);
}

}  // namespace

TEST_CASE("what is written to a safetensors file is read") {
  TemporaryFolder folder;
  const std::string bytes = sample(folder / "model.safetensors");
  CHECK(static_cast<unsigned char>(bytes[0]) % 8 == 0);  // the header is padded
  for (const std::string& path : {folder / "model.safetensors", folder.path}) {
    const auto file = Safetensors::open(path);
    REQUIRE(file);
    CHECK(*file->metadata("format") == "pt");
    CHECK(*file->metadata("note") == "\"नमस्ते\"\n");
    CHECK_FALSE(file->metadata("none"));
    REQUIRE(file->tensors().size() == 10);
    CHECK(file->tensors()[0].name == "f64");
    const SafetensorsTensor* t = file->tensor("f32");
    REQUIRE(t);
    CHECK(t->dtype == Dtype::f32);
    CHECK(t->shape == std::vector<std::int64_t>{20, 30});
    CHECK(t->size() == 600);
    CHECK(t->data.size() == 2400);
    CHECK(file->tensor("i32")->shape.empty());
    CHECK(file->tensor("i32")->size() == 1);
    CHECK(file->tensor("f16")->size() == 0);
    CHECK(file->tensor("bool")->data[6] == std::byte{7});
    CHECK(file->tensor("none") == nullptr);
    for (const SafetensorsTensor& each : file->tensors())
      CHECK(reinterpret_cast<std::uintptr_t>(each.data.data()) %
                static_cast<std::uintptr_t>(dtype_info(each.dtype).bytes) ==
            0);
  }
}

TEST_CASE("shards are one model") {
  TemporaryFolder folder;
  write_file(folder / "a.safetensors", shard("t"));
  write_file(folder / "b.safetensors", shard("u"));
  const std::string index = folder / "model.safetensors.index.json";
  write_file(index, R"({"metadata":{"total_size":8},"weight_map":{"u":"b.safetensors","t":"a.safetensors"}})");
  for (const std::string& path : {index, folder.path}) {
    const auto file = Safetensors::open(path);
    REQUIRE(file);
    CHECK(file->tensors().size() == 2);
    CHECK(file->tensor("t")->data.size() == 4);
    CHECK(file->tensor("u")->data.size() == 4);
  }
}

TEST_CASE("an index that lies is an error") {
  TemporaryFolder folder;
  write_file(folder / "a.safetensors", shard("t"));
  write_file(folder / "b.safetensors", shard("u"));
  write_file(folder / "t.safetensors", shard("t"));
  const auto error = [&](const std::string& index) {
    const auto file = Safetensors::open(write_file(folder / "model.safetensors.index.json", index));
    return file ? std::string("none") : file.error().message;
  };
  const auto map = [&](const std::string& members) { return error("{\"weight_map\":{" + members + "}}"); };
  const auto says = [](const std::string& message, std::string_view part) {
    CAPTURE(message);
    CHECK(message.find(part) != std::string::npos);
  };
  says(error("{"), "expected a name in quotes");
  says(error("{}"), "weight_map");
  says(map(R"("t":1)"), "shard 1 is not the name of a file beside the index");
  for (const char* name : {"../a.safetensors", "/a.safetensors", "x/a.safetensors", "x\\\\a.safetensors",
                           "a..safetensors", "", "a.bin", "a\\u0000.safetensors", "a\\n.safetensors"})
    says(map("\"t\":\"" + std::string(name) + "\""), "is not the name of a file beside the index");
  says(map(R"("t":")" + std::string(300, 'a') + R"(.safetensors")"), "is not the name of a file");
  says(map(R"("t":"none.safetensors")"), "No such file");
  says(map(""), "names no shard");
  SafetensorsLimits limits;
  limits.shards = 1;
  write_file(folder / "model.safetensors.index.json", R"({"weight_map":{"t":"a.safetensors","u":"b.safetensors"}})");
  says(Safetensors::open(folder.path, limits).error().message, "more than 1 shards");
  limits.shards = 2, limits.tensors = 1;
  says(Safetensors::open(folder.path, limits).error().message, "more than 1 tensors");
}

TEST_CASE("an index says which shards there are, and no more") {
  TemporaryFolder folder;
  write_file(folder / "a.safetensors", shard("t"));
  write_file(folder / "b.safetensors", shard("u"));
  std::string other = shard("t");
  other.back() ^= 1;
  write_file(folder / "c.safetensors", other);
  write_file(folder / "stray.safetensors", shard("x"));
  const auto names = [&](const std::string& members) {
    const auto file =
        Safetensors::open(write_file(folder / "model.safetensors.index.json", "{\"weight_map\":{" + members + "}}"));
    std::string found;
    if (!file) return file.error().message;
    for (const SafetensorsTensor& t : file->tensors()) found += t.name;
    return found;
  };
  CHECK(names(R"("t":"a.safetensors","u":"b.safetensors","lm_head.weight":"a.safetensors")") == "tu");  // too many
  CHECK(names(R"("mtp.fc.weight":"a.safetensors","u":"b.safetensors")") == "tu");                       // too few
  CHECK(names(R"("t":"b.safetensors","u":"a.safetensors")") == "tu");                                   // elsewhere
  CHECK(names(R"("t":"a.safetensors","u":"c.safetensors")") == "t");
  const auto file = Safetensors::open(folder.path);  // the last of a name
  REQUIRE(file);
  CHECK(static_cast<char>(file->tensor("t")->data.back()) == other.back());
}

TEST_CASE("each prefix and each changed bit of an index is an error or the same shards") {
  TemporaryFolder folder;
  write_file(folder / "a.safetensors", shard("t"));
  write_file(folder / "b.safetensors", shard("u"));
  const std::string index = R"({"metadata":{},"weight_map":{"t":"a.safetensors","u":"b.safetensors"}})";
  int valid = 0;
  const auto try_it = [&](const std::string& text) {
    const auto file = Safetensors::open(write_file(folder / "model.safetensors.index.json", text));
    if (!file) return;
    ++valid;
    for (const SafetensorsTensor& t : file->tensors()) CHECK((t.name == "t" || t.name == "u"));
  };
  for (std::size_t n = 0; n < index.size(); ++n) try_it(index.substr(0, n));
  CHECK(valid == 0);
  for (std::size_t at = 0; at < index.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = index;
      changed[at] = static_cast<char>(changed[at] ^ 1 << bit);
      try_it(changed);
    }
  CHECK(valid > 0);  // "metadata" may be called anything
}

TEST_CASE("a safetensors writer refuses what no reader would take") {
  TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  const auto says = [](const Status& s, std::string_view part) {
    return !s.ok() && s.error().message.find(part) != std::string::npos;
  };
  SafetensorsWriter writer;
  CHECK(says(writer.add("", {1}, Dtype::f32), "name is empty"));
  CHECK(says(writer.add("t", {-1}, Dtype::f32), "a dimension of -1"));
  CHECK(says(writer.add("t", {std::int64_t{1} << 62}, Dtype::f32), "a dimension of 4611686018427387904"));
  CHECK(says(writer.commit(), "not begun"));
  REQUIRE(writer.add("t", {3}, Dtype::u8).ok());
  CHECK(says(writer.add("u", {3}, Dtype::i32), "tensor u of type I32 would start at byte 3"));
  REQUIRE(writer.begin(path).ok());
  CHECK(says(writer.append(bytes_of("1234")), "tensor t takes 3 bytes, 4 were given"));
  CHECK(says(writer.commit(), "tensor t takes 3 bytes, 0 were given"));
  REQUIRE(writer.append(bytes_of("123")).ok());
  CHECK(writer.commit().ok());
  SafetensorsWriter twice;
  REQUIRE(twice.add("t", {3}, Dtype::u8).ok());
  REQUIRE(twice.add("t", {3}, Dtype::u8).ok());
  CHECK(says(twice.begin(path), "two tensors named t"));
}

TEST_CASE("hostile safetensors files are errors that take no memory") {
  for (const hostile::File& f : hostile::safetensors()) {
    CAPTURE(f.name);
    const std::size_t before = allocated_bytes();
    const auto file = Safetensors::parse(bytes_of(f.bytes));
    CHECK(allocated_bytes() - before <= f.bytes.size() + most_allocated);
    REQUIRE_FALSE(file.ok());
    CAPTURE(file.error().message);
    CHECK(file.error().message.find(f.error) != std::string::npos);
    CHECK(file.error().message.size() < 300);
  }
}

TEST_CASE("the largest safetensors headers take no more memory than the file and 64 MiB") {
  const auto check = [](const std::string& bytes, bool valid) {
    const std::size_t before = allocated_bytes();
    CHECK(Safetensors::parse(bytes_of(bytes)).ok() == valid);
    CHECK(allocated_bytes() - before <= bytes.size() + most_allocated);
  };
  std::string tensors, metadata, names;
  for (int i = 0; i < 70'000; ++i) {
    const std::string name = "\"" + std::to_string(i) + "\":", comma = i > 0 ? "," : "";
    tensors += comma + name + R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,0],"data_offsets":[0,0]})";
    metadata += comma + name + "\"\"";
    if (i == 65'535) {
      check(hostile::safetensors("{" + tensors + "}"), true);
      check(hostile::safetensors("{\"__metadata__\":{" + metadata + "}}"), true);
    }
  }
  check(hostile::safetensors("{" + tensors + "}"), false);
  check(hostile::safetensors("{\"__metadata__\":{" + metadata + "}}"), false);
  std::string ones = "1";
  for (int i = 0; i < 1'000'000; ++i) ones += ",1";
  check(hostile::safetensors(R"({"t":{"dtype":"U8","shape":[)" + ones + R"(],"data_offsets":[0,1]}})", 1), false);
}

TEST_CASE("each prefix of a safetensors file is an error") {
  TemporaryFolder folder;
  const std::string bytes = sample(folder / "a.safetensors");
  for (std::size_t n = 0; n <= bytes.size(); ++n) {
    const auto prefix = std::make_unique<std::byte[]>(n);  // of its own, so that a sanitizer sees its end
    std::memcpy(prefix.get(), bytes.data(), n);
    REQUIRE(use_safetensors({prefix.get(), n}) == (n == bytes.size() ? Outcome::valid : Outcome::error));
  }
}

TEST_CASE("each change of a byte of a safetensors file makes an error or a valid file") {
  TemporaryFolder folder;
  const std::string bytes = sample(folder / "a.safetensors");
  REQUIRE(bytes.size() > 3000);
  REQUIRE(bytes.size() < 4400);
  const auto changed = std::make_unique<std::byte[]>(bytes.size());
  std::memcpy(changed.get(), bytes.data(), bytes.size());
  const auto header =
      static_cast<std::size_t>(Safetensors::parse(bytes_of(bytes))->tensors()[0].data.data() - bytes_of(bytes).data());
  int errors = 0, valid = 0;
  const auto change = [&](std::size_t at, int value) {
    changed[at] = static_cast<std::byte>(value);
    const Outcome outcome = use_safetensors({changed.get(), bytes.size()});
    if (outcome == Outcome::unsound) FAIL("byte ", at, " changed to ", value);
    ++(outcome == Outcome::valid ? valid : errors);
    changed[at] = static_cast<std::byte>(bytes[at]);
  };
  for (std::size_t at = 0; at < header; ++at)
    for (int value = 0; value < 256; ++value) change(at, value);
  // Opening reads nothing of the data.
  for (std::size_t at = header; at < bytes.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) change(at, bytes[at] ^ 1 << bit);
  CHECK(errors > 100'000);
  CHECK(valid > 20'000);
}

TEST_CASE("a safetensors file that is none is an error with its name") {
  TemporaryFolder folder;
  write_file(folder / "a.safetensors", "1234567");
  CHECK(Safetensors::open(folder / "a.safetensors").error().message ==
        "cannot read " + folder / "a.safetensors" + ": it is not a safetensors file: it has fewer than 8 bytes");
  CHECK(Safetensors::open(folder.path).error().message.find("model.safetensors.index.json") != std::string::npos);
}
