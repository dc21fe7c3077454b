// Files that may be compressed by gzip.
#pragma once

#include "text_options.hpp"

#include <chimera/core/result.hpp>

#include <zlib.h>
#include <cstddef>
#include <string>

/// All of a file, unpacked if it is compressed, up to 4 GiB of text: a small file can stand for any amount.
inline chimera::Result<std::string> read_unzipped(const std::string& path) {
  auto text = read_text(path);
  if (!text || !text->starts_with("\x1f\x8b")) return text;
  constexpr std::size_t most = std::size_t{1} << 32;
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) return chimera::Error{"out of memory to unpack " + path};
  stream.next_in = reinterpret_cast<Bytef*>(text->data()), stream.avail_in = static_cast<uInt>(text->size());
  std::string out;
  int code = Z_OK;
  while (code == Z_OK && out.size() < most) {
    char part[65536];
    stream.next_out = reinterpret_cast<Bytef*>(part), stream.avail_out = sizeof part;
    code = inflate(&stream, Z_NO_FLUSH);
    out.append(part, sizeof part - stream.avail_out);
    if (code == Z_STREAM_END && stream.avail_in > 0) code = inflateReset(&stream);  // gzip files may follow one another
  }
  inflateEnd(&stream);
  if (code == Z_STREAM_END) return out;
  return chimera::Error{path + (code == Z_OK ? ": more than 4 GiB when unpacked" : ": damaged, or cut short")};
}
