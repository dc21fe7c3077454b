// The folder of a run that may fail.
#pragma once

#include <chimera/core/files.hpp>
#include <chimera/train/checkpoint.hpp>

#include <unistd.h>
#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// At the end of a new run that left no checkpoint, takes away what the run wrote, and the folders that were not there
/// before.
class RunFolder {
 public:
  RunFolder(std::string path, bool is_new) : path_(std::move(path)), new_(is_new) {
    if (auto names = chimera::list_folder(path_)) before_ = std::move(*names);
    for (std::string p = path_; p.size() > 1 && p != "." && !chimera::exists(p); p = chimera::folder_of(p))
      missing_.push_back(p);
  }
  RunFolder(const RunFolder&) = delete;
  ~RunFolder() {
    const auto steps = chimera::list_checkpoints(path_);
    if (!new_ || !steps || !steps->empty()) return;
    if (const auto names = chimera::list_folder(path_))
      for (const std::string& name : *names)
        if (is_ours(name) && !std::binary_search(before_.begin(), before_.end(), name))
          ::unlink((path_ + "/" + name).c_str());
    for (const std::string& folder : missing_) ::rmdir(folder.c_str());
  }

 private:
  static bool is_ours(std::string_view name) {
    constexpr std::array<std::string_view, 12> files{"run.txt",
                                                     "generation_config.json",
                                                     "tokenizer.json",
                                                     "tokenizer_config.json",
                                                     "tokens.bin",
                                                     "metrics.jsonl",
                                                     "loss.svg",
                                                     "adapter.gguf",
                                                     "adapter_config.json",
                                                     "adapter_model.safetensors",
                                                     "reference.safetensors",
                                                     "reference_held_out.safetensors"};
    if (name.ends_with(".partial")) name.remove_suffix(8);
    return std::find(files.begin(), files.end(), name) != files.end() || name.starts_with("events.out.tfevents.") ||
           name.starts_with("checkpoint-");
  }

  std::string path_;
  bool new_;
  std::vector<std::string> before_, missing_;
};
