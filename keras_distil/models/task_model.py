"""Models of tasks, built from encoders, and their kinds."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import keras_hub
from keras_hub.models import Backbone

from keras_distil.losses import TASK_KINDS
from keras_distil.models.architectures import (
    family_of,
    is_text_classifier,
    titles,
)
from keras_distil.models.checkpoints import HuggingFaceCheckpoint
from keras_distil.models.hub import (
    HUB_SCHEME,
    check_download,
    download_checkpoint,
)
from keras_distil.models.keras_archive import load_archive
from keras_distil.models.model_paths import check_model_path, is_preset
from keras_distil.models.origin import inherit_folder, remember_folder
from keras_distil.models.presets import (
    fetch_files,
    fetch_preset,
    nearest_preset,
)
from keras_distil.models.task_presets import load_task_preset
from keras_distil.models.token_models import SpanExtractor, TokenClassifier
from keras_distil.models.weights import (
    assign,
    copy_weights,
    seeded_build,
    variables_by_path,
)


def task_model(
    encoder: keras_hub.models.Task | Backbone,
    kind: str,
    num_outputs: int = 1,
    *,
    dropout: float = 0.1,
    labels: Sequence[str] | None = None,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int = 0,
) -> keras_hub.models.Task:
    """Adds a task's output to a copy of an encoder.

    Args:
        encoder: a KerasHub encoder, or a task model whose encoder is used. It
            is not changed. For classification and regression, one of a
            supported family.
        kind: "classification", "multi_label" (labels that do not exclude each
            other) or "regression" of whole texts, "token_classification" or
            "span".
        num_outputs: int >= 1, classes; 1 for a regression, 2 or more for
            several labels. Not used for spans.
        dropout: float in [0, 1), in the encoder and before the output.
        labels: names of the classes, in the order of the outputs: the meaning
            of the class ids in the data. They stay with the model, and go
            into students and exports. None for no names.
        dtype: Keras dtype policy; None keeps the encoder's.
        seed: int, determines the output's weights and the dropout layers.

    Returns:
        A `keras_hub.models.TextClassifier`, `TokenClassifier` or
        `SpanExtractor`, not compiled. A regression is a text classifier with
        one output.

    Raises:
        TypeError: if `encoder` is neither, or its architecture has no
            classifier here.
        ValueError: if `kind` is unknown or `num_outputs` does not fit it.
    """
    if kind not in TASK_KINDS:
        raise ValueError(
            f"`kind` must be one of {list(TASK_KINDS)}. "
            f"Received: kind={kind!r}."
        )
    if (
        num_outputs < 1
        or (kind == "regression" and num_outputs != 1)
        or (kind == "multi_label" and num_outputs < 2)
    ):
        raise ValueError(
            "`num_outputs` must be at least 1, 1 for a regression, and 2 or "
            "more for several labels. "
            f"Received: kind={kind!r}, num_outputs={num_outputs}."
        )
    backbone = getattr(encoder, "backbone", encoder)
    if not isinstance(backbone, Backbone):
        raise TypeError(
            "`encoder` must be a KerasHub task model or encoder. "
            f"Received: {type(encoder).__name__}."
        )
    with seeded_build(seed):
        copy = _copy_encoder(backbone, dropout, dtype)
        model = put_output(
            copy, kind, num_outputs, dropout=dropout, labels=labels
        )
    inherit_folder(encoder, model)
    return model


def put_output(
    backbone: Backbone,
    kind: str,
    num_outputs: int,
    *,
    dropout: float,
    labels: Sequence[str] | None = None,
    is_probability: bool = False,
) -> keras_hub.models.Task:
    """Adds a task's output to the encoder itself; see `task_model`."""
    if kind == "span":
        if labels is not None:
            raise ValueError(
                "`labels` are for classes, and a span model has none. "
                f"Received: labels={labels!r:.80}."
            )
        return SpanExtractor(backbone, dropout=dropout)
    if kind == "token_classification":
        return TokenClassifier(
            backbone, num_outputs, dropout=dropout, labels=labels
        )
    options: dict[str, Any] = {
        "dropout": dropout,
        "labels": labels,
        "is_probability": is_probability and kind == "regression",
        "is_multi_label": kind == "multi_label",
    }
    family = family_of(backbone)
    if family is not None:
        return family.text_classifier(backbone, num_outputs, **options)
    raise TypeError(
        "`encoder` must be of a supported family for the classification of "
        f"texts: {titles()}. Received: {type(backbone).__name__}."
    )


