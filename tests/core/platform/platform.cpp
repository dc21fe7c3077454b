#include <chimera/core/isa.hpp>
#include <chimera/core/platform/platform.hpp>

#include "../../temporary_folder.hpp"

#include <doctest/doctest.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <sys/stat.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

using namespace chimera;
using platform::Access;
using platform::FileInfo;

namespace {

/// What the rest of an open file holds from byte `at` on.
std::string rest_of(int file, std::size_t at) {
  std::string text(100, ' ');
  const std::int64_t n = platform::read(file, text.data(), text.size(), at);
  return n < 0 ? "no text" : text.substr(0, static_cast<std::size_t>(n));
}

bool write(int file, const std::string& text) {
  return platform::write(file, text.data(), text.size()) == static_cast<std::int64_t>(text.size());
}

}  // namespace

TEST_CASE("mapped memory is zero, aligned and can be given back") {
  const std::size_t large = std::size_t{2} << 20;
  for (const std::size_t unit : {std::size_t{1}, large})
    for (const std::size_t bytes : {large, 3 * large}) {
      auto* const p = static_cast<char*>(platform::map(bytes, unit));
      REQUIRE(p);
      CHECK(reinterpret_cast<std::uintptr_t>(p) % unit == 0);
      platform::advise(p, bytes, platform::PageSize::large);
      platform::advise(p, bytes, platform::PageSize::base);
      CHECK(std::count(p, p + bytes, 0) == static_cast<std::ptrdiff_t>(bytes));
      p[0] = p[bytes - 1] = 1;
      platform::unmap(p, bytes);
    }
  void* const odd = platform::map(100);
  REQUIRE(odd);
  platform::unmap(odd, 100);
  CHECK_FALSE(platform::map(SIZE_MAX / 2, large));
}

TEST_CASE("a mapped file outlasts its closing") {
  TemporaryFolder folder;
  const int file = platform::open(write_file(folder / "f", "before"), Access::read);
  REQUIRE(file >= 0);
  const void* const p = platform::map_file(file, 6);
  REQUIRE(p);
  CHECK(platform::close(file));
  CHECK(std::memcmp(p, "before", 6) == 0);
  platform::unmap(p, 6);
  CHECK_FALSE(platform::map_file(-1, 6));
  CHECK(errno == EBADF);
}

TEST_CASE("each kind of access makes, keeps or refuses a file") {
  TemporaryFolder folder;
  const std::string path = folder / "f";
  CHECK(platform::open(path, Access::read) == -1);
  CHECK(errno == ENOENT);

  int file = platform::open(path, Access::create);
  REQUIRE(file >= 0);
  CHECK(write(file, "one "));
  CHECK(platform::sync(file));
  CHECK(platform::close(file));
  CHECK(platform::open(path, Access::create) == -1);
  CHECK(errno == EEXIST);

  file = platform::open(path, Access::append);
  REQUIRE(file >= 0);
  CHECK(write(file, "two"));
  CHECK(rest_of(file, 0) == "one two");
  CHECK(platform::resize(file, 3));
  CHECK(write(file, "!"));
  CHECK(platform::close(file));

  file = platform::open(path, Access::write);
  REQUIRE(file >= 0);
  CHECK(write(file, "O"));
  CHECK(platform::close(file));

  file = platform::open(path, Access::read);
  REQUIRE(file >= 0);
  CHECK(rest_of(file, 0) == "One!");
  CHECK(rest_of(file, 2) == "e!");
  CHECK(rest_of(file, 4).empty());
  CHECK_FALSE(write(file, "x"));
  CHECK(platform::close(file));
  CHECK_FALSE(platform::close(file));
  CHECK(platform::read(file, nullptr, 0, 0) == -1);
}

TEST_CASE("a file of its own name is no link and no pipe") {
  TemporaryFolder folder;
  std::filesystem::create_symlink(write_file(folder / "f", "kept"), folder / "link");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(platform::open(folder / "link", Access::write) == -1);
  CHECK(platform::open(folder / "pipe", Access::write) == -1);
  CHECK(platform::open(folder / "none", Access::existing) == -1);
  CHECK(errno == ENOENT);
  const int file = platform::open(folder / "link", Access::existing);
  REQUIRE(file >= 0);
  CHECK(write(file, "K"));
  CHECK(platform::close(file));
  CHECK(read_file(folder / "f") == "Kept");
}

TEST_CASE("where links lead") {
  TemporaryFolder folder;
  std::filesystem::create_directory(folder / "sub");
  std::filesystem::create_symlink("sub/second", folder / "first");
  std::filesystem::create_symlink("../none", folder / "sub/second");
  std::filesystem::create_symlink("round", folder / "round");
  CHECK(platform::target(folder / "none") == folder / "none");
  CHECK(platform::target(folder / "first") == folder / "sub/../none");
  CHECK(platform::target("f") == "f");
  CHECK_FALSE(platform::target(folder / "round"));
  CHECK(errno == ELOOP);
  const int file = platform::open(write_file(folder / "f", "x"), Access::read);
  std::filesystem::create_symlink("/proc/self/fd/" + std::to_string(file), folder / "open");
  CHECK_FALSE(platform::target(folder / "open"));
  CHECK(errno == 0);
  CHECK(platform::close(file));
}

TEST_CASE("a lock is the first one's until the file is closed") {
  TemporaryFolder folder;
  const int first = platform::open(folder / "f", Access::write), second = platform::open(folder / "f", Access::write);
  CHECK(platform::lock(first));
  CHECK_FALSE(platform::lock(second));
  CHECK(platform::close(first));
  CHECK(platform::lock(second));
  CHECK(platform::close(second));
}

