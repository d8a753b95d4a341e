"""A sentence embedder's vectors of texts, read instead of running it."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distil import data
from keras_distil.losses import DistillationLoss, VectorLoss
from keras_distil.losses.registry import EMBEDDING
from keras_distil.models.directions import choose_directions
from keras_distil.teachers.embeddings.settings import (
    VECTOR,
    EmbeddingCacheSettings,
    EmbeddingManifest,
)
from keras_distil.teachers.store.reading import check_room, make_reader
from keras_distil.teachers.stored import StoredTeacher
from keras_distil.utils.checks import check_count

Tensor = Any

# Vectors from which principal components are computed.
_SAMPLED = 2**16
_READ_AT_ONCE = 2**12


@keras.saving.register_keras_serializable(package="keras_distil")
class CachedEmbeddingTeacher(StoredTeacher):
    """Stands in for an embedder whose vectors are on disk.

    `cache_embedding_teacher` writes them, in 16 bits. A `Distiller` takes this
    in place of the model, and trains on the batches of its `dataset`, which
    have the vectors as `y`. The teacher itself is not needed.

    Args:
        folder: the folder of a complete cache.
        dimension: int, reduces the vectors to that many principal components,
            as `models.with_principal_components` does from the vectors of
            `sample`; None for the vectors as they are.
        cuts: ints below `dimension`, as for that function.

    Attributes:
        directions: float64, (size in the cache, dimension), by which vectors
            are multiplied; None for the vectors as they are.

    Raises:
        CorpusError: if the cache is incomplete, damaged, or of another version
            or kind.
        ValueError: if there are fewer vectors or coordinates than `dimension`.

    Example:
        >>> cached = CachedEmbeddingTeacher("caches/minilm")  # doctest: +SKIP
        >>> distiller = keras_distil.Distiller(
        ...     cached, student, [losses.VectorCosineDistance()]
        ... )                                                 # doctest: +SKIP
        >>> distiller.compile(
        ...     keras.optimizers.AdamW(3e-4)
        ... )                                                 # doctest: +SKIP
        >>> distiller.fit(
        ...     cached.dataset(examples, batch_size=128, seed=0),
        ...     steps_per_epoch=500,
        ... )                                                 # doctest: +SKIP
    """

    kind = EMBEDDING
    settings: EmbeddingCacheSettings
    _schema = EmbeddingManifest

    def __init__(
        self,
        folder: str | os.PathLike,
        dimension: int | None = None,
        cuts: Sequence[int] = (),
    ) -> None:
        super().__init__(folder)
        (part,) = self._parts
        self._shards = part.shards
        self._count = part.rows
        record_bytes = self.settings.layout.record_bytes(1)
        for shard in self._shards:
            check_room(self.folder, shard, shard.sequences * record_bytes)
        self.directions: np.ndarray | None = None
        self.cuts = tuple(cuts)
        if dimension is not None:
            self.directions = self._reduce(check_count("dimension", dimension))

    def __len__(self) -> int:
        """Number of texts."""
        return self._count

    @property
    def dimension(self) -> int:
        """Size of the vectors."""
        if self.directions is not None:
            return self.directions.shape[1]
        return self.settings.dimension

    @property
    def normalize(self) -> bool:
        """Whether the vectors have length 1."""
        return self.settings.normalize

    @property
    def attention_shape(self) -> tuple[int, int]:
        """No heads: attention is not kept."""
        return 0, 0

    def sample(self, count: int = _SAMPLED) -> np.ndarray:
        """Returns whole vectors of texts, evenly spaced.

        Args:
            count: int >= 1, vectors; fewer if there are fewer.

        Returns:
            float32, (vectors, dimension of the cache).
        """
        wanted = min(check_count("count", count), self._count)
        rows = np.linspace(0, self._count - 1, wanted).round().astype(np.int64)
        return self._read(rows)

    def dataset(
        self,
        examples: data.EncodedExamples,
        *,
        batch_size: int,
        seed: int,
        steps: int | None = None,
        read_as: data.EncodedExamples | None = None,
    ) -> tf.data.Dataset:
        """Returns training batches with the teacher's vectors as `y`.

        Args:
            examples: the texts that the cache was made from.
            batch_size: int >= 1, texts per batch.
            seed: int, determines the order.
            steps: int, number of batches in the stream; endless if None.
            read_as: the same texts for a student with another tokenizer.

        Returns:
            A dataset of Keras triples, see `data.task_dataset`.

        Raises:
            CorpusError: if the cache belongs to other texts.
            ValueError: as `data.task_dataset`, or if the numbers of texts
                differ.
        """
        made_of, found = self.settings.examples, examples.fingerprint
        if found != made_of:
            raise data.CorpusError(
                f"The teacher's cache in {self.folder} was made of other "
                f"texts ({made_of[:12]}) than these ({found[:12]}). Make a "
                "cache of these."
            )
        if read_as is not None and len(read_as) != len(examples):
            raise ValueError(
                "`read_as` must hold the same texts as `examples`. Received: "
                f"{len(read_as):,} and {len(examples):,}."
            )
        return data.task_dataset(
            examples if read_as is None else read_as,
            batch_size=batch_size,
            seed=seed,
            steps=steps,
            targets=self._targets(),
        )

    def _targets(self) -> Callable:
        """Returns a function that reads the vectors of some texts."""
        read = make_reader(self.folder, self._shards, self.settings.layout)
        with tf.device("cpu"):
            directions = (
                None
                if self.directions is None
                else tf.constant(self.directions, tf.float32)
            )

        def vectors(numbers: Tensor, rows: Tensor, longest: Tensor) -> Tensor:
            del numbers, longest
            found = read(rows, tf.ones_like(rows), 1)[VECTOR]
            found = tf.cast(found, tf.float32)
            if directions is None:
                return found
            found = tf.matmul(found, directions)
            return tf.math.l2_normalize(found, 1) if self.normalize else found

        return vectors

    def _read(self, rows: np.ndarray) -> np.ndarray:
        read = make_reader(self.folder, self._shards, self.settings.layout)
        found = []
        for begin in range(0, len(rows), _READ_AT_ONCE):
            chosen = tf.constant(rows[begin : begin + _READ_AT_ONCE], tf.int64)
            found.append(read(chosen, tf.ones_like(chosen), 1)[VECTOR].numpy())
        return np.concatenate(found).astype(np.float32)

    def _reduce(self, dimension: int) -> np.ndarray:
        vectors = self.sample().astype(np.float64)
        if dimension > min(vectors.shape):
            raise ValueError(
                f"`dimension` must be at most {min(vectors.shape)}, the number "
                "and the size of the teacher's vectors. Received: "
                f"dimension={dimension}."
            )
        return choose_directions(vectors, dimension, self.cuts)

    # === What an objective asks ===

    def take_outputs(self, x: dict[str, Tensor]) -> tuple[dict, Any]:
        """Returns `x` alone: the vectors are the `y` of a batch."""
        return x, None

    def check_losses(self, losses: Sequence[DistillationLoss]) -> None:
        """Raises ValueError unless all losses are on vectors."""
        for loss in losses:
            if not isinstance(loss, VectorLoss):
                raise ValueError(
                    f"The loss {loss.name!r} reads the teacher's layers, and "
                    f"{self.name} has its vectors alone: leave the loss out, "
                    "or give the teacher itself."
                )

    # === Saving ===

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal object."""
        reduced = None if self.directions is None else self.dimension
        return {
            **super().get_config(),
            "dimension": reduced,
            "cuts": list(self.cuts),
        }
