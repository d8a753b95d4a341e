"""Runs of the command in which every `fit` is recorded and none trains.

What stands in for training moves the weights by noise that depends on the
stage's name alone, and gives a task's model the head with a wanted place among
some. So all that follows a training has something to follow, each
model's weights tell where they come from, and which seed is best is the test's
choice.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distil
from keras_distil import __main__ as command
from keras_distil import callbacks

# Callbacks that only watch a training; there is none to watch.
_WATCHERS = (
    callbacks.MetricsLog,
    callbacks.ProgressBar,
    callbacks.TensorBoard,
    callbacks.TrainingState,
)
_HEADS = 6
# The words "a" and "b".
_PREFERRED = {"distill": 5, "baseline": 6}


class StopError(BaseException):
    """Ends a run at the point that a test wanted to see."""


@dataclasses.dataclass
class Fit:
    """One call of `Distiller.fit`.

    Attributes:
        stage: as `metrics.jsonl` calls it.
        distiller: as it was built.
        before: the student's weights when it was called.
        after: the student's weights when it returned.
        teacher: the teacher's weights; None without one.
        batches: the first ones, as NumPy arrays.
        arguments: its keyword arguments.
    """

    stage: str
    distiller: keras_distil.Distiller
    before: list[np.ndarray]
    teacher: list[np.ndarray] | None
    batches: list[Any]
    arguments: dict[str, Any]
    after: list[np.ndarray] = dataclasses.field(default_factory=list)

    @property
    def student(self) -> keras.Model:
        return self.distiller.student

    @property
    def optimizer(self) -> keras.optimizers.Optimizer:
        return self.distiller.optimizer

    def rate(self, step: int) -> float:
        """The learning rate of an update, counted from 0."""
        return float(self.optimizer._learning_rate(step))

    def callback(self, kind: type) -> Any:
        """Its only callback of a kind."""
        (found,) = (x for x in self.arguments["callbacks"] if type(x) is kind)
        return found

    def loss(self, name: str) -> keras.layers.Layer:
        """Its loss of that name."""
        (found,) = (
            x for x in self.distiller.distillation_losses if x.name == name
        )
        return found


@dataclasses.dataclass
class Recording:
    """What a run did.

    Attributes:
        folder: of the run.
        fits: in order.
        evaluations: the batches of each `Distiller.evaluate`, in order.
        calls: arguments of other functions that were watched, by name.
    """

    folder: Path
    fits: list[Fit] = dataclasses.field(default_factory=list)
    evaluations: list[list[Any]] = dataclasses.field(default_factory=list)
    calls: dict[str, list[dict[str, Any]]] = dataclasses.field(
        default_factory=dict
    )

    def fit(self, stage: str) -> Fit:
        """The only call of a stage."""
        (found,) = (x for x in self.fits if x.stage == stage)
        return found

    def json(self, name: str) -> Any:
        """A JSON file of the run's folder."""
        return json.loads((self.folder / name).read_text())


def weights_of(model: keras.Model) -> list[np.ndarray]:
    """All weights but the states of random generators."""
    return [
        np.array(v.numpy(), "float32")
        for v in model.weights
        if "seed_generator" not in v.path
    ]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Whether two lists of arrays are equal."""
    return len(one) == len(other) and all(
        np.array_equal(a, b) for a, b in zip(one, other, strict=True)
    )


def same_batches(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists of batches hold the same arrays."""
    return same(tf.nest.flatten(one), tf.nest.flatten(other))


def encoder_weights(model: keras.Model) -> list[np.ndarray]:
    """Those of the encoder of a task model."""
    return weights_of(model.backbone)


def first(dataset: Any, count: int) -> list[Any]:
    """The first batches as NumPy arrays."""
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


@contextlib.contextmanager
def recorded(
    folder: Path,
    *,
    stop_at: str | None = None,
    place: Callable[[str], float] = lambda stage: 1.0,
    batches: int = 4,
) -> Iterator[Recording]:
    """Records all that happens in the block.

    Args:
        folder: of the run.
        stop_at: stage at whose `fit` the run ends; "" for the first one.
        place: from a task's stage to the place of its head among random
            ones, 0 the worst and 1 the best on the development set.
        batches: how many of a training to keep.
    """
    made = Recording(folder)
    evaluate = keras_distil.Distiller.evaluate

    def fit(self, x=None, y=None, **arguments):
        given = arguments["callbacks"] = list(arguments.get("callbacks") or ())
        logs = [c for c in given if isinstance(c, callbacks.MetricsLog)]
        stage = logs[0].stage if logs else ""
        teacher = self.teacher
        found = Fit(
            stage,
            self,
            weights_of(self.student),
            weights_of(teacher) if isinstance(teacher, keras.Model) else None,
            first(x, batches),
            arguments,
        )
        made.fits.append(found)
        if stop_at in ("", stage):
            raise StopError
        _pretend(found, place)
        found.after = weights_of(self.student)
        return keras.callbacks.History()

    def recorded_evaluate(self, x=None, y=None, **arguments):
        made.evaluations.append(list(x.as_numpy_iterator()))
        return evaluate(self, x, y, **arguments)

    with pytest.MonkeyPatch.context() as patch, _eagerly():
        # A corpus is then prepared in this process.
        patch.setattr(os, "cpu_count", lambda: 1)
        patch.setattr(keras_distil.Distiller, "fit", fit)
        patch.setattr(keras_distil.Distiller, "evaluate", recorded_evaluate)
        with contextlib.suppress(StopError):
            yield made


