"""Models with low-rank changes (LoRA) are copied, exported and saved merged."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, losses, models
from keras_distil.export.litert import graph
from keras_distil.export.student import make_student
from keras_distil.models import weights


def add_changes(model, *, embeddings=False):
    """Adds changes to every kernel of attention, and more if requested."""
    model.backbone.enable_lora(2, ["query", "value", "attention_output"])
    head = getattr(model, "masked_lm_head", None)
    if head is not None:
        head._intermediate_dense.enable_lora(2)
    if embeddings:
        model.backbone.token_embedding.enable_lora(2, lora_alpha=4)
    generator = np.random.default_rng(4)
    changed = [v for v in model.weights if "lora" in v.path]
    assert changed
    for variable in changed:
        variable.assign(generator.normal(0.0, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module")
def teacher():
    return add_changes(toy.make_teacher(), embeddings=True)


@pytest.fixture(scope="module")
def student():
    plain = toy.make_student(toy.make_teacher())
    return add_changes(plain, embeddings=True)


@pytest.fixture(scope="module")
def batch():
    return toy.make_batch()[0]


def assert_same_logits(model, other, x):
    np.testing.assert_allclose(
        toy.full_logits(model, x),
        toy.full_logits(other, x),
        rtol=1e-4,
        atol=1e-4,
    )


def has_no_changes(model):
    return not any("lora" in v.path for v in model.weights)


def test_the_changes_matter(teacher, batch):
    difference = np.array(toy.full_logits(teacher, batch)) - np.array(
        toy.full_logits(toy.make_teacher(), batch)
    )
    assert np.abs(difference).max() > 0.1


def test_a_copy_in_another_precision_is_merged(teacher, batch):
    copy = models.with_dtype(teacher, "float32")
    assert has_no_changes(copy)
    assert_same_logits(copy, teacher, batch)


def test_a_student_of_all_layers_computes_the_same(teacher, batch):
    student = models.initialize_student(teacher, 2, layers=[0, 1])
    assert has_no_changes(student)
    assert_same_logits(student, teacher, batch)


def test_a_task_model_takes_the_merged_encoder(teacher, batch):
    model = models.task_model(teacher, "span")
    assert has_no_changes(model)
    np.testing.assert_allclose(
        toy.hidden_states(model, batch),
        toy.hidden_states(teacher, batch),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_what_is_exported_is_merged(request, role, batch):
    model = request.getfixturevalue(role)
    exported = make_student(model).model
    assert exported is not model
    assert has_no_changes(exported)
    assert_same_logits(exported, model, batch)
    # The caller's model stays as it is.
    assert weights.has_low_rank_changes(model)


def test_a_plain_model_is_not_copied():
    model = toy.make_student(toy.make_teacher())
    assert make_student(model).model is model


def test_the_graph_for_litert(student, batch):
    plain = make_student(student)
    inputs = {name: tf.constant(value) for name, value in batch.items()}
    real = batch["padding_mask"] > 0
    np.testing.assert_allclose(
        graph.outputs(plain, inputs)["logits"].numpy()[real],
        np.array(toy.full_logits(student, batch))[real],
        rtol=1e-4,
        atol=1e-4,
    )


def test_saving_keeps_what_it_computes(student, batch, tmp_path):
    student.save(tmp_path / "student.keras")
    loaded = models.load_teacher(tmp_path / "student.keras")
    assert_same_logits(loaded, student, batch)


# === keras.models.clone_model ===


@pytest.mark.parametrize(
    "kind", ["teacher", "student", "backbone", "classification", "span"]
)
def test_cloning_is_refused_with_what_works(kind):
    model = toy.make_teacher(num_layers=1)
    if kind == "student":
        model = toy.make_student(model)
    elif kind == "backbone":
        model = model.backbone
    elif kind != "teacher":
        model = models.task_model(model, kind, 1 + (kind[0] == "c"))
    with pytest.raises(TypeError, match="`keras.models.clone_model` cannot"):
        keras.models.clone_model(model)
    clone = type(model).from_config(model.get_config())
    clone.set_weights(model.get_weights())
    assert clone.get_config() == model.get_config()


def test_token_classifiers_are_not_cloned_either():
    model = models.task_model(
        toy.make_teacher(num_layers=1), "token_classification", 3
    )
    with pytest.raises(TypeError, match="cannot clone a TokenClassifier"):
        keras.models.clone_model(model)
    with pytest.raises(TypeError, match="further arguments by keyword"):
        models.TokenClassifier(model.backbone, 3, 0.1, "extra")


def test_a_distiller_can_be_cloned():
    teacher = toy.make_teacher(num_layers=1)
    distiller = Distiller(
        teacher, toy.make_student(teacher), losses.triple_loss()
    )
    clone = keras.models.clone_model(distiller)
    assert type(clone) is Distiller
    assert clone.get_config() == distiller.get_config()
