// Files: mapped for reading, replaced as a whole for writing. Each error is one sentence that names the file.
#pragma once

#include <chimera/core/result.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace chimera {

/// "cannot open runs/a.txt: No such file or directory"
inline Error file_error(std::string_view verb, std::string_view path, int code = errno) {
  return Error{"cannot " + std::string(verb) + " " + std::string(path) + ": " + std::generic_category().message(code)};
}

/// Owns a file descriptor.
class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(int fd) : fd_(fd) {}
  FileHandle(FileHandle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileHandle& operator=(FileHandle&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileHandle() {
    if (fd_ >= 0) ::close(fd_);
  }

  bool ok() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  /// False, with errno set, if the system could not store what was written.
  bool close() { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_ = -1;
};

/// Writes all of it, however many calls that takes. False, with errno set, on failure.
inline bool write_all(int fd, const void* data, std::size_t bytes) {
  constexpr std::size_t most = std::size_t{1} << 30;  // Linux takes no more than 2 GiB at once
  for (const char* p = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t n = ::write(fd, p, std::min(bytes, most));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n, bytes -= static_cast<std::size_t>(n);
  }
  return true;
}

inline bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

inline bool is_folder(const std::string& path) {
  struct stat s;
  return ::stat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode);
}

/// The part of a path before its last slash: where the file lies.
inline std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

/// Makes the folder and those above it; done when it exists and can be written to.
inline Status make_folder(const std::string& path) {
  for (std::size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end + 1);
    if (::mkdir(path.substr(0, end).c_str(), 0777) != 0 && errno != EEXIST && errno != EISDIR) {
      const int code = errno;
      if (!is_folder(path.substr(0, end))) return file_error("make folder", path, code);
    }
  }
  if (!is_folder(path)) return Error{"cannot use " + path + " as a folder: it is a file"};
  if (::access(path.c_str(), W_OK | X_OK) != 0) return file_error("write to folder", path);
  return {};
}

/// Names of what lies in a folder, sorted; "." and ".." left out.
inline Result<std::vector<std::string>> list_folder(const std::string& path) {
  DIR* folder = ::opendir(path.c_str());
  if (!folder) return file_error("list folder", path);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  ::closedir(folder);
  std::sort(names.begin(), names.end());
  return names;
}

/// Makes a change of a folder's entries (a new name, a rename) outlast a power cut.
inline Status sync_folder(const std::string& path) {
  FileHandle folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.ok()) return file_error("open folder", path);
  if (::fsync(folder.fd()) != 0 && errno != EINVAL && errno != ENOTSUP) return file_error("sync folder", path);
  return {};
}

