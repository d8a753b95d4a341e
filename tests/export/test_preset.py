import json
import subprocess
import sys

import keras_hub
import numpy as np
import pytest
from toy import SIZES, byte_level_tokenizer, randomize

from keras_distil import data, export, models

TOLERANCE = export.TOLERANCES["preset", "float32"]

# Loads a preset with KerasHub alone.
LOAD = """
import json, sys
import numpy as np

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_distil":
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import keras_hub

for folder, class_name in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    model = getattr(keras_hub.models, class_name).from_preset(folder)
    assert type(model).__module__.startswith("keras_hub.")
    words = model.preprocessor.tokenizer.vocabulary_size()
    said = []
    if class_name.endswith("TextClassifier"):
        base = keras_hub.models.TextClassifier.from_preset(folder)
        said = base.predict(["a cafe", "b c d e f"], verbose=0)
    inputs = dict(np.load(f"{folder}.in.npz"))
    logits = model(inputs, training=False)
    np.savez(f"{folder}.out.npz", logits=logits, words=words, said=said)
"""
CLASSES = {"mlm": "DistilBertMaskedLM", "task": "DistilBertTextClassifier"}


@pytest.fixture(scope="module")
def presets(student, task_student, tokenizer, tmp_path_factory):
    """Models, inputs and what KerasHub computes, by a name in `CLASSES`.

    In one process, most of whose time is its start.
    """
    folder = tmp_path_factory.mktemp("presets")
    made = {
        "mlm": (student, masked_lm_inputs(tokenizer)),
        "task": (
            task_student("classification", 3),
            data.encode_texts(tokenizer, ["a cafe", "b c d e f"], 24),
        ),
    }
    arguments = []
    for name, (model, inputs) in made.items():
        export.export_preset(model, folder / name, tokenizer)
        np.savez(folder / f"{name}.in.npz", **inputs)
        arguments += [str(folder / name), CLASSES[name]]
    script = folder / "load.py"
    script.write_text(LOAD)
    subprocess.run(
        [sys.executable, "-I", str(script), *arguments], check=True, cwd=folder
    )
    return {
        name: (*given, np.load(folder / f"{name}.out.npz"))
        for name, given in made.items()
    }


def masked_lm_inputs(tokenizer):
    batch = data.encode_texts(tokenizer, ["a cafe [MASK]", "b c d e f"], 24)
    rows, length = batch["token_ids"].shape
    positions = np.tile(np.arange(length, dtype="int32"), (rows, 1))
    return batch | {"mask_positions": positions}


@pytest.mark.slow
@pytest.mark.essential
def test_masked_lm(presets, tokenizer):
    student, inputs, found = presets["mlm"]
    assert found["words"] == tokenizer.get_vocab_size()
    difference = np.abs(found["logits"] - student(inputs, training=False))
    # KerasHub's epsilon shows, and no more than that.
    assert 1e-7 < difference.max() < TOLERANCE.max_difference


@pytest.mark.slow
def test_classifier(presets):
    model, inputs, found = presets["task"]
    np.testing.assert_allclose(
        found["logits"], model(inputs, training=False), atol=1e-5
    )
    # From texts, by the class for any family.
    np.testing.assert_allclose(found["said"], found["logits"], atol=1e-5)


def test_a_regression(task_student, tmp_path):
    made = export.export_preset(task_student("regression"), tmp_path / "made")
    loaded = keras_hub.models.DistilBertTextClassifier.from_preset(
        str(made.path), preprocessor=None
    )
    assert loaded.num_classes == 1


def test_plain_epsilon_is_the_whole_difference(student, tokenizer, tmp_path):
    made = export.export_preset(student, tmp_path / "made")
    loaded = keras_hub.models.DistilBertMaskedLM.from_preset(
        str(made.path), preprocessor=None
    )
    norm = loaded.masked_lm_head._intermediate_layer_norm
    assert norm.epsilon == 1e-5
    norm.epsilon = 1e-12
    inputs = masked_lm_inputs(tokenizer)
    np.testing.assert_allclose(
        loaded(inputs, training=False),
        student(inputs, training=False),
        atol=1e-6,
    )


def test_bert(bert, tokenizer, tmp_path):
    made = export.export_preset(bert, tmp_path / "made", tokenizer)
    config = json.loads((made.path / "task.json").read_text())
    assert config["registered_name"] == "keras_hub>BertMaskedLM"
    assert made.tolerance == export.TOLERANCES["preset_approximate", "float32"]
    assert 1e-5 < made.comparison.max_difference
    assert "keras_distil" not in (made.path / "config.json").read_text()


@pytest.mark.parametrize("kind", ["span", "token_classification"])
def test_tasks_that_keras_hub_lacks(task_student, tmp_path, kind):
    with pytest.raises(ValueError, match=f"no class for a {kind} model, so"):
        export.export_preset(task_student(kind), tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_a_wrong_export_is_not_kept(student, tmp_path):
    with pytest.raises(export.ParityError, match="It starts in the head, aft"):
        export.export_preset(
            student,
            tmp_path / "made",
            tolerance=export.Tolerance(1e-6, 1e-9, 1.0),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_byte_level_classifier_reads_texts(tmp_path):
    tokenizer = byte_level_tokenizer(tmp_path / "tokenizer")
    sizes = {**SIZES, "vocabulary_size": 701}
    encoder = models.ExactRobertaMaskedLM(models.ExactRobertaBackbone(**sizes))
    model = randomize(models.task_model(encoder, "classification", 3), seed=4)
    made = export.export_preset(model, tmp_path / "made", tokenizer)
    assert "byte-level tokenizer splits some texts otherwise" in made.note
    loaded = keras_hub.models.TextClassifier.from_preset(str(made.path))
    texts = ["the student learns", "it learns from the teacher"]
    np.testing.assert_allclose(
        loaded.predict(texts, verbose=0),
        model(data.encode_texts(tokenizer, texts, 12), training=False),
        atol=1e-5,
    )
