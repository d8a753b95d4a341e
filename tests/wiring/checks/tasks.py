"""Checks of the section `finetune`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from recording import Recording
from runs import OTHER_TASK_LOSSES
from toys import EXAMPLES, UNLABELLED

from checks.fits import batch_size, compiled, dropout_rates
from checks.table import of_fit, of_others, seen
from keras_distil import callbacks, teachers
from keras_distil.losses import registry


@seen("finetune.tasks", "squad", wanted=["squad/teacher/seed_0"])
def _(runs, made):
    return [fit.stage for fit in made.fits]


@seen("finetune.source", "tasks", wanted=EXAMPLES)
def _(runs, made):
    """The examples are those of the files."""
    fit = made.fit("rte/teacher/seed_5")
    found = {
        tuple(row[row > 0]) for x, *_ in fit.batches for row in x["token_ids"]
    }
    return len(found)


@seen("finetune.rows", "tasks", wanted=["teacher", "teacher", "student"])
def _(runs, made):
    return [fit.stage.split("/")[1] for fit in made.fits]


@seen("finetune.teacher_seeds", "tasks", wanted=["seed_5", "seed_8"])
def _(runs, made):
    """A student has the teachers of both seeds, that of its own first."""
    student = made.fit("rte/student/seed_5")
    return [each.folder.parent.name for each in student.distiller.teacher]


@seen("finetune.seeds", "tasks", wanted={"seed_5", "seed_8"})
def _(runs, made):
    return {fit.stage.split("/")[2] for fit in made.fits}


@seen("finetune.by_task", "by_task", wanted=["rte/baseline/seed_9"])
def _(runs, made):
    return [fit.stage for fit in made.fits]


seen(
    "TaskOverrides.seeds",
    "by_task",
    wanted=["rte/baseline/seed_9"],
    at="finetune.by_task.rte.seeds",
)(lambda runs, made: [fit.stage for fit in made.fits])
for key, see in {
    "epochs": lambda fit: fit.arguments["epochs"],
    "batch_size": batch_size,
    # A tenth of the updates are warm-up.
    "learning_rate": lambda fit: max(fit.rate(step) for step in range(10)),
}.items():
    seen(f"TaskOverrides.{key}", "by_task", at=f"finetune.by_task.rte.{key}")(
        lambda runs, made, see=see: see(made.fits[0])
    )


@seen("finetune.max_length", "tasks", wanted=(10, 10))
def _(runs, made):
    """The longest sequence in training, and in the development set."""
    fit = made.fit("rte/teacher/seed_5")
    inputs = development_inputs(fit)
    return (
        max(x["token_ids"].shape[1] for x, *_ in fit.batches),
        max(x["token_ids"].shape[1] for x in inputs),
    )


def development_inputs(fit: Any) -> list[dict[str, np.ndarray]]:
    """Inputs on which a model of the task is scored."""
    evaluator = fit.callback(callbacks.BestEpoch).score.__self__
    return list(evaluator.inputs())


@seen("finetune.selection", "stages", wanted=[(18, 2, 0)] * 4 + [1])
def _(runs, made):
    """Examples to train on, those that choose the epoch, and common ones.

    They are alike in all trainings, of which the last stages choose.
    """
    found = []
    for fit in made.fits[:6]:
        if not any(
            isinstance(x, callbacks.BestEpoch)
            for x in fit.arguments["callbacks"]
        ):
            continue
        batches = ([x for x, *_ in fit.batches], development_inputs(fit))
        found.append(
            tuple(
                frozenset(
                    tuple(row[row > 0]) for x in each for row in x["token_ids"]
                )
                for each in batches
            )
        )
    counts = [(len(a), len(b), len(a & b)) for a, b in found]
    return [*counts, len(set(found))]


def stages_of(made: Recording, task: str) -> list[Any]:
    """The trainings of the first seed's student, in order."""
    return [fit for fit in made.fits if fit.stage == f"{task}/student/seed_3"]


@seen("finetune.stages", "stages", wanted=2)
def _(runs, made):
    return len(stages_of(made, "rte"))


seen(
    "TaskOverrides.stages",
    "stages",
    wanted=[4],
    at="finetune.by_task.mrpc.stages",
)(
    lambda runs, made: [
        fit.arguments["epochs"] for fit in stages_of(made, "mrpc")
    ]
)


@seen(
    "TaskOverrides.cut_student",
    "stages",
    wanted={"mrpc": True, "rte": False},
    at="finetune.by_task.mrpc.cut_student",
)
def _(runs, made):
    """Whether a student has its words from its task's fine-tuned teacher."""
    from keras_distil import models

    found = {}
    for task in ("mrpc", "rte"):
        file = made.folder / "tasks" / task / "teacher/seed_3/model.keras"
        teacher = models.load_task_model(file)
        words = teacher.backbone.token_embedding.embeddings
        start = stages_of(made, task)[0].before
        found[task] = any(np.array_equal(words, each) for each in start)
    return found


def of_stage(key: str, see: Callable[[Any], Any]) -> None:
    """Checks a key of the first stage."""
    seen(f"FineTuneStage.{key}", "stages", at=f"finetune.stages.0.{key}")(
        lambda runs, made: see(stages_of(made, "rte")[0])
    )


of_stage("epochs", lambda fit: fit.arguments["epochs"])
# Two epochs of three batches.
of_stage("learning_rate", lambda fit: max(fit.rate(step) for step in range(6)))
for name, row in registry.rows_for(registry.TASK_KINDS).items():
    for key in row.settings.model_fields:
        of_stage(
            f"losses.{name}.{key}",
            lambda fit, name=name, key=key: fit.loss(name).get_config()[key],
        )


