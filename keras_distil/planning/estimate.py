"""Estimates of a recipe's costs, without building or loading anything."""

import dataclasses
from typing import Any

from keras_distil.benchmark.matrix_products import PRECISIONS
from keras_distil.config import Recipe
from keras_distil.config.distill_section import DistillSection
from keras_distil.losses.chunked import DEFAULT_CHUNK_SIZE
from keras_distil.models.shape import (
    EncoderShape,
    embedder_shape,
    encoder_shape,
    student_shape,
)
from keras_distil.planning.caches import task_caches, text_cache
from keras_distil.planning.devices import Device
from keras_distil.planning.embeddings import (
    StaticShape,
    embedding_student,
    vectors_on_disk,
)
from keras_distil.runs import settled
from keras_distil.runs.checks import teacher_shape
from keras_distil.runs.embeddings.distillation import reads_layers
from keras_distil.runs.given_files import given_students
from keras_distil.utils.checks import check_count

_FLOAT32_BYTES = 4
# Tables of (chunk, vocabulary) that exist at once: the logits of both models,
# their softened log-probabilities, the teacher's probabilities, their product,
# the crossentropy's log-probabilities, and the gradient.
_CHUNK_TABLES = 8


def with_precision(
    recipe: Recipe, device: Device | None = None
) -> tuple[Recipe, str]:
    """Replaces `precision: auto` with the precision that a run would take.

    Args:
        recipe: a checked recipe.
        device: the device of the plan, whose published rates decide; None for
            this machine, whose rates are measured.

    Returns:
        The recipe, and the precision to show.
    """
    if recipe.precision != "auto":
        return recipe, recipe.precision
    if device is None:
        measured = settled.measure_precision()
        precision: str = measured.value
        shown = f"auto: {measured}"
    else:
        rates = {each: device.peak_flops(each) for each in PRECISIONS}
        precision = max(rates, key=rates.__getitem__)
        shown = f"auto: {precision} on a {device.name}"
    return recipe.model_copy(update={"precision": precision}), shown


def summarise(recipe: Recipe, *, devices: int = 1) -> dict[str, dict[str, Any]]:
    """Estimates sizes, tokens, memory and operations of a recipe.

    Nothing is trained and no weights are loaded; see `encoder_shape` for what
    may be downloaded. The costs are those of the distillation; for a recipe
    without it, only the teacher and the tokens are reported.

    Formula:
        micro_batch = ceil(ceil(batch_size / devices) / micro_batches)
        tokens = micro_batch * sequence_length      # all counted as real

        memory of one device, in bytes; c = 4, or 2 with mixed_bfloat16:
        teacher_weights = 4 * teacher_parameters
        student_weights = 4 * student_parameters
        student_gradients = 4 * student_parameters  # twice if micro-batched
        adamw_moments = 8 * student_parameters
        activations = c * tokens * (student_layers * kept(student)
                                    + kept(teacher))
            kept = 9 * hidden_dim + 2 * intermediate_dim
                   + 2.5 * num_heads * sequence_length
        vocabulary_chunk = 4 * vocabulary * (8 * chunk + 2 * student_width)

        operations per token, in FLOP:
        teacher_forward = teacher.flops_per_token(sequence_length)
        student_forward_and_backward = 3 * student.flops_per_token(...)
        vocabulary_heads = share * (teacher.head_flops_per_token
                                    + 3 * student.head_flops_per_token)
            share = 1 if soft targets count at all positions, else the
                    masking rate

    A backward pass counts as two forward passes. The teacher keeps no
    activations, so only one of its layers is in memory at a time; with
    `teacher.cache` it is not in memory at all, and costs no operations. Not
    included: copies of the weights in bfloat16, TensorFlow itself and what
    its allocator holds back, buffers of the all-reduce and of the input.

    Args:
        recipe: a checked recipe.
        devices: int >= 1, replicas that share the global batch; above 1 only
            with `distill.strategy: mirrored`.

    Returns:
        Names and values by section: "recipe", "teacher", "student", "tokens",
        "memory_gb_per_device", "gflop_per_token" and, where a teacher's outputs
        are kept, "teacher_cache" and "task_teacher_cache". GB and GFLOP are
        1e9.

    Raises:
        TypeError: if `devices` is not an integer.
        ValueError: if `devices` does not fit the recipe, or the student or
            the sequences do not fit the teacher.
        ConnectionError: if a shape cannot be downloaded.

    Reference:
        Korthikanti et al. 2022, arXiv:2205.05198, section 4.1, for what a
        layer keeps for its backward pass. Differs: the width of the
        feed-forward part is free, and a mask takes half a value.
    """
    _check_devices(recipe, devices)
    embeds = recipe.distill is not None and recipe.distill.embeds
    if embeds:
        teacher, origin = embedder_shape(recipe.teacher.encoder_source)
    else:
        teacher, origin = teacher_shape(recipe)
    length = recipe.data.sequence_length
    reads_text = recipe.distill or recipe.teacher.train
    if reads_text and length > teacher.max_sequence_length:
        raise ValueError(
            f"`data.sequence_length` must be at most "
            f"{teacher.max_sequence_length}, the positions of the teacher "
            f"{recipe.teacher.encoder_source!r}. Received: {length}."
        )
    summary = {
        "recipe": {
            "name": recipe.name,
            "precision": recipe.precision,
            "devices": devices,
        },
        "teacher": {
            "source": recipe.teacher.encoder_source,
            "shape_from": origin,
            **_describe(teacher, embeds=embeds),
        },
    }
    if recipe.distill is not None and embeds:
        return summary | _summarise_embedding(
            recipe, recipe.distill, teacher, devices
        )
    student = _student_shape(recipe, teacher)
    if student is not None:
        summary |= task_caches(recipe, teacher, student)
        if recipe.distill is not None or recipe.makes("student"):
            summary["student"] = _describe_student(student, teacher)
    if recipe.distill is None or student is None:
        return summary | {"tokens": _tokens(recipe)}
    if recipe.teacher.cache is not None:
        summary["teacher_cache"] = text_cache(
            recipe, recipe.teacher.cache, recipe.distill, teacher
        )
    return summary | {
        "tokens": _tokens(recipe),
        "memory_gb_per_device": _in_billions(
            _memory(recipe, recipe.distill, teacher, student, devices)
        ),
        "gflop_per_token": _in_billions(
            _operations(recipe, recipe.distill, teacher, student)
        ),
    }


