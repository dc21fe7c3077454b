// The operating system by POSIX, with what Linux adds. platform.hpp says what each function is for.
#pragma once

#include <chimera/core/platform/platform.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <string_view>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace chimera::platform {

inline void* map(std::size_t bytes, std::size_t alignment) {
  const std::size_t spare = alignment > 1 ? alignment : 0;
  void* const all = ::mmap(nullptr, bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  if (spare == 0) return all;
  const std::size_t before = (alignment - reinterpret_cast<std::uintptr_t>(all) % alignment) % alignment;
  char* const data = static_cast<char*>(all) + before;
  if (before > 0) ::munmap(all, before);
  ::munmap(data + bytes, spare - before);
  return data;
}

inline const void* map_file(int file, std::size_t bytes) {
  const void* const data = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
  return data == MAP_FAILED ? nullptr : data;
}

inline void unmap(const void* data, std::size_t bytes) { ::munmap(const_cast<void*>(data), bytes); }

inline void advise([[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes, [[maybe_unused]] PageSize size) {
#if defined(MADV_HUGEPAGE)
  (void)::madvise(data, bytes, size == PageSize::large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
}

inline int open(const std::string& path, Access access) {
  constexpr int flags[] = {O_RDONLY | O_NONBLOCK, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK,
                           O_RDWR | O_CREAT | O_APPEND, O_WRONLY | O_CREAT | O_EXCL, O_WRONLY | O_NOCTTY};
  return ::open(path.c_str(), flags[static_cast<int>(access)] | O_CLOEXEC, 0666);
}

inline bool close(int file) { return ::close(file) == 0; }

inline std::int64_t read(int file, void* data, std::size_t bytes, std::size_t at) {
  for (;;)
    if (const ssize_t n = ::pread(file, data, bytes, static_cast<off_t>(at)); n >= 0 || errno != EINTR) return n;
}

inline std::int64_t write(int file, const void* data, std::size_t bytes) {
  constexpr std::size_t most = std::size_t{1} << 30;  // Linux takes no more than 2 GiB at once
  for (;;)
    if (const ssize_t n = ::write(file, data, std::min(bytes, most)); n >= 0 || errno != EINTR) return n;
}

inline bool resize(int file, std::size_t bytes) { return ::ftruncate(file, static_cast<off_t>(bytes)) == 0; }

inline bool sync(int file) { return ::fsync(file) == 0 || errno == EINVAL || errno == ENOTSUP; }

inline bool copy_rights(int from, int to) {
  struct stat s;
  if (::fstat(from, &s) != 0) return false;
  mode_t mode = s.st_mode & 07777;
  if (::fchown(to, s.st_uid, s.st_gid) != 0) {
    mode &= ~mode_t{S_ISUID};
    if (::fchown(to, static_cast<uid_t>(-1), s.st_gid) != 0)
      mode &= ~mode_t{S_ISGID | S_IRWXG} | (mode & mode_t{S_IRWXO}) << 3;
  }
  return ::fchmod(to, mode) == 0;
}

/// A file system without locks refuses nobody.
inline bool lock(int file) { return ::flock(file, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK; }

namespace posix_parts {

inline FileInfo info_of(const struct stat& s) {
  return {S_ISREG(s.st_mode)   ? FileInfo::file
          : S_ISDIR(s.st_mode) ? FileInfo::folder
                               : FileInfo::other,
          static_cast<std::size_t>(s.st_size), s.st_ino};
}

}  // namespace posix_parts

inline std::optional<FileInfo> info(int file) {
  struct stat s;
  if (::fstat(file, &s) != 0) return std::nullopt;
  return posix_parts::info_of(s);
}

inline std::optional<FileInfo> info(const std::string& path) {
  struct stat s;
  if (::stat(path.c_str(), &s) != 0) return std::nullopt;
  return posix_parts::info_of(s);
}

inline std::optional<std::string> target(const std::string& path) {
  std::string at = path;
  for (int links = 0; links < 40; ++links) {
    std::string to(PATH_MAX, '\0');
    const ssize_t n = ::readlink(at.c_str(), to.data(), to.size());
    if (n < 0 && (errno == EINVAL || errno == ENOENT)) return at;  // no link, or nothing
    if (n < 0) return std::nullopt;
    const std::size_t slash = at.rfind('/');
    const std::string folder = slash == std::string::npos ? "./" : at.substr(0, slash + 1);
    char whole[PATH_MAX];
    if (!::realpath(folder.c_str(), whole)) return std::nullopt;
    // What such a link says is no path, or no more than the path that a file once had.
    if (std::string_view(whole).starts_with("/proc/")) return errno = 0, std::nullopt;
    to.resize(static_cast<std::size_t>(n));
    at = to.starts_with('/') ? to : folder + to;
  }
  errno = ELOOP;
  return std::nullopt;
}

inline bool rename(const std::string& from, const std::string& to) { return ::rename(from.c_str(), to.c_str()) == 0; }

inline bool remove(const std::string& path) { return ::unlink(path.c_str()) == 0; }

inline bool make_folder(const std::string& path) { return ::mkdir(path.c_str(), 0777) == 0; }

inline bool is_writable_folder(const std::string& path) { return ::access(path.c_str(), W_OK | X_OK) == 0; }

inline bool list_folder(const std::string& path, std::vector<std::string>& names) {
  DIR* const folder = ::opendir(path.c_str());
  if (!folder) return false;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  ::closedir(folder);
  return true;
}

inline bool sync_folder(const std::string& path) {
  const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return false;
  const bool done = ::fsync(folder) == 0 || errno == EINVAL || errno == ENOTSUP;
  const int code = errno;
  ::close(folder);
  errno = code;
  return done;
}

inline bool start(Thread& thread) {
  const auto main = [](void* self) -> void* {
    const auto& t = *static_cast<const Thread*>(self);
    t.main(t.context);
    return nullptr;
  };
  pthread_t handle;
  if (::pthread_create(&handle, nullptr, main, &thread) != 0) return false;
  thread.handle = static_cast<std::uintptr_t>(handle);
  return true;
}

inline void join(Thread& thread) { ::pthread_join(static_cast<pthread_t>(thread.handle), nullptr); }

namespace posix_parts {

/// The processors of the affinity mask, of whatever size the system's is.
inline int affine_processors() {
#if defined(CPU_ALLOC)
  for (int most = 1024; most <= 1 << 20; most *= 4) {
    cpu_set_t* const set = CPU_ALLOC(static_cast<std::size_t>(most));
    if (!set) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(most));
    const bool known = ::sched_getaffinity(0, bytes, set) == 0;
    const int count = known ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (known) return count;
  }
#endif
  return static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
}

/// The beginning of a small file; nothing if there is none.
inline std::string head_of(const std::string& path) {
  char text[4096];
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  const std::int64_t n = read(file, text, sizeof text, 0);
  ::close(file);
  return n > 0 ? std::string(text, static_cast<std::size_t>(n)) : std::string();
}

/// The least quota, in processors, of a group and of those above it, which lie in `root`. `groups` is a process' list
/// of them (cgroups(7)). A container may see its own group as the root: what is not there is passed over. Cold: it runs
/// once, and is compiled to be small.
__attribute__((__cold__)) inline double quota(const std::string& root, std::string_view groups) {
  double least = 1e9;
  const auto hold = [&](double of_period, double period) {
    if (of_period > 0 && period > 0) least = std::min(least, of_period / period);
  };
  for (; !groups.empty(); groups.remove_prefix(std::min(groups.size(), groups.find('\n') + 1))) {
    std::string_view line = groups.substr(0, groups.find('\n'));
    if (groups.find('\n') == groups.npos) groups = {};
    line.remove_prefix(std::min(line.size(), line.find(':') + 1));  // the hierarchy's number
    const std::string names(line.substr(0, line.find(':')));
    if (line.size() == names.size()) continue;
    const bool all = names.empty(), cpu = ("," + names + ",").find(",cpu,") != names.npos;
    if (!all && !cpu) continue;
    for (std::string group(line.substr(names.size() + 1));; group.resize(group.rfind('/'))) {
      if (group == "/") group.clear();
      for (const std::string& place : {root, root + (all ? "/unified" : "/" + names), root + "/cpu"}) {
        double of_period = 0, period = 0;
        if (std::sscanf(head_of(place + group + "/cpu.max").c_str(), "%lf %lf", &of_period, &period) == 2)
          hold(of_period, period);
        hold(std::atof(head_of(place + group + "/cpu.cfs_quota_us").c_str()),
             std::atof(head_of(place + group + "/cpu.cfs_period_us").c_str()));
      }
      if (group.rfind('/') == group.npos) break;
    }
  }
  return least;
}

}  // namespace posix_parts

inline int processors() {
  const double quota = posix_parts::quota("/sys/fs/cgroup", posix_parts::head_of("/proc/self/cgroup"));
  return static_cast<int>(std::max(1.0, std::min<double>(posix_parts::affine_processors(), std::ceil(quota))));
}

inline std::int64_t preemptions() {
#if defined(RUSAGE_THREAD)
  struct rusage usage;
  if (::getrusage(RUSAGE_THREAD, &usage) == 0) return usage.ru_nivcsw;
#endif
  return 0;
}

inline bool has_arm_dotprod() {
#if defined(__aarch64__)
  return (::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return false;
#endif
}

namespace posix_parts {
template <class T>
void read_in_c_locale(T (*read)(const char*, char**, locale_t), const char* text, T& value) {
  const locale_t c = ::newlocale(LC_ALL_MASK, "C", locale_t{});
  value = c == locale_t{} ? T{} : read(text, nullptr, c);
  if (c != locale_t{}) ::freelocale(c);
}
}  // namespace posix_parts

inline void read_number(const char* text, float& value) { posix_parts::read_in_c_locale(::strtof_l, text, value); }
inline void read_number(const char* text, double& value) { posix_parts::read_in_c_locale(::strtod_l, text, value); }

inline double seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

inline std::int64_t process_id() { return ::getpid(); }

}  // namespace chimera::platform
