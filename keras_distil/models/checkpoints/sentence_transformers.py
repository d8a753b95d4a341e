"""Reads and writes what sentence-transformers has around an encoder.

A folder lists its modules in `modules.json`: the encoder, the pooling, and
perhaps a dense layer and a normalisation, each in a folder of its own.
"""

import dataclasses
import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from keras_distil.models.architectures.sentence_embedding import (
    POOLING_MODES,
)
from keras_distil.models.checkpoints.safetensors_files import (
    SINGLE_FILE,
    list_tensors,
)
from keras_distil.utils import disk

MODULES_FILE = "modules.json"
_PROMPTS_FILE = "config_sentence_transformers.json"
_LENGTH_FILE = "sentence_bert_config.json"
_LAYOUTS = tuple(
    ("Transformer", "Pooling", *dense, *norm)
    for dense in ((), ("Dense",))
    for norm in ((), ("Normalize",))
)
# Names in `1_Pooling/config.json`; others are refused by name.
_POOLING_KEYS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_ACTIVATIONS = {"Tanh": "tanh", "Identity": "linear"}
_ACTIVATION_CLASSES = {
    "tanh": "torch.nn.modules.activation.Tanh",
    "linear": "torch.nn.modules.linear.Identity",
}
_LINEAR = ("linear.weight", "linear.bias")


@dataclasses.dataclass(frozen=True)
class DenseWeights:
    """A dense layer after the pooling.

    Attributes:
        kernel: float32, (width, dimension).
        bias: float32, (dimension,).
        activation: "linear" or "tanh".
    """

    kernel: np.ndarray
    bias: np.ndarray
    activation: str

    @property
    def dimension(self) -> int:
        """The size of its outputs."""
        return self.kernel.shape[1]


@dataclasses.dataclass(frozen=True)
class SentenceTransformer:
    """The modules of a folder.

    Attributes:
        encoder: folder of the encoder and its tokenizer.
        pooling_mode: "mean", "cls" or "max".
        dense: the dense layer, or None.
        normalize: whether vectors are scaled to length 1.
        sequence_length: tokens at which a text is cut; None if not said.
        prompts: by name, what is put before a text.
        default_prompt_name: the prompt of texts without another, or None.
    """

    encoder: Path
    pooling_mode: str
    dense: DenseWeights | None
    normalize: bool
    sequence_length: int | None
    prompts: dict[str, str]
    default_prompt_name: str | None


def read_sentence_transformer(directory: Path) -> SentenceTransformer:
    """Reads the modules of a folder, all but the encoder's weights.

    Args:
        directory: a folder with `modules.json`.

    Raises:
        ValueError: if a file is missing or damaged, or if a module, a pooling
            or a setting is not supported.
    """
    modules = list_modules(directory)
    if tuple(modules) not in _LAYOUTS:
        raise ValueError(
            f"`{directory / MODULES_FILE}` must list the modules Transformer, "
            "Pooling and, if need be, Dense and Normalize, in this order; "
            f"others are not supported. Received: {reprlib.repr([*modules])}."
        )
    encoder = modules["Transformer"]
    dense = None
    if "Dense" in modules:
        dense = _read_dense(modules["Dense"])
    prompts, default = read_prompts(directory)
    return SentenceTransformer(
        encoder=encoder,
        pooling_mode=_read_pooling(modules["Pooling"] / "config.json"),
        dense=dense,
        normalize="Normalize" in modules,
        sequence_length=_read_length(encoder / _LENGTH_FILE),
        prompts=prompts,
        default_prompt_name=default,
    )


def list_modules(directory: Path) -> dict[str, Path]:
    """Returns the folder of each module, by the name of its class, in order.

    Raises:
        ValueError: if `modules.json` is damaged, or names folders elsewhere.
    """
    path = directory / MODULES_FILE
    modules = _read_list(path)
    names, folders = [], []
    for module in modules:
        entry = module if isinstance(module, dict) else {}
        kind, place = entry.get("type"), entry.get("path")
        if not isinstance(kind, str) or not isinstance(place, str):
            raise ValueError(
                f"Each module of `{path}` must have a `type` and a `path`. "
                f"Received: {reprlib.repr(module)}."
            )
        # A single folder here: a file must not reach others.
        if place and Path(place).name != place:
            raise ValueError(
                f"A `path` in `{path}` must be a folder beside it. Received: "
                f"{reprlib.repr(place)}."
            )
        names.append(kind.rpartition(".")[2])
        folders.append(path.parent / place)
    return dict(zip(names, folders, strict=True))


def _read_list(path: Path) -> list[Any]:
    disk.check_size(path, disk.MODEL_JSON_BYTES)
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"`{path}` is not valid JSON: {error!s:.200}."
        ) from error
    if not isinstance(content, list):
        raise ValueError(
            f"`{path}` must hold a JSON list of modules. "
            f"Received: {type(content).__name__}."
        )
    return content


def _read_pooling(path: Path) -> str:
    if not path.is_file():
        raise ValueError(
            f"The pooling is not known: there is no `{path}`. Copy it from "
            "where the folder came from."
        )
    config = disk.read_json(path)
    said = [
        _POOLING_KEYS.get(key, key)
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value
    ]
    # Later versions write one name instead.
    said += [config["pooling_mode"]] if config.get("pooling_mode") else []
    if len(said) != 1 or said[0] not in POOLING_MODES:
        raise ValueError(
            f"`{path}` must choose one pooling of {list(POOLING_MODES)}. "
            f"Received: {reprlib.repr(said)}."
        )
    if config.get("include_prompt") is False:
        raise ValueError(
            f"`{path}` leaves prompts out of the pooling "
            "(include_prompt: false), which is not supported."
        )
    return said[0]