def _summarise_embedding(
    recipe: Recipe,
    settings: DistillSection,
    teacher: EncoderShape,
    devices: int,
) -> dict[str, dict[str, Any]]:
    """Returns the rest of a summary for sentence embeddings.

    There is no vocabulary to compare, and the teacher, which is read once,
    costs memory and operations only if a loss reads its layers.
    """
    student = embedding_student(recipe, teacher)
    parameters = student.encoder_parameters
    fewer = 100 * (1 - parameters / teacher.encoder_parameters)
    memory = _memory(recipe, settings, teacher, student, devices)
    operations = _operations(recipe, settings, teacher, student)
    del memory["vocabulary_chunk"], operations["vocabulary_heads"]
    return {
        "teacher_vectors": vectors_on_disk(recipe, teacher),
        "student": {
            **dataclasses.asdict(student),
            "parameters": parameters,
            "fewer_parameters_percent": round(fewer, 1),
        },
        "tokens": {
            **_tokens(recipe),
            "padding": "counted: texts are as long as they are",
        },
        "memory_gb_per_device": _in_billions(memory),
        "gflop_per_token": _in_billions(operations),
    }


# The share of a device's peak that training of transformers reaches: the "model
# FLOPs utilisation" of published runs is 0.3 to 0.6.
EFFICIENCY = 0.4
_HOUR = 3600.0


