#include "text/languages.hpp"

#include <chimera/text/piece_counts.hpp>
#include <chimera/text/pretokenizer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

using namespace chimera;
using namespace languages;

TEST_CASE("pieces are counted as one split of each text has them, whatever the threads") {
  std::string long_text;  // many chunks
  for (std::uint64_t seed = 10; seed < 20; ++seed)
    long_text += made_text(latin, 20000, seed) + "\n\n  \n" + made_text(devanagari, 5000, seed) + "\r\n" + "।\n/x\n";
  REQUIRE(long_text.size() > 1 << 20);
  const std::string other = "the the (the)";
  for (const PreTokenizerRules& r : pretokenizer_rules) {
    CAPTURE(r.name);
    std::map<std::string_view, std::int64_t> expected, second;
    split(r.id, long_text, [&](std::string_view piece) { ++expected[piece]; });
    split(r.id, other, [&](std::string_view piece) { ++second[piece]; });
    for (const int threads : {1, 3}) {
      const std::vector<CountedText> texts{{long_text, 0}, {other, 1}, {"", 1}};
      const PieceCounts counts = PieceCounts::count(cpu(threads), r.id, texts, 2);
      std::size_t wrong = 0, found = 0;
      for (std::size_t i = 0; i < counts.size(); ++i) {
        wrong += counts.count(i, 0) != expected[counts.piece(i)] || counts.count(i, 1) != second[counts.piece(i)];
        found += counts.count(i, 0) > 0;
      }
      CHECK(wrong == 0);
      CHECK(found == expected.size() - static_cast<std::size_t>(std::count_if(expected.begin(), expected.end(),
                                                                              [](auto& e) { return e.second == 0; })));
      CHECK(counts.total(1) == (r.id == PreTokenizer::llama_cpp ? 6 : 5));  // which cuts " (" in two
    }
  }
}
