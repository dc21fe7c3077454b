#include <chimera/io/gguf.hpp>

#include "../temporary_folder.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

using namespace chimera;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// The bytes of a file with a value of every type and tensors of three formats.
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
  writer.set("bools", std::vector<bool>{true, false, true});
  writer.set("none", std::vector<std::string>{});
  REQUIRE(writer.add("token_embd.weight", {32, 3}, Format::f32).ok());
  REQUIRE(writer.add("blk.0.attn_q.weight", {32, 2, 1}, Format::q8_0).ok());
  REQUIRE(writer.add("blk.0.attn_norm.weight", {5}, Format::bf16).ok());
  REQUIRE(writer.begin(path).ok());
  for (int bytes : {384, 68, 10})
    REQUIRE(writer.append(bytes_of(std::string(static_cast<std::size_t>(bytes), static_cast<char>(bytes)))).ok());
  REQUIRE(writer.commit().ok());
  return read_file(path);
}

}  // namespace

TEST_CASE("what is written is read") {
  TemporaryFolder folder;
  sample(folder / "a.gguf");
  const auto file = Gguf::open(folder / "a.gguf");
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
}
