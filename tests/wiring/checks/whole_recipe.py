"""Checks of the keys of the recipe itself."""

from recording import same, same_batches

from checks.table import of_fit, seen
from keras_distil import callbacks


@seen("name", "finished")
def _(runs, made):
    return made.json("report.json")["name"]


@seen("seed", "text", wanted=(False, True))
def _(runs, made):
    """Another seed changes the student and batches, but not the scoring."""
    one, other = made.fit("distill"), runs("seed").fit("distill")
    return (
        same(one.before, other.before)
        or same_batches(one.batches, other.batches),
        same_batches(made.evaluations, runs("seed").evaluations),
    )


@seen("precision", "precision", wanted=("mixed_bfloat16", "bfloat16"))
def _(runs, made):
    fit = made.fit("distill")
    teacher = fit.distiller.teacher.backbone
    return fit.student.backbone.dtype_policy.name, teacher.dtype_policy.name


of_fit(
    "",
    "text",
    "distill",
    checkpoint_steps=lambda fit: (
        fit.callback(callbacks.TrainingState).every_steps
    ),
)
