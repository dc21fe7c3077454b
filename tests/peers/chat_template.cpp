// What tests/peers/chat_template.py needs of the library: conversations as text. Each line of standard input is
// {"template": JINJA, "begin": BOOLEAN, "messages": [{"role": TEXT, "content": TEXT}]}, each of the output a JSON
// string or null.
#include <chimera/io/json.hpp>
#include <chimera/text/chat_template.hpp>

#include <iostream>
#include <string>
#include <vector>

using namespace chimera;

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const auto json = Json::parse(line);
    if (!json) return std::cerr << json.error().message << '\n', 1;
    const ChatTemplate* found = chat_template_of(*json->string_at("template"));
    std::vector<ChatMessage> messages;
    for (const Json m : json->find("messages")->elements())
      messages.push_back({*m.string_at("role"), *m.string_at("content")});
    std::cout << (found ? json_quoted(render(*found, messages, *json->boolean_at("begin"))) : "null") << '\n';
  }
}
