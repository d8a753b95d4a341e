"""Reading and checking the `config.json` of a Hugging Face directory."""

import dataclasses
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_distil.models.checkpoints.settings import (
    ACTIVATION_NAMES,
    CLASS_STEMS,
    HeadSettings,
    check_settings,
    read_head_settings,
)
from keras_distil.models.checkpoints.weight_table import WEIGHT_TABLES
from keras_distil.utils import disk

# Each architecture's names of the sizes, and Keras's names.
_SIZE_NAMES = {
    "bert": {
        "vocab_size": "vocabulary_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "hidden_size": "hidden_dim",
        "intermediate_size": "intermediate_dim",
        "max_position_embeddings": "max_sequence_length",
        "type_vocab_size": "num_segments",
    },
    "distilbert": {
        "vocab_size": "vocabulary_size",
        "n_layers": "num_layers",
        "n_heads": "num_heads",
        "dim": "hidden_dim",
        "hidden_dim": "intermediate_dim",
        "max_position_embeddings": "max_sequence_length",
    },
}
_DROPOUT_NAMES = {"bert": "hidden_dropout_prob", "distilbert": "dropout"}
_ATTENTION_DROPOUT_NAMES = {
    "bert": "attention_probs_dropout_prob",
    "distilbert": "attention_dropout",
}
# The endings of Hugging Face's class names, by head.
_CLASS_ENDS = {
    "masked_lm": "ForMaskedLM",
    "classification": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "span": "ForQuestionAnswering",
}
# Dropout before the output, in training: for each head, the key, and the
# default if it is not the encoder's rate. BERT's spans have none.
_HEAD_DROPOUT_NAMES: dict[tuple[str, str | None], tuple[str, float | None]] = {
    ("bert", "classification"): ("classifier_dropout", None),
    ("bert", "token_classification"): ("classifier_dropout", None),
    ("distilbert", "classification"): ("seq_classif_dropout", 0.2),
    ("distilbert", "span"): ("qa_dropout", 0.1),
}
_NO_DROPOUT = {("bert", "span")}


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """The architecture and the sizes of a checkpoint, in Keras's terms.

    Args:
        architecture: `"bert"` or `"distilbert"`.
        backbone: keyword arguments of the KerasHub backbone.
        task: the kind of task that the checkpoint claims to be for, as in
            `WeightTable.tasks`; None if it is for none of them.
        head: what the configuration says about that task's outputs.
        head_dropout: float in [0, 1), rate before the outputs, in training.
    """

    architecture: str
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
    if not isinstance(architecture, str) or architecture not in WEIGHT_TABLES:
        raise ValueError(
            f"`model_type` in `{path}` must be one of "
            f"{sorted(WEIGHT_TABLES)}. Received: {reprlib.repr(architecture)}."
        )
    check_settings(path, config, architecture)
    sizes = {
        ours: _read_size(path, config, theirs)
        for theirs, ours in _SIZE_NAMES[architecture].items()
    }
    if sizes["hidden_dim"] % sizes["num_heads"]:
        raise ValueError(
            f"`{path}`: the width {sizes['hidden_dim']} is not divisible by "
            f"the number of attention heads {sizes['num_heads']}."
        )
    # KerasHub has a single dropout rate for hidden states and attention.
    dropout = _read_rate(path, config, _DROPOUT_NAMES[architecture])
    task = _find_task(config, architecture)
    return CheckpointConfig(
        architecture,
        {**sizes, "dropout": dropout},
        task,
        read_head_settings(path, config, task),
        _head_dropout(path, config, architecture, task, dropout),
    )


def hugging_face_config(
    architecture: str,
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
        architecture: "bert" or "distilbert".
        backbone: arguments of the KerasHub backbone.
        head: "masked_lm" or a kind of task.
        labels: names of the classes, or of the single output.
        pad_id: int, the id of padding.
        head_dropout: float, rate before the output, in training. Defaults to
            the encoder's.
        is_probability: bool, whether a regression's output is the logit of a
            probability: Hugging Face then applies a sigmoid to it.
    """
    sizes = {
        theirs: backbone[ours]
        for theirs, ours in _SIZE_NAMES[architecture].items()
    }
    rate = backbone["dropout"]
    config = {
        "architectures": [CLASS_STEMS[architecture] + _CLASS_ENDS[head]],
        "model_type": architecture,
        **sizes,
        ACTIVATION_NAMES[architecture]: "gelu",
        _DROPOUT_NAMES[architecture]: rate,
        _ATTENTION_DROPOUT_NAMES[architecture]: rate,
        "initializer_range": 0.02,
        "pad_token_id": pad_id,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if architecture == "bert":
        config["layer_norm_eps"] = 1e-12
    else:
        config["sinusoidal_pos_embds"] = False
    if labels:
        config["id2label"] = {str(i): name for i, name in enumerate(labels)}
        config["label2id"] = {name: i for i, name in enumerate(labels)}
    if head == "regression" and not is_probability:
        config["problem_type"] = "regression"
    kind = "classification" if head == "regression" else head
    name, default = _HEAD_DROPOUT_NAMES.get((architecture, kind), ("", None))
    default = rate if default is None else default
    if name and head_dropout not in (None, default):
        config[name] = head_dropout
    return config


def _find_task(config: dict[str, Any], architecture: str) -> str | None:
    classes = config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else None
    for kind in WEIGHT_TABLES[architecture].tasks:
        if name == CLASS_STEMS[architecture] + _CLASS_ENDS[kind]:
            return kind
    return None


def _head_dropout(
    path: Path,
    config: dict[str, Any],
    architecture: str,
    task: str | None,
    encoder: float,
) -> float:
    if (architecture, task) in _NO_DROPOUT:
        return 0.0
    name, default = _HEAD_DROPOUT_NAMES.get((architecture, task), ("", None))
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


def _read_size(path: Path, config: dict[str, Any], name: str) -> int:
    size = config.get(name)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(
            f"`{name}` in `{path}` must be a positive integer. "
            f"Received: {reprlib.repr(size)}."
        )
    return size
