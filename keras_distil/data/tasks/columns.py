"""Which columns of a table hold a task's texts, labels and ids."""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_distil.data.tasks.tables import Table

# Obvious names, in lower case. A text alone, and the two texts of a pair.
_TEXTS = (
    "text",
    "sentence",
    "document",
    "content",
    "review",
    "body",
    "utterance",
)
_PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
LABELS = ("label", "labels", "class", "category", "target", "topic", "intent")
OBVIOUS: dict[str, tuple[str, ...]] = {
    "label": LABELS,
    "id": ("id",),
    "tokens": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "pos_tags", "labels"),
    "question": ("question",),
    "context": ("context", "passage", "paragraph"),
    "answers": ("answers", "answer"),
}
SCORES = ("score", "rating", "similarity", "value")
# What a row may lack.
_OPTIONAL = ("text_pair", "id")


def find_columns(
    table: Table,
    wanted: Sequence[str],
    given: Mapping[str, Any],
    *,
    optional: Sequence[str] = (),
    is_number: bool = False,
) -> dict[str, list[str]]:
    """Finds the columns of a table by what they hold.

    Args:
        table: the table.
        wanted: what is looked for, such as "text" and "label".
        given: names of columns by what they hold, from the recipe; a list for a
            label with a column per class, False for no ids.
        optional: what the table may lack besides second texts and ids.
        is_number: whether the label is a number to predict.

    Returns:
        Names of the columns by what they hold; without what the table lacks.

    Raises:
        ValueError: if a column does not exist, or none or several of them have
            an obvious name.
    """
    found: dict[str, list[str]] = {}
    for key, names in given.items():
        if names is not False:
            names = [names] if isinstance(names, str) else list(names)
            found[key] = [_existing(table, key, name) for name in names]
    missing = [key for key in wanted if key not in given]
    if "text" in missing:
        found |= _find_texts(table, is_pair="text_pair" in missing)
        missing = [x for x in missing if x not in ("text", "text_pair")]
    for key in missing:
        names = OBVIOUS.get(key, ())
        candidates = obvious_columns(
            table, names + SCORES if key == "label" and is_number else names
        )
        if len(candidates) == 1:
            found[key] = candidates
        elif candidates or key not in (*_OPTIONAL, *optional):
            raise ValueError(_unclear(table, key, candidates))
    return found


def _find_texts(table: Table, *, is_pair: bool) -> dict[str, list[str]]:
    """Finds one text, or the two of a pair, by obvious names."""
    pairs = [
        pair
        for pair in (obvious_columns(table, names) for names in _PAIRS)
        if len(pair) == 2
    ]
    if not is_pair:
        pairs = []
    texts = obvious_columns(table, _TEXTS)
    alone = [x for x in texts if not any(x in pair for pair in pairs)]
    if len(pairs) == 1 and not alone:
        first, second = pairs[0]
        return {"text": [first], "text_pair": [second]}
    if len(alone) == 1 and not pairs:
        return {"text": alone}
    several = [*alone, *(name for pair in pairs for name in pair)]
    raise ValueError(_unclear(table, "text", several))


def obvious_columns(table: Table, names: Sequence[str]) -> list[str]:
    """Returns the columns with one of the names, in the names' order."""
    by_name: dict[str, str] = {}
    for column in table.columns:
        by_name.setdefault(column.lower(), column)
    return [by_name[name] for name in names if name in by_name]


def _existing(table: Table, key: str, name: str) -> str:
    if table.columns.count(name) == 1:
        return name
    if name in table.columns:
        raise ValueError(
            f"{table.name}: the column {name!r}, which `columns.{key}` names, "
            f"is there {table.columns.count(name)} times. Give each its own "
            "name."
        )
    near = difflib.get_close_matches(name, table.columns, 1, cutoff=0.0)
    nearest = f" The nearest is {near[0]!r}." if near else ""
    raise ValueError(
        f"{table.name}: `columns.{key}` must name a column.{nearest} "
        f"Received: {name!r}. {as_read(table)}"
    )


def _unclear(table: Table, key: str, candidates: Sequence[str]) -> str:
    problem = "no column has an obvious name"
    if candidates:
        problem = f"{', '.join(candidates)} could all be meant"
    return (
        f"{table.name}: `columns.{key}` must name the column of the {key}; "
        f"{problem}. {as_read(table)}"
    )


def as_read(table: Table) -> str:
    """Shows what was read, where a wrong delimiter can be seen."""
    brief = reprlib.Repr()
    brief.maxlist = 12
    return (
        f"Columns as read: {brief.repr(list(table.columns))}. First row as "
        f"read: {brief.repr(table.first_row())}. Fields of .csv are separated "
        "by commas, of .tsv by tabs."
    )
