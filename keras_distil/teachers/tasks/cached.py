"""A fine-tuned teacher's outputs for a task, read instead of running it."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_distil import data
from keras_distil.data.corpus.manifests import Shard
from keras_distil.losses import AttentionLoss, DistillationLoss, HiddenStateLoss
from keras_distil.losses.layers import Attention, Layer
from keras_distil.teachers.store import manifest
from keras_distil.teachers.store.reading import check_room, make_reader
from keras_distil.teachers.stored import PREFIX, StoredTeacher
from keras_distil.teachers.tasks.settings import (
    OUTPUTS,
    TaskCacheSettings,
    TaskManifest,
    field_of,
    list_sets,
)

Tensor = Any


class CachedTaskOutputs(NamedTuple):
    """The outputs of a cached teacher of a task in a batch.

    Attributes:
        outputs: float32, logits as from `models.forward.task_outputs`: (batch,
            classes), (batch, length, classes) or, for a span, (batch, length,
            2).
        layers: the kept hidden states, float16, (batch, length, width), and
            queries, keys and values, float16, (batch, length, 3, heads,
            size), in the order of the cache's layers.
    """

    outputs: Tensor
    layers: tuple[Tensor, ...]


@keras.saving.register_keras_serializable(package="keras_distil")
class CachedTaskTeacher(StoredTeacher):
    """Stands in for a teacher whose outputs `cache_task_teacher` has written.

    A `Distiller` takes it in place of the model, and trains on the batches of
    its `dataset`, which include the teacher's outputs. The teacher itself is
    not needed.

    All logits are kept in float32, so losses on outputs are those of the
    teacher itself, at any temperature; hidden states and attention are kept in
    float16.

    One object stands for one teacher. The names of its outputs in `x` begin
    with its `prefix`, so a batch may carry the outputs of several teachers:
    give `data.task_dataset` the `reader` of each.

    Args:
        folder: the folder of a complete cache.

    Raises:
        CorpusError: if the cache is incomplete, damaged, or of another version
            or kind.

    Example:
        >>> cached = CachedTaskTeacher("caches/rte")        # doctest: +SKIP
        >>> distiller = keras_distil.Distiller(
        ...     cached, student, losses.task_loss("classification")
        ... )                                               # doctest: +SKIP
        >>> distiller.compile(
        ...     keras.optimizers.AdamW(1e-4)
        ... )                                               # doctest: +SKIP
        >>> distiller.fit(
        ...     cached.dataset(examples, batch_size=32, seed=0),
        ...     steps_per_epoch=78,
        ... )                                               # doctest: +SKIP
    """

    settings: TaskCacheSettings
    _schema = TaskManifest

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__(folder)
        self.kind = self.settings.kind
        layout = self.settings.layout
        for shard in self._shards:
            # Every example has at least one token.
            check_room(
                self.folder, shard, shard.sequences * layout.record_bytes(1)
            )

    @property
    def _shards(self) -> list[Shard]:
        return [shard for part in self._parts for shard in part.shards]

    @property
    def num_layers(self) -> int | None:
        """Number of the teacher's layers; None if only the last is known."""
        return self.settings.num_layers

    @property
    def num_classes(self) -> int:
        """Number of the teacher's outputs."""
        return self.settings.num_outputs

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes; None if they have none."""
        labels = self.settings.labels
        return None if labels is None else tuple(labels)

    @property
    def prefix(self) -> str:
        """Begins the names of this teacher's outputs in a batch."""
        return f"{PREFIX}{self.settings.digest[:16]}_"

    def dataset(
        self,
        examples: data.EncodedExamples | data.Mixture,
        *,
        batch_size: int,
        seed: int,
        steps: int | None = None,
    ) -> tf.data.Dataset:
        """Returns the batches of `data.task_dataset`, with the outputs in `x`.

        Args:
            examples: the examples that the cache was made from, with labels,
                or the mixture of them.
            batch_size: int >= 1, examples per batch.
            seed: int, determines the order.
            steps: int, number of batches in the stream; endless if None.

        Returns:
            A dataset of Keras triples.

        Raises:
            CorpusError: if the cache belongs to other examples.
            ValueError: as `data.task_dataset`.
        """
        return data.task_dataset(
            examples,
            batch_size=batch_size,
            seed=seed,
            steps=steps,
            more_inputs=[self.reader(examples)],
        )

    def reader(self, examples: data.EncodedExamples | data.Mixture) -> Callable:
        """Returns a function that reads the outputs for some examples.

        Args:
            examples: the examples that the cache was made from, or the mixture
                of them.

        Returns:
            What `data.task_dataset` takes as one of its `more_inputs`.

        Raises:
            CorpusError: if the cache belongs to other examples.
        """
        sets = list_sets(examples)
        self._check_examples(sets)
        counts = [len(each) for each in sets]
        read = make_reader(self.folder, self._shards, self.settings.layout)
        with tf.device("cpu"):
            before = tf.constant(np.cumsum([0, *counts[:-1]]), tf.int64)
            lengths = tf.convert_to_tensor(
                np.concatenate([each.lengths for each in sets]), tf.int64
            )

        def outputs(
            numbers: Tensor, rows: Tensor, longest: Tensor
        ) -> dict[str, Tensor]:
            records = tf.gather(before, numbers) + rows
            arrays = read(records, tf.gather(lengths, records), longest)
            return {f"{self.prefix}{name}": x for name, x in arrays.items()}

        return outputs

    def _check_examples(self, sets: Sequence[data.EncodedExamples]) -> None:
        """Raises CorpusError unless the cache was made of these examples."""
        made_of = self.settings.examples
        found = [each.fingerprint for each in sets]
        if found != made_of:
            of_task = f" of {self.settings.task}" if self.settings.task else ""
            raise data.CorpusError(
                f"The teacher's cache in {self.folder} was made of other "
                f"examples{of_task} ({_shown(made_of)}) than these "
                f"({_shown(found)}): another task, another tokenizer, or other "
                "texts. Make a cache of these."
            )
        counts = [len(each) for each in sets]
        rows = [part.rows for part in self._parts]
        if rows != counts:
            raise data.CorpusError(
                f"{self.folder / manifest.MANIFEST} is damaged (it has "
                f"{sum(rows):,} records of {sum(counts):,} examples). "
                f"{manifest.REMEDY}"
            )

    # === What an objective asks ===

    def take_outputs(
        self, x: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], CachedTaskOutputs]:
        """Splits `x` of a batch into the student's inputs and the outputs.

        Raises:
            ValueError: if outputs are missing.
        """
        names = [field.name for field in self.settings.layout.fields]
        if not isinstance(x, dict) or not all(
            f"{self.prefix}{name}" in x for name in names
        ):
            received = sorted(x) if isinstance(x, dict) else type(x).__name__
            raise ValueError(
                f"With {self.name}, batches must be those of its `dataset`, "
                "which carry its outputs; score a student on other examples "
                f"by itself. Received: x={received}."
            )
        return self.without_outputs(x), CachedTaskOutputs(
            x[f"{self.prefix}{OUTPUTS}"],
            tuple(
                x[f"{self.prefix}{field_of(layer)}"]
                for layer in self.settings.layers
            ),
        )

    def by_layer(
        self, outputs: CachedTaskOutputs
    ) -> dict[Layer | Attention, Tensor]:
        """Returns the states and attention of a batch by layer."""
        return dict(zip(self.settings.layers, outputs.layers, strict=True))

    def check_losses(self, losses: Sequence[DistillationLoss]) -> None:
        """Does nothing: all outputs are kept, and layers are checked later."""

    def check_layers(
        self, loss: HiddenStateLoss | AttentionLoss, layers: Sequence[Layer]
    ) -> None:
        """Raises ValueError unless the cache has a loss's layers.

        Args:
            loss: a loss on hidden states or attention.
            layers: the teacher's layers that it reads.
        """
        what, key = "hidden states", "hidden_states"
        kept: Sequence[Layer] = self.settings.hidden_states
        if isinstance(loss, AttentionLoss):
            what, key, kept = "attention", "attention", self.settings.attention
        missing = [layer for layer in layers if layer not in kept]
        if missing:
            raise ValueError(
                f"The loss {loss.name!r} needs the {what} of the teacher's "
                f"layer {missing[0]!r}, and {self.name} has "
                f"{f'those of {list(kept)}' if kept else 'none'}: leave the "
                f"loss out, or make a cache with `{key}={missing!r}`."
            )


def _shown(hashes: Sequence[str]) -> str:
    return ", ".join(each[:12] for each in hashes)
