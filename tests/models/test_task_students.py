"""Students, with fewer layers, of models fine-tuned on a task."""

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file
from toy import SIZES, randomize

from keras_distil import Distiller, data, export, losses, models

KINDS = [
    ("classification", 3),
    ("regression", 1),
    ("token_classification", 4),
    ("span", 1),
]


@pytest.fixture(scope="module")
def batch():
    """Three rows of one segment, the last one padded."""
    mask = np.ones((3, 6), "int32")
    mask[2, 4:] = 0
    ids = np.random.default_rng(0).integers(5, 50, (3, 6), dtype="int32")
    return {"token_ids": ids * mask, "padding_mask": mask}


def with_segments(model, inputs):
    if "segment_ids" in model.backbone.input:
        return inputs | {"segment_ids": np.zeros_like(inputs["token_ids"])}
    return inputs


def outputs_of(model, inputs):
    return keras.ops.convert_to_numpy(
        model(with_segments(model, inputs), training=False)
    )


@pytest.fixture(scope="module")
def encoders():
    import keras_hub

    bert = models.ExactBertBackbone(**SIZES)
    distil_bert = keras_hub.models.DistilBertBackbone(**SIZES)
    return {"bert": bert, "distilbert": distil_bert}


@pytest.fixture
def task_teacher(encoders):
    def make(architecture, kind, outputs):
        model = models.task_model(encoders[architecture], kind, outputs)
        return randomize(model, seed=4)

    return make


@pytest.mark.parametrize("kind, outputs", KINDS)
@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_all_layers_compute_what_the_teacher_does(
    architecture, kind, outputs, task_teacher, batch
):
    teacher = task_teacher(architecture, kind, outputs)
    student = models.initialize_student(teacher, 2)
    expected = outputs_of(teacher, batch)
    if architecture == "bert" and kind in ("classification", "regression"):
        expected = with_a_cut_line_for_tanh(teacher, batch)
    real = batch["padding_mask"] > 0
    found = outputs_of(student, batch)
    if expected.ndim == 3:
        found, expected = found[real], expected[real]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def with_a_cut_line_for_tanh(teacher, batch):
    """NumPy: W2 max(z, -1) + b2, z what BERT's pooler gives to tanh."""
    states = teacher.backbone(with_segments(teacher, batch), training=False)
    first = np.array(states["sequence_output"], "float64")[:, 0]
    kernel, bias = (
        np.array(w, "float64") for w in teacher.backbone.pooled_dense.weights
    )
    z = first @ kernel + bias
    np.testing.assert_allclose(
        np.tanh(z), np.array(states["pooled_output"]), rtol=1e-4, atol=1e-5
    )
    kernel, bias = (np.array(w) for w in teacher.output_dense.weights)
    return np.maximum(z, -1.0) @ kernel + bias


def test_the_cut_line_is_nearer_to_tanh_than_the_bare_pooler():
    z = np.random.default_rng(1).normal(0.0, 1.0, 10_000)
    ours, bare = np.maximum(z, -1.0), np.maximum(z, 0.0)
    assert abs(ours - np.tanh(z)).mean() < 0.5 * abs(bare - np.tanh(z)).mean()


@pytest.mark.parametrize("kind, outputs", KINDS)
def test_fewer_layers_keep_kind_and_outputs(kind, outputs, task_teacher):
    teacher = task_teacher("bert", kind, outputs)
    student = models.initialize_student(teacher, layers=[1], dropout=0.25)
    assert student.backbone.num_layers == 1
    assert student.dropout == student.backbone.dropout == 0.25
    assert getattr(student, "num_classes", 1) == outputs
    np.testing.assert_array_equal(
        student.backbone.transformer_layers[0].weights[0].numpy(),
        teacher.backbone.transformer_layers[1].weights[0].numpy(),
    )


def test_other_sizes_start_fresh_and_say_so(task_teacher, caplog):
    teacher = task_teacher("bert", "classification", 3)
    student = models.initialize_student(teacher, 1, hidden_dim=8)
    assert "Nothing was copied" in caplog.text
    assert student.num_classes == 3
    assert student.pooled_dense.kernel.shape == (8, 8)


def test_nothing_is_copied_at_random(task_teacher):
    teacher = task_teacher("distilbert", "classification", 3)
    student = models.initialize_student(teacher, 1, initialization="random")
    kernel = student.output_dense.kernel.numpy()
    # The initializer's deviation is 0.02, the teacher's 0.3.
    assert abs(kernel).max() < 0.1


def test_a_head_of_a_width_of_its_own(encoders, batch):
    from keras_distil.models.architectures.distil_bert import (
        ExactDistilBertTextClassifier,
    )

    teacher = randomize(
        ExactDistilBertTextClassifier(
            encoders["distilbert"], 3, hidden_dim=10, dropout=0.0
        ),
        seed=2,
    )
    student = models.initialize_student(teacher, 2)
    np.testing.assert_allclose(
        outputs_of(student, batch), outputs_of(teacher, batch), atol=1e-5
    )


def test_a_fine_tuned_folder_is_distilled_to_fewer_layers(
    task_teacher, batch, tmp_path
):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = data.load_tokenizer(tmp_path)
    folder = tmp_path / "teacher"
    export.export_hugging_face(
        task_teacher("bert", "classification", 3), folder, tokenizer
    )
    teacher = models.load_task_model(folder)
    student = models.initialize_student(teacher, 1, dropout=0.0)
    before = student.output_dense.kernel.numpy().copy()
    distiller = Distiller(teacher, student, losses.task_loss("classification"))
    distiller.compile(optimizer=keras.optimizers.SGD(1e-2))
    inputs = with_segments(teacher, batch)
    logs = distiller.fit(
        inputs, np.array([0, 2, 1]), batch_size=3, epochs=2, verbose=0
    )
    assert logs.history["loss"][1] < logs.history["loss"][0]
    assert np.abs(student.output_dense.kernel.numpy() - before).max() > 1e-5
    made = tmp_path / "student"
    report = export.export_hugging_face(student, made, tokenizer)
    assert report.comparison.max_difference < 1e-4
    tensors = load_file(made / "model.safetensors")
    np.testing.assert_array_equal(
        tensors["classifier.weight"], student.output_dense.kernel.numpy().T
    )
    assert models.load_task_model(made).backbone.num_layers == 1
