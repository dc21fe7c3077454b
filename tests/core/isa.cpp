#include <chimera/core/device.hpp>
#include <chimera/core/isa.hpp>

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

using namespace chimera;

namespace {

/// The words of /proc/cpuinfo's first line of that name, each between blanks.
std::string cpu_words(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return line.substr(line.find(':') + 1) + " ";
  return {};
}

struct Needs {
  Isa isa;
  const char* words;
};

/// CHIMERA_CPU for as long as it lives.
struct CpuVariable {
  explicit CpuVariable(const char* value) { setenv("CHIMERA_CPU", value, 1); }
  CpuVariable(const CpuVariable&) = delete;
  ~CpuVariable() { unsetenv("CHIMERA_CPU"); }
};

}  // namespace

TEST_CASE("levels agree with what the kernel says of the processor") {
#if defined(__aarch64__)
  const Needs needs[] = {{Isa::dotprod, "asimddp"}};
  const std::string words = cpu_words("Features");
#else
  const Needs needs[] = {
      {Isa::avx2, "avx2 fma f16c"},
      {Isa::avx_vnni, "avx2 fma f16c avx_vnni"},
      {Isa::avx512, "avx2 fma f16c avx512f avx512vl avx512bw avx512dq"},
      {Isa::avx512_vnni, "avx2 fma f16c avx512f avx512vl avx512bw avx512dq avx512_vnni"},
      {Isa::avx512_bf16, "avx2 fma f16c avx512f avx512vl avx512bw avx512dq avx512_vnni avx512_bf16"}};
  const std::string words = cpu_words("flags");
#endif
  CHECK(runs(Isa::base));
  if (words.empty()) return;  // an emulator shows the file of the machine it runs on
  for (const Needs& n : needs) {
    CAPTURE(name(n.isa));
    bool all = true;
    std::istringstream list(n.words);
    for (std::string word; list >> word;) all = all && words.find(" " + word + " ") != words.npos;
    CHECK(runs(n.isa) == all);
  }
}

#if !defined(CHIMERA_ISA)  // which is the level whatever is asked for
TEST_CASE("CHIMERA_CPU and limit lower the level to one that the processor runs") {
  const Isa best = [] {
    unsetenv("CHIMERA_CPU");
    return detect_isa();
  }();
  CHECK(runs(best));
  for (const Isa isa : all_levels) {
    CAPTURE(name(isa));
    const CpuVariable cap(std::string(name(isa)).c_str());
    const Isa found = detect_isa();
    CHECK(runs(found));
    CHECK(found == (runs(isa) ? isa : best_isa(isa)));
    CHECK(found <= isa);
    CHECK(found <= best);
    auto q = Cpu::create(1);
    REQUIRE(q);
    CHECK(q->isa() == found);
  }
  for (const Isa isa : all_levels) {
    auto q = Cpu::create(1);
    REQUIRE(q);
    q->limit(isa);
    CHECK(q->isa() == best_isa(isa));
  }
  const CpuVariable cap("no level's name");
  CHECK(detect_isa() == best);
}
#endif

TEST_CASE("names and lanes") {
  CHECK(name(Isa::base) == "base");
  CHECK(name(Isa::dotprod) == "dotprod");
  CHECK(name(Isa::avx_vnni) == "avx_vnni");
  CHECK(name(Isa::avx512_bf16) == "avx512_bf16");
  CHECK(lanes(Isa::dotprod) == 4);
  CHECK(lanes(Isa::avx_vnni) == 8);
  CHECK(lanes(Isa::avx512_vnni) == 16);
}
