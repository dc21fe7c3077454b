#include <chimera/io/gguf_writer.hpp>

#include "../temporary_folder.hpp"
#include "hostile.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

using namespace chimera;
using hostile::bytes_of;

TEST_CASE("tensors are aligned as general.alignment says, the last one's padding is written") {
  TemporaryFolder folder;
  for (std::uint32_t unit : {1u, 8u, 4096u}) {
    GgufWriter writer;
    writer.set("general.alignment", unit);
    REQUIRE(writer.add("a", {3}, Format::i8).ok());
    REQUIRE(writer.add("b", {5}, Format::i8).ok());
    REQUIRE(writer.begin(folder / "a.gguf").ok());
    REQUIRE(writer.append(bytes_of("abc")).ok());
    REQUIRE(writer.append(bytes_of("defgh")).ok());
    REQUIRE(writer.commit().ok());
    const std::string bytes = read_file(folder / "a.gguf");
    CHECK(bytes.size() % unit == 0);
    const auto file = Gguf::parse(bytes_of(bytes));
    REQUIRE(file);
    for (const GgufTensor& t : file->tensors())
      CHECK(static_cast<std::size_t>(t.data.data() - bytes_of(bytes).data()) % unit == 0);
    CHECK(std::memcmp(file->tensor("b")->data.data(), "defgh", 5) == 0);
  }
}

TEST_CASE("a GGUF writer refuses what no reader would take") {
  TemporaryFolder folder;
  const std::string path = folder / "a.gguf";
  const auto says = [](const Status& s, std::string_view part) {
    return !s.ok() && s.error().message.find(part) != std::string::npos;
  };
  GgufWriter writer;
  CHECK(says(writer.add("t", {0}, Format::f32), "a dimension of 0"));
  CHECK(says(writer.add("t", {}, Format::f32), "0 dimensions"));
  CHECK(says(writer.add("t", {1, 1, 1, 1, 1}, Format::f32), "5 dimensions"));
  CHECK(says(writer.add("t", {33}, Format::q4_0), "rows of 33 numbers, and Q4_0 takes blocks of 32"));
  CHECK(says(writer.add("", {1}, Format::f32), "0 bytes, 1 to 63 were expected"));
  CHECK(says(writer.add(std::string(64, 't'), {1}, Format::f32), "64 bytes, 1 to 63 were expected"));
  CHECK(says(writer.add("a\nb", {1}, Format::f32), "not printable"));
  CHECK(says(writer.add("t", {std::int64_t{1} << 62}, Format::f32), "more than 2^63 bytes"));
  CHECK(says(writer.commit(), "not begun"));
  REQUIRE(writer.add("t", {2}, Format::f32).ok());
  writer.set("general.alignment", std::uint32_t{24});
  CHECK(says(writer.begin(path), "general.alignment is 24"));
  writer.set("general.alignment", 32);
  CHECK(says(writer.begin(path), "not of type u32"));
  writer.set("general.alignment", std::uint32_t{32});
  REQUIRE(writer.begin(path).ok());
  CHECK(says(writer.append(bytes_of("123456789")), "tensor t takes 8 bytes, 9 were given"));
  REQUIRE(writer.append(bytes_of("1234")).ok());
  CHECK(says(writer.commit(), "tensor t takes 8 bytes, 4 were given"));
  CHECK(says(writer.append(bytes_of("56789")), "tensor t takes 8 bytes, 9 were given"));
  REQUIRE(writer.append(bytes_of("5678")).ok());
  CHECK(says(writer.append(bytes_of("9")), "no tensor left"));
  CHECK(writer.commit().ok());

  GgufWriter twice;
  REQUIRE(twice.add("t", {2}, Format::f32).ok());
  REQUIRE(twice.add("t", {2}, Format::f32).ok());
  CHECK(says(twice.begin(path), "two tensors named t"));

  GgufWriter key;
  key.set("", 1);
  CHECK(says(key.begin(path), "a metadata key has 0 bytes"));
  GgufWriter control;
  control.set("a\n", 1);
  CHECK(says(control.begin(path), "not printable"));
}
