"""KerasHub presets of models that were fine-tuned on a task."""

import json
from pathlib import Path
from typing import Any

import keras
from keras_hub.models import Task, TextClassifier

from keras_distil.models import heads
from keras_distil.models.architectures import family_of
from keras_distil.models.keras_archive import check_preset
from keras_distil.models.labels import Labelled, check_labels
from keras_distil.models.origin import folder_of, remember_folder
from keras_distil.models.presets import LABELS_FILE, check_family
from keras_distil.models.weights import copy_weights, seeded_build
from keras_distil.utils import disk
from keras_distil.utils.error_text import first_line

# Arguments that KerasHub's classifiers have beside the encoder.
_OPTIONS = ("num_classes", "hidden_dim", "dropout", "activation", "name")


def load_task_preset(directory: Path) -> Task:
    """Loads the model of a task from a preset's folder.

    A classifier of KerasHub's own class becomes one that keeps the names of its
    classes, with the same encoder, weights and outputs; but a sigmoid at its
    end is left out, so that its outputs are the logits of labels that do not
    exclude each other.

    Args:
        directory: the folder, as `save_to_preset` writes it. Names of the
            classes are read from `labels.json` in it, a list in the order of
            the outputs.

    Raises:
        ValueError: if it holds another kind of model, or is damaged.
    """
    check_family(str(directory))
    check_preset(directory, disk.read_json(directory / "config.json"))
    task_class: Any = _task_class(directory)
    try:
        model = task_class.from_preset(str(directory), preprocessor=None)
    # Keras and h5py raise all kinds of errors for altered files.
    except Exception as error:
        raise ValueError(
            f"The preset `{directory}` cannot be loaded: {first_line(error)}"
        ) from error
    if isinstance(model, TextClassifier) and not isinstance(model, Labelled):
        model = _with_labels(model, directory)
    remember_folder(model, directory)
    return model


def leaves_kind_open(model: Task) -> bool:
    """Whether a classifier comes from a preset that does not say its kind.

    KerasHub's classifiers are the same for classes and for labels that do not
    exclude each other, unless they end in a softmax or in sigmoids.

    Args:
        model: any model of a task.
    """
    folder = folder_of(model)
    if folder is None or not isinstance(model, TextClassifier):
        return False
    if model.num_classes == 1:
        return False
    if getattr(model, "is_multi_label", False) or not heads.is_linear(model):
        return False
    path = folder / "task.json"
    name = disk.read_json(path).get("registered_name") if path.is_file() else ""
    return str(name).startswith("keras_hub>")


def _task_class(directory: Path) -> type[Task]:
    path = directory / "task.json"
    name = None
    if path.is_file():
        name = disk.read_json(path).get("registered_name")
    registered = keras.saving.get_registered_object(str(name))
    if isinstance(registered, type) and issubclass(registered, Task):
        return registered
    what = f"task.json of {name}" if name else "an encoder without a head"
    raise ValueError(
        f"The preset `{directory}` must hold a model that was fine-tuned on a "
        f"task. Received: {what}."
    )


def _with_labels(model: TextClassifier, directory: Path) -> Task:
    """Builds the same classifier of the class that has labels."""
    family = family_of(model)
    if family is None:
        return model
    config = model.get_config()
    options = {name: config[name] for name in _OPTIONS if name in config}
    more: dict[str, Any] = {"labels": _read_labels(directory, model)}
    if model.activation is keras.activations.sigmoid:
        del options["activation"]
        is_single = model.num_classes == 1
        more |= {"is_probability": is_single, "is_multi_label": not is_single}
    with seeded_build(0):
        made = family.text_classifier(model.backbone, **options, **more)
    copy_weights(model, made)
    return made


def _read_labels(
    directory: Path, model: TextClassifier
) -> tuple[str, ...] | None:
    path = directory / LABELS_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(disk.read_bounded(path, disk.DATA_JSON_BYTES))
        if isinstance(found, list):
            return check_labels(found, model.num_classes)
    except (ValueError, TypeError, RecursionError):
        pass
    raise ValueError(
        f"`{path}` must be a list of {model.num_classes} names, one for each "
        "output of the preset, each once. Correct it, or remove it: outputs "
        "without names are taken in the order of the labels."
    )
