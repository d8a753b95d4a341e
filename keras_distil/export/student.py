"""The models that can be exported, and their outputs."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import tensorflow as tf
from keras_hub.models import MaskedLM, Task

from keras_distil.models import forward, heads
from keras_distil.models.architectures import Family, family_of, titles
from keras_distil.models.embedding_model import (
    check_embedder,
    is_embedder,
    text_length,
)
from keras_distil.models.labels import check_labels, labels_of
from keras_distil.models.task_model import kind_of
from keras_distil.models.weights import (
    check_all_not_quantized,
    has_low_rank_changes,
    with_dtype,
    with_logits,
)

Tensors: TypeAlias = dict[str, Any]
OutputFunction: TypeAlias = Callable[[Mapping[str, Any]], Tensors]

MASKED_LM = "masked_lm"
SENTENCE_EMBEDDING = "sentence_embedding"


@dataclasses.dataclass(frozen=True)
class Student:
    """A model to export, in float32.

    Attributes:
        model: a KerasHub task model. The caller's own if it computes logits
            in float32 by plain kernels, else a copy that does, with low-rank
            updates (`enable_lora`) merged.
        kind: "masked_lm", a kind of `losses.TASK_KINDS`, or
            "sentence_embedding".
    """

    model: Task
    kind: str

    @property
    def is_static(self) -> bool:
        """Whether it is a table of token vectors, without an encoder."""
        return family_of(self.model) is None

    @property
    def family(self) -> Family:
        """Its family.

        Raises:
            ValueError: if it has none, as a table of token vectors.
        """
        family = family_of(self.model)
        if family is None:
            raise ValueError(
                "A static table of token vectors has no encoder. Received: "
                f"{type(self.model).__name__}."
            )
        return family

    @property
    def max_length(self) -> int:
        """Tokens at which a text is cut: all positions, unless it says so."""
        if self.kind == SENTENCE_EMBEDDING:
            return text_length(self.model)
        return self.model.backbone.max_sequence_length

    @property
    def positions(self) -> int | None:
        """Rows of the position table; None without one."""
        return getattr(self.model.backbone, "max_sequence_length", None)

    @property
    def is_probability(self) -> bool:
        """Whether a regression's output is the logit of a probability."""
        return self.kind == "regression" and getattr(
            self.model, "is_probability", False
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the encoder's inputs, int32, (batch, length) each."""
        names = ("token_ids", "padding_mask")
        has_segments = "segment_ids" in self.model.backbone.input
        return (*names, "segment_ids") if has_segments else names

    def outputs(self, inputs: Mapping[str, Any]) -> Tensors:
        """Returns the outputs by name, float32, from plain Keras layers.

        Args:
            inputs: tensors by `input_names`.

        Returns:
            "logits", (batch, length, vocabulary or classes) or (batch,
            classes); "score", (batch,), for a regression; "start_logits" and
            "end_logits", (batch, length); or "embedding", (batch, dimension).
        """
        inputs = {name: inputs[name] for name in self.input_names}
        if self.kind == MASKED_LM:
            return {"logits": forward.logits(self.model, inputs)}
        found = tf.cast(self.model(inputs, training=False), tf.float32)
        return self.named_outputs(found)

    def named_outputs(self, found: Any) -> Tensors:
        """Returns the outputs of a head by name."""
        if self.kind == SENTENCE_EMBEDDING:
            return {"embedding": found}
        if self.kind == "regression":
            return {"score": found[:, 0]}
        if self.kind == "span":
            return {
                "start_logits": found[:, :, 0],
                "end_logits": found[:, :, 1],
            }
        return {"logits": found}

    def layers(self, inputs: Mapping[str, Any]) -> Tensors:
        """Hidden states after the embeddings and every layer, in order."""
        backbone = self.model.backbone
        states = {"embeddings": backbone.output}
        if not self.is_static:
            states = forward.states_by_layer(self.model)
        # A model of the same layers with more outputs.
        cut = keras.Model(backbone.input, states)
        return cut(
            {name: inputs[name] for name in self.input_names}, training=False
        )


def make_student(model: keras.Model) -> Student:
    """Checks a model and converts it to float32.

    Args:
        model: a `keras_hub` masked-LM model of a supported family, a model of
            `models.task_model`, or an embedding model.

    Raises:
        TypeError: if it is any other model.
        ValueError: if it is not built, or was quantised by Keras.
    """
    if isinstance(model, keras.Model) and not model.built:
        raise ValueError(
            "The model is not built, so it has no weights to export: call it "
            f"once, or load it. Received: {model.name!r}, of type "
            f"{type(model).__name__}."
        )
    kind = _kind_of(model)
    check_all_not_quantized(model)
    if kind not in (MASKED_LM, SENTENCE_EMBEDDING) and not heads.is_linear(
        model
    ):
        model = with_logits(model)
    if model.backbone.compute_dtype != "float32" or has_low_rank_changes(model):
        model = with_dtype(model, "float32")
    return Student(model, kind)


def _kind_of(model: keras.Model) -> str:
    """Returns the kind of a model's outputs, after checking its head."""
    if is_embedder(model):
        check_embedder(model, "model")
        if family_of(model) is None and model.preprocessor is None:
            raise ValueError(
                "A static table needs its tokenizer, which says how long texts "
                "may be: make it with `models.static_embedding_model`. "
                "Received: preprocessor=None."
            )
        return SENTENCE_EMBEDDING
    known = isinstance(model, Task) and family_of(model) is not None
    kind = MASKED_LM if isinstance(model, MaskedLM) else kind_of(model)
    if not known or kind is None:
        raise TypeError(
            "Only `keras_hub` models of supported families "
            f"({titles()}) for masked language modelling, those of "
            "`models.task_model` and embedding models can be exported; of a "
            "Distiller, its `student`. "
            f"Received: {model!r:.100} (of type {type(model).__name__})."
        )
    if kind == MASKED_LM:
        forward.check_masked_lm(model, "model")
    else:
        heads.check_task_head(model, "model")
    return kind


def write_labels(
    student: Student, folder: Path, labels: Sequence[str] | None = None
) -> None:
    """Writes the names of the model's classes, if any, to `labels.json`.

    Args:
        student: the model.
        folder: the folder of the export.
        labels: the names; None for the model's own.
    """
    names = labels_of(student.model) if labels is None else labels
    if names is not None and student.kind != SENTENCE_EMBEDDING:
        text = json.dumps(list(names), ensure_ascii=False) + "\n"
        (folder / "labels.json").write_text(text, "utf-8")


def label_names(student: Student, labels: Sequence[str] | None) -> list[str]:
    """Names of the classes: those given, else the model's own.

    Empty if the outputs are not classes.
    """
    if student.kind not in (
        "classification",
        "multi_label",
        "regression",
        "token_classification",
    ):
        if labels is not None:
            raise ValueError(
                f"`labels` are for classes, and a {student.kind} model has "
                f"none. Received: labels={list(labels)!r:.80}."
            )
        return []
    count = student.model.num_classes
    own = labels_of(student.model)
    if labels is None:
        return list(own or (f"LABEL_{index}" for index in range(count)))
    names = list(check_labels(labels, count) or ())
    if own is not None and set(own) == set(names) and list(own) != names:
        raise ValueError(
            "`labels` must be in the order of the model's outputs, "
            f"{list(own)!r:.200}. Received: labels={names!r:.200}."
        )
    return names
