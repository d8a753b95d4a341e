"""What would end a run late, found before it has cost anything."""

import importlib.util
from pathlib import Path

from keras_distil import config, data
from keras_distil.config import data_section
from keras_distil.data.corpus.text_files import CorpusReport
from keras_distil.models.hub import HUB_SCHEME
from keras_distil.models.shape import EncoderShape, encoder_shape
from keras_distil.runs import build

# What a format of an export needs beside the package's own requirements.
_FORMAT_PACKAGES = {"onnx": ("onnx", "onnxruntime")}


def check_lengths(
    recipe: config.Recipe, positions: int, model: str = "the teacher"
) -> None:
    """Raises ValueError if a length of the recipe is beyond a model's table.

    Args:
        recipe: the recipe.
        positions: rows of the model's position embeddings.
        model: what the message calls it.
    """
    for key, length in _lengths(recipe).items():
        if length > positions:
            most = f"[{positions}]" if key in _LISTS else f"{positions}"
            raise ValueError(
                f"`{key}` is {length}, but {model} has {positions} "
                f"positions. Set it to {positions} or below: --set "
                f"{key}={most}."
            )


_LISTS = ("export.lengths",)


def _lengths(recipe: config.Recipe) -> dict[str, int]:
    """By key, the tokens of the sequences that a run will make."""
    lengths: dict[str, int] = {}
    trains = recipe.distill is not None or recipe.finetune is not None
    if recipe.distill is not None or recipe.teacher.train is not None:
        lengths["data.sequence_length"] = recipe.data.sequence_length
    if recipe.finetune is not None:
        lengths["finetune.max_length"] = recipe.finetune.max_length
    if trains:
        lengths["evaluate.latency_length"] = recipe.evaluate.latency_length
    if trains and recipe.export is not None:
        if recipe.export.max_length is not None:
            lengths["export.max_length"] = recipe.export.max_length
        if recipe.export.lengths is not None:
            lengths["export.lengths"] = max(recipe.export.lengths)
    return lengths


def check_formats(recipe: config.Recipe) -> None:
    """Raises ImportError if a format to export needs an absent package."""
    for name in recipe.export.formats if recipe.export is not None else ():
        packages = _FORMAT_PACKAGES.get(name, ())
        absent = [x for x in packages if importlib.util.find_spec(x) is None]
        if absent:
            raise ImportError(
                f"`export.formats` has {name}, which needs "
                f"{' and '.join(absent)}. Install it with: pip install "
                f"'keras-distil[{name}]'."
            )


def check_files(recipe: config.Recipe) -> None:
    """Raises an error if a file that a run reads late is not there."""
    train = recipe.teacher.train
    if train is None or train.initial_adapter is None:
        return
    if not Path(train.initial_adapter).is_file():
        raise FileNotFoundError(
            "`teacher.train.initial_adapter` is "
            f"{train.initial_adapter}, but there is no such file."
        )


def open_inputs(recipe: config.Recipe) -> list[str]:
    """Opens what a run would read; downloads nothing but a `config.json`.

    Args:
        recipe: a checked recipe.

    Returns:
        What the user should know, one line each.

    Raises:
        ValueError: if something does not fit, or is not as it must be.
        OSError: if something cannot be read.
        ImportError: if a package is missing.
    """
    check_formats(recipe)
    check_files(recipe)
    teacher, _ = encoder_shape(recipe.teacher.source)
    check_lengths(recipe, teacher.max_sequence_length)
    _open_students(recipe, teacher)
    if not recipe.teacher.source.startswith(HUB_SCHEME):
        build.tokenizer(recipe)
    lines = []
    if recipe.distill is not None or recipe.teacher.train is not None:
        lines += _open_text(recipe)
    if recipe.finetune is not None:
        lines += _open_tasks(recipe)
    return lines


def _open_students(recipe: config.Recipe, teacher: EncoderShape) -> None:
    settings = recipe.student
    if settings is None or recipe.finetune is None:
        return
    for source in (settings.source, settings.undistilled_source):
        if source is None:
            continue
        shape, _ = encoder_shape(source)
        build.check_vocabulary(
            source, shape.vocabulary_size, teacher.vocabulary_size
        )
        check_lengths(
            recipe, shape.max_sequence_length, f"the student in {source}"
        )


def _open_text(recipe: config.Recipe) -> list[str]:
    """Opens a prepared corpus, or reads the beginning of every text file."""
    if recipe.data.prepared is not None:
        if not recipe.teacher.source.startswith(HUB_SCHEME):
            build.corpus(recipe)
        return []
    report, whole, lines = CorpusReport(), True, []
    for settings, source in zip(
        recipe.data.sources, build.sources(recipe), strict=True
    ):
        if isinstance(settings, data_section.TfdsSource):
            whole = False
            lines += _find_tfds(source)
        elif isinstance(source, data.TextFiles):
            whole &= source.read_beginnings(report)
        else:
            whole = False
            source.describe()
    if whole:
        report.lost.check(recipe.data.max_skipped_fraction)
    return lines + report.lost.warnings()


def _find_tfds(source: data.TfdsText) -> list[str]:
    if source.is_prepared():
        source.describe()
        return []
    return [
        f"The data set {source.name} is not on this machine: a run would "
        "download it."
    ]


def _open_tasks(recipe: config.Recipe) -> list[str]:
    """Reads the tasks' files."""
    root = build.task_root(recipe)
    if root is None:
        return ["The tasks come from TFDS: a run would download what it lacks."]
    for name in build.finetune_section(recipe).tasks:
        build.read_task(recipe, name)
    return []
