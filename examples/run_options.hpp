// What a program that trains is told, and the run folder's copy of it.
#pragma once

#include <chimera/config/config_text.hpp>
#include <chimera/core/fields.hpp>
#include <chimera/core/files.hpp>
#include <chimera/train/settings.hpp>

#include <string>
#include <string_view>

struct RunOptions {
  std::string config = "nano";  // what the user calls it
  chimera::Config model{};      // vocab 0: a run of an earlier version, whose config is a preset's name
  std::string data;
  double validation_fraction = 0.1;
  double minutes = 0;  // of training; 0: settings.steps decide
  std::string more;    // what else the program is told, in lines of its own
  chimera::TrainerSettings settings{.validation_tokens = 32'768};

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("config", s.config), f("data", s.data), f("validation_fraction", s.validation_fraction), f("minutes", s.minutes);
  }

  static std::string path(const std::string& folder) { return folder + "/run.txt"; }

  chimera::Status save(const std::string& folder) const {
    const std::string text =
        chimera::to_lines(*this) + chimera::to_lines(settings) + more + chimera::config_lines(model);
    return chimera::write_text(path(folder), text);
  }

  static chimera::Result<RunOptions> load(const std::string& folder) {
    const auto file = chimera::MappedFile::open(path(folder));
    if (!file) return chimera::Error{"cannot resume: " + file.error().message + "; a run begins without --resume"};
    RunOptions run;
    const auto wrong = [&](const chimera::Error& e) {
      return chimera::Error{"cannot resume from " + path(folder) + ": " + e.message};
    };
    for (const chimera::Status& s :
         {chimera::from_lines(file->text(), run), chimera::from_lines(file->text(), run.settings)})
      if (!s) return wrong(s.error());
    if (file->text().find("\nmodel.vocab ") != std::string_view::npos) {
      const auto model = chimera::config_from_lines(file->text());
      if (!model) return wrong(model.error());
      run.model = *model;
    }
    return run;
  }
};
