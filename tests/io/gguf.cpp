#include <chimera/io/gguf.hpp>
#include <chimera/io/gguf_writer.hpp>

#include "../temporary_folder.hpp"
#include "allocations.hpp"
#include "hostile.hpp"
#include "use.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

using namespace chimera;
using hostile::bytes_of;

namespace {

constexpr std::size_t most_allocated = 64 << 20;

/// Makes a file of about 4 KB with a value of every type and tensors of three formats; gives its bytes.
std::string sample(const std::string& path) {
  GgufWriter writer;
  writer.set("general.architecture", "test");
  writer.set("u8", std::uint8_t{200});
  writer.set("i8", std::int8_t{-100});
  writer.set("u16", std::uint16_t{60000});
  writer.set("i16", std::int16_t{-30000});
  writer.set("u32", std::uint32_t{4'000'000'000});
  writer.set("i32", -2'000'000'000);
  writer.set("u64", std::uint64_t{1} << 63);
  writer.set("i64", std::numeric_limits<std::int64_t>::min());
  writer.set("f32", 0.5f);
  writer.set("f64", 1e300);
  writer.set("bool", true);
  writer.set("text", std::string("one\0two", 7));
  writer.set("texts", std::vector<std::string>{"", "a", "नमस्ते"});
  writer.set("i32s", std::vector<std::int32_t>{-1, 0, 1});
  writer.set("f32s", std::vector<float>{0.25f, -2});
  writer.set("u32s", std::vector<std::uint32_t>{7});
  writer.set("u64s", std::vector<std::uint64_t>{1, std::uint64_t{1} << 63});
  writer.set("bools", std::vector<bool>{true, false, true});
  writer.set("none", std::vector<std::string>{});
  REQUIRE(writer.add("token_embd.weight", {32, 24}, Format::f32).ok());
  REQUIRE(writer.add("blk.0.attn_q.weight", {32, 2, 1}, Format::q8_0).ok());
  REQUIRE(writer.add("blk.0.attn_norm.weight", {5}, Format::bf16).ok());
  REQUIRE(writer.begin(path).ok());
  for (std::size_t bytes : {3072u, 68u, 10u}) {
    const std::string data(bytes, static_cast<char>(bytes));
    REQUIRE(writer.append(bytes_of(data).first(bytes / 3)).ok());  // in pieces
    REQUIRE(writer.append(bytes_of(data).subspan(bytes / 3)).ok());
  }
  REQUIRE(writer.commit().ok());
  return read_file(path);
}

/// One of several parts of a model, with one tensor of one number.
void write_part(const std::string& path, int index, int count, const char* tensor, float number, int tensors) {
  GgufWriter writer;
  if (index == 0) writer.set("general.architecture", "test");
  writer.set("split.no", static_cast<std::uint16_t>(index)),
      writer.set("split.count", static_cast<std::uint16_t>(count));
  writer.set("split.tensors.count", static_cast<std::int32_t>(tensors));
  REQUIRE(writer.add(tensor, {1}, Format::f32).ok());
  REQUIRE(writer.begin(path).ok());
  REQUIRE(writer.append(std::as_bytes(std::span(&number, 1))).ok());
  REQUIRE(writer.commit().ok());
}

}  // namespace

TEST_CASE("what is written to a GGUF file is read") {
  TemporaryFolder folder;
  sample(folder / "a.gguf");
  for (const auto& file : {Gguf::open(folder / "a.gguf"), Gguf::read(folder / "a.gguf")}) {
    REQUIRE(file);
    CHECK(file->version() == 3);
    CHECK(*file->text("general.architecture") == "test");
    CHECK(*file->integer("u8") == 200);
    CHECK(*file->integer("i8") == -100);
    CHECK(*file->integer("u16") == 60000);
    CHECK(*file->integer("i16") == -30000);
    CHECK(*file->integer("u32") == 4'000'000'000);
    CHECK(*file->integer("i32") == -2'000'000'000);
    CHECK(*file->integer("i64") == std::numeric_limits<std::int64_t>::min());
    CHECK(*file->number("u64") == 0x1p63);
    CHECK(*file->number("f32") == 0.5);
    CHECK(*file->number("f64") == 1e300);
    CHECK(*file->boolean("bool"));
    CHECK(*file->text("text") == std::string_view("one\0two", 7));
    CHECK(*file->texts("texts") == std::vector<std::string_view>{"", "a", "नमस्ते"});
    CHECK(*file->integers("i32s") == std::vector<std::int64_t>{-1, 0, 1});
    CHECK(*file->integers("u32s") == std::vector<std::int64_t>{7});
    CHECK(*file->integers("bools") == std::vector<std::int64_t>{1, 0, 1});
    CHECK(*file->numbers("f32s") == std::vector<double>{0.25, -2});
    CHECK(*file->numbers("u64s") == std::vector<double>{1, 0x1p63});
    CHECK(file->texts("none")->empty());

    REQUIRE(file->tensors().size() == 3);
    CHECK(file->tensors()[0].name == "token_embd.weight");
    const GgufTensor* q = file->tensor("blk.0.attn_q.weight");
    REQUIRE(q);
    CHECK(q->dims == 3);
    CHECK(q->ne == std::array<std::int64_t, 4>{32, 2, 1, 1});
    CHECK(q->size() == 64);
    CHECK(q->format == Format::q8_0);
    CHECK(q->data.size() == 68);
    CHECK(q->data[67] == std::byte{68});
    CHECK(file->tensor("blk.0.attn_norm.weight")->data[9] == std::byte{10});
    CHECK(file->tensor("blk.0.attn_k.weight") == nullptr);
  }
}

TEST_CASE("metadata of another kind than the wanted is an error that says both") {
  TemporaryFolder folder;
  sample(folder / "a.gguf");
  const auto file = Gguf::open(folder / "a.gguf");
  const std::string start = folder / "a.gguf: metadata ";
  CHECK(file->integer("none.such").error().message == start + "none.such is missing, an integer was expected");
  CHECK(file->integer("f32").error().message == start + "f32 is of type f32, an integer was expected");
  CHECK(file->integer("u64").error().message == start + "u64 is of type u64, an integer below 2^63 was expected");
  CHECK(file->integers("u64s").error().message ==
        start + "u64s is an array of 2 of type u64, an array of integers below 2^63 was expected");
  CHECK(file->number("text").error().message == start + "text is of type string, a number was expected");
  CHECK(file->number("bool").error().message == start + "bool is of type bool, a number was expected");
  CHECK(file->boolean("u8").error().message == start + "u8 is of type u8, a bool was expected");
  CHECK(file->text("texts").error().message == start + "texts is an array of 3 of type string, a string was expected");
  CHECK(file->texts("text").error().message == start + "text is of type string, an array of strings was expected");
  CHECK(file->integers("f32s").error().message ==
        start + "f32s is an array of 2 of type f32, an array of integers was expected");
  CHECK(file->numbers("bools").error().message ==
        start + "bools is an array of 3 of type bool, an array of numbers was expected");
}

TEST_CASE("a GGUF file copied key for key and tensor for tensor is the same") {
  TemporaryFolder folder;
  const std::string bytes = sample(folder / "a.gguf");
  const auto file = Gguf::open(folder / "a.gguf");
  GgufWriter writer;
  writer.set("general.architecture", "set again below");
  writer.set_all(*file);
  for (const GgufTensor& t : file->tensors())
    REQUIRE(writer.add(t.name, std::span(t.ne).first(static_cast<std::size_t>(t.dims)), t.format).ok());
  REQUIRE(writer.begin(folder / "b.gguf").ok());
  for (const GgufTensor& t : file->tensors()) REQUIRE(writer.append(t.data).ok());
  CHECK_FALSE(exists(folder / "b.gguf"));
  REQUIRE(writer.commit().ok());
  CHECK(read_file(folder / "b.gguf") == bytes);
}

TEST_CASE("a file without the padding of its last tensor, and one of version 2, are read") {
  TemporaryFolder folder;
  std::string bytes = sample(folder / "a.gguf");
  bytes.resize(bytes.size() - 22);  // the last tensor has 10 of 32 bytes
  bytes[4] = 2;
  const auto file = Gguf::parse(bytes_of(bytes));
  REQUIRE(file);
  CHECK(file->version() == 2);
  CHECK(file->tensors().size() == 3);
}

TEST_CASE("hostile GGUF files are errors that take no memory") {
  for (const hostile::File& f : hostile::gguf()) {
    CAPTURE(f.name);
    const std::size_t before = allocated_bytes();
    const auto file = Gguf::parse(bytes_of(f.bytes));
    CHECK(allocated_bytes() - before <= f.bytes.size() + most_allocated);
    REQUIRE_FALSE(file.ok());
    CAPTURE(file.error().message);
    CHECK(file.error().message.find(f.error) != std::string::npos);
    CHECK(file.error().message.size() < 300);
  }
}

TEST_CASE("the largest GGUF headers take no more memory than the file and 64 MiB") {
  const auto check = [](const std::string& bytes, const char* key) {
    const std::size_t before = allocated_bytes();
    {
      const auto file = Gguf::parse(bytes_of(bytes));
      REQUIRE(file);
      if (key) REQUIRE(file->texts(key).ok() + file->integers(key).ok() + file->numbers(key).ok() > 0);
    }
    CHECK(allocated_bytes() - before <= bytes.size() + most_allocated);
  };
  constexpr std::uint64_t most = 65536, values = 4 << 20;
  hostile::Bytes entries, tensors, texts, bools;
  entries.raw("GGUF").u32(3).u64(0).u64(most);
  tensors.raw("GGUF").u32(3).u64(most).u64(0);
  for (std::uint64_t i = 0; i < most; ++i) {
    entries.text(std::to_string(i)).u32(0).raw("x");
    tensors.text(std::string(57, 't') + std::to_string(i)).u32(1).u64(1).u32(24).u64(32 * i);
  }
  tensors.pad(32).raw(std::string(32 * most, '\0'));
  texts.raw("GGUF").u32(3).u64(0).u64(1).text("k").u32(9).u32(8).u64(values).raw(std::string(8 * values, '\0'));
  bools.raw("GGUF").u32(3).u64(0).u64(1).text("k").u32(9).u32(7).u64(values).raw(std::string(values, '\1'));
  check(entries, nullptr);
  check(tensors, nullptr);
  check(texts, "k");
  check(bools, "k");

  hostile::Bytes more;
  more.raw("GGUF").u32(3).u64(0).u64(1).text("k").u32(9).u32(7).u64(values + 1).raw(std::string(values + 1, '\1'));
  const std::string bytes = more;
  CHECK_FALSE(Gguf::parse(bytes_of(bytes)).ok());
  GgufLimits limits;
  limits.array_values = values + 1;
  CHECK(Gguf::parse(bytes_of(bytes), limits).ok());
}

TEST_CASE("each prefix of a GGUF file is an error or a valid file") {
  TemporaryFolder folder;
  const std::string bytes = sample(folder / "a.gguf");
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    const auto prefix = std::make_unique<std::byte[]>(n);  // of its own, so that a sanitizer sees its end
    std::memcpy(prefix.get(), bytes.data(), n);
    const bool whole = n >= bytes.size() - 22;  // the last tensor's padding may be missing
    REQUIRE(use_gguf({prefix.get(), n}) == (whole ? Outcome::valid : Outcome::error));
  }
}

TEST_CASE("each change of a byte of a GGUF file makes an error or a valid file") {
  TemporaryFolder folder;
  const std::string bytes = sample(folder / "a.gguf");
  REQUIRE(bytes.size() > 3800);
  REQUIRE(bytes.size() < 4400);
  const auto changed = std::make_unique<std::byte[]>(bytes.size());
  std::memcpy(changed.get(), bytes.data(), bytes.size());
  const auto header =
      static_cast<std::size_t>(Gguf::parse(bytes_of(bytes))->tensors()[0].data.data() - bytes_of(bytes).data());
  int errors = 0, valid = 0;
  const auto change = [&](std::size_t at, int value) {
    changed[at] = static_cast<std::byte>(value);
    const Outcome outcome = use_gguf({changed.get(), bytes.size()});
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
  CHECK(valid > 50'000);
}

TEST_CASE("a GGUF file that is none is an error with its name") {
  TemporaryFolder folder;
  write_file(folder / "a.gguf", "GGUF");
  CHECK(Gguf::open(folder / "a.gguf").error().message ==
        "cannot read " + folder / "a.gguf" + ": the file ends within its first bytes");
  CHECK(Gguf::open(folder / "b.gguf").error().message.find("No such file") != std::string::npos);
}

TEST_CASE("a model in several files is opened by any of them") {
  TemporaryFolder folder;
  const auto path = [&](int part) { return folder / ("m-0000" + std::to_string(part) + "-of-00003.gguf"); };
  const char* names[] = {"c", "a", "b"};
  for (int i = 0; i < 3; ++i) write_part(path(i + 1), i, 3, names[i], static_cast<float>(i), 3);
  for (int part = 1; part <= 3; ++part)
    for (const auto& file : {Gguf::open(path(part)), Gguf::read(path(part))}) {
      REQUIRE(file);
      CHECK(*file->text("general.architecture") == "test");
      REQUIRE(file->tensors().size() == 3);
      for (int i = 0; i < 3; ++i) {
        const GgufTensor* t = file->tensor(names[i]);
        REQUIRE(t);
        CHECK(t == &file->tensors()[static_cast<std::size_t>(i)]);
        float mapped = -1, read = -1;
        std::memcpy(&mapped, t->data.data(), sizeof mapped);
        REQUIRE(file->read(*t, 0, std::as_writable_bytes(std::span(&read, 1))).ok());
        CHECK(mapped == static_cast<float>(i));
        CHECK(read == static_cast<float>(i));
      }
    }
  // Copied whole it is one file.
  GgufWriter writer;
  writer.set_all(*Gguf::open(path(2)));
  REQUIRE(writer.begin(folder / "whole.gguf").ok());
  REQUIRE(writer.commit().ok());
  CHECK_FALSE(Gguf::open(folder / "whole.gguf")->has("split.count"));

  const auto error = [&](int part) {
    const auto file = Gguf::open(path(part));
    return file ? std::string() : file.error().message;
  };
  const auto has = [](const std::string& text, std::string_view words) {
    CHECK_MESSAGE(text.find(words) != std::string::npos, text);
  };
  has(Gguf::parse(bytes_of(read_file(path(1)))).error().message, "it is part 1 of 3 of a model");
  write_part(folder / "other.gguf", 0, 3, "c", 0, 3);
  has(Gguf::open(folder / "other.gguf").error().message, "expected a name that ends with -00001-of-00003.gguf");
  write_part(path(2), 1, 3, "c", 1, 3);
  has(error(1), "two tensors named c");
  write_part(path(2), 1, 3, "a", 1, 3), write_part(path(1), 0, 3, "c", 0, 4);
  has(error(3), "expected 4 tensors in all parts, found 3");
  write_part(path(2), 1, 2, "a", 1, 3);
  has(error(1), "expected part 2 of 3 in");
  has(error(1), "found part 2 of 2");
  write_part(path(2), 2, 3, "a", 1, 3);
  has(error(1), "found part 3 of 3");
  REQUIRE(std::remove(path(2).c_str()) == 0);
  has(error(1), "it is part 1 of 3, and cannot");
  has(error(1), "m-00002-of-00003.gguf");
  for (const int count : {0xFFFF, 600}) {
    write_part(path(1), 0, count, "c", 0, 3);
    has(error(1), "where 1 to 512 parts were expected");
  }
  write_part(path(1), 7, 3, "c", 0, 3);
  has(error(1), "it is part 8 of 3");
}
