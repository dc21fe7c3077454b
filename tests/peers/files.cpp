// What tests/peers/files.py needs of the library: to write files, to say what is in them, to copy them.
#include <chimera/core/checksum.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/io/safetensors.hpp>

#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using namespace chimera;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

Status write_gguf(const std::string& path) {
  GgufWriter writer;
  writer.set("general.architecture", "test");
  writer.set("u8", std::uint8_t{200});
  writer.set("i8", std::int8_t{-100});
  writer.set("u16", std::uint16_t{60000});
  writer.set("i16", std::int16_t{-30000});
  writer.set("u32", std::uint32_t{4'000'000'000});
  writer.set("i32", -2'000'000'000);
  writer.set("u64", std::uint64_t{1} << 63);
  writer.set("i64", -(std::int64_t{1} << 62));
  writer.set("f32", 0.5f);
  writer.set("f64", 1e300);
  writer.set("bool", true);
  writer.set("text", "नमस्ते");
  writer.set("texts", std::vector<std::string>{"", "a", "ab"});
  writer.set("i32s", std::vector<std::int32_t>{-1, 0, 1});
  writer.set("f32s", std::vector<float>{0.25f, -2});
  writer.set("bools", std::vector<bool>{true, false});
  for (const FormatInfo& f : formats)
    if (Status s = writer.add(f.name, {2 * f.values, 3}, f.format); !s) return s;
  if (Status s = writer.begin(path); !s) return s;
  for (const FormatInfo& f : formats)
    if (Status s = writer.append(bytes_of(std::string(static_cast<std::size_t>(6 * f.bytes), 'x'))); !s) return s;
  return writer.commit();
}

/// One line a key and a tensor: its name, type, and what it holds.
Status print_gguf(const std::string& path) {
  const auto file = Gguf::open(path);
  if (!file) return file.error();
  for (const auto& [key, value] : file->entries()) {
    std::string line = std::string(key) + "\t" + std::string(gguf_parts::gguf_name(value.type));
    if (const auto text = file->text(key)) line += "\t" + std::string(*text);
    if (const auto truth = file->boolean(key)) line += *truth ? "\tTrue" : "\tFalse";
    if (const auto n = file->integer(key))
      line += "\t" + std::to_string(*n);
    else if (const auto x = file->number(key))
      line += "\t" + std::to_string(*x);
    if (const auto texts = file->texts(key))
      for (std::string_view t : *texts) line += "\t" + std::string(t);
    if (const auto integers = file->integers(key))
      for (std::int64_t n : *integers) line += "\t" + std::to_string(n);
    else if (const auto numbers = file->numbers(key))
      for (double x : *numbers) line += "\t" + std::to_string(x);
    std::printf("%s\n", line.c_str());
  }
  for (const GgufTensor& t : file->tensors()) {
    std::string line = t.name + "\t" + std::string(format_info(t.format)->name);
    for (int i = 0; i < t.dims; ++i) line += "\t" + std::to_string(t.ne[static_cast<std::size_t>(i)]);
    std::printf("%s\t%08x\n", line.c_str(), crc32c(t.data.data(), t.data.size()));
  }
  return {};
}

Status copy_safetensors(const std::string& from, const std::string& to) {
  const auto file = Safetensors::open(from);
  if (!file) return file.error();
  SafetensorsWriter writer;
  for (const auto& [name, text] : file->metadata()) writer.set_metadata(name, text);
  for (const SafetensorsTensor& t : file->tensors())
    if (Status s = writer.add(t.name, t.shape, t.dtype); !s) return s;
  if (Status s = writer.begin(to); !s) return s;
  for (const SafetensorsTensor& t : file->tensors())
    if (Status s = writer.append(t.data); !s) return s;
  return writer.commit();
}

Status run(const std::vector<std::string>& words) {
  if (words.size() == 2 && words[0] == "write-gguf") return write_gguf(words[1]);
  if (words.size() == 2 && words[0] == "print-gguf") return print_gguf(words[1]);
  if (words.size() == 3 && words[0] == "copy-safetensors") return copy_safetensors(words[1], words[2]);
  return Error{"usage: write-gguf OUT | print-gguf FILE | copy-safetensors IN OUT"};
}

}  // namespace

int main(int count, char** arguments) {
  const Status s = run({arguments + 1, arguments + count});
  if (!s.ok()) std::fprintf(stderr, "%s\n", s.error().message.c_str());
  return s.ok() ? 0 : 1;
}
