// What the library asks of the operating system, and all of it. Another system is one more file beside posix.hpp.
//
// Functions that can fail say so by their result and leave the reason in errno. Paths are UTF-8, parted by '/'.
#pragma once

#include <chimera/core/version.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace chimera::platform {

// Pages of memory.

/// Zeroed memory that begins at a multiple of `alignment`, 1 or a multiple of a page as `bytes` is then; null on
/// failure.
void* map(std::size_t bytes, std::size_t alignment = 1);
/// A file's first bytes, read-only: pages come in as they are touched; null on failure.
const void* map_file(int file, std::size_t bytes);
/// Gives back all of what `map` or `map_file` gave.
void unmap(const void* data, std::size_t bytes);

enum class PageSize { base, large };
/// A hint of the pages that suit this part of memory; refusal costs speed only. `data` is a multiple of a page.
void advise(void* data, std::size_t bytes, PageSize size);

// Files. An open file is a number, 0 or more.

enum class Access {
  read,      // what exists; a pipe that nobody writes to does not block
  write,     // made where there is none; no link, and a pipe does not block
  append,    // made where there is none; all that is written goes to the end
  create,    // only where there is none
  existing,  // what exists, to be written to; waits until a pipe has a reader
};
/// Opens a file, which programs started later do not inherit; -1 on failure.
int open(const std::string& path, Access access);
/// Closes it; false if the system could not store what was written.
bool close(int file);
/// Reads from byte `at` on, and returns how many bytes came, fewer than asked at times; 0 at the end, -1 on failure.
std::int64_t read(int file, void* data, std::size_t bytes, std::size_t at);
/// Writes at least one byte of `bytes`, which are more than 0, and returns how many it took; -1 on failure.
std::int64_t write(int file, const void* data, std::size_t bytes);
/// Cuts a file off, or lengthens it with zeros.
bool resize(int file, std::size_t bytes);
/// Returns when what was written lies on the disk, if it goes to one.
bool sync(int file);
/// Gives the second file the rights of the first and, as far as this process may, its owner and group. A group that
/// cannot be kept gets no more than all others.
bool copy_rights(int from, int to);
/// False if another process, or another opening of the file, has the lock, which ends with the opening.
bool lock(int file);

struct FileInfo {
  enum Kind { file, folder, other } kind;
  std::size_t bytes;
  std::uint64_t id;  // of the file itself, whatever its names are
};
/// Of an open file.
std::optional<FileInfo> info(int file);
/// Of a path, by way of its links.
std::optional<FileInfo> info(const std::string& path);
/// Where a path leads by way of its links, whether something is there or not. None, with errno set, where nobody can
/// say; errno is 0 for a link that has no path, as to an open file of a process.
std::optional<std::string> target(const std::string& path);
/// Gives a file another name in place of the file which had that name: programs see the one or the other.
bool rename(const std::string& from, const std::string& to);
/// Removes a file's name.
bool remove(const std::string& path);

/// Makes one folder; false if it exists, too.
bool make_folder(const std::string& path);
/// Whether files can be made in a folder.
bool is_writable_folder(const std::string& path);
/// Adds the names of what lies in a folder, in no order, itself and the folder above left out.
bool list_folder(const std::string& path, std::vector<std::string>& names);
/// Makes a change of a folder's names outlast a power cut, where a folder can be brought to the disk.
bool sync_folder(const std::string& path);

// Threads and processors.

/// A thread that runs main(context). It stays where it is from `start` until `join`.
struct Thread {
  void (*main)(void* context) = nullptr;
  void* context = nullptr;
  std::uintptr_t handle = 0;  // the system's
};
/// False if the system has no more threads.
bool start(Thread& thread);
/// Returns when the thread has ended. Once for each that was started.
void join(Thread& thread);
/// How many processors the process may use: by its affinity and by the quotas of its control groups, rounded up.
int processors();
/// How often the system took the processor from the calling thread, which would have gone on.
std::int64_t preemptions();
/// Whether an AArch64 processor has the instructions for dot products of bytes: there only the system knows.
bool has_arm_dotprod();

/// The number that a text begins with, as in the C locale, rounded to nearest.
void read_number(const char* text, float& value);
void read_number(const char* text, double& value);

/// Seconds since some moment, by a clock that nobody sets.
double seconds();
/// The number of this process among those that run.
std::int64_t process_id();

}  // namespace chimera::platform

#if defined(__linux__)
#include <chimera/core/platform/posix.hpp>
#else
#error "chimera: this operating system is not supported yet; expected Linux"
#endif
