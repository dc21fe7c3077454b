#include "engine.hpp"
#include "headers.hpp"

#include <built_from_headers.hpp>

#include <chimera/core/files.hpp>
#include <chimera/core/version.hpp>
#include <chimera/exchange/config_source.hpp>
#include <chimera/model/engine.hpp>
#include <chimera/train/checkpoint.hpp>

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

extern char** environ;

using namespace chimera;

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Programs that are run.

/// Runs a program, no shell between; what it prints goes to `output`. Its exit code, or -1 for a signal.
Result<int> run(const std::vector<std::string>& words, int output) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, output, 1);
  posix_spawn_file_actions_adddup2(&files, output, 2);
  pid_t process = 0;
  const int code = posix_spawnp(&process, arguments[0], &files, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (code != 0) return file_error("run", words[0], code);
  int status = 0;
  while (waitpid(process, &status, 0) < 0)
    if (errno != EINTR) return file_error("wait for", words[0]);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool is_program(const std::string& name) {
  if (name.find('/') != name.npos) return ::access(name.c_str(), X_OK) == 0 && !is_folder(name);
  const std::string path = environment("PATH");
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find(':', at), path.size());
    if (end > at && is_program(path.substr(at, end - at) + "/" + name)) return true;
    at = end + 1;
  }
  return false;
}

/// The words of $CXX, or the first compiler of the usual names.
Result<std::vector<std::string>> compiler() {
  std::vector<std::string> words{""};
  for (const char c : environment("CXX"))
    if (c != ' ')
      words.back() += c;
    else if (!words.back().empty())
      words.emplace_back();
  if (words.back().empty()) words.pop_back();
  const std::string install = "; install g++ (12 or later) or clang++ (16 or later)";
  if (!words.empty()) {
    if (is_program(words[0])) return words;
    return Error{"CXX names no program that can be run: " + words[0] + install};
  }
  for (const char* name : {"c++", "g++", "clang++"})
    if (is_program(name)) return std::vector<std::string>{name};
  return Error{"there is no C++ compiler (c++, g++ or clang++)" + install + ", or name one in CXX"};
}

// Headers.

/// The folder that holds chimera/: as the user says, beside the installed program, or where the program was built.
Result<std::string> include_folder() {
  const auto has_headers = [](const std::string& folder) { return exists(folder + "/chimera/model/engine.hpp"); };
  if (const std::string named = environment("CHIMERA_INCLUDE"); !named.empty()) {
    if (has_headers(named)) return named;
    return Error{"CHIMERA_INCLUDE is " + named + ", which has no chimera/model/engine.hpp"};
  }
  char program[4096];
  const ssize_t length = ::readlink("/proc/self/exe", program, sizeof program);
  std::vector<std::string> folders;
  if (length > 0 && length < static_cast<ssize_t>(sizeof program))
    folders.push_back(folder_of(folder_of({program, static_cast<std::size_t>(length)})) + "/include");
  folders.push_back(CHIMERA_SOURCE_INCLUDE);
  for (const std::string& folder : folders)
    if (has_headers(folder)) return folder;
  return Error{"chimera's headers are neither in " + folders.front() + " nor in " + folders.back() +
               ": name their folder in CHIMERA_INCLUDE"};
}

// The cache: what lies in it is run, so nobody else may write to it.

/// Makes the folder if need be; an error unless it is the user's alone to write to.
Status private_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return file_error("make folder", path);
  struct stat s;
  if (::lstat(path.c_str(), &s) != 0) return file_error("read", path);
  if (!S_ISDIR(s.st_mode)) return Error{"cannot keep engines in " + path + ": it is no folder"};
  if (s.st_uid != ::geteuid()) return Error{"cannot keep engines in " + path + ": it belongs to another user"};
  if (s.st_mode & (S_IWGRP | S_IWOTH))
    return Error{"cannot keep engines in " + path + ": others can write to it; take that away with chmod go-w " + path};
  return {};
}

Result<std::string> cache_folder() {
  std::string base = environment("XDG_CACHE_HOME");
  if (!base.starts_with('/')) {  // as its specification says: other values are passed over
    const std::string home = environment("HOME");
    if (!home.starts_with('/')) return Error{"cannot keep engines: neither XDG_CACHE_HOME nor HOME names a folder"};
    base = home + "/.cache";
  }
  if (Status s = make_folder(base); !s) return s.error();
  for (const char* part : {"/chimera", "/engines"})
    if (Status s = private_folder(base += part); !s) return s.error();
  return base;
}

