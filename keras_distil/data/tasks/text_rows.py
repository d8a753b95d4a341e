"""Rows of texts with labels: read once to check them, again to encode them."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_distil.data.tasks.columns import find_columns
from keras_distil.data.tasks.dev_split import digests_of, text_digests
from keras_distil.data.tasks.label_columns import (
    ClassColumn,
    MultiLabelColumn,
    NumberColumn,
)
from keras_distil.data.tasks.tables import Table

_KINDS = ("classification", "multi_label", "regression")
# Share of the rows that may be left out for lack of a text or a label.
_MOST_LEFT_OUT = 0.5

_Column: TypeAlias = ClassColumn | MultiLabelColumn | NumberColumn
# First texts, and second texts or None.
Texts: TypeAlias = tuple[list[str], list[str] | None]


@dataclasses.dataclass(frozen=True)
class RowForm:
    """How the rows of a task are written.

    Attributes:
        kind: "classification", "multi_label" or "regression".
        columns: names of columns by what they hold, as in a recipe.
        separator: what stands between the labels of a text.
    """

    kind: str = "classification"
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    separator: str = "|"


@dataclasses.dataclass(frozen=True, eq=False)
class TextRows:
    """The usable rows of some tables. Their texts stay on disk.

    Attributes:
        name: the tables, for messages.
        digests: uint64, (rows,), hashes of the texts; see `text_digests`.
        labels: int32 classes or float32 numbers, (rows,), or float32 0 and 1,
            (rows, labels); None without labels.
        label_names: names of the classes; None for numbers.
        ids: uint64, (rows,), hashes of the rows' ids; None if the tables have
            none.
        left_out: numbers of rows that are not used, by reason.
        tables: each with the columns of its texts and a bool for each row,
            whether it is used.
    """

    name: str
    digests: np.ndarray
    labels: np.ndarray | None
    label_names: tuple[str, ...] | None
    ids: np.ndarray | None
    left_out: Mapping[str, int]
    tables: Sequence[tuple[Table, list[str], np.ndarray]]

    def __len__(self) -> int:
        """The number of usable rows."""
        return len(self.digests)

    @property
    def is_pair(self) -> bool:
        """Whether a row has two texts."""
        return len(self.tables[0][1]) == 2

    def texts(self) -> Iterator[Texts]:
        """Reads the texts of all usable rows, some thousand at a time."""
        for table, columns, used in self.tables:
            begin = 0
            for places, values in table.batches(columns):
                chosen = np.flatnonzero(used[begin : begin + len(places)])
                begin += len(places)
                kept = [[column[i] for i in chosen] for column in values]
                yield kept[0], kept[1] if len(kept) == 2 else None
            if begin != len(used):
                raise ValueError(
                    f"{table.name} must not change while it is read. Received: "
                    f"{begin:,} rows, and {len(used):,} before. Start again."
                )

    def remarks(self) -> list[str]:
        """Lines on rows that are left out and on texts that are repeated."""
        total = len(self) + sum(self.left_out.values())
        lines = [
            f"{count:,} of the {total:,} rows of {self.name} {reason} and "
            f"{'is' if count == 1 else 'are'} left out."
            for reason, count in self.left_out.items()
        ]
        repeated = len(self) - len(np.unique(self.digests))
        if repeated:
            lines.append(
                f"{repeated:,} of the {total:,} rows of {self.name} repeat the "
                "text of another one."
            )
        return lines


def read_text_rows(
    tables: Sequence[Table],
    form: RowForm,
    *,
    label_names: Sequence[str] | None = None,
    origin: str = "`labels`",
    needs_labels: bool = True,
) -> TextRows:
    """Reads and checks all rows of some tables, and keeps what is small.

    Rows without a text, and rows without a label among others with one, are
    left out and counted.

    Args:
        tables: the tables, whose rows follow each other.
        form: how the rows are written.
        label_names: all classes in the order of the outputs; None to take
            those of the rows, sorted.
        origin: where `label_names` come from, for messages.
        needs_labels: whether there must be labels; a test set may have none.

    Returns:
        The rows.

    Raises:
        ValueError: if a column is missing, a value is invalid, an id is there
            twice, or half of the rows cannot be used.
    """
    reader = _Reader(form, label_names, origin, needs_labels)
    for table in tables:
        reader.read(table)
    return reader.finish(", ".join(table.name for table in tables))


class _Reader:
    """Collects the rows of tables."""

    def __init__(
        self,
        form: RowForm,
        names: Sequence[str] | None,
        origin: str,
        needs_labels: bool,
    ) -> None:
        if form.kind not in _KINDS:
            raise ValueError(
                f"`kind` must be one of {list(_KINDS)}. "
                f"Received: {form.kind!r}."
            )
        self._form = form
        self._names, self._origin = names, origin
        self._needs_labels = needs_labels
        self._label: _Column | None = None
        self._left_out: Counter[str] = Counter()
        self._digests: list[np.ndarray] = []
        self._ids: list[np.ndarray] = []
        self._tables: list[tuple[Table, list[str], np.ndarray]] = []
        self._columns: dict[str, list[str]] = {}

    def read(self, table: Table) -> None:
        """Adds the rows of a table."""
        columns = find_columns(
            table,
            ("text", "text_pair", "label", "id"),
            self._form.columns,
            optional=() if self._needs_labels else ("label",),
            is_number=self._form.kind == "regression",
        )
        self._check_alike(columns)
        texts = columns["text"] + columns.get("text_pair", [])
        labels, ids = columns.get("label", []), columns.get("id", [])
        if labels and self._label is None:
            self._label = self._make_label(labels)
        used = []
        for places, values in table.batches([*texts, *labels, *ids]):
            where = table.places(places)
            of_texts = values[: len(texts)]
            _check_texts(of_texts, texts, where)
            keep = self._without_empty(of_texts)
            if self._label is not None:
                of_labels = values[len(texts) : len(texts) + len(labels)]
                codes = self._label.read(of_labels, where)
                keep &= self._with_label(codes, keep)
                self._label.keep([codes[i] for i in np.flatnonzero(keep)])
            chosen = np.flatnonzero(keep)
            kept = of_texts
            if len(chosen) < len(keep):
                kept = [[column[i] for i in chosen] for column in of_texts]
            self._add_digests(kept, table.places([places[i] for i in chosen]))
            if ids:
                self._ids.append(
                    digests_of([str(values[-1][i]) for i in chosen])
                )
            used.append(keep)
        self._tables.append((table, texts, np.concatenate(used)))

    def _check_alike(self, columns: dict[str, list[str]]) -> None:
        """Refuses files of one list that hold different things."""
        if self._columns and set(columns) != set(self._columns):
            raise ValueError(
                "The files of a list must hold the same. Received: "
                f"{sorted(self._columns)} and {sorted(columns)}. Name the "
                "columns in `columns`, or read the files as two tasks."
            )
        self._columns = columns

    def _make_label(self, columns: list[str]) -> _Column:
        if self._form.kind == "regression":
            return NumberColumn()
        if self._form.kind == "classification":
            return ClassColumn(self._names, self._origin)
        return MultiLabelColumn(
            self._names,
            separator=self._form.separator,
            columns=columns,
            origin=self._origin,
        )

    def _without_empty(self, texts: list[list[str]]) -> np.ndarray:
        keep = np.ones(len(texts[0]), bool)
        for column in texts:
            keep &= [bool(text) and not text.isspace() for text in column]
        if not keep.all():
            self._left_out["have an empty text"] += int((~keep).sum())
        return keep

    def _with_label(self, codes: list[Any], keep: np.ndarray) -> np.ndarray:
        has_label = np.array([code is not None for code in codes], bool)
        missing = int((keep & ~has_label).sum())
        if missing:
            self._left_out["have no label"] += missing
        return has_label

    def _add_digests(
        self, texts: list[list[str]], where: Sequence[str]
    ) -> None:
        second = texts[1] if len(texts) == 2 else None
        try:
            self._digests.append(text_digests(texts[0], second))
        except UnicodeEncodeError:
            for place, *row in zip(where, *texts, strict=True):
                if not all(map(_is_whole, row)):
                    raise ValueError(
                        f"{place}: the text must hold whole characters. "
                        "Received: half a surrogate pair."
                    ) from None
            raise

    def finish(self, name: str) -> TextRows:
        """Checks all rows together."""
        digests = np.concatenate(self._digests)
        left_out = sum(self._left_out.values())
        if not len(digests) or left_out > _MOST_LEFT_OUT * (
            len(digests) + left_out
        ):
            reasons = [f"{n:,} {why}" for why, n in self._left_out.items()]
            raise ValueError(
                f"{name}: at least half of the rows must have a text and a "
                f"label. Received: of {len(digests) + left_out:,} rows "
                f"{' and '.join(reasons)}. Name the right columns in `columns`."
            )
        labels, names = None, None
        if self._label is not None:
            labels, names = self._label.finish(name)
        return TextRows(
            name=name,
            digests=digests,
            labels=labels,
            label_names=names,
            ids=self._checked_ids(name),
            left_out=dict(self._left_out),
            tables=self._tables,
        )

    def _checked_ids(self, name: str) -> np.ndarray | None:
        if not self._ids:
            return None
        ids = np.concatenate(self._ids)
        order = np.argsort(ids, kind="stable")
        repeated = np.flatnonzero(np.diff(ids[order]) == 0)
        if len(repeated):
            first = int(order[repeated[0] + 1])
            raise ValueError(
                f"{name}: ids must be different. Received: "
                f"{self._id_of_row(first)!r:.80} for two rows or more. Name "
                "another column in `columns.id`, or set `id: false`."
            )
        return ids

    def _id_of_row(self, row: int) -> Any:
        """Reads the id of a usable row again."""
        for table, _, used in self._tables:
            count = int(used.sum())
            if row < count:
                place = int(np.flatnonzero(used)[row])
                rows = itertools.islice(table.rows(), place, None)
                at = table.columns.index(self._columns["id"][0])
                return next(rows)[1][at]
            row -= count
        raise IndexError(row)


def _check_texts(
    texts: list[list[Any]], columns: list[str], where: Sequence[str]
) -> None:
    """Replaces missing texts by empty ones; refuses what is no text."""
    for column, name in zip(texts, columns, strict=True):
        if set(map(type, column)) == {str}:
            continue
        for i, value in enumerate(column):
            if value is None or value != value:
                column[i] = ""
            elif not isinstance(value, str):
                raise ValueError(
                    f"{where[i]}: the text in {name!r} must be a text. "
                    f"Received: {value!r:.80}."
                )


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
