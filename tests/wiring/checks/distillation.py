"""Checks of the section `distill`, without its schedules."""

import math

import tensorflow as tf
from runs import OTHER_TEXT_LOSSES

from checks.fits import batch_size, compiled
from checks.table import of_fit, of_others, seen
from keras_distil.losses import registry

of_fit(
    "distill.",
    "text",
    "distill",
    steps=lambda fit: fit.arguments["steps_per_epoch"],
    batch_size=batch_size,
    micro_batches=lambda fit: fit.distiller.micro_batches,
    jit_compile=lambda fit: bool(compiled(fit)["jit_compile"]),
    learning_rate=lambda fit: fit.rate(10),
    warmup_steps=lambda fit: round(fit.rate(10) / fit.rate(0)),
    weight_decay=lambda fit: fit.optimizer.weight_decay,
    beta_2=lambda fit: fit.optimizer.beta_2,
    clip_norm=lambda fit: compiled(fit)["clip_norm"],
)


@seen("distill.decay", "text", wanted=0.5 + 0.5 * math.cos(math.pi * 12 / 30))
def _(runs, made):
    """After 12 of the 30 updates that follow the warm-up."""
    fit = made.fit("distill")
    return fit.rate(22) / fit.rate(10)


@seen("distill.epochs", "balance")
def _(runs, made):
    """Epochs of the training sequences, without the held-out ones."""
    fit = made.fit("distill")
    corpus = made.calls["prepare_corpus"][0]["returned"]
    count = sum(len(part) for part in corpus.train)
    steps = fit.arguments["steps_per_epoch"]
    wanted = runs.values["balance"]["distill"]["epochs"]
    return wanted if steps == round(wanted * count / batch_size(fit)) else steps


@seen("distill.minutes", "minutes", wanted=7)
def _(runs, made):
    return made.fit("distill").arguments["steps_per_epoch"]


@seen("minutes", "whole_minutes", wanted=9)
def _(runs, made):
    return made.fit("distill").arguments["steps_per_epoch"]


of_fit(
    "distill.losses.",
    "text",
    "distill",
    **{
        "mlm.weight": lambda fit: float(fit.loss("mlm").weight),
        "cosine.weight": lambda fit: float(fit.loss("cosine").weight),
        "cosine.layers": lambda fit: fit.loss("cosine").get_config()["layers"],
    },
)
of_fit(
    "distill.losses.soft_target.",
    "text",
    "distill",
    weight=lambda fit: float(fit.loss("soft_target").weight),
    temperature=lambda fit: float(fit.loss("soft_target").temperature),
    confidence_slope=lambda fit: fit.loss("soft_target").confidence_slope,
    positions=lambda fit: fit.loss("soft_target").positions,
)


of_others(
    "distill.losses.",
    "text",
    "distill",
    OTHER_TEXT_LOSSES,
    [registry.MASKED_LM],
)


@seen("distill.baseline", "finished", wanted=["distill", "baseline"])
def _(runs, made):
    return [fit.stage for fit in made.fits]


@seen("distill.strategy", "balance", wanted=True)
def _(runs, made):
    strategy = made.fit("distill").distiller.distribute_strategy
    return isinstance(strategy, tf.distribute.MirroredStrategy)
