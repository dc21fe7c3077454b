#include <chimera/exchange/quantize.hpp>
#include <chimera/io/gguf_writer.hpp>

#include "numeric.hpp"
#include "temporary_folder.hpp"

#include <cstring>

using namespace chimera;

namespace {

/// A file of a few tensors, one of them longer than what is written at a time.
std::string write_model(const TemporaryFolder& folder, float bad = 0.f) {
  const std::string path = folder / "model.gguf";
  const std::int64_t rows = 5000;
  GgufWriter file;
  file.set("general.architecture", "chimera");
  file.set("general.file_type", std::uint32_t{0});
  file.set("list", std::vector<std::string>{"one", "two"});
  REQUIRE(file.add("token_embd.weight", {256, rows}, Format::f32).ok());
  REQUIRE(file.add("output_norm.weight", {256}, Format::f32).ok());
  REQUIRE(file.add("blk.0.ffn_up.weight", {256, 3}, Format::f16).ok());
  REQUIRE(file.begin(path).ok());
  Floats x = noise(256 * rows, 1);
  if (bad != 0.f) x[1200000] = bad;
  REQUIRE(file.append(std::as_bytes(std::span(x))).ok());
  REQUIRE(file.append(std::as_bytes(std::span(x).first(256))).ok());
  std::vector<std::byte> half(2 * 768);
  REQUIRE(encode(cpu(Isa::base, 1), Format::f16, x.data(), 768, half.data()).ok());
  REQUIRE(file.append(half).ok());
  REQUIRE(file.commit().ok());
  return path;
}

Floats numbers(const Gguf& file, const char* name) {
  const GgufTensor* t = file.tensor(name);
  REQUIRE(t != nullptr);
  Floats x = zeros(t->size());
  REQUIRE(decode(cpu(Isa::base, 1), t->format, t->data.data(), t->size(), x.data()).ok());
  return x;
}

}  // namespace

TEST_CASE("a file becomes one of another type, with the errors that reading it shows") {
  const TemporaryFolder folder;
  const auto in = Gguf::open(write_model(folder));
  REQUIRE(in.ok());
  std::string first;
  on_every_cpu([&](const Cpu& q) {
    std::int64_t bytes = 0;
    std::size_t tensor = 0;
    const auto done =
        quantize_gguf(q, *in, folder / "out.gguf", *file_type_named("Q4_K_M"), [&](std::size_t i, std::int64_t read) {
          CHECK(read >= bytes);
          bytes = read, tensor = i;
        });
    REQUIRE(done.ok());
    CHECK(tensor == 2);
    const std::string written = read_file(folder / "out.gguf");
    if (first.empty()) first = written;
    CHECK(written == first);
  });

  const auto out = Gguf::open(folder / "out.gguf");
  REQUIRE(out.ok());
  CHECK(*out->integer("general.file_type") == 15);
  CHECK(*out->integer("general.quantization_version") == 2);
  CHECK((*out->texts("list"))[1] == "two");
  CHECK(out->tensor("token_embd.weight")->format == Format::q6_k);
  CHECK(out->tensor("blk.0.ffn_up.weight")->format == Format::q4_k);
  CHECK(numbers(*out, "output_norm.weight") == numbers(*in, "output_norm.weight"));

  const auto report = quantize_gguf(cpu(Isa::base, 1), *in, folder / "again.gguf", *file_type_named("Q4_K_M"),
                                    [](std::size_t, std::int64_t) {});
  REQUIRE(report.ok());
  CHECK((*report)[1].error.count == 0);
  for (const QuantizedTensor& t : *report) {
    const Floats x = numbers(*in, t.name.c_str()), y = numbers(*out, t.name.c_str());
    if (t.error.count == 0) continue;
    double squares = 0, errors = 0, largest = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
      squares += static_cast<double>(x[i] * x[i]), errors += d * d, largest = std::max(largest, std::abs(d));
    }
    CHECK(t.error.count == static_cast<std::int64_t>(x.size()));
    CHECK(t.error.root_mean_square() == doctest::Approx(std::sqrt(errors / static_cast<double>(x.size()))));
    CHECK(t.error.relative() == doctest::Approx(std::sqrt(errors / squares)));
    CHECK(static_cast<double>(t.error.largest) == doctest::Approx(largest));
  }
}

TEST_CASE("any file is written in any type, from any type") {
  const TemporaryFolder folder;
  const auto in = Gguf::open(write_model(folder));
  REQUIRE(in.ok());
  const Cpu q = cpu(Isa::avx512, 2);
  for (const FileType& type : file_types) {
    CAPTURE(type.name);
    REQUIRE(quantize_gguf(q, *in, folder / "one.gguf", type, [](std::size_t, std::int64_t) {}).ok());
    const auto one = Gguf::open(folder / "one.gguf");
    REQUIRE(one.ok());
    REQUIRE(
        quantize_gguf(q, *one, folder / "back.gguf", *file_type_named("F32"), [](std::size_t, std::int64_t) {}).ok());
    const auto back = Gguf::open(folder / "back.gguf");
    REQUIRE(back.ok());
    CHECK(back->tensor("blk.0.ffn_up.weight")->format == Format::f32);
    CHECK(numbers(*back, "token_embd.weight") == numbers(*one, "token_embd.weight"));
  }
}

TEST_CASE("weights that products round to three values are not rounded before") {
  const TemporaryFolder folder;
  GgufWriter file;
  file.set("general.architecture", "chimera");
  file.set("chimera.config", config_lines({.vocab = 8,
                                           .width = 256,
                                           .layers = pattern("A"),
                                           .attention = {.heads = 4},
                                           .ffn = {.hidden = 256},
                                           .ternary = {.on = true}}));
  REQUIRE(file.begin(folder / "in.gguf").ok());
  REQUIRE(file.commit().ok());
  const auto in = Gguf::open(folder / "in.gguf");
  REQUIRE(in.ok());
  const auto done = quantize_gguf(cpu(Isa::base, 1), *in, folder / "out.gguf", *file_type_named("Q4_K_M"),
                                  [](std::size_t, std::int64_t) {});
  CHECK(done.error().message.find("ternary.on") != std::string::npos);
  CHECK_FALSE(exists(folder / "out.gguf"));
}

TEST_CASE("numbers that are none leave no file") {
  const TemporaryFolder folder;
  const auto in = Gguf::open(write_model(folder, std::numeric_limits<float>::infinity()));
  REQUIRE(in.ok());
  const auto done = quantize_gguf(cpu(Isa::avx512, 2), *in, folder / "out.gguf", *file_type_named("Q8_0"),
                                  [](std::size_t, std::int64_t) {});
  REQUIRE_FALSE(done.ok());
  CHECK(done.error().message.starts_with("tensor token_embd.weight: number 1200000 is inf"));
  CHECK_FALSE(Gguf::open(folder / "out.gguf").ok());
}
