"""Trainers and optimizers of a recipe's stages, each run by one `fit`."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import keras
from keras_hub.models import MaskedLM, Task

from keras_distil import losses, schedules
from keras_distil.losses.chunked import JitCompile
from keras_distil.models import adapters
from keras_distil.teachers import CachedTaskTeacher
from keras_distil.training.distiller import Distiller
from keras_distil.utils.private_api import flatten_layers


def learning_rate_schedule(
    *,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    decay: str = "linear",
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of `make_optimizer`, from the same arguments."""
    decay_steps = max(steps - warmup_steps, 1)
    following = {
        "linear": schedules.Linear(learning_rate, 0.0, steps=decay_steps),
        "cosine": schedules.Cosine(learning_rate, 0.0, steps=decay_steps),
        "constant": schedules.Constant(learning_rate),
    }[decay]
    if warmup_steps:
        following = schedules.Warmup(following, steps=warmup_steps)
    return following


def make_optimizer(
    *,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    decay: str = "linear",
    weight_decay: float = 0.01,
    beta_2: float = 0.999,
) -> keras.optimizers.Optimizer:
    """AdamW with warm-up and decay over a known number of updates.

    Args:
        learning_rate: float > 0, peak after the warm-up.
        steps: int >= 1, updates in total.
        warmup_steps: int >= 0, updates of the linear warm-up.
        decay: "linear" or "cosine" down to 0, or "constant".
        weight_decay: float >= 0, decoupled; not applied to biases and
            normalisations.
        beta_2: float in (0, 1), decay of the second moment.

    Returns:
        An optimizer that does not clip; the Distiller does.
    """
    rate = learning_rate_schedule(
        learning_rate=learning_rate,
        steps=steps,
        warmup_steps=warmup_steps,
        decay=decay,
    )
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=weight_decay, beta_2=beta_2
    )
    # As in BERT and DistilBERT.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


@dataclasses.dataclass(frozen=True)
class TaskDefaults:
    """Training settings of a task, chosen by its size.

    Attributes:
        epochs: maximum passes over the examples.
        batch_size: examples per batch.
        learning_rate: peak of a schedule with linear warm-up and decay.
        patience: epochs without a better score before the training ends.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int


def task_defaults(examples: int, width: int, kind: str) -> TaskDefaults:
    """Fine-tuning settings that suit most tasks.

    BERT's authors recommend 2 to 4 epochs and 2e-5 to 5e-5 for GLUE; small data
    sets profit from more epochs, small models from higher rates. Of labels that
    do not exclude each other, the rare ones are learned last, so these tasks
    have twice the epochs.

    Args:
        examples: int, size of the training set.
        width: int, width of the encoder's hidden states.
        kind: kind of the task, as in `models.task_model`.

    Reference:
        Devlin et al. 2019, arXiv:1810.04805, appendix A.3; Zhang et al. 2021,
        arXiv:2006.05987, section 6, on more epochs for small data sets.
    """
    epochs = 2
    if examples < 20_000:
        epochs = 4
    if examples < 5_000:
        epochs = 5
    return TaskDefaults(
        epochs=2 * epochs if kind == "multi_label" else epochs,
        batch_size=32,
        learning_rate=3e-5 if width >= 512 else 1e-4,
        patience=2,
    )


def task_trainer(
    student: Task,
    optimizer: keras.optimizers.Optimizer,
    task_losses: Sequence[losses.DistillationLoss],
    *,
    teacher: Task | Sequence[Task | CachedTaskTeacher] | None = None,
    clip_norm: float | None,
    jit_compile: bool = False,
) -> Distiller:
    """A Distiller that trains a model on a task, with or without a teacher.

    Args:
        student: the model to train, from `models.task_model`.
        optimizer: an unused optimizer.
        task_losses: from `losses.task_loss`.
        teacher: a teacher fine-tuned on the same task, several, or their
            outputs on disk; None to learn from labels alone.
        clip_norm: bound on the global gradient norm, or None.
        jit_compile: see `Distiller.compile`.

    Returns:
        A compiled Distiller.
    """
    trainer = Distiller(teacher, student, task_losses)
    trainer.compile(optimizer, clip_norm=clip_norm, jit_compile=jit_compile)
    return trainer


def masked_lm_trainer(
    model: MaskedLM,
    optimizer: keras.optimizers.Optimizer,
    *,
    clip_norm: float | None,
    micro_batches: int = 1,
    jit_compile: JitCompile | Literal["auto"] = "auto",
) -> Distiller:
    """A Distiller that trains `model` by itself, without a teacher.

    It trains the baseline, and the masked-LM head of a teacher.

    Args:
        model: the model to train.
        optimizer: an unused optimizer.
        clip_norm: bound on the global gradient norm, or None.
        micro_batches: number of parts that a batch is split into.
        jit_compile: see `Distiller.compile`.

    Returns:
        A compiled Distiller with only the masked-LM loss.
    """
    trainer = Distiller(None, model, [losses.MaskedLMCrossentropy()])
    trainer.compile(
        optimizer,
        clip_norm=clip_norm,
        micro_batches=micro_batches,
        jit_compile=jit_compile,
    )
    return trainer


def prepare_teacher_training(
    teacher: MaskedLM, *, method: str, rank: int | None
) -> None:
    """Chooses which of a teacher's weights its masked-LM training changes.

    Dropout is turned off: the teacher sees its text only a few times, and a
    fixed network gives better soft targets sooner.

    Args:
        teacher: the model, changed in place.
        method: "all_weights", or "adapter" for low-rank changes.
        rank: int >= 1, rank of the adapter.
    """
    for layer in flatten_layers(teacher):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        elif isinstance(layer, keras.layers.MultiHeadAttention):
            layer._dropout = 0.0
    pooler = getattr(teacher.backbone, "pooled_dense", None)
    if pooler is not None:
        pooler.trainable = False
    if method == "adapter":
        adapters.enable_adapter(teacher, rank or 1)