def _pretend(found: Fit, place: Callable[[str], float]) -> None:
    """Does to the student, and its file, what a training would."""
    # The trials of a search have no names; their rates differ.
    name = found.stage or str(found.rate(0))
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    for variable in found.student.trainable_variables:
        noise = generator.normal(0.0, 0.05, variable.shape)
        variable.assign_add(noise.astype("float32"))
    # A word that the model prefers, so that not all are guessed wrong.
    head = getattr(found.student, "masked_lm_head", None)
    if head is not None:
        bonus = np.zeros(head.token_embedding.embeddings.shape[0], "float32")
        bonus[_PREFERRED.get(found.stage, 7)] = 8.0
        head._bias.assign_add(bonus)
    for callback in found.arguments["callbacks"]:
        if isinstance(callback, _WATCHERS):
            continue
        callback.set_model(found.distiller)
        if isinstance(callback, callbacks.BestEpoch):
            _choose_head(found, callback.score, place(found.stage), generator)
        callback.on_epoch_end(0, {})


def _choose_head(
    fit: Fit,
    score: Callable[[keras.Model], float],
    place: float,
    generator: np.random.Generator,
) -> None:
    """Gives a model of a task one of several heads, by its score.

    They lie between one that fits the batches, if they have one label each,
    and random ones.
    """
    head = fit.student.output_dense
    best = _fitted_head(fit)
    tried = []
    for number in range(_HEADS):
        values = [generator.normal(0.0, 2.0, v.shape) for v in head.variables]
        if best is not None:
            share = number / (_HEADS - 1)
            values = [
                share * fitted + (1 - share) * other
                for fitted, other in zip(best, values, strict=True)
            ]
        _assign(head.variables, values)
        tried.append((score(fit.student), number, values))
    chosen = sorted(tried, key=lambda x: x[:2])[round(place * (_HEADS - 1))]
    _assign(head.variables, chosen[2])


def _fitted_head(fit: Fit) -> list[np.ndarray] | None:
    """Kernel and bias of the least squared error on the batches."""
    model = fit.student
    features = keras.Model(model.input, model.output_dense.input)
    rows, targets = [], []
    for x, y, _ in fit.batches:
        if isinstance(y, dict):
            return None
        rows.append(features({name: x[name] for name in model.input}).numpy())
        targets.append(y)
    inputs = np.concatenate(rows)
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    wanted = np.concatenate(targets)
    if model.num_classes > 1:
        wanted = 3.0 * np.eye(model.num_classes)[wanted]
    solved, *_ = np.linalg.lstsq(
        inputs, wanted.reshape(len(inputs), -1), rcond=1e-6
    )
    return [solved[:-1], solved[-1]]


def _assign(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value.astype("float32"))


@contextlib.contextmanager
def _eagerly() -> Iterator[None]:
    """Without graphs, whose tracing is most of what a toy run takes."""
    with warnings.catch_warnings():
        # That tf.data makes graphs all the same.
        warnings.filterwarnings("ignore", message=".*run_functions_eagerly")
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)


def watch(
    recording: Recording,
    patch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    result: Callable[..., Any] | None = None,
) -> None:
    """Records the calls of a function.

    Args:
        recording: where to.
        patch: undoes it.
        owner: the module or class that it is an attribute of.
        name: of the function.
        result: what is called in its place; None for itself.
    """
    original = getattr(owner, name)
    kept = recording.calls.setdefault(name, [])

    def call(*positional, **named):
        kept.append({"": positional, **named})
        kept[-1]["returned"] = (result or original)(*positional, **named)
        return kept[-1]["returned"]

    patch.setattr(owner, name, call)


def run_command(*words: Any) -> None:
    """Runs `keras-distil` in this process; an error of it is raised.

    Raises:
        RuntimeError: if it ends with a status other than 0.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["keras-distil", *map(str, words)])
        try:
            command.main()
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(f"status {ended.code}") from ended


def get(values: Any, key: str | tuple[str, ...]) -> Any:
    """What a dotted key, or one in parts, holds."""
    for name in key.split(".") if isinstance(key, str) else key:
        values = values[int(name) if isinstance(values, list) else name]
    return values
