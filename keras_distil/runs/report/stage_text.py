"""The stages in which students learn tasks, in words."""

from collections.abc import Sequence

from keras_distil import config
from keras_distil.config.finetune_overrides import FineTuneStage
from keras_distil.losses import registry
from keras_distil.training.metrics import find_metric


def describe_stages(recipe: config.Recipe) -> list[str]:
    """Returns sentences on the stages of a recipe; none if it has none."""
    settings = recipe.finetune
    if settings is None or "student" not in settings.rows:
        return []
    said = []
    if settings.stages is not None:
        said.append(f"Students learn tasks in {_list(settings.stages)}.")
    for task in settings.task_names:
        own = settings.by_task.get(task)
        if own is not None and own.stages is not None:
            said.append(f"Students learn {task} in {_list(own.stages)}.")
    if said:
        said.append(
            "The best epoch is one of the last stage; other models train on "
            "the labels for as many epochs as all stages have."
        )
    return said


def _list(stages: Sequence[FineTuneStage]) -> str:
    described = "; then ".join(map(_describe, stages))
    return f"{_count(len(stages), 'stage')}: {described}"


def _describe(stage: FineTuneStage) -> str:
    captions = [
        find_metric(f"{name}_loss", kinds=registry.TASK_KINDS).caption
        for name in stage.losses.by_name
    ]
    return f"{_count(stage.epochs, 'epoch')} with {', '.join(captions)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
