"""Ways to distil, beside each other at the same number of student tokens.

Every method starts from the same teacher, and its student from as many layers
of it; what differs is which ones, the objective, the text and the order of
steps. Only `cut_short` reads less, which shows what a third of the time gives.
Choices are made on a part of each training set (`finetune.selection: train`);
the development sets are read once, at the end of every training. Prints a
Markdown table: the scores, their mean where choices are made ("chosen by"), the
paired difference to the authors' method with its bootstrap interval, what each
part took in minutes of a core, and in how many of them the authors' scores were
reached ("as good").

An interrupted call continues where it stopped. Several calls can train
methods into one folder; the last one, with all of them, only reads.

    keras-distil prose TEXTS PROSE
    python benchmarks/methods.py --texts TEXTS --glue GLUE --prose PROSE \
        --output FOLDER
    python benchmarks/methods.py ... --tasks cola rte --seeds 0 --methods \
        authors relations
"""

import argparse
import contextlib
import dataclasses
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

from keras_distil import config, data
from keras_distil.evaluation import significance, spans
from keras_distil.runs import run_folder
from keras_distil.utils.progress import Progress

RECIPES = Path(__file__).parents[1] / "recipes"
GENERAL_RECIPE = RECIPES / "masked_lm_minilm_to_3_layers.yaml"
AUTHORS = "authors"
SQUAD = "squad"
# Losses of general stages, which else are as in `GENERAL_RECIPE`.
GENERAL: dict[str, str] = {
    # Weights, temperature and positions as the authors of DistilBERT had them.
    AUTHORS: "{mlm: {weight: 2.0}, soft_target: {weight: 5.0, temperature: "
    "2.0}, cosine: {weight: 1.0}}",
    "words": "{mlm: {weight: 2.0}, soft_target: {weight: 5.0, temperature: "
    "2.0, positions: masked}, cosine: {weight: 10.0}}",
    "relations": "{mlm: {weight: 1.0}, attention_relation: {weight: 1.0, "
    "relation_heads: 12}}",
}
TEACHER_EPOCHS = {
    "cola": 12,
    "sst2": 2,
    "mrpc": 10,
    "stsb": 8,
    "rte": 10,
    "squad": 4,
}
# What every student reads, in passes over the labelled examples. Text that a
# method adds is a part of it, so its labelled examples come round less often.
STUDENT_PASSES = {
    **TEACHER_EPOCHS,
    "cola": 24,
    "mrpc": 20,
    "stsb": 16,
    "squad": 8,
}
# Larger tasks are trained once: their scores differ less between seeds.
ONCE = ("sst2", "squad")
# Files of `keras-distil prose`.
PROSE = {
    "cola": "sentences.txt",
    "mrpc": "pairs.tsv",
    "stsb": "pairs.tsv",
    "squad": "questions.jsonl",
}
_PROSE_SHARE = 0.5
# What lies near the outputs is kept, with the layer that reads the embeddings.
_LATE = (0, 4, 5)

