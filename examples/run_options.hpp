// What chimera-train is told, and the run folder's copy of it.
#pragma once

#include <chimera/core/fields.hpp>
#include <chimera/core/files.hpp>
#include <chimera/train/settings.hpp>

#include <string>

struct RunOptions {
  std::string config = "nano";
  std::string data;
  double validation_fraction = 0.1;
  double minutes = 0;  // of training; 0: settings.steps decide
  chimera::TrainerSettings settings{.validation_tokens = 32'768};

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("config", s.config), f("data", s.data), f("validation_fraction", s.validation_fraction), f("minutes", s.minutes);
  }

  static std::string path(const std::string& folder) { return folder + "/run.txt"; }

  chimera::Status save(const std::string& folder) const {
    auto file = chimera::AtomicFile::create(path(folder));
    if (!file) return file.error();
    if (chimera::Status s = file->write(chimera::to_lines(*this) + chimera::to_lines(settings)); !s) return s;
    return file->commit();
  }

  static chimera::Result<RunOptions> load(const std::string& folder) {
    const auto file = chimera::MappedFile::open(path(folder));
    if (!file) return chimera::Error{"cannot resume: " + file.error().message + "; a run begins without --resume"};
    RunOptions run;
    for (const chimera::Status& s :
         {chimera::from_lines(file->text(), run), chimera::from_lines(file->text(), run.settings)})
      if (!s) return chimera::Error{"cannot resume from " + path(folder) + ": " + s.error().message};
    return run;
  }
};
