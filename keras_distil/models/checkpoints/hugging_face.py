"""Reads and writes local Hugging Face directories for Keras variables."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from keras_distil.models.architectures import Family
from keras_distil.models.checkpoints.config import read_config
from keras_distil.models.checkpoints.safetensors_files import (
    SINGLE_FILE,
    StoredTensor,
    list_tensors,
)
from keras_distil.models.checkpoints.settings import check_outputs
from keras_distil.utils.disk import read_json

_LOGGER = logging.getLogger("keras_distil")
# The head of a checkpoint that has none.
ENCODER = "sentence_embedding"


class HuggingFaceCheckpoint:
    """A checkpoint of a supported family in a local directory.

    Opening it reads `config.json` and the headers of the weight files; the
    values are read by `read`.

    Args:
        directory: str or path. Holds `config.json` and either
            `model.safetensors` or `model.safetensors.index.json` with its
            shards.

    Raises:
        ValueError: if the directory, its configuration or its weight files
            are missing, broken or unsupported.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)
        self.config = read_config(self.directory)
        self.table = self.config.family.weights
        self._tensors = self._key_by_table(list_tensors(self.directory))
        self._check_sizes()

    @property
    def has_pooler(self) -> bool:
        """True if any weight of the pooler is stored."""
        return any(
            rule.hugging_face in self._tensors for rule in self.table.pooler
        )

    @property
    def has_masked_lm_head(self) -> bool:
        """True if any weight of the masked-LM head is stored."""
        return any(
            rule.hugging_face in self._tensors for rule in self.table.masked_lm
        )

    @property
    def num_outputs(self) -> int:
        """The number of outputs of the checkpoint's task.

        Raises:
            ValueError: if it is not for a task, or its head has no weights.
        """
        task = self.config.task
        if task is None:
            classes = read_json(self.directory / "config.json").get(
                "architectures"
            )
            raise ValueError(
                f"`{self.directory}` is not for a task: `architectures` in its "
                "config.json must name a sequence or token classifier, or a "
                f"question answering model. Received: {classes!r:.80}. For "
                "a new task, read it with `models.load_teacher(..., "
                "allow_new_head=True)`, and add an output to it with "
                "`models.task_model`."
            )
        bias = self.table.tasks[task][-1].hugging_face
        if bias not in self._tensors:
            raise ValueError(f"`{self.directory}` lacks the tensor `{bias}`.")
        rows = int(np.prod(self._tensors[bias].shape))
        config = read_json(self.directory / "config.json")
        check_outputs(self.directory, config, self.config.head, rows)
        return rows

    def read(
        self, shapes: Mapping[str, tuple[int, ...]], *, task: str | None = None
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the weights, after checking all of them.

        Args:
            shapes: the shape of every Keras variable, by its path.
            task: the kind of task whose head is read; None for a masked-LM
                model.

        Yields:
            A variable's path and its value, float32. The pooler and the
            masked-LM head are included if they are stored. The heads of other
            tasks are dropped, and one line says so.

        Raises:
            ValueError: if a tensor is missing, left over or misshapen, or if
                two tensors that must be equal are not.
        """
        masked_lm = task is None and self.has_masked_lm_head
        rules = self.table.rules(
            self.config.backbone["num_layers"],
            # A pooler that the head reads must not be missing.
            pooler=self.has_pooler or task in self.table.tasks_with_pooler,
            masked_lm=masked_lm,
            task=task,
        )
        expected = {
            rule.hugging_face: rule.layout.hugging_face_shape(
                shapes[rule.keras]
            )
            for rule in rules
        }
        width = self.config.backbone["hidden_dim"]
        expected |= {
            name: (1, width) for name in self.table.added_rows.values()
        }
        purpose = task or "masked-LM"
        foreign = self._foreign_heads(expected, masked_lm=masked_lm)
        self._check_names_and_shapes(expected, foreign, purpose)
        if foreign:
            heads = sorted(set(map(self.table.head_of, foreign)))
            usual = self.table.usual_heads.issuperset(heads)
            _LOGGER.log(
                logging.INFO if usual else logging.WARNING,
                "%s: its weights %s belong to another task's head, and are "
                "left out of this %s model.",
                self.directory,
                ", ".join(heads),
                purpose.replace("_", " "),
            )
        if masked_lm:
            self._check_duplicates()
        for rule in rules:
            tensor = self._read_with_added_row(rule.hugging_face)
            yield rule.keras, rule.layout.to_keras(tensor, shapes[rule.keras])

    def _read_with_added_row(self, name: str) -> np.ndarray:
        tensor = self._tensors[name].read()
        row = self.table.added_rows.get(name)
        if row is None:
            return tensor
        added = self._tensors[row].read()
        # Adding zeros would turn -0.0 into 0.0.
        return tensor + added if added.any() else tensor

    def _key_by_table(
        self, stored: dict[str, StoredTensor]
    ) -> dict[str, StoredTensor]:
        """Keys the tensors by the table's names, without ignored ones."""
        tensors: dict[str, StoredTensor] = {}
        for name, tensor in stored.items():
            canonical = self.table.canonical_name(name)
            if self.table.ignored.fullmatch(canonical):
                continue
            if canonical in tensors:
                raise ValueError(
                    f"`{name}` and `{tensors[canonical].name}` in "
                    f"`{tensor.file}` are two names of the same weight."
                )
            tensors[canonical] = tensor
        # Files written without the original hold its value under the name of
        # the duplicate.
        for duplicate, original in self.table.duplicates.items():
            if duplicate in tensors and original not in tensors:
                tensors[original] = tensors.pop(duplicate)
        return tensors

    def _check_sizes(self) -> None:
        """Refuses sizes that differ from those of the weights.

        This happens before a model is built, because sizes from a damaged
        file could use up all memory.
        """
        self._check_shapes(self.table.expected_sizes(self.config.backbone))

    def _foreign_heads(
        self, expected: dict[str, tuple[int, ...]], *, masked_lm: bool
    ) -> set[str]:
        """Returns the stored weights of heads that the model lacks."""
        own = set(expected)
        if masked_lm:
            own |= self.table.duplicates.keys()
        return {
            name
            for name in self._tensors
            if name.startswith(self.table.head_prefixes) and name not in own
        }

    def _check_names_and_shapes(
        self,
        expected: dict[str, tuple[int, ...]],
        foreign: set[str],
        purpose: str,
    ) -> None:
        self._check_shapes(expected)
        known = expected.keys() | self.table.duplicates.keys() | foreign
        for name, tensor in self._tensors.items():
            if name not in known:
                raise ValueError(
                    f"`{tensor.name}` of shape {tensor.shape} in "
                    f"`{tensor.file}` belongs to no layer of a "
                    f"{self.config.family.name} {purpose} model with "
                    f"{self.config.backbone['num_layers']} layers."
                )

    def _check_shapes(self, expected: dict[str, tuple[int, ...]]) -> None:
        for name, shape in expected.items():
            if name not in self._tensors:
                raise ValueError(
                    f"`{self.directory}` lacks the tensor `{name}` of shape "
                    f"{shape}."
                )
            tensor = self._tensors[name]
            if tensor.shape != shape:
                raise ValueError(
                    f"`{tensor.name}` in `{tensor.file}` must have the shape "
                    f"{shape} by `config.json`. Received: {tensor.shape}."
                )

    def _check_duplicates(self) -> None:
        path = self.directory / "config.json"
        untied = read_json(path).get("tie_word_embeddings") is False
        for duplicate, original in self.table.duplicates.items():
            if duplicate not in self._tensors:
                if untied and duplicate.endswith(".weight"):
                    raise ValueError(
                        f"`{self.directory}` lacks the tensor `{duplicate}`, "
                        "which must be stored because `tie_word_embeddings` "
                        "is false in its config.json."
                    )
                continue
            copy = self._tensors[duplicate]
            if not np.array_equal(copy.read(), self._tensors[original].read()):
                raise ValueError(
                    f"`{copy.name}` in `{copy.file}` differs from "
                    f"`{self._tensors[original].name}`: an untied output "
                    "layer is not supported."
                )


def write_checkpoint(
    directory: Path,
    family: Family,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    num_layers: int,
    head: str,
) -> None:
    """Writes `config.json` and `model.safetensors` for Hugging Face.

    Args:
        directory: a folder.
        family: the model's family.
        config: as from `hugging_face_config`.
        arrays: the value of every Keras variable, by its path.
        num_layers: int, number of the encoder's layers.
        head: "masked_lm", a kind of task, or "sentence_embedding" for the
            encoder alone, as `AutoModel` loads it.

    Raises:
        ValueError: if a weight of the family is missing, or the family lacks
            a weight, such as those of low-rank layers.
    """
    table = family.weights
    is_encoder = head == ENCODER
    masked_lm = head == "masked_lm"
    task = head if head in table.tasks else None
    known = {
        rule.keras
        for rule in table.rules(
            num_layers, pooler=True, masked_lm=masked_lm, task=task
        )
    }
    for name in arrays:
        if name not in known:
            raise ValueError(
                f"Hugging Face's model has no place for `{name}`: additions "
                "to its layers are not exported, except for low-rank changes "
                "(`enable_lora`), which are merged."
            )
    tensors = {}
    # Hugging Face's models with a head have a pooler only if it reads it, and
    # warn about one that is stored otherwise. The bare encoder has one.
    for rule in table.rules(
        num_layers,
        pooler=is_encoder or head in table.tasks_with_pooler,
        masked_lm=masked_lm,
        task=task,
    ):
        if rule.keras not in arrays:
            raise ValueError(
                f"The model lacks `{rule.keras}`, needed for "
                f"`{rule.hugging_face}`. Export the model as it was before "
                "`quantize`."
            )
        tensor = rule.layout.to_hugging_face(arrays[rule.keras])
        tensors[rule.hugging_face] = np.ascontiguousarray(tensor, np.float32)
    for table_name, row in table.added_rows.items():
        # It is part of the table's rows by now.
        width = tensors[table_name].shape[-1]
        tensors[row] = np.zeros((1, width), np.float32)
    if is_encoder:
        width = next(iter(tensors.values())).shape[-1]
        for name, rank in table.unread.items():
            tensors[name] = np.zeros((width,) * rank, np.float32)
        # `AutoModel` writes its weights without the family's prefix.
        tensors = {k.removeprefix(table.prefix): v for k, v in tensors.items()}
    text = json.dumps(config, indent=2) + "\n"
    (directory / "config.json").write_text(text, "utf-8")
    # Without this entry, Hugging Face refuses the file.
    save_file(tensors, directory / SINGLE_FILE, metadata={"format": "pt"})