def windows(rows: np.ndarray) -> list[str]:
    """The parts of SQuAD's context in each window, as letters."""
    found = []
    for row in rows:
        context = row[np.flatnonzero(row == 3)[0] + 1 :]
        letters = [int(i) for i in context if i > 4]
        found.append("".join(chr(ord("a") + i - 5) for i in letters))
    return found


# Ten tokens minus [CLS], two [SEP] and two of the question leave five; windows
# share two of them.
WINDOWS = {"abcde", "defgh"}


@seen("finetune.stride", "squad", wanted=(WINDOWS, WINDOWS))
def _(runs, made):
    (fit,) = made.fits
    batches = [x["token_ids"] for x, *_ in fit.batches]
    inputs = [x["token_ids"] for x in development_inputs(fit)]
    return tuple(
        {window for rows in each for window in windows(rows)}
        for each in (batches, inputs)
    )


@seen("finetune.max_question", "squad", wanted=({2}, {2}))
def _(runs, made):
    (fit,) = made.fits
    batches = [x["token_ids"] for x, *_ in fit.batches]
    inputs = [x["token_ids"] for x in development_inputs(fit)]
    return tuple(
        {int(np.flatnonzero(row == 3)[0]) - 1 for rows in each for row in rows}
        for each in (batches, inputs)
    )


of_fit(
    "finetune.",
    "tasks",
    "rte/student/seed_5",
    epochs=lambda fit: fit.arguments["epochs"],
    patience=lambda fit: fit.callback(callbacks.BestEpoch).patience,
    batch_size=batch_size,
    learning_rate=lambda fit: max(fit.rate(step) for step in range(20)),
    # Three epochs of ten batches, which hold the examples and two copies of
    # each.
    warmup_fraction=lambda fit: {8: 0.25}[
        round(fit.rate(12) / fit.rate(0) * 30 / 26)
    ],
    weight_decay=lambda fit: fit.optimizer.weight_decay,
    clip_norm=lambda fit: compiled(fit)["clip_norm"],
    dropout=lambda fit: dropout_rates(fit.student),
    jit_compile=lambda fit: compiled(fit)["jit_compile"],
)
of_fit(
    "finetune.losses.",
    "tasks",
    "rte/student/seed_5",
    **{
        "label.weight": lambda fit: float(fit.loss("label").weight),
        "cosine.weight": lambda fit: float(fit.loss("cosine").weight),
        "cosine.layers": lambda fit: fit.loss("cosine").get_config()["layers"],
        "cosine.teacher": lambda fit: fit.loss("cosine").teacher,
    },
)
of_others(
    "finetune.losses.",
    "tasks",
    "rte/student/seed_5",
    OTHER_TASK_LOSSES,
    registry.TASK_KINDS,
)
of_fit(
    "finetune.losses.soft_target.",
    "tasks",
    "rte/student/seed_5",
    weight=lambda fit: float(fit.loss("soft_target").weight),
    temperature=lambda fit: float(fit.loss("soft_target").temperature),
    confidence_slope=lambda fit: fit.loss("soft_target").confidence_slope,
)


@seen("finetune.augment_copies", "tasks", wanted=(4, 10, EXAMPLES))
def _(runs, made):
    """Batches of six from 20 examples, and from the student's 60."""
    assert EXAMPLES == 20
    fits = [made.fit(f"rte/{row}/seed_5") for row in ("teacher", "student")]
    texts = {tuple(ids) for x, *_ in fits[0].batches for ids in texts_of(x)}
    return *(fit.arguments["steps_per_epoch"] for fit in fits), len(texts)


def texts_of(x: dict[str, np.ndarray]) -> list[list[int]]:
    """The token ids of each example, without padding."""
    return [[int(i) for i in row if i] for row in x["token_ids"]]


@seen("finetune.unlabelled_share", "more_text")
def _(runs, made):
    batches = made.fit("rte/student/seed_0").batches
    (share,) = {float(1 - x["label_weight"].mean()) for x, *_ in batches}
    return share


@seen("finetune.augmented_share", "more_text")
def _(runs, made):
    """What is left by the unlabelled half, and by the labelled quarter.

    An epoch of it holds each labelled example once.
    """
    fit = made.fit("rte/student/seed_0")
    in_batch = EXAMPLES / fit.arguments["steps_per_epoch"]
    return 0.5 - in_batch / batch_size(fit)


@seen(
    "TaskOverrides.unlabelled",
    "more_text",
    wanted=UNLABELLED,
    at="finetune.by_task.rte.unlabelled",
)
def _(runs, made):
    """The unlabelled texts of the first batches, read back."""
    found = set()
    for x, *_ in made.fit("rte/student/seed_0").batches:
        for ids, weight in zip(texts_of(x), x["label_weight"], strict=True):
            if not weight:
                letters = "".join(
                    chr(ord("a") + i - 5) if i > 4 else "|" for i in ids
                )
                _, first, second, _ = letters.split("|")
                found.add((" ".join(first), " ".join(second)))
    return found


@seen("finetune.teacher_cache", "tasks")
def _(runs, made):
    """The teachers are their outputs for all examples of the student."""
    return all(
        isinstance(teacher, teachers.CachedTaskTeacher)
        and teacher.settings.task == "rte"
        and [part.rows for part in teacher._parts[:2]]
        == [EXAMPLES, 2 * EXAMPLES]
        for teacher in made.fit("rte/student/seed_5").distiller.teacher
    )
