"""KerasHub presets: their family, whether it is supported, reading them."""

import contextlib
import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import keras_hub
from keras_hub.models import Backbone, Task

from keras_distil.models.architectures import FAMILIES, titles
from keras_distil.models.hub import HUB_SCHEME
from keras_distil.models.keras_archive import (
    ClaimedSizeError,
    check_preset,
    check_sizes,
)
from keras_distil.models.weights import seeded_build
from keras_distil.utils import private_api
from keras_distil.utils.disk import read_json
from keras_distil.utils.error_text import first_line

_ENCODERS = tuple(family.hub.encoder for family in FAMILIES.values())
# Not their subclasses in KerasHub, which are families of their own.
_SUPPORTED = {encoder for x in FAMILIES.values() for encoder in x.encoders}
# Clients whose errors share no class, except for errors of the system.
_CLIENTS = ("httpcore", "httpx", "huggingface_hub", "kagglehub", "kagglesdk")
_KAGGLE_SCHEME = "kaggle://"
# The names of the classes, as `export_preset` writes them beside a preset:
# KerasHub's own classifiers have no place for them.
LABELS_FILE = "labels.json"
_VOCABULARIES = ("vocabulary.txt", "vocabulary.json", "merges.txt")
# The address of KerasHub's presets, with or without a version.
_HANDLE = re.compile(r"(?:kaggle://keras/\w+/keras/|hf://keras/)([\w.-]+).*")


def known_presets() -> set[str]:
    """Returns the names of all presets of supported families."""
    return set().union(*(encoder.presets for encoder in _ENCODERS))


def check_family(source: str) -> None:
    """Refuses presets of families that are not supported.

    Nothing is downloaded: KerasHub lists its presets.

    Args:
        source: a preset's name, its handle on Kaggle or Hugging Face, or a
            local directory with a preset. Anything else passes.

    Raises:
        ValueError: naming the family.
    """
    encoder = _find_encoder(source)
    if encoder is not None and encoder not in _SUPPORTED:
        examples = [repr(x.example_preset) for x in FAMILIES.values()]
        lists = [f"`{x.__name__}.presets`" for x in _ENCODERS]
        raise ValueError(
            f"`{source}` is a KerasHub preset of "
            f"{encoder.__name__.removesuffix('Backbone')}, a family that is "
            f"not supported. Supported are {titles()}, such as "
            f"{' and '.join(examples)}; {' and '.join(lists)} in "
            "`keras_hub.models` list all. docs/add_a_family.md tells how to "
            "add one."
        )


def nearest_preset(name: str) -> str:
    """Suggests the supported preset that was most likely meant.

    Returns "" if there is none, or a preset of another family is nearer.
    """
    names = known_presets()
    near = difflib.get_close_matches(name, Backbone.presets, n=1)
    return f" Did you mean {near[0]!r}?" if near and near[0] in names else ""


def is_of_network(error: BaseException | None) -> bool:
    """Checks whether an error comes from a download, not from its files."""
    # KerasHub raises its own errors while it handles those of clients.
    while error is not None:
        module = type(error).__module__.partition(".")[0]
        if isinstance(error, OSError) or module in _CLIENTS:
            return True
        error = error.__context__
    return False


def read_preset(
    base: type[Task],
    source: str,
    *,
    accepted: str,
    dtype: str | keras.DTypePolicy | None,
    seed: int,
    **options: Any,
) -> Any:
    """Reads a KerasHub preset of a supported family as a task's model.

    Args:
        base: KerasHub's class of the task.
        source: a preset's name, handle or folder.
        accepted: the sources that the caller takes, for the message.
        dtype: as for `load_teacher`.
        seed: int, determines new weights.
        **options: arguments of `from_preset`.

    Raises:
        ValueError: if there is no such preset, or it is broken.
        ConnectionError: if a download fails.
    """
    is_remote = source.startswith((_KAGGLE_SCHEME, HUB_SCHEME))
    is_local = Path(source).is_dir()
    if not is_remote and not is_local and source not in known_presets():
        raise ValueError(
            f"`source` must be {accepted}. Received: {source!r}, which is "
            "neither an existing path nor a known preset."
            f"{nearest_preset(source)}"
        )
    if source.startswith(HUB_SCHEME) and "@" in source:
        raise ValueError(
            "KerasHub takes presets on the Hugging Face Hub only from their "
            f"main branch: remove the revision. Received: {source!r}."
        )
    if is_local:
        check_family(source)
        check_preset(Path(source), read_json(Path(source) / "config.json"))
    with _reporting(source):
        if is_remote:
            _check_remote_preset(source)
        with seeded_build(seed):
            return base.from_preset(source, dtype=dtype, **options)


