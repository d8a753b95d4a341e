"""Cost of a student's files, compared with its teacher and other runtimes."""

import collections
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_distil import config
from keras_distil.benchmark import chart, race
from keras_distil.export.report import REPORT_FILE
from keras_distil.models.load_model import load_model
from keras_distil.models.model_paths import check_model_path
from keras_distil.runs import run_folder
from keras_distil.runs.embeddings.teacher import load_embedder
from keras_distil.runs.environment import describe_environment
from keras_distil.runs.teacher import load_teacher
from keras_distil.utils import disk
from keras_distil.utils.progress import Progress

RESULT_FILE = "benchmark.json"
CHART_FILE = "benchmark.png"

# For each format's folder: the runtime that opens it, and the file that is
# shipped.
_FORMATS = {
    "saved_model": ("saved_model", ""),
    "litert_float32": ("litert", "student.tflite"),
    "litert_float16": ("litert", "student.tflite"),
    "litert_dynamic_int8": ("litert", "student.tflite"),
    "litert_full_int8": ("litert", "student.tflite"),
    "litert_int4": ("litert", "student.tflite"),
    "onnx": ("onnx", "model.onnx"),
}
# The same weights in other runtimes: the format that holds them, the file to
# open in it, the packages needed, and the precision.
_PEERS = {
    "pytorch": ("hugging_face", "", ("torch", "transformers"), "float32"),
    "pytorch_int8": (
        "hugging_face",
        "",
        ("torch", "transformers"),
        "dynamic_int8",
    ),
    "onnx_int8": (
        "onnx",
        "model.onnx",
        ("onnx", "onnxruntime"),
        "dynamic_int8",
    ),
}


def benchmark(
    recipe: config.Recipe,
    student: Path,
    *,
    progress: Progress,
) -> list[race.Measured]:
    """Measures a student, its exports and its teacher in one run.

    Writes `benchmark.json` and `benchmark.png` beside the student.

    Args:
        recipe: names the teacher; its `benchmark` section says what to measure.
        student: a `.keras` file, or a model's directory. Exports are looked up
            in the folder that contains it.
        progress: where to report to.

    Returns:
        The measurements.

    Raises:
        FileNotFoundError: if the student does not exist.
        ValueError: if it is not a model.
        OSError: if the results cannot be written.
    """
    if recipe.distill is not None and recipe.distill.embeds:
        raise ValueError(
            "`benchmark` measures masked-LM models and models of tasks. The "
            "table of a run of sentence embeddings has their latency and texts "
            "per second."
        )
    check_model_path(student)
    settings = recipe.benchmark or config.BenchmarkSection()
    folder = student.parent
    for line in _missing_peers(folder):
        progress.say(line)
    with tempfile.TemporaryDirectory() as temporary:
        file = _as_file(student, Path(temporary))
        contestants = [
            _teacher(recipe, student, Path(temporary)),
            race.Contestant(
                "student", "keras", file, disk.file_size_mb(file), agreement=1.0
            ),
            *_exports(folder),
            *_peers(folder),
        ]
        measured: list[race.Measured] = []
        threads = settings.threads or _powers_of_two()
        for num_threads in threads:
            title = f"Measure with {num_threads} threads (rounds)"
            with progress.bar(title, settings.rounds + 2) as bar:
                measured += race.run_race(
                    contestants,
                    lengths=settings.lengths,
                    num_threads=num_threads,
                    throughput_length=settings.throughput_length,
                    rounds=settings.rounds,
                    progress=bar.update_of,
                )
    result = {
        "format_version": 1,
        "name": recipe.name,
        "environment": describe_environment(recipe),
        "settings": settings.model_dump(),
        "measured": [each.to_json() for each in measured],
    }
    path = folder / RESULT_FILE
    with disk.writing(path):
        run_folder.write_json(path, result)
    most = max(threads)
    shown = [each for each in measured if each.num_threads == most]
    _draw(
        shown,
        folder / CHART_FILE,
        length=_length_of_chart(shown),
        title=f"{recipe.name}, {most} threads",
    )
    return measured


def _as_file(model: Path, folder: Path) -> Path:
    """The model as a `.keras` file; any other form is saved in `folder`."""
    if model.is_file():
        return model
    path = folder / "student.keras"
    load_model(model).save(path)
    return path


def _powers_of_two() -> list[int]:
    """Powers of two below the number of cores, then that number."""
    cores = os.cpu_count() or 1
    return [2**n for n in range(cores.bit_length()) if 2**n < cores] + [cores]


def _teacher(
    recipe: config.Recipe, student: Path, folder: Path
) -> race.Contestant:
    """The teacher of the student's task and seed, or the recipe's own."""
    # Tasks keep their models as TASK/ROW/SEED/FILE.
    whole = student.absolute()
    row = whole.parent.parent
    path = row.with_name("teacher") / whole.parent.name / whole.name
    if row.name != "student" or not path.is_file():
        path = folder / "teacher.keras"
        embeds = recipe.distill is not None and recipe.distill.embeds
        load = load_embedder if embeds else load_teacher
        load(recipe, dtype="float32").save(path)
    return race.Contestant("teacher", "keras", path, disk.file_size_mb(path))


def _exports(folder: Path) -> Iterator[race.Contestant]:
    for name, (runtime, file) in _FORMATS.items():
        path = folder / name
        report = _report(path)
        if report is None:
            continue
        opened = path / file if runtime == "onnx" else path
        yield race.Contestant(
            name,
            runtime,
            opened,
            disk.file_size_mb(path / file),
            precision=report["precision"],
            agreement=report["comparison"]["top1_agreement"],
            score=report["comparison"]["score"],
            is_error=report["is_error"],
        )


def _peers(folder: Path) -> Iterator[race.Contestant]:
    for name, (format_, file, packages, precision) in _PEERS.items():
        path = folder / format_
        if _report(path) is not None and not _missing(packages):
            # These runtimes quantise the model themselves, in memory only.
            in_memory = precision == "dynamic_int8"
            size = None if in_memory else disk.file_size_mb(path)
            yield race.Contestant(
                name, name, path / file, size, precision=precision
            )


def _missing_peers(folder: Path) -> Iterator[str]:
    for name, (format_, _, packages, _) in _PEERS.items():
        missing = _missing(packages)
        if _report(folder / format_) is None:
            yield f"Without {name}: there is no export {folder / format_}."
        elif missing:
            yield f"Without {name}: {', '.join(missing)} is not installed."


def _missing(packages: Sequence[str]) -> list[str]:
    return [name for name in packages if not importlib.util.find_spec(name)]


def _report(folder: Path) -> dict[str, Any] | None:
    """Findings of the export gate; None if there is no export."""
    path = folder / REPORT_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(run_folder.read_text(path))
        return {
            "precision": str(found["precision"]),
            # Exports of earlier versions do not say.
            "is_error": found["comparison"].get("is_error") is True,
            "comparison": {
                key: None if value is None else float(value)
                for key in ("top1_agreement", "score")
                for value in [found["comparison"][key]]
            },
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged: {error}. Export it again with --overwrite."
        ) from error


def _length_of_chart(measured: Sequence[race.Measured]) -> int:
    """The length that most contestants take; among ties, the closest to 128."""
    counts = collections.Counter(
        length for each in measured for length in each.latency
    )
    return max(counts, key=lambda n: (counts[n], -abs(n - 128)), default=128)


def _draw(
    measured: Sequence[race.Measured], path: Path, *, length: int, title: str
) -> None:
    partial = path.with_name(f".{path.name}")
    with disk.replacing(path, partial):
        chart.draw(measured, partial, length=length, title=title)