TEST_CASE("what a path or a file is") {
  TemporaryFolder folder;
  const std::string path = write_file(folder / "f", "123");
  const auto named = platform::info(path);
  REQUIRE(named);
  CHECK(named->kind == FileInfo::file);
  CHECK(named->bytes == 3);
  CHECK(platform::info(folder.path)->kind == FileInfo::folder);
  CHECK(platform::info("/dev/null")->kind == FileInfo::other);
  CHECK_FALSE(platform::info(folder / "none"));
  CHECK(errno == ENOENT);

  const int file = platform::open(path, Access::read);
  CHECK(platform::info(file)->id == named->id);
  const std::string other = write_file(folder / "g", "new");
  CHECK(platform::info(other)->id != named->id);
  CHECK(platform::rename(other, path));
  CHECK_FALSE(platform::info(other));
  CHECK(read_file(path) == "new");
  CHECK(platform::info(path)->id != platform::info(file)->id);
  CHECK(rest_of(file, 0) == "123");
  CHECK(platform::close(file));

  CHECK(platform::remove(path));
  CHECK_FALSE(platform::info(path));
  CHECK_FALSE(platform::remove(path));
  CHECK_FALSE(platform::rename(path, other));
}

TEST_CASE("folders are made, listed and brought to the disk") {
  TemporaryFolder folder;
  CHECK(platform::make_folder(folder / "a"));
  CHECK_FALSE(platform::make_folder(folder / "a"));
  CHECK(errno == EEXIST);
  CHECK_FALSE(platform::make_folder(folder / "b/c"));
  CHECK(errno == ENOENT);
  write_file(folder / "f", "");
  std::vector<std::string> names{"before"};
  CHECK(platform::list_folder(folder.path, names));
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"a", "before", "f"});
  CHECK_FALSE(platform::list_folder(folder / "f", names));
  CHECK(errno == ENOTDIR);
  CHECK(platform::is_writable_folder(folder.path));
  CHECK_FALSE(platform::is_writable_folder(folder / "none"));
  CHECK(platform::sync_folder(folder.path));
  CHECK_FALSE(platform::sync_folder(folder / "none"));
  CHECK(errno == ENOENT);
}

#if defined(__linux__)
TEST_CASE("processors are those of the affinity") {
  cpu_set_t before;
  REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
  int first = 0;
  while (!CPU_ISSET(static_cast<std::size_t>(first), &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(first), &one);
  REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(platform::processors() == 1);
  REQUIRE(::sched_setaffinity(0, sizeof before, &before) == 0);
  CHECK(platform::processors() <= CPU_COUNT(&before));
}

TEST_CASE("processors are at most the quotas of control groups") {
  using platform::posix_parts::quota;
  TemporaryFolder root;
  const auto group = [&](const std::string& path) {
    for (std::size_t at = 1; at != 0; at = path.find('/', at) + 1)
      (void)platform::make_folder(root / path.substr(0, path.find('/', at)));
  };
  CHECK(quota(root.path, "0::/a/b\n") == 1e9);
  CHECK(quota(root.path, "") == 1e9);
  CHECK(quota(root.path, "no list\n:\n0:\n::\n0::") == 1e9);

  // Version 2: the least of a group and of those above it.
  group("a/b");
  write_file(root / "a/b/cpu.max", "max 100000\n");
  CHECK(quota(root.path, "0::/a/b\n") == 1e9);
  write_file(root / "a/cpu.max", "150000 100000\n");
  CHECK(quota(root.path, "0::/a/b\n") == 1.5);
  CHECK(quota(root.path, "0::/a/b") == 1.5);
  write_file(root / "a/b/cpu.max", "50000 100000\n");
  CHECK(quota(root.path, "0::/a/b\n") == 0.5);
  CHECK(quota(root.path, "0::/other\n") == 1e9);
  // A container sees its own group as the root.
  write_file(root / "cpu.max", "200000 100000\n");
  CHECK(quota(root.path, "0::/not/seen/here\n") == 2);
  CHECK(platform::remove(root / "cpu.max"));

  // Version 1, alone or beside version 2.
  group("cpu,cpuacct/c");
  write_file(root / "cpu,cpuacct/c/cpu.cfs_quota_us", "-1\n");
  write_file(root / "cpu,cpuacct/c/cpu.cfs_period_us", "100000\n");
  const std::string list = "4:memory:/c\n3:cpu,cpuacct:/c\n2:cpuset:/c\n0::/a\n";
  CHECK(quota(root.path, list) == 1.5);
  write_file(root / "cpu,cpuacct/c/cpu.cfs_quota_us", "100000\n");
  CHECK(quota(root.path, list) == 1);
}
#endif

TEST_CASE("a thread has done its work when it was joined") {
  int values[3] = {1, 2, 3};
  const auto twice = [](void* value) { *static_cast<int*>(value) *= 2; };
  platform::Thread threads[3];
  for (int i = 0; i < 3; ++i) {
    threads[i] = {twice, &values[i]};
    REQUIRE(platform::start(threads[i]));
  }
  for (platform::Thread& t : threads) platform::join(t);
  CHECK(values[0] == 2);
  CHECK(values[1] == 4);
  CHECK(values[2] == 6);
}

TEST_CASE("processors, clock and process") {
  CHECK(platform::processors() >= 1);
  CHECK(platform::has_arm_dotprod() == runs(Isa::dotprod));
  const double before = platform::seconds();
  CHECK(platform::seconds() >= before);
  CHECK(platform::process_id() > 0);
}
