// Files made to break their readers, each with what its error must say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hostile {

struct File {
  std::string name, bytes, error;
};

/// The reader's view of it.
inline std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// A file as it is put together, little-endian.
class Bytes {
 public:
  Bytes& raw(std::string_view bytes) { return out_ += bytes, *this; }
  Bytes& u32(std::uint64_t n) { return number(n, 4); }
  Bytes& u64(std::uint64_t n) { return number(n, 8); }
  Bytes& text(std::string_view t) { return u64(t.size()).raw(t); }
  Bytes& pad(std::size_t alignment) {
    return raw(std::string((alignment - out_.size() % alignment) % alignment, '\0'));
  }
  operator std::string() const { return out_; }

 private:
  Bytes& number(std::uint64_t n, int bytes) {
    for (; bytes > 0; --bytes, n >>= 8) out_ += static_cast<char>(n & 255);
    return *this;
  }
  std::string out_;
};

inline std::vector<File> gguf() {
  enum { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64 };
  constexpr std::uint64_t huge = std::uint64_t{1} << 60, sign = std::uint64_t{1} << 63, most = ~std::uint64_t{0};
  const std::string room(256, '\0');
  const auto header = [](std::uint64_t tensors, std::uint64_t entries) {
    return Bytes().raw("GGUF").u32(3).u64(tensors).u64(entries);
  };
  const auto entry = [&](std::uint64_t type, const std::string& value) {
    return Bytes(header(0, 1)).text("key").u32(type).raw(value).raw(room);
  };
  const auto alignment = [&](std::uint64_t type, const std::string& value) {
    return Bytes(header(1, 1))
        .text("general.alignment")
        .u32(type)
        .raw(value)
        .text("t")
        .u32(1)
        .u64(8)
        .u32(0)
        .u64(0)
        .raw(room);
  };
  const auto tensor = [&](std::vector<std::uint64_t> ne, std::uint64_t format, std::uint64_t offset = 0) {
    Bytes b = Bytes(header(1, 0)).text("t").u32(ne.size());
    for (std::uint64_t n : ne) b.u64(n);
    return b.u32(format).u64(offset).raw(room);
  };
  const auto named = [&](std::string_view name) {
    return Bytes(header(1, 0)).text(name).u32(1).u64(8).u32(0).u64(0).raw(room);
  };
  const auto two = [&](std::string_view first, std::string_view second, std::uint64_t n, std::uint64_t offset) {
    return Bytes(header(2, 0))
        .text(first)
        .u32(1)
        .u64(n)
        .u32(0)
        .u64(0)
        .text(second)
        .u32(1)
        .u64(n)
        .u32(0)
        .u64(offset)
        .raw(room);
  };
  Bytes wrapping = header(5, 0);
  for (std::uint64_t i = 0; i < 5; ++i)
    wrapping.text(std::string(1, static_cast<char>('a' + i))).u32(1).u64(huge << 2).u32(24).u64(i * (huge << 2));

  return {
      {"nothing", "", "not a GGUF file"},
      {"magic_alone", "GGUF", "ends within"},
      {"other_magic", Bytes().raw("GGML").u32(3).u64(0).u64(0), "not a GGUF file"},
      {"version_1", Bytes().raw("GGUF").u32(1).u64(0).u64(0), "version 1"},
      {"version_4", Bytes().raw("GGUF").u32(4).u64(0).u64(0), "version 4"},
      {"other_byte_order", Bytes().raw("GGUF").u32(0x03000000).u64(0).u64(0), "byte order"},
      {"no_counts", Bytes().raw("GGUF").u32(3).u64(0), "ends within"},
      {"tensors_2_60", header(huge, 0).raw(room), "claims 1152921504606846976 tensors"},
      {"entries_2_60", header(0, huge).raw(room), "claims 1152921504606846976 metadata entries"},
      {"entries_beyond_file", header(0, 1000).raw(room), "claims 1000 metadata entries"},
      {"tensors_beyond_file", header(1000, 0).raw(room), "claims 1000 tensors"},
      {"key_of_2_63_bytes", header(0, 1).u64(sign).raw(room), "a metadata key has 9223372036854775808 bytes"},
      {"key_of_2_64_bytes", header(0, 1).u64(most).raw(room), "a metadata key has 18446744073709551615 bytes"},
      {"key_beyond_file", header(0, 1).u64(5000).raw(room), "ends within a metadata key"},
      {"key_empty", header(0, 1).u64(0).raw(room), "a metadata key has 0 bytes"},
      {"key_with_nul", header(0, 1).text({"k\0y", 3}).u32(u8).raw(room), "not printable"},
      {"key_with_escape", header(0, 1).text("k\033[2J").u32(u8).raw(room), "not printable"},
      {"key_not_utf8", header(0, 1).text("k\xC3(").u32(u8).raw(room), "not printable"},
      {"key_twice", header(0, 2).text("key").u32(u8).raw("1").text("key").u32(u8).raw("2").raw(room),
       "two metadata entries named key"},
      {"type_13", entry(13, ""), "unknown type 13"},
      {"type_2_32", entry(0xFFFFFFFF, ""), "unknown type 4294967295"},
      {"bool_2", entry(boolean, "\2"), "neither 0 nor 1"},
      {"text_of_2_63_bytes", entry(text, Bytes().u64(sign)), "a string of 9223372036854775808 bytes"},
      {"text_of_2_64_bytes", entry(text, Bytes().u64(most)), "a string of 18446744073709551615 bytes"},
      {"text_beyond_file", entry(text, Bytes().u64(5000)), "a string of 5000 bytes"},
      {"array_of_arrays", entry(array, Bytes().u32(array).u64(1)), "array of type 9"},
      {"array_of_unknown", entry(array, Bytes().u32(13).u64(1)), "array of type 13"},
      {"array_of_2_60_bytes", entry(array, Bytes().u32(u8).u64(huge)), "claims 1152921504606846976 values"},
      {"array_that_wraps", entry(array, Bytes().u32(u64).u64(huge << 1 | 1)), "claims 2305843009213693953 values"},
      {"array_of_2_61_texts", entry(array, Bytes().u32(text).u64(huge << 1)), "claims 2305843009213693952 values"},
      {"array_beyond_file", entry(array, Bytes().u32(u32).u64(2000)), "claims 2000 values"},
      {"array_with_long_text", entry(array, Bytes().u32(text).u64(2).text("a").u64(most)), "a string of 184467440737"},
      {"array_with_bool_7", entry(array, Bytes().u32(boolean).u64(3).raw("\1\7\1")), "neither 0 nor 1"},
      {"alignment_0", alignment(u32, Bytes().u32(0)), "general.alignment is 0"},
      {"alignment_24", alignment(u32, Bytes().u32(24)), "general.alignment is 24"},
      {"alignment_2_31", alignment(u32, Bytes().u32(0x80000000)), "general.alignment is 2147483648"},
      {"alignment_u64", alignment(u64, Bytes().u64(32)), "not of type u32"},
      {"alignment_text", alignment(text, Bytes().text("32")), "not of type u32"},
      {"name_empty", named(""), "a tensor's name has 0 bytes"},
      {"name_of_64_bytes", named(std::string(64, 't')), "a tensor's name has 64 bytes"},
      {"name_with_nul", named({"t\0u", 3}), "not printable"},
      {"name_twice", two("t", "t", 8, 32), "two tensors named t"},
      {"no_dimensions", tensor({}, 0), "has 0 dimensions"},
      {"five_dimensions", tensor({1, 1, 1, 1, 1}, 0), "has 5 dimensions"},
      {"dimension_0", tensor({0}, 0), "a dimension of 0"},
      {"second_dimension_0", tensor({32, 0}, 2), "a dimension of 0"},
      {"dimension_2_63", tensor({sign}, 0), "a dimension of -9223372036854775808"},
      {"dimension_2_64", tensor({most}, 0), "a dimension of -1"},
      {"numbers_wrap", tensor({huge, 16, 2}, 0), "more than 2^63 numbers"},
      {"bytes_wrap", tensor({huge << 1}, 0), "more than 2^63 bytes"},
      {"blocks_wrap", tensor({(huge << 2) - 256, 1}, 12), "ends beyond the file"},
      {"size_beyond_file", tensor({huge}, 0), "ends beyond the file"},
      {"format_4", tensor({32}, 4), "unknown format 4"},
      {"format_31", tensor({32}, 31), "unknown format 31"},
      {"format_2_32", tensor({32}, 0xFFFFFFFF), "unknown format 4294967295"},
      {"half_a_block", tensor({48}, 2), "rows of 48 numbers"},
      {"offset_odd", tensor({8}, 0, 4), "starts at 4"},
      {"offset_2_64", tensor({8}, 0, most - 31), "starts at 18446744073709551584"},
      {"overlapping_tensors", two("t", "u", 16, 32), "tensor u starts at 32 in the data, 64 was expected"},
      {"tensor_of_same_place", two("t", "u", 8, 0), "tensor u starts at 0 in the data, 32 was expected"},
      {"hole_between_tensors", two("t", "u", 8, 64), "tensor u starts at 64 in the data, 32 was expected"},
      {"tensors_wrap", wrapping.raw(room), "ends beyond 2^64"},
      {"data_beyond_file", two("t", "u", 48, 192), "tensor u ends beyond the file: 192 bytes at offset 192"},
  };
}