def durations(
    recipe: Recipe,
    *,
    device: Device,
    devices: int = 1,
    efficiency: float = EFFICIENCY,
) -> dict[str, dict[str, Any]]:
    """Estimates how long a recipe's distillation takes, and where time goes.

    Formula:
        arithmetic = tokens * operations_a_token
                     / (devices * efficiency * peak)
        optimizer = updates * (28 * student_parameters
                               + micro_batches * 12 * student_parameters)
                    / bandwidth
            AdamW reads a weight, its gradient and two moments and writes
            three of them; every micro-batch adds to the gradient
        step = (arithmetic + optimizer) / updates

    Not included: the input, the all-reduce, checkpoints, the teacher's own
    training, the baseline's and the evaluation.

    Args:
        recipe: a recipe with a `distill` section.
        device: the device it runs on.
        devices: int >= 1, replicas that share the global batch.
        efficiency: float in (0, 1], share of the peak that is reached.

    Returns:
        "device", "assumptions", "time" and "where_the_time_goes", each with
        names and values.

    Raises:
        ValueError: if the recipe distils nothing, a number is out of range,
            or as for `summarise`.
    """
    if not 0 < efficiency <= 1:
        raise ValueError(
            "`efficiency` must be above 0 and at most 1. Received: "
            f"efficiency={efficiency}."
        )
    summary = summarise(recipe, devices=devices)
    settings = recipe.distill
    if settings is None or "student" not in summary:
        raise ValueError(
            f"The recipe {recipe.name!r} distils nothing, so there is no time "
            "to plan."
        )
    a_token = {
        name: 1e9 * value
        for name, value in summary["gflop_per_token"].items()
        if name != "total"
    }
    per_step = settings.batch_size * recipe.data.sequence_length
    rate = devices * efficiency * device.peak_flops(recipe.precision)
    parts = {name: per_step * value / rate for name, value in a_token.items()}
    moved = 28 + 12 * (
        settings.micro_batches if settings.micro_batches > 1 else 0
    )
    parts["optimizer"] = (
        moved * summary["student"]["parameters"] / (1e9 * device.bandwidth_gb)
    )
    memory = summary["memory_gb_per_device"]["total"]
    return {
        "device": {
            "name": device.name,
            "devices": devices,
            "peak_tflops": device.peak_flops(recipe.precision) / 1e12,
            "bandwidth_gb_per_second": device.bandwidth_gb,
            "memory_gb": device.memory_gb,
            "memory_needed_gb": memory,
            "fits": "yes" if memory < device.memory_gb else "no",
        },
        "assumptions": {
            "efficiency": f"{efficiency:g} of the peak",
            "precision": _describe_precision(recipe, device),
            "padding": "none: every token counts",
            "left_out": "input, all-reduce, checkpoints, evaluation, baseline",
        },
        "time": time_of(recipe, sum(parts.values()), devices=devices),
        "where_the_time_goes": shares(parts),
    }


def time_of(
    recipe: Recipe, step_s: float, *, devices: int = 1
) -> dict[str, Any]:
    """Returns how long a distillation takes, from the time of an update.

    Args:
        recipe: a recipe with a `distill` section.
        step_s: seconds per update.
        devices: int >= 1, replicas that share the global batch.

    Returns:
        Names and values, to be displayed.

    Raises:
        ValueError: if the recipe distils nothing.
    """
    settings = recipe.distill
    if settings is None:
        raise ValueError(
            f"The recipe {recipe.name!r} distils nothing, so there is no time "
            "to plan."
        )
    per_step = settings.batch_size * recipe.data.sequence_length
    time: dict[str, Any] = {
        "seconds_per_update": round(step_s, 4),
        "tokens_per_second": round(per_step / step_s),
    }
    minutes = recipe.minutes or settings.minutes
    if minutes is not None:
        time["hours"] = round(minutes / 60, 2)
        time["updates"] = "known once some are timed, when the run begins"
    elif settings.steps is None:
        time["hours"] = "known once the corpus is prepared"
        time["hours_per_billion_tokens"] = round(
            1e9 / per_step * step_s / _HOUR, 2
        )
    else:
        hours = settings.steps * step_s / _HOUR
        time["hours"] = round(hours, 2)
        time["device_hours"] = round(devices * hours, 2)
    return time


def shares(parts: dict[str, float]) -> dict[str, str]:
    """Returns parts as percentages of their sum, to be displayed."""
    total = sum(parts.values())
    return {name: f"{100 * x / total:.1f}%" for name, x in parts.items()}


def _describe_precision(recipe: Recipe, device: Device) -> str:
    if recipe.precision == "float32":
        return "float32"
    if device.bfloat16_tflops is None:
        return f"float32: a {device.name} has no units for bfloat16"
    return "bfloat16"


def _check_devices(recipe: Recipe, devices: int) -> None:
    check_count("devices", devices)
    mirrored = recipe.distill and recipe.distill.strategy != "none"
    if devices > 1 and not mirrored:
        raise ValueError(
            "`devices` above 1 needs `distill.strategy: mirrored`; otherwise "
            f"the others would stay idle. Received: devices={devices}."
        )


def _describe(shape: EncoderShape, *, embeds: bool = False) -> dict[str, Any]:
    parameters = shape.encoder_parameters if embeds else shape.parameters
    return {**dataclasses.asdict(shape), "parameters": parameters}


def _student_shape(
    recipe: Recipe, teacher: EncoderShape
) -> EncoderShape | None:
    """Returns the student's shape; None if no student is trained."""
    if recipe.student is None:
        return None
    if recipe.distill is not None or recipe.makes("student"):
        return student_shape(teacher, **recipe.student.shape())
    given = given_students(recipe).get("student")
    return None if given is None else encoder_shape(given)[0]


