"""Files that a recipe takes from earlier runs, checked without TensorFlow."""

import re
from pathlib import Path

from keras_distil import config
from keras_distil.config import shipped
from keras_distil.runs.earlier_runs import check_present_name

# Where runs are written without `--output`.
RUNS = Path("saved_models")


def given_students(recipe: config.Recipe) -> dict[str, str]:
    """Returns the sources of students distilled elsewhere, by row.

    Rows that are cut from the teachers of all tasks are left out.
    """
    settings = recipe.student
    if settings is None or recipe.finetune is None:
        return {}
    sources = {
        "student": settings.source,
        "baseline": settings.baseline_source,
    }
    return {
        row: source
        for row, source in sources.items()
        if source is not None
        and row in recipe.finetune.rows
        and not recipe.makes(row)
    }


def check_given_files(recipe: config.Recipe) -> None:
    """Raises FileNotFoundError if a file from an earlier run is missing.

    If a shipped recipe writes it, the message has the command that makes it.
    """
    students = given_students(recipe)
    if "baseline" in students:
        check_present_name("student.baseline_source", students["baseline"])
        _check_file("student.baseline_source", students["baseline"])
    if "student" in students:
        _check_file("student.source", students["student"])
    source = recipe.teacher.task_source
    if source is not None and not _has_name(source):
        if not Path(source).exists():
            raise FileNotFoundError(
                f"`teacher.task_source` is {source}, but there is no such file "
                "or folder."
            )
    for predictions in recipe.teacher.predictions or ():
        if not Path(predictions).is_file():
            raise FileNotFoundError(
                f"`teacher.predictions` is {predictions}, but there is no such "
                "file."
            )
    train = recipe.teacher.train
    if train is not None and train.initial_adapter is not None:
        _check_file("teacher.train.initial_adapter", train.initial_adapter)


def _has_name(source: str) -> bool:
    """Whether a source may be a name on a hub; only KerasHub knows its own."""
    if source.startswith(("hf://", "kaggle://")):
        return True
    is_file = source.endswith((".keras", "."))
    return re.fullmatch(r"\w[\w.]*", source) is not None and not is_file


def _check_file(key: str, source: str) -> None:
    path = Path(source)
    if path.is_file():
        return
    maker = path.parent
    if maker.parent == RUNS and maker.name in shipped.list_names():
        raise FileNotFoundError(
            f"`{key}` is {source}, which is missing: it comes from the recipe "
            f"{maker.name}. Run that one first: "
            f"{shipped.read_command(maker.name)}"
        )
    # Other sources are folders, or models on the Hugging Face Hub.
    if path.suffix in (".keras", ".safetensors"):
        raise FileNotFoundError(
            f"`{key}` is {source}, but there is no such file."
        )
