"""Checks of models and losses, and descriptions of the metrics' inputs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_distil.losses import (
    AttentionLoss,
    DistillationLoss,
    HiddenStateLoss,
    LabelBinaryCrossentropy,
    LabelCrossentropy,
    LabelSquaredError,
    LogitsLoss,
    SoftTargetBinaryKLDivergence,
    SoftTargetJensenShannonDivergence,
    SoftTargetKLDivergence,
    SoftTargetReverseKLDivergence,
    SoftTargetSquaredError,
    VectorLoss,
)
from keras_distil.losses.base import check_reads
from keras_distil.models import heads, supported
from keras_distil.models.task_model import kind_of
from keras_distil.teachers import StoredTeacher
from keras_distil.training.objectives.teachers import check_each

Tensor = Any

# Losses on classes of which one is right, and on labels of which several are.
OF_CLASSES = (
    LabelCrossentropy,
    SoftTargetKLDivergence,
    SoftTargetReverseKLDivergence,
    SoftTargetJensenShannonDivergence,
)
OF_SEVERAL_LABELS = (LabelBinaryCrossentropy, SoftTargetBinaryKLDivergence)

# A callback that receives targets, the student's outputs and weights.
Observer = Callable[[Any, Any, Tensor], None]


def metric_outputs(
    *,
    targets: Sequence[Any],
    predictions: Any,
    described: str,
    names: Sequence[str] | None = None,
    classes: bool = True,
) -> dict[str, Any]:
    """Describes the inputs of an observer, for building metrics on them.

    Args:
        targets: shapes that the targets may have, the usual one first.
        predictions: shape of the student's outputs.
        described: both shapes in words.
        names: names of the outputs if there are several, of equal shapes.
        classes: whether an output chooses one of several classes.

    Returns:
        The same by name, with a `keras.KerasTensor` for each shape, and the
        "weight", (rows,).
    """

    def symbol(shape: Any, dtype: str) -> Any:
        if names is None:
            return keras.KerasTensor(shape, dtype)
        return {name: keras.KerasTensor(shape, dtype) for name in names}

    return {
        "targets": [
            symbol(shape, "int32" if len(shape) == 1 else "float32")
            for shape in targets
        ],
        "predictions": symbol(predictions, "float32"),
        "weight": keras.KerasTensor((None,), "float32"),
        "names": names,
        "classes": classes,
        "described": described,
    }


def _sizes(model: keras.Model | StoredTeacher) -> Any:
    """Returns the object with a model's vocabulary size and width."""
    return model if isinstance(model, StoredTeacher) else model.backbone


def check_models(
    teachers: Sequence[keras.Model | StoredTeacher],
    student: keras.Model,
    *,
    trains: bool = True,
) -> None:
    """Raises ValueError unless each teacher can teach the student.

    Args:
        teachers: models, a cached teacher or nothing.
        student: a model.
        trains: whether the student is trained, not only scored.

    Raises:
        ValueError: if they are the same model, share weights, or the student
            cannot be trained exactly.
    """
    if trains:
        supported.check_student(student)

    def check(teacher: keras.Model | StoredTeacher) -> None:
        if teacher is student:
            raise ValueError(
                "`teacher` and `student` must be two models: the teacher is "
                f"never changed. Received: {student.name!r} for both."
            )
        if trains and isinstance(teacher, keras.Model):
            supported.check_nothing_shared(teacher, student)

    check_each(teachers, check)


def check_vocabulary(
    teacher: keras.Model | StoredTeacher, student: keras.Model
) -> None:
    """Raises ValueError unless two encoders read the same vocabulary."""
    sizes = [_sizes(m).vocabulary_size for m in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "Teacher and student must share a vocabulary. Received: "
            f"teacher vocabulary {sizes[0]}, student vocabulary {sizes[1]}."
        )


def check_losses(
    losses: Sequence[DistillationLoss],
    teachers: Sequence[keras.Model | StoredTeacher],
    *,
    vectors: bool = False,
    trains_outputs: bool = True,
) -> None:
    """Raises an error unless `losses` can be added up.

    Args:
        losses: the losses.
        teachers: models, a cached teacher or nothing.
        vectors: whether the outputs are vectors of texts, not logits.
        trains_outputs: whether the output layer is to be trained, for which a
            loss on logits is needed.

    Raises:
        TypeError: if one is not a distillation loss, does not declare what it
            reads or how it joins several teachers, or reads outputs of
            another kind.
        ValueError: if there are no losses or none on logits, if names repeat,
            or if a loss needs a teacher that there is not, or needs outputs
            that a cached teacher lacks.
    """
    if isinstance(losses, DistillationLoss) or not losses:
        raise ValueError(
            "`losses` must be a list of at least one distillation loss, such "
            f"as `losses.triple_loss()`. Received: losses={losses!r}."
        )
    for loss in losses:
        if not isinstance(
            loss, LogitsLoss | HiddenStateLoss | AttentionLoss | VectorLoss
        ):
            raise TypeError(
                "`losses` must hold keras_distil losses. Received: "
                f"{loss!r} (of type {type(loss).__name__})."
            )
        check_reads(loss)
        _check_outputs_read(loss, vectors=vectors)
        _check_teachers_of(loss, len(teachers))
    names = [loss.name for loss in losses]
    if len(set(names)) != len(names):
        raise ValueError(
            "Every loss needs its own name, as logs are called after it. "
            f"Received: names {names}."
        )
    needs_logits = trains_outputs and not vectors
    if needs_logits and not any(loss.is_on_logits for loss in losses):
        raise ValueError(
            "`losses` must hold a loss on logits, or the output layer would "
            f"not be trained. Received: names {names}."
        )
    for teacher in teachers:
        if isinstance(teacher, StoredTeacher):
            teacher.check_losses(losses)


