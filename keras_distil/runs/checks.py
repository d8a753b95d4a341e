"""Checks of a recipe against the models that it names."""

from collections.abc import Iterator
from typing import Any

from keras_distil import config, data, losses, models
from keras_distil.config.losses_section import AnyLossMap
from keras_distil.losses import registry
from keras_distil.losses.layers import find_pairs
from keras_distil.losses.settings import AttentionSettings, HiddenStateSettings
from keras_distil.models.shape import (
    EncoderShape,
    encoder_shape,
    student_shape,
)


def teacher_shape(recipe: config.Recipe) -> tuple[EncoderShape, str]:
    """Finds the shape of the teacher, see `models.shape.encoder_shape`."""
    teacher = recipe.teacher
    return encoder_shape(
        teacher.encoder_source, of_task=teacher.task_source is not None
    )


def check_lengths(
    recipe: config.Recipe, positions: int, model: str = "the teacher"
) -> None:
    """Raises ValueError if the recipe has a length beyond a model's table.

    Args:
        recipe: the recipe.
        positions: rows of the model's position embeddings.
        model: name of the model in the message.
    """
    for key, length in _lengths(recipe).items():
        if length > positions:
            most = f"[{positions}]" if key in _LISTS else f"{positions}"
            raise ValueError(
                f"`{key}` is {length}, but {model} has {positions} "
                f"positions. Set it to {positions} or below: --set "
                f"{key}={most}."
            )


def check_tokenizer_lengths(recipe: config.Recipe) -> None:
    """Raises ValueError if texts would exceed the tokenizer's maximum length.

    Args:
        recipe: the recipe. Its teacher's tokenizer is read from disk if it is
            there.
    """
    directory = models.checkpoint_directory(recipe.teacher.tokenizer_source)
    limit = None if directory is None else data.read_max_length(directory)
    if limit is None:
        return
    lengths = _lengths(recipe)
    for key in ("data.sequence_length", "finetune.max_length"):
        if lengths.get(key, 0) > limit:
            raise ValueError(
                f"`{key}` is {lengths[key]}, but the tokenizer of "
                f"{recipe.teacher.tokenizer_source!r} has a "
                f"`model_max_length` of {limit}. Set it to {limit} or below: "
                f"--set {key}={limit}."
            )


_LISTS = ("export.lengths",)


def _lengths(recipe: config.Recipe) -> dict[str, int]:
    """Lengths, in tokens, of the sequences that a run will make, by key."""
    lengths: dict[str, int] = {}
    trains = recipe.distill is not None or recipe.finetune is not None
    if recipe.distill is not None or recipe.teacher.train is not None:
        lengths["data.sequence_length"] = recipe.data.sequence_length
    if recipe.finetune is not None:
        lengths["finetune.max_length"] = recipe.finetune.max_length
    if trains:
        lengths["evaluate.latency_length"] = recipe.evaluate.latency_length
    if trains and recipe.export is not None:
        if recipe.export.max_length is not None:
            lengths["export.max_length"] = recipe.export.max_length
        if recipe.export.lengths is not None:
            lengths["export.lengths"] = max(recipe.export.lengths)
    return lengths


def check_vocabulary(source: str, students: int, teachers: int) -> None:
    """Raises ValueError if a student's vocabulary is not its teacher's.

    Args:
        source: where the student comes from.
        students: size of its vocabulary.
        teachers: size of its teacher's vocabulary.
    """
    if students != teachers:
        raise ValueError(
            f"The student in {source} has a vocabulary of {students} entries, "
            f"its teacher one of {teachers}. They do not belong together."
        )


def check_cut_sizes(recipe: config.Recipe, source: str) -> None:
    """Raises ValueError if tasks have students of different sizes.

    Args:
        recipe: the recipe, some of whose tasks may cut their students.
        source: where the students of other tasks come from.
    """
    settings = recipe.finetune
    if settings is None or recipe.student is None:
        return
    cut = [x for x in settings.task_names if settings.cuts_student(x)]
    if not cut:
        return
    given, _ = encoder_shape(source)
    made = student_shape(teacher_shape(recipe)[0], **recipe.student.shape())
    for size in ("num_layers", "hidden_dim", "intermediate_dim", "num_heads"):
        here, there = getattr(made, size), getattr(given, size)
        if here != there:
            raise ValueError(
                f"`finetune.by_task.{cut[0]}.cut_student` cuts a student with "
                f"{size} {here}, but that of other tasks, {source}, has "
                f"{there}, and a row of the table is of one size: set "
                f"`student.{size}` to {there}."
            )


def check_layers(recipe: config.Recipe, teacher: Any, student: Any) -> None:
    """Raises ValueError if a loss pairs layers that do not exist or fit.

    Args:
        recipe: the recipe with the losses.
        teacher: an `EncoderShape`, or an encoder, which has its sizes.
        student: likewise.
    """
    for section, named in _losses(recipe):
        for name, loss in named.by_name.items():
            if not isinstance(loss, HiddenStateSettings | AttentionSettings):
                continue
            key = f"{section}.{name}"
            try:
                find_pairs(loss.layers, teacher.num_layers, student.num_layers)
            except ValueError as error:
                raise ValueError(f"{key}.layers: {error}") from None
            if isinstance(loss, AttentionSettings):
                _check_heads(key, name, loss, teacher, student)


def _losses(recipe: config.Recipe) -> Iterator[tuple[str, AnyLossMap]]:
    """All maps of losses that a run trains by, with their keys."""
    if recipe.distill is not None:
        yield "distill.losses", recipe.distill.losses
    settings = recipe.finetune
    if settings is None:
        return
    yield "finetune.losses", settings.losses
    stages = {"finetune": settings.stages}
    for task, own in settings.by_task.items():
        stages[f"finetune.by_task.{task}"] = own.stages
    for section, listed in stages.items():
        for number, stage in enumerate(listed or ()):
            yield f"{section}.stages.{number}.losses", stage.losses


def _check_heads(
    key: str, name: str, settings: AttentionSettings, teacher: Any, student: Any
) -> None:
    (loss,) = losses.make_losses({name: settings}, registry.MASKED_LM)
    shapes = [
        (each.num_heads, each.hidden_dim // each.num_heads)
        for each in (teacher, student)
    ]
    try:
        loss.heads_for(*shapes)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
