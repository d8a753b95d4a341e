"""What a teacher says about the task that it is for."""

import dataclasses
from pathlib import Path

import tokenizers

from keras_distil import data, models
from keras_distil.evaluation.labels import class_columns, plain_name
from keras_distil.models.checkpoints import read_config
from keras_distil.models.embedded import EMBEDDED, EMBEDDED_BASE
from keras_distil.models.hub import HUB_SCHEME
from keras_distil.models.labels import labels_of
from keras_distil.models.model_paths import check_model_path, is_preset
from keras_distil.models.presets import fetch_preset
from keras_distil.models.shape import EncoderShape, encoder_shape
from keras_distil.models.task_model import kind_of
from keras_distil.planning.proposal.found import FoundTask
from keras_distil.runs.corpus import read_tokenizer
from keras_distil.utils import disk

# A recipe's lengths have this limit, whatever the model.
_MOST_POSITIONS = 512


@dataclasses.dataclass(frozen=True)
class FoundTeacher:
    """A teacher, of which little more than the configuration was read.

    Attributes:
        source: as in a recipe.
        kind: kind of the task that it is fine-tuned for; None for an encoder.
        labels: names of its outputs; None if they have no names.
        shape: its sizes.
        most_tokens: tokens of the longest text that it can read.
        tokenizer: its tokenizer.
    """

    source: str
    kind: str | None
    labels: tuple[str, ...] | None
    shape: EncoderShape
    most_tokens: int
    tokenizer: tokenizers.Tokenizer


def find_teacher(source: str) -> FoundTeacher:
    """Looks at a teacher.

    Args:
        source: "embedded", a folder, `hf://organisation/name`, or a KerasHub
            preset by name.

    Raises:
        FileNotFoundError: if there is no such teacher.
        ValueError: if it is not supported, or has no tokenizer beside it.
        ConnectionError: if it cannot be downloaded.
        ImportError: if the embedded teacher is not installed.
    """
    directory = _directory_of(source)
    shape, _ = encoder_shape(directory)
    kind, labels = _task_of(directory)
    limit = data.read_max_length(directory) or _MOST_POSITIONS
    return FoundTeacher(
        source=source,
        kind=kind,
        labels=labels,
        shape=shape,
        most_tokens=min(limit, shape.max_sequence_length, _MOST_POSITIONS),
        tokenizer=read_tokenizer(directory),
    )


def _directory_of(source: str) -> Path:
    """Returns the folder of a teacher, downloaded or installed."""
    if source in (EMBEDDED, EMBEDDED_BASE) or source.startswith(HUB_SCHEME):
        path = models.checkpoint_directory(source)
        if path is not None:
            return path
    preset = fetch_preset(source)
    if preset is not None:
        return preset
    path = Path(source).expanduser()
    check_model_path(path)
    if not path.is_dir():
        raise ValueError(
            "`--teacher` must have its tokenizer beside it: embedded, a folder "
            f"of Hugging Face or KerasHub, {HUB_SCHEME}organisation/name, or a "
            "KerasHub preset. "
            f"Received: {source}. Export the model to such a folder."
        )
    return path


def _task_of(directory: Path) -> tuple[str | None, tuple[str, ...] | None]:
    """Returns the kind and the labels of a fine-tuned model."""
    if is_preset(directory):
        path = directory / "task.json"
        name = disk.read_json(path).get("class_name") if path.is_file() else ""
        is_encoder = not name or "MaskedLM" in str(name)
    else:
        is_encoder = read_config(directory).task is None
    if is_encoder:
        return None, None
    model = models.load_task_model(directory)
    return kind_of(model), labels_of(model)


def match_labels(found: FoundTask, teacher: FoundTeacher) -> FoundTask:
    """Puts the labels of a file into the order of a teacher's outputs.

    Args:
        found: the task in the file.
        teacher: the teacher.

    Returns:
        The task with all labels of the teacher, spelt as in the file.

    Raises:
        ValueError: if the teacher is for another kind of task, or has no output
            for a label of the file.
    """
    if teacher.kind is None:
        return found
    if teacher.kind != found.kind:
        raise ValueError(
            f"`--teacher` must be a model for a {found.kind}, which the file "
            f"holds. Received: {teacher.source}, a model for a {teacher.kind}."
        )
    if teacher.labels is None or found.labels is None:
        return found
    spelt = {plain_name(name): name for name in found.labels}
    labels = tuple(spelt.pop(plain_name(name), name) for name in teacher.labels)
    # Labels without an output; raises with their names.
    class_columns(teacher.labels, [*labels, *spelt.values()], "the file")
    return dataclasses.replace(found, labels=labels)
