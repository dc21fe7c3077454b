// What a host may hand over by mistake: each is an error of that call, and nothing is lost or leaks.
#include <doctest/doctest.h>

#include "temporary_folder.hpp"

#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/pack.hpp>
#include <chimera/exchange/quantization_mix.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/model/language_model.hpp>

#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#include <unistd.h>
#endif

using namespace chimera;

namespace {

constexpr Config fed{.vocab = 272,
                     .width = 32,
                     .context = 40,
                     .layers = pattern("M", 2),
                     .mamba2 = {.head_dim = 16, .state = 8},
                     .ffn = {.hidden = 48}};
constexpr AnyModel fed_model = inference_model<fed>("fed");

std::vector<float> fed_weights(std::uint64_t seed = 1) {
  std::vector<float> weights(fed_model.arena_floats);
  fed_model.initialize(weights.data(), seed);
  return weights;
}

PackedModel fed_packed(const Cpu& q, std::uint64_t seed = 1) {
  return *PackedModel::create(q, fed_model, fed_weights(seed).data());
}

/// A file of the model, with or without a tokenizer.
std::string write_model(const std::string& path, const std::vector<float>& weights, bool tokenizer = true) {
  const Cpu q = *Cpu::create(1);
  const auto words = [&](GgufWriter& file) {
    if (tokenizer) set_tokenizer(file, *byte_tokenizer(fed.vocab), fed.vocab);
  };
  REQUIRE(save_gguf(q, path, fed_model, weights.data(), file_types[0], "fed", words));
  return path;
}

template <class R>
std::string message(const R& result) {
  return result.ok() ? "no error" : result.error().message;
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void run_here(void*, std::int64_t count, TaskFunction task, void* context) {
  for (std::int64_t i = 0; i < count; ++i) task(context, i, 0);
}

/// Of this process; 0 where that cannot be told.
struct Memory {
  std::size_t heap = 0, resident = 0;  // bytes in use

  static Memory now() {
    Memory m;
#if defined(__GLIBC__)
    const auto info = ::mallinfo2();
    m.heap = info.uordblks + info.hblkhd;
    long pages = 0, resident = 0;
    if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
      if (std::fscanf(file, "%ld %ld", &pages, &resident) == 2)
        m.resident = static_cast<std::size_t>(resident * ::sysconf(_SC_PAGESIZE));
      std::fclose(file);
    }
#endif
    return m;
  }
};

}  // namespace

TEST_CASE("threads that cannot be") {
  CHECK(message(Cpu::create(-1)) == "threads must be 0 (one for each processor) or more, found -1");
  CHECK(message(Cpu::create(INT_MIN)) == "threads must be 0 (one for each processor) or more, found -2147483648");
  const std::string needs = "an executor needs a run function and at least one thread";
  CHECK(message(Cpu::create(Executor{.threads = 0, .run = run_here})) == needs);
  CHECK(message(Cpu::create(Executor{.threads = -3, .run = run_here})) == needs);
  CHECK(message(Cpu::create(Executor{.threads = 1})) == needs);
  CHECK(contains(message(Cpu::create(Executor{.threads = INT_MAX, .run = run_here})), "out of memory"));
  REQUIRE(Cpu::create(0));
  CHECK(Cpu::create(0)->threads() >= 1);
  const auto q = Cpu::create(Executor{.threads = 1, .run = run_here});
  REQUIRE(q);
  const PackedModel model = fed_packed(*q);
  auto session = Session::create(*q, model);
  REQUIRE(session);
  CHECK(session->step('a'));
}

TEST_CASE("weights that are no numbers are found in a file, and in memory as soon as a token is drawn") {
  const Cpu q = *Cpu::create(1);
  const TemporaryFolder folder;
  std::string content = read_file(write_model(folder / "model.gguf", fed_weights()));
  const auto file = Gguf::parse(std::as_bytes(std::span(content)));
  REQUIRE(file);
  for (const GgufTensor& t : file->tensors())
    for (const float wrong : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      REQUIRE(t.format == Format::f32);
      char* const number = content.data() + (reinterpret_cast<const char*>(t.data.data()) - content.data()) +
                           t.size() / 2 * static_cast<std::int64_t>(sizeof wrong);
      float right = 0;
      std::memcpy(&right, number, sizeof right);
      std::memcpy(number, &wrong, sizeof wrong);
      const std::string error = message(pack_gguf(q, *file, fed_model));
      CHECK_MESSAGE(contains(error, "tensor " + t.name), error);
      std::memcpy(number, &right, sizeof right);
    }
  CHECK(pack_gguf(q, *file, fed_model));

  std::vector<float> weights = fed_weights();
  const NamedTensor& last = fed_model.tensors.back();
  REQUIRE(last.name() == "output_norm.weight");
  weights[last.offset] = std::numeric_limits<float>::quiet_NaN();
  const PackedModel broken = *PackedModel::create(q, fed_model, weights.data()), whole = fed_packed(q);
  Session first = *Session::create(q, broken), second = *Session::create(q, whole);
  TokenSampler sampler = *TokenSampler::create(fed.vocab, {});
  for (int i = 0; i < 3; ++i) {
    const auto logits = first.step('a'), others = second.step('a');
    REQUIRE(logits);
    REQUIRE(others);
    CHECK_FALSE(sampler.draw(*logits));
    CHECK(sampler.draw(*others));
  }
}