/// A folder in the cache to compile in, removed with all that is left in it.
class Workplace {
 public:
  explicit Workplace(const std::string& cache) : path_(cache + "/compiling-XXXXXX") {
    if (!::mkdtemp(path_.data())) path_.clear();
  }
  Workplace(const Workplace&) = delete;
  ~Workplace() {
    if (path_.empty()) return;
    for (const char* name : {"/engine.cpp", "/engine.so", "/log"}) ::unlink((path_ + name).c_str());
    ::rmdir(path_.c_str());
  }
  bool ok() const { return !path_.empty(); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Engines.

/// The engine in a library of the user's own.
Result<const Engine*> open_engine(const std::string& path) {
  struct stat s;
  if (::lstat(path.c_str(), &s) != 0) return file_error("open", path);
  if (!S_ISREG(s.st_mode) || s.st_uid != ::geteuid() || (s.st_mode & (S_IWGRP | S_IWOTH)))
    return Error{"cannot use " + path + ": expected a file of yours that nobody else can write to"};
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: models live as long as the program
  if (!library) return Error{"cannot load " + path + ": " + ::dlerror()};
  const auto entry = reinterpret_cast<const Engine* (*)()>(::dlsym(library, engine_symbol));
  if (!entry || !entry()->shares_layout())
    return Error{"cannot use " + path + ": it was compiled from another version of chimera than this program (" +
                 std::string(library_version) + ")"};
  return entry();
}

Result<AnyModel> load(const std::string& path, const Config& config) {
  const auto engine = open_engine(path);
  if (!engine) return engine.error();
  if (!(*(*engine)->model.config == config))
    return Error{"cannot use " + path + ": it is the engine of another config"};
  return (*engine)->model;
}

/// What the compiler complains of first.
std::string first_error(const std::string& log) {
  const auto file = MappedFile::open(log);
  std::string_view text = file ? file->text() : "";
  std::string first;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (first.empty() || line.find("error") != line.npos) first = line.substr(0, 300);
    if (line.find("error") != line.npos) break;
  }
  return first.empty() ? "it said nothing" : config_source_parts::comment_text(first);
}

/// Compiles `text`, which is `what`, to `target`, which appears whole or not at all.
Status compile(const std::vector<std::string>& command, const std::string& cache, const std::string& what,
               const std::string& text, const std::string& target) {
  const Workplace work(cache);
  if (!work.ok()) return file_error("write to folder", cache);
  const std::string source = work.path() + "/engine.cpp", library = work.path() + "/engine.so",
                    log = work.path() + "/log";
  FileHandle code(::open(source.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!code.ok() || !write_all(code.fd(), text.data(), text.size()) || !code.close())
    return file_error("write", source);
  const FileHandle output(::open(log.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!output.ok()) return file_error("write", log);
  std::vector<std::string> words = command;
  words.insert(words.end(), {"-o", library, source});
  const auto exit_code = run(words, output.fd());
  if (!exit_code) return exit_code.error();
  if (*exit_code != 0) {
    const std::string kept = target.substr(0, target.rfind('.')) + ".log";
    const std::string error = first_error(log);
    const bool moved = ::rename(log.c_str(), kept.c_str()) == 0;
    return Error{command[0] + " cannot compile " + what + ": " + error +
                 (moved ? " (all it said is in " + kept + ")" : "")};
  }
  const FileHandle compiled(::open(library.c_str(), O_RDONLY | O_CLOEXEC));
  if (!compiled.ok()) return Error{command[0] + " says it succeeded, and wrote no engine"};
  if (::fchmod(compiled.fd(), 0600) != 0 || ::fsync(compiled.fd()) != 0 ||
      ::rename(library.c_str(), target.c_str()) != 0)
    return file_error("write", target);
  return sync_folder(cache);
}

/// What the compiler says its version is.
Result<std::string> version_of(std::vector<std::string> words) {
  words.emplace_back("--version");
  std::FILE* output = std::tmpfile();
  if (!output) return file_error("write", "a temporary file");
  const auto exit_code = run(words, ::fileno(output));
  char text[1024];
  const ssize_t length = ::pread(::fileno(output), text, sizeof text, 0);
  std::fclose(output);
  if (!exit_code) return exit_code.error();
  if (*exit_code != 0 || length <= 0) return Error{"cannot use " + words[0] + " as a compiler: --version fails"};
  return std::string(text, static_cast<std::size_t>(length));
}

/// What compiles an engine, and where it is kept.
struct Workshop {
  std::vector<std::string> command;
  std::string version;  // of the compiler
  std::string include, cache;

  static Result<Workshop> open() {
    Workshop w;
    auto include = include_folder();
    if (!include) return include.error();
    const auto headers = headers_hash(*include);
    if (!headers) return headers.error();
    if (*headers != built_from_headers)
      return Error{
          "chimera's headers in " + *include +
          " are not those that this program was built from: build it again, or name theirs in CHIMERA_INCLUDE"};
    auto command = compiler();
    if (!command) return command.error();
    auto version = version_of(*command);
    if (!version) return version.error();
    auto cache = cache_folder();
    if (!cache) return cache.error();
    w.command = std::move(*command), w.version = std::move(*version);
    w.include = std::move(*include), w.cache = std::move(*cache);
    for (const char* flag : {"-std=c++20", "-O2", "-DNDEBUG", "-fPIC", "-shared", "-pthread", "-w", "-fno-exceptions",
                             "-fno-rtti", "-fvisibility=hidden"})
      w.command.emplace_back(flag);
#if defined(CHIMERA_EXTERN)  // what depends on no config is in this program, which shows it to its engines
    w.command.emplace_back("-DCHIMERA_EXTERN");
#else
    w.command.push_back("-DCHIMERA_ISA=" + std::string(name(detect_isa())));
#endif
    w.command.push_back("-I" + w.include);
    if (constexpr std::string_view boost = CHIMERA_BOOST_INCLUDE; !boost.empty())
      w.command.push_back("-I" + std::string(boost));
    return w;
  }
};

/// The source of a library that shows this engine, an expression of type AnyModel.
std::string engine_source(const std::string& declarations, const std::string& model) {
  return "#include <chimera/model/engine.hpp>\n"
         "#include <chimera/model/language_model.hpp>\n\n" +
         declarations + "\nstatic constexpr chimera::Engine engine{" + model +
         "};\n"
         "extern \"C\" __attribute__((visibility(\"default\"))) const chimera::Engine* chimera_engine() { return "
         "&engine; }\n";
}

/// `maker`: the function of model/language_model.hpp that makes it; `purpose`: what it is for, and the seconds that
/// compiling takes.
Result<AnyModel> find(const Config& config, const std::string& maker, const char* purpose) {
  if (!config.layers.own[0].name().empty())
    return Error{"its layers have the word " + std::string(config.layers.own[0].name()) +
                 ", which is a layer of some program's own; the library has" CHIMERA_MIXER_WORDS};
  const auto declaration = config_source(config, "config");
  if (!declaration) return declaration.error();
  const auto shop = Workshop::open();
  if (!shop) return Error{"no model of this shape is compiled in, and to compile one now " + shop.error().message};
  const std::string text = engine_source(*declaration, "chimera::" + maker + "<config>(\"custom\")");
  Hash key;
  key.add(std::string_view(text)), key.add(std::string_view(shop->version));
  for (const std::string_view word : shop->command) key.add(word);
  key.add(built_from_headers);
  char hexadecimal[17];
  std::snprintf(hexadecimal, sizeof hexadecimal, "%016llx", static_cast<unsigned long long>(key.value));
  const std::string path = shop->cache + "/" + hexadecimal + ".so";
  if (exists(path)) {
    auto model = load(path, config);
    if (model) return model;
    std::fprintf(stderr, "%s; compiling it again\n", model.error().message.c_str());
  }
  std::fprintf(stderr, "no model of this shape is compiled in: compiling one with %s %s (once, about 10 s)\n",
               shop->command[0].c_str(), purpose);
  const auto start = std::chrono::steady_clock::now();
  if (Status s = compile(shop->command, shop->cache, "an engine for this model", text, path); !s) return s.error();
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  std::fprintf(stderr, "compiled in %.1f s, kept as %s\n", time.count(), path.c_str());
  return load(path, config);
}

/// The names of the variables of type Config that a header defines.
std::vector<std::string> config_names(std::string_view header) {
  std::vector<std::string> names;
  const auto skip = [&](const auto& is) {
    while (!header.empty() && is(header[0])) header.remove_prefix(1);
  };
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
  const auto word = [](char c) { return is_identifier(std::string{'a', c}) || c == '_'; };
  while (!header.empty()) {
    if (header.starts_with("//")) skip([](char c) { return c != '\n'; });
    if (!header.starts_with("Config") || header.size() == 6 || !blank(header[6])) {
      const bool in_word = !header.empty() && word(header[0]);
      if (in_word)
        skip(word);
      else if (!header.empty())
        header.remove_prefix(1);
      continue;
    }
    header.remove_prefix(6), skip(blank);
    const std::string_view rest = header;
    skip(word);
    const std::string_view name = rest.substr(0, rest.size() - header.size());
    skip(blank);
    if (is_identifier(name) && (header.starts_with('{') || header.starts_with('='))) names.emplace_back(name);
  }
  return names;
}

}  // namespace

Result<Config> compile_config(const std::string& header, std::string& name) {
  const auto file = MappedFile::open(header);
  if (!file) return file.error();
  const auto names = config_names(file->text());
  if (names.size() != 1)
    return Error{header + " must define one chimera::Config, as chimera-config writes it, and defines " +
                 std::to_string(names.size())};
  char path[PATH_MAX];
  if (!::realpath(header.c_str(), path)) return file_error("find", header);
  auto shop = Workshop::open();
  if (!shop) return Error{"to read a config from a header " + shop.error().message};
  shop->command.insert(shop->command.end(), {"-include", "chimera/config/config.hpp", "-include", path});
  const std::string library = shop->cache + "/config-" + std::to_string(::getpid()) + ".so";
  const std::string text = engine_source("", "chimera::AnyModel{.config = &" + names[0] + "}");
  if (Status s = compile(shop->command, shop->cache, header, text, library); !s) return s.error();
  const auto engine = open_engine(library);
  ::unlink(library.c_str());
  if (!engine) return engine.error();
  name = names[0];
  return *(*engine)->model.config;
}

Result<AnyModel> find_engine(const Config& config) { return find(config, "evaluation_model", "to run it"); }

Result<AnyModel> find_training_engine(const Config& config) { return find(config, "any_model", "to train it"); }
