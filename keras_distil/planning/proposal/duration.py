"""How long the trainings of a task take on this machine."""

import dataclasses

from keras_distil.models.shape import EncoderShape, student_shape
from keras_distil.planning.estimate import EFFICIENCY

# A backward pass costs twice a forward pass.
_TRAINED = 3
# Before and after the updates of a training: tracing, saving.
_STARTS_S = 15.0


@dataclasses.dataclass(frozen=True)
class Work:
    """What a task's trainings consist of.

    Attributes:
        teacher: the teacher's shape.
        student_layers: layers of the student, which is as wide.
        rows: training rows.
        tokens: mean tokens per row.
        epochs: passes over the rows.
        trains_teacher: whether the teacher is trained, too.
    """

    teacher: EncoderShape
    student_layers: int
    rows: int
    tokens: float
    epochs: int
    trains_teacher: bool


def expected_seconds(work: Work, flops: float) -> dict[str, float]:
    """Estimates the seconds of each training.

    Formula:
        tokens = epochs * rows * tokens per row
        teacher = 3 * teacher_flops * tokens / (0.4 * flops) + 15
        student = (3 * student_flops + teacher_flops) * tokens / ...
        baseline = 3 * student_flops * tokens / ...

    A backward pass counts as two forward passes. Not included: reading, the
    scores of the epochs, exports.

    Args:
        work: the trainings.
        flops: FLOP per second of large matrix products here.

    Returns:
        Seconds by the row of the table.
    """
    length = max(1, round(work.tokens))
    teacher = work.teacher.flops_per_token(length)
    student = student_shape(work.teacher, work.student_layers).flops_per_token(
        length
    )
    rate = EFFICIENCY * flops / (work.epochs * work.rows * work.tokens)
    parts = {
        "student": _TRAINED * student + teacher,
        "baseline": _TRAINED * student,
    }
    if work.trains_teacher:
        parts = {"teacher": _TRAINED * teacher, **parts}
    return {name: _STARTS_S + x / rate for name, x in parts.items()}
