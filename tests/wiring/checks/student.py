"""Checks of the section `student`."""

from typing import Any

import numpy as np
from recording import encoder_weights, same

from checks.fits import dropout_rates
from checks.table import of_fit, seen

of_fit(
    "student.",
    "text",
    "distill",
    num_layers=lambda fit: fit.student.backbone.num_layers,
    hidden_dim=lambda fit: fit.student.backbone.hidden_dim,
    intermediate_dim=lambda fit: fit.student.backbone.intermediate_dim,
    dropout=lambda fit: dropout_rates(fit.student.backbone),
)


of_fit(
    "student.",
    "cosine",
    "distill",
    num_heads=lambda fit: fit.student.backbone.num_heads,
)


@seen("student.layers", "schedules", wanted=True)
def _(runs, made):
    """The student's only layer is the teacher's second."""
    fit = made.fit("distill")
    teacher = fit.distiller.teacher.backbone.transformer_layers[1]
    (student,) = fit.student.backbone.transformer_layers
    return same(*([v.numpy() for v in x.weights] for x in (teacher, student)))


@seen("student.initialization", "balance", wanted=(False, True))
def _(runs, made):
    """Whether the token embeddings are the teacher's: only elsewhere."""
    return tuple(
        any(
            np.array_equal(
                run.fit("distill").student.backbone.token_embedding.embeddings,
                array,
            )
            for array in run.fit("distill").teacher
        )
        for run in (made, runs("schedules"))
    )


def starts_from(fit: Any, path: Any) -> bool:
    """Whether a task's model has the encoder of a file."""
    from keras_distil import models

    file = encoder_weights(models.load_teacher(str(path)))
    return same(file, fit.before[: len(file)])


@seen("student.source", "tasks", wanted=True)
def _(runs, made):
    return starts_from(made.fit("rte/student/seed_5"), runs.home.student)


@seen("student.baseline_source", "by_task", wanted=True)
def _(runs, made):
    (fit,) = made.fits
    return starts_from(fit, runs.home.baseline)
