// What tests/peers/tokenizer.py needs of the library: to encode texts, and to write tokenizers for others.
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/exchange/tokenizer_json.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/text/encoder.hpp>

#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>

using namespace chimera;

namespace {

/// Texts as JSON strings, one a line; ids, one text a line.
Status encode(const Tokenizer& tokenizer, Special control) {
  Encoder encoder(tokenizer);
  for (std::string line; std::getline(std::cin, line);) {
    const auto json = Json::parse(line);
    if (!json) return json.error();
    const std::string text = json->string().value_or("");
    const auto ids = encoder.encode(text, control);
    if (!tokenizer.vocabulary().nfc && tokenizer.decode(ids) != text)
      return Error{"decoding gave another text than " + line};
    for (const auto id : ids) std::cout << id << ' ';
    std::cout << '\n';
  }
  return {};
}

Status write(const Tokenizer& tokenizer, const std::string& path) {
  if (path.ends_with(".gguf")) {
    GgufWriter file;
    file.set("general.architecture", "llama");
    set_tokenizer(file, tokenizer, 0);
    if (Status s = file.begin(path); !s) return s;
    return file.commit();
  }
  auto file = AtomicFile::create(path);
  if (!file) return file.error();
  if (Status s = file->write(tokenizer_json(tokenizer)); !s) return s;
  return file->commit();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string_view verb = argv[1];
  const auto tokenizer = load_tokenizer(argv[2]);
  const Status s = !tokenizer        ? Status(tokenizer.error())
                   : verb == "write" ? write(*tokenizer, argv[3])
                                     : encode(*tokenizer, std::string_view(argv[3]) == "special" ? Special::as_token
                                                                                                 : Special::as_text);
  if (!s) std::fprintf(stderr, "%s\n", s.error().message.c_str());
  return s ? 0 : 1;
}
