#include <doctest/doctest.h>

#include "temporary_folder.hpp"

#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/generate/conversation.hpp>

#include <atomic>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

using namespace chimera;

namespace {

constexpr Config short_config{.vocab = 256, .width = 1, .context = 150};

/// What the model was given to read, and what it is going to write: one letter for each row of logits.
std::string was_read, writes;
std::size_t written = 0;

AnyModel scripted_model() {
  AnyModel model;
  model.config = &short_config;
  model.state_bytes = [](KvFormat, std::int64_t) { return std::size_t{64}; };
  model.clear_state = [](KvFormat, std::byte* state) { std::memset(state, 0, 64); };
  model.copy_state = [](KvFormat, std::int64_t, std::int64_t, const std::byte* from, std::byte* to) {
    std::memcpy(to, from, 64);
  };
  model.decode_bytes = [](std::int64_t) { return std::size_t{64}; };
  model.stages = 1;
  model.decode = [](const Cpu&, const PackedTensor*, const ModelPass& pass, int) {
    for (std::int64_t t = 0; t < pass.rows; ++t) was_read += static_cast<char>(pass.tokens[t]);
    for (const Output& output : pass.outputs) {
      std::memset(output.logits, 0, 256 * sizeof(float));
      output.logits[static_cast<unsigned char>(writes[written++ % writes.size()])] = 1.f;
    }
  };
  return model;
}

/// What a conversation stands on.
struct Stage {
  Cpu cpu = *Cpu::create(1);
  PackedModel weights = *PackedModel::create(cpu, scripted_model(), nullptr);
  Tokenizer tokenizer = *byte_tokenizer(256);
  const ChatTemplate& form;

  explicit Stage(std::string_view name = "plain") : form(*chat_template_named(name)) { was_read.clear(); }
  Conversation begin(ConversationSettings settings = {}, SessionSettings session = {}) {
    return *Conversation::create(tokenizer, form, *Session::create(cpu, weights, session),
                                 *TokenSampler::create(256, {.temperature = 0.f}), settings);
  }
};

/// Says it, and returns the answer.
std::string answer(Conversation& c, const std::string& text, const std::string& script) {
  writes = script, written = 0;
  std::string shown;
  const auto answered = c.say(text, [&](std::string_view part) { shown += part; });
  REQUIRE(answered);
  CHECK(*answered);
  CHECK(c.messages().back() == ChatMessage{"assistant", shown});
  return shown;
}

}  // namespace

TEST_CASE("a conversation reads each message once") {
  Stage stage;
  Conversation c = stage.begin({.system = "Be brief."});
  CHECK(answer(c, "hi", "Hey!\n\n") == "Hey!");
  CHECK(answer(c, "and now?", "Bye.\n\n") == "Bye.");
  REQUIRE(c.messages().size() == 5);
  CHECK(was_read == render(stage.form, c.messages(), false));
  c.reset();
  REQUIRE(c.messages().size() == 1);
  was_read.clear();
  CHECK(answer(c, "again", "No.\n\n") == "No.");
  CHECK(was_read == render(stage.form, c.messages(), false));
}

TEST_CASE("a model that knows no conversations continues what is said, paragraph by paragraph") {
  Stage stage("text");
  Conversation c = stage.begin({.tokens = 7});
  CHECK(answer(c, "Once", " upon\n\n") == " upon");
  CHECK(answer(c, "The end", " came slowly") == " came s");
  CHECK(answer(c, "Then", "!\n\n") == "!");
  CHECK(was_read == "Once upon\n\nThe end came s\n\nThen!\n\n");
}

TEST_CASE("an answer ends at a stop string, after the most tokens, or when it is stopped, and the end is made up") {
  Stage stage;
  Conversation c = stage.begin({.tokens = 9, .stop = {"User"}});
  CHECK(answer(c, "a", "one User") == "one ");
  CHECK(answer(c, "b", "123456789ABC") == "123456789");

  std::atomic<bool> stop{false};
  std::string shown;
  writes = "abcdefgh", written = 0;
  const auto answered = c.say(
      "c",
      [&](std::string_view part) {
        shown += part;
        stop = shown.size() == 3;
      },
      &stop);
  REQUIRE(answered);
  CHECK(*answered);
  CHECK(shown == "abc");
  was_read.clear();
  stop = false;
  CHECK(answer(c, "d", "x\n\n") == "x");
  CHECK(was_read == "\n\nuser:\nd\n\nassistant:\nx\n\n");
}

TEST_CASE("a message that is not read does not count") {
  Stage stage;
  Conversation c = stage.begin();
  CHECK(answer(c, "a", "one\n\n") == "one");
  const std::vector<ChatMessage> before(c.messages().begin(), c.messages().end());
  const auto silent = [](std::string_view) { FAIL("an answer"); };
  CHECK(c.say(std::string(140, 'x'), silent).error().message ==
        "the message takes 159 tokens, and of the context of 150 125 are left");
  CHECK(std::equal(before.begin(), before.end(), c.messages().begin(), c.messages().end()));

  const std::atomic<bool> stop{true};
  const auto answered = c.say("b", silent, &stop);
  REQUIRE(answered);
  CHECK_FALSE(*answered);
  CHECK(std::equal(before.begin(), before.end(), c.messages().begin(), c.messages().end()));
  was_read.clear();
  CHECK(answer(c, "c", "two\n\n") == "two");  // all is read anew
  CHECK(was_read == render(stage.form, c.messages(), false));

  Conversation full = stage.begin();
  writes = "x", written = 0;
  std::string shown;
  const auto status = full.say("a", [&](std::string_view part) { shown += part; });
  REQUIRE_FALSE(status);
  CHECK(status.error().message == "the context of 150 tokens is full");
  CHECK(full.messages().back() == ChatMessage{"assistant", shown});  // what was written stays
}

TEST_CASE("a conversation is saved, and goes on or is read anew") {
  Stage stage;
  const TemporaryFolder folder;
  const std::string path = folder / "talk";
  Conversation c = stage.begin({.system = "Be brief."});
  CHECK(answer(c, "a", "one\n\n") == "one");
  REQUIRE(c.save(path));

  Conversation same = stage.begin();
  auto note = same.load(path);
  REQUIRE(note);
  CHECK(note->empty());
  CHECK(std::equal(same.messages().begin(), same.messages().end(), c.messages().begin(), c.messages().end()));
  was_read.clear();
  CHECK(answer(same, "b", "two\n\n") == "two");
  CHECK(was_read == "user:\nb\n\nassistant:\ntwo\n\n");
  same.reset();
  CHECK(same.messages().size() == 1);

  Conversation other = stage.begin({}, {.kv = KvFormat::q8_0});
  note = other.load(path);
  REQUIRE(note);
  CHECK(*note == "the session was saved with another format of keys and values");
  was_read.clear();
  CHECK(answer(other, "b", "two\n\n") == "two");
  CHECK(was_read == render(stage.form, other.messages(), false));

  REQUIRE(write_text(path, "{\"template\": 1}"));
  CHECK(other.load(path).error().message.find(path + " is no saved conversation: ") == 0);
  CHECK(other.messages().size() == 5);
}