def _read_dense(directory: Path) -> DenseWeights:
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"The dense layer's settings `{path}` are missing.")
    config = disk.read_json(path)
    name = str(config.get("activation_function")).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"`activation_function` in `{path}` must be one of "
            f"{list(_ACTIVATIONS)}. Received: {reprlib.repr(name)}."
        )
    tensors = list_tensors(directory)
    has_bias = config.get("bias", True)
    wanted = _LINEAR if has_bias else _LINEAR[:1]
    shape = (config.get("out_features"), config.get("in_features"))
    found = {key: tensor.shape for key, tensor in tensors.items()}
    if found != dict(zip(wanted, (shape, shape[:1]), strict=False)):
        raise ValueError(
            f"The weights in `{directory}` must be {list(wanted)} of "
            f"{shape[1]} inputs and {shape[0]} outputs. Received: "
            f"{reprlib.repr(found)}."
        )
    kernel = tensors[_LINEAR[0]].read().T
    bias = np.zeros(kernel.shape[1], np.float32)
    if has_bias:
        bias = tensors[_LINEAR[1]].read()
    return DenseWeights(kernel, bias, _ACTIVATIONS[name])


def _read_length(path: Path) -> int | None:
    if not path.is_file():
        return None
    config = disk.read_json(path)
    if config.get("do_lower_case"):
        raise ValueError(
            f"`do_lower_case` in `{path}` is not supported: a tokenizer that "
            "lowers case says so itself. Set it to false if it does."
        )
    length = config.get("max_seq_length")
    if length is None:
        return None
    if isinstance(length, bool) or not isinstance(length, int) or length < 8:
        raise ValueError(
            f"`max_seq_length` in `{path}` must be an integer of at least 8. "
            f"Received: {reprlib.repr(length)}."
        )
    return length


def read_prompts(directory: Path) -> tuple[dict[str, str], str | None]:
    """Returns the prompts by name, and the name of the default one.

    Raises:
        ValueError: if they are not strings.
    """
    path = directory / _PROMPTS_FILE
    if not path.is_file():
        return {}, None
    config = disk.read_json(path)
    prompts = config.get("prompts") or {}
    default = config.get("default_prompt_name")
    strings = isinstance(prompts, dict) and all(
        isinstance(value, str) for value in prompts.values()
    )
    if not strings or not (default is None or default in list(prompts)):
        raise ValueError(
            f"`prompts` in `{path}` must be strings by name, and "
            "`default_prompt_name` one of the names. Received: "
            f"{reprlib.repr(prompts)} and {reprlib.repr(default)}."
        )
    return prompts, default


# === Writing ===


def write_sentence_transformer(
    directory: Path, model: SentenceTransformer, width: int
) -> None:
    """Writes the modules around an encoder that is in the same folder.

    Args:
        directory: a folder.
        model: the modules; its encoder is `directory`.
        width: int, of the encoder's states.
    """
    names = ["Transformer", "Pooling"]
    names += ["Dense"] if model.dense is not None else []
    names += ["Normalize"] if model.normalize else []
    write_modules(directory, names, model.prompts, model.default_prompt_name)
    flags = {
        key: mode == model.pooling_mode for key, mode in _POOLING_KEYS.items()
    }
    # Versions before 6 read a name for each pooling, and later ones do, too.
    _write_json(
        _make_folder(directory, "1_Pooling") / "config.json",
        {"word_embedding_dimension": width, **flags},
    )
    if model.dense is not None:
        _write_dense(_make_folder(directory, "2_Dense"), model.dense)
    _write_json(
        directory / _LENGTH_FILE,
        {"max_seq_length": model.sequence_length, "do_lower_case": False},
    )


def write_modules(
    directory: Path,
    names: Sequence[str],
    prompts: Mapping[str, str],
    default_prompt_name: str | None,
) -> None:
    """Writes the list of modules, a folder for each, and the prompts."""
    entries = []
    for number, name in enumerate(names):
        place = f"{number}_{name}" if number else ""
        _make_folder(directory, place)
        entries.append(
            {
                "idx": number,
                "name": str(number),
                "path": place,
                "type": f"sentence_transformers.models.{name}",
            }
        )
    _write_json(directory / MODULES_FILE, entries)
    _write_json(
        directory / _PROMPTS_FILE,
        {
            "prompts": dict(prompts),
            "default_prompt_name": default_prompt_name,
        },
    )


def _write_dense(directory: Path, dense: DenseWeights) -> None:
    width, dimension = dense.kernel.shape
    _write_json(
        directory / "config.json",
        {
            "in_features": width,
            "out_features": dimension,
            "bias": True,
            "activation_function": _ACTIVATION_CLASSES[dense.activation],
        },
    )
    tensors = (dense.kernel.T, dense.bias)
    save_file(
        {
            name: np.ascontiguousarray(tensor, np.float32)
            for name, tensor in zip(_LINEAR, tensors, strict=True)
        },
        directory / SINGLE_FILE,
        metadata={"format": "pt"},
    )


def _make_folder(directory: Path, name: str) -> Path:
    folder = directory / name
    folder.mkdir(exist_ok=True)
    return folder


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, "utf-8")
