"""Speed of a step for two convolutional nets, compared with Keras's.

Contestants train on the same batch, from the same weights, with the same
losses: crossentropy of the labels, soft targets at temperature 3 and, with
`--layers`, the squared error of one pair of layers. They take turns of many
steps in one process, so that a machine whose speed drifts is equally fast for
all. Ratios are medians over the rounds, of the two rates in one round.

    python benchmarks/any_model.py                  # both kinds of losses
    python benchmarks/any_model.py --rounds 9 --steps 50

Keras compiles its steps by XLA unless told otherwise, and `jit_compile=True`
does the same here, so both Distillers take part in both forms, and each is
compared with ours in its own form.
"""

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distil import Distiller, losses

Tensor = Any

TEMPERATURE = 3.0
LAYERS = ("features", "features")
OURS = "keras_distil"


@dataclasses.dataclass(frozen=True)
class Pair:
    """Sizes of the models and of a batch.

    Attributes:
        name: name in the output.
        image: height, width and channels of an image.
        teacher: filters of the teacher's convolutions, by stage.
        student: those of the student's.
        batch: examples per step.
    """

    name: str
    image: tuple[int, int, int]
    teacher: tuple[tuple[int, ...], ...]
    student: tuple[tuple[int, ...], ...]
    batch: int


PAIRS = (
    Pair("digits", (8, 8, 1), ((32,), (64,)), ((8,), (64,)), 32),
    Pair(
        "images",
        (32, 32, 3),
        ((32, 32), (64, 64), (64, 64)),
        ((16, 16), (32, 32), (64,)),
        32,
    ),
)


def make_convnet(
    image: tuple[int, int, int], stages: tuple[tuple[int, ...], ...], seed: int
) -> keras.Model:
    """Makes a classifier of ten classes; the last convolution is `features`."""
    keras.utils.set_random_seed(seed)
    layers: list[Any] = [keras.Input(image)]
    for number, stage in enumerate(stages, start=1):
        for filters in stage:
            layers += [
                keras.layers.Conv2D(filters, 3, padding="same"),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
            ]
        if number < len(stages):
            layers.append(keras.layers.MaxPooling2D())
    layers[-1] = keras.layers.ReLU(name=LAYERS[0])
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    return keras.Sequential(layers)


def make_models(pair: Pair) -> tuple[keras.Model, keras.Model]:
    """Makes a teacher and a student with random weights."""
    return (
        make_convnet(pair.image, pair.teacher, 0),
        make_convnet(pair.image, pair.student, 1),
    )


