"""KerasHub presets: their family, and whether it is supported."""

import difflib
import re
from pathlib import Path

import keras
import keras_hub
from keras_hub.models import Backbone

from keras_distil.models.architectures import FAMILIES, titles
from keras_distil.utils.disk import read_json

_ENCODERS = tuple(family.hub.encoder for family in FAMILIES.values())
# Not their subclasses in KerasHub, which are families of their own.
_SUPPORTED = {encoder for x in FAMILIES.values() for encoder in x.encoders}
# Clients whose errors share no class, except for errors of the system.
_CLIENTS = ("httpcore", "httpx", "huggingface_hub", "kagglehub", "kagglesdk")
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
