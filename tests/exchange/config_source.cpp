#include <doctest/doctest.h>

#include <chimera/config/presets.hpp>
#include <chimera/exchange/config_source.hpp>

using namespace chimera;

TEST_CASE("a config's source names what is not at its default, and nothing else") {
  const auto source = config_source(presets::hybrid_700m, "mine");
  REQUIRE(source.ok());
  CHECK(*source ==
        "inline constexpr chimera::Config mine{\n"
        "    .vocab = 65536,\n"
        "    .width = 1280,\n"
        "    .context = 8192,\n"
        "    .layers = chimera::pattern(\"M M M M M A M M\", 32),\n"
        "    .attention = {.heads = 20, .kv_heads = 4},\n"
        "    .ffn = {.hidden = 2560},\n"
        "    .checkpointing = true};\n");
}

TEST_CASE("a pattern is as short as its period allows") {
  Config c;
  const auto pattern_of = [&](const Layers& layers) {
    c.layers = layers;
    return *config_source(c, "c");
  };
  CHECK(pattern_of(pattern("A", 7)).find("pattern(\"A\", 7)") != std::string::npos);
  CHECK(pattern_of(pattern("A M", 7)).find("pattern(\"A M\", 7)") != std::string::npos);
  CHECK(pattern_of(pattern("A")).find("pattern(\"A\")") != std::string::npos);
  CHECK(pattern_of(pattern("M M A", 4)).find("pattern(\"M M A M\")") != std::string::npos);
  CHECK(pattern_of(pattern("M A+E", 8)).find("pattern(\"M A+E\", 8)") != std::string::npos);
  CHECK(pattern_of(pattern("M A GD")).find("pattern(\"M A GD\")") != std::string::npos);
}

TEST_CASE("numbers are spelled so that they read back as the same bits") {
  CHECK(config_source_parts::text_of(1.f) == "1.f");
  CHECK(config_source_parts::text_of(0.1f) == "0.1f");
  CHECK(config_source_parts::text_of(1e-5f) == "1e-05f");
  CHECK(config_source_parts::text_of(1e20f) == "1e+20f");
  CHECK(config_source_parts::text_of(-0.f) == "-0.f");
  CHECK(config_source_parts::text_of(-std::numeric_limits<float>::infinity()) ==
        "-std::numeric_limits<float>::infinity()");
  CHECK(config_source_parts::text_of(std::numeric_limits<float>::quiet_NaN()) ==
        "std::numeric_limits<float>::quiet_NaN()");
  CHECK(config_source_parts::text_of(static_cast<RopeScaling>(77)) == "chimera::RopeScaling(77)");
}

TEST_CASE("what cannot be said is an error") {
  const Config& c = presets::nano;
  for (const std::string name : {"", "1a", "a b", "a;", "a\n", "_a", "a__b", "a\\", "\xE0\xA4\x95", "x{}; int y"})
    CHECK_FALSE(config_source(c, name).ok());
  CHECK_FALSE(config_source(c, std::string(101, 'a')).ok());
  CHECK_FALSE(config_source(Config{}, "a").ok());
  Config wrong = c;
  wrong.layers.unknown_word = true;
  CHECK_FALSE(config_source(wrong, "a").ok());
  wrong = c;
  wrong.layers.count = 257;
  CHECK_FALSE(config_source(wrong, "a").ok());
}

TEST_CASE("any text makes an identifier that is no keyword") {
  for (const auto& [text, name] : {std::pair<std::string, std::string>{"tiny-random.v2", "tiny_random_v2_config"},
                                   {"7b", "model_7b_config"},
                                   {"", "model_config"},
                                   {"int", "int_config"},
                                   {"__x__", "x_config"},
                                   {"a{};\n#include</etc/passwd>", "a_include_etc_passwd_config"},
                                   {"\xE0\xA4\xB9 \xE0\xA4\xB9", "model_config"}})
    CHECK(config_identifier(text) == name);
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (int j = 0; j < i % 90; ++j)
      text += static_cast<char>((static_cast<unsigned>(i) * 2654435761u >> (j % 24)) + 77u * static_cast<unsigned>(j));
    CHECK_MESSAGE(is_identifier(config_identifier(text)), config_identifier(text));
  }
}

TEST_CASE("facts in a header stay comments") {
  const auto header =
      config_header(presets::nano, "mine", "from x.gguf\nint main() {}\\\nsplit?\?/\r\nint a; \xE2\x80\xAE*/\n\n");
  REQUIRE(header.ok());
  CHECK(
      header->starts_with("// from x.gguf\n"
                          "// int main() {}_\n"
                          "// split__/_\n"
                          "// int a; ___*/\n"
                          "// \n"
                          "#pragma once\n"));
  CHECK(header->ends_with(*config_source(presets::nano, "mine")));
}

TEST_CASE("a program that holds the file says where it is, whatever its name") {
  const auto header = config_header(presets::nano, "mine", "", true);
  REQUIRE(header.ok());
  CHECK(header->ends_with(";\n\n/// The whole file.\nstd::span<const std::byte> mine_file();\n"));
  CHECK(header->find("#include <span>") != std::string::npos);

  const auto source = embedding_source("mine", "/models/a-1.gguf");
  REQUIRE(source.ok());
  CHECK(source->find(".incbin \\\"/models/a-1.gguf\\\"\\n\"\n") != std::string::npos);
  CHECK(source->find("std::span<const std::byte> mine_file() {") != std::string::npos);
  const auto odd = embedding_source("mine", "/a b\"\n\\\xE0\x01%n");
  REQUIRE(odd.ok());
  CHECK(odd->find("/a\\\\040b\\\\042\\\\012\\\\134\\\\340\\\\001\\\\045n\\\"") != std::string::npos);
  CHECK_FALSE(embedding_source("a b", "/a"));
}
