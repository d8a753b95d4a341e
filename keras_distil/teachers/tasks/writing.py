"""Writes a fine-tuned teacher's outputs for a task into shards on disk."""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tokenizers
from keras_hub.models import Task

from keras_distil import data
from keras_distil.data.tasks.batches import padded
from keras_distil.losses.layers import (
    EMBEDDINGS,
    LAST,
    Attention,
    Layer,
)
from keras_distil.models import forward, heads
from keras_distil.models.labels import labels_of
from keras_distil.models.task_model import kind_of
from keras_distil.teachers.identity import identify
from keras_distil.teachers.store import writing
from keras_distil.teachers.store.manifest import Part
from keras_distil.teachers.store.records import RecordLayout, shard_bytes
from keras_distil.teachers.tasks.cached import CachedTaskTeacher
from keras_distil.teachers.tasks.settings import (
    OUTPUTS,
    SPAN_OUTPUTS,
    TaskCacheSettings,
    TaskManifest,
    field_of,
    list_sets,
)
from keras_distil.utils import disk
from keras_distil.utils.checks import check_count

Tensor = Any

# The most tokens of a shard: an interrupted pass repeats the teacher's work on
# one shard, at most a minute or two.
_SHARD_TOKENS = 2**18


def cache_task_teacher(
    teacher: Task,
    examples: data.EncodedExamples | data.Mixture,
    folder: str | os.PathLike,
    *,
    hidden_states: Sequence[Layer] = (),
    attention: Sequence[Layer] = (),
    task: str = "",
    tokenizer: tokenizers.Tokenizer | None = None,
    batch_size: int = 64,
    say: Callable[[str], None] | None = print,
    progress: Callable[[int, int], None] | None = None,
) -> CachedTaskTeacher:
    """Writes a teacher's outputs for a task's examples, unless they exist.

    The teacher sees every example once. All of its outputs are kept in
    float32: the logits of each class, the number of a regression, the logits
    of each token, or of each start and end. Hidden states and attention, which
    losses on them need, are kept in float16 for the layers that are named.

    An interrupted pass continues with the shard it was writing.

    Args:
        teacher: a fine-tuned model, as from `models.task_model`.
        examples: the examples, or the mixture of sets that a student learns
            from. Labels are not needed.
        folder: a folder for this cache alone; made if missing.
        hidden_states: the teacher's layers whose states are kept: numbers from
            0, "embeddings" for the input of the first, "last".
        attention: the teacher's layers whose queries, keys and values are
            kept.
        task: name of the task, for messages.
        tokenizer: the tokenizer of the examples, so that a cache made with
            another one is refused by name. None if it is not known.
        batch_size: int >= 1, examples per batch of the teacher.
        say: called with one line that states size and time before the work
            begins.
        progress: called now and then with the number of examples done and in
            total.

    Returns:
        The `CachedTaskTeacher`.

    Raises:
        CorpusError: if `folder` holds another cache.
        OSError: if the disk is too small, full or may not be written.
        TypeError: if an argument has the wrong type.
        ValueError: if a layer does not exist, the examples do not fit the
            teacher, or its outputs are not finite.

    Example:
        >>> cached = cache_task_teacher(
        ...     teacher, examples, "caches/rte", hidden_states=["last"]
        ... )                                               # doctest: +SKIP
    """
    batch_size = check_count("batch_size", batch_size)
    _check_teacher(teacher)
    if not isinstance(examples, data.EncodedExamples | data.Mixture):
        raise TypeError(
            "`examples` must be those that `data.encode_examples` returns. "
            f"Received: {type(examples).__name__}."
        )
    sets = list_sets(examples)
    for each in sets:
        _check_fit(teacher, each)
    settings = _settings(
        teacher, sets, hidden_states, attention, task, tokenizer
    )
    path = disk.named(Path(folder).expanduser())
    writing.make_store(
        path,
        settings,
        TaskManifest,
        lambda: _Job(teacher, sets, settings, batch_size).plan(),
        say=say,
        progress=progress,
    )
    return CachedTaskTeacher(path)


