// All of the library and a model with each kind of layer, under nvcc.
#include <chimera/chimera.hpp>

inline constexpr chimera::Config config{.vocab = 64,
                                        .width = 64,
                                        .context = 32,
                                        .layers = chimera::pattern("A M R GD XM SK TM", 7),
                                        .attention = {.heads = 2},
                                        .mamba2 = {.head_dim = 16, .state = 16},
                                        .ffn = {.hidden = 64},
                                        .loop = {.first = 1, .last = 2, .most = 3, .mean = 1.5f}};

chimera::AnyModel model() { return chimera::any_model<config>("model"); }