/// A safetensors file of this header.
inline std::string safetensors(std::string_view header, std::size_t data = 0) {
  return Bytes().text(header).raw(std::string(data, '\0'));
}

inline std::vector<File> safetensors() {
  const auto tensor = [](const std::string& shape, const std::string& offsets, const std::string& dtype = "\"F32\"") {
    return safetensors(R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
                       16);
  };
  const auto two = [](const std::string& first, const std::string& second, const std::string& name = "u") {
    return safetensors(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":)" + first + R"(},")" + name +
                           R"(":{"dtype":"F32","shape":[2],"data_offsets":)" + second + "}}",
                       16);
  };
  return {
      {"nothing", "", "fewer than 8 bytes"},
      {"seven_bytes", std::string(7, '\0'), "fewer than 8 bytes"},
      {"header_of_0_bytes", Bytes().u64(0), "does not start with '{'"},
      {"header_of_2_63_bytes", Bytes().u64(std::uint64_t{1} << 63).raw("{}"), "claims a header of 9223372036854775808"},
      {"header_of_2_64_bytes", Bytes().u64(~std::uint64_t{0}).raw("{}"), "claims a header of 18446744073709551615"},
      {"header_beyond_file", Bytes().u64(3).raw("{}"), "claims a header of 3"},
      {"header_after_space", safetensors(" {}"), "does not start with '{'"},
      {"header_is_array", safetensors("[]"), "does not start with '{'"},
      {"header_cut_off", safetensors("{\"t\":"), "not JSON"},
      {"header_and_more", safetensors("{}{}"), "not JSON"},
      {"nested_arrays", safetensors("{\"t\":" + std::string(4000, '[')), "inside one another"},
      {"nested_objects", safetensors([] {
         std::string text = "{\"t\":";
         for (int i = 0; i < 1000; ++i) text += "{\"t\":";
         return text;
       }()),
       "inside one another"},
      {"tensor_is_number", safetensors(R"({"t":1})"), "tensor t is not an object"},
      {"tensor_is_empty", safetensors(R"({"t":{}})"), "dtype"},
      {"name_empty", safetensors(R"({"":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})"), "name is empty"},
      {"name_with_nul", safetensors(R"({"a\u0000":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})"),
       "not printable"},
      {"name_twice", two("[0,8]", "[8,16]", "t"), "two tensors named t"},
      {"name_twice_escaped", two("[0,8]", "[8,16]", "\\u0074"), "two tensors named t"},
      {"dtype_unknown", tensor("[4]", "[0,16]", "\"F31\""), "unknown dtype \"F31\""},
      {"dtype_number", tensor("[4]", "[0,16]", "32"), "dtype"},
      {"shape_negative", tensor("[-4]", "[0,16]"), "not an integer of 0 or more"},
      {"shape_fraction", tensor("[4.5]", "[0,16]"), "not an integer of 0 or more"},
      {"shape_infinite", tensor("[1e400]", "[0,16]"), "not an integer of 0 or more"},
      {"shape_text", tensor("[\"4\"]", "[0,16]"), "not an integer of 0 or more"},
      {"shape_2_63", tensor("[9223372036854775808]", "[0,16]"), "not an integer of 0 or more"},
      {"shape_wraps", tensor("[4611686018427387904,4]", "[0,0]"), "more than 2^63 bytes"},
      {"shape_wraps_to_16", tensor("[4611686018427387908]", "[0,16]"), "more than 2^63 bytes"},
      {"shape_too_deep", tensor("[1,1,1,1,1,1,1,1,4]", "[0,16]"), "more than 8 dimensions"},
      {"shape_not_of_range", tensor("[3]", "[0,16]"), "lies in 16 bytes, 12 were expected"},
      {"offsets_reversed", tensor("[4]", "[16,0]"), "does not lie within the data"},
      {"offsets_negative", tensor("[4]", "[-16,0]"), "does not lie within the data"},
      {"offsets_beyond", tensor("[5]", "[0,20]"), "does not lie within the data"},
      {"offsets_2_63", tensor("[4]", "[9223372036854775792,9223372036854775807]"), "does not lie within the data"},
      {"offsets_one", tensor("[4]", "[0]"), "does not lie within the data"},
      {"offsets_three", tensor("[4]", "[0,16,16]"), "more than two data_offsets"},
      {"overlapping_tensors", two("[0,8]", "[4,12]"), "tensor u does not start where"},
      {"tensors_of_same_place", two("[8,16]", "[8,16]"), "does not start where"},
      {"hole_before_tensors", tensor("[3]", "[4,16]"), "does not start where"},
      {"bytes_behind_tensors", tensor("[3]", "[0,12]"), "tensors end at 12 of 16"},
      {"data_without_tensors", safetensors("{}", 1), "tensors end at 0 of 1"},
      {"metadata_number", safetensors(R"({"__metadata__":{"a":1}})"), "not a string"},
      {"metadata_array", safetensors(R"({"__metadata__":[]})"), "not an object"},
      {"metadata_twice", safetensors(R"({"__metadata__":{"a":"1","a":"2"}})"), "two metadata entries named a"},
  };
}

}  // namespace hostile
