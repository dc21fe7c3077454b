// chimera-config: the config of a model's file as a C++ header.
#include "program.hpp"

#include <chimera/config/size.hpp>
#include <chimera/core/files.hpp>
#include <chimera/exchange/config_from_file.hpp>
#include <chimera/exchange/config_source.hpp>

using namespace chimera;

namespace {

struct Options {
  std::string file, name, out;
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

Status write_config(const Options& options) {
  const auto config = config_from_file(options.file);
  if (!config) return config.error();
  const std::string path = subject(options.file);
  const std::string facts = "The config of " + path.substr(path.rfind('/') + 1) +
                            ", written by chimera-config: " + grouped(parameter_count(*config)) + " weights, " +
                            std::to_string(config->layers.count) + (config->layers.count == 1 ? " layer." : " layers.");
  const auto header =
      config_header(*config, options.name.empty() ? config_identifier(stem(path)) : options.name, facts);
  if (!header) return header.error();
  if (options.out.empty()) {
    std::fputs(header->c_str(), stdout);
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the header");
    return {};
  }
  auto file = AtomicFile::create(options.out);
  if (!file) return file.error();
  if (Status s = file->write(*header); !s) return s;
  return file->commit();
}

int program(int argc, char** argv) {
  Options options;
  CLI::App app{"Writes the config of a model's file as a C++ header.", "chimera-config"};
  app.option_defaults()->always_capture_default()->take_last();
  app.add_option("FILE", options.file,
                 "a .gguf file, a Hugging Face folder or its config.json, a run's folder or a checkpoint in it")
      ->required();
  app.add_option("--name", options.name, "of the constexpr chimera::Config; empty: made from FILE's name");
  app.add_option("--out", options.out, "the header to write; empty: standard output");
  if (const auto code = parse(app, argc, argv)) return *code;
  const Status status = write_config(options);
  return status ? success : fail("chimera-config", status.error());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-config", [&] { return program(argc, argv); });
}
