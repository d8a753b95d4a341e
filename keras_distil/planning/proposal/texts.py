"""Tasks of whole texts in a table: classes, several labels, numbers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_distil.data.tasks.columns import (
    LABELS,
    SCORES,
    as_read,
    find_columns,
    obvious_columns,
)
from keras_distil.data.tasks.label_columns import (
    ClassColumn,
    MultiLabelColumn,
    NumberColumn,
)
from keras_distil.planning.proposal.found import FoundTask, Texts
from keras_distil.planning.proposal.labels import (
    LabelForm,
    are_flags,
    label_form,
    to_number,
)
from keras_distil.planning.proposal.rows import Sample

# Two columns are a pair of texts if both have as many words on average: dates,
# addresses and names of people have fewer.
_WORDS_OF_A_PAIR = 3
# A class with more of the rows than this makes accuracy say little.
_MOST_OF_ONE_CLASS = 0.7
_ID = ("id",)


@dataclasses.dataclass(frozen=True)
class _Choice:
    """A column, or columns of 0 and 1, as labels.

    Attributes:
        columns: one, or several of 0 and 1.
        form: what its values can be.
        rank: the smallest is the likeliest.
    """

    columns: list[str]
    form: LabelForm
    rank: tuple[int, int]


def find_text_task(sample: Sample, wanted: str | None) -> FoundTask:
    """Finds the texts and the labels of a table.

    Args:
        sample: its rows.
        wanted: the kind of the teacher; None for any.

    Returns:
        The task, with all labels of the file.

    Raises:
        ValueError: if there is no text or no label, or a label is invalid.
    """
    texts, notes = _find_texts(sample)
    choices = _find_labels(sample, [*texts.values()], wanted)
    chosen = choices[0]
    form = chosen.form
    kind = form.kind
    if wanted is not None and wanted == form.other:
        kind = wanted
    elif form.other is not None and wanted is None:
        notes["kind"] = f"or {form.other}"
    others = [", ".join(x.columns) for x in choices[1:]]
    if others:
        notes["label"] = f"or {', or '.join(others)}"
    label: Any = chosen.columns
    columns = {**texts, "label": label if len(label) > 1 else label[0]}
    counts, labels, missing = _read_labels(sample, chosen, kind)
    if _repeats_ids(sample, columns):
        columns["id"] = False
    metric = {"multi_label": "macro_f1", "regression": "pearson"}.get(kind, "")
    if kind == "classification":
        most = max(counts.values()) / sum(counts.values())
        metric = "macro_f1" if most > _MOST_OF_ONE_CLASS else "accuracy"
    return FoundTask(
        kind=kind,
        rows=sample.rows - missing,
        texts=_texts_of(sample, [*texts.values()]),
        columns=columns,
        labels=labels,
        counts=counts,
        metric=metric,
        separator=form.separator,
        notes=notes,
    )


def _find_texts(sample: Sample) -> tuple[dict[str, str], dict[str, str]]:
    """Finds the text, or the two of a pair, by name or as the longest."""
    try:
        found = find_columns(sample.table, ("text", "text_pair"), {})
        return {key: names[0] for key, names in found.items()}, {}
    except ValueError:
        pass
    sizes = {}
    for name, values in sample.values.items():
        given = [x for x in values if x is not None]
        if not given or not all(isinstance(x, str) for x in given):
            continue
        if any(to_number(x) is None for x in given):
            is_text = label_form(given, is_score=False) is None
            sizes[name] = is_text, sum(map(len, given)) / len(given)
    if not sizes:
        raise ValueError(
            f"{sample.table.name}: there must be a column of texts. "
            f"Received: none. {as_read(sample.table)}"
        )
    longest, *others = sorted(sizes, key=sizes.__getitem__, reverse=True)
    others = [name for name in others if sizes[name][0]]
    notes = {}
    both = [name for name in sample.values if name in (longest, *others)]
    if len(both) == 2 and all(_is_prose(sample.values[x]) for x in both):
        notes["text_pair"] = f"{both[0]} alone: remove this line"
        return {"text": both[0], "text_pair": both[1]}, notes
    if others:
        notes["text"] = f"or {', or '.join(others)}; two texts: add text_pair"
    return {"text": longest}, notes


def _is_prose(values: Sequence[Any]) -> bool:
    """Whether a column's texts have some words each."""
    words = [len(x.split()) for x in values if x is not None]
    return sum(words) >= _WORDS_OF_A_PAIR * len(words)


