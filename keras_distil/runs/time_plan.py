"""Finds how many updates fit into the minutes that a recipe gives."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras

from keras_distil.runs.run_folder import Run
from keras_distil.runs.sections import distill_section
from keras_distil.runs.settled import (
    SettledSteps,
    keep,
    read_settled,
    with_steps,
)
from keras_distil.training import distribution
from keras_distil.utils.progress import Progress, duration

# The first update compiles, the next ones still fill caches.
_WARM_UP_UPDATES = 2
_TIMED_UPDATES = 10

# Trains as a run says, with one callback more.
Training: TypeAlias = Callable[[Run, keras.callbacks.Callback], Any]


def settle_steps(
    run: Run, trainings: Sequence[Training], *, began: float, rest_s: float
) -> None:
    """Replaces the minutes of a run's recipe with a number of updates.

    Formula:
        steps = floor((end - now - starts) / sum(seconds per update))
            end: `distill.minutes` after `began`, or the recipe's `minutes`
                after the start of the command, less `rest_s`
            starts: what each training takes before and after its updates,
                such as compiling

    A run that is continued keeps its number. Every worker takes the chief's.

    Args:
        run: the run; its recipe is replaced.
        trainings: the student's, and the baseline's if there is one.
        began: when the training began, in seconds of `time.monotonic`.
        rest_s: seconds that stages after the training take.

    Raises:
        ValueError: if the time is too short, or what the run settled on is
            damaged.
    """
    known = read_settled(run.folder).steps
    steps = distribution.take_from_chief(known.value if known else 0)
    if steps == 0:
        run.progress.say("Time some updates on this machine")
        found = _plan(run, trainings, began, rest_s)
        keep(run, steps=found)
        if run.writes:
            run.progress.say(_describe(found))
        steps = distribution.take_from_chief(found.value)
    run.recipe = with_steps(run.recipe, steps)


def _plan(
    run: Run, trainings: Sequence[Training], began: float, rest_s: float
) -> SettledSteps:
    timed = [_time_updates(run, training) for training in trainings]
    settings = distill_section(run.recipe)
    if settings.minutes is not None:
        end = began + 60 * settings.minutes
    else:
        end = run.progress.started + 60 * (run.recipe.minutes or 0) - rest_s
    update_s = sum(update for update, _ in timed)
    left = end - time.monotonic() - sum(start for _, start in timed)
    fewest = settings.warmup_steps + 1
    # The chief alone decides.
    if left < fewest * update_s and run.writes:
        more = duration(fewest * update_s - left)
        raise ValueError(
            "`minutes` leaves too little time to train here. One update takes "
            f"{update_s:.2f} s, and the run needs at least {fewest}, "
            f"`distill.warmup_steps` and one. Give at least {more} more."
        )
    return SettledSteps(
        value=max(1, int(left / update_s)),
        student_s=timed[0][0],
        baseline_s=timed[1][0] if len(timed) > 1 else None,
        left_s=max(left, update_s),
    )


def _time_updates(run: Run, training: Training) -> tuple[float, float]:
    """Returns the seconds per update, and those of all else.

    The training is that of the run, in a folder that is thrown away.
    """
    began = time.monotonic()
    clock = _Clock()
    updates = _WARM_UP_UPDATES + _TIMED_UPDATES
    with tempfile.TemporaryDirectory() as folder:
        scratch = dataclasses.replace(
            run,
            recipe=with_steps(run.recipe, updates),
            folder=Path(folder),
            progress=Progress(quiet=True),
        )
        training(scratch, clock)
    timed_s = clock.times[-1] - clock.times[_WARM_UP_UPDATES - 1]
    update_s = timed_s / _TIMED_UPDATES
    return update_s, time.monotonic() - began - updates * update_s


class _Clock(keras.callbacks.Callback):
    """Notes when each update is done."""

    has_training_state = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.times: list[float] = []

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # A device may still be at work on an update that was given to it.
        float((logs or {})["loss"])
        self.times.append(time.monotonic())


def _describe(steps: SettledSteps) -> str:
    each = f"{steps.student_s:.2f} s with the teacher"
    if steps.baseline_s is not None:
        each += f", {steps.baseline_s:.2f} s without (the baseline)"
    return (
        f"One update takes {each}: {duration(steps.left_s)} are enough for "
        f"{steps.value:,} updates"
    )
