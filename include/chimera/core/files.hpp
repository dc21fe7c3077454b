// Files: mapped for reading, replaced as a whole for writing. Each error is one sentence that names the file.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace chimera {

/// "cannot open runs/a.txt: No such file or directory"
Error file_error(std::string_view verb, std::string_view path, int code = errno);

/// Owns an open file.
class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(int fd) : fd_(fd) {}
  FileHandle(FileHandle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileHandle& operator=(FileHandle&& other) noexcept;
  ~FileHandle() {
    if (fd_ >= 0) platform::close(fd_);
  }

  bool ok() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  /// False, with errno set, if the system could not store what was written.
  bool close() { return platform::close(std::exchange(fd_, -1)); }

 private:
  int fd_ = -1;
};

/// Writes all of it, however many calls that takes. False, with errno set, on failure.
bool write_all(int fd, const void* data, std::size_t bytes);

bool exists(const std::string& path);

bool is_folder(const std::string& path);

/// By way of links: no folder, device or pipe.
bool is_file(const std::string& path);

/// The part of a path before its last slash: where the file lies.
std::string folder_of(const std::string& path);

/// Makes the folder and those above it; done when it exists and can be written to.
Result<void> make_folder(const std::string& path);

/// Names of what lies in a folder, sorted; "." and ".." left out.
Result<std::vector<std::string>> list_folder(const std::string& path);

/// Makes a change of a folder's entries (a new name, a rename) outlast a power cut.
Result<void> sync_folder(const std::string& path);

/// A file's bytes, mapped read-only: nothing is copied, and pages come in as they are touched.
/// A file that another program shortens while it is mapped ends the process (SIGBUS) when its bytes are touched: do not
/// rewrite data in place, take a copy, or `read` what is large.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})), file_(std::move(other.file_)) {}
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile() {
    if (!bytes_.empty()) platform::unmap(bytes_.data(), bytes_.size());
  }

  /// An empty file is an error: no reader of this library has a use for one.
  static Result<MappedFile> open(const std::string& path) { return make(path, false); }

  /// The bytes as they are now, in memory of their own: what becomes of the file does not matter any more.
  static Result<MappedFile> copy(const std::string& path) { return make(path, true); }

  std::span<const std::byte> bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }

  /// Copies the bytes from `at` on without touching the map: no page of it stays in memory, and a file that has become
  /// shorter is an error.
  Result<void> read(std::size_t at, std::span<std::byte> to) const;

  std::string_view text() const { return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()}; }

 private:
  static Result<MappedFile> make(const std::string& path, bool copied);

  std::span<const std::byte> bytes_;
  FileHandle file_;  // of what is mapped
};

/// A file that appears whole or not at all: it is written under another name in the same folder, brought to the disk,
/// then renamed. Until `commit` succeeds the file that had the name stays as it was. A link stays, and what it leads to
/// is replaced; the new file has the rights of the old one and, where that is allowed, its owner. Other names of the
/// old file (hard links) keep the old content. A device or a pipe is written as it is, piece after piece.
class AtomicFile {
 public:
  AtomicFile(AtomicFile&& other) noexcept
      : path_(std::move(other.path_)),
        target_(std::move(other.target_)),
        file_(std::move(other.file_)),
        pending_(std::exchange(other.pending_, false)) {}
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile() {
    if (pending_) platform::remove(partial());
  }

  /// Fails if another process is writing the same file, or if this one may not write to the file that is there. What a
  /// killed process left behind is removed.
  static Result<AtomicFile> create(const std::string& path);

  Result<void> write(const void* data, std::size_t bytes);
  Result<void> write(std::string_view text) { return write(text.data(), text.size()); }

  /// Call once, last.
  Result<void> commit();

 private:
  AtomicFile() = default;
  std::string partial() const { return target_ + ".partial"; }
  Result<void> create_partial();

  std::string path_, target_;  // target_: where the path's links lead
  FileHandle file_;
  bool pending_ = false;  // there is a partial file; else a device or a pipe is written
};

