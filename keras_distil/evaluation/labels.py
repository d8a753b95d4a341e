"""Which of a model's outputs is which class of a task."""

import re
from collections.abc import Sequence

import numpy as np

_NUMBERED = re.compile(r"(?:label_)?(\d{1,6})", re.IGNORECASE | re.ASCII)


def class_columns(
    labels: Sequence[str] | None, classes: Sequence[str], task: str
) -> np.ndarray | None:
    """The output that each class of a task has in a model.

    Names are compared without regard to case, and `-`, `_` and spaces are
    alike. `LABEL_0` (or `0`) is the task's own class 0.

    Args:
        labels: the model's, in the order of its outputs; None for none.
        classes: names of the task's classes, in the order of their ids.
        task: its name, for the message.

    Returns:
        int64, (classes,); None if the outputs are in the task's order.

    Raises:
        ValueError: if a name is not the task's.

    Example:
        >>> class_columns(["No", "YES"], ["yes", "no"], "toy")
        array([1, 0])
    """
    if labels is None:
        return None
    numbers = [_NUMBERED.fullmatch(label) for label in labels]
    if all(numbers):
        names = [str(int(found[1])) for found in numbers if found]
        wanted = [str(i) for i in range(len(classes))]
    else:
        names = [_plain(label) for label in labels]
        wanted = [_plain(name) for name in classes]
    if sorted(names) != sorted(wanted):
        raise ValueError(
            f"The model's classes are {list(labels)}, those of {task} "
            f"{list(classes)}. Give them the task's names in `id2label` of "
            "its config.json, or take a model of this task."
        )
    columns = np.array([names.index(name) for name in wanted])
    return None if (columns == np.arange(len(names))).all() else columns


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()
