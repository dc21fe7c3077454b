// Training data: text or token shards, mapped and never copied, or tokens that a host holds.
#pragma once

#include <chimera/core/files.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/text/bytes.hpp>
#include <chimera/text/encoder.hpp>
#include <chimera/text/tokenizer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Calls f(text, ends) for each document of a text, in order: a line that holds `<|endoftext|>` and nothing else ends
/// one. `ends`: such a line follows.
template <class F>
void each_document(std::string_view text, F&& f) {
  constexpr std::string_view separator = byte_specials[0];
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t here = text.find(separator, at);
    if (here == std::string_view::npos) break;
    at = here + separator.size();
    std::string_view rest = text.substr(at);
    if (rest.starts_with('\r')) rest.remove_prefix(1);
    if ((here > 0 && text[here - 1] != '\n') || !(rest.empty() || rest.starts_with('\n'))) continue;
    f(text.substr(begin, here - begin), true);
    begin = at = text.size() - rest.size() + !rest.empty();
  }
  if (begin < text.size()) f(text.substr(begin), false);
}

/// An error if bytes are no text to train on.
Result<void> check_text(const std::string& path, std::string_view text);

/// One long row of tokens, read where it lies:
/// - text: one token a byte (text/bytes.hpp). A line that holds `<|endoftext|>` and nothing else ends a document and is
///   one token.
/// - a token shard: 256 int32, of which [0] is 20240520, [1] 1 and tokens are uint16, or [0] is 20240801, [1] 7 and
///   tokens are uint32; [2] is the number of tokens. Optional: [3] the vocabulary's size and then [4] the id that ends
///   a document. (The layout of llm.c, which leaves [3...] zero.)
/// - a folder: all shards NAME.bin in it, in the order of their names.
/// - the memory of a host, which must outlive the corpus.
class Corpus {
 public:
  /// Every token is checked against `vocab`.
  static Result<Corpus> open(const std::string& path, std::int64_t vocab);

  /// Tokens in memory. `end_of_document`: the token that ends a document; -1: none does.
  static Result<Corpus> of(std::span<const std::int32_t> tokens, std::int64_t vocab, std::int32_t end_of_document = -1);
  /// A text in memory: its bytes are the tokens, as those of a file.
  static Result<Corpus> of(std::string_view text, std::int64_t vocab);

  /// "memory" if it has none.
  const std::string& path() const { return path_; }
  std::int64_t tokens() const { return tokens_; }
  /// Every token is below this.
  std::int64_t vocab() const { return vocab_; }
  /// The token that ends a document; -1 if the data has none, and is then one document.
  std::int32_t end_of_document() const { return end_of_document_; }

  /// Copies tokens [first, first + count) to `out`.
  void read(std::int64_t first, std::int64_t count, std::int32_t* out) const;

 private:
  /// Tokens side by side, followed, where they end a document, by a token that is not there.
  struct Piece {
    const std::byte* data;
    std::int64_t first, count;
    std::uint8_t width;  // bytes of a token
    bool ends_document;
  };

  static constexpr std::int64_t header_bytes = 1024;

  explicit Corpus(std::int64_t vocab) : vocab_(vocab) {}

