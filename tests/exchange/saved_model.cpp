#include <chimera/exchange/saved_model.hpp>

#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/train/checkpoint.hpp>

#include "models.hpp"
#include "temporary_folder.hpp"

using namespace chimera;

namespace {

Result<AnyModel> make_named(const Config& c) {
  static Config made;
  made = c;
  AnyModel model;
  model.name = "made", model.config = &made;
  return model;
}

}  // namespace

TEST_CASE("a model is opened in every form, with the model in which its weights mean the same") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 2);
  const AnyModel own = table_of<plain>("plain"), namesake = table_of<plain>("namesake"),
                 other = table_of<griffin>("plain");
  Floats w = weights_of(own);
  const auto words = [](GgufWriter& f) { set_tokenizer(f, *byte_tokenizer(plain.vocab), plain.vocab); };
  REQUIRE(save_gguf(q, folder / "m.gguf", own, w.data(), *file_type_named("f32"), "plain", words));
  REQUIRE(save_hugging_face(q, folder / "transformers", own, w.data(), Format::f32, {}));
  REQUIRE(save_checkpoint(folder / "m.chimera", own, {}, {}, std::vector{Section::of("weights", w.data(), w.size())}));

  const AnyModel models[] = {other, namesake, own};
  const std::pair<std::string, SavedModel::Form> forms[] = {{"m.gguf", SavedModel::Form::gguf},
                                                            {"transformers", SavedModel::Form::hugging_face},
                                                            {"m.chimera", SavedModel::Form::checkpoint}};
  for (const auto& [name, form] : forms) {
    CAPTURE(name);
    const std::string path = folder / name;
    const auto saved = SavedModel::open(path, models);
    REQUIRE_MESSAGE(saved.ok(), saved.error().message);
    CHECK(saved->form == form);
    CHECK(saved->path == path);
    // The one of its own name comes first where the file says one.
    CHECK(saved->model.name == (form == SavedModel::Form::checkpoint ? "plain" : "namesake"));
    CHECK(saved->header.has_value() == (form == SavedModel::Form::checkpoint));
    CHECK(saved->tokenizer());
    const auto weights = saved->weights(q);
    REQUIRE(weights);
    CHECK(Floats(weights->data(), weights->data() + weights->size()) == w);
    const auto packed = saved->packed(q);
    REQUIRE(packed);
    const auto expected =
        form == SavedModel::Form::gguf ? pack_gguf(q, path, own) : PackedModel::create(q, own, w.data());
    REQUIRE(expected);
    CHECK(packed->fingerprint() == expected->fingerprint());

    const auto none = SavedModel::open(path, std::span(models).first(1));
    REQUIRE_FALSE(none);
    CHECK(none.error().message.ends_with(path + ": no model of this program has its config"));
    const auto made = SavedModel::open(path, std::span(models).first(1), make_named);
    REQUIRE(made);
    CHECK(made->model.name == "made");
    CHECK(same_meaning(made->config(), plain));
  }
  CHECK(SavedModel::open(folder / "nowhere", models).error().message.find("no such file or folder") !=
        std::string::npos);
}