def is_named(source: str) -> bool:
    """Checks whether a source is a preset by its name or handle on Kaggle."""
    if Path(source).exists():
        return False
    return source.startswith(_KAGGLE_SCHEME) or source in known_presets()


def fetch_preset(source: str) -> Path | None:
    """Finds the folder of a preset that is given by name.

    What is not in the cache of KerasHub's clients is downloaded.

    Args:
        source: a preset's name or handle on Kaggle, or anything else.

    Returns:
        The local folder; None if it is something else.

    Raises:
        ValueError: if its family is not supported, or there is no such preset.
        ConnectionError: if a download fails.
    """
    folder = fetch_config(source)
    if folder is not None:
        fetch_files(source)
    return folder


def fetch_config(source: str) -> Path | None:
    """As `fetch_preset`, with nothing but the `config.json`."""
    if not Path(source).exists():
        check_family(source)
    if not is_named(source):
        return None
    files = private_api.preset_files()
    with _reporting(source):
        return Path(files.get_file(source, files.CONFIG_FILE)).parent


def fetch_files(source: str) -> None:
    """Downloads what a preset of a task has beside its `config.json`.

    Args:
        source: a preset's name, or its handle on Kaggle or Hugging Face.

    Raises:
        ValueError: if there is no such preset.
        ConnectionError: if a download fails.
    """
    files = private_api.preset_files()
    assets = files.TOKENIZER_ASSET_DIR
    with _reporting(source):
        for name in (
            files.MODEL_WEIGHTS_FILE,
            files.TASK_CONFIG_FILE,
            files.TASK_WEIGHTS_FILE,
            files.TOKENIZER_CONFIG_FILE,
            *(f"{assets}/{name}" for name in _VOCABULARIES),
            LABELS_FILE,
        ):
            # A preset need not have all of them.
            files.check_file_exists(source, name)


@contextlib.contextmanager
def _reporting(source: str) -> Iterator[None]:
    """Translates the errors of KerasHub and its clients into one line."""
    try:
        yield
    except ClaimedSizeError:
        raise
    # The download clients' errors share no class.
    except Exception as error:
        if Path(source).is_dir() or not is_of_network(error):
            raise ValueError(
                f"The preset `{source}` cannot be loaded: {first_line(error)}"
            ) from error
        raise ConnectionError(
            f"Could not load the preset {source!r}: {first_line(error)} Check "
            "the name and the network, or pass a local directory."
        ) from error


def preset_is_for(base: type[Task], source: str) -> bool:
    """Checks whether a preset was saved as a model of a task."""
    files = private_api.preset_files()
    if not files.check_file_exists(source, "task.json"):
        return False
    task = files.load_json(source, "task.json")
    return issubclass(files.check_config_class(task), base)


def _check_remote_preset(source: str) -> None:
    """Raises ValueError if a preset claims more weights than it has."""
    preset_utils = private_api.preset_files()

    try:
        config, weights = (
            Path(preset_utils.get_file(source, name))
            for name in (
                preset_utils.CONFIG_FILE,
                preset_utils.MODEL_WEIGHTS_FILE,
            )
        )
    # If a file cannot be fetched, `from_preset` raises the error.
    except Exception:
        return
    check_sizes(Path(source), read_json(config), weights.stat().st_size)


def _find_encoder(source: str) -> type[Backbone] | None:
    """Returns the encoder class of a preset; None if it is not one."""
    if Path(source).is_dir():
        registered = read_json(Path(source) / "config.json")["registered_name"]
        encoder = keras.saving.get_registered_object(str(registered))
        return encoder if _is_backbone(encoder) else None
    handle = _HANDLE.fullmatch(source)
    name = handle[1] if handle else source
    encoders = [
        encoder
        for encoder in vars(keras_hub.models).values()
        if _is_backbone(encoder) and name in encoder.presets
    ]
    # A class also lists the presets of its subclasses.
    return min(encoders, key=lambda x: len(x.presets), default=None)


def _is_backbone(registered: object) -> bool:
    return (
        isinstance(registered, type)
        and issubclass(registered, Backbone)
        and registered is not Backbone
    )
