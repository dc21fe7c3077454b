// A program of the user's that judges completions: it reads a line of JSON for each on its standard input, and writes a
// number for each on its standard output.
#pragma once

#include "numbers.hpp"
#include "progress.hpp"

#include <chimera/core/result.hpp>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <string>
#include <string_view>

extern char** environ;

/// Runs a shell's command that reads `input`, and returns what it wrote, at most 64 MiB. After `seconds` it is killed,
/// with all that it started. Errors: it cannot be started, takes longer, or says by its code that it failed.
inline chimera::Result<std::string> run_command(const std::string& command, std::string_view input, double seconds) {
  constexpr std::size_t most = std::size_t{64} << 20;
  int to[2], from[2];
  if (::pipe2(to, O_CLOEXEC) != 0) return chimera::Error{std::string("cannot make a pipe: ") + std::strerror(errno)};
  if (::pipe2(from, O_CLOEXEC) != 0) {
    ::close(to[0]), ::close(to[1]);
    return chimera::Error{std::string("cannot make a pipe: ") + std::strerror(errno)};
  }
  std::signal(SIGPIPE, SIG_IGN);  // a program that reads nothing more must not end this one
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, to[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, from[1], STDOUT_FILENO);
  posix_spawnattr_t as;
  posix_spawnattr_init(&as);
  sigset_t usual;
  sigemptyset(&usual);
  sigaddset(&usual, SIGPIPE);
  posix_spawnattr_setsigdefault(&as, &usual);
  posix_spawnattr_setpgroup(&as, 0);
  posix_spawnattr_setflags(&as, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
  char shell[] = "/bin/sh", flag[] = "-c";
  std::string text = command;
  char* const words[] = {shell, flag, text.data(), nullptr};
  pid_t child = 0;
  const int failed = ::posix_spawn(&child, shell, &files, &as, words, environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&as);
  ::close(to[0]), ::close(from[1]);
  if (failed != 0) {
    ::close(to[1]), ::close(from[0]);
    return chimera::Error{std::string("cannot start the reward command: ") + std::strerror(failed)};
  }
  ::fcntl(to[1], F_SETFL, O_NONBLOCK);
  const Clock::time_point start = Clock::now();
  std::string out;
  bool late = false, open = true;
  while (open && !late && out.size() < most) {
    const double left = seconds - seconds_since(start);
    pollfd both[2] = {{from[0], POLLIN, 0}, {input.empty() ? -1 : to[1], POLLOUT, 0}};
    const int ready = left > 0 ? ::poll(both, 2, static_cast<int>(std::min(left, 1e6) * 1000) + 1) : 0;
    late = ready == 0;
    if (ready <= 0) continue;
    if (both[1].revents != 0) {
      const ssize_t n = ::write(to[1], input.data(), std::min<std::size_t>(input.size(), 65536));
      if (n > 0) input.remove_prefix(static_cast<std::size_t>(n));
      if (n < 0 && errno != EAGAIN && errno != EINTR) input = {};  // it reads nothing more
    }
    if (input.empty() && to[1] >= 0) ::close(to[1]), to[1] = -1;
    if (both[0].revents == 0) continue;
    char part[65536];
    const ssize_t n = ::read(from[0], part, sizeof part);
    if (n > 0) out.append(part, static_cast<std::size_t>(n));
    open = n > 0 || (n < 0 && errno == EINTR);
  }
  if (to[1] >= 0) ::close(to[1]);
  ::close(from[0]);
  int status = 0;
  pid_t ended = 0;
  while (!late && (ended = ::waitpid(child, &status, WNOHANG)) == 0 && !(late = seconds_since(start) >= seconds))
    ::usleep(1000);
  ::kill(-child, SIGKILL);
  if (ended == 0) ::waitpid(child, &status, 0);
  if (late) return chimera::Error{formatted("the reward command took longer than %g s", seconds)};
  if (out.size() >= most) return chimera::Error{"the reward command wrote more than 64 MiB"};
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return chimera::Error{WIFEXITED(status)
                              ? "the reward command ended with code " + std::to_string(WEXITSTATUS(status))
                              : "the reward command was ended by signal " + std::to_string(WTERMSIG(status))};
  return out;
}
