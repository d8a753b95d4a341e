"""Writes a proposed recipe: YAML, with what was seen as comments."""

import dataclasses
import glob
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from keras_distil.config.own_task import METRICS
from keras_distil.planning.proposal.duration import Work
from keras_distil.planning.proposal.found import FoundTask
from keras_distil.planning.proposal.teacher import FoundTeacher
from keras_distil.runs.settled import SettledPrecision
from keras_distil.utils.progress import duration

_WIDTH = 76
_MOST_SHOWN = 12
# Kinds whose texts can be read in windows at will.
_WINDOWED = ("classification", "multi_label", "token_classification")


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How long the texts of a file are, in tokens.

    Attributes:
        typical: the 99th percentile.
        chosen: tokens that the models read.
        longer: share of the texts that are longer.
        mean: mean of what is read.
        question: tokens of a question that are read; 0 without questions.
    """

    typical: int
    chosen: int
    longer: float
    mean: float
    question: int


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a proposed recipe is made from.

    Attributes:
        name: of recipe and task.
        output: where the recipe will be.
        path: the file.
        dev: the file beside it whose rows are held out; None without one.
        found: what it holds.
        teacher: the teacher.
        lengths: lengths of its texts.
        work: the trainings.
        batch_size: rows per update.
        precision: the faster precision of this machine.
        seconds: expected seconds of each training.
    """

    name: str
    output: str
    path: Path
    dev: Path | None
    found: FoundTask
    teacher: FoundTeacher
    lengths: Lengths
    work: Work
    batch_size: int
    precision: SettledPrecision
    seconds: dict[str, float]

    @property
    def expected(self) -> str:
        """How long the run takes here."""
        parts = [f"{x} {duration(s)}" for x, s in self.seconds.items()]
        return f"{duration(sum(self.seconds.values()))}: {', '.join(parts)}"

    def findings(self) -> Iterator[str]:
        """Says what was seen, one line each."""
        found = self.found
        yield f"{self.path}: {found.rows:,} rows, {found.kind}"
        if self.dev is not None:
            yield f"dev: {self.dev}"
        for key, column in found.columns.items():
            if column is not False:
                yield f"{key}: {_text(column)}"
        if found.labels is not None:
            yield f"{len(found.labels)} labels: {_listed(found.labels)}"
        yield f"Expected duration here: about {self.expected}"


def write(settings: Settings) -> str:
    """Returns a recipe in YAML, with comments."""
    parts = (_header, _models, _task, _training, _outputs)
    lines = [line for part in parts for line in part(settings)]
    return "\n".join(lines) + "\n"


def _header(settings: Settings) -> Iterator[str]:
    yield _comment(
        f"Distils {settings.teacher.source} on {settings.path.name}, "
        f"{settings.found.rows:,} rows."
    )
    yield "#"
    command = shlex.join(["keras-distil", "run", settings.output])
    yield _comment(f"Command:  {command}")
    yield _comment(f"Duration: about {settings.expected}, on this machine")
    yield f"name: {_text(settings.name)}"
    yield "seed: 0"
    yield _comment(f"Measured here: {settings.precision}.")
    yield _comment("auto measures it again where the recipe runs.")
    yield f"precision: {settings.precision.value}"
    yield ""


def _models(settings: Settings) -> Iterator[str]:
    teacher, layers = settings.teacher, settings.work.student_layers
    yield "teacher:"
    if teacher.kind is None:
        yield "  # Fine-tuned on the labels first. One that is fine-tuned"
        yield "  # already is task_source: a folder or hf://organisation/name."
        yield f"  source: {_text(teacher.source)}"
    else:
        yield f"  # Fine-tuned already, for a {teacher.kind}."
        yield f"  task_source: {_text(teacher.source)}"
    yield ""
    yield "student:"
    yield f"  num_layers: {layers}  # of {teacher.shape.num_layers}"
    yield ""
    yield "data:"
    yield f"  root: {_text(str(settings.path.parent))}"
    yield ""