TEST_CASE("a file that becomes shorter after it was opened is an error, wherever it ends") {
  const Cpu q = *Cpu::create(2);
  const TemporaryFolder folder;
  const std::string whole = write_model(folder / "whole.gguf", fed_weights()), content = read_file(whole);
  const std::size_t size = content.size(), header = [&] {
    const auto file = Gguf::open(whole);
    return size - static_cast<std::size_t>(file->tensors().back().data.data() + file->tensors().back().data.size() -
                                           file->tensors().front().data.data());
  }();
  REQUIRE(header > 4096);
  for (const std::size_t left : {std::size_t{0}, std::size_t{1}, std::size_t{4096}, header - 1, header, header + 5000,
                                 size / 2, size - 5000, size - 1}) {
    CAPTURE(left);
    const std::string path = write_file(folder / "short.gguf", content);
    const auto file = Gguf::open(path);
    REQUIRE(file);
    REQUIRE(::truncate(path.c_str(), static_cast<off_t>(left)) == 0);
    CHECK(contains(message(pack_gguf(q, *file, fed_model)), "the file has become shorter"));
    CHECK(tokenizer_of(*file, fed.vocab));  // the header was read
    CHECK_FALSE(pack_gguf(q, path, fed_model));
  }
}

TEST_CASE("bytes that are no model") {
  const Cpu q = *Cpu::create(1);
  const TemporaryFolder folder;
  const std::string content = read_file(write_model(folder / "model.gguf", fed_weights()));
  const auto bytes = std::as_bytes(std::span(content));
  CHECK(pack_gguf(q, bytes, fed_model));
  CHECK_FALSE(pack_gguf(q, std::span<const std::byte>(), fed_model));
  for (std::size_t n = 1; n < content.size(); n = n * 5 / 3 + 1) CHECK_FALSE(pack_gguf(q, bytes.first(n), fed_model));
  static constexpr Config wider = [] {
    Config c = fed;
    c.width = 64;
    return c;
  }();
  CHECK_FALSE(pack_gguf(q, bytes, inference_model<wider>("wider")));
}

TEST_CASE("a model without a tokenizer speaks bytes, if it has as many tokens") {
  const TemporaryFolder folder;
  const auto file = Gguf::open(write_model(folder / "model.gguf", fed_weights(), false));
  REQUIRE(file);
  const auto tokenizer = tokenizer_of(*file, fed.vocab);
  REQUIRE(tokenizer);
  CHECK(tokenizer->encode("ab") == std::vector<std::int32_t>{'a', 'b'});
  CHECK(message(tokenizer_of(*file, 255)) == "the model's vocabulary has 255 tokens, text as bytes needs 256");
  const auto named = Gguf::open(write_model(folder / "named.gguf", fed_weights()));
  REQUIRE(named);
  CHECK(
      contains(message(tokenizer_of(*named, 100)), "the tokenizer of the model's file has 272 tokens, the model 100"));
}

TEST_CASE("memory stays flat over a thousand calls that fail") {
  const Cpu q = *Cpu::create(1);
  const TemporaryFolder folder;
  const std::string path = write_model(folder / "model.gguf", fed_weights()), content = read_file(path);
  const std::string cut = write_file(folder / "cut.gguf", content.substr(0, content.size() - 1));
  const PackedModel model = fed_packed(q), other = fed_packed(q, 2);
  Session session = *Session::create(q, model), restored = *Session::create(q, other);
  REQUIRE(session.step('a'));
  const auto saved = session.save();
  REQUIRE(saved);
  const std::vector<std::int32_t> too_long(100'000, 'a'), unknown{'a', INT32_MAX, INT32_MIN};
  const std::vector<float> no_numbers(fed.vocab, std::numeric_limits<float>::quiet_NaN());
  TokenSampler sampler = *TokenSampler::create(fed.vocab, {});

  int errors = 0;
  const auto failing_calls = [&] {
    errors += !session.prefill(too_long);
    errors += !session.push(unknown);
    errors += !session.step(INT32_MIN);
    errors += !restored.restore(*saved);  // of other weights
    errors += !restored.restore((folder / "nowhere"));
    errors += !Session::create(q, model, {.piece = -1});
    errors += !sampler.draw(no_numbers);
    errors += !TokenSampler::create(fed.vocab, {.top_p = 2});
    errors += !pack_gguf(q, cut, fed_model);
    errors += !Cpu::create(-1);
  };
  for (int i = 0; i < 10; ++i) failing_calls();
  const Memory before = Memory::now();
  for (int i = 0; i < 100; ++i) failing_calls();
  const Memory after = Memory::now();
  CHECK(errors == 1100);
  CHECK(after.heap <= before.heap + 1024);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)  // AddressSanitizer keeps what was freed for a while
  CHECK(after.resident <= before.resident + (std::size_t{1} << 20));
#endif
  CHECK(session.position() == 1);
  CHECK(restored.position() == 0);
  CHECK(session.step('b'));
}
