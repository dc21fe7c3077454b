#include <chimera/optim/expert_balance.hpp>

#include <doctest/doctest.h>

#include <array>
#include <vector>

using namespace chimera;

TEST_CASE("biases of experts move against their loads, by the same number each") {
  const auto cpu = Cpu::create(1);
  REQUIRE(cpu);
  std::array<NamedTensor, 3> tensors;
  tensors[0].rows = 1, tensors[0].cols = 4, tensors[0].offset = 0, tensors[0].role = Role::balance;
  tensors[1].rows = 1, tensors[1].cols = 16, tensors[1].offset = 16, tensors[1].role = Role::vector;
  tensors[2].rows = 1, tensors[2].cols = 3, tensors[2].offset = 32, tensors[2].role = Role::balance;
  auto balance = ExpertBalance::create(*cpu, tensors);
  REQUIRE(balance);
  std::vector<float> gradient(48, 7.f), weights(48, 1.f);
  gradient[0] = 5, gradient[1] = 1, gradient[2] = 3, gradient[3] = 3;  // mean 3
  gradient[32] = 0, gradient[33] = 1, gradient[34] = 1;

  balance->take(*cpu, gradient.data());
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    const bool counts = i < 4 || (i >= 32 && i < 35);
    CHECK(gradient[i] == (counts ? 0.f : 7.f));
  }
  balance->update(*cpu, 0.25f, weights.data());
  const std::vector<float> first(weights.begin(), weights.begin() + 4),
      last(weights.begin() + 32, weights.begin() + 35);
  CHECK(first == std::vector{0.75f, 1.25f, 1.f, 1.f});
  CHECK(last == std::vector{1.25f, 0.75f, 0.75f});
  CHECK(weights[16] == 1.f);

  const std::vector<float> before = weights;
  balance->update(*cpu, 0.25f, weights.data());  // the choices are forgotten
  CHECK(weights == before);
  gradient[1] = 9;
  balance->take(*cpu, gradient.data());
  balance->drop(*cpu);
  balance->update(*cpu, 0.25f, weights.data());
  CHECK(weights == before);
}
