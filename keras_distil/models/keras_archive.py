"""Checks of `.keras` files and KerasHub presets before Keras loads them.

Keras builds the model first and then reads its weights. A damaged or hostile
configuration could make it use up all memory, or unpack a small archive into
an enormous one.
"""

import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import keras

from keras_distil.utils.error_text import first_line

_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
# Keras stores members uncompressed. The slack allows for empty HDF5 space.
_MOST_EXPANSION = 20
_SLACK_BYTES = 2**20
# Keras identifies objects that are there twice by a number.
_NO_SIZES = ("seed", "shared_object_id")
# Each of these is a side of a matrix whose other side is the width.
_SIDES = (
    "vocabulary_size",
    "intermediate_dim",
    "max_sequence_length",
    "num_segments",
    "num_layers",
)


class ClaimedSizeError(ValueError):
    """A configuration claims more weights than the file holds."""


def check_archive(
    path: Path, base: type[keras.Model], what: str = "masked-LM"
) -> dict[str, Any]:
    """Raises ValueError if a `.keras` file must not be loaded.

    All code that reads such a file calls this first.

    Args:
        path: a file that is a zip archive.
        base: the class whose subclasses are accepted.
        what: the kind of model, for the message.

    Returns:
        The configuration of the model.

    Raises:
        ValueError: if the archive is damaged, has members outside of its
            folder or that unpack to more than they can hold, or does not hold
            a model of that class whose size matches its weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            refusal = _find_refusal(path, members)
            config = {} if refusal else json.loads(archive.read(_CONFIG))
            weights_bytes = archive.getinfo(_WEIGHTS).file_size
    except PermissionError:
        raise
    # The module raises its own class and half a dozen others, depending on
    # the damage.
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        KeyError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"`{path}` is damaged or truncated: {first_line(error)} Copy or "
            "save it again."
        ) from error
    if refusal:
        raise ValueError(refusal)
    _check_class(path, config, base, what)
    check_sizes(path, config, weights_bytes)
    return config


def load_archive(
    path: Path, base: type[keras.Model], what: str = "masked-LM"
) -> keras.Model:
    """Checks a `.keras` file and loads it without running code from it.

    Args:
        path: a file that is a zip archive.
        base: the class whose subclasses are accepted.
        what: the kind of model, for the message.

    Raises:
        ValueError: as for `check_archive`, or if Keras cannot load it.
    """
    check_archive(path, base, what)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras, h5py and zipfile raise all kinds of errors for a file that has
    # been altered.
    except Exception as error:
        raise ValueError(
            f"`{path}` cannot be loaded: {first_line(error)}"
        ) from error


def check_preset(directory: Path, config: dict[str, Any]) -> None:
    """Raises ValueError if a preset claims more weights than it has."""
    weights = sum(path.stat().st_size for path in directory.glob("*.h5"))
    check_sizes(directory, config, weights)


def check_sizes(path: Path, config: Any, weights_bytes: int) -> None:
    """Raises ValueError if a configuration needs more weights than stored.

    Args:
        path: the file, for the message.
        config: nested dicts and lists.
        weights_bytes: int, size of the file of weights.

    Raises:
        ValueError: naming the first size that is too large.
    """
    most = weights_bytes + _SLACK_BYTES
    for node in _mappings(config):
        width = node.get("hidden_dim")
        for name, value in node.items():
            if name in _NO_SIZES or type(value) is not int:
                continue
            factor = width if name in _SIDES and type(width) is int else 1
            if abs(value) * max(abs(factor), 1) > most:
                raise ClaimedSizeError(
                    f"`{path}` is damaged: its configuration has "
                    f"{str(name)[:40]}={value}, more than its weights of "
                    f"{weights_bytes} bytes can hold."
                )


def _find_refusal(path: Path, members: list[zipfile.ZipInfo]) -> str | None:
    """Says why an archive must not be unpacked; None if it may."""
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in str(name):
            return (
                f"`{path}` is refused: its member {member.filename[:60]!r} "
                "would be unpacked outside of its folder."
            )
    unpacked = sum(member.file_size for member in members)
    if unpacked > _MOST_EXPANSION * path.stat().st_size + _SLACK_BYTES:
        return (
            f"`{path}` is refused: its {path.stat().st_size} bytes would be "
            f"unpacked to {unpacked}."
        )
    return None


def _check_class(
    path: Path, config: Any, base: type[keras.Model], what: str
) -> None:
    entry = config if isinstance(config, dict) else {}
    name = entry.get("registered_name")
    registered = None
    if isinstance(name, str):
        registered = keras.saving.get_registered_object(name)
    if not (isinstance(registered, type) and issubclass(registered, base)):
        raise ValueError(
            f"`{path}` must hold a `keras_hub` {what} model. "
            f"Received: {str(entry.get('class_name'))[:60]}."
        )


def _mappings(node: Any) -> Any:
    """Yields every dict in `node`, at any depth."""
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
