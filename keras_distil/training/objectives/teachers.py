"""The teacher of a Distiller: none, one, or several models."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

from keras_distil.teachers import (
    CachedTaskTeacher,
    CachedTeacher,
    StoredTeacher,
)

Teacher: TypeAlias = (
    keras.Model | StoredTeacher | Sequence[keras.Model | StoredTeacher] | None
)


def check_teacher(teacher: Any) -> Teacher:
    """Checks that a list of teachers holds models that can be told apart.

    Args:
        teacher: the user's value.

    Returns:
        A list of one as the teacher in it; anything else as it is.

    Raises:
        TypeError: if a list holds anything but models.
        ValueError: if a list is empty, or two of its models share weights.
    """
    if not isinstance(teacher, list | tuple):
        return teacher
    if not teacher:
        raise ValueError(
            "A list of teachers must hold at least one model; without a "
            "teacher it is None. Received: teacher=[]."
        )
    if len(teacher) == 1:
        return teacher[0]
    for number, each in enumerate(teacher):
        if isinstance(each, CachedTeacher):
            raise TypeError(
                "A cached teacher cannot be one of several: give the model "
                f"itself. Received: teacher[{number}]={each.name}."
            )
        if not isinstance(each, keras.Model | CachedTaskTeacher):
            raise TypeError(
                "A list of teachers must hold Keras models. Received: "
                f"teacher[{number}]={each!r:.80} (of type "
                f"{type(each).__name__})."
            )
    _check_nothing_shared(teacher)
    return list(teacher)


def _check_nothing_shared(teachers: Sequence[Any]) -> None:
    owners: dict[int, int] = {}
    for number, each in enumerate(teachers):
        for variable in getattr(each, "weights", ()):
            owner = owners.setdefault(id(variable), number)
            if owner != number:
                raise ValueError(
                    "Teachers must not share weights, which a saved Distiller "
                    "would hold for one of them only: give a copy, or leave "
                    f"one out. Received: teacher[{number}] with "
                    f"{variable.path!r} of teacher[{owner}]."
                )


def list_teachers(teacher: Teacher) -> list[Any]:
    """Returns all teachers, models or a cached one, as a list."""
    if teacher is None:
        return []
    return list(teacher) if isinstance(teacher, list | tuple) else [teacher]


def live_teachers(teacher: Teacher) -> list[keras.Model]:
    """Returns the teachers that are models in memory."""
    return [x for x in list_teachers(teacher) if isinstance(x, keras.Model)]


def check_each(teachers: Sequence[Any], check: Callable[[Any], object]) -> None:
    """Checks every teacher; of several, an error tells the number.

    Args:
        teachers: the teachers.
        check: raises TypeError or ValueError.
    """
    for number, teacher in enumerate(teachers):
        try:
            check(teacher)
        except (TypeError, ValueError) as error:
            if len(teachers) == 1:
                raise
            raise type(error)(f"teacher[{number}]: {error}") from None
