#include <chimera/train/checkpoint.hpp>

#include "../temporary_folder.hpp"
#include "bigram_model.hpp"

#include <doctest/doctest.h>

#include <sys/resource.h>
#include <csignal>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

using namespace chimera;

namespace {

/// Three arenas of numbers that depend on a seed.
struct State {
  AnyModel model = bigram::model();
  std::vector<float> weights, moment1, moment2;
  Progress progress;
  TrainerSettings settings;

  explicit State(std::uint64_t seed) : weights(model.arena_floats), moment1(weights), moment2(weights) {
    Random r{seed, 0};
    for (auto* arena : {&weights, &moment1, &moment2})
      for (float& x : *arena) x = r.uniform();
    progress.step = static_cast<std::int64_t>(seed), progress.loss_mean = 1.0 / 3;
    settings.learning_rate = 0.1 * static_cast<double>(seed);
  }
  std::vector<Section> sections() {
    return {Section::of("weights", weights.data(), weights.size()),
            Section::of("moment1", moment1.data(), moment1.size()),
            Section::of("moment2", moment2.data(), moment2.size())};
  }
  Status save(const std::string& path) { return save_checkpoint(path, model, progress, settings, sections()); }
  bool operator==(const State& o) const { return weights == o.weights && moment1 == o.moment1 && moment2 == o.moment2; }
};

/// Loading must fail, say so, and change nothing.
void check_refused(const std::string& path, const std::string& part) {
  State into(2);
  const State before = into;
  const auto loaded = load_checkpoint(path, into.model, into.sections());
  REQUIRE_FALSE(loaded.ok());
  CAPTURE(loaded.error().message);
  CHECK(loaded.error().message.find(part) != std::string::npos);
  CHECK(loaded.error().message.find(path) != std::string::npos);
  CHECK(into == before);
}

}  // namespace

TEST_CASE("a checkpoint gives back every bit") {
  TemporaryFolder folder;
  State saved(7), loaded(1);
  REQUIRE(saved.save(folder / "c").ok());
  const auto header = load_checkpoint(folder / "c", loaded.model, loaded.sections());
  REQUIRE(header);
  CHECK(loaded == saved);
  CHECK(header->info.config == "bigram");
  CHECK(header->progress.step == 7);
  CHECK(header->progress.loss_mean == 1.0 / 3);
  CHECK(header->settings.learning_rate == 0.1 * 7);
  CHECK(differences(header->settings, saved.settings).empty());
}

TEST_CASE("a checkpoint of an earlier version gives back every bit, and its settings") {
  const State saved(7);
  // Byte for byte what that version wrote: the sections' names and places, and settings without an optimizer's name.
  const std::string info = to_lines(CheckpointInfo(saved.model)) + to_lines(saved.progress) +
                           "steps 4\nbatch 1\ncontext 32\naccumulation 1\nseed 1\nsampling 1\nlearning_rate 0.001\n"
                           "schedule 0\nwarmup -1\ndecay -1\nfloor 0.1\nbeta1 0.85\nbeta2 0.95\nepsilon 1e-08\n"
                           "weight_decay 0.2\nclip 1\nvalidation_interval 100\nvalidation_tokens 64\n"
                           "checkpoint_interval 2\nkeep 3\nspike_factor 2\nspike_after 20\nskip_limit 50\n";
  const auto bytes_of = [](const std::vector<float>& x) {
    return std::string(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float));
  };
  const std::pair<const char*, std::string> parts[] = {{"info", info},
                                                       {"weights", bytes_of(saved.weights)},
                                                       {"moment1", bytes_of(saved.moment1)},
                                                       {"moment2", bytes_of(saved.moment2)}};
  Checkpoint::Header header{.magic = Checkpoint::magic, .version = 1, .sections = 4};
  std::string file(sizeof header, '\0');
  for (std::size_t i = 0; i < 4; ++i) {
    file.resize((file.size() + 63) / 64 * 64);
    Checkpoint::Entry& entry = header.table[i];
    std::strcpy(entry.text.data(), parts[i].first);
    entry.offset = file.size(), entry.bytes = parts[i].second.size();
    entry.checksum = crc32c(parts[i].second.data(), parts[i].second.size());
    file += parts[i].second;
  }
  header.file_bytes = file.size();
  header.checksum = crc32c(&header, offsetof(Checkpoint::Header, checksum));
  std::memcpy(file.data(), &header, sizeof header);

  TemporaryFolder folder;
  State loaded(1);
  const auto found = load_checkpoint(write_file(folder / "c", file), loaded.model, loaded.sections());
  REQUIRE(found);
  CHECK(loaded == saved);
  CHECK(found->progress.step == 7);
  CHECK(found->settings.adamw.beta1 == 0.85);
  CHECK(found->settings.adamw.weight_decay == 0.2);
  CHECK(found->settings.order == WindowOrder::shuffled);
}

