"""Finds, before any work is done, problems that would end a run late."""

import importlib.util

from keras_distil import config, data
from keras_distil.config import data_section
from keras_distil.data.corpus.text_files import CorpusReport
from keras_distil.models.hub import HUB_SCHEME
from keras_distil.models.shape import (
    EncoderShape,
    encoder_shape,
    student_shape,
)
from keras_distil.runs.checks import (
    check_cut_sizes,
    check_layers,
    check_lengths,
    check_tokenizer_lengths,
    check_vocabulary,
    teacher_shape,
)
from keras_distil.runs.corpus import load_corpus, load_tokenizer, make_sources
from keras_distil.runs.embeddings import preflight as embedding_inputs
from keras_distil.runs.given_files import check_given_files, given_students
from keras_distil.runs.more_text import read_unlabelled_files
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.tasks import read_task, task_root

# Packages that an export format needs beyond the package's requirements.
_FORMAT_PACKAGES = {"onnx": ("onnx", "onnxruntime")}
_FROM_TFDS = "The tasks come from TFDS: a run would download what it lacks."


def check_formats(recipe: config.Recipe) -> None:
    """Raises ImportError if an export format needs a missing package."""
    for name in recipe.export.formats if recipe.export is not None else ():
        packages = _FORMAT_PACKAGES.get(name, ())
        absent = [x for x in packages if importlib.util.find_spec(x) is None]
        if absent:
            raise ImportError(
                f"`export.formats` has {name}, which needs "
                f"{' and '.join(absent)}. Install it with: pip install "
                f"'keras-distil[{name}]'."
            )


def open_inputs(recipe: config.Recipe) -> list[str]:
    """Opens a run's inputs; downloads nothing but a `config.json`.

    Args:
        recipe: a checked recipe.

    Returns:
        What the user should know, one line each.

    Raises:
        ValueError: if an input is invalid or does not fit the others.
        OSError: if something cannot be read.
        ImportError: if a package is missing.
    """
    check_formats(recipe)
    check_given_files(recipe)
    if recipe.distill is not None and recipe.distill.embeds:
        embedding_inputs.open_models(recipe)
        return [*_open_text(recipe), *embedding_inputs.open_files(recipe)]
    teacher, _ = teacher_shape(recipe)
    check_lengths(recipe, teacher.max_sequence_length)
    made = recipe.distill is not None or recipe.makes("student")
    if made and recipe.student is not None:
        student = student_shape(teacher, **recipe.student.shape())
        check_layers(recipe, teacher, student)
    _open_students(recipe, teacher)
    if not recipe.teacher.tokenizer_source.startswith(HUB_SCHEME):
        load_tokenizer(recipe)
        check_tokenizer_lengths(recipe)
    lines = []
    if recipe.distill is not None or recipe.teacher.train is not None:
        lines += _open_text(recipe)
    if recipe.finetune is not None:
        lines += _open_tasks(recipe)
    return lines


def _open_students(recipe: config.Recipe, teacher: EncoderShape) -> None:
    for source in given_students(recipe).values():
        shape, _ = encoder_shape(source)
        check_vocabulary(source, shape.vocabulary_size, teacher.vocabulary_size)
        check_layers(recipe, teacher, shape)
        check_lengths(
            recipe, shape.max_sequence_length, f"the student in {source}"
        )
        check_cut_sizes(recipe, source)


def _open_text(recipe: config.Recipe) -> list[str]:
    """Opens a prepared corpus, or reads the beginning of every text file."""
    if recipe.data.prepared is not None:
        if not recipe.teacher.tokenizer_source.startswith(HUB_SCHEME):
            load_corpus(recipe)
        return []
    report, whole, lines = CorpusReport(), True, []
    for settings, source in zip(
        recipe.data.sources, make_sources(recipe), strict=True
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
    """Reads the tasks' files, and those without labels."""
    settings = finetune_section(recipe)
    own = {name: settings.own_task(name) for name in settings.task_names}
    lines = []
    for name, entry in own.items():
        read_unlabelled_files(recipe, name)
        if entry is None:
            is_file = task_root(recipe) is not None
        else:
            is_file = entry.tfds is None
        if is_file:
            lines += read_task(recipe, name)
        elif _FROM_TFDS not in lines:
            lines.append(_FROM_TFDS)
    return lines
