"""`keras-distil search`: runs a tuner over the trials of a recipe."""

import contextlib
import itertools
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine.trial import TrialStatus

from keras_distil import config
from keras_distil.config import search_section
from keras_distil.runs.corpus import prepare_corpus
from keras_distil.runs.embeddings.teacher import load_checked_embedder
from keras_distil.runs.run_folder import TRIALS, Run
from keras_distil.runs.sections import distill_section, search_settings
from keras_distil.runs.teacher import TeacherInMemory, load_checked_teacher
from keras_distil.search import results
from keras_distil.search.embedding_trials import EmbeddingTrials
from keras_distil.search.hypermodel import STATE
from keras_distil.search.trials import CHOSEN, RecipeTrials
from keras_distil.training.metrics import find_metric

# Environment variables of KerasTuner's distributed search.
TUNER_ID = "KERASTUNER_TUNER_ID"
ORACLE_IP = "KERASTUNER_ORACLE_IP"
ORACLE_PORT = "KERASTUNER_ORACLE_PORT"


def run_search(run: Run) -> dict[str, Any] | None:
    """Searches a recipe's settings, or continues a search.

    Under KerasTuner's environment variables, this process is the chief of a
    search or one of its workers.

    Args:
        run: as returned by `open_run`.

    Returns:
        The content of `search.json`: the recipe's own values and every trial,
        with their scores. None for a worker.

    Raises:
        ValueError: if the recipe searches nothing, the port is taken, or there
            is too little held-out text.
        RuntimeError: if a training fails for a reason other than its loss.
    """
    is_worker = is_search_worker()
    is_chief = ORACLE_IP in os.environ and not is_worker
    if is_chief:
        check_port(os.environ[ORACLE_IP], int(os.environ[ORACLE_PORT]))
    trials, own = prepare(run) if not is_worker else (_trials(run), None)
    tuner = _tuner(run, trials)
    with _quiet_tuner():
        tuner.search(verbose=0)
    if is_worker:
        return None
    result = results.collect(run, tuner, own)
    results.write(run, result)
    # Hyperband can no longer continue any of them.
    for state in Path(tuner.project_dir).glob(f"*/{STATE}"):
        shutil.rmtree(state, ignore_errors=True)
    return result


def prepare(run: Run) -> tuple[RecipeTrials, dict[str, Any]]:
    """Prepares what trials share, and scores the recipe's own values.

    Returns:
        The trials, and the result of `results.score_own_values`.
    """
    trials = _trials(run)
    trials.train_task_teacher()
    return trials, results.score_own_values(trials)


def is_search_worker() -> bool:
    """Checks in the environment whether another process is the chief."""
    return ORACLE_IP in os.environ and "chief" not in os.environ.get(
        TUNER_ID, ""
    )


def check_port(host: str, port: int) -> None:
    """Raises ValueError if nothing can listen on a port."""
    with socket.socket() as listening:
        try:
            listening.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"Port {port} of {host} cannot be listened on "
                f"({error.strerror}): give another with --port."
            ) from error


def _trials(run: Run) -> RecipeTrials:
    # Makes an interrupted trial end with the same weights.
    tf.config.experimental.enable_op_determinism()
    if distill_section(run.recipe).embeds:
        return EmbeddingTrials(
            run, TeacherInMemory(lambda: load_checked_embedder(run))
        )
    prepared = prepare_corpus(run)
    teacher = TeacherInMemory(lambda: load_checked_teacher(run))
    if run.recipe.teacher.train is not None:
        teacher.train(run, prepared)
    return RecipeTrials(run, teacher.in_compute_precision(run.recipe), prepared)


def _tuner(run: Run, trials: RecipeTrials) -> keras_tuner.Tuner:
    settings = search_settings(run.recipe)
    with _quiet_tuner():
        # KerasTuner treats a seed of 0 as none.
        tuner = _make_tuner(
            settings, trials, run.recipe.seed + 1, str(run.folder)
        )
        refuse_strange_trials(tuner)
        # A search that was interrupted in its first trial has no file of the
        # tuner yet.
        oracle = Path(tuner.project_dir) / "oracle.json"
        if oracle.is_file() and not is_search_worker():
            tuner.oracle.reload()
    return tuner


def refuse_strange_trials(tuner: keras_tuner.Tuner) -> None:
    """Rejects trials whose names would lead outside the tuner's folder.

    Trials come from whatever process listens on the chief's port, and their
    names become names of folders.

    Args:
        tuner: the tuner; changed in place.
    """
    folder_of = tuner.get_trial_dir

    def checked(trial_id: str) -> str:
        if not re.fullmatch(r"\w+", str(trial_id), re.ASCII):
            raise ValueError(
                f"The trial {str(trial_id)[:60]!r} is refused: it is not a "
                "plain name. Another program may answer at the port of the "
                "search: give another with --port."
            )
        return folder_of(trial_id)

    tuner.get_trial_dir = checked


class _GridOracle(keras_tuner.Oracle):
    """Every combination of all choices; the last key varies first.

    KerasTuner 1.4.8 has one, but it does not save its position, so an
    interrupted search could not continue.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the combination of a trial, by its number."""
        space = self.get_space().space
        points = itertools.product(*(dimension.values for dimension in space))
        point = next(itertools.islice(points, int(trial_id), None), None)
        if point is None:
            return {"status": TrialStatus.STOPPED}
        names = [dimension.name for dimension in space]
        return {
            "status": TrialStatus.RUNNING,
            "values": dict(zip(names, point, strict=True)),
        }


def _make_tuner(
    settings: config.SearchSection, trials: RecipeTrials, seed: int, folder: str
) -> keras_tuner.Tuner:
    """Makes the tuner that the recipe names."""
    oracle: dict[str, Any] = {
        "objective": objective(settings),
        "seed": seed,
        # A loss that is no longer finite is a normal result.
        "max_consecutive_failed_trials": sys.maxsize,
    }
    place = {"directory": folder, "project_name": TRIALS}
    if settings.tuner == "hyperband":
        return keras_tuner.Hyperband(
            trials, max_epochs=settings.evaluations, **oracle, **place
        )
    oracle["max_trials"] = settings.trials
    if settings.tuner == "grid":
        return keras_tuner.Tuner(_GridOracle(**oracle), trials, **place)
    kind = {
        "random": keras_tuner.RandomSearch,
        "bayesian": keras_tuner.BayesianOptimization,
    }[settings.tuner]
    return kind(trials, **oracle, **place)


def objective(settings: config.SearchSection) -> keras_tuner.Objective:
    """Returns the objective of a search."""
    name = settings.objective
    if name in search_section.HELD_OUT_OBJECTIVES:
        direction = "min" if find_metric(name).better == "down" else "max"
        return keras_tuner.Objective(f"{CHOSEN}_{name}", direction)
    return keras_tuner.Objective(name, "max")


@contextlib.contextmanager
def _quiet_tuner() -> Iterator[None]:
    """Silences KerasTuner, so that only results are printed."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        yield