  template <class T>
  static void copy(const std::byte* from, std::int64_t count, std::int32_t* out) {
    for (std::int64_t i = 0; i < count; ++i) {
      T token;
      std::memcpy(&token, from + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
      out[i] = static_cast<std::int32_t>(token);
    }
  }

  void add(const std::byte* data, std::int64_t count, std::uint8_t width, bool ends_document);

  Result<void> add(const std::string& path);

  Result<void> add_text(const std::string& path, std::string_view text);

  template <class T>
  Result<void> add_shard(const std::string& path, const MappedFile& file, std::int32_t version) {
    const auto wrong = [&](const std::string& what) {
      return Error{"cannot use the token shard " + path + ": " + what};
    };
    const std::int64_t size = static_cast<std::int64_t>(file.size());
    if (size < header_bytes)
      return wrong("expected a header of 1024 bytes, found " + std::to_string(size) + " bytes in all");
    std::int32_t header[256];
    std::memcpy(header, file.bytes().data(), sizeof header);
    if (header[1] != version)
      return wrong("expected version " + std::to_string(version) + ", found " + std::to_string(header[1]));
    const std::int64_t count = header[2], expected = header_bytes + count * static_cast<std::int64_t>(sizeof(T));
    if (count < 1) return wrong("expected at least one token, found " + std::to_string(count));
    if (size != expected)
      return wrong("its header counts " + std::to_string(count) + " tokens, which makes " + std::to_string(expected) +
                   " bytes, found " + std::to_string(size));
    if (header[3] > vocab_)
      return wrong("it was made with a vocabulary of " + std::to_string(header[3]) + " tokens, the model has " +
                   std::to_string(vocab_));
    const std::int32_t end = header[3] > 0 ? header[4] : -1;
    if (!files_.empty() && end != end_of_document_)
      return wrong("it ends documents with token " + std::to_string(end) + ", the shards before it with " +
                   std::to_string(end_of_document_));
    const std::byte* data = file.bytes().data() + header_bytes;
    for (std::int64_t i = 0; i < count; ++i) {
      T token;
      std::memcpy(&token, data + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
      if (static_cast<std::int64_t>(token) >= vocab_)
        return wrong("token " + std::to_string(i) + " is " + std::to_string(token) + ", the model's vocabulary has " +
                     std::to_string(vocab_));
    }
    end_of_document_ = end;
    add(data, count, sizeof(T), false);
    return {};
  }

  std::string path_ = "memory";
  std::vector<MappedFile> files_;
  std::vector<Piece> pieces_;  // in the order of the tokens
  std::int64_t tokens_ = 0, vocab_;
  std::int32_t end_of_document_ = -1;
};

/// Writes a text's tokens as a token shard. The end of a document becomes the tokenizer's eos.
Result<void> write_shard(const std::string& text_path, const Tokenizer& tokenizer, const std::string& shard_path);

/// Whether the file is a token shard.
bool is_shard(const std::string& path);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<void> check_text(const std::string& path, std::string_view text) {
  const std::size_t zero = text.substr(0, 1 << 16).find('\0');
  if (zero == std::string_view::npos) return {};
  return Error{"cannot use " + path +
               " as training data: expected UTF-8 text or a token shard, found binary data (a zero byte at offset " +
               std::to_string(zero) + ")"};
}

CHIMERA_FUNCTION Result<void> write_shard(const std::string& text_path, const Tokenizer& tokenizer,
                                          const std::string& shard_path) {
  const auto file = MappedFile::open(text_path);
  if (!file) return file.error();
  if (Result<void> s = check_text(text_path, file->text()); !s) return s;
  const std::int32_t end = tokenizer.vocabulary().eos;
  std::vector<std::int32_t> tokens;
  Encoder encoder(tokenizer);
  each_document(file->text(), [&](std::string_view text, bool ends) {
    encoder.encode(text, Special::as_text, tokens);
    if (ends && end >= 0) tokens.push_back(end);
  });
  if (tokens.size() > INT32_MAX) return Error{text_path + " makes more tokens than a shard can hold: split it"};
  const bool wide = tokenizer.size() > 65'536;
  std::int32_t header[256]{wide ? 20240801 : 20240520, wide ? 7 : 1, static_cast<std::int32_t>(tokens.size())};
  if (end >= 0) header[3] = tokenizer.size(), header[4] = end;
  auto shard = AtomicFile::create(shard_path);
  if (!shard) return shard.error();
  if (Result<void> s = shard->write(header, sizeof header); !s) return s;
  if (wide) {
    if (Result<void> s = shard->write(tokens.data(), tokens.size() * sizeof(std::int32_t)); !s) return s;
  } else {
    const std::vector<std::uint16_t> narrow(tokens.begin(), tokens.end());
    if (Result<void> s = shard->write(narrow.data(), narrow.size() * sizeof(std::uint16_t)); !s) return s;
  }
  return shard->commit();
}

CHIMERA_FUNCTION bool is_shard(const std::string& path) {
  const auto file = MappedFile::open(path);
  std::int32_t word = 0;
  if (!file || file->size() < sizeof word) return false;
  std::memcpy(&word, file->bytes().data(), sizeof word);
  return word == 20240520 || word == 20240801;
}

CHIMERA_FUNCTION Result<Corpus> Corpus::open(const std::string& path, std::int64_t vocab) {
  Corpus corpus(vocab);
  corpus.path_ = path;
  if (!is_folder(path)) {
    if (Result<void> s = corpus.add(path); !s) return s.error();
    return corpus;
  }
  auto names = list_folder(path);
  if (!names) return names.error();
  for (const std::string& name : *names) {
    if (!name.ends_with(".bin")) continue;
    if (Result<void> s = corpus.add(path + "/" + name); !s) return s.error();
  }
  if (corpus.files_.empty()) return Error{"expected token shards (*.bin) in the folder " + path + ", found none"};
  return corpus;
}

CHIMERA_FUNCTION Result<Corpus> Corpus::of(std::span<const std::int32_t> tokens, std::int64_t vocab,
                                           std::int32_t end_of_document) {
  Corpus corpus(vocab);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= vocab)
      return Error{"token " + std::to_string(i) + " is " + std::to_string(tokens[i]) + ", the model's vocabulary has " +
                   std::to_string(vocab)};
  corpus.end_of_document_ = end_of_document;
  corpus.add(reinterpret_cast<const std::byte*>(tokens.data()), static_cast<std::int64_t>(tokens.size()),
             sizeof(std::int32_t), false);
  return corpus;
}

CHIMERA_FUNCTION Result<Corpus> Corpus::of(std::string_view text, std::int64_t vocab) {
  Corpus corpus(vocab);
  if (Result<void> s = corpus.add_text(corpus.path_, text); !s) return s.error();
  return corpus;
}

CHIMERA_FUNCTION void Corpus::read(std::int64_t first, std::int64_t count, std::int32_t* out) const {
  auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), first,
                                [](std::int64_t at, const Piece& p) { return at < p.first; }) -
               1;
  for (std::int64_t at = first - piece->first; count > 0; ++piece, at = 0) {
    const std::int64_t n = std::min(count, piece->count - at);
    const std::byte* from = piece->data + at * piece->width;
    switch (piece->width) {
      case 1: copy<std::uint8_t>(from, n, out); break;
      case 2: copy<std::uint16_t>(from, n, out); break;
      default: copy<std::uint32_t>(from, n, out);
    }
    out += n, count -= n;
    if (piece->ends_document && count > 0) *out++ = end_of_document_, --count;
  }
}

