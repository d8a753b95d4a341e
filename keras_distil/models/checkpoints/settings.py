"""The settings of a `config.json`: required, read, or without effect.

A key is read, required to have a value, or has no effect on the outputs; all
others are accepted. Read elsewhere: the sizes and dropout rates
(`config.py`). Without effect, whatever their value: `torch_dtype` and `dtype`
(weights become float32), `attention_probs_dropout_prob` and
`attention_dropout` (training only), `chunk_size_feed_forward`,
`finetuning_task`, `gradient_checkpointing`, `initializer_range`, `use_cache`,
`transformers_version`, `pad_token_id`, and `sinusoidal_pos_embds`: the
checkpoint holds the positions, however they were computed.
"""

import dataclasses
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_distil.models.architectures import Family
from keras_distil.models.architectures.activations import ACTIVATIONS, DEFAULT

# The values supported here; the first is the format's default.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "auto_map": (None,),
}
# Of every family's configuration in Hugging Face.
_DEFAULT_EPSILON = 1e-12
# What follows the family in the name of a class of Hugging Face.
_CLASS_ENDS = re.compile(r"Model|LMHeadModel|PreTrainedModel|For\w+")
_CLASSIFIERS = ("classification", "token_classification")
_MULTI_LABEL = "multi_label_classification"
_PROBLEM_TYPES = (
    None,
    "regression",
    "single_label_classification",
    _MULTI_LABEL,
)
_MOST_CLASSES = 2**20


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """The settings of a task's outputs in a configuration.

    Attributes:
        labels: names of the classes, in the order of the outputs; None if
            their only names are `LABEL_0` and so on.
        num_labels: int, number of outputs; None if not stated.
        is_regression: bool, whether a single output is a score. For any other
            classifier with a single output, Hugging Face treats it as the
            logit of a probability.
        is_multi_label: bool, whether the labels do not exclude each other.
    """

    labels: tuple[str, ...] | None = None
    num_labels: int | None = None
    is_regression: bool = False
    is_multi_label: bool = False


def check_settings(
    path: Path, config: Mapping[str, Any], family: Family
) -> None:
    """Refuses settings that change the outputs and have no counterpart.

    Raises:
        ValueError: naming the setting.
    """
    required = {**_REQUIRED, **family.config.required}
    for name, allowed in required.items():
        value = config.get(name, allowed[0])
        if not any(value == v and type(value) is type(v) for v in allowed):
            raise ValueError(
                f"`{name}` in `{path}` must be {allowed[0]!r}: no other value "
                f"is supported. Received: {reprlib.repr(value)}."
            )
    _check_classes(path, config.get("architectures"), family)
    adapter = path.with_name("adapter_config.json")
    if adapter.is_file():
        raise ValueError(
            f"`{adapter}` adds an adapter to the model, which is not read. "
            "Merge it first (`merge_and_unload` of `peft`), and save that."
        )


def _check_classes(path: Path, classes: Any, family: Family) -> None:
    if classes is None:
        return
    stem = family.config.class_stem
    for name in classes if isinstance(classes, list) else [classes]:
        short = name if isinstance(name, str) else ""
        short = short.removeprefix("TF").removeprefix("Flax")
        end = short.removeprefix(stem) if short.startswith(stem) else ""
        if not _CLASS_ENDS.fullmatch(end):
            raise ValueError(
                f"`architectures` in `{path}` must name a class of "
                f"{family.name!r}, its `model_type`: `{stem}Model` or one "
                f"that begins with `{stem}For`. "
                f"Received: {reprlib.repr(name)}."
            )


def read_encoder_settings(
    path: Path, config: Mapping[str, Any], family: Family
) -> dict[str, Any]:
    """Reads the activation and the epsilon of an encoder.

    Args:
        path: path of the configuration, for messages.
        config: its content.
        family: its family.

    Returns:
        Arguments of `Family.make_encoder`: those that differ from its
        defaults.

    Raises:
        ValueError: if no Keras layer computes with these values.
    """
    keys = family.config
    settings: dict[str, Any] = {}
    activation = config.get(keys.activation, DEFAULT)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(
            f"`{keys.activation}` in `{path}` must be one of "
            f"{list(ACTIVATIONS)}: no other activation is supported. "
            f"Received: {reprlib.repr(activation)}."
        )
    if activation != DEFAULT:
        settings["activation"] = activation
    if keys.epsilon is None:
        return settings
    epsilon = config.get(keys.epsilon, _DEFAULT_EPSILON)
    if (
        isinstance(epsilon, bool)
        or not isinstance(epsilon, int | float)
        or not 0 < epsilon < 1
    ):
        raise ValueError(
            f"`{keys.epsilon}` in `{path}` must be a number between 0 and 1. "
            f"Received: {reprlib.repr(epsilon)}."
        )
    if epsilon != family.epsilon:
        settings["layer_norm_epsilon"] = float(epsilon)
    return settings


