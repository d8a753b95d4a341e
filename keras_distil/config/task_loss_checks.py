"""Whether losses suit the tasks that they are for."""

from collections.abc import Mapping
from typing import Any

from keras_distil.config.losses_section import AnyLossMap
from keras_distil.losses import registry

_OUTPUTS = {
    "regression": "predicts a number",
    "multi_label": "has labels that do not exclude each other",
}


def count_teachers(task: str, given: Mapping[str, Any]) -> int:
    """Counts the teachers of a student, from valid settings.

    Args:
        task: the task's name.
        given: settings of the section `finetune`.
    """
    if given["teacher_seeds"] == "own":
        return 1
    own = given["by_task"].get(task)
    return len((own and own.seeds) or given["seeds"])


def check_teachers(losses: AnyLossMap, count: int, prefix: str) -> None:
    """Raises ValueError if a loss names a teacher that does not exist."""
    for name, settings in losses.by_name.items():
        number = getattr(settings, "teacher", 0)
        if number >= count:
            raise ValueError(
                f"{prefix}{name}.teacher must be below {count}, the number of "
                "a student's teachers: one, or with `teacher_seeds: all` one "
                "for each of the task's seeds. Received: "
                f"{prefix}{name}.teacher={number}."
            )


def check_kind(losses: AnyLossMap, task: str, kind: str, prefix: str) -> None:
    """Raises ValueError if a loss is not for a task's kind."""
    known = registry.rows_for([kind])
    wrong = [name for name in losses.by_name if name not in known]
    if wrong:
        outputs = _OUTPUTS.get(kind, f"is a {kind}")
        raise ValueError(
            f"{prefix}{wrong[0]} is for classes, and the task {task} "
            f"{outputs}; leave one of them out. Received: {wrong[0]}. "
            f"Losses for all tasks: {', '.join(known)}."
        )


def check_teacher_labels(losses: AnyLossMap, task: str, where: str) -> None:
    """Raises ValueError if losses learn nothing from unlabelled text."""
    named = losses.by_name
    if not any(each.weight for x, each in named.items() if x != "label"):
        raise ValueError(
            f"`by_task.{task}.unlabelled` needs a loss besides label{where}, "
            "because only the teacher labels it; add soft_target. Received: "
            f"{', '.join(named)}."
        )
