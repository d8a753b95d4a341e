"""Reading and checking the `config.json` of a Hugging Face directory."""

import dataclasses
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_distil.models.architectures import FAMILIES, Family
from keras_distil.models.architectures.activations import DEFAULT
from keras_distil.models.checkpoints.settings import (
    HeadSettings,
    check_settings,
    read_encoder_settings,
    read_head_settings,
)
from keras_distil.utils import disk

# The endings of Hugging Face's class names, by head.
_CLASS_ENDS = {
    "masked_lm": "ForMaskedLM",
    "classification": "ForSequenceClassification",
    "multi_label": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "span": "ForQuestionAnswering",
    # The encoder alone.
    "sentence_embedding": "Model",
}

_POSITIONS = "max_sequence_length"


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """The family and the sizes of a checkpoint, in Keras's terms.

    Args:
        family: its family.
        backbone: keyword arguments of `Family.make_encoder`.
        task: the kind of task that the checkpoint claims to be for, as in
            `WeightTable.tasks`; None if it is for none of them.
        head: what the configuration says about that task's outputs.
        head_dropout: float in [0, 1), rate before the outputs, in training.
    """

    family: Family
    backbone: dict[str, Any]
    task: str | None = None
    head: HeadSettings = HeadSettings()
    head_dropout: float = 0.1


def read_config(directory: Path) -> CheckpointConfig:
    """Reads `config.json` and refuses what would be loaded incorrectly.

    Args:
        directory: Path of a Hugging Face model directory.

    Returns:
        A `CheckpointConfig`.

    Raises:
        ValueError: if the file is missing or broken, or if the model computes
            something that the Keras classes do not.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"There is no directory `{directory}`.")
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(
            f"`{directory}` has no `config.json`, so it is not a Hugging Face "
            "model directory."
        )
    config = disk.read_json(path)
    architecture = config.get("model_type")
    if not isinstance(architecture, str) or architecture not in FAMILIES:
        raise ValueError(
            f"`model_type` in `{path}` must be one of {sorted(FAMILIES)}, the "
            f"supported families. Received: {reprlib.repr(architecture)}. "
            "docs/add_a_family.md tells how to add one."
        )
    family = FAMILIES[architecture]
    check_settings(path, config, family)
    sizes = _read_sizes(path, config, family)
    if sizes["hidden_dim"] % sizes["num_heads"]:
        raise ValueError(
            f"`{path}`: the width {sizes['hidden_dim']} is not divisible by "
            f"the number of attention heads {sizes['num_heads']}."
        )
    # KerasHub has a single dropout rate for hidden states and attention.
    dropout = _read_rate(path, config, family.config.dropout)
    settings = read_encoder_settings(path, config, family)
    task = _find_task(config, family)
    return CheckpointConfig(
        family,
        {**sizes, "dropout": dropout, **settings},
        task,
        read_head_settings(path, config, task),
        _head_dropout(path, config, family, task, dropout),
    )


def hugging_face_config(
    family: Family,
    backbone: Mapping[str, Any],
    head: str,
    *,
    labels: Sequence[str] = (),
    pad_id: int = 0,
    head_dropout: float | None = None,
    is_probability: bool = False,
) -> dict[str, Any]:
    """Builds the content of `config.json`; the reverse of `read_config`.

    Args:
        family: the model's family.
        backbone: arguments of the encoder.
        head: "masked_lm" or a kind of task.
        labels: names of the classes, or of the single output.
        pad_id: int, the id of padding.
        head_dropout: float, rate before the output, in training. Defaults to
            the encoder's.
        is_probability: bool, whether a regression's output is the logit of a
            probability: Hugging Face then applies a sigmoid to it.
    """
    keys = family.config
    sizes = {theirs: backbone[ours] for theirs, ours in keys.sizes.items()}
    for name, ours in keys.sizes.items():
        if ours == _POSITIONS:
            sizes[name] += keys.unused_positions
    rate = backbone["dropout"]
    config = {
        "architectures": [keys.class_stem + _CLASS_ENDS[head]],
        "model_type": family.name,
        **sizes,
        keys.activation: backbone.get("activation", DEFAULT),
        keys.dropout: rate,
        keys.attention_dropout: rate,
        "initializer_range": 0.02,
        "pad_token_id": pad_id,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if keys.epsilon is not None:
        config[keys.epsilon] = backbone.get(
            "layer_norm_epsilon", family.epsilon
        )
    config |= keys.constants
    if labels:
        config["id2label"] = {str(i): name for i, name in enumerate(labels)}
        config["label2id"] = {name: i for i, name in enumerate(labels)}
    if head == "regression" and not is_probability:
        config["problem_type"] = "regression"
    if head == "multi_label":
        config["problem_type"] = "multi_label_classification"
    is_text = head in ("regression", "multi_label")
    kind = "classification" if is_text else head
    name, default = keys.head_dropouts.get(kind, ("", None))
    default = rate if default is None else default
    if name and head_dropout not in (None, default):
        config[name] = head_dropout
    return config


def _find_task(config: dict[str, Any], family: Family) -> str | None:
    classes = config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else None
    for kind in family.weights.tasks:
        if name == family.config.class_stem + _CLASS_ENDS[kind]:
            return kind
    return None


def _head_dropout(
    path: Path,
    config: dict[str, Any],
    family: Family,
    task: str | None,
    encoder: float,
) -> float:
    keys = family.config
    if task in keys.kinds_without_dropout:
        return 0.0
    name, default = keys.head_dropouts.get(task or "", ("", None))
    if config.get(name, default) is None:
        return encoder
    return _read_rate(path, config, name, default or encoder)


def _read_rate(
    path: Path, config: dict[str, Any], name: str, default: float = 0.1
) -> float:
    rate = config.get(name, default)
    if (
        isinstance(rate, bool)
        or not isinstance(rate, int | float)
        or not 0 <= rate < 1
    ):
        raise ValueError(
            f"`{name}` in `{path}` must be a number from 0 to below 1. "
            f"Received: {reprlib.repr(rate)}."
        )
    return float(rate)


def _read_sizes(
    path: Path, config: dict[str, Any], family: Family
) -> dict[str, int]:
    sizes = {}
    for name, ours in family.config.sizes.items():
        sizes[ours] = _read_size(path, config, name)
        unused = family.config.unused_positions
        if ours == _POSITIONS and unused:
            if sizes[ours] <= unused:
                raise ValueError(
                    f"`{name}` in `{path}` must be above {unused}: the first "
                    f"{unused} positions of a {family.title} are never used. "
                    f"Received: {sizes[ours]}."
                )
            sizes[ours] -= unused
    return sizes


def _read_size(path: Path, config: dict[str, Any], name: str) -> int:
    size = config.get(name)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(
            f"`{name}` in `{path}` must be a positive integer. "
            f"Received: {reprlib.repr(size)}."
        )
    return size