/// A small file, whole or not at all.
Result<void> write_text(const std::string& path, std::string_view text);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Error file_error(std::string_view verb, std::string_view path, int code) {
  return Error{"cannot " + std::string(verb) + " " + std::string(path) + ": " + std::generic_category().message(code)};
}

CHIMERA_FUNCTION bool write_all(int fd, const void* data, std::size_t bytes) {
  for (const char* p = static_cast<const char*>(data); bytes > 0;) {
    const std::int64_t n = platform::write(fd, p, bytes);
    if (n <= 0) return false;
    p += n, bytes -= static_cast<std::size_t>(n);
  }
  return true;
}

CHIMERA_FUNCTION bool exists(const std::string& path) { return platform::info(path).has_value(); }

CHIMERA_FUNCTION bool is_folder(const std::string& path) {
  const auto info = platform::info(path);
  return info && info->kind == platform::FileInfo::folder;
}

CHIMERA_FUNCTION bool is_file(const std::string& path) {
  const auto info = platform::info(path);
  return info && info->kind == platform::FileInfo::file;
}

CHIMERA_FUNCTION std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

CHIMERA_FUNCTION Result<void> make_folder(const std::string& path) {
  for (std::size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end + 1);
    if (!platform::make_folder(path.substr(0, end)) && errno != EEXIST && errno != EISDIR) {
      const int code = errno;
      if (!is_folder(path.substr(0, end))) return file_error("make folder", path, code);
    }
  }
  if (!is_folder(path)) return Error{"cannot use " + path + " as a folder: it is a file"};
  if (!platform::is_writable_folder(path)) return file_error("write to folder", path);
  return {};
}

CHIMERA_FUNCTION Result<std::vector<std::string>> list_folder(const std::string& path) {
  std::vector<std::string> names;
  if (!platform::list_folder(path, names)) return file_error("list folder", path);
  std::sort(names.begin(), names.end());
  return names;
}

CHIMERA_FUNCTION Result<void> sync_folder(const std::string& path) {
  if (!platform::sync_folder(path)) return file_error("sync folder", path);
  return {};
}

CHIMERA_FUNCTION Result<void> write_text(const std::string& path, std::string_view text) {
  auto file = AtomicFile::create(path);
  if (!file) return file.error();
  if (Result<void> s = file->write(text); !s) return s;
  return file->commit();
}

CHIMERA_FUNCTION FileHandle& FileHandle::operator=(FileHandle&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

CHIMERA_FUNCTION MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(file_, other.file_);
  return *this;
}

