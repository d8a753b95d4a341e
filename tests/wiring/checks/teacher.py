"""Checks of the section `teacher`."""

import math
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from checks.fits import batch_size
from checks.table import of_fit, seen


@seen("teacher.source", "text", wanted=True)
def _(runs, made):
    file = runs.home.teacher / "model.safetensors"
    words = load_file(file)["bert.embeddings.word_embeddings.weight"]
    return any(
        np.array_equal(words, found) for found in made.fit("distill").teacher
    )


@seen("teacher.task_source", "given", wanted=(True, ("rte/student/seed_0",)))
def _(runs, made):
    """Its outputs are in the order of the data, and it is not trained."""
    from keras_distil import models

    fit = made.fit("rte/student/seed_0")
    file = models.load_task_model(runs.home.root / "given.keras")
    teacher = fit.distiller.teacher
    return (
        np.array_equal(
            teacher.output_dense.kernel,
            np.array(file.output_dense.kernel)[:, ::-1],
        ),
        tuple(each.stage for each in made.fits),
    )


@seen("teacher.predictions", "predicted", wanted=[0.2, 0.8])
def _(runs, made):
    """The student learns from them, in every example."""
    fit = made.fit("mine/student/seed_0")
    (outputs,) = {
        tuple(map(float, row))
        for x, *_ in fit.batches
        for row in fit.distiller.teacher.take_outputs(x)[1].outputs
    }
    return [math.exp(x) for x in outputs]


@seen("teacher.allow_chance_score", "given", wanted=1)
def _(runs, made):
    """The teacher always says the same, and the student is trained."""
    return len(made.fits)


@seen("teacher.allow_new_head", "head", wanted=1)
def _(runs, made):
    return len(made.fits)


@seen("teacher.license", "finished", wanted=True)
def _(runs, made):
    card = (made.folder / "MODEL_CARD.md").read_text()
    source = runs.values["finished"]["teacher"]["source"]
    return f"Teacher `{source}`: Licence of the teacher." in card


of_fit(
    "teacher.train.",
    "adapter",
    "teacher",
    steps=lambda fit: fit.arguments["steps_per_epoch"],
    batch_size=batch_size,
    # This is the first update after the warm-up.
    learning_rate=lambda fit: fit.rate(4),
    # The first update has a fourth of the peak, so the warm-up lasts four.
    warmup_steps=lambda fit: round(fit.rate(4) / fit.rate(0)),
    weight_decay=lambda fit: fit.optimizer.weight_decay,
    clip_norm=lambda fit: fit.distiller.clip_norm,
)


@seen("teacher.train.method", "all_weights", wanted=(True, False))
def _(runs, made):
    """Whether each method trains the embeddings: only `all_weights` does."""
    return tuple(
        run.fit("teacher").student.backbone.token_embedding.trainable
        and any(
            x.path.endswith("token_embedding/embeddings")
            for x in run.fit("teacher").student.trainable_variables
        )
        for run in (made, runs("adapter"))
    )


def low_rank(fit: Any) -> list[np.ndarray]:
    variables = fit.student.trainable_variables
    return [x.numpy() for x in variables if x.name == "lora_kernel_a"]


@seen("teacher.train.rank", "adapter")
def _(runs, made):
    (rank,) = {x.shape[-1] for x in low_rank(made.fit("teacher"))}
    return rank


@seen("teacher.train.initial_adapter", "initial_adapter", wanted=True)
def _(runs, made):
    pairs = zip(
        low_rank(runs("adapter").fit("teacher")),
        low_rank(made.fit("teacher")),
        strict=True,
    )
    # The file stores only half of the digits.
    return all(np.allclose(a, b, rtol=2e-3, atol=1e-6) for a, b in pairs)


of_fit(
    "teacher.cache.",
    "cache",
    "distill",
    top_k=lambda fit: fit.batches[0][0]["teacher_token_ids"].shape[-1],
    maskings=lambda fit: fit.distiller.teacher.settings.maskings,
)