def load_task_model(path: str | os.PathLike) -> keras_hub.models.Task:
    """Loads a model of a task from its file or folder, safely.

    Args:
        path: a `.keras` file; a local Hugging Face directory of a sequence or
            token classifier or a question answering model, or its name as
            `hf://organisation/name`; or a KerasHub preset: its directory, its
            name, or its handle (`kaggle://...`). Heads of other tasks are
            dropped, and one line says so.

    Returns:
        A model as from `task_model`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or holds another kind of model.
        ConnectionError: if a download fails.
    """
    source = os.fspath(path)
    preset = fetch_preset(source)
    if preset is None and source.startswith(HUB_SCHEME):
        preset = directory = download_checkpoint(source)
        if not is_preset(directory):
            check_download(source, directory)
            return _from_hugging_face(directory)
        fetch_files(source)
    path = Path(path) if preset is None else preset
    hint = "" if path.exists() else nearest_preset(source)
    if hint:
        raise FileNotFoundError(f"There is no model {source}.{hint}")
    check_model_path(path)
    if path.is_file():
        model = load_archive(path, keras_hub.models.Task, "task")
    elif is_preset(path):
        model = load_task_preset(path)
    else:
        model = _from_hugging_face(path)
    if kind_of(model) is None:
        raise ValueError(
            f"`{path}` must hold a model that was fine-tuned on a task. "
            f"Received: {type(model).__name__}."
        )
    return model


def _from_hugging_face(directory: Path) -> keras_hub.models.Task:
    checkpoint = HuggingFaceCheckpoint(directory)
    outputs, kind = checkpoint.num_outputs, str(checkpoint.config.task)
    sizes, head = checkpoint.config.backbone, checkpoint.config.head
    if kind == "classification" and head.is_multi_label:
        kind = "multi_label"
    elif kind == "classification" and outputs == 1:
        kind = "regression"
    with seeded_build(0):
        model = put_output(
            checkpoint.config.family.make_encoder(**sizes),
            kind,
            outputs,
            dropout=checkpoint.config.head_dropout,
            labels=head.labels,
            is_probability=not head.is_regression,
        )
    variables = variables_by_path(model)
    shapes = {name: tuple(v.shape) for name, v in variables.items()}
    for name, value in checkpoint.read(shapes, task=checkpoint.config.task):
        assign(variables[name], value)
    remember_folder(model, directory)
    return model


def kind_of(model: keras.Model) -> str | None:
    """Returns the kind of task that a model is for, or None."""
    if isinstance(model, SpanExtractor):
        return "span"
    if isinstance(model, TokenClassifier):
        return "token_classification"
    if is_text_classifier(model):
        if getattr(model, "is_multi_label", False):
            return "multi_label"
        return "regression" if model.num_classes == 1 else "classification"
    return None


def masked_lm_of(
    model: keras_hub.models.Task,
    *,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int = 0,
) -> keras_hub.models.MaskedLM:
    """Adds a new masked-LM head to a copy of a task model's encoder.

    Args:
        model: a model of a task, of a supported family. It is not changed.
        dtype: Keras dtype policy; None keeps the encoder's.
        seed: int, determines the head's weights and the dropout layers.

    Raises:
        TypeError: if its family is not supported.
    """
    family = family_of(model.backbone)
    if family is None:
        raise TypeError(
            f"`model` must be of a supported family: {titles()}. Received: "
            f"{type(model.backbone).__name__}."
        )
    with seeded_build(seed):
        copy = _copy_encoder(model.backbone, None, dtype)
        made = family.masked_lm(copy)
    inherit_folder(model, made)
    return made


def _copy_encoder(
    backbone: Backbone,
    dropout: float | None,
    dtype: str | keras.DTypePolicy | None,
) -> Backbone:
    """Copies an encoder, perhaps with another dropout rate."""
    config = backbone.get_config()
    if dropout is not None:
        config["dropout"] = dropout
    # A Distiller freezes its teacher, but a copy of its encoder is trainable.
    config["trainable"] = True
    if dtype is not None:
        config["dtype"] = dtype
    copy = type(backbone).from_config(config)
    copy_weights(backbone, copy)
    return copy
