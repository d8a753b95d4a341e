"""A teacher that is known by its predictions, kept as a cache."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_distil import data
from keras_distil.losses import AttentionLoss, DistillationLoss, HiddenStateLoss
from keras_distil.losses.layers import Layer
from keras_distil.teachers.store import writing
from keras_distil.teachers.store.manifest import Part, TeacherSettings
from keras_distil.teachers.store.records import shard_bytes
from keras_distil.teachers.tasks.cached import CachedTaskTeacher
from keras_distil.teachers.tasks.settings import (
    SPAN_OUTPUTS,
    TaskCacheSettings,
    TaskManifest,
)
from keras_distil.teachers.tasks.writing import cut
from keras_distil.utils import disk

# Stands for the precision of a teacher that nobody knows.
_UNKNOWN = "predictions"


@keras.saving.register_keras_serializable(package="keras_distil")
class PredictedTeacher(CachedTaskTeacher):
    """Stands in for a teacher whose predictions `keep_predictions` has kept.

    A `Distiller` takes it as any cached teacher. It has no states.

    Args:
        folder: the folder of the kept predictions.

    Raises:
        CorpusError: as `CachedTaskTeacher`.
    """

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"the predictions in {self.folder}"

    def check_losses(self, losses: Sequence[DistillationLoss]) -> None:
        """Raises ValueError if a loss reads states, which there are none of."""
        for loss in losses:
            if isinstance(loss, HiddenStateLoss | AttentionLoss):
                self.check_layers(loss, [])

    def check_layers(
        self, loss: HiddenStateLoss | AttentionLoss, layers: Sequence[Layer]
    ) -> None:
        """Raises ValueError: there are no layers."""
        what = "attention"
        if isinstance(loss, HiddenStateLoss):
            what = "hidden states"
        raise ValueError(
            f"The loss {loss.name!r} reads {what}, and {self.name} have none: "
            "leave it out."
        )


def keep_predictions(
    outputs: Sequence[Sequence[np.ndarray]],
    examples: data.EncodedExamples | data.Mixture,
    folder: str | os.PathLike,
    *,
    kind: str,
    labels: Sequence[str] | None,
    source: str,
    vocabulary_size: int,
    task: str = "",
    say: Callable[[str], None] | None = print,
) -> PredictedTeacher:
    """Writes predictions as a teacher's outputs, unless they are there.

    Args:
        outputs: for each set of examples, float32 (outputs,) or (tokens,
            outputs) per example.
        examples: the examples, or the mixture of sets that a student reads.
        folder: a folder for them alone.
        kind: kind of the task.
        labels: names of the classes in the order of the outputs; None without
            classes.
        source: a hash of where they are from.
        vocabulary_size: that of the examples' models.
        task: name of the task, for messages.
        say: called with a line that states the size.

    Raises:
        CorpusError: if the folder holds others.
        OSError: if the disk is too small, full or may not be written.
    """
    sets = examples.parts if isinstance(examples, data.Mixture) else [examples]
    count = {"regression": 1, "span": SPAN_OUTPUTS}.get(kind)
    kept_kind: Any = kind
    settings = TaskCacheSettings(
        teacher=TeacherSettings(
            weights=source,
            precision=_UNKNOWN,
            vocabulary_size=vocabulary_size,
            # It has no states, and so no width.
            hidden_dim=1,
        ),
        kind=kept_kind,
        task=task,
        tokenizer="",
        examples=[each.fingerprint for each in sets],
        num_layers=None,
        num_outputs=count or len(labels or ()),
        labels=None if labels is None else list(labels),
        hidden_states=[],
        attention=[],
        attention_heads=0,
    )
    path = disk.named(Path(folder).expanduser())
    writing.make_store(
        path,
        settings,
        TaskManifest,
        lambda: _plan(outputs, sets, settings),
        say=say,
        progress=None,
    )
    return PredictedTeacher(path)


def _plan(
    outputs: Sequence[Sequence[np.ndarray]],
    sets: Sequence[data.EncodedExamples],
    settings: TaskCacheSettings,
) -> writing.Plan:
    layout, shards = settings.layout, []
    (field,) = layout.fields

    def records(
        number: int, start: int, stop: int, count: Callable[[int], None]
    ) -> list[bytes]:
        lengths = sets[number].lengths[start:stop].tolist()
        return [
            layout.encode({field.name: values[np.newaxis]}, [length])[0]
            for values, length in zip(
                outputs[number][start:stop], lengths, strict=True
            )
        ]

    for number, examples in enumerate(sets):
        sizes = layout.record_bytes(examples.lengths)
        for start, stop in cut(sizes, examples.lengths):
            shards.append(
                writing.ShardPlan(
                    f"part{number}_row{start:09d}",
                    number,
                    stop - start,
                    shard_bytes(stop - start, int(sizes[start:stop].sum())),
                    functools.partial(records, number, start, stop),
                )
            )
    of_task = f" of {settings.task}" if settings.task else ""
    total = sum(map(len, sets))
    return writing.Plan(
        parts=[Part(rows=len(each), shards=[]) for each in sets],
        shards=shards,
        describe=lambda size: f"predictions for {total:,} examples{of_task}",
        remedy="Lower the number of examples, or use another disk.",
    )
