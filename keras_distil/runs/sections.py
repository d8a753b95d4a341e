"""Gets a recipe's optional sections, or raises a one-line error."""

from keras_distil import config
from keras_distil.config.distill_section import DistillSection
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.config.model_sections import StudentSection


def distill_section(recipe: config.Recipe) -> DistillSection:
    """The recipe's `distill` section.

    Raises:
        ValueError: if the recipe does not have one.
    """
    if recipe.distill is None:
        raise ValueError(f"The recipe {recipe.name!r} distils nothing.")
    return recipe.distill


def finetune_section(recipe: config.Recipe) -> FineTuneSection:
    """The recipe's `finetune` section.

    Raises:
        ValueError: if the recipe does not have one.
    """
    if recipe.finetune is None:
        raise ValueError(f"The recipe {recipe.name!r} has no tasks.")
    return recipe.finetune


def search_settings(recipe: config.Recipe) -> config.SearchSection:
    """The recipe's `search` section.

    Raises:
        ValueError: if the recipe does not have one.
    """
    if recipe.search is None:
        raise ValueError(f"The recipe {recipe.name!r} searches nothing.")
    return recipe.search


def student_section(recipe: config.Recipe) -> StudentSection:
    """The recipe's `student` section.

    Raises:
        ValueError: if the recipe does not have one.
    """
    if recipe.student is None:
        raise ValueError(f"The recipe {recipe.name!r} has no student.")
    return recipe.student
