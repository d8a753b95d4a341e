import json
import subprocess
import sys

import keras
import keras_hub
import marks
import numpy as np
import pytest
import tensorflow as tf

import keras_distil
from keras_distil import data, export, losses, models
from keras_distil.export import saved_model, signatures
from keras_distil.export.graph_tokenizer import GraphTokenizer
from keras_distil.export.student import make_student

KINDS = {
    "classification": 3,
    "multi_label": 3,
    "regression": 1,
    "token_classification": 4,
    "span": 1,
}
TEXTS = ["a naïve café [MASK] fine", "日本語", "l" * 101, ""]

# Runs a SavedModel where some packages are not installed. TensorFlow Text
# needs Keras, which TensorFlow brings.
SERVE = """
import json, sys
import numpy as np

HIDDEN = sys.argv[1].split(",")

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
import tensorflow as tf

folder, texts, ids, found = sys.argv[2:]
texts, ids = json.loads(texts), json.loads(ids)
if texts:
    import tensorflow_text
loaded = tf.saved_model.load(folder)
outputs = loaded.signatures["serving_default"](
    token_ids=tf.constant(ids), padding_mask=tf.ones_like(ids)
)
made = {"ids_logits": outputs["logits"]}
if texts:
    outputs = loaded.signatures["texts"](texts=tf.constant(texts))
    made |= {f"text_{k}": v for k, v in outputs.items()}
    outputs = loaded.signatures["text_pairs"](
        first=tf.constant(texts), second=tf.constant(texts[::-1])
    )
    made["pairs"] = outputs["token_ids"]
assert not set(HIDDEN) & set(sys.modules)
np.savez(found, **made)
"""


def serve(folder, texts, ids, hidden, tmp_path):
    """The outputs of a SavedModel in a process of its own."""
    script = tmp_path / "serve.py"
    script.write_text(SERVE)
    found = tmp_path / "found.npz"
    arguments = [hidden, folder, json.dumps(texts), json.dumps(ids), found]
    subprocess.run(
        [sys.executable, "-I", str(script), *map(str, arguments)],
        check=True,
        cwd=tmp_path,
    )
    return np.load(found)


