#include <chimera/train/settings.hpp>

#include <doctest/doctest.h>

#include <string>

using namespace chimera;

namespace {

TrainerSettings read(const std::string& text) {
  TrainerSettings s;
  REQUIRE(from_lines(text, s).ok());
  return s;
}

std::string error_of(const TrainerSettings& s) {
  const Status status = s.validate();
  return status ? "" : status.error().message;
}

}  // namespace

TEST_CASE("settings are text and back; an optimizer's have its name") {
  TrainerSettings s;
  s.order = WindowOrder::shuffled, s.adamw = {.beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-6, .weight_decay = 0.3};
  s.label_smoothing = 0.1, s.z_loss = 1e-4;
  const std::string text = to_lines(s);
  CHECK(text.find("\nsampling 1\n") != std::string::npos);
  CHECK(text.find("\nadamw.beta1 0.8\nadamw.beta2 0.9\nadamw.epsilon 1e-06\nadamw.weight_decay 0.3\n") !=
        std::string::npos);
  CHECK(text.find("\nbeta1 ") == std::string::npos);
  CHECK(text.find("\nlabel_smoothing 0.1\nz_loss 1e-04\n") != std::string::npos);
  CHECK(to_lines(read(text)) == text);
  CHECK(differences(read(text), TrainerSettings{}).find("adamw.beta1 0.8 is now 0.9") != std::string::npos);
}

TEST_CASE("settings of an earlier version are read: an optimizer's without its name, new ones as they are by default") {
  const TrainerSettings s = read(
      "steps 4\nbatch 1\ncontext 32\naccumulation 1\nseed 1\nsampling 1\nlearning_rate 0.001\nschedule 0\nwarmup -1\n"
      "decay -1\nfloor 0.1\nbeta1 0.85\nbeta2 0.97\nepsilon 1e-07\nweight_decay 0.2\nclip 0.5\nvalidation_interval "
      "100\n"
      "validation_tokens 64\ncheckpoint_interval 2\nkeep 3\nspike_factor 2\nspike_after 20\nskip_limit 50\n");
  CHECK(s.adamw.beta1 == 0.85);
  CHECK(s.adamw.beta2 == 0.97);
  CHECK(s.adamw.epsilon == 1e-7);
  CHECK(s.adamw.weight_decay == 0.2);
  CHECK(s.clip == 0.5);
  CHECK(s.order == WindowOrder::shuffled);
  CHECK(s.keep == 3);
  CHECK(s.label_smoothing == 0);
  CHECK(s.z_loss == 0);
}

TEST_CASE("shares and weights of the loss have bounds") {
  TrainerSettings s;
  CHECK(error_of(s) == "");
  s.label_smoothing = 1;
  CHECK(error_of(s) == "label_smoothing must be at least 0 and below 1, found 1");
  s = {}, s.z_loss = -0.5;
  CHECK(error_of(s) == "z_loss must not be negative, found -0.5");
  s = {}, s.order = WindowOrder::in_order;
  CHECK(error_of(s) == "sampling must be 0 or 1, found 2");
}
