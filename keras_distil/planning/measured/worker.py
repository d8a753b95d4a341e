"""Measures a few updates of a recipe in a separate process.

`python -m keras_distil.planning.measured.worker MEMORY`: the first line of
standard input is the recipe as JSON, MEMORY the limit of memory in bytes. The
process answers every line with a line of JSON until the input ends: one when
it is ready, "update" runs one update, "rates" measures the machine.
"""

import importlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil.benchmark.matrix_products import matrix_product_flops
from keras_distil.utils import quiet

_STATUS = Path("/proc/self/status")
_PROCESSORS = Path("/proc/stat")
_BATCHES = 4  # distinct batches, in a cycle
_MATRIX = 2048  # rows of the matrices whose product is timed
_TRAFFIC = 2**26  # float32 values that are scaled, 256 MB
_REPEATS = 5


def memory_gb(name: str) -> float:
    """Returns "VmHWM" or "VmRSS" of this process, in 1e9 bytes.

    `getrusage` also counts the memory of the process that started it.
    """
    text = _STATUS.read_text("utf-8")
    match = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(match[1]) / 1e9 if match else 0.0


def cpu_seconds() -> tuple[float, float]:
    """Returns processor time since the start: machine's, this process's."""
    line = _PROCESSORS.read_text("utf-8").split("\n", 1)[0]
    # Busy: user, nice, system, irq, softirq, steal. Not busy: idle, iowait.
    fields = [int(field) for field in line.split()[1:9]]
    busy = sum(fields[:3]) + sum(fields[5:])
    own = os.times()
    return busy / os.sysconf("SC_CLK_TCK"), own.user + own.system


def random_batches(
    *, batch_size: int, length: int, vocabulary_size: int, rate: float
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Makes Keras triples of random words without padding.

    Args:
        batch_size: int, sequences per batch.
        length: int, tokens per sequence.
        vocabulary_size: int, words to draw from.
        rate: float, share of the tokens in a sequence that are masked; at
            least one is.

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
    """Measures the machine's peak rates, the best of some repeats.

    Returns:
        FLOP per second of a product of large matrices by precision, and bytes
        per second of reading and writing memory as "bandwidth".
    """
    import tensorflow as tf

    @tf.function
    def scale(values: Any) -> Any:
        return (values * 2.0)[0]

    values = tf.ones(_TRAFFIC)
    times = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        scale(values).numpy()
        times.append(time.perf_counter() - started)
    return {
        **matrix_product_flops(_MATRIX),
        "bandwidth": 8.0 * _TRAFFIC / min(times[1:]),
    }


def updates(recipe: Any) -> Iterator[dict[str, float]]:
    """Yields measurements of real updates of a recipe's student.

    Args:
        recipe: a recipe with a `distill` section and a live teacher.

    Yields:
        "seconds" of the update, and "others", the share of the processor's
        cores used by other processes meanwhile. The first dict comes before
        any update and is empty.

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
            "this machine has a GPU. Name it as --device instead of "
            "--calibrate, or hide it: CUDA_VISIBLE_DEVICES=-1."
        )
    settings = distill_section(recipe)
    # As in a run.
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
    """Answers commands until standard input ends."""
    # Reserve standard output for the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # If memory runs out, this process should end rather than another one.
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    quiet.import_tensorflow()
    from keras_distil import config
    from keras_distil.runs.sections import distill_section

    # This memory belongs to the process, not to the updates.
    importlib.import_module("keras_distil.runs.distillation")
    recipe = config.Recipe.model_validate_json(sys.stdin.readline())
    distill_section(recipe)
    base_gb = memory_gb("VmRSS")
    measurements = updates(recipe)
    try:
        next(measurements)
    except (ValueError, TypeError, OSError, ImportError) as error:
        answer({"error": " ".join(str(error).split())})
        os._exit(1)
    answer({"base_gb": base_gb, "peak_gb": memory_gb("VmHWM")})
    for line in sys.stdin:
        if line.strip() == "rates":
            answer(rates())
        else:
            answer({**next(measurements), "peak_gb": memory_gb("VmHWM")})
    # There is nothing to save, and TensorFlow's threads may wait forever.
    os._exit(0)


if __name__ == "__main__":
    main()
