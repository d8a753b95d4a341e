"""Runs of the command in which every `fit` is recorded but nothing trains.

Training is replaced by noise that is added to the weights and depends only on
the stage's name; a task's model gets one of several heads, of the rank that the
test asks for. This way later stages have something to work with, each model's
weights tell where they come from, and the test chooses which seed is best.
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
from toy import a_millisecond, same_held_out

import keras_distil
from keras_distil import __main__ as command
from keras_distil import callbacks, data
from keras_distil.benchmark import latency
from keras_distil.training.objectives import live_teachers

# Callbacks that only watch a training, of which there is none here.
_WATCHERS = (
    callbacks.MetricsLog,
    callbacks.ProgressBar,
    callbacks.TensorBoard,
    callbacks.TrainingState,
)
_HEADS = 6
# Token ids of the words "a" and "b".
_PREFERRED = {"distill": 5, "baseline": 6}


class StopError(BaseException):
    """Ends a run at the point that a test wants to see."""


@dataclasses.dataclass
class Fit:
    """One call of `Distiller.fit`.

    Attributes:
        stage: name of the stage in `metrics.jsonl`.
        distiller: the Distiller as it was built.
        before: the student's weights before the call.
        after: the student's weights after the call.
        teacher: the weights of all teachers; None without a teacher.
        batches: the first batches, as NumPy arrays.
        arguments: keyword arguments of the call.
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
        """The only callback of a kind."""
        (found,) = (x for x in self.arguments["callbacks"] if type(x) is kind)
        return found

    def loss(self, name: str) -> keras.layers.Layer:
        """The loss of that name."""
        (found,) = (
            x for x in self.distiller.distillation_losses if x.name == name
        )
        return found


@dataclasses.dataclass
class Recording:
    """Everything that a run did.

    Attributes:
        folder: the run's folder.
        fits: in order.
        evaluations: the batches of each `Distiller.evaluate`, in order.
        calls: arguments of other watched functions, by name.
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
    """All weights except the states of random generators."""
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
    """Weights of a task model's encoder."""
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
    """Records everything that happens in the block.

    Args:
        folder: the run's folder.
        stop_at: the run ends at the `fit` of this stage; "" for the first one.
        place: maps a task's stage to the rank of its head among random ones,
            from 0 for the worst to 1 for the best on the development set.
        batches: number of training batches to keep.
    """
    made = Recording(folder)
    evaluate = keras_distil.Distiller.evaluate

    def fit(self, x=None, y=None, **arguments):
        given = arguments["callbacks"] = list(arguments.get("callbacks") or ())
        logs = [c for c in given if isinstance(c, callbacks.MetricsLog)]
        stage = logs[0].stage if logs else ""
        teachers = live_teachers(self.teacher)
        found = Fit(
            stage,
            self,
            weights_of(self.student),
            [x for each in teachers for x in weights_of(each)] or None,
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
        # With one core, a corpus is prepared in this process.
        patch.setattr(os, "cpu_count", lambda: 1)
        patch.setattr(keras_distil.Distiller, "fit", fit)
        patch.setattr(keras_distil.Distiller, "evaluate", recorded_evaluate)
        patch.setattr(latency, "measure_latency_ms", a_millisecond)
        patch.setattr(data, "held_out_dataset", same_held_out)
        with contextlib.suppress(StopError):
            yield made


def _pretend(found: Fit, place: Callable[[str], float]) -> None:
    """Does to the student and its file what training would."""
    # The trials of a search have no names; their rates differ.
    name = found.stage or str(found.rate(0))
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    for variable in found.student.trainable_variables:
        noise = generator.normal(0.0, 0.05, variable.shape)
        variable.assign_add(noise.astype("float32"))
    # The model prefers one word, so that not all guesses are wrong.
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
    """Gives a task's model one of several heads, chosen by its score.

    They range from random ones to one that fits the batches, if each example
    has a single label.
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
    """Kernel and bias that fit the batches with least squares."""
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
    """Runs without graphs, as tracing them takes most of a toy run's time."""
    with warnings.catch_warnings():
        # Silences the warning that tf.data makes graphs all the same.
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
        recording: where to record them.
        patch: undoes the change.
        owner: the module or class that has the function.
        name: name of the function.
        result: called in its place; None to call the original.
    """
    original = getattr(owner, name)
    kept = recording.calls.setdefault(name, [])

    def call(*positional, **named):
        kept.append({"": positional, **named})
        kept[-1]["returned"] = (result or original)(*positional, **named)
        return kept[-1]["returned"]

    patch.setattr(owner, name, call)


def run_command(*words: Any) -> None:
    """Runs `keras-distil` in this process, and raises its errors.

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
    """The value at a key, given as a dotted path or in parts."""
    for name in key.split(".") if isinstance(key, str) else key:
        values = values[int(name) if isinstance(values, list) else name]
    return values