def _check_teacher(teacher: Task) -> None:
    if kind_of(teacher) is None:
        raise TypeError(
            "`teacher` must be a model for a task, as `models.task_model` "
            f"makes it. Received: {type(teacher).__name__}."
        )
    heads.check_task_head(teacher, "teacher")


def _check_fit(teacher: Task, examples: data.EncodedExamples) -> None:
    longest = int(examples.lengths.max(initial=0))
    if longest > teacher.backbone.max_sequence_length:
        raise ValueError(
            "`examples` must have at most "
            f"{teacher.backbone.max_sequence_length} tokens each, the "
            f"positions of the teacher. Received: {longest} tokens. Encode "
            "them with a lower `max_length`."
        )
    highest = int(examples.token_ids.max(initial=0))
    if highest >= teacher.backbone.vocabulary_size:
        raise ValueError(
            "`examples` must have token ids below "
            f"{teacher.backbone.vocabulary_size:,}, the teacher's vocabulary. "
            f"Received: {highest:,}. Encode them with the teacher's tokenizer."
        )


def _settings(
    teacher: Task,
    sets: Sequence[data.EncodedExamples],
    hidden_states: Sequence[Layer],
    attention: Sequence[Layer],
    task: str,
    tokenizer: tokenizers.Tokenizer | None,
) -> TaskCacheSettings:
    kind: Any = kind_of(teacher)
    states: Any = _named_layers(teacher, "hidden_states", hidden_states)
    vectors: Any = _named_layers(teacher, "attention", attention)
    count = SPAN_OUTPUTS if kind == "span" else teacher.num_classes
    labels = labels_of(teacher)
    return TaskCacheSettings(
        teacher=identify(teacher),
        kind=kind,
        task=task,
        tokenizer="" if tokenizer is None else data.tokenizer_hash(tokenizer),
        examples=[each.fingerprint for each in sets],
        num_layers=forward.layer_count(teacher),
        num_outputs=count,
        labels=None if labels is None else list(labels),
        hidden_states=states,
        attention=vectors,
        attention_heads=(
            forward.attention_shape(teacher, vectors[0])[0] if vectors else 0
        ),
    )


def _named_layers(
    teacher: Task, name: str, layers: Sequence[Layer]
) -> list[Layer]:
    """Returns layers in order, each once, with the last one called "last".

    Raises:
        ValueError: if one does not exist.
    """
    count = forward.layer_count(teacher)
    known: list[Layer] = [*range(count or 0), LAST]
    if count is not None and name == "hidden_states":
        known = [EMBEDDINGS, *known]
    for layer in layers:
        if isinstance(layer, bool) or layer not in known:
            raise ValueError(
                f"`{name}` must be a list of the teacher's layers, out of "
                f"{known}. Received: {name}={layers!r:.80}."
            )
    last = None if count is None else count - 1
    found = {LAST if layer == last else layer for layer in layers}
    return [layer for layer in known if layer in found]