def make_batch(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Makes random images and labels."""
    generator = np.random.default_rng(0)
    x = generator.random((pair.batch, *pair.image), "float32")
    return x, generator.integers(0, 10, pair.batch)


# === The contestants ===


def make_ours(jit_compile: bool) -> Callable[[Pair, bool], keras.Model]:
    """Returns a function that makes a Distiller of keras_distil."""
    return functools.partial(_make_ours, jit_compile)


def _make_ours(jit_compile: bool, pair: Pair, on_layers: bool) -> keras.Model:
    made = [
        losses.LabelCrossentropy(0.5),
        losses.SoftTargetKLDivergence(0.5, temperature=TEMPERATURE),
    ]
    if on_layers:
        made.append(losses.HiddenStateMeanSquaredError(0.5, layers=[LAYERS]))
    distiller = Distiller(*make_models(pair), made)
    distiller.compile(keras.optimizers.Adam(1e-3), jit_compile=jit_compile)
    return distiller


def make_keras(jit_compile: bool) -> Callable[[Pair, bool], keras.Model]:
    """Returns a function that makes Keras's own Distiller."""
    return functools.partial(_make_keras, jit_compile)


def _make_keras(jit_compile: bool, pair: Pair, on_layers: bool) -> keras.Model:
    made = [
        # A loss object, because a name would mean raw logits.
        keras.distillation.LogitsDistillation(
            temperature=TEMPERATURE, loss=keras.losses.KLDivergence()
        )
    ]
    if on_layers:
        made.append(keras.distillation.FeatureDistillation("mse", *LAYERS))
    distiller = keras.distillation.Distiller(
        *make_models(pair), made, student_loss_weight=0.5
    )
    distiller.compile(
        keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return distiller


class PlainStep(keras.Model):
    """A straightforward `train_step`, with both outputs in one pass."""

    def __init__(
        self, teacher: keras.Model, student: keras.Model, on_layers: bool
    ) -> None:
        super().__init__()
        self.teacher, self.student = map(_with_features, (teacher, student))
        self.teacher.trainable = False
        self.on_layers = on_layers
        self.built = True

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """Runs one update of the student."""
        x, y = data
        theirs, their_features = self.teacher(x, training=False)
        with tf.GradientTape() as tape:
            ours, features = self.student(x, training=True)
            label = tf.nn.sparse_softmax_cross_entropy_with_logits(y, ours)
            p = tf.nn.log_softmax(theirs / TEMPERATURE)
            q = tf.nn.log_softmax(ours / TEMPERATURE)
            soft = tf.reduce_sum(tf.exp(p) * (p - q), axis=-1)
            loss = 0.5 * tf.reduce_mean(label + TEMPERATURE**2 * soft)
            if self.on_layers:
                squares = tf.square(their_features - features)
                loss += 0.5 * tf.reduce_mean(squares)
        variables = self.student.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def _with_features(model: keras.Model) -> keras.Model:
    features = model.get_layer(LAYERS[0]).output
    return keras.Model(model.inputs, (model.outputs[0], features))


def make_plain(pair: Pair, on_layers: bool) -> keras.Model:
    """Makes a plain Keras step."""
    model = PlainStep(*make_models(pair), on_layers)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    return model


CONTESTANTS = {
    OURS: make_ours(False),
    f"{OURS}, XLA": make_ours(True),
    "keras.distillation": make_keras(False),
    "keras.distillation, XLA": make_keras(True),
    "plain Keras step": make_plain,
}


# === Measuring ===


class _Clock(keras.callbacks.Callback):
    """Takes the time of all steps but the first ones of a `fit`."""

    warm_up = 3

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.warm_up:
            self.begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ended = time.perf_counter()
        self.steps = batch + 1 - self.warm_up

    @property
    def ms_per_step(self) -> float:
        return 1000.0 * (self.ended - self.begun) / self.steps


def measure(
    pair: Pair, on_layers: bool, *, rounds: int, steps: int
) -> dict[str, list[float]]:
    """Returns the milliseconds per step of each contestant, by round."""
    batches = tf.data.Dataset.from_tensors(make_batch(pair)).cache().repeat()
    models = {name: make(pair, on_layers) for name, make in CONTESTANTS.items()}

    def run(model: keras.Model) -> float:
        clock = _Clock()
        model.fit(
            batches,
            steps_per_epoch=steps + clock.warm_up,
            shuffle=False,
            verbose=0,
            callbacks=[clock],
        )
        return clock.ms_per_step

    for model in models.values():
        run(model)
    found: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds):
        # In turns of another order, as caches favour the last one's neighbour.
        names = list(models)
        for name in names if number % 2 else reversed(names):
            found[name].append(run(models[name]))
    return found


def report(title: str, found: dict[str, list[float]]) -> str:
    """Returns a table of milliseconds and ratios to ours, both medians."""
    lines = [f"{title}:"]
    for name, times in found.items():
        ours = f"{OURS}, XLA" if name.endswith("XLA") else OURS
        ratios = [x / y for x, y in zip(times, found[ours], strict=True)]
        lines.append(
            f"  {name:24} {statistics.median(times):8.2f} ms per step, "
            f"{statistics.median(ratios):5.2f} times the time of ours "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--pair", choices=[pair.name for pair in PAIRS])
    arguments = parser.parse_args()
    for pair in PAIRS:
        if arguments.pair not in (None, pair.name):
            continue
        sizes = [model.count_params() for model in make_models(pair)]
        for on_layers in (False, True):
            kind = "and one on layers" if on_layers else "only"
            found = measure(
                pair,
                on_layers,
                rounds=arguments.rounds,
                steps=arguments.steps,
            )
            title = (
                f"{pair.name}, batches of {pair.batch}, {sizes[0]:,} to "
                f"{sizes[1]:,} parameters, losses on outputs {kind}"
            )
            print(report(title, found), flush=True)


if __name__ == "__main__":
    main()
