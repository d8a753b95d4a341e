"""The licences of what a model was made from, for its card."""

import importlib.metadata
from collections.abc import Iterator

from keras_distil import config, models
from keras_distil.config import data_section
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.utils.markdown import code, escape
from keras_distil.utils.private_text import shown_text

_UNKNOWN = "not stated"
# How much of a README is read to find its front matter, and how much of a
# licence is shown.
_README_CHARACTERS = 2**16
_LICENCE_CHARACTERS = 100


def licence_lines(recipe: config.Recipe) -> Iterator[str]:
    """Yields Markdown lines on the licences of teacher, data and tasks."""
    teacher = shown_text(recipe.teacher.license or teacher_licence(recipe))
    name = code(shown_text(recipe.teacher.encoder_source))
    yield f"Teacher {name}: {escape(teacher)}."
    if recipe.data.license is not None:
        yield f"Data: {escape(shown_text(recipe.data.license))}."
        return
    for source in recipe.data.sources:
        if isinstance(source, data_section.DocumentationSource):
            for package in source.packages:
                said = escape(_package_licence(package))
                yield f"Docstrings of {package}: {said}."
        elif isinstance(source, data_section.FilesSource):
            files = code(shown_text(source.pattern))
            yield f"The files {files}: {_UNKNOWN} in the recipe."
        else:
            yield f"{code(source.name)}: see its page in TensorFlow Datasets."
    if recipe.finetune is not None:
        yield from _task_licences(recipe.finetune)


def _task_licences(settings: FineTuneSection) -> Iterator[str]:
    known = [x for x in settings.task_names if settings.own_task(x) is None]
    if known:
        yield (
            f"{', '.join(known)}: each has terms of its own; "
            "see gluebenchmark.com and the data sets' pages."
        )
    for name in settings.task_names:
        if name not in known:
            yield f"{name}: {_UNKNOWN} in the recipe."


def teacher_licence(recipe: config.Recipe) -> str:
    """Licence from the front matter of the checkpoint's `README.md`.

    Only a short text on a single line is shown, and nothing is downloaded for
    it: a finished run needs no network.
    """
    directory = models.local_directory(recipe.teacher.encoder_source)
    path = directory / "README.md" if directory is not None else None
    if path is None or not path.is_file():
        return _UNKNOWN
    with path.open(encoding="utf-8", errors="replace") as file:
        begin = file.read(_README_CHARACTERS)
    _, mark, rest = begin.partition("---\n")
    front, end, _ = rest.partition("\n---")
    if not mark or not end:
        return _UNKNOWN
    try:
        values = config.read_yaml(front, where=str(path))
    except config.RecipeError:
        return _UNKNOWN
    said = values.get("license") if isinstance(values, dict) else None
    if not isinstance(said, str) or not said.strip():
        return _UNKNOWN
    said = said.strip()
    if len(said) > _LICENCE_CHARACTERS or not said.isprintable():
        return _UNKNOWN
    return said


def _package_licence(package: str) -> str:
    distribution = importlib.metadata.packages_distributions().get(package)
    if not distribution:
        return _UNKNOWN
    about = importlib.metadata.metadata(distribution[0])
    fields = about.json
    said = str(fields.get("license_expression") or fields.get("license") or "")
    # Some packages put the full licence text there.
    first = said.strip().splitlines()[0] if said.strip() else ""
    if first and len(first) < 60:
        return first
    classifiers = about.get_all("Classifier") or []
    names = [
        each.rpartition(" :: ")[2]
        for each in classifiers
        if each.startswith("License :: ")
    ]
    return ", ".join(names) or _UNKNOWN