TEST_CASE("a checkpoint has room for few sections of short names") {
  TemporaryFolder folder;
  State saved(7);
  float value = 0;
  std::vector<Section> many(8, Section::of("x", &value, 1));
  CHECK(save_checkpoint(folder / "c", saved.model, {}, {}, many).error().message ==
        "a checkpoint has room for 8 sections, found 9");
  many = {Section::of("a.name.too.long.", &value, 1)};
  CHECK(save_checkpoint(folder / "c", saved.model, {}, {}, many).error().message ==
        "the name of a checkpoint's section has at most 15 letters, found \"a.name.too.long.\"");
  CHECK(list_folder(folder.path)->empty());
}

TEST_CASE("weights and header can be read alone") {
  TemporaryFolder folder;
  State saved(7), loaded(1);
  REQUIRE(saved.save(folder / "c").ok());
  CHECK(read_checkpoint_header(folder / "c")->info.parameters == saved.model.parameters);
  REQUIRE(load_weights(folder / "c", loaded.model, loaded.weights.data()).ok());
  CHECK(loaded.weights == saved.weights);
  CHECK(loaded.moment1 != saved.moment1);
}

TEST_CASE("a flipped bit anywhere is found") {
  TemporaryFolder folder;
  State saved(7);
  REQUIRE(saved.save(folder / "c").ok());
  const std::string good = read_file(folder / "c");
  Checkpoint::Header header;
  std::memcpy(&header, good.data(), sizeof header);
  REQUIRE(header.sections == 4);
  const auto flipped = [&](std::size_t at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    return write_file(folder / "bad", bad);
  };
  check_refused(flipped(0), "no chimera checkpoint");
  check_refused(flipped(8), "expected version 1 of the format, found 5");
  for (std::size_t at = 12; at < sizeof header; ++at) check_refused(flipped(at), "its header is damaged");
  for (std::size_t i = 0; i < header.sections; ++i) {
    const auto& s = header.table[i];
    for (std::uint64_t at : {s.offset, s.offset + s.bytes / 2, s.offset + s.bytes - 1})
      check_refused(flipped(at), "its section \"" + std::string(s.name()) + "\" is damaged");
  }
}

TEST_CASE("a file of another length is refused") {
  TemporaryFolder folder;
  State saved(7);
  REQUIRE(saved.save(folder / "c").ok());
  const std::string good = read_file(folder / "c");
  check_refused(write_file(folder / "bad", ""), "empty");
  check_refused(write_file(folder / "bad", good.substr(0, 4)), "no chimera checkpoint");
  check_refused(write_file(folder / "bad", good.substr(0, 100)), "cut short");
  for (std::size_t n : {sizeof(Checkpoint::Header), good.size() / 2, good.size() - 1})
    check_refused(write_file(folder / "bad", good.substr(0, n)), "found " + std::to_string(n) + ": it was cut short");
  check_refused(write_file(folder / "bad", good + "x"), "found " + std::to_string(good.size() + 1));
  check_refused(folder.path, "it is a folder");
  check_refused(folder / "none", "No such file");
}

