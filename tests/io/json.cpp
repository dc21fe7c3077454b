#include <chimera/io/json.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace chimera;

namespace {

std::string error_of(std::string_view text, int depth = 64) {
  const auto parsed = Json::parse(text, depth);
  return parsed ? "" : parsed.error().message;
}

}  // namespace

TEST_CASE("values are read where they lie") {
  const std::string text = R"( {"name" : "a\n\"b\" \u00e9 \ud83d\ude00", "n": [1, -2.5e3, 12345678901234567, 3.0],
    "yes": true, "no": false, "none": null, "in": {"deep": [[], {}, [[7]]]}, "": 0} )";
  const auto json = Json::parse(text);
  REQUIRE(json.ok());
  CHECK(json->kind() == Json::Kind::object);
  CHECK(*json->string_at("name") == "a\n\"b\" \xC3\xA9 \xF0\x9F\x98\x80");
  CHECK(*json->boolean_at("yes"));
  CHECK_FALSE(*json->boolean_at("no"));
  CHECK(json->find("none")->is(Json::Kind::null));
  CHECK(*json->integer_at("") == 0);

  std::vector<double> numbers;
  for (const Json& n : json->find("n")->elements()) numbers.push_back(*n.number());
  CHECK(numbers == std::vector<double>{1, -2500, 12345678901234567., 3});
  std::vector<std::int64_t> integers;
  for (const Json& n : json->find("n")->elements()) integers.push_back(*n.integer());
  CHECK(integers == std::vector<std::int64_t>{1, -2500, 12345678901234567, 3});

  std::string keys;
  for (const auto& [key, value] : json->members()) keys += *key.string() + ",";
  CHECK(keys == "name,n,yes,no,none,in,,");
  std::vector<std::string> deep;
  for (const Json& v : json->find("in")->find("deep")->elements()) deep.emplace_back(v.text());
  CHECK(deep == std::vector<std::string>{"[]", "{}", "[[7]]"});
}

TEST_CASE("scalars, and kinds that are asked for in vain") {
  CHECK(Json::parse("17")->integer() == 17);
  CHECK(Json::parse("\t-0 ")->integer() == 0);
  CHECK(Json::parse("\"x\"")->string() == "x");
  CHECK_FALSE(Json::parse("1.5")->integer());
  CHECK_FALSE(Json::parse("9223372036854775808")->integer());
  CHECK_FALSE(Json::parse("1e999")->number());
  CHECK_FALSE(Json::parse("\"1\"")->number());
  CHECK_FALSE(Json::parse("1")->string());
  CHECK_FALSE(Json::parse("[1]")->find("a"));
  for (const Json& element : Json::parse("{\"a\": 1}")->elements()) FAIL(element.text());
  const auto json = Json::parse(R"({"a": "x", "b": 1.5})");
  CHECK(json->integer_at("a").error().message == "\"a\": expected a number, found a string");
  CHECK(json->integer_at("b").error().message == "\"b\": expected an integer, found 1.5");
  CHECK(json->integer_at("c").error().message == "\"c\": expected a number, found nothing");
}

TEST_CASE("the first of two members with one name counts, also when it is written with escapes") {
  const auto json = Json::parse(R"({"\u0061": 1, "a": 2})");
  CHECK(*json->integer_at("a") == 1);
}

TEST_CASE("what is no JSON is refused, with the place") {
  CHECK(error_of("{\"a\":\n 1,}") == "expected a name in quotes at byte 9 (line 2), found '}'");
  CHECK(error_of("[1 2]") == "expected ',' or ']' at byte 3 (line 1), found '2'");
  CHECK(error_of("") == "expected a value at byte 0 (line 1), found the end of the text");
  CHECK(error_of("[1] x") == "expected the end of the text at byte 4 (line 1), found 'x'");
  CHECK(error_of("\"\xFF\"") == "expected UTF-8 at byte 1 (line 1), found the byte 255");
  for (const char* text : {"[",
                           "{",
                           "[1,",
                           "{\"a\"",
                           "{\"a\":",
                           "{\"a\":1",
                           "{1:2}",
                           "[,]",
                           "[1,]",
                           "01",
                           "-",
                           "1.",
                           ".5",
                           "1e",
                           "+1",
                           "nul",
                           "True",
                           "\"",
                           "\"\\",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\u12g4\"",
                           "\"\\ud800\"",
                           "\"\\udc00\"",
                           "\"\\ud800\\u0041\"",
                           "\"\n\"",
                           "\"\xC0\x80\"",
                           "\"\xED\xA0\x80\"",
                           "]",
                           "}",
                           "[}",
                           "{]",
                           "[1]]",
                           "NaN",
                           "Infinity",
                           "'a'",
                           "[1:2]",
                           "{\"a\",1}",
                           "\xEF\xBB\xBF{}"})
    CHECK_MESSAGE(error_of(text) != "", text);
  CHECK(error_of(std::string(1, '\0')) != "");
}

TEST_CASE("values inside one another have a limit, and no stack is used up") {
  const auto nested = [](std::size_t n) { return std::string(n, '[') + "1" + std::string(n, ']'); };
  CHECK(error_of(nested(64)) == "");
  CHECK(error_of(nested(65)) == "expected at most 64 values inside one another at byte 65 (line 1)");
  CHECK(error_of(std::string(10'000'000, '[')) != "");
  CHECK(error_of(nested(1'000'000), 2'000'000) == "");
}

TEST_CASE("every prefix and every changed byte of a text is refused or read") {
  const std::string text = R"({"a":[1,2.5e-3,{"b":"c\u00e9\ud83d\ude00\\"}],"d":null,"e":[true,false,[]],"f":{}})";
  const auto walk = [](const Json& json, auto&& self) -> std::size_t {
    std::size_t n = json.text().size() + json.string().value_or("").size();
    for (const Json& e : json.elements()) n += self(e, self);
    for (const auto& [key, value] : json.members()) n += self(key, self) + self(value, self);
    return n;
  };
  REQUIRE(Json::parse(text).ok());
  for (std::size_t length = 0; length < text.size(); ++length) CHECK_FALSE(Json::parse(text.substr(0, length)).ok());
  int read = 0;
  for (std::size_t at = 0; at < text.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = text;
      changed[at] = static_cast<char>(byte);
      const auto json = Json::parse(changed);
      if (json) read += walk(*json, walk) > 0;
    }
  CHECK(read > 100);
}

TEST_CASE("quoted text reads back as itself") {
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  all += "\xE0\xA4\x95\xF0\x9F\x98\x80";
  const std::string quoted = json_quoted(all);
  CHECK(Json::parse(quoted)->string() == all);
  CHECK(json_quoted("a\xFF"
                    "b\xC3") ==
        "\"a\xEF\xBF\xBD"
        "b\xEF\xBF\xBD\"");
}