def _find_labels(
    sample: Sample, texts: Sequence[str], wanted: str | None
) -> list[_Choice]:
    """Finds what can be the labels, the likeliest first."""
    named = obvious_columns(sample.table, LABELS)
    scores = obvious_columns(sample.table, SCORES)
    ids = obvious_columns(sample.table, _ID)
    choices, flags = [], []
    for name, values in sample.values.items():
        if name in texts or name in ids:
            continue
        form = label_form(values, is_score=name in scores)
        if form is None:
            continue
        rank = _rank(form, values, name in named, name in scores)
        choices.append(_Choice([name], form, rank))
        if are_flags(values) and name not in named:
            flags.append(name)
    if len(flags) > 1:
        choices = [x for x in choices if x.columns[0] not in flags]
        choices.append(_Choice(flags, LabelForm("multi_label"), (2, 0)))
    choices.sort(key=lambda x: x.rank)
    fitting = [
        x for x in choices if wanted in (None, x.form.kind, x.form.other)
    ]
    if not fitting:
        raise ValueError(_no_labels(sample, choices, wanted))
    certain = fitting[0].rank[0] < 1
    return fitting[:1] if certain else fitting


def _rank(
    form: LabelForm, values: Sequence[Any], is_named: bool, is_score: bool
) -> tuple[int, int]:
    """Names come first, then few values, then lists, then numbers."""
    distinct = len({str(x) for x in values})
    if is_named:
        return 0, 0
    if is_score and form.kind == "regression":
        return 1, 0
    if distinct < 2 or (form.kind == "regression" and distinct == len(values)):
        # All alike, or a number of the row.
        return 9, distinct
    order = ("", "", "", "classification", "multi_label", "regression")
    return order.index(form.kind), distinct


def _no_labels(
    sample: Sample, choices: Sequence[_Choice], wanted: str | None
) -> str:
    name = sample.table.name
    if choices:
        first = choices[0]
        value = next(
            (x for x in sample.values[first.columns[0]] if x is not None), None
        )
        return (
            f"{name}: `--teacher` is a model for a {wanted}, and the column "
            f"{first.columns[0]!r} must hold labels of one. Received: values "
            f"of a {first.form.kind}, such as {value!r:.60}."
        )
    return (
        f"{name}: there must be a column of labels: classes that repeat, "
        "lists, or numbers. Received: none, unless each row has another one. "
        f"{as_read(sample.table)}"
    )


def _read_labels(
    sample: Sample, chosen: _Choice, kind: str
) -> tuple[dict[str, int], tuple[str, ...] | None, int]:
    """Reads the labels of all rows.

    Returns:
        Rows by label, the labels, and the number of rows without one.
    """
    reader: ClassColumn | MultiLabelColumn | NumberColumn
    if kind == "classification":
        reader = ClassColumn(_numbered(sample.values[chosen.columns[0]]))
    elif kind == "regression":
        reader = NumberColumn()
    else:
        reader = MultiLabelColumn(
            separator=chosen.form.separator, columns=chosen.columns
        )
    missing = 0
    table = sample.table
    for places, values in table.batches(chosen.columns):
        codes = reader.read(values, table.places(places))
        present = [code for code in codes if code is not None]
        missing += len(codes) - len(present)
        reader.keep(present)
    read, labels = reader.finish(table.name)
    if labels is None or kind != "classification":
        return {}, labels, missing
    counts = np.bincount(read, minlength=len(labels)).tolist()
    return dict(zip(labels, counts, strict=True)), labels, missing


def _numbered(values: Sequence[Any]) -> list[str] | None:
    """Returns the names of classes such as 1.0, which are written as numbers.

    A recipe that did not list them would take them for numbers to predict.
    """
    names = {str(x).strip() for x in values} - {"", "None", "nan"}
    if not any("." in name and to_number(name) is not None for name in names):
        return None
    return sorted(names)


def _repeats_ids(sample: Sample, columns: dict[str, Any]) -> bool:
    """Whether a column that a run would take for ids has one twice."""
    named = obvious_columns(sample.table, _ID)
    if len(named) != 1 or named[0] in columns.values():
        return bool(named)
    seen: set[int] = set()
    for _, (values,) in sample.table.batches(named):
        before = len(seen)
        seen.update(hash(str(value)) for value in values)
        if len(seen) < before + len(values):
            return True
    return False


def _texts_of(sample: Sample, names: Sequence[str]) -> Texts:
    columns = [sample.values[name] for name in names]
    return [
        texts
        for texts in zip(*columns, strict=True)
        if all(isinstance(x, str) and x.strip() for x in texts)
    ]