CHIMERA_FUNCTION Result<void> MappedFile::read(std::size_t at, std::span<std::byte> to) const {
  if (at > size() || to.size() > size() - at)
    return Error{"cannot read " + std::to_string(to.size()) + " bytes at " + std::to_string(at) + " of a file of " +
                 std::to_string(size())};
  if (!file_.ok()) {
    std::memcpy(to.data(), bytes_.data() + at, to.size());
    return {};
  }
  while (!to.empty()) {
    const std::int64_t n = platform::read(file_.fd(), to.data(), to.size(), at);
    if (n < 0) return Error{"cannot read the file: " + std::generic_category().message(errno)};
    if (n == 0)
      return Error{"the file has become shorter: it had " + std::to_string(size()) +
                   " bytes, and now ends before byte " + std::to_string(at)};
    at += static_cast<std::size_t>(n);
    to = to.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

CHIMERA_FUNCTION Result<MappedFile> MappedFile::make(const std::string& path, bool copied) {
  FileHandle file(platform::open(path, platform::Access::read));
  if (!file.ok()) return file_error("open", path);
  const auto info = platform::info(file.fd());
  if (!info) return file_error("read", path);
  if (info->kind == platform::FileInfo::folder)
    return Error{"cannot read " + path + ": it is a folder, and a file was expected"};
  if (info->kind != platform::FileInfo::file)
    return Error{"cannot read " + path + ": only a regular file can be mapped"};
  if (info->bytes == 0) return Error{"cannot use " + path + ": the file is empty"};
  const std::size_t size = info->bytes;
  void* const copy = copied ? platform::map(size) : nullptr;
  const void* const data = copied ? copy : platform::map_file(file.fd(), size);
  if (!data) return file_error("map", path);
  MappedFile mapped;
  mapped.bytes_ = {static_cast<const std::byte*>(data), size};
  for (std::size_t at = 0; copied && at < size;) {
    const std::int64_t n = platform::read(file.fd(), static_cast<std::byte*>(copy) + at, size - at, at);
    if (n < 0) return file_error("read", path);
    if (n == 0) return Error{"cannot read " + path + ": another program is shortening it"};
    at += static_cast<std::size_t>(n);
  }
  if (!copied) mapped.file_ = std::move(file);
  return mapped;
}

CHIMERA_FUNCTION Result<AtomicFile> AtomicFile::create(const std::string& path) {
  if (is_folder(path)) return Error{"cannot write " + path + ": it is a folder"};
  AtomicFile f;
  f.path_ = path;
  FileHandle before(platform::open(path, platform::Access::existing));
  if (!before.ok() && errno != ENOENT) return file_error("write", path);
  const auto target = platform::target(path);
  if (!target && errno != 0) return file_error("write", path);
  if (before.ok()) {
    const auto info = platform::info(before.fd());
    if (!info) return file_error("write", path);
    const bool regular = info->kind == platform::FileInfo::file;
    if (!regular || !target) {
      if (regular && !platform::resize(before.fd(), 0)) return file_error("write", path);
      f.file_ = std::move(before);
      return f;
    }
  } else if (!target) {
    return file_error("write", path, ENOENT);
  }
  f.target_ = *target;
  if (Result<void> s = f.create_partial(); !s) return s.error();
  if (before.ok() && !platform::copy_rights(before.fd(), f.file_.fd())) return file_error("write", path);
  return f;
}

/// Only who holds a partial file's lock gives it another name or removes it.
CHIMERA_FUNCTION Result<void> AtomicFile::create_partial() {
  const auto busy = [&] { return Error{"cannot write " + path_ + ": another process is writing it"}; };
  const auto is_ours = [&](int file) {
    const auto ours = platform::info(file), named = platform::info(partial());
    return ours && named && ours->kind == platform::FileInfo::file && ours->id == named->id;
  };
  file_ = FileHandle(platform::open(partial(), platform::Access::create));
  if (!file_.ok() && errno == EEXIST) {
    FileHandle left(platform::open(partial(), platform::Access::write));
    if (!left.ok()) return file_error("write", partial());
    if (!platform::lock(left.fd())) return busy();
    if (!is_ours(left.fd())) return Error{"cannot write " + path_ + ": " + partial() + " is in the way"};
    if (!platform::remove(partial())) return file_error("remove", partial());
    file_ = FileHandle(platform::open(partial(), platform::Access::create));
  }
  if (!file_.ok()) return errno == EEXIST ? busy() : file_error("write", path_);
  if (!platform::lock(file_.fd()) || !is_ours(file_.fd())) return busy();
  pending_ = true;
  return {};
}

CHIMERA_FUNCTION Result<void> AtomicFile::write(const void* data, std::size_t bytes) {
  if (!write_all(file_.fd(), data, bytes)) return file_error("write", path_);
  return {};
}

CHIMERA_FUNCTION Result<void> AtomicFile::commit() {
  if (!platform::sync(file_.fd())) return file_error("write", path_);
  if (!pending_) return file_.close() ? Result<void>{} : file_error("write", path_);
  const auto now = platform::info(target_);
  if (now && now->kind != platform::FileInfo::file)
    return Error{"cannot write " + path_ + ": what was a file, or nothing, is none any more"};
  if (!platform::rename(partial(), target_)) return file_error("write", path_);
  pending_ = false;
  if (!file_.close()) return file_error("write", path_);
  return sync_folder(folder_of(target_));
}

}  // namespace chimera
#endif
