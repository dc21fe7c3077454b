#include <chimera/core/files.hpp>

#include "../temporary_folder.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <filesystem>

using namespace chimera;

static bool contains(const Error& e, const std::string& part) { return e.message.find(part) != std::string::npos; }

TEST_CASE("a mapped file shows the file's bytes") {
  TemporaryFolder folder;
  const std::string content = std::string("a\0b", 3) + std::string(100'000, 'x');
  auto file = MappedFile::open(write_file(folder / "f", content));
  REQUIRE(file);
  CHECK(file->text() == content);
  MappedFile moved = std::move(*file);
  CHECK(moved.text() == content);
}

TEST_CASE("a copied file stays as it was when the file changes") {
  TemporaryFolder folder;
  const std::string path = write_file(folder / "f", "before");
  const auto file = MappedFile::copy(path);
  REQUIRE(file);
  write_file(path, "");
  CHECK(file->text() == "before");
  CHECK(contains(MappedFile::copy(path).error(), "the file is empty"));
}

TEST_CASE("each file that cannot be mapped has its own sentence") {
  TemporaryFolder folder;
  CHECK(contains(MappedFile::open(folder / "none").error(), "No such file"));
  CHECK(contains(MappedFile::open(folder.path).error(), "it is a folder"));
  CHECK(contains(MappedFile::open(write_file(folder / "empty", "")).error(), "the file is empty"));
  CHECK(contains(MappedFile::open("/dev/null").error(), "regular file"));
  const std::string secret = write_file(folder / "secret", "x");
  ::chmod(secret.c_str(), 0);
  if (::geteuid() != 0) CHECK(contains(MappedFile::open(secret).error(), "Permission denied"));
}

TEST_CASE("a pipe does not hang the reader") {
  TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(contains(MappedFile::open(folder / "pipe").error(), "regular file"));
}

TEST_CASE("an atomic file appears at commit, whole") {
  TemporaryFolder folder;
  const std::string path = write_file(folder / "f", "old");
  {
    auto file = AtomicFile::create(path);
    REQUIRE(file);
    REQUIRE(file->write("new ").ok());
    REQUIRE(file->write("content").ok());
    CHECK(read_file(path) == "old");
    REQUIRE(file->commit().ok());
  }
  CHECK(read_file(path) == "new content");
  CHECK(list_folder(folder.path)->size() == 1);
}

TEST_CASE("an atomic file without commit leaves no trace") {
  TemporaryFolder folder;
  const std::string path = write_file(folder / "f", "old");
  {
    auto file = AtomicFile::create(path);
    REQUIRE(file);
    REQUIRE(file->write("half").ok());
  }
  CHECK(read_file(path) == "old");
  CHECK(list_folder(folder.path)->size() == 1);
}

TEST_CASE("what a killed writer left is written over") {
  TemporaryFolder folder;
  write_file(folder / "f.partial", std::string(1'000, 'z'));
  {
    auto file = AtomicFile::create(folder / "f");
    REQUIRE(file);
    REQUIRE(file->write("new").ok());
    REQUIRE(file->commit().ok());
  }
  CHECK(read_file(folder / "f") == "new");
  CHECK(list_folder(folder.path)->size() == 1);
}

TEST_CASE("two writers of one file: the second is told") {
  TemporaryFolder folder;
  auto first = AtomicFile::create(folder / "f");
  REQUIRE(first);
  CHECK(contains(AtomicFile::create(folder / "f").error(), "another process"));
  REQUIRE(first->write("x").ok());
  REQUIRE(first->commit().ok());
  CHECK(read_file(folder / "f") == "x");
}

TEST_CASE("a full disk is an error and the old file stays") {
  TemporaryFolder folder;
  const std::string path = write_file(folder / "f", "old");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{1 << 16, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  {
    auto file = AtomicFile::create(path);
    REQUIRE(file);
    const Status s = file->write(std::string(1 << 20, 'x'));
    ::setrlimit(RLIMIT_FSIZE, &before);
    REQUIRE_FALSE(s.ok());
    CHECK(contains(s.error(), "cannot write " + path));
  }
  CHECK(read_file(path) == "old");
  CHECK(list_folder(folder.path)->size() == 1);
}

TEST_CASE("a link stays, and what it leads to is replaced") {
  TemporaryFolder folder, elsewhere;
  write_file(elsewhere / "target", "old");
  std::filesystem::create_symlink(elsewhere / "target", folder / "middle");
  std::filesystem::create_symlink("middle", folder / "link");
  std::filesystem::create_symlink("new", elsewhere / "dangling");
  {
    auto file = AtomicFile::create(folder / "link");
    REQUIRE(file);
    CHECK(list_folder(elsewhere.path)->size() == 3);  // what is written lies beside the target
    REQUIRE(file->write("new").ok());
    REQUIRE(file->commit().ok());
  }
  REQUIRE(write_text(elsewhere / "dangling", "made").ok());
  CHECK(read_file(elsewhere / "target") == "new");
  CHECK(read_file(elsewhere / "new") == "made");
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(std::filesystem::is_symlink(elsewhere / "dangling"));
  CHECK(list_folder(folder.path)->size() == 2);
  CHECK(list_folder(elsewhere.path)->size() == 3);
  std::filesystem::create_symlink("round", folder / "round");
  CHECK(contains(write_text(folder / "round", "x").error(), "symbolic links"));
}

TEST_CASE("a file keeps its rights") {
  TemporaryFolder folder;
  const std::string path = write_file(folder / "f", "old");
  for (const ::mode_t mode : {0664u, 0600u, 0755u}) {
    ::chmod(path.c_str(), mode);
    auto file = AtomicFile::create(path);
    REQUIRE(file);
    struct stat s;
    REQUIRE(::stat((path + ".partial").c_str(), &s) == 0);
    CHECK((s.st_mode & 07777) == mode);  // from the beginning
    REQUIRE(file->commit().ok());
    REQUIRE(::stat(path.c_str(), &s) == 0);
    CHECK((s.st_mode & 07777) == mode);
  }
  if (::geteuid() == 0) {
    REQUIRE(::chown(path.c_str(), 12345, 23456) == 0);
    REQUIRE(write_text(path, "new").ok());
    struct stat s;
    REQUIRE(::stat(path.c_str(), &s) == 0);
    CHECK(s.st_uid == 12345);
    CHECK(s.st_gid == 23456);
  } else {
    ::chmod(path.c_str(), 0400);
    CHECK(contains(write_text(path, "new").error(), "Permission denied"));
  }
}

TEST_CASE("a pipe gets what is written, and stays") {
  TemporaryFolder folder;
  const std::string path = folder / "pipe";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  const int reader = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  REQUIRE(reader >= 0);
  REQUIRE(write_text(path, "through the pipe").ok());
  std::string got(100, ' ');
  got.resize(static_cast<std::size_t>(::read(reader, got.data(), got.size())));
  ::close(reader);
  CHECK(got == "through the pipe");
  CHECK(std::filesystem::is_fifo(path));
  CHECK(list_folder(folder.path)->size() == 1);
}

TEST_CASE("a device stays a device, by any name, and a full one is an error") {
  TemporaryFolder folder;
  std::filesystem::create_symlink("/dev/null", folder / "null");
  std::filesystem::create_symlink("/dev/full", folder / "full");
  CHECK(write_text(folder / "null", "x").ok());
  CHECK(contains(write_text(folder / "full", "x").error(), "No space left"));
  const std::string node = folder / "node";
  if (::mknod(node.c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0) {
    CHECK(write_text(node, "x").ok());
    CHECK(std::filesystem::is_character_file(node));
  }
  CHECK(std::filesystem::is_character_file("/dev/null"));
}

TEST_CASE("an open file of this process is written as it is") {
  TemporaryFolder folder;
  const std::string path = write_file(folder / "f", "what was there before");
  const int file = ::open(path.c_str(), O_RDWR);
  const auto before = platform::info(file);
  REQUIRE(write_text("/proc/self/fd/" + std::to_string(file), "new").ok());
  CHECK(read_file(path) == "new");
  CHECK(platform::info(path)->id == before->id);
  ::close(file);
}

TEST_CASE("a partial file that leads elsewhere is not followed") {
  TemporaryFolder folder;
  write_file(folder / "victim", "kept");
  std::filesystem::create_symlink("victim", folder / "f.partial");
  CHECK(contains(AtomicFile::create(folder / "f").error(), "f.partial"));
  std::filesystem::remove(folder / "f.partial");
  std::filesystem::create_hard_link(folder / "victim", folder / "f.partial");
  REQUIRE(write_text(folder / "f", "new").ok());
  CHECK(read_file(folder / "victim") == "kept");
  CHECK(read_file(folder / "f") == "new");
}

TEST_CASE("what became a device while it was written is not replaced") {
  TemporaryFolder folder;
  auto file = AtomicFile::create(folder / "f");
  REQUIRE(file);
  std::filesystem::create_symlink("/dev/null", folder / "f");
  CHECK(contains(file->commit().error(), "none any more"));
  CHECK(std::filesystem::is_character_file(folder / "f"));
}

TEST_CASE("write_all reports a device without room") {
  FileHandle full(::open("/dev/full", O_WRONLY));
  REQUIRE(full.ok());
  CHECK_FALSE(write_all(full.fd(), "x", 1));
  CHECK(errno == ENOSPC);
}

TEST_CASE("an atomic file needs a folder that can be written to") {
  TemporaryFolder folder;
  CHECK(contains(AtomicFile::create(folder / "none/f").error(), "No such file"));
  CHECK(contains(AtomicFile::create(folder.path).error(), "it is a folder"));
}

TEST_CASE("make_folder makes all that is missing") {
  TemporaryFolder folder;
  CHECK(make_folder(folder / "a/b/c").ok());
  CHECK(is_folder(folder / "a/b/c"));
  CHECK(make_folder(folder / "a/b/c").ok());
  CHECK(make_folder(folder / "d/").ok());
  write_file(folder / "f", "x");
  CHECK_FALSE(make_folder(folder / "f").ok());
  CHECK_FALSE(make_folder(folder / "f/g").ok());
  CHECK_FALSE(make_folder("").ok());
}

TEST_CASE("names of a folder are sorted") {
  TemporaryFolder folder;
  for (const char* name : {"b", "a", "c"}) write_file(folder / name, "x");
  CHECK(*list_folder(folder.path) == std::vector<std::string>{"a", "b", "c"});
  CHECK_FALSE(list_folder(folder / "none").ok());
}

TEST_CASE("folder_of is where the file lies") {
  CHECK(folder_of("f") == ".");
  CHECK(folder_of("/f") == "/");
  CHECK(folder_of("a/b/f") == "a/b");
}
