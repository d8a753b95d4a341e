import importlib.util
import json
import shutil
from pathlib import Path

import keras_hub
import numpy as np
import pytest
import tokenizers
from safetensors import safe_open
from safetensors.numpy import load_file

from keras_distil import data, export, models
from keras_distil.export import hugging_face
from keras_distil.models.architectures import FAMILIES
from keras_distil.models.checkpoints import write_checkpoint
from keras_distil.models.task_model import kind_of

GOLDEN = Path(__file__).parent / "golden"
KINDS = {
    "SequenceClassification": "classification",
    "TokenClassification": "token_classification",
    "QuestionAnswering": "span",
}
TASKS = [
    (f"{stem}For{head}", kind)
    for stem in ("Bert", "DistilBert")
    for head, kind in KINDS.items()
]


@pytest.fixture(scope="module")
def small_tokenizer(tmp_path_factory):
    """Of fewer words than the golden models."""
    folder = tmp_path_factory.mktemp("small")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return data.load_tokenizer(folder)


def make(model, folder, tokenizer, **options):
    return export.export_hugging_face(model, folder, tokenizer, **options)


def check_equal_files(made, golden, left_out=()):
    ours = load_file(made / "model.safetensors")
    theirs = load_file(golden / "model.safetensors")
    for name in left_out:
        theirs.pop(name, None)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    ours = json.loads((made / "config.json").read_text())
    theirs = json.loads((golden / "config.json").read_text())
    for name in ("architectures", "model_type", "id2label", "problem_type"):
        assert ours.get(name) == theirs.get(name), name
    for name in set(ours) & set(theirs) - {"transformers_version"}:
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("name", ["golden_bert", "golden_distil_bert"])
def test_masked_lm(name, small_tokenizer, tmp_path, request):
    golden = request.getfixturevalue(name)
    model = models.load_teacher(golden)
    made = make(model, tmp_path / "made", small_tokenizer)
    assert made.comparison.max_difference == 0.0
    check_equal_files(made.path, golden)
    with safe_open(made.path / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(("name", "kind"), TASKS)
def test_tasks_are_read_and_written(name, kind, small_tokenizer, tmp_path):
    golden = GOLDEN / name
    model = models.load_task_model(golden)
    arrays = np.load(golden / "outputs.npz")
    inputs = {key: arrays[key] for key in ("token_ids", "padding_mask")}
    if name.startswith("Bert"):
        inputs["segment_ids"] = np.zeros_like(inputs["token_ids"])
    found = np.asarray(model(inputs, training=False))
    real = np.s_[:]
    if kind != "classification":
        real = arrays["padding_mask"] > 0
    # Sums of float32 in another order; logits are of order 1.
    np.testing.assert_allclose(found[real], arrays["logits"][real], atol=1e-5)
    made = make(model, tmp_path / "made", small_tokenizer)
    assert made.comparison.max_difference == 0.0
    check_equal_files(made.path, golden)


def test_a_regression(task_student, tokenizer, tmp_path):
    model = task_student("regression")
    made = make(model, tmp_path / "made", tokenizer)
    config = json.loads((made.path / "config.json").read_text())
    assert config["problem_type"] == "regression"
    assert config["architectures"] == ["DistilBertForSequenceClassification"]
    back = models.load_task_model(made.path)
    assert back.num_classes == 1


def test_several_labels(task_student, tokenizer, tmp_path):
    model = task_student("multi_label", 3)
    made = make(model, tmp_path / "made", tokenizer, labels=["a", "b", "c"])
    # A decision per text and label.
    assert made.comparison.decisions % 3 == 0
    config = json.loads((made.path / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    back = models.load_task_model(made.path)
    assert kind_of(back) == "multi_label" and back.labels == ("a", "b", "c")
    path = tmp_path / "model.keras"
    back.save(path)
    again = models.load_task_model(path)
    assert kind_of(again) == "multi_label"
    assert kind_of(models.initialize_student(again, 1)) == "multi_label"


def test_the_tokenizer_is_the_same(
    student, golden_ids, golden_tokenizer, tmp_path
):
    if golden_tokenizer.get_vocab_size() != student.backbone.vocabulary_size:
        pytest.skip("of another vocabulary")
    made = make(student, tmp_path / "made", golden_tokenizer)
    whole = data.load_tokenizer(made.path)
    # From the vocabulary and the settings, too, which older readers take.
    (made.path / "tokenizer.json").unlink()
    from_words = data.load_tokenizer(made.path)
    for text, ids in zip(golden_ids["texts"], golden_ids["ids"], strict=True):
        assert whole.encode(text).ids == ids
        assert from_words.encode(text).ids == ids
    config = json.loads((made.path / "tokenizer_config.json").read_text())
    assert config["do_lower_case"] == golden_ids["do_lower_case"]
    assert config["model_max_length"] == 24
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
    special = json.loads((made.path / "special_tokens_map.json").read_text())
    assert special["mask_token"] == config["mask_token"] == "[MASK]"


def test_labels(task_student, tokenizer, tmp_path):
    model = task_student("classification", 2)
    labels = ["negative", "positive"]
    made = make(model, tmp_path / "made", tokenizer, labels=labels)
    config = json.loads((made.path / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["label2id"] == {"negative": 0, "positive": 1}
    card = (made.path / "README.md").read_text()
    assert card.startswith(
        "---\nlibrary_name: transformers\npipeline_tag: text"
    )
    assert "| classes | negative, positive |" in card


@pytest.mark.parametrize("labels", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_labels_of_another_number(task_student, tokenizer, tmp_path, labels):
    model = task_student("classification", 2)
    with pytest.raises(ValueError, match="model's 2 outputs, each once. Rec"):
        make(model, tmp_path / "made", tokenizer, labels=labels)


def test_labels_of_what_has_no_classes(student, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="a masked_lm model has none. Receiv"):
        make(student, tmp_path / "made", tokenizer, labels=["a"])


def test_another_kind_of_tokenizer(student, tmp_path):
    with pytest.raises(TypeError, match="must be a `tokenizers.Tokenizer`, as"):
        make(student, tmp_path / "made", "vocab.txt")


def test_a_wrong_export_is_not_kept(student, tokenizer, tmp_path, monkeypatch):
    write = hugging_face.write_checkpoint

    def wrong(folder, family, config, arrays, **options):
        name = "transformer_layer_1/feedforward_output_dense/kernel"
        arrays[name] = arrays[name].T.reshape(arrays[name].shape)
        write(folder, family, config, arrays, **options)

    monkeypatch.setattr(hugging_face, "write_checkpoint", wrong)
    with pytest.raises(
        export.ParityError, match="starts at `transformer_layer_1`, whose"
    ):
        make(student, tmp_path / "made", tokenizer)
    assert not list(tmp_path.iterdir())


def test_a_model_with_low_rank_layers(student, tokenizer, tmp_path):
    copy = type(student).from_config(student.get_config())
    copy.set_weights(student.get_weights())
    layer = copy.backbone.transformer_layers[0]._feedforward_output_dense
    layer.enable_lora(1)
    layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.5))
    merged = layer.kernel.numpy()
    make(copy, tmp_path / "made", tokenizer)
    tensors = load_file(tmp_path / "made" / "model.safetensors")
    name = "distilbert.transformer.layer.0.ffn.lin2.weight"
    np.testing.assert_allclose(tensors[name], merged.T, rtol=1e-6, atol=1e-7)
    before = student.backbone.transformer_layers[0]._feedforward_output_dense
    assert np.abs(tensors[name].T - before.kernel.numpy()).max() > 1e-3


def test_a_weight_that_is_missing(tmp_path):
    family = FAMILIES["distilbert"]
    with pytest.raises(ValueError, match="The model lacks `token_and_positio"):
        write_checkpoint(
            tmp_path, family, {}, {}, num_layers=1, head="masked_lm"
        )


def test_a_masked_lm_is_no_task_model(golden_distil_bert):
    with pytest.raises(ValueError, match="is not for a task: `architectures`"):
        models.load_task_model(golden_distil_bert)


def test_a_task_checkpoint_without_its_head(edit_checkpoint):
    folder = edit_checkpoint(
        GOLDEN / "DistilBertForQuestionAnswering",
        tensors=lambda found: {
            name: value
            for name, value in found.items()
            if not name.startswith("qa_")
        },
    )
    with pytest.raises(ValueError, match="lacks the tensor `qa_outputs.bias`"):
        models.load_task_model(folder)


def test_a_task_checkpoint_with_more(edit_checkpoint, caplog):
    folder = edit_checkpoint(
        GOLDEN / "DistilBertForQuestionAnswering",
        tensors=lambda found: (
            found | {"classifier.bias": found["qa_outputs.bias"]}
        ),
    )
    with caplog.at_level("WARNING", "keras_distil"):
        models.load_task_model(folder)
    assert "classifier.* belong to another task's head" in caplog.text


def test_a_word_may_have_no_id(student, tokenizer, tmp_path):
    described = json.loads(tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    del vocabulary[max(vocabulary, key=vocabulary.__getitem__)]
    shorter = tokenizers.Tokenizer.from_str(json.dumps(described))
    made = make(student, tmp_path / "made", shorter)
    lines = (made.path / "vocab.txt").read_text("utf-8").splitlines()
    assert len(lines) == len(vocabulary)


# === Added tokens ===


def golden_cases():
    path = Path(__file__).parents[1] / "data" / "golden" / "tokenizer_cases.py"
    spec = importlib.util.spec_from_file_location("tokenizer_cases", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wide_student():
    """A masked-LM student with a row for every token of the cases."""
    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=100,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=64,
    )
    return models.ExactDistilBertMaskedLM(backbone)


@pytest.mark.parametrize(
    "name",
    [
        "cased",
        "added words",
        "added whole words",
        "spaces beside a token",
        "tokens of tokenizer.json as it is",
        "repeated lines",
        "gaps in tokenizer.json",
    ],
)
def test_tokenizer_reads_back_the_same(name, wide_student, tmp_path):
    cases = golden_cases()
    cases.write(tmp_path / "from", cases.CASES[name])
    tokenizer = data.load_tokenizer(tmp_path / "from")
    made = export.export_hugging_face(wide_student, tmp_path / "to", tokenizer)
    golden = Path(cases.__file__).with_name("tokenizers.json")
    expected = json.loads(golden.read_text("utf-8"))[name]["ids"]
    back = data.load_tokenizer(made.path)
    assert [back.encode(text).ids for text in cases.TEXTS] == expected


def test_a_tokenizer_without_a_form_is_refused(student, tokenizer, tmp_path):
    other = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    other.model.max_input_chars_per_word = 20
    other.normalizer = tokenizers.normalizers.Lowercase()
    made = export.export_hugging_face(student, tmp_path / "made", other)
    settings = json.loads((made.path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    other.encode_special_tokens = True
    with pytest.raises(ValueError, match="its text reads back otherwise"):
        export.export_hugging_face(student, tmp_path / "again", other)


# === What outputs mean ===


def test_labels_of_a_folder_come_back(task_student, tokenizer, tmp_path):
    names = ["contradiction", "entailment", "neutral"]
    encoder = task_student("classification", 3)
    model = models.task_model(encoder, "classification", 3, labels=names)
    made = make(model, tmp_path / "made", tokenizer)
    config = json.loads((made.path / "config.json").read_text())
    assert config["id2label"] == dict(zip("012", names, strict=True))
    assert config["label2id"] == {name: i for i, name in enumerate(names)}
    assert ", ".join(names) in (made.path / "README.md").read_text()
    back = models.load_task_model(made.path)
    assert back.labels == tuple(names)
    # Renamed is fine, but the order is the model's.
    capitals = [name.upper() for name in names]
    again = make(model, tmp_path / "a", tokenizer, labels=capitals)
    assert models.load_task_model(again.path).labels == tuple(capitals)
    with pytest.raises(ValueError, match="in the order of the model's out"):
        make(model, tmp_path / "b", tokenizer, labels=names[::-1])


@pytest.mark.parametrize("is_probability", [False, True])
def test_one_output_means_what_it_meant(
    task_student, tokenizer, tmp_path, is_probability
):
    # Hugging Face puts a sigmoid on it, unless it is called a regression.
    model = task_student("regression")
    model = type(model).from_config(
        {**model.get_config(), "is_probability": is_probability}
    )
    made = make(model, tmp_path / "made", tokenizer)
    config = json.loads((made.path / "config.json").read_text())
    expected = None if is_probability else "regression"
    assert config.get("problem_type") == expected
    assert models.load_task_model(made.path).is_probability is is_probability


@pytest.mark.parametrize(
    ("name", "key", "rate"),
    [
        ("BertForSequenceClassification", "classifier_dropout", 0.3),
        ("DistilBertForSequenceClassification", "seq_classif_dropout", 0.3),
        ("DistilBertForQuestionAnswering", "qa_dropout", 0.3),
    ],
)
def test_dropout_of_the_head_is_written(
    small_tokenizer, tmp_path, name, key, rate
):
    shutil.copytree(GOLDEN / name, tmp_path / "from")
    path = tmp_path / "from" / "config.json"
    config = json.loads(path.read_text()) | {key: rate}
    path.write_text(json.dumps(config))
    model = models.load_task_model(tmp_path / "from")
    made = make(model, tmp_path / "to", small_tokenizer)
    assert json.loads((made.path / "config.json").read_text())[key] == rate
