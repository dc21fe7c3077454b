// A conversation: conversation MODEL MESSAGE..., an answer to each. What was said before is not read again.
#include <chimera/config/presets.hpp>
#include <chimera/core/device.hpp>
#include <chimera/exchange/saved_model.hpp>
#include <chimera/generate/conversation.hpp>
#include <chimera/model/language_model.hpp>
#include <chimera/text/chat_template.hpp>

#include <cstdio>
#include <span>
#include <string_view>

using namespace chimera;

static constexpr AnyModel models[] = {inference_model<presets::nano>("nano")};

static Status talk(const char* path, std::span<char* const> said) {
  const auto cpu = Cpu::create();
  if (!cpu) return cpu.error();
  const auto saved = SavedModel::open(path, models);
  if (!saved) return saved.error();
  const auto tokenizer = saved->tokenizer();
  if (!tokenizer) return tokenizer.error();
  const auto weights = saved->packed(*cpu);
  if (!weights) return weights.error();
  auto session = Session::create(*cpu, *weights);
  if (!session) return session.error();
  auto sampler = TokenSampler::create(saved->config().vocab, {});
  if (!sampler) return sampler.error();

  // As the model was trained to read conversations, or simply.
  const ChatTemplate* own = chat_template_of(*tokenizer);
  const ChatTemplate& form = own ? *own : *chat_template_named("plain");
  auto conversation = Conversation::create(*tokenizer, form, std::move(*session), std::move(*sampler),
                                           {.system = "Answer in a few words.", .tokens = 40});
  if (!conversation) return conversation.error();
  const auto show = [](std::string_view part) { std::fwrite(part.data(), 1, part.size(), stdout); };
  for (const char* message : said) {
    std::printf("> %s\n", message);
    if (const auto answered = conversation->say(message, show); !answered) return answered.error();
    std::printf("\n");
  }
  return {};
}

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: conversation MODEL MESSAGE...\n"), 2;
  const Status status = talk(argv[1], {argv + 2, argv + argc});
  if (!status) std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return !status;
}
