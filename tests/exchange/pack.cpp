#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/pack.hpp>
#include <chimera/exchange/quantize.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/io/gguf_writer.hpp>

#include "models.hpp"
#include "temporary_folder.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>

using namespace chimera;

namespace {

const std::vector<AnyModel>& models() {
  static const std::vector<AnyModel> all{table_of<hybrid>("hybrid"), table_of<hybrid_in_halves>("hybrid_in_halves"),
                                         table_of<plain>("plain"),   table_of<griffin>("griffin"),
                                         table_of<xlstm>("xlstm"),   table_of<bitnet>("bitnet")};
  return all;
}

void save(const Cpu& q, const std::string& path, const AnyModel& m, const Floats& w, const FileType& type) {
  const Status saved = save_gguf(q, path, m, w.data(), type, m.name, [&](GgufWriter& f) {
    set_tokenizer(f, *byte_tokenizer(m.config->vocab), m.config->vocab);
  });
  REQUIRE_MESSAGE(saved.ok(), message(saved));
}

std::vector<std::byte> bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto* p = reinterpret_cast<const std::byte*>(text.data());
  return {p, p + text.size()};
}

/// Whether decoding sees the weights of the arena.
void check_equal(const PackedModel& packed, const Floats& arena) {
  const AnyModel& m = packed.model();
  for (const NamedTensor& t : m.tensors) {
    CAPTURE(t.name());
    const PackedTensor& slot = packed.tensors()[t.slot];
    const float* want = arena.data() + t.offset;
    Floats got(static_cast<std::size_t>(t.size()));
    if (t.packed()) {
      REQUIRE(slot.matrix.rows == t.rows);
      REQUIRE(slot.matrix.cols == t.cols);
      for (std::size_t i = 0; i < slot.matrix.count; ++i) {
        const PackedPart& part = slot.matrix.parts[i];
        CHECK(part.first + part.rows.rows <= part_end(t.parts, t.rows, part.first));
        for (std::int64_t r = 0; r < part.rows.rows; ++r)
          unpack_row(part.rows, r, part.scale, got.data() + (part.first + r) * t.cols);
      }
    } else {
      for (std::int64_t i = 0; i < t.size(); ++i)
        got[static_cast<std::size_t>(i)] = slot.values[t.taps() ? i % t.cols * t.rows + i / t.cols : i];
    }
    CHECK(std::equal(got.begin(), got.end(), want));
  }
}

}  // namespace

TEST_CASE("weights are packed from a file of any format as they are loaded from it") {
  const TemporaryFolder folder;
  const std::string path = folder / "m.gguf";
  for (const int threads : {1, 3}) {
    const Cpu q = cpu(Isa::base, threads);
    for (const FileType& type : file_types)
      for (const AnyModel& m : models()) {
        CAPTURE(m.name);
        CAPTURE(type.name);
        save(q, path, m, weights_of(m), type);
        Floats loaded(m.arena_floats, 0.f);
        REQUIRE(load_gguf(q, *Gguf::open(path), m, loaded.data()));
        const auto packed = pack_gguf(q, path, m);
        REQUIRE_MESSAGE(packed, message(packed));
        check_equal(*packed, loaded);
        const auto from_memory = pack_gguf(q, bytes_of(path), m);
        REQUIRE_MESSAGE(from_memory, message(from_memory));
        CHECK(from_memory->fingerprint() == packed->fingerprint());
      }
  }
}

TEST_CASE("weights are packed from an arena, and told apart") {
  const Cpu q = cpu(Isa::base, 2);
  for (const AnyModel& m : models()) {
    Floats w = weights_of(m);
    const auto packed = PackedModel::create(q, m, w.data());
    REQUIRE(packed);
    check_equal(*packed, w);
    w[0] += 1;
    CHECK(PackedModel::create(q, m, w.data())->fingerprint() != packed->fingerprint());
  }
}

TEST_CASE("sources that do not make up a matrix are refused") {
  const Cpu q = cpu(Isa::base, 1);
  const AnyModel m = table_of<plain>("plain");
  const auto read = [](std::size_t, std::int64_t, std::int64_t, std::byte*) { return Status{}; };
  const auto values = [](std::size_t, float*) { return Status{}; };
  const std::int64_t rows = m.tensors[0].rows;
  for (const auto& sources : {std::vector<RowSource>{},
                              {{0, 0, rows - 1, Format::f32}},
                              {{0, 1, rows - 1, Format::f32}},
                              {{0, 0, rows, Format::f32}, {0, 1, 2, Format::f32}}}) {
    const auto packed = PackedModel::create(q, m, sources, read, values);
    REQUIRE_FALSE(packed);
    CHECK(contains(message(packed), "rows"));
  }
}

TEST_CASE("a matrix that comes in more parts than there is room for is refused") {
  const Cpu q = cpu(Isa::base, 1);
  const AnyModel m = table_of<plain>("plain");
  const auto read = [](std::size_t, std::int64_t, std::int64_t, std::byte*) { return Status{}; };
  const auto values = [](std::size_t, float*) { return Status{}; };
  std::vector<RowSource> sources;
  for (std::int64_t i = 0; i < 7; ++i) sources.push_back({0, 16 * i, 16, Format::f32});
  const auto packed = PackedModel::create(q, m, sources, read, values);
  REQUIRE_FALSE(packed);
  CHECK(contains(message(packed), "more than 6 parts"));
}

