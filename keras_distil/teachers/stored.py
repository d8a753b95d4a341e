"""The base class of teachers whose outputs are read from a store."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from keras_distil.losses import AttentionLoss, DistillationLoss, HiddenStateLoss
from keras_distil.losses.layers import Layer
from keras_distil.teachers.store import manifest

Tensor = Any

# Begins the names of the outputs in `x` of a batch.
PREFIX = "teacher_"


class StoredTeacher:
    """Stands in for one teacher, whose outputs come with the batches.

    A `Distiller` takes it in place of the model. The teacher itself is not
    needed.

    Args:
        folder: the folder of a complete store.

    Attributes:
        folder: the given folder.
        settings: everything that the outputs depend on, and what is kept.
        kind: what the outputs are for: "masked_lm", or a kind of task.

    Raises:
        CorpusError: if the store is incomplete, damaged, or of another version
            or kind.
    """

    _schema: type[manifest.Manifest]
    settings: Any
    kind: str

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder).expanduser()
        found = manifest.read_manifest(self.folder, self._schema)
        self.settings = found.settings
        self._parts = found.parts

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"the cache in {self.folder}"

    @property
    def vocabulary_size(self) -> int:
        """Number of entries in the teacher's vocabulary."""
        return self.settings.teacher.vocabulary_size

    @property
    def hidden_dim(self) -> int:
        """Width of the teacher's hidden states."""
        return self.settings.teacher.hidden_dim

    @property
    def num_layers(self) -> int | None:
        """Number of the teacher's layers; None if only the last is known."""
        return None

    @property
    def attention_shape(self) -> tuple[int, int]:
        """Number and size of the heads whose vectors are kept, or (0, 0)."""
        return self.settings.attention_shape

    @property
    def size_bytes(self) -> int:
        """Size of all shards in bytes."""
        return sum(x.bytes for part in self._parts for x in part.shards)

    # === What an objective asks ===

    def take_outputs(self, x: dict[str, Tensor]) -> tuple[dict, Any]:
        """Splits `x` of a batch into the student's inputs and the outputs.

        Raises:
            ValueError: if outputs are missing.
        """
        raise NotImplementedError

    def without_outputs(self, x: Any) -> Any:
        """Returns `x` of a batch without the outputs of any teacher."""
        if not isinstance(x, dict):
            return x
        return {k: v for k, v in x.items() if not k.startswith(PREFIX)}

    def check_losses(self, losses: Sequence[DistillationLoss]) -> None:
        """Raises ValueError unless the store has what the losses read."""
        raise NotImplementedError

    def check_layers(
        self, loss: HiddenStateLoss | AttentionLoss, layers: Sequence[Layer]
    ) -> None:
        """Raises ValueError unless the store has a loss's layers.

        Args:
            loss: a loss on hidden states or attention.
            layers: the teacher's layers that it reads.
        """

    # === Saving ===

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal object."""
        return {"folder": str(self.folder)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Opens the store again."""
        return cls(**config)
