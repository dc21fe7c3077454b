// Writes the files that the fuzzers of gguf and safetensors start from: the known killers, and small valid files.
#include <chimera/core/files.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/io/safetensors.hpp>

#include "io/hostile.hpp"

#include <cstdio>
#include <string>
#include <vector>

using namespace chimera;

namespace {

Status write_file(const std::string& path, const std::string& bytes) {
  auto file = AtomicFile::create(path);
  if (!file) return file.error();
  if (Status s = file->write(bytes); !s) return s;
  return file->commit();
}

/// A value of every type, and a tensor of every format.
Status write_gguf(const std::string& path) {
  GgufWriter writer;
  writer.set("general.architecture", "llama");
  writer.set("general.alignment", std::uint32_t{32});
  writer.set("u8", std::uint8_t{1});
  writer.set("i8", std::int8_t{-1});
  writer.set("u16", std::uint16_t{2});
  writer.set("i16", std::int16_t{-2});
  writer.set("i32", -3);
  writer.set("f32", 0.5f);
  writer.set("bool", true);
  writer.set("u64", std::uint64_t{4});
  writer.set("i64", std::int64_t{-4});
  writer.set("f64", 0.25);
  writer.set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "ab"});
  writer.set("tokenizer.ggml.token_type", std::vector<std::int32_t>{1, 1, 3});
  writer.set("bools", std::vector<bool>{true, false});
  writer.set("u64s", std::vector<std::uint64_t>{1, 2});
  for (const FormatInfo& f : formats)
    if (Status s = writer.add(f.name, {f.values, 1}, f.format); !s) return s;
  if (Status s = writer.begin(path); !s) return s;
  for (const FormatInfo& f : formats)
    if (Status s = writer.append(hostile::bytes_of(std::string(static_cast<std::size_t>(f.bytes), '\1'))); !s) return s;
  return writer.commit();
}

Status write_safetensors(const std::string& path) {
  SafetensorsWriter writer;
  writer.set_metadata("format", "pt");
  for (const DtypeInfo& d : dtypes)
    if (Status s = writer.add(d.name, {2, 4}, d.dtype); !s) return s;
  if (Status s = writer.begin(path); !s) return s;
  for (const DtypeInfo& d : dtypes)
    if (Status s = writer.append(hostile::bytes_of(std::string(static_cast<std::size_t>(8 * d.bytes), '\1'))); !s)
      return s;
  return writer.commit();
}

Status run(const std::string& folder) {
  for (const hostile::File& f : hostile::gguf())
    if (Status s = write_file(folder + "/gguf/" + f.name, f.bytes); !s) return s;
  for (const hostile::File& f : hostile::safetensors())
    if (Status s = write_file(folder + "/safetensors/" + f.name, f.bytes); !s) return s;
  if (Status s = write_gguf(folder + "/gguf/valid"); !s) return s;
  return write_safetensors(folder + "/safetensors/valid");
}

}  // namespace

int main(int count, char** arguments) {
  const Status s = count == 2 ? run(arguments[1]) : Error{"usage: fuzz_corpus FOLDER"};
  if (!s.ok()) std::fprintf(stderr, "%s\n", s.error().message.c_str());
  return s.ok() ? 0 : 1;
}