def read_head_settings(
    path: Path, config: Mapping[str, Any], task: str | None
) -> HeadSettings:
    """Reads what a configuration says about a classifier's outputs.

    Args:
        path: path of the configuration, for messages.
        config: its content.
        task: the kind of task of the checkpoint.

    Raises:
        ValueError: if no model here computes such outputs, or the names
            contradict each other.
    """
    if task not in _CLASSIFIERS:
        return HeadSettings()
    labels = _read_labels(path, config)
    count = config.get("num_labels")
    if count is not None and (
        type(count) is not int or not 0 < count <= _MOST_CLASSES
    ):
        raise ValueError(
            f"`num_labels` in `{path}` must be a positive integer. "
            f"Received: {reprlib.repr(count)}."
        )
    if labels is not None and count not in (None, len(labels)):
        raise ValueError(
            f"`num_labels` in `{path}` is {count}, but `id2label` names "
            f"{len(labels)} classes."
        )
    problem = config.get("problem_type")
    if not any(problem == known for known in _PROBLEM_TYPES):
        raise ValueError(
            f"`problem_type` in `{path}` must be one of "
            f"{list(_PROBLEM_TYPES)}: no model here has such outputs. "
            f"Received: {reprlib.repr(problem)}."
        )
    return HeadSettings(
        None if labels is None or is_default(labels) else labels,
        count if labels is None else len(labels),
        problem == "regression",
        problem == _MULTI_LABEL,
    )


def check_outputs(
    directory: Path, config: Mapping[str, Any], head: HeadSettings, rows: int
) -> None:
    """Compares the configuration of the outputs with the weights.

    Raises:
        ValueError: if they differ.
    """
    path = directory / "config.json"
    if head.num_labels not in (None, rows):
        raise ValueError(
            f"`{path}` has {head.num_labels} labels, but the classifier's "
            f"weights have {rows} outputs."
        )
    problem = config.get("problem_type")
    several = ("single_label_classification", _MULTI_LABEL)
    if (problem == "regression" and rows != 1) or (
        problem in several and rows == 1
    ):
        raise ValueError(
            f"`problem_type` in `{path}` is {problem!r}, which is not "
            f"supported for {rows} output{'s' if rows > 1 else ''}."
        )


def is_default(labels: tuple[str, ...]) -> bool:
    """Checks whether classes have Hugging Face's default names."""
    return labels == tuple(f"LABEL_{i}" for i in range(len(labels)))


def _read_labels(
    path: Path, config: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """Reads the names of the classes from the tables that have them."""
    by_id = _by_id(path, "id2label", config.get("id2label"))
    inverse = config.get("label2id")
    if isinstance(inverse, dict):
        if not all(isinstance(i, int | str) for i in inverse.values()):
            raise _wrong_labels(path, "label2id", inverse)
        by_id_text = {str(i): name for name, i in inverse.items()}
        if len(by_id_text) < len(inverse):
            raise _wrong_labels(path, "label2id", inverse)
        inverse = by_id_text
    by_name = _by_id(path, "label2id", inverse)
    named = [x for x in (by_id, by_name) if x and not is_default(x)]
    if len(set(named)) > 1:
        raise ValueError(
            f"`id2label` and `label2id` in `{path}` contradict each other: "
            f"{list(by_id or ())!r:.200} and {list(by_name or ())!r:.200}."
        )
    return named[0] if named else by_id or by_name


def _by_id(path: Path, key: str, table: Any) -> tuple[str, ...] | None:
    if table is None:
        return None
    if not isinstance(table, dict) or not table:
        raise _wrong_labels(path, key, table)
    names = [table.get(str(i)) for i in range(len(table))]
    if not all(isinstance(name, str) and name for name in names) or len(
        set(names)
    ) < len(names):
        raise _wrong_labels(path, key, table)
    return tuple(str(name) for name in names)


def _wrong_labels(path: Path, key: str, table: Any) -> ValueError:
    return ValueError(
        f"`{key}` in `{path}` must give each class, from 0 on without "
        f"gaps, a different name. Received: {reprlib.repr(table)}."
    )