def _task(settings: Settings) -> Iterator[str]:
    found = settings.found
    yield "finetune:"
    yield "  tasks:"
    yield f"    - name: {_text(settings.name)}"
    yield f"      kind: {found.kind}{_note(found.notes.get('kind'))}"
    yield f"      train: {_text(glob.escape(settings.path.name))}"
    if settings.dev is None:
        yield "      # Held out, of each class; or other files: dev, test."
        yield "      dev_fraction: 0.1"
    else:
        yield f"      dev: {_text(glob.escape(settings.dev.name))}"
    if found.encoding != "utf-8":
        yield f"      encoding: {found.encoding}"
    if found.columns:
        yield "      columns:"
        for key, column in found.columns.items():
            note = _note(found.notes.get(key))
            yield f"        {key}: {_text(column)}{note}"
    if found.kind == "multi_label" and isinstance(found.columns["label"], str):
        yield f"      separator: {_text(found.separator)}"
    yield from _labels(found)
    others = [x for x in METRICS[found.kind] if x != found.metric]
    note = found.notes.get("metric") or f"or {', '.join(others)}"
    yield f"      metric: {found.metric}{_note(note)}"
    if found.metric == "macro_f1" and found.kind == "classification":
        yield "      # Classes differ in size; balanced lets each count alike."
        yield "      # class_weights: balanced"
    if settings.lengths.longer > 0.01 and found.kind in _WINDOWED:
        stride = max(1, settings.lengths.chosen // 4)
        yield "      # Reads longer texts in windows that share so many tokens."
        yield f"      # stride: {stride}"


def _labels(found: FoundTask) -> Iterator[str]:
    if found.labels is None or isinstance(found.columns.get("label"), list):
        return
    if found.counts:
        most = sorted(found.counts.items(), key=lambda x: -x[1])[:_MOST_SHOWN]
        shown = ", ".join(f"{name} {count:,}" for name, count in most)
        if len(most) < len(found.counts):
            shown += ", ..."
        yield f"      {_comment(f'Rows: {shown}')}"
    yield "      labels:"
    listed = yaml.safe_dump(
        list(found.labels),
        default_flow_style=True,
        allow_unicode=True,
        width=_WIDTH - 8,
    )
    for line in listed.rstrip().splitlines():
        yield f"        {line}"


def _training(settings: Settings) -> Iterator[str]:
    lengths, work = settings.lengths, settings.work
    updates = math.ceil(work.rows / settings.batch_size)
    yield f"  # 99% of the texts have at most {lengths.typical:,} tokens."
    if lengths.longer > 0.01:
        yield f"  # {lengths.longer:.0%} have more than are read."
    yield f"  max_length: {lengths.chosen}"
    if lengths.question:
        room = lengths.chosen - lengths.question - 3
        yield f"  max_question: {lengths.question}"
        yield f"  stride: {max(1, min(128, room // 2))}"
    yield f"  batch_size: {settings.batch_size}"
    yield f"  epochs: {work.epochs}  # of {updates:,} updates"
    yield "  seeds: [0]  # more of them say how much is chance"
    yield ""


def _outputs(settings: Settings) -> Iterator[str]:
    yield "evaluate:"
    yield f"  latency_length: {settings.lengths.chosen}"
    yield ""
    yield "export:"
    yield "  # 8-bit weights, for phones. Others: saved_model, onnx,"
    yield "  # hugging_face, litert_float32."
    yield "  formats: [litert_dynamic_int8]"


def _text(value: Any) -> str:
    """Returns a value in YAML, in one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=math.inf
    )
    return text.rstrip().removesuffix("...").rstrip()


def _comment(text: str) -> str:
    """Returns a comment in one line, without what YAML cannot hold."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return f"# {' '.join(shown.split())}"


def _note(text: str | None) -> str:
    return f"  {_comment(text)}" if text else ""


def _listed(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:_MOST_SHOWN])
    return shown + (", ..." if len(labels) > _MOST_SHOWN else "")