/// A file's bytes, mapped read-only: nothing is copied, and pages come in as they are touched.
/// A file that another program shortens while it is mapped ends the process (SIGBUS) when its bytes are touched: do not
/// rewrite data in place, take a copy, or `read` what is large.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})), file_(std::move(other.file_)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(file_, other.file_);
    return *this;
  }
  ~MappedFile() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  /// An empty file is an error: no reader of this library has a use for one.
  static Result<MappedFile> open(const std::string& path) { return make(path, false); }

  /// The bytes as they are now, in memory of their own: what becomes of the file does not matter any more.
  static Result<MappedFile> copy(const std::string& path) { return make(path, true); }

  std::span<const std::byte> bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }

  /// Copies the bytes from `at` on without touching the map: no page of it stays in memory, and a file that has become
  /// shorter is an error.
  Status read(std::size_t at, std::span<std::byte> to) const {
    if (at > size() || to.size() > size() - at)
      return Error{"cannot read " + std::to_string(to.size()) + " bytes at " + std::to_string(at) + " of a file of " +
                   std::to_string(size())};
    if (!file_.ok()) {
      std::memcpy(to.data(), bytes_.data() + at, to.size());
      return {};
    }
    while (!to.empty()) {
      const ssize_t n = ::pread(file_.fd(), to.data(), to.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Error{"cannot read the file: " + std::generic_category().message(errno)};
      if (n == 0)
        return Error{"the file has become shorter: it had " + std::to_string(size()) +
                     " bytes, and now ends before byte " + std::to_string(at)};
      at += static_cast<std::size_t>(n);
      to = to.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }

  std::string_view text() const { return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()}; }

 private:
  static Result<MappedFile> make(const std::string& path, bool copied) {
    FileHandle file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a pipe must not block
    if (!file.ok()) return file_error("open", path);
    struct stat s;
    if (::fstat(file.fd(), &s) != 0) return file_error("read", path);
    if (S_ISDIR(s.st_mode)) return Error{"cannot read " + path + ": it is a folder, and a file was expected"};
    if (!S_ISREG(s.st_mode)) return Error{"cannot read " + path + ": only a regular file can be mapped"};
    if (s.st_size == 0) return Error{"cannot use " + path + ": the file is empty"};
    const std::size_t size = static_cast<std::size_t>(s.st_size);
    void* data = copied ? ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                        : ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd(), 0);
    if (data == MAP_FAILED) return file_error("map", path);
    MappedFile mapped;
    mapped.bytes_ = {static_cast<const std::byte*>(data), size};
    for (std::size_t at = 0; copied && at < size;) {
      const ssize_t n = ::read(file.fd(), static_cast<std::byte*>(data) + at, size - at);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return file_error("read", path);
      if (n == 0) return Error{"cannot read " + path + ": another program is shortening it"};
      at += static_cast<std::size_t>(n);
    }
    if (!copied) mapped.file_ = std::move(file);
    return mapped;
  }

  std::span<const std::byte> bytes_;
  FileHandle file_;  // of what is mapped
};

/// A file that appears whole or not at all: it is written under another name in the same folder, brought to the disk,
/// then renamed. Until `commit` succeeds the file that had the name stays as it was.
class AtomicFile {
 public:
  AtomicFile(AtomicFile&& other) noexcept
      : path_(std::move(other.path_)), file_(std::move(other.file_)), pending_(std::exchange(other.pending_, false)) {}
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile() {
    if (pending_) ::unlink(partial().c_str());
  }

  /// Fails if another process is writing the same file. What a killed process left behind is written over.
  static Result<AtomicFile> create(const std::string& path) {
    if (is_folder(path)) return Error{"cannot write " + path + ": it is a folder"};
    AtomicFile f;
    f.path_ = path;
    f.file_ = FileHandle(::open(f.partial().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    if (!f.file_.ok()) return file_error("write", path);
    if (::flock(f.file_.fd(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      return Error{"cannot write " + path + ": another process is writing it"};
    struct stat ours, named;
    if (::fstat(f.file_.fd(), &ours) != 0 || ::stat(f.partial().c_str(), &named) != 0 || ours.st_ino != named.st_ino)
      return Error{"cannot write " + path + ": another process has just written it"};
    f.pending_ = true;
    if (::ftruncate(f.file_.fd(), 0) != 0) return file_error("write", path);
    return f;
  }

  Status write(const void* data, std::size_t bytes) {
    if (!write_all(file_.fd(), data, bytes)) return file_error("write", path_);
    return {};
  }
  Status write(std::string_view text) { return write(text.data(), text.size()); }

  /// Call once, last.
  Status commit() {
    if (::fsync(file_.fd()) != 0) return file_error("write", path_);
    if (::rename(partial().c_str(), path_.c_str()) != 0) return file_error("write", path_);
    pending_ = false;
    if (!file_.close()) return file_error("write", path_);
    return sync_folder(folder_of(path_));
  }

 private:
  AtomicFile() = default;
  std::string partial() const { return path_ + ".partial"; }

  std::string path_;
  FileHandle file_;
  bool pending_ = false;
};

/// A small file, whole or not at all.
inline Status write_text(const std::string& path, std::string_view text) {
  auto file = AtomicFile::create(path);
  if (!file) return file.error();
  if (Status s = file->write(text); !s) return s;
  return file->commit();
}

}  // namespace chimera
