"""Looks at a file and a teacher, and proposes a recipe."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np

from keras_distil import config
from keras_distil.config.finetune_section import NAMES
from keras_distil.data.tasks.span_rows import SPAN_SUFFIXES
from keras_distil.data.tasks.tables import TABLE_SUFFIXES
from keras_distil.planning.proposal.dev_file import find_dev_file
from keras_distil.planning.proposal.duration import Work, expected_seconds
from keras_distil.planning.proposal.found import FoundTask, count_tokens
from keras_distil.planning.proposal.parts import (
    find_span_task,
    find_word_task,
    part_columns,
)
from keras_distil.planning.proposal.rows import (
    check_suffix,
    find_encoding,
    read_sample,
    without_advice,
)
from keras_distil.planning.proposal.teacher import (
    FoundTeacher,
    find_teacher,
    match_labels,
)
from keras_distil.planning.proposal.texts import find_text_task
from keras_distil.planning.proposal.writing import Lengths, Settings, write
from keras_distil.runs import settled
from keras_distil.runs.trainers import task_defaults

DEV_FRACTION = 0.1
# Fewer rows than this teach and tell little.
_FEW_ROWS = 500
# Names of files that say nothing of what is in them.
_OF_EVERY_FILE = ("train", "training", "data", "all")
# Contexts are read in windows, which need not hold the longest.
_MOST_OF_SPANS = 384
# No text is longer, in tokens, than a model reads if it has more characters.
_CHARACTERS_PER_TOKEN = 40


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A recipe for a file.

    Attributes:
        name: of the recipe.
        text: the recipe, in YAML with comments.
        findings: what was seen, one line each.
        warnings: what the user should know, one line each.
    """

    name: str
    text: str
    findings: tuple[str, ...]
    warnings: tuple[str, ...]


def propose(path: Path, source: str, output: str | None = None) -> Proposal:
    """Proposes a recipe for a file and a teacher.

    All rows are counted and their labels read; the lengths are those of some
    thousand rows.

    Args:
        path: a file as in a task of one's own.
        source: the teacher, as for `find_teacher`.
        output: the recipe's path for its comments; None for its name.

    Raises:
        FileNotFoundError: if there is no such file or teacher.
        ValueError: if the file is invalid or has nothing to learn, or the
            teacher is for something else.
        ConnectionError: if the teacher cannot be downloaded.
    """
    suffix = check_suffix(path)
    teacher = find_teacher(source)
    try:
        found = _find_task(path, suffix, teacher.kind)
    except ValueError as error:
        raise ValueError(without_advice(error)) from error
    found = match_labels(found, teacher)
    lengths = _find_lengths(found, teacher)
    dev = find_dev_file(path, found.encoding)
    held_out = 0.0 if dev is not None else DEV_FRACTION
    train_rows = max(1, round((1 - held_out) * found.rows))
    defaults = task_defaults(train_rows, teacher.shape.hidden_dim, found.kind)
    work = Work(
        teacher=teacher.shape,
        student_layers=max(1, teacher.shape.num_layers // 2),
        rows=train_rows,
        tokens=lengths.mean,
        epochs=defaults.epochs,
        trains_teacher=teacher.kind is None,
    )
    precision = settled.measure_precision()
    flops = 1e9 * precision.gflops[precision.value]
    name = _name_of(path)
    settings = Settings(
        name=name,
        output=output or f"{name}.yaml",
        path=path,
        dev=dev,
        found=found,
        teacher=teacher,
        lengths=lengths,
        work=work,
        batch_size=defaults.batch_size,
        precision=precision,
        seconds=expected_seconds(work, flops),
    )
    text = write(settings)
    config.make_recipe(config.read_yaml(text, where="the proposed recipe"))
    return Proposal(
        name, text, tuple(settings.findings()), tuple(_warnings(settings))
    )


def _find_task(path: Path, suffix: str, wanted: str | None) -> FoundTask:
    encoding = find_encoding(path)
    if suffix in SPAN_SUFFIXES:
        return find_span_task(path, {}, encoding)
    if suffix not in TABLE_SUFFIXES:
        return find_word_task(path, {}, encoding)
    sample = read_sample(path, encoding)
    parts = part_columns(sample)
    if parts is None:
        found = find_text_task(sample, wanted)
    elif parts[0] == "span":
        found = find_span_task(sample.table, parts[1], encoding)
    else:
        found = find_word_task(sample.table, parts[1], encoding)
    return dataclasses.replace(found, encoding=encoding)


def _find_lengths(found: FoundTask, teacher: FoundTeacher) -> Lengths:
    """Finds how long texts are, and how many tokens a model should read."""
    if not found.texts:
        raise ValueError(
            "There must be rows with a text. Received: none. Give a file that "
            "has some, or name its column `text`."
        )
    most = teacher.most_tokens
    limit = min(most, _MOST_OF_SPANS) if found.kind == "span" else most
    counts = count_tokens(
        teacher.tokenizer, found.texts, _CHARACTERS_PER_TOKEN * most
    )
    typical = math.ceil(np.percentile(counts, 99))
    chosen = min(limit, max(8, 8 * math.ceil(typical / 8)))
    read = np.minimum(counts, chosen)
    question = 0
    if found.kind == "span":
        questions = [(text[0],) for text in found.texts]
        longest = max(count_tokens(teacher.tokenizer, questions, 40 * most))
        # Half of a window is left for the context.
        question = max(1, min(longest, chosen // 2 - 3))
    return Lengths(
        typical=typical,
        chosen=chosen,
        longer=float(np.mean(np.array(counts) > chosen)),
        mean=float(read.mean()),
        question=question,
    )


def _name_of(path: Path) -> str:
    """Returns a name for recipe and task, from that of file or folder."""
    stem = path.name.partition(".")[0].lower()
    if stem in _OF_EVERY_FILE:
        stem = path.resolve().parent.name.lower()
    name = re.sub(r"[^a-z0-9_-]+", "_", stem).strip("_-")[:90] or "task"
    return f"my_{name}" if name in NAMES else name


def _warnings(settings: Settings) -> list[str]:
    lines = []
    found = settings.found
    if found.rows < _FEW_ROWS and settings.dev is None:
        held_out = max(1, round(DEV_FRACTION * found.rows))
        lines.append(
            f"{found.rows:,} rows are few, and the {held_out:,} that are held "
            "out say little of a score: give more, or a `dev` file."
        )
    rare = [name for name, count in found.counts.items() if count < 10]
    if rare:
        lines.append(
            f"{len(rare)} of the {len(found.counts)} classes have fewer than "
            f"10 rows: {', '.join(rare)[:200]}."
        )
    return lines