_OUTPUTS = {"label": {}, "soft_target": {"temperature": 2.0}}
_STATES = {**_OUTPUTS, "cosine": {"weight": 5.0}}
_LAYERS = {"hidden_mse": {"layers": "uniform"}, "attention_relation": {}}
_AUGMENTED = {"augment_copies": 20, "augmented_share": 0.5}
_ONE_STAGE = {"losses": _STATES}
# Two thirds of the epochs, then the others.
_TWO_STAGES = {"stages": [_LAYERS, _OUTPUTS]}


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to distil.

    Attributes:
        title: what the table calls it.
        general: its general stage, a key of `GENERAL`; None cuts the student
            from the fine-tuned teacher.
        finetune: its keys of the recipe's section `finetune`; `stages` are
            losses alone.
        layers: the teacher's layers that the student starts from.
        cut: tasks that cut the student from their teacher nevertheless.
        prose: tasks whose teacher labels text without labels, too.
        passes: its share of what the other methods' students read.
    """

    title: str
    general: str | None
    finetune: Mapping[str, Any]
    layers: Sequence[int] = (0, 2, 4)
    cut: Sequence[str] = ()
    prose: Sequence[str] = ()
    passes: float = 1.0

    def general_on(self, task: str) -> str | None:
        """Its general stage before a task; None if it cuts the student."""
        return None if task in self.cut else self.general

    def finetune_on(self, task: str, passes: float = 1.0) -> dict[str, Any]:
        """Its keys of the recipe's section `finetune` on a task.

        Args:
            task: the task's name.
            passes: what all methods read, of what they read in the table.
        """
        finetune = dict(self.finetune)
        if task == SQUAD:
            # Answers are parts of their texts, so these are not augmented.
            for key in _AUGMENTED:
                finetune.pop(key, None)
        added = finetune.get("augmented_share", 0.0)
        added += _PROSE_SHARE if task in self.prose else 0.0
        passes *= self.passes * STUDENT_PASSES[task]
        epochs = max(1, round(passes * (1.0 - added)))
        if "stages" not in finetune:
            return {**finetune, "epochs": epochs}
        first = max(1, round(2 * epochs / 3))
        parts = (first, max(1, epochs - first))
        stages = [
            {"losses": losses, "epochs": count}
            for losses, count in zip(finetune["stages"], parts, strict=True)
        ]
        return {**finetune, "stages": stages}


METHODS: dict[str, Method] = {
    AUTHORS: Method(
        "the authors': triple loss, then labels and outputs",
        AUTHORS,
        {"losses": _OUTPUTS},
    ),
    "words": Method(
        "masked words and states, then labels, outputs and states",
        "words",
        _ONE_STAGE,
    ),
    "relations": Method(
        "masked words and relations, then labels, outputs and states",
        "relations",
        _ONE_STAGE,
    ),
    "cut_outputs": Method(
        "cut from the fine-tuned teacher: labels and outputs",
        None,
        {"losses": _OUTPUTS},
    ),
    "cut": Method("cut: labels, outputs and states", None, _ONE_STAGE),
    "cut_late": Method(
        "cut, layers 0, 4 and 5: labels, outputs and states",
        None,
        _ONE_STAGE,
        layers=_LATE,
    ),
    "cut_late_stages": Method(
        "cut, layers 0, 4 and 5: layers and relations, then labels and outputs",
        None,
        _TWO_STAGES,
        layers=_LATE,
    ),
    "late_words": Method(
        "layers 0, 4 and 5: masked words and states, then labels, outputs and "
        "states",
        "words",
        _ONE_STAGE,
        layers=_LATE,
    ),
    "cut_stages": Method(
        "cut: layers and relations, then labels and outputs", None, _TWO_STAGES
    ),
    "cut_augmented": Method(
        "cut: labels, outputs and states, augmented text",
        None,
        {**_ONE_STAGE, **_AUGMENTED},
    ),
    "cut_stages_augmented": Method(
        "cut: in two stages, augmented text",
        None,
        {**_TWO_STAGES, **_AUGMENTED},
    ),
    "cut_teachers": Method(
        "cut: labels, outputs and states of all seeds' teachers",
        None,
        {**_ONE_STAGE, "teacher_seeds": "all"},
    ),
    "cut_prose": Method(
        "cut: labels, outputs and states of all seeds' teachers, with prose",
        None,
        {**_ONE_STAGE, "teacher_seeds": "all"},
        prose=tuple(PROSE),
    ),
    "cut_outputs_prose": Method(
        "cut: labels and outputs of all seeds' teachers, with prose",
        None,
        {"losses": _OUTPUTS, "teacher_seeds": "all"},
        prose=tuple(PROSE),
    ),
    "prose": Method(
        "masked words and states, then labels, outputs and states of all "
        "seeds' teachers, with prose",
        "words",
        {**_ONE_STAGE, "teacher_seeds": "all"},
        cut=("stsb", "sst2"),
        prose=tuple(PROSE),
    ),
}
METHODS["cut_short"] = dataclasses.replace(
    METHODS["cut_prose"], title="the same, a quarter of the passes", passes=0.25
)
COSTS_FILE = "costs.jsonl"


# === The runs ===


def run_recipe(
    recipe: Path, changes: Sequence[str], folder: Path, part: str
) -> None:
    """Makes or continues a run in a process, and notes its processor time.

    Args:
        recipe: the recipe's file.
        changes: `key=value` each.
        folder: the run's folder.
        part: what the time is for, in the notes.
    """
    command = [sys.executable, "-m", "keras_distil", "run", recipe, "--quiet"]
    for change in changes:
        command += ["--set", change]
    with _counted(folder, part):
        subprocess.run([*command, "--output", folder], check=True)


@contextlib.contextmanager
def _counted(folder: Path, part: str) -> Iterator[None]:
    """Adds the processor time of child processes to a folder's notes."""

    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    begun = seconds()
    try:
        yield
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        note = {"part": part, "cpu_s": round(seconds() - begun, 1)}
        with (folder / COSTS_FILE).open("a") as file:
            file.write(json.dumps(note) + "\n")


