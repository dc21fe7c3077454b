// Compares the library with a folder of golden files: one line for each case, a count at the end, exit 1 if any fails.
// usage: goldens DIR [CASE]     (with CASE: the cases whose names begin so, every comparison printed)
#include "golden.hpp"

#include <exception>
#include <set>

namespace {

goldens::Run find(const std::string& name) {
  for (const goldens::Entry& e : goldens::generated_cases)
    if (name == e.name) return e.run;
  return goldens::kernel_case(name);
}

/// Every instruction level of this processor, with one thread and with two.
void run_everywhere(goldens::Golden& g, goldens::Run run) {
  for (const chimera::Isa isa : {chimera::Isa::base, chimera::Isa::avx2, chimera::Isa::avx512})
    for (const int threads : {1, 2}) {
      auto q = chimera::Cpu::create(threads);
      if (!q) throw std::runtime_error(q.error().message);
      if (q->isa() < isa) continue;
      q->limit(isa);
      g.set_place(std::string(name(isa)) + ", " + std::to_string(threads) + (threads > 1 ? " threads" : " thread"));
      run(g, *q);
    }
}

}  // namespace

int main(int argc, char** argv) {
  const std::filesystem::path folder = argc > 1 ? argv[1] : ".";
  const std::string wanted = argc > 2 ? argv[2] : "";
  std::set<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.path().extension() == ".safetensors" && entry.path().stem().string().starts_with(wanted))
      files.insert(entry.path());
  if (files.empty()) {
    std::printf("no golden files in %s\n", folder.c_str());
    return 1;
  }
  int passed = 0, failed = 0, skipped = 0;
  for (const auto& file : files) {
    const std::string stem = file.stem().string();
    try {
      goldens::Golden g(file);
      if (!wanted.empty()) g.set_verbose();
      const goldens::Run run = find(g.name());
      if (!run) {
        ++skipped;
        std::printf("%s skipped: no such layer yet\n", g.name().c_str());
        continue;
      }
      run_everywhere(g, run);
      if (g.skipped().empty() && g.failed() == 0 && g.compared() > 0) {
        ++passed;
        std::printf("%s pass\n", g.name().c_str());
      } else if (!g.skipped().empty()) {
        ++skipped;
        std::printf("%s skipped: %s\n", g.name().c_str(), g.skipped().c_str());
      } else {
        ++failed;
        std::printf("%s FAIL %s; %d of %d comparisons\n", g.name().c_str(), g.worst().c_str(), g.failed(),
                    g.compared());
      }
    } catch (const std::exception& e) {
      ++failed;
      std::printf("%s FAIL %s\n", stem.c_str(), e.what());
    }
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed > 0;
}
