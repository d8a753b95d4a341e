"""`MODEL_CARD.md`: what a student is, what it retains, and its limits."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_distil import config
from keras_distil.config import data_section
from keras_distil.config.distill_section import DistillSection
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.runs import score_table
from keras_distil.runs.report import (
    embedding_text,
    export_table,
    result_table,
    task_details,
)
from keras_distil.runs.report.licences import licence_lines
from keras_distil.runs.report.stage_text import describe_stages
from keras_distil.runs.run_folder import read_text
from keras_distil.training.metrics import (
    TABLE,
    Metric,
    find_metric,
    format_count,
)
from keras_distil.utils.markdown import code, escape
from keras_distil.utils.private_text import shown_text

CARD_FILE = "MODEL_CARD.md"


def model_card(recipe: config.Recipe, folder: Path) -> str:
    """Returns the Markdown card of a finished run.

    Args:
        recipe: the run's recipe.
        folder: the run's folder, with `report.json` and `environment.json`, and
            `benchmark.json` if the student was measured.

    Raises:
        OSError: if a file is missing.
        ValueError: if one is damaged.
    """
    report = _read(folder / "report.json")
    environment = _read(folder / "environment.json")
    parts = [
        f"# {recipe.name}",
        summary(recipe, report),
        "## Use",
        _use(recipe, report),
        "## Data",
        "\n".join(f"- {line}" for line in _data(recipe)),
        "## Training",
        "\n".join(f"- {line}" for line in _training(recipe, report)),
        "## Scores",
        _scores(report),
        *_calibration(report),
        *task_details.card_parts(report, folder),
        "## Size and speed",
        _files(report, folder),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(recipe, report)),
        "## Licences",
        "\n".join(f"- {line}" for line in licence_lines(recipe)),
        "## Environment",
        _environment(environment),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def _tasks_of_cut_students(recipe: config.Recipe) -> list[str]:
    tasks = [] if recipe.finetune is None else recipe.finetune.task_names
    return [task for task in tasks if recipe.cuts(score_table.STUDENT, task)]


def summary(
    recipe: config.Recipe,
    report: dict[str, Any],
    *,
    mark: Callable[[str], str] = code,
) -> str:
    """Summarises the student, what it retains and what it costs.

    Args:
        recipe: the run's recipe.
        report: the run's report, as in `report.json`.
        mark: marks up the name of a model; Markdown by default.
    """
    teacher = mark(shown_text(recipe.teacher.encoder_source))
    student, cut = recipe.student, _tasks_of_cut_students(recipe)
    is_cut = recipe.makes(score_table.STUDENT)
    if student is not None and student.source is not None and not is_cut:
        made = f"A student distilled before, {mark(shown_text(student.source))}"
    elif recipe.distill is not None and recipe.distill.embeds:
        made = embedding_text.describe_student(recipe.student, teacher)
    elif recipe.student is not None or recipe.distill is not None:
        layers = recipe.student.num_layers if recipe.student else None
        depth = f" of {layers} layers" if layers else ""
        made = f"A student{depth} distilled from {teacher}"
    else:
        made = f"The teacher {teacher}"
    found = [made + " with keras_distil."]
    if cut and not is_cut:
        found.append(f"On {' and '.join(cut)}, it is cut from the teacher.")
    if recipe.distill is not None and recipe.distill.embeds:
        found.append(embedding_text.describe_kept(report["rows"]))
    elif "kept_percent" in report:
        found.append(
            f"It keeps {report['kept_percent']:.1f}% of the teacher's masked "
            "accuracy on held-out text."
        )
    elif "most_frequent_token_accuracy" in report:
        found.append(
            "Its teacher predicts masked words on held-out text no better "
            "than the most frequent word does, so no share of it is told."
        )
    macro = _macro(report, score_table.STUDENT)
    if macro is not None and macro.retention is not None:
        found.append(
            f"Over {', '.join(report['tasks']['tasks'])} it keeps "
            f"{macro.retention:.1f}% of the teacher's mean score "
            f"({macro.score:.1f} points)."
        )
    return " ".join([*found, *_costs(report)])


def _costs(report: dict[str, Any]) -> Iterator[str]:
    """Parameters, size and speed of the student, compared with its teacher."""
    rows = report.get("rows") or {
        row["name"]: row for row in report.get("tasks", {}).get("rows", ())
    }
    keys = ("parameters", "size_mb", "latency_ms")
    both = [
        [rows.get(name, {}).get(key) for key in keys]
        for name in (score_table.TEACHER, score_table.STUDENT)
    ]
    # Nothing is said if a cost was not measured or is zero.
    if not all(both[0] + both[1]):
        return
    shares = [s / t for t, s in zip(*both, strict=True)]
    parameters, size_mb, latency_ms = both[1]
    yield (
        f"It has {format_count(parameters)} parameters "
        f"({shares[0]:.0%} of the teacher's), takes {size_mb:.1f} MB in "
        f"float32 and {latency_ms:.1f} ms for one input on the CPU, where the "
        f"teacher takes {both[0][2]:.1f} ms: {1 / shares[2]:.1f} times as fast."
    )


def _macro(report: dict[str, Any], name: str) -> score_table.MacroScore | None:
    if "tasks" not in report:
        return None
    made = score_table.ResultTable.from_json(json.dumps(report["tasks"]))
    if made.errors:
        return None
    rows = {row.name: row for row in made.rows}
    return rows[name].macro if name in rows else None


def _use(recipe: config.Recipe, report: dict[str, Any]) -> str:
    exports = report.get("export", ())
    lines = [
        "```python",
        "from keras_distil import models",
        "",
        'student = models.load_teacher("student.keras")',
        "```",
    ]
    if "rows" not in report:
        lines = []
    elif recipe.distill is not None and recipe.distill.embeds:
        lines = list(embedding_text.USE)
    if exports:
        names = ", ".join(code(each["path"]) for each in exports)
        lines += ["", f"Exported as {names}."]
    return "\n".join(lines).strip()


def _data(recipe: config.Recipe) -> Iterator[str]:
    for source in recipe.data.sources:
        if isinstance(source, data_section.DocumentationSource):
            yield (
                "Text: docstrings of the installed "
                f"{', '.join(source.packages)}."
            )
        elif isinstance(source, data_section.FilesSource):
            yield f"Text: the files {code(shown_text(source.pattern))}."
        else:
            yield f"Text: TensorFlow Datasets {code(source.name)}."
    if recipe.data.prepared is not None:
        yield "Text: a corpus that was prepared before."
    if recipe.teacher.predictions is not None:
        files = ", ".join(
            code(shown_text(path)) for path in recipe.teacher.predictions
        )
        yield f"The teacher of the task: predictions alone, {files}."
    if recipe.finetune is not None:
        origin = {
            "files": "from the official files",
            "tfds": "from TensorFlow Datasets",
        }[recipe.finetune.source]
        yield from _task_origins(recipe.finetune, origin)
        yield from _more_text(recipe.finetune)
        where = {
            "dev": "the development set that scores it",
            "train": "a tenth of the training set, on which no model trained; "
            "the development set was read once, with the chosen epoch",
        }[recipe.finetune.selection]
        yield (
            "The best epoch of every training, the teacher's as well as the "
            f"student's, was chosen on {where}."
        )


def _more_text(settings: FineTuneSection) -> Iterator[str]:
    """What students of tasks read besides the training sets."""
    if "student" not in settings.rows:
        return
    if settings.augment_copies:
        yield (
            f"Students also learned from {settings.augment_copies:,} copies of "
            "every example, with words that the teacher expects in their place."
        )
    for name in settings.task_names:
        pattern = settings.unlabelled_of(name)
        if pattern is not None:
            yield (
                f"The student of {name} also learned from the text without "
                f"labels in {code(shown_text(pattern))}."
            )


def _training(recipe: config.Recipe, report: dict[str, Any]) -> Iterator[str]:
    yield f"Precision {recipe.precision}, seed {recipe.seed}."
    if recipe.distill is not None:
        length = "steps" if recipe.distill.steps is not None else "epochs"
        what = "texts of at most" if recipe.distill.embeds else "sequences of"
        yield (
            f"Distilled for {recipe.distill.steps or recipe.distill.epochs} "
            f"{length} of {recipe.distill.batch_size} {what} "
            f"{recipe.data.sequence_length} tokens; weights of the losses "
            f"{_losses(recipe.distill)}."
        )
    if recipe.finetune is not None:
        yield (
            f"Fine-tuned with the seeds {_joined(recipe.finetune.seeds)}; the "
            "score is the median over the seeds."
        )
    yield from describe_stages(recipe)
    yield f"The whole run took {report.get('duration_s', 0):,.0f} seconds."
    yield "Everything else is in `recipe.yaml`."


def _losses(distill: DistillSection) -> str:
    """Weights and temperatures of the losses on text."""
    terms = []
    for name, settings in distill.losses.by_name.items():
        values = settings.model_dump()
        caption = find_metric(f"{name}_loss", kinds=[distill.task]).caption
        if "temperature" in values:
            caption += f", temperature {values['temperature']:g}"
        terms.append(f"{settings.weight:g} ({caption})")
    return ", ".join(terms)


def _scores(report: dict[str, Any]) -> str:
    parts = []
    if "rows" in report:
        rows = report["rows"]
        shown = [
            find_metric(name)
            for name in TABLE
            if any(name in row for row in rows.values())
        ]
        parts.append(
            _table(
                ["held-out text", *(metric.title for metric in shown)],
                [
                    [
                        escape(name),
                        *(_written(metric, row) for metric in shown),
                    ]
                    for name, row in rows.items()
                ],
            )
        )
    if "tasks" in report:
        made = score_table.ResultTable.from_json(json.dumps(report["tasks"]))
        parts.append(result_table.to_markdown(made).strip())
    return "\n\n".join(parts) or "None."


def _calibration(report: dict[str, Any]) -> list[str]:
    """Heading and table of calibration errors; nothing for embeddings."""
    heading = "## Calibration"
    found = dict(report.get("calibration", {}))
    rows_of_text = report.get("rows", {})
    if rows_of_text and "mlm_accuracy" not in rows_of_text["teacher"]:
        return []
    if "rows" in report:
        found["masked words"] = {
            row: scores["calibration_error"]
            for row, scores in report["rows"].items()
            if "calibration_error" in scores
        }
    if not found:
        return [heading, "Not measured."]
    rows = [
        [
            escape(name),
            *(
                _number(each.get(who), 100.0)
                for who in (score_table.TEACHER, score_table.STUDENT)
            ),
        ]
        for name, each in found.items()
    ]
    return [
        heading,
        "Expected calibration error (15 bins), in points: how far confidence "
        "and accuracy are apart.",
        _table(["", "teacher", "student"], rows),
    ]


def _files(report: dict[str, Any], folder: Path) -> str:
    parts = []
    if report.get("export"):
        benchmarks = export_table.read_benchmarks(report, folder)
        rows = [
            [code(row[0]), *map(escape, row[1:])]
            for row in export_table.export_rows(report, benchmarks)
        ]
        parts.append(_table(export_table.HEADERS, rows))
        parts += map(escape, export_table.notes(report, benchmarks))
        parts += [
            f"`{each.path}`: {each.note}"
            for each in export_table.exports_of(report)
            if each.note
        ]
    path = folder / export_table.BENCHMARK_FILE
    if path.is_file():
        parts.append(_speeds(_read(path)))
    return "\n\n".join(parts) or "See the table above."


def _speeds(benchmark: dict[str, Any]) -> str:
    lengths = benchmark["settings"]["lengths"]
    rows = [
        [
            escape(each["name"]),
            str(each["num_threads"]),
            f"{each['peak_memory_mb']:,.0f}",
            *(
                _number(
                    each["latency"].get(str(length), {}).get("median_ms"), 1.0
                )
                for length in lengths
            ),
        ]
        for each in benchmark["measured"]
        if each["failed"] is None
    ]
    return "CPU milliseconds for one sequence (medians):\n\n" + _table(
        ["", "threads", "peak MB", *(f"{n} tokens" for n in lengths)], rows
    )


def _limits(recipe: config.Recipe, report: dict[str, Any]) -> Iterator[str]:
    yield (
        "It has learned what its teacher says, mistakes and prejudices "
        "included, and has less room for rare cases than the teacher."
    )
    if recipe.distill is not None and recipe.distill.embeds:
        yield embedding_text.LIMIT
    elif "rows" in report and "tasks" not in report:
        yield (
            "It fills in masked words. For any task it must be fine-tuned, and "
            "measured, first."
        )
    yield (
        "Scores are those of the data named above. They say nothing of other "
        "languages, domains or text longer than "
        f"{recipe.data.sequence_length} tokens."
    )
    if "tasks" in report:
        yield (
            "Development sets are small: compare the intervals, not the last "
            "digit."
        )


def _task_origins(settings: FineTuneSection, origin: str) -> Iterator[str]:
    """Says where the examples of the tasks are from."""
    known = [x for x in settings.task_names if settings.own_task(x) is None]
    if known:
        yield f"Tasks: {', '.join(known)}, {origin}."
    for name in settings.task_names:
        own = settings.own_task(name)
        if own is None:
            continue
        files = ", ".join(code(shown_text(path)) for path in own.train)
        if own.tfds is not None:
            files = f"TensorFlow Datasets {code(own.tfds)}, {files}"
        kind = own.kind.replace("_", " ")
        yield f"Task {name}: {kind}, from {files}."


def _environment(environment: dict[str, Any]) -> str:
    hardware = environment["hardware"]
    versions = ", ".join(
        f"{name} {version}" for name, version in environment["versions"].items()
    )
    return (
        f"{escape(hardware['processor'])}, {hardware['cpu_cores']} cores, "
        f"{hardware['memory_gb']:g} GB of memory. {escape(versions)}."
    )


def _joined(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _written(metric: Metric, row: dict[str, Any]) -> str:
    if row.get(metric.name) is None:
        return "\N{EN DASH}"
    return metric.format(row[metric.name])


def _number(value: float | None, scale: float) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, int):
        return f"{value:,}"
    scaled = scale * value
    return f"{scaled:.3f}" if scale == 1.0 and scaled < 10 else f"{scaled:.1f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *("---:" for _ in headings[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