TEST_CASE("a file is quantized as it is written in that format") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 2);
  for (const AnyModel& m : models())
    for (const char* name : {"f16", "q8_0", "q4_0", "q4_k_m"}) {
      CAPTURE(m.name);
      CAPTURE(name);
      const FileType& type = *file_type_named(name);
      save(q, folder / "whole.gguf", m, weights_of(m), file_types[0]);
      save(q, folder / "written.gguf", m, weights_of(m), type);
      REQUIRE(quantize_gguf(q, *Gguf::open(folder / "whole.gguf"), folder / "made.gguf", type,
                            [](std::size_t, std::int64_t) {}));
      const auto written = Gguf::open(folder / "written.gguf"), made = Gguf::open(folder / "made.gguf");
      for (const GgufTensor& t : written->tensors()) {
        CAPTURE(t.name);
        CHECK(made->tensor(t.name)->format == t.format);
      }
    }
}

TEST_CASE("a file whose numbers are none, or that becomes shorter while it is read, is an error") {
  const TemporaryFolder folder;
  const std::string path = folder / "m.gguf";
  const Cpu q = cpu(Isa::base, 2);
  const AnyModel m = table_of<plain>("plain");
  Floats w = weights_of(m);
  save(q, path, m, w, file_types[0]);
  const auto size = std::filesystem::file_size(path);
  const auto file = Gguf::open(path);
  REQUIRE(file);
  std::filesystem::resize_file(path, size - 8192);
  CHECK(contains(message(pack_gguf(q, *file, m)), "the file has become shorter"));
  std::filesystem::resize_file(path, size);

  auto bytes = bytes_of(path);
  std::fill(bytes.end() - 64, bytes.end(), std::byte{0xFF});
  CHECK(contains(message(pack_gguf(q, bytes, m)), "expected numbers"));
  CHECK_FALSE(pack_gguf(q, std::span(bytes).first(bytes.size() / 2), m));
  CHECK(contains(message(pack_gguf(q, path, table_of<hybrid>("hybrid"))), "is not that of the model hybrid"));
}

TEST_CASE("a file of a model with ternary matrices has what they round") {
  const TemporaryFolder folder;
  const std::string path = folder / "m.gguf";
  const Cpu q = cpu(Isa::base, 2);
  const auto save_as = [&](const AnyModel& m, std::string_view type) {
    return save_gguf(q, path, m, weights_of(m).data(), *file_type_named(type), m.name,
                     [&](GgufWriter& f) { set_tokenizer(f, *byte_tokenizer(m.config->vocab), m.config->vocab); });
  };
  const AnyModel m = table_of<ternary>("ternary"), b = table_of<ternary_bitnet>("ternary_bitnet");
  REQUIRE(save_as(m, "F32"));
  Floats loaded(m.arena_floats, 0.f);
  REQUIRE(load_gguf(q, *Gguf::open(path), m, loaded.data()));
  CHECK(loaded == weights_of(m));
  CHECK(pack_gguf(q, path, m)->fingerprint() == PackedModel::create(q, m, loaded.data())->fingerprint());
  CHECK(message(save_as(m, "Q4_0")) == "a model with ternary matrices is written as TQ2_0, F32, F16 or BF16");

  const auto check_matrices = [](const PackedModel& got, const PackedModel& want, double tolerance) {
    for (const NamedTensor& t : want.model().tensors)
      if (t.packed() && t.name().starts_with("blk."))
        for (std::int64_t r = 0; r < t.rows; ++r) {
          const auto row = [&](const PackedModel& p) {
            Floats values(static_cast<std::size_t>(t.cols));
            for (const PackedPart& part : p.tensors()[t.slot].matrix.parts)
              if (part.rows.rows > 0 && r >= part.first && r < part.first + part.rows.rows)
                unpack_row(part.rows, r - part.first, part.scale, values.data());
            return values;
          };
          CHECK(difference(row(got), row(want)) < tolerance);
        }
  };

  // Our own files have codes of two bits and scales.
  for (const AnyModel& own : {m, table_of<ternary_groups>("ternary_groups")}) {
    REQUIRE(message(save_as(own, "TQ2_0")) == "");
    const auto read = pack_gguf(q, path, own);
    REQUIRE_MESSAGE(read, message(read));
    // A group's scale may round to the other F16 beside it.
    check_matrices(*read, *PackedModel::create(q, own, weights_of(own).data()),
                   own.config->ternary.group ? 1e-3 : 1e-5);
    const auto file = Gguf::open(path);
    const GgufTensor* codes = file->tensor("blk.1.attn_output.weight");
    REQUIRE(codes);
    CHECK((codes->format == Format::i8 && codes->ne[0] == 64));
    auto bytes = bytes_of(path);
    const std::string_view whole(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto at = whole.find(std::string_view(reinterpret_cast<const char*>(codes->data.data()), 64));
    bytes[at] |= std::byte{3};
    CHECK(contains(message(pack_gguf(q, bytes, own)), "attn_output.weight: expected the codes 0, 1 and 2"));
  }

  // llama.cpp's bitnet computes with what a file has: the three values themselves.
  CHECK(message(save_as(b, "F32")) == "a model with ternary matrices is written as TQ1_0 or TQ2_0");
  REQUIRE(save_as(b, "TQ2_0"));
  const AnyModel without = table_of<bitnet>("bitnet");
  const auto three = pack_gguf(q, path, without), ours = PackedModel::create(q, b, weights_of(b).data());
  REQUIRE_MESSAGE(three, message(three));
  check_matrices(*three, *ours, 1e-5);
}