def minutes_of(folder: Path) -> float:
    """Returns the processor time noted in a folder, minutes of a core."""
    path = folder / COSTS_FILE
    if not path.exists():
        return 0.0
    notes = map(json.loads, path.read_text().splitlines())
    return sum(note["cpu_s"] for note in notes) / 60.0


def is_finished(folder: Path) -> bool:
    """Whether a run has written its report, which comes last."""
    return (folder / "report.json").exists()


def general_folder(method: Method, arguments: argparse.Namespace) -> Path:
    """Returns the folder of a general stage, which methods may share."""
    name = "_".join([str(method.general), *map(str, method.layers)])
    return arguments.output / "general" / name


def distil_on_text(
    general: str, method: Method, arguments: argparse.Namespace
) -> Path:
    """Makes the student of a general stage; returns its run's folder."""
    folder = general_folder(method, arguments)
    if not is_finished(folder):
        changes = general_changes(general, method, arguments)
        run_recipe(GENERAL_RECIPE, changes, folder, "student")
    return folder


def general_changes(
    general: str, method: Method, arguments: argparse.Namespace
) -> list[str]:
    """Returns what a general stage changes in its recipe."""
    return [
        f"data.root={arguments.texts}",
        f"precision={arguments.precision}",
        f"distill.steps={arguments.steps}",
        f"distill.warmup_steps={max(1, arguments.steps // 16)}",
        "distill.baseline=false",
        f"distill.losses={GENERAL[general]}",
        f"student.layers={list(method.layers)}",
    ]


def seeds_of(task: str, arguments: argparse.Namespace) -> list[int]:
    """Returns the seeds of a task."""
    return arguments.seeds[:1] if task in ONCE else arguments.seeds


def task_recipe(
    task: str,
    rows: Sequence[str],
    student: Mapping[str, Any] | None,
    finetune: Mapping[str, Any],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Returns the recipe of rows on a task."""
    is_squad = task == SQUAD
    return {
        "name": "methods",
        "seed": 0,
        "precision": arguments.precision,
        "teacher": {"source": "embedded"},
        "student": student,
        "data": {
            "root": str(arguments.squad if is_squad else arguments.glue),
            "allow_outside_root": True,
        },
        "finetune": {
            "tasks": [task],
            "source": "files",
            "selection": "train",
            "rows": list(rows),
            "seeds": seeds_of(task, arguments),
            # To the end of the epochs.
            "patience": STUDENT_PASSES[task],
            "max_length": 384 if is_squad else 128,
            "teacher_cache": "student" in rows,
            **finetune,
        },
    }


def fine_tune(
    recipe: Mapping[str, Any], folder: Path, part: str, teachers: Path | None
) -> None:
    """Fine-tunes a recipe's rows; teachers are taken from another run."""
    if is_finished(folder):
        return
    path = folder.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(recipe), sort_keys=False))
    if teachers is not None:
        # A folder with files in it must be a run's.
        quiet = Progress(quiet=True)
        run_folder.open_run(config.load_recipe(path), folder, quiet)
        for trained in teachers.glob("tasks/*/teacher"):
            mine = folder / trained.relative_to(teachers)
            if not mine.exists():
                # What they said of another student's text is not wanted.
                shutil.copytree(
                    trained, mine, ignore=shutil.ignore_patterns("cache")
                )
    run_recipe(path, (), folder, part)