def make(model, folder, *args, **options):
    return export.export_saved_model(model, folder, *args, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def masked_lm(student, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "saved_model"
    return make(student, folder, tokenizer)


@pytest.fixture(scope="module")
def loaded(masked_lm):
    return tf.saved_model.load(masked_lm.path)


def own_logits(model, batch):
    """By the task model itself, not by the exporter's functions."""
    inputs = {name: batch[name] for name in ("token_ids", "padding_mask")}
    if isinstance(model, keras_hub.models.MaskedLM):
        rows, length = inputs["token_ids"].shape
        positions = np.tile(np.arange(length, dtype="int32"), (rows, 1))
        inputs["mask_positions"] = positions
    return np.asarray(model(inputs, training=False))


@pytest.mark.slow
@pytest.mark.essential
def test_the_report(masked_lm, student):
    assert masked_lm.comparison.max_difference < 1e-5
    assert masked_lm.comparison.top1_agreement == 1.0
    assert masked_lm.path.name == "saved_model"
    weights = 4e-6 * student.count_params()
    # The graph and the tokenizer come on top; nothing is stored twice.
    assert weights < masked_lm.size_mb
    variables = masked_lm.path / "variables"
    stored = next(variables.glob("variables.data*")).stat().st_size / 1e6
    assert stored == pytest.approx(weights, rel=0.25)
    assert json.loads(json.dumps(masked_lm.to_json()))["path"] == "saved_model"
    assert str(masked_lm.path) in str(masked_lm)


@pytest.mark.slow
def test_it_serves_with_tensorflow_and_its_text(
    masked_lm, student, tokenizer, tmp_path
):
    hidden = "keras_distil,keras_hub,tokenizers,transformers"
    served = serve(masked_lm.path, TEXTS, [[2, 5, 3]], hidden, tmp_path)
    expected = data.encode_texts(tokenizer, TEXTS, 24)
    for name in ("token_ids", "padding_mask"):
        np.testing.assert_array_equal(served[f"text_{name}"], expected[name])
    real = expected["padding_mask"] > 0
    np.testing.assert_allclose(
        served["text_logits"][real],
        own_logits(student, expected)[real],
        # Sums of float32 in another order; logits are of order 1.
        atol=1e-5,
    )
    one = tokenizer.encode(TEXTS[0], TEXTS[-1]).ids
    assert served["pairs"][0, : len(one)].tolist() == one


@pytest.mark.parametrize("length", [2, 5, 24])
@pytest.mark.parametrize("rows", [1, 3])
def test_any_batch_and_length(loaded, student, rows, length):
    generator = np.random.default_rng(length)
    batch = {
        "token_ids": generator.integers(0, 60, (rows, length), "int32"),
        "padding_mask": np.ones((rows, length), "int32"),
    }
    found = loaded.signatures["token_ids"](
        **{name: tf.constant(value) for name, value in batch.items()}
    )
    np.testing.assert_allclose(
        found["logits"], own_logits(student, batch), atol=1e-5
    )


def test_a_longer_sequence_is_refused(loaded):
    ids = tf.ones([1, 25], tf.int32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="24 positions"):
        loaded.signatures["token_ids"](token_ids=ids, padding_mask=ids)


@pytest.mark.parametrize(
    "kind", marks.slow_except(KINDS, "classification", "span")
)
def test_tasks(kind, task_student, tokenizer, tmp_path):
    model = task_student(kind, KINDS[kind])
    made = make(model, tmp_path / "made")
    assert made.comparison.max_difference < 1e-5
    loaded = tf.saved_model.load(made.path)
    batch = data.encode_texts(tokenizer, TEXTS, 24)
    found = loaded.signatures["token_ids"](**batch)
    ours = own_logits(model, batch)
    outputs = {"logits": ours}
    if kind == "regression":
        outputs = {"score": ours[:, 0]}
    elif kind == "span":
        outputs = {"start_logits": ours[..., 0], "end_logits": ours[..., 1]}
    assert set(found) == set(outputs)
    for name, value in outputs.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


@pytest.mark.slow
def test_texts_are_cut_to_a_length(student, tokenizer, tmp_path):
    made = make(
        student,
        tmp_path / "made",
        tokenizer,
        max_length=12,
    )
    loaded = tf.saved_model.load(made.path)
    found = loaded.signatures["texts"](texts=tf.constant(TEXTS))
    batch = data.encode_texts(tokenizer, TEXTS, 12)
    np.testing.assert_array_equal(found["token_ids"], batch["token_ids"])


@pytest.mark.slow
def test_bert_has_segments(bert, tokenizer, tmp_path):
    made = make(bert, tmp_path / "made", tokenizer)
    loaded = tf.saved_model.load(made.path)
    found = loaded.signatures["text_pairs"](
        first=tf.constant(["a b"]), second=tf.constant(["c"])
    )
    inputs = {
        "token_ids": found["token_ids"].numpy(),
        "padding_mask": np.ones((1, 6), "int32"),
        "segment_ids": np.array([[0, 0, 0, 0, 1, 1]], "int32"),
        "mask_positions": np.arange(6, dtype="int32")[np.newaxis],
    }
    np.testing.assert_allclose(
        found["logits"], bert(inputs, training=False), atol=1e-5
    )


@pytest.mark.slow
def test_without_a_tokenizer_there_are_only_ids(student, tmp_path):
    made = make(student, tmp_path / "made")
    loaded = tf.saved_model.load(made.path)
    assert set(loaded.signatures) == {"serving_default", "token_ids"}
    hidden = "keras,keras_distil,keras_hub,tensorflow_text"
    ids = np.array([[2, 5, 6, 3]], "int32")
    served = serve(made.path, [], ids.tolist(), hidden, tmp_path)
    batch = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    np.testing.assert_allclose(
        served["ids_logits"], own_logits(student, batch), atol=1e-5
    )


def test_a_student_in_bfloat16_is_exported_in_float32(bert, tmp_path):
    model = models.initialize_student(bert, 1, dtype="mixed_bfloat16")
    made = make(model, tmp_path / "made")
    assert made.comparison.max_difference < 1e-5
    assert model.backbone.compute_dtype == "bfloat16"
    exact = models.initialize_student(bert, 1, dtype="float32")
    ids = np.array([[2, 5, 6, 3]], "int32")
    batch = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    loaded = tf.saved_model.load(made.path)
    found = loaded.signatures["token_ids"](**batch)
    np.testing.assert_allclose(
        found["logits"], own_logits(exact, batch), atol=1e-5
    )


def perturbing(write, layer):
    """A writer that changes one layer's weights for as long as it writes."""

    def wrong(*args, **options):
        kernel = layer.weights[0]
        before = kernel.numpy()
        kernel.assign(before + 0.3)
        write(*args, **options)
        kernel.assign(before)

    return wrong


def test_a_wrong_export_is_not_kept(student, tmp_path, monkeypatch):
    make(student, tmp_path / "made")
    before = (tmp_path / "made" / "fingerprint.pb").read_bytes()
    layer = student.backbone.transformer_layers[1]
    monkeypatch.setattr(
        saved_model,
        "write_module",
        perturbing(saved_model.write_module, layer),
    )
    with pytest.raises(
        export.ParityError,
        match=r"made is not the student: max difference .* \(allowed: at most "
        r"0.0001, .*starts at `transformer_layer_1`, .*before, by at most \d",
    ):
        make(student, tmp_path / "made", overwrite=True)
    assert names(tmp_path) == ["made"]
    assert (tmp_path / "made" / "fingerprint.pb").read_bytes() == before


@pytest.mark.slow
def test_a_tokenizer_that_reads_otherwise_is_found(
    student, tokenizer, tmp_path, monkeypatch
):
    characters = GraphTokenizer._characters
    monkeypatch.setattr(
        GraphTokenizer,
        "_characters",
        lambda self, texts: characters(self, tf.strings.lower(texts)),
    )
    with pytest.raises(RuntimeError, match=r"tokenizer reads '\[CLS\] spelt"):
        make(student, tmp_path / "made", tokenizer)
    assert not names(tmp_path)


def test_wrong_outputs_of_texts_are_found(student, tokenizer, masked_lm):
    runner = signatures.load_signatures(masked_lm.path)["texts"]

    def off(inputs):
        found = dict(runner(inputs))
        return found | {"logits": found["logits"] + 0.1}

    def check(runner):
        saved_model._check_texts(
            make_student(student),
            tokenizer,
            runner,
            TEXTS,
            max_length=24,
            tolerance=export.TOLERANCES["saved_model", "float32"],
        )

    check(runner)
    with pytest.raises(export.ParityError, match="of texts is not the student"):
        check(off)


def test_an_unbuilt_model(tmp_path):
    class Unbuilt(keras.Model):
        pass

    with pytest.raises(ValueError, match="is not built.*of type Unbuilt"):
        make(Unbuilt(), tmp_path / "made")
    assert not names(tmp_path)


def test_foreign_models(student, tmp_path):
    distiller = keras_distil.Distiller(
        None, student, [losses.MaskedLMCrossentropy()]
    )
    foreign = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for model in (foreign, distiller, student.backbone, "student.keras"):
        with pytest.raises((TypeError, ValueError), match="Received: "):
            make(model, tmp_path / "made")
    assert not names(tmp_path)


def test_a_classifier_that_returns_probabilities(student, tmp_path):
    model = keras_hub.models.DistilBertTextClassifier(
        student.backbone, num_classes=2, activation="softmax"
    )
    report = make(model, tmp_path / "made")
    loaded = tf.saved_model.load(str(report.path))
    ids = np.array([[2, 5, 9, 3], [2, 7, 3, 0]], "int32")
    inputs = {"token_ids": ids, "padding_mask": (ids > 0).astype("int32")}
    served = loaded.signatures["token_ids"](
        **{name: tf.constant(value) for name, value in inputs.items()}
    )
    # What is served are logits: their softmax is what the model says.
    np.testing.assert_allclose(
        tf.nn.softmax(served["logits"]), model(inputs), atol=1e-5
    )


@pytest.mark.parametrize("max_length", [3, 25])
def test_a_length_that_is_not_possible(
    student, tokenizer, tmp_path, max_length
):
    with pytest.raises(ValueError, match=f"from 4 to 24, .*{max_length}."):
        make(student, tmp_path / "made", tokenizer, max_length=max_length)


def test_a_foreign_tokenizer(golden_distil_bert, tokenizer, tmp_path):
    small = models.load_teacher(golden_distil_bert)
    with pytest.raises(ValueError, match="entries, the model's vocabulary 64"):
        make(small, tmp_path / "made", tokenizer)


def test_names_of_classes_lie_beside_it(student, tmp_path):
    names = ["no", "yes", "perhaps"]
    model = models.task_model(student, "classification", 3, labels=names)
    made = export.export_saved_model(model, tmp_path / "made")
    assert json.loads((made.path / "labels.json").read_text()) == names


def test_tokens_that_are_elsewhere_are_found(tokenizer):
    texts = ["a cafe", "b"]
    places = {"starts": [[-1, 0, 2, -1], [-1, 0, -1, -1]]}
    places["ends"] = [[-1, 1, 6, -1], [-1, 1, -1, -1]]

    def check():
        found = {name: tf.constant(value) for name, value in places.items()}
        saved_model._check_places(tokenizer, texts, found)

    check()
    places["ends"][0][2] = 5
    with pytest.raises(
        RuntimeError, match="finds the tokens of 'a cafe' at .*5"
    ):
        check()
