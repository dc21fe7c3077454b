#include <doctest/doctest.h>

#include <chimera/exchange/quantization_mix.hpp>

#include <initializer_list>
#include <string>

using namespace chimera;

namespace {

GgufTensor tensor(const std::string& name, std::initializer_list<std::int64_t> ne, Format format = Format::f32) {
  GgufTensor t;
  t.name = name;
  t.dims = static_cast<int>(ne.size());
  std::copy(ne.begin(), ne.end(), t.ne.begin());
  t.format = format;
  return t;
}

/// Every third layer of twelve has attention.
std::vector<GgufTensor> hybrid(std::int64_t width, bool tied) {
  std::vector<GgufTensor> all{tensor("token_embd.weight", {width, 512}), tensor("output_norm.weight", {width})};
  if (!tied) all.push_back(tensor("output.weight", {width, 512}));
  for (int i = 0; i < 12; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    all.push_back(tensor(block + "attn_norm.weight", {width}));
    if (i % 3 == 2) {
      for (const char* name : {"attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight"})
        all.push_back(tensor(block + name, {width, width}));
    } else {
      all.push_back(tensor(block + "ssm_in.weight", {width, 3 * width}));
      all.push_back(tensor(block + "ssm_conv1d.weight", {4, 2 * width}));
      all.push_back(tensor(block + "ssm_conv1d.bias", {2 * width}));
      all.push_back(tensor(block + "ssm_a", {1, 8}));
      all.push_back(tensor(block + "ssm_norm.weight", {width, 2}));
      all.push_back(tensor(block + "ssm_out.weight", {2 * width, width}));
    }
    all.push_back(tensor(block + "ffn_norm.weight", {width}));
    all.push_back(tensor(block + "ffn_up.weight", {width, 2 * width}));
    all.push_back(tensor(block + "ffn_down.weight", {2 * width, width}));
  }
  return all;
}

std::string format_in(const char* type, const std::vector<GgufTensor>& all, const std::string& name) {
  const QuantizationMix mix(*file_type_named(type), all);
  for (const GgufTensor& t : all)
    if (t.name == name) return std::string(format_info(mix.format_of(t))->name);
  return "no such tensor";
}

/// The formats of a tensor in all blocks that have it.
std::string formats_in(const char* type, const std::vector<GgufTensor>& all, const std::string& ending) {
  const QuantizationMix mix(*file_type_named(type), all);
  std::string text;
  for (const GgufTensor& t : all)
    if (t.name.ends_with(ending)) text += (text.empty() ? "" : " ") + std::string(format_info(mix.format_of(t))->name);
  return text;
}

}  // namespace

TEST_CASE("file types by their names") {
  CHECK(file_type_named("q4_k_m")->id == 15);
  CHECK(file_type_named("Q4_K") == file_type_named("Q4_K_M"));
  CHECK(file_type_named("TQ2_0")->format == Format::tq2_0);
  CHECK(file_type_named("Q2_K") == nullptr);
  CHECK(file_type_named("") == nullptr);
}

// What llama.cpp's quantizer made of files of these shapes.

TEST_CASE("Q4_K_M gives more bits to the head, and to some values and down projections") {
  const auto all = hybrid(256, true);
  CHECK(format_in("Q4_K_M", all, "token_embd.weight") == "Q6_K");
  CHECK(formats_in("Q4_K_M", all, "ffn_down.weight") == "Q6_K Q4_K Q4_K Q6_K Q4_K Q4_K Q6_K Q4_K Q4_K Q6_K Q6_K Q6_K");
  CHECK(formats_in("Q4_K_M", all, "attn_v.weight") == "Q4_K Q4_K Q6_K Q6_K");
  CHECK(formats_in("Q5_K_M", all, "attn_v.weight") == "Q5_K Q5_K Q6_K Q6_K");
  CHECK(formats_in("Q4_K_M", all, "attn_k.weight") == "Q4_K Q4_K Q4_K Q4_K");
  CHECK(formats_in("Q4_K_S", all, "ffn_down.weight") == "Q5_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K");
  CHECK(formats_in("Q4_K_S", all, "attn_v.weight") == "Q5_K Q5_K Q5_K Q5_K");
  const auto untied = hybrid(256, false);
  CHECK(format_in("Q4_K_M", untied, "token_embd.weight") == "Q4_K");
  CHECK(format_in("Q4_K_M", untied, "output.weight") == "Q6_K");
}

