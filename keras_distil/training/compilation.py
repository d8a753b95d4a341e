"""What XLA compiles in a step: the choice behind `jit_compile="auto"`.

XLA's products with the vocabulary are faster than TensorFlow's own on some
processors and slower on others, so which ones a step takes is measured.
"""

import functools
import json
import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil.losses import chunked
from keras_distil.losses.chunked import JitCompile
from keras_distil.losses.masked_lm import MaskedLMCrossentropy
from keras_distil.losses.soft_target import SoftTargetKLDivergence
from keras_distil.training import distribution
from keras_distil.training.objectives.any_model import AnyModelObjective
from keras_distil.training.objectives.masked_lm import MaskedLMObjective
from keras_distil.utils import disk
from keras_distil.utils.machine import cache_folder, processor_name
from keras_distil.utils.timing import fastest_seconds
from keras_distil.utils.version import __version__

_log = logging.getLogger(__name__)

# Fewer weights are updated before the compiler is done.
_FEWEST_WEIGHTS = 1_000_000
# What is timed: tokens and, of large vocabularies, a part.
_TOKENS = 512
_MOST_WORDS = 32_768
_ROUNDS = 3
# Below, it may be chance, and products of the real rows alone are less work.
_CLEAR_GAIN = 1.05
_CACHE_FILE = "vocabulary_products.json"
# They limit or choose what a processor may do.
_VARIABLES = (
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"),
    *("XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"),
)


class VocabularyTimes(NamedTuple):
    """Seconds of the losses on logits and their gradients, for some tokens.

    Attributes:
        between: XLA compiles what is between the products.
        products: XLA compiles the products as well.
    """

    between: float
    products: float

    @property
    def choice(self) -> JitCompile:
        """The faster of the two, as `Distiller.compile` takes it."""
        gains = self.between >= _CLEAR_GAIN * self.products
        return "products" if gains else True

    def __str__(self) -> str:
        """Which one is faster, in a line."""
        where = "by XLA" if self.choice == "products" else "by TensorFlow"
        return (
            f"products with the vocabulary {where} (ms: XLA "
            f"{1e3 * self.products:,.0f}, TensorFlow {1e3 * self.between:,.0f})"
        )


def choose(objective: Any, *, run_eagerly: bool) -> JitCompile:
    """Returns what XLA is to compile in the steps of an objective.

    Nothing for small students and for models that are no encoders of text. For
    masked language modelling it is measured, once for a processor and the
    versions of this package and TensorFlow; workers take the chief's choice.

    Args:
        objective: what a Distiller computes; its models are built.
        run_eagerly: whether steps run without a graph.
    """
    weights = objective.student.count_params()
    if (
        run_eagerly
        or isinstance(objective, AnyModelObjective)
        or weights < _FEWEST_WEIGHTS
        or not _xla_works()
    ):
        return False
    if not isinstance(objective, MaskedLMObjective):
        return True
    times = vocabulary_times(objective.student)
    _log.info("Fastest here: %s", times)
    chosen = distribution.take_from_chief(int(times.choice == "products"))
    return "products" if chosen else True


def vocabulary_times(student: keras.Model) -> VocabularyTimes:
    """Times the losses on a student's logits, or returns what is remembered.

    Takes some seconds on two cores, and writes the result to a file in the
    folder of what all runs share, if that can be written.

    Args:
        student: a masked-LM task model.
    """
    backbone = student.backbone
    words = min(backbone.vocabulary_size, _MOST_WORDS)
    key = _key(words, backbone.hidden_dim, student.compute_dtype)
    known = _remembered()
    if key not in known:
        times = _measure(words, backbone.hidden_dim, student.compute_dtype)
        known[key] = list(times)
        _remember(known)
    return VocabularyTimes(*known[key])


def _key(words: int, width: int, dtype: str) -> str:
    devices = [x.name for x in tf.config.list_logical_devices("GPU")]
    limits = [f"{x}={os.environ[x]}" for x in _VARIABLES if os.environ.get(x)]
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    parts = [
        processor_name(),
        *devices,
        f"{os.cpu_count()} cores",
        f"{threads} threads",
        *limits,
        f"tensorflow {tf.__version__}",
        f"keras_distil {__version__}",
        f"{words} x {width}",
        dtype,
    ]
    return ", ".join(parts)


def _remembered() -> dict[str, list[float]]:
    """Reads what was measured before; nothing of a file that is damaged."""
    try:
        path = cache_folder() / _CACHE_FILE
        found = json.loads(disk.read_bounded(path, disk.MODEL_JSON_BYTES))
        return {
            str(key): [float(between), float(products)]
            for key, (between, products) in found.items()
        }
    # Without a home there is a RuntimeError; RecursionError is one, too.
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError):
        return {}


def _remember(known: dict[str, list[float]]) -> None:
    text = json.dumps(dict(sorted(known.items())), indent=1)
    try:
        disk.write_text(cache_folder() / _CACHE_FILE, text + "\n")
    except (OSError, RuntimeError) as error:
        _log.info("Not kept for the next training: %s", error)


def _measure(words: int, width: int, dtype: str) -> VocabularyTimes:
    """Times both ways of the losses that most recipes have."""
    made = [MaskedLMCrossentropy(), SoftTargetKLDivergence(temperature=2.0)]

    def random(*shape: int) -> Any:
        return tf.cast(tf.random.stateless_normal(shape, seed=(0, 0)), dtype)

    features, kernel = random(_TOKENS, width), random(words, width)
    bias, ones = tf.zeros([words]), tf.ones([_TOKENS])
    token_ids = tf.range(_TOKENS) % words

    def run(jit_compile: JitCompile) -> Callable[[], Any]:
        @tf.function(autograph=False)
        def step(features: Any, kernel: Any) -> Any:
            projection = chunked.VocabularyProjection(features, kernel, bias)
            return chunked.chunked_losses(
                made,
                [tf.constant(1.0 / _TOKENS)] * len(made),
                student=projection,
                teacher=projection,
                token_ids=token_ids,
                row_weights=[ones] * len(made),
                metric_weight=ones,
                jit_compile=jit_compile,
            ).kernel_gradient

        return lambda: step(features, kernel)[0].numpy()

    seconds = fastest_seconds(
        {"between": run(True), "products": run("products")}, _ROUNDS
    )
    return VocabularyTimes(**seconds)


@functools.cache
def _xla_works() -> bool:
    """Whether this TensorFlow compiles for this device; some builds do not."""

    @tf.function(jit_compile=True, autograph=False)
    def double(value: Any) -> Any:
        return value + value

    try:
        return float(double(tf.constant(1.0))) == 2.0
    except tf.errors.OpError:
        return False
