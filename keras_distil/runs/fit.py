"""Calls `fit` with the callbacks that every training of a run has."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras_hub.models import MaskedLM

from keras_distil import callbacks
from keras_distil.config.distill_section import DistillSection
from keras_distil.config.model_sections import TeacherTraining
from keras_distil.losses.chunked import JitCompile
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.run_folder import CHECKPOINTS, LOGS, METRICS_FILE, Run
from keras_distil.runs.settled import keep, read_settled
from keras_distil.training import compilation, distribution
from keras_distil.training.distiller import Distiller
from keras_distil.utils.progress import Progress, duration

# The first updates compile and fill caches.
_WARM_UP_UPDATES = 2
_TIMED_UPDATES = 10

_COMPILED: tuple[JitCompile, ...] = (False, True, "products")


def settle_jit_compile(run: Run, trainer: Distiller) -> None:
    """Has every training of a run on text compile the same.

    The first one chooses, and the run keeps it. One that was begun by a version
    without a choice goes on as it began.

    Args:
        run: the run.
        trainer: compiled with `jit_compile="auto"`, or told what to compile.
    """
    known = read_settled(run.folder).jit_compile
    if known is None:
        begun = any((run.folder / CHECKPOINTS / "distill").glob("*"))
        known = True if begun else trainer.jit_compiled
        keep(run, jit_compile=known)
        if known and isinstance(trainer.student, MaskedLM) and not begun:
            times = compilation.vocabulary_times(trainer.student)
            run.progress.say(f"Fastest here: {times}")
    place = distribution.take_from_chief(_COMPILED.index(known))
    trainer.keep_jit_compile(_COMPILED[place])


def fit_on_text(
    run: Run,
    stage: str,
    trainer: Distiller,
    batches: tf.data.Dataset,
    settings: DistillSection | TeacherTraining,
    steps: int,
    first: Sequence[keras.callbacks.Callback] = (),
    *,
    examples: Any = None,
    after: tuple[int, str] | None = None,
) -> None:
    """Trains a masked-LM model for a number of updates.

    Args:
        run: the run.
        stage: name of the stage in the logs.
        trainer: a compiled trainer.
        batches: an endless dataset.
        settings: the recipe's section for this stage.
        steps: int >= 1, updates.
        first: callbacks that come before those of every stage.
        examples: a batch to show in TensorBoard; None for nothing.
        after: see `fit_steps`.
    """
    fit_steps(
        run,
        stage,
        trainer,
        batches,
        steps=steps,
        first=first,
        states=run.folder / CHECKPOINTS / stage,
        hparams={
            "stage": stage,
            "seed": run.recipe.seed,
            "learning_rate": settings.learning_rate,
            "batch_size": settings.batch_size,
        },
        examples=examples,
        after=after,
    )


def fit_steps(
    run: Run,
    stage: str,
    trainer: Distiller,
    batches: tf.data.Dataset,
    *,
    steps: int,
    epochs: int = 1,
    first: Sequence[keras.callbacks.Callback] = (),
    states: Path,
    hparams: dict[str, Any],
    examples: Any = None,
    after: tuple[int, str] | None = None,
    before: int = 0,
    part: str = "",
) -> None:
    """Trains for `epochs` times `steps` updates, from where it last stopped.

    Args:
        run: the run.
        stage: name of the stage in logs and progress.
        trainer: a compiled trainer.
        batches: an endless or long enough dataset of Keras triples.
        steps: int >= 1, updates per epoch.
        epochs: int >= 1.
        first: callbacks that come before the others.
        states: folder for the training states.
        hparams: for TensorBoard's table of hyperparameters.
        examples: a batch to show in TensorBoard; None for nothing.
        after: updates of trainings that follow, none of them slower, and what
            these trainings are; for the estimate of the run's duration.
        before: updates of earlier parts of the stage, after which its logs go
            on.
        part: which part of the stage this is, for the progress.
    """
    state = callbacks.TrainingState(
        states, every_steps=run.recipe.checkpoint_steps
    )
    board = callbacks.TensorBoard(
        run.folder / LOGS / stage,
        texts={"recipe": callbacks.code_block(run.trained_recipe)},
        hparams=hparams,
        examples=examples,
        tokenizer=None if examples is None else load_tokenizer(run.recipe),
        samples=run.recipe.evaluate.samples,
        before=before,
    )
    title = f"Train {stage}{part} (steps)"
    with run.progress.bar(title, steps * epochs) as bar:
        trainer.fit(
            batches,
            steps_per_epoch=steps,
            epochs=epochs,
            callbacks=[
                *first,
                state,
                board,
                callbacks.MetricsLog(
                    run.folder / METRICS_FILE, stage=stage, before=before
                ),
                callbacks.ProgressBar(bar, state),
                _Forecast(run.progress, steps * epochs, state, after),
            ],
            verbose=0,
        )


class _Forecast(keras.callbacks.Callback):
    """Says once, after some timed updates, how long all of them take here."""

    # What it says is counted from the model.
    has_training_state = False

    def __init__(
        self,
        progress: Progress,
        steps: int,
        state: callbacks.TrainingState,
        after: tuple[int, str] | None,
    ) -> None:
        super().__init__()
        self._progress = progress
        self._steps = steps
        self._state = state
        self._after = after
        self._times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Times the updates."""
        if len(self._times) > _WARM_UP_UPDATES + _TIMED_UPDATES:
            return
        self._times.append(time.monotonic())
        if len(self._times) <= _WARM_UP_UPDATES + _TIMED_UPDATES:
            return
        each = (self._times[-1] - self._times[_WARM_UP_UPDATES]) / (
            _TIMED_UPDATES
        )
        done = int(self.model.optimizer.iterations.numpy())
        left = self._steps - (done - self._state.first_update)
        text = f"An update takes {each:.3g} s here: {duration(each * left)} for"
        text += f" the other {left:,}"
        if self._after is not None and self._after[0]:
            updates, what = self._after
            text += f", then at most {duration(each * updates)} for {what}"
        if left > _TIMED_UPDATES:
            self._progress.say(text)