TEST_CASE("rows that K blocks do not fill take the nearest format that they do") {
  const auto all = hybrid(160, true);
  CHECK(format_in("Q4_K_M", all, "token_embd.weight") == "Q8_0");
  CHECK(format_in("Q4_K_M", all, "blk.0.ssm_in.weight") == "Q5_0");
  CHECK(format_in("Q5_K_M", all, "blk.0.ssm_in.weight") == "Q5_1");
  CHECK(format_in("Q6_K", all, "blk.0.ssm_in.weight") == "Q8_0");
  CHECK(format_in("TQ1_0", all, "blk.0.ssm_in.weight") == "Q4_0");
  CHECK(format_in("Q4_0", all, "token_embd.weight") == "Q8_0");
  CHECK(format_in("Q4_0", hybrid(80, true), "blk.0.ssm_in.weight") == "F16");
  CHECK(format_in("TQ2_0", hybrid(80, true), "token_embd.weight") == "F16");
}

TEST_CASE("files of ternary weights keep embedding and head finer") {
  CHECK(format_in("TQ2_0", hybrid(256, true), "token_embd.weight") == "Q6_K");
  CHECK(format_in("TQ2_0", hybrid(256, false), "token_embd.weight") == "Q4_K");
  CHECK(format_in("TQ2_0", hybrid(256, false), "output.weight") == "Q6_K");
  CHECK(format_in("TQ1_0", hybrid(256, true), "blk.0.ffn_up.weight") == "TQ1_0");
}

TEST_CASE("what is no matrix stays as it is") {
  const auto all = hybrid(256, true);
  for (const char* type : {"F16", "Q8_0", "Q4_K_M", "TQ2_0"})
    for (const char* name : {"output_norm.weight", "blk.0.ssm_conv1d.weight", "blk.0.ssm_conv1d.bias", "blk.0.ssm_a",
                             "blk.0.ssm_norm.weight", "blk.0.attn_norm.weight"})
      CHECK(format_in(type, all, name) == "F32");
  CHECK(format_in("F16", all, "token_embd.weight") == "F16");
  CHECK(format_in("Q8_0", all, "token_embd.weight") == "Q8_0");
}

// Their taps became F16: convolutions were known by Mamba-2's name alone.
TEST_CASE("taps and gates of every layer stay as they are, in files of ours, too") {
  const std::vector<GgufTensor> all{
      tensor("blk.0.rg_lru.conv1d.weight", {4, 256}), tensor("blk.0.rg_lru.update.weight", {64, 256}),
      tensor("blk.0.rg_lru.decay.weight", {64, 256}), tensor("blk.0.rg_lru.in.weight", {256, 256}),
      tensor("blk.1.attn_qkv.weight", {256, 768}),    tensor("blk.1.strange.weight", {256, 4}),
      tensor("blk.1.strange_norm.weight", {256, 4})};
  for (const char* name : {"blk.0.rg_lru.conv1d.weight", "blk.0.rg_lru.update.weight", "blk.0.rg_lru.decay.weight",
                           "blk.1.strange_norm.weight"})
    CHECK(format_in("Q8_0", all, name) == "F32");
  for (const char* name : {"blk.0.rg_lru.in.weight", "blk.1.attn_qkv.weight", "blk.1.strange.weight"})
    CHECK(format_in("Q8_0", all, name) == "Q8_0");
  CHECK(format_in("Q4_K_M", all, "blk.1.attn_qkv.weight") == "Q5_K");
}