class _Job:
    """What is written into one cache."""

    def __init__(
        self,
        teacher: Task,
        sets: Sequence[data.EncodedExamples],
        settings: TaskCacheSettings,
        batch_size: int,
    ) -> None:
        # Batches are padded to the teacher's positions at most.
        longest = teacher.backbone.max_sequence_length
        self._sets = [
            dataclasses.replace(each, max_length=min(each.max_length, longest))
            for each in sets
        ]
        self._settings = settings
        self._batch_size = batch_size
        self._pass = _TeacherPass(teacher, settings)
        self._tokens: dict[str, int] = {}

    def plan(self) -> writing.Plan:
        """Returns the shards: examples in order, cut by bytes and tokens."""
        return writing.Plan(
            parts=[Part(rows=len(each), shards=[]) for each in self._sets],
            shards=list(self._shards()),
            describe=lambda size: self._described,
            remedy=(
                "Leave out losses on hidden states and attention, lower "
                "`max_length` or the number of examples, or use another disk."
            ),
            seconds=self._seconds,
        )

    @property
    def _described(self) -> str:
        task = f" of {self._settings.task}" if self._settings.task else ""
        return f"{sum(map(len, self._sets)):,} examples{task}"

    def _shards(self) -> Iterator[writing.ShardPlan]:
        for number, examples in enumerate(self._sets):
            lengths = examples.lengths
            sizes = self._settings.layout.record_bytes(lengths)
            for start, stop in cut(sizes, lengths):
                name = f"part{number}_row{start:09d}"
                self._tokens[name] = int(lengths[start:stop].sum())
                yield writing.ShardPlan(
                    name,
                    number,
                    stop - start,
                    shard_bytes(stop - start, int(sizes[start:stop].sum())),
                    functools.partial(self._records, examples, start, stop),
                )

    def _seconds(self, left: Sequence[writing.ShardPlan]) -> float:
        """Estimates the duration from the time of one batch."""
        examples = self._sets[0]
        by_length = np.argsort(examples.lengths, kind="stable")
        places = np.linspace(0, len(by_length) - 1, self._batch_size)
        rows = by_length[np.unique(places.astype(np.int64))]
        inputs = padded(examples, rows)
        # The first call traces the graph.
        self._pass(inputs)
        began = time.perf_counter()
        self._pass(inputs)
        passed = time.perf_counter() - began
        tokens = sum(self._tokens[shard.name] for shard in left)
        return passed * tokens / inputs["token_ids"].size

    def _records(
        self,
        examples: data.EncodedExamples,
        start: int,
        stop: int,
        count: Callable[[int], None],
    ) -> list[bytes]:
        """Runs the teacher on some examples; returns their records."""
        lengths = np.diff(examples.starts[start : stop + 1])
        by_length = np.argsort(lengths, kind="stable")
        records = [b""] * len(lengths)
        for begin in range(0, len(lengths), self._batch_size):
            chosen = by_length[begin : begin + self._batch_size]
            arrays = self._pass(padded(examples, start + chosen))
            made = self._settings.layout.encode(
                arrays, lengths[chosen].tolist()
            )
            for place, record in zip(chosen, made, strict=True):
                records[place] = record
            count(begin + len(chosen))
        return records


def cut(sizes: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields the first and the last but one example of each shard.

    Args:
        sizes: int, (examples,), the bytes of each record.
        lengths: int, (examples,), the tokens of each example.
    """
    limits = (
        (np.cumsum(sizes), writing.SHARD_BYTES),
        (np.cumsum(lengths), _SHARD_TOKENS),
    )
    start = 0
    while start < len(sizes):
        stops = [
            np.searchsorted(
                ends, (ends[start - 1] if start else 0) + limit, side="right"
            )
            for ends, limit in limits
        ]
        stop = max(int(min(stops)), start + 1)
        yield start, stop
        start = stop


def planned_bytes(layout: RecordLayout, lengths: np.ndarray) -> int:
    """Returns the estimated size of a cache.

    Args:
        layout: the layout of its records.
        lengths: int, (examples,), the tokens of each example.
    """
    sizes = layout.record_bytes(lengths)
    return sum(
        shard_bytes(stop - start, int(sizes[start:stop].sum()))
        for start, stop in cut(sizes, lengths)
    )


class _TeacherPass:
    """Computes a teacher's outputs for a batch, as arrays of a record."""

    def __init__(self, teacher: Task, settings: TaskCacheSettings) -> None:
        self._teacher = teacher
        self._settings = settings
        matrix = tf.TensorSpec([None, None], tf.int32)
        names = ("token_ids", "padding_mask", "segment_ids")
        self._run = tf.function(
            self._arrays,
            input_signature=[dict.fromkeys(names, matrix)],
            autograph=False,
        )

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays of a record's layout for one batch."""
        return {name: x.numpy() for name, x in self._run(inputs).items()}

    def _arrays(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        layers: list[Layer | Attention] = self._settings.layers
        states = forward.hidden_states(
            self._teacher, inputs, layers, training=False
        )
        outputs = forward.task_outputs(
            self._teacher, states[LAST], training=False
        )
        return {
            OUTPUTS: outputs,
            **{field_of(layer): states[layer] for layer in layers},
        }
