// Records of conversations and of preferences, in the forms of other projects.
#include <chimera/align/chat_data.hpp>

#include "data.hpp"

#include <doctest/doctest.h>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace chimera;
using Messages = std::vector<ChatMessage>;

Result<Messages> conversation(std::string_view text) {
  const auto json = Json::parse(text);
  REQUIRE(json.ok());
  return conversation_of(*json);
}
Result<Preference> preference(std::string_view text) {
  const auto json = Json::parse(text);
  REQUIRE(json.ok());
  return preference_of(*json);
}

bool says(const auto& result, std::string_view words) {
  return !result && result.error().message.find(words) != std::string::npos;
}

const Messages asked{{"user", "Hi"}, {"assistant", "Hello."}};

}  // namespace

TEST_CASE("one conversation in all forms") {
  for (
      const std::string_view text :
      {R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]})",
       R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
            {"role": "assistant", "content": "Hello."}]})",
       R"({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]})",
       R"({"prompt": "Hi", "completion": "Hello."})",
       R"({"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello."}]})",
       R"({"instruction": "Hi", "input": "", "output": "Hello."})", R"({"instruction": "Hi", "output": "Hello."})",
       R"({"question": "Hi", "answer": "Hello."})"}) {
    CAPTURE(text);
    const auto found = conversation(text);
    REQUIRE_MESSAGE(found.ok(), found.error().message);
    CHECK(*found == asked);
  }
  CHECK(*conversation(R"({"instruction": "Add", "input": "1 2", "output": "3", "system": "Be brief"})") ==
        Messages{{"system", "Be brief"}, {"user", "Add\n\n1 2"}, {"assistant", "3"}});
  CHECK(conversation(R"({"messages": [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "calls"},
                          {"role": "tool", "content": "4"}, {"role": "assistant", "content": "four"}]})")
            ->at(2) == ChatMessage{"tool", "4"});
}

TEST_CASE("what is no conversation is told in a sentence") {
  CHECK(says(conversation("[1]"), "expected an object, found an array"));
  CHECK(says(conversation("{}"), "expected \"messages\""));
  CHECK(says(conversation(R"({"prompt": "Hi"})"), "an assistant's answer at the end, found the role user"));
  CHECK(says(conversation(R"({"prompt": "Hi", "completion": " \n"})"), "the answer is empty"));
  CHECK(
      says(conversation(R"({"prompt": 3, "completion": "x"})"), "\"prompt\": expected a text or messages, found a nu"));
  CHECK(says(conversation(R"({"messages": [{"role": "judge", "content": "x"}]})"), "found \"judge\""));
  CHECK(says(conversation(R"({"messages": [{"role": "user"}]})"), "a message has no \"content\""));
  CHECK(says(conversation(R"({"messages": [{"content": "x"}]})"), "\"role\""));
  CHECK(says(conversation(R"({"messages": [{"role": "user", "content": [{"type": "image"}]}]})"), "parts of the type"));
  CHECK(says(conversation(R"({"messages": []})"), "expected \"messages\""));
}

TEST_CASE("one preference in all forms") {
  for (const std::string_view text :
       {R"({"prompt": "Hi", "chosen": "Hello.", "rejected": "Go."})",
        R"({"instruction": "Hi", "input": "", "output": "unused", "chosen": "Hello.", "rejected": "Go."})",
        R"({"chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
            "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Go."}]})",
        R"({"prompt": "Hi",
            "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
            "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Go."}]})",
        R"({"prompt": "Hi", "chosen": [{"role": "assistant", "content": "Hello."}],
            "rejected": [{"role": "assistant", "content": "Go."}]})",
        R"({"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello."},
            "rejected": {"from": "gpt", "value": "Go."}})",
        R"({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."})"}) {
    CAPTURE(text);
    const auto found = preference(text);
    REQUIRE_MESSAGE(found.ok(), found.error().message);
    CHECK(found->prompt == Messages{{"user", "Hi"}});
    CHECK(found->chosen == "Hello.");
    CHECK(found->rejected == "Go.");
  }
  const auto longer = preference(R"({"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                                     "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e"})");
  REQUIRE(longer.ok());
  CHECK(longer->prompt == Messages{{"user", "a"}, {"assistant", "b"}, {"user", "c"}});
}

TEST_CASE("what is no preference is told in a sentence") {
  CHECK(says(preference(R"({"prompt": "Hi", "chosen": "x"})"), "it has no \"rejected\""));
  CHECK(says(preference(R"({"prompt": "Hi", "chosen": "x", "rejected": "x"})"), "the two answers are equal"));
  CHECK(says(preference(R"({"prompt": "Hi", "chosen": "", "rejected": "x"})"), "\"chosen\": the answer is empty"));
  CHECK(says(preference(R"({"chosen": "x", "rejected": "y"})"), "no prompt"));
  CHECK(says(preference(R"({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"})"),
             "part before their last answer"));
  CHECK(says(preference(R"({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a\n\nAssistant: d"})"),
             "found the role user"));
}

TEST_CASE("records are lines, or the elements of an array; a broken one is told and the rest is read") {
  const auto read = [](std::string_view text) {
    std::string all;
    each_record(text, [&](std::int64_t number, const Result<Json>& record) {
      all += std::to_string(number) + (record ? std::string(record->text()) : "!") + " ";
    });
    return all;
  };
  CHECK(read("1\n\n{}\r\n{\n\"x\"") ==
        "1"
        "1 3{} 4! 5\"x\" ");
  CHECK(read(" [1, {\"a\": 2}]\n") == "11 2{\"a\": 2} ");
  CHECK(read("[1, ") == "1! ");
  CHECK(read("").empty());
  CHECK(read("\n \n").empty());
}

TEST_CASE("data sets of others are read whole, but for the records that nobody can use") {
  struct Set {
    const char* path;
    std::int64_t records, conversations, preferences;
  };
  // What is missing: pairs of equal answers, empty answers, transcripts that part before their last answer.
  for (const Set& set : {Set{"sft/alpaca_en_demo.json", 999, 999, 0}, Set{"sft/gsm8k_train.jsonl.gz", 7473, 7473, 0},
                         Set{"preference/dpo_en_demo.json", 300, 0, 300},
                         Set{"preference/instruction_preference.json", 1100, 1100, 1094},
                         Set{"preference/hh_harmless_train.jsonl.gz", 1800, 0, 1794},
                         Set{"preference/hh_harmless_test.jsonl.gz", 512, 0, 509}}) {
    const std::string text = read_data(set.path);
    if (text.empty()) continue;
    CAPTURE(set.path);
    std::int64_t records = 0, conversations = 0, preferences = 0;
    each_record(text, [&](std::int64_t, const Result<Json>& record) {
      REQUIRE(record.ok());
      ++records, conversations += conversation_of(*record).ok(), preferences += preference_of(*record).ok();
    });
    CHECK(records == set.records);
    CHECK(conversations == set.conversations);
    CHECK(preferences == set.preferences);
  }
}
