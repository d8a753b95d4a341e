"""A few updates of a recipe, measured by and in a process of their own.

`python -m keras_distil.planning.measured.worker MEMORY`: the first line of its
standard input is the recipe as JSON, MEMORY what it may use, in bytes. It
answers every line with one of JSON until the input ends: when it is ready,
"update" makes one update, "rates" measures the machine.
"""

import importlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil.utils import quiet

_STATUS = Path("/proc/self/status")
_PROCESSORS = Path("/proc/stat")
_BATCHES = 4  # distinct ones, in a cycle
_MATRIX = 2048  # rows of the matrices whose product is timed
_TRAFFIC = 2**26  # float32 values that are scaled, 256 MB
_REPEATS = 5


def memory_gb(name: str) -> float:
    """A line of this process's status, "VmHWM" or "VmRSS", in 1e9 bytes.

    `getrusage` counts the memory of the process that started it, too.
    """
    text = _STATUS.read_text("utf-8")
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(found[1]) / 1e9 if found else 0.0


def cpu_seconds() -> tuple[float, float]:
    """Processor time since they started: of the machine, of this process."""
    line = _PROCESSORS.read_text("utf-8").split("\n", 1)[0]
    # Busy: user, nice, system; irq, softirq, steal. Not: idle, iowait.
    fields = [int(field) for field in line.split()[1:9]]
    busy = sum(fields[:3]) + sum(fields[5:])
    own = os.times()
    return busy / os.sysconf("SC_CLK_TCK"), own.user + own.system


def random_batches(
    *, batch_size: int, length: int, vocabulary_size: int, rate: float
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Keras triples of random words without padding.

    Args:
        batch_size: int, sequences of a batch.
        length: int, tokens of a sequence.
        vocabulary_size: int, words to draw from.
        rate: float, share of the tokens of a sequence that are masked; one
            is at least.

    Returns:
        Arrays whose first axis counts the batches.
    """
    generator = np.random.default_rng(0)
    size = (_BATCHES, batch_size, length)
    words = generator.integers(0, vocabulary_size, size, np.int32)
    order = generator.random(size).argsort(-1).argsort(-1)
    masked = order < max(1, round(rate * length))
    inputs = {"token_ids": words, "padding_mask": np.ones(size, np.int32)}
    return inputs, words, masked.astype(np.float32)


def rates() -> dict[str, float]:
    """What the machine does at most: the best of some repeats.

    Returns:
        FLOP a second of a product of large matrices by precision, and bytes a
        second of reading and writing memory as "bandwidth".
    """
    import tensorflow as tf

    def fastest(function: Callable, argument: Any) -> float:
        times = []
        for _ in range(_REPEATS + 1):
            started = time.perf_counter()
            function(argument).numpy()
            times.append(time.perf_counter() - started)
        return min(times[1:])

    @tf.function
    def product(matrix: Any) -> Any:
        return tf.matmul(matrix, matrix)[0, 0]

    @tf.function
    def scale(values: Any) -> Any:
        return (values * 2.0)[0]

    square = tf.fill((_MATRIX, _MATRIX), 0.01)
    flop = 2.0 * _MATRIX**3
    return {
        "float32": flop / fastest(product, square),
        "mixed_bfloat16": flop / fastest(product, tf.cast(square, tf.bfloat16)),
        "bandwidth": 8.0 * _TRAFFIC / fastest(scale, tf.ones(_TRAFFIC)),
    }


def updates(recipe: Any) -> Iterator[dict[str, float]]:
    """Real updates of a recipe's student, as its run makes them.

    Args:
        recipe: with a `distill` section and a live teacher.

    Yields:
        "seconds" of the update that was made, and "others", the share of the
        processor's cores that other processes had meanwhile. The first dict
        comes before any update and is empty.

    Raises:
        ValueError: if there is a GPU, or as for the models of a run.
    """
    import keras
    import tensorflow as tf

    from keras_distil.runs.distillation import make_distiller
    from keras_distil.runs.sections import distill_section
    from keras_distil.runs.student import make_student
    from keras_distil.runs.teacher import freeze_teacher, load_teacher

    if tf.config.list_physical_devices("GPU"):
        raise ValueError(
            "`--calibrate` accounts for the memory of processors only, and "
            "this machine has a GPU. Name it as --device in place of "
            "--calibrate, or hide it: CUDA_VISIBLE_DEVICES=-1."
        )
    settings = distill_section(recipe)
    # As a run has it.
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(recipe.seed)
    teacher = load_teacher(recipe)
    student = make_student(recipe, teacher)
    teacher = freeze_teacher(recipe, teacher)
    distiller = make_distiller(recipe, teacher, student, steps=1000)
    batches = random_batches(
        batch_size=settings.batch_size,
        length=recipe.data.sequence_length,
        vocabulary_size=teacher.backbone.vocabulary_size,
        rate=recipe.data.masking.rate,
    )
    dataset = tf.data.Dataset.from_tensor_slices(batches).repeat().prefetch(1)
    iterator = iter(dataset)
    update = distiller.make_train_function()
    yield {}
    cores = os.cpu_count() or 1
    while True:
        before = cpu_seconds()
        started = time.perf_counter()
        float(update(iterator)["loss"])
        seconds = time.perf_counter() - started
        machine, own = np.subtract(cpu_seconds(), before)
        others = float(machine - own) / (cores * seconds)
        yield {"seconds": seconds, "others": min(1.0, max(0.0, others))}


def main() -> None:
    """Answers until the standard input ends."""
    # Answers have the standard output for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Better its own end than that of another process.
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    quiet.import_tensorflow()
    from keras_distil import config
    from keras_distil.runs.sections import distill_section

    # Its memory belongs to the process, not to the updates.
    importlib.import_module("keras_distil.runs.distillation")
    recipe = config.Recipe.model_validate_json(sys.stdin.readline())
    distill_section(recipe)
    base_gb = memory_gb("VmRSS")
    made = updates(recipe)
    try:
        next(made)
    except (ValueError, TypeError, OSError, ImportError) as error:
        answer({"error": " ".join(str(error).split())})
        os._exit(1)
    answer({"base_gb": base_gb, "peak_gb": memory_gb("VmHWM")})
    for line in sys.stdin:
        if line.strip() == "rates":
            answer(rates())
        else:
            answer({**next(made), "peak_gb": memory_gb("VmHWM")})
    # There is nothing to keep, and TensorFlow's threads may wait for ever.
    os._exit(0)


if __name__ == "__main__":
    main()