TEST_CASE("a header that lies with a right checksum reaches no memory outside the file") {
  TemporaryFolder folder;
  State saved(7);
  REQUIRE(saved.save(folder / "c").ok());
  const std::string good = read_file(folder / "c");
  const auto with = [&](auto&& change) {
    Checkpoint::Header header;
    std::memcpy(&header, good.data(), sizeof header);
    change(header);
    header.checksum = crc32c(&header, offsetof(Checkpoint::Header, checksum));
    std::string bad = good;
    std::memcpy(bad.data(), &header, sizeof header);
    return write_file(folder / "bad", bad);
  };
  using H = Checkpoint::Header;
  check_refused(with([](H& h) { h.sections = 1'000'000; }), "header is damaged");
  check_refused(with([](H& h) { h.table[1].offset = ~0ull; }), "header is damaged");
  check_refused(with([](H& h) { h.table[1].bytes = ~0ull; }), "header is damaged");
  check_refused(with([](H& h) { h.table[1].bytes = ~0ull - h.table[1].offset + 2; }), "header is damaged");
  check_refused(with([](H& h) { h.table[0].text.fill('x'); }), "has no section \"info\"");
  check_refused(with([](H& h) { h.table[2].text[6] = '9'; }), "has no section \"moment1\"");
  check_refused(with([&](H& h) {
                  h.table[1].bytes = 4;
                  h.table[1].checksum = crc32c(good.data() + h.table[1].offset, 4);
                }),
                "should have");
}

TEST_CASE("a checkpoint of another model is refused by name") {
  TemporaryFolder folder;
  State saved(7);
  saved.model.name = "trigram";
  REQUIRE(saved.save(folder / "c").ok());
  check_refused(folder / "c", "it is a checkpoint of config trigram, the model is bigram");
  saved.model = bigram::model();
  saved.model.config = &bigram::other_config;
  REQUIRE(saved.save(folder / "c").ok());
  check_refused(folder / "c", "the config bigram has changed");
  saved.model = bigram::model();
  auto tensors = bigram::tensors;
  tensors[0].rows = 1;
  saved.model.tensors = tensors;
  REQUIRE(saved.save(folder / "c").ok());
  check_refused(folder / "c", "the layout of the weights");
}

TEST_CASE("a full disk leaves the old checkpoint") {
  TemporaryFolder folder;
  State old(7), fresh(8), loaded(1);
  REQUIRE(old.save(folder / "c").ok());
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  for (rlim_t room : {rlim_t{100}, rlim_t{400}, rlim_t{100'000}, rlim_t{600'000}}) {
    const rlimit small{room, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    const Status s = fresh.save(folder / "c");
    ::setrlimit(RLIMIT_FSIZE, &before);
    REQUIRE_FALSE(s.ok());
    CHECK(s.error().message.find("cannot write " + (folder / "c")) != std::string::npos);
    REQUIRE(load_checkpoint(folder / "c", loaded.model, loaded.sections()).ok());
    CHECK(loaded == old);
    CHECK(list_folder(folder.path)->size() == 1);
  }
}

TEST_CASE("the newest good checkpoint of a folder is found, and old ones go") {
  TemporaryFolder folder;
  CHECK(find_checkpoint(folder / "none").error().message.find("no such file") != std::string::npos);
  CHECK(find_checkpoint(folder.path).error().message.find("has no checkpoint") != std::string::npos);
  for (std::uint64_t step : {5u, 999'999u, 1'000'000u, 40u}) {
    State s(step);
    REQUIRE(s.save(checkpoint_path(folder.path, static_cast<std::int64_t>(step))).ok());
  }
  write_file(folder / "checkpoint-x.chimera", "");
  write_file(folder / "checkpoint-7.chimera.partial", "");
  CHECK(*list_checkpoints(folder.path) == std::vector<std::int64_t>{1'000'000, 999'999, 40, 5});
  CHECK(*find_checkpoint(folder.path) == folder / "checkpoint-1000000.chimera");
  write_file(folder / "checkpoint-1000000.chimera", "broken");
  CHECK(*find_checkpoint(folder.path) == folder / "checkpoint-999999.chimera");
  CHECK(*find_checkpoint(folder / "checkpoint-000005.chimera") == folder / "checkpoint-000005.chimera");
  REQUIRE(remove_old_checkpoints(folder.path, 999'999, 2).ok());
  CHECK(*list_checkpoints(folder.path) == std::vector<std::int64_t>{1'000'000, 999'999, 40});
}
