// chimera-config: the config of a model's file as a C++ header, and the file itself as a part of a program.
#include "numbers.hpp"
#include "program.hpp"

#include <chimera/config/size.hpp>
#include <chimera/core/files.hpp>
#include <chimera/exchange/config_from_file.hpp>
#include <chimera/exchange/config_source.hpp>
#include <chimera/io/gguf.hpp>

#include <climits>
#include <cstdlib>

using namespace chimera;

namespace {

struct Options {
  std::string file, name, out, embed;
};

/// The part of a path that says which model it is: "a/tiny" of a/tiny.gguf, a/tiny/ and a/tiny/config.json.
std::string subject(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path.ends_with("/config.json") ? folder_of(path) : path;
}

/// "tiny" of "a/tiny.gguf".
std::string stem(const std::string& path) {
  const std::string file = path.substr(path.rfind('/') + 1);
  return is_folder(path) ? file : file.substr(0, file.rfind('.'));
}

/// Writes the C++ file that holds the GGUF file.
Result<void> write_embedding(const Options& options, const std::string& name) {
  constexpr std::size_t most = std::size_t{1} << 30;  // code of the usual kind reaches 2 GiB of its program
  const auto gguf = Gguf::open(options.file);
  if (!gguf) return Error{"only a GGUF file can be embedded: " + gguf.error().message};
  const auto file = MappedFile::open(options.file);
  if (!file) return file.error();
  if (file->size() > most)
    return Error{"cannot embed " + options.file + ": a program can hold 1 GiB of it, and it has " +
                 size_text(static_cast<double>(file->size()))};
  char path[PATH_MAX];
  if (!::realpath(options.file.c_str(), path)) return file_error("find", options.file);
  const auto source = embedding_source(name, path);
  return source ? write_text(options.embed, *source) : source.error();
}

Result<void> write_config(const Options& options) {
  const auto config = config_from_file(options.file);
  if (!config) return config.error();
  const std::string path = subject(options.file);
  const std::string facts = "The config of " + path.substr(path.rfind('/') + 1) +
                            ", written by chimera-config: " + grouped(parameter_count(*config)) + " weights, " +
                            std::to_string(config->layers.count) + (config->layers.count == 1 ? " layer." : " layers.");
  const std::string name = options.name.empty() ? config_identifier(stem(path)) : options.name;
  const auto header = config_header(*config, name, facts, !options.embed.empty());
  if (!header) return header.error();
  if (!options.embed.empty())
    if (Result<void> s = write_embedding(options, name); !s) return s;
  if (options.out.empty()) {
    std::fputs(header->c_str(), stdout);
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the header");
    return {};
  }
  return write_text(options.out, *header);
}

int program(int argc, char** argv) {
  Options options;
  Flags app{"Writes the config of a model's file as a C++ header.", "chimera-config"};
  app.end_help("chimera-config model.gguf --name tiny --out tiny.hpp");
  app.add_option("FILE,-m,--model", options.file,
                 "a .gguf file, a Hugging Face folder or its config.json, a run's folder or a checkpoint in it")
      ->type_name("PATH")
      ->default_str("")
      ->required();
  app.add_option("--name", options.name, "of the constexpr chimera::Config; without it, made from FILE's name")
      ->default_str("");
  app.add_option("--out", options.out, "the header to write; without it, standard output")
      ->type_name("FILE")
      ->default_str("");
  app.add_option("--embed", options.embed,
                 "a C++ file to write too, which holds all of a GGUF file; the header then declares "
                 "std::span<const std::byte> NAME_file()")
      ->type_name("FILE")
      ->default_str("");
  return run(app, argc, argv, [&] { return write_config(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-config", [&] { return program(argc, argv); });
}
