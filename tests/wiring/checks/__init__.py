"""Checks that every key of a recipe takes effect in a run.

There is one entry per key: the run to look at and what is seen there, which
must equal the recipe's value or, if the key shows in another way, the value
given with it. Each module has the keys of a part of the recipe.
"""

from checks import (  # noqa: F401
    data,
    distillation,
    embeddings,
    own_tasks,
    schedules,
    search,
    student,
    tasks,
    teacher,
    uses,
    whole_recipe,
)
from checks.table import CHECKS, ITSELF

__all__ = ["CHECKS", "ITSELF"]