def _check_outputs_read(loss: DistillationLoss, *, vectors: bool) -> None:
    if isinstance(loss, VectorLoss) and not vectors:
        raise TypeError(
            f"The loss {loss.name!r} reads the vectors of texts, which only "
            "embedding models return. `models.embedding_model` makes one of "
            "an encoder."
        )
    if loss.is_on_logits and vectors:
        raise TypeError(
            f"The loss {loss.name!r} reads logits, and embedding models return "
            "vectors. Use losses on vectors, such as VectorCosineDistance, on "
            "hidden states or on attention."
        )


def _check_teachers_of(loss: DistillationLoss, count: int) -> None:
    """Raises an error unless a loss can learn from this many teachers."""
    if not count and loss.needs_teacher:
        raise ValueError(
            f"The loss {loss.name!r} needs a teacher. Received: teacher=None."
        )
    if isinstance(loss, HiddenStateLoss | AttentionLoss):
        if loss.teacher >= count:
            allowed = f"from 0 to {count - 1}" if count > 1 else "0"
            there = f"are {count} teachers" if count > 1 else "is one teacher"
            raise ValueError(
                f"The loss {loss.name!r}: `teacher` must be {allowed}, as "
                f"there {there}. Received: teacher={loss.teacher}."
            )
        return
    joins = type(loss).join_teachers is not DistillationLoss.join_teachers
    if count > 1 and "teacher_logits" in loss.reads and not joins:
        kind = type(loss).__name__
        raise TypeError(
            f"The loss {loss.name!r} must tell how it joins the logits of "
            f"several teachers: define `{kind}.join_teachers`. "
            f"Received: {count} teachers."
        )


def trained_after_encoder(student: keras.Model) -> list[keras.Variable]:
    """Returns the trainable variables of the layers after the encoder."""
    inside = {id(variable) for variable in student.backbone.variables}
    return [v for v in student.trainable_variables if id(v) not in inside]


def check_kinds(
    teachers: Sequence[keras.Model | StoredTeacher], student: keras.Model
) -> str:
    """Returns the kind of task; raises an error unless all models match."""
    kind = kind_of(student)
    if kind is None:
        raise TypeError(
            "`student` must be a model of `models.task_model`. "
            f"Received: {type(student).__name__}."
        )
    heads.check_task_head(student, "student")
    check_each(
        teachers, functools.partial(_check_kind, student=student, kind=kind)
    )
    return kind


def _check_kind(teacher: Any, student: keras.Model, kind: str) -> None:
    found: str | None
    if isinstance(teacher, StoredTeacher):
        found, received = teacher.kind, f"{teacher.name} for {teacher.kind}"
    else:
        found = kind_of(teacher)
        received = f"a teacher of {type(teacher).__name__}"
    if found != kind:
        raise TypeError(
            "Teacher and student must be for the same kind of task. Received: "
            f"{received}, a student for {kind}."
        )
    if isinstance(teacher, keras.Model):
        heads.check_task_head(teacher, "teacher")
    if kind != "span" and teacher.num_classes != student.num_classes:
        raise ValueError(
            "Teacher and student must have the same classes. Received: "
            f"{teacher.num_classes} and {student.num_classes}."
        )


def check_outputs(kind: str, losses: Sequence[DistillationLoss]) -> None:
    """Raises an error for a loss that does not fit the kind of output."""
    for loss in losses:
        # The squared error of outputs fits all kinds.
        if isinstance(loss, SoftTargetSquaredError):
            continue
        is_wrong = (
            isinstance(loss, LabelSquaredError) != (kind == "regression")
            or (isinstance(loss, OF_SEVERAL_LABELS) and kind != "multi_label")
            or (isinstance(loss, OF_CLASSES) and kind == "multi_label")
        )
        if is_wrong:
            raise TypeError(
                f"{type(loss).__name__} is not for a {kind.replace('_', ' ')}. "
                "`losses.task_loss` makes the losses of each kind."
            )
        smoothing: Any = getattr(loss, "label_smoothing", 0.0)
        if kind == "span" and smoothing:
            raise ValueError(
                f"The loss {loss.name!r} of a span must have no label "
                "smoothing: it would ask for answers in the padding. "
                f"Received: label_smoothing={smoothing}."
            )