def _describe_student(
    student: EncoderShape, teacher: EncoderShape
) -> dict[str, Any]:
    fewer = 100 * (1 - student.parameters / teacher.parameters)
    return {
        **_describe(student),
        "fewer_parameters_percent": round(fewer, 1),
    }


def _tokens(recipe: Recipe) -> dict[str, Any]:
    """Returns the tokens of each training stage, padding included."""
    length = recipe.data.sequence_length
    tokens: dict[str, Any] = {}
    train = recipe.teacher.train
    if train is not None:
        tokens["teacher_per_step"] = train.batch_size * length
        tokens["teacher_total"] = train.steps * train.batch_size * length
    settings = recipe.distill
    if settings is None:
        return tokens
    per_step = settings.batch_size * length
    tokens["distill_per_step"] = per_step
    if settings.minutes is not None or recipe.minutes is not None:
        tokens["distill_total"] = "known once some updates are timed"
    elif settings.steps is None:
        tokens["distill_total"] = (
            f"{settings.epochs:g} times the corpus, known once it is prepared"
        )
    else:
        tokens["distill_total"] = settings.steps * per_step
    if settings.baseline:
        tokens["baseline"] = "as many again, without the teacher"
    return tokens


def _memory(
    recipe: Recipe,
    settings: DistillSection,
    teacher: EncoderShape,
    student: EncoderShape | StaticShape,
    devices: int,
) -> dict[str, float]:
    """Returns the bytes on one device, by part."""
    length = recipe.data.sequence_length
    compute_bytes = _FLOAT32_BYTES if recipe.precision == "float32" else 2
    of_device = -(-settings.batch_size // devices)
    tokens = -(-of_device // settings.micro_batches) * length
    weights = _FLOAT32_BYTES * _parameters(student, settings)
    kept = student.num_layers * _kept(student, length)
    live = _runs_teacher(recipe, settings)
    if live:
        kept += _kept(teacher, length)
    chunk = min(tokens, DEFAULT_CHUNK_SIZE)
    return {
        "teacher_weights": _FLOAT32_BYTES
        * _parameters(teacher, settings)
        * live,
        "student_weights": weights,
        # The sum over the micro-batches, and the gradient of the current one.
        "student_gradients": weights * (2 if settings.micro_batches > 1 else 1),
        "adamw_moments": 2 * weights,
        "activations": compute_bytes * tokens * kept,
        # The gradient of the vocabulary matrix as well: the running sum and
        # the addition of a chunk.
        "vocabulary_chunk": _FLOAT32_BYTES
        * student.vocabulary_size
        * (_CHUNK_TABLES * chunk + 2 * student.hidden_dim),
    }


def _parameters(
    shape: EncoderShape | StaticShape, settings: DistillSection
) -> int:
    if settings.embeds or isinstance(shape, StaticShape):
        return shape.encoder_parameters
    return shape.parameters


def _runs_teacher(recipe: Recipe, settings: DistillSection) -> bool:
    """Whether the teacher runs in every step."""
    if settings.embeds:
        return reads_layers(settings)
    return recipe.teacher.cache is None


def _kept(shape: EncoderShape | StaticShape, length: int) -> float:
    """Returns the values per token that a layer keeps for its backward pass."""
    if isinstance(shape, StaticShape):
        return 0.0
    dense = 9 * shape.hidden_dim + 2 * shape.intermediate_dim
    return dense + 2.5 * shape.num_heads * length


def _operations(
    recipe: Recipe,
    settings: DistillSection,
    teacher: EncoderShape,
    student: EncoderShape | StaticShape,
) -> dict[str, float]:
    """Returns the floating-point operations per token, by part."""
    length = recipe.data.sequence_length
    share = 1.0 if settings.positions == "all" else recipe.data.masking.rate
    live = _runs_teacher(recipe, settings)
    heads = 0
    if isinstance(student, EncoderShape):
        heads = 3 * student.head_flops_per_token
    if live:
        heads += teacher.head_flops_per_token
    return {
        "teacher_forward": teacher.flops_per_token(length) * live,
        "student_forward_and_backward": 3 * student.flops_per_token(length),
        "vocabulary_heads": share * heads,
    }


def _in_billions(parts: dict[str, float]) -> dict[str, float]:
    """Adds the total, in units of 1e9, and rounds to 4 decimal places."""
    parts = parts | {"total": sum(parts.values())}
    return {name: round(value / 1e9, 4) for name, value in parts.items()}