def train(name: str, arguments: argparse.Namespace) -> None:
    """Trains a method's students on all tasks."""
    method = METHODS[name]
    for task in arguments.tasks:
        if general := method.general_on(task):
            distil_on_text(general, method, arguments)
        teachers = arguments.output / "teachers" / task
        epochs = {"epochs": TEACHER_EPOCHS[task]}
        fine_tune(
            task_recipe(task, ["teacher"], None, epochs, arguments),
            teachers,
            "teacher",
            None,
        )
        fine_tune(
            student_recipe(method, task, arguments),
            arguments.output / "methods" / name / task,
            "student",
            teachers,
        )


def student_recipe(
    method: Method, task: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Returns the recipe of a method's students on a task."""
    student: dict[str, Any] = {
        "num_layers": len(method.layers),
        "layers": list(method.layers),
    }
    if method.general_on(task):
        general = general_folder(method, arguments)
        student = {"source": str(general / "student.keras")}
    finetune = method.finetune_on(task, arguments.passes)
    if task in method.prose:
        path = arguments.prose / PROSE[task]
        finetune["by_task"] = {task: {"unlabelled": str(path.resolve())}}
        finetune["unlabelled_share"] = _PROSE_SHARE
    rows = ["teacher", "student"]
    return task_recipe(task, rows, student, finetune, arguments)


# === The table ===


@dataclasses.dataclass(frozen=True)
class Scores:
    """A row's scores on all tasks, in percent.

    Attributes:
        medians: over the seeds, by task.
        draws: those of bootstrap draws of the examples, by task.
        chosen_by: medians of the part of the training set that chose the
            epochs, by task.
    """

    medians: dict[str, float]
    draws: dict[str, np.ndarray]
    chosen_by: dict[str, float]

    @property
    def mean(self) -> float:
        """The mean over the tasks."""
        return float(np.mean(list(self.medians.values())))


def read_scores(
    folder: Path, row: str, arguments: argparse.Namespace
) -> Scores:
    """Reads the predictions that a row's models made for the dev sets."""
    medians, draws, chosen_by = {}, {}, {}
    for task in arguments.tasks:
        inside = folder / task / "tasks" / task / row
        seeds = [inside / f"seed_{seed}" for seed in seeds_of(task, arguments)]
        found = [load_file(x / "predictions.safetensors") for x in seeds]
        predictions = np.stack([each["dev"] for each in found])
        labels, metric = _labels_and_metric(
            task, seeds[0], predictions, arguments.glue
        )
        each = [metric(labels, one) for one in predictions]
        medians[task] = 100.0 * float(np.median(each))
        draws[task] = 100.0 * significance.bootstrap_scores(
            labels, predictions, metric, seed=significance.task_seed(task)
        )
        best = [max(_result(seed)["selection_scores"]) for seed in seeds]
        chosen_by[task] = 100.0 * float(np.median(best))
    return Scores(medians, draws, chosen_by)


def minutes_until(name: str, arguments: argparse.Namespace) -> str:
    """Returns the minutes in which a method's students are as good as theirs.

    As good is an epoch that scores at least what the authors' best epoch of
    the same seed does, on the part of the training set that chooses epochs.
    All that comes before the epochs counts: the general stage, and what the
    teachers say.

    Returns:
        Minutes of a core, after "> " if a seed ended below.
    """
    minutes = minutes_of(general_folder(METHODS[name], arguments))
    reached = True
    for task in arguments.tasks:
        folders = [
            arguments.output / "methods" / method / task
            for method in (name, AUTHORS)
        ]
        seeds = [f"seed_{seed}" for seed in seeds_of(task, arguments)]
        mine, theirs = (
            [_result(x / "tasks" / task / "student" / seed) for seed in seeds]
            for x in folders
        )
        # The first seed's time has the cache in it, too.
        training = min(each["duration_s"] for each in mine)
        finetune = METHODS[name].finetune_on(task, arguments.passes)
        # Epochs of stages before the last are not scored.
        trained = sum(x["epochs"] for x in finetune.get("stages", [finetune]))
        minutes += minutes_of(folders[0])
        for one, other in zip(mine, theirs, strict=True):
            scores = one["selection_scores"]
            goal = max(other["selection_scores"])
            epochs = next(
                (n for n, score in enumerate(scores, 1) if score >= goal), None
            )
            reached &= epochs is not None
            left = len(scores) - (epochs or len(scores))
            minutes -= training * left / trained / 60.0
    return f"{'' if reached else '> '}{minutes:.0f}"


def _result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def _labels_and_metric(
    task: str, seed: Path, predictions: np.ndarray, glue: str
) -> tuple[np.ndarray, Any]:
    if task == SQUAD:
        # Each question's own F1 is stored; no other label is needed.
        return np.zeros(predictions.shape[1:], np.float32), spans.mean_f1
    examples = data.load_glue(task, "dev", root=glue)
    names = _result(seed)["metrics"]["dev"]
    counted = [significance.COUNTED_METRICS[name] for name in names]
    return np.asarray(examples.labels), significance.mean_of(*counted)


def markdown(arguments: argparse.Namespace) -> str:
    """Returns the table, with one row per method and the teacher's."""
    teacher = read_scores(arguments.output / "teachers", "teacher", arguments)
    found = {
        name: read_scores(
            arguments.output / "methods" / name, "student", arguments
        )
        for name in arguments.methods
    }
    heads = [*arguments.tasks, "mean", "kept", "chosen by"]
    heads += ["general", "tasks", "as good"]
    lines = [
        f"| | {' | '.join(heads)} | beside the authors' (95%) |",
        "| --- |" + " ---: |" * (len(heads) + 1),
        _line("teacher", teacher, teacher, ["", "", "", ""]),
    ]
    for name, scores in found.items():
        method = METHODS[name]
        general = general_folder(method, arguments)
        folder = arguments.output / "methods" / name
        tasks = [folder / task for task in arguments.tasks]
        cells = [
            f"{minutes_of(general):.0f}",
            f"{sum(map(minutes_of, tasks)):.0f}",
            "",
            "",
        ]
        if name != AUTHORS and AUTHORS in found:
            cells[-2] = minutes_until(name, arguments)
            difference = significance.paired_difference(
                significance.macro_samples(scores.draws),
                significance.macro_samples(found[AUTHORS].draws),
            )
            cells[-1] = (
                f"{scores.mean - found[AUTHORS].mean:+.1f} "
                f"({difference.low:.1f} to {difference.high:.1f})"
            )
        lines.append(_line(method.title, scores, teacher, cells))
    return "\n".join(lines)


def _line(
    title: str, scores: Scores, teacher: Scores, cells: Sequence[str]
) -> str:
    numbers = [*scores.medians.values(), scores.mean]
    numbers.append(100.0 * scores.mean / teacher.mean)
    numbers.append(float(np.mean(list(scores.chosen_by.values()))))
    shown = [f"{number:.1f}" for number in numbers]
    return f"| {' | '.join([title, *shown, *cells])} |"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", required=True, help="folder of *.txt")
    parser.add_argument("--glue", required=True, help="GLUE's folders")
    parser.add_argument("--squad", help="folder of train.json and dev.json")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument(
        "--tasks", nargs="+", default=["cola", "sst2", "mrpc", "stsb", "rte"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--passes",
        type=float,
        default=1.0,
        help="share of what is read, for a screen such as 0.25",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=list(METHODS)
    )
    parser.add_argument(
        "--prose", type=Path, help="folder written by `keras-distil prose`"
    )
    arguments = parser.parse_args()
    for name in arguments.methods:
        if METHODS[name].prose and arguments.prose is None:
            parser.error(f"the method {name} needs --prose")
    for name in arguments.methods:
        train(name, arguments)
    print(markdown(arguments))


if __name__ == "__main__":
    main()