CHIMERA_FUNCTION void Corpus::add(const std::byte* data, std::int64_t count, std::uint8_t width, bool ends_document) {
  pieces_.push_back({data, tokens_, count, width, ends_document});
  tokens_ += count + ends_document;
}

CHIMERA_FUNCTION Result<void> Corpus::add(const std::string& path) {
  auto file = MappedFile::open(path);
  if (!file) return file.error();
  std::int32_t word = 0;
  if (file->size() >= sizeof word) std::memcpy(&word, file->bytes().data(), sizeof word);
  Result<void> status = word == 20240520   ? add_shard<std::uint16_t>(path, *file, 1)
                        : word == 20240801 ? add_shard<std::uint32_t>(path, *file, 7)
                                           : add_text(path, file->text());
  files_.push_back(std::move(*file));
  return status;
}

CHIMERA_FUNCTION Result<void> Corpus::add_text(const std::string& path, std::string_view text) {
  if (Result<void> s = check_text(path, text); !s) return s;
  each_document(text, [&](std::string_view document, bool ends) {
    add(reinterpret_cast<const std::byte*>(document.data()), static_cast<std::int64_t>(document.size()), 1, ends);
    if (ends) end_of_document_ = end_of_text;
  });
  const std::int64_t needed = end_of_document_ < 0 ? 256 : end_of_text + 1;
  if (vocab_ < needed)
    return Error{"text as bytes needs a vocabulary of at least " + std::to_string(needed) + ", the model has " +
                 std::to_string(vocab_)};
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
