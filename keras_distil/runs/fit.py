"""Calls `fit` with the callbacks that every training of a run has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_distil import callbacks
from keras_distil.config.distill_section import DistillSection
from keras_distil.config.model_sections import TeacherTraining
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.run_folder import CHECKPOINTS, LOGS, METRICS_FILE, Run
from keras_distil.training.distiller import Distiller


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
    )
    with run.progress.bar(f"Train {stage} (steps)", steps * epochs) as bar:
        trainer.fit(
            batches,
            steps_per_epoch=steps,
            epochs=epochs,
            callbacks=[
                *first,
                state,
                board,
                callbacks.MetricsLog(run.folder / METRICS_FILE, stage=stage),
                callbacks.ProgressBar(bar, state),
            ],
            verbose=0,
        )
