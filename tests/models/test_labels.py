"""The meaning of a classifier's outputs stays with the model."""

import pytest
from toy import make_teacher

from keras_distil import Distiller, losses, models
from keras_distil.models.labels import labels_of

NAMES = ("contradiction", "entailment", "neutral")


@pytest.fixture(scope="module")
def encoder():
    return make_teacher(num_layers=1)


@pytest.fixture(scope="module")
def labelled(encoder):
    return models.task_model(encoder, "classification", 3, labels=NAMES)


@pytest.mark.parametrize("kind", ["classification", "token_classification"])
def test_names_are_saved_with_the_model(encoder, tmp_path, kind):
    model = models.task_model(encoder, kind, 3, labels=list(NAMES))
    assert labels_of(model) == NAMES
    model.save(tmp_path / "model.keras")
    back = models.load_task_model(tmp_path / "model.keras")
    assert labels_of(back) == NAMES
    assert labels_of(models.with_dtype(back, "float64")) == NAMES


def test_a_model_without_names_has_none(encoder):
    assert labels_of(models.task_model(encoder, "classification", 3)) is None
    assert labels_of(encoder) is None


@pytest.mark.parametrize(
    "labels",
    [["a", "b"], ["a", "a", "b"], "abc", ["a", "b", 3], ["a", "b", ""]],
)
def test_wrong_names_are_refused(encoder, labels):
    with pytest.raises(ValueError, match="must name the model's 3 outputs"):
        models.task_model(encoder, "classification", 3, labels=labels)


def test_a_span_has_no_names(encoder):
    with pytest.raises(ValueError, match="a span model has none"):
        models.task_model(encoder, "span", labels=["start", "end"])


def test_a_smaller_student_has_its_teachers_names(labelled):
    assert labels_of(models.initialize_student(labelled, 1)) == NAMES


def distil(teacher, student):
    return Distiller(teacher, student, losses.task_loss("classification"))


def test_distillation_gives_a_student_its_teachers_names(encoder, labelled):
    student = models.task_model(encoder, "classification", 3)
    distil(labelled, student)
    assert labels_of(student) == NAMES


def test_classes_in_another_order_are_not_distilled(encoder, labelled):
    student = models.task_model(
        encoder, "classification", 3, labels=NAMES[::-1]
    )
    with pytest.raises(ValueError, match="same labels in the same order.*neut"):
        distil(labelled, student)
