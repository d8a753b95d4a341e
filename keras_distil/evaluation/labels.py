"""Matches a model's outputs to the classes of a task."""

import re
from collections.abc import Sequence

import numpy as np

_NUMBERED = re.compile(r"(?:label_)?(\d{1,6})", re.IGNORECASE | re.ASCII)


def class_columns(
    labels: Sequence[str] | None, classes: Sequence[str], task: str
) -> np.ndarray | None:
    """Returns the column of a model's outputs for each class of a task.

    Names are compared without regard to case, and `-`, `_` and spaces are
    equal. `LABEL_0` (or `0`) is the task's class 0.

    Args:
        labels: the model's labels, in the order of its outputs, or None.
        classes: names of the task's classes, in the order of their ids.
        task: name of the task, for the message.

    Returns:
        int64, (classes,); None if the outputs are in the task's order.

    Raises:
        ValueError: if a name is not one of the task's.

    Example:
        >>> class_columns(["No", "YES"], ["yes", "no"], "toy")
        array([1, 0])
    """
    if labels is None:
        return None
    numbers = [_NUMBERED.fullmatch(label) for label in labels]
    if all(numbers):
        names = [str(int(match[1])) for match in numbers if match]
        task_names = [str(i) for i in range(len(classes))]
    else:
        names = [plain_name(label) for label in labels]
        task_names = [plain_name(name) for name in classes]
    if sorted(names) != sorted(task_names):
        difference = _difference(
            dict(zip(names, labels, strict=True)),
            dict(zip(task_names, classes, strict=True)),
        )
        raise ValueError(
            f"The model's classes are {list(labels)!r:.200}, those of {task} "
            f"{list(classes)!r:.200}{difference}. Give "
            "them the task's names in `id2label` of its config.json (in the "
            "`labels.json` of a preset), or use a model of this task."
        )
    columns = np.array([names.index(name) for name in task_names])
    return None if (columns == np.arange(len(names))).all() else columns


def _difference(theirs: dict[str, str], ours: dict[str, str]) -> str:
    """Says which classes only one side has; the names by their plain form."""
    said = ""
    for what, one, other in (
        ("no output is for", ours, theirs),
        ("no label is", theirs, ours),
    ):
        missing = [name for plain, name in one.items() if plain not in other]
        if missing:
            said += f"; {what} {', '.join(map(repr, missing))}"[:200]
    return said


def plain_name(name: str) -> str:
    """Returns the form of a name in which classes are compared."""
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()
