"""Where the time of a distillation step goes, by the TensorFlow profiler.

Prints a Markdown table with the milliseconds of a step in which operations of
a kind ran, without those that ran inside them. Several run at once, so the sum
is more than a step, which stands below, with the time in which processors had
nothing to do, and page faults.

    python benchmarks/where_time_goes.py
    python benchmarks/where_time_goes.py --models minilm --processor avx2
"""

import argparse
import collections
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import contestants
from contestants.process import PROCESSORS, environment
from contestants.shapes import MODELS, Shape, make_data

CHILD = "WHERE_TIME_GOES"
# Compiled, then used once.
WARM_UP_STEPS = 3

# The first that an event's name or module matches; the name is a path of the
# graph, a colon and the operation's type.
KINDS = {
    "products with the vocabulary": r"/while/.*:_?\w*MatMul$",
    "attention: batched products, softmax": r":_?\w*(BatchMatMul|Softmax)\w*$",
    "products of the encoders": r":_?\w*MatMul\w*$",
    "losses on logits, between the products": r"^on_logits$",
    "optimizer's update": r"^apply$",
    "casts": r":Cast$",
    "sums for the gradients of biases": r":BiasAddGrad$",
    "norm of the gradient": r":(L2Loss|Square)$",
    "copies: transpositions, gathering, joining": (
        r":_?\w*(Transpose|Gather\w*|Concat\w*|Slice|StridedSlice|Pack|Pad"
        r"|TensorScatter\w+|Scatter\w+|Where|Reshape)(V2)?$"
    ),
    "elementwise, normalisation and the rest": r":[A-Z_]\w*$",
}
# Waiting for others, or a pool's own work.
WAITS = r":?(Run|Process|Execute|BlockUntilReady|While|StatelessWhile|Xla\w+)$"


def classify(name: str, module: str) -> str | None:
    """Returns the kind of an event; None for what only waits.

    Args:
        name: the event's name.
        module: what XLA compiled it for; "" for TensorFlow's operations.
    """
    if not module and (":" not in name or re.search(WAITS, name)):
        return None
    for kind, pattern in KINDS.items():
        if re.search(pattern, module or name):
            return kind
    return None


def own_times(events: list[tuple[int, int, str]]) -> Iterator[tuple[str, int]]:
    """Yields each event's time without that of the events inside it.

    Args:
        events: (begin, duration, name) of one thread.
    """
    left = [duration for _, duration, _ in events]
    order = sorted(
        range(len(events)), key=lambda i: (events[i][0], -events[i][1])
    )
    around: list[int] = []
    for i in order:
        begin, duration, _ = events[i]
        while around and sum(events[around[-1]][:2]) <= begin:
            around.pop()
        if around:
            left[around[-1]] -= duration
        around.append(i)
    for (_, _, name), rest in zip(events, left, strict=True):
        yield name, rest


def read_profile(folder: Path) -> collections.Counter[str]:
    """Returns the milliseconds of each kind in a profile."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = folder.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    found: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        names = plane.stat_metadata
        for line in plane.lines:
            events = []
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                module = ""
                for stat in event.stats:
                    if names[stat.metadata_id].name == "hlo_module":
                        text = stat.str_value or names[stat.ref_value].name
                        found_in = re.search(r"inference_(\w+?)_\d+__", text)
                        module = found_in[1] if found_in else text
                kind = classify(name, module) or ""
                events.append((event.offset_ps, event.duration_ps, kind))
            for kind, time_ps in own_times(events):
                if kind:
                    found[kind] += time_ps / 1e9
    return found


def profile(shape: Shape, precision: str, steps: int) -> dict[str, float]:
    """Runs steps, the last of them with the profiler.

    Returns:
        Per step: milliseconds by kind, of a step without the profiler and
        without work, and the number of page faults.
    """
    import tensorflow as tf
    from contestants import keras_distil_step

    from keras_distil.data.stream import without_autotune

    teacher, student = keras_distil_step.make_models(shape, precision)
    distiller = keras_distil_step.make_distiller(teacher, student, shape)
    batches = keras_distil_step.make_batches(make_data(shape)).repeat()
    # Else a fit may end seconds late, and idle.
    batches = without_autotune(batches.prefetch(1))
    distiller.fit(batches, steps_per_epoch=WARM_UP_STEPS, verbose=0)
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    distiller.fit(batches, steps_per_epoch=steps, verbose=0)
    wall = 1e3 * (time.perf_counter() - begun) / steps
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        distiller.fit(batches, steps_per_epoch=steps, verbose=0)
        tf.profiler.experimental.stop()
        found = read_profile(Path(folder))
    return {
        **{kind: found[kind] / steps for kind in KINDS},
        "a step": wall,
        f"nothing to do, of {cores} processors": cores * wall
        - 1e3 * used / steps,
        "page faults": (after.ru_minflt - before.ru_minflt) / steps,
    }


def main() -> None:
    """Profiles in a process for each column, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=["bert_base"])
    add("--batch", type=int, default=8, help="sequences")
    add("--length", type=int, default=128, help="positions per sequence")
    add(
        "--precisions",
        nargs="+",
        choices=contestants.PRECISIONS,
        default=contestants.PRECISIONS,
    )
    add(
        "--processor",
        choices=PROCESSORS,
        default="this",
        help="avx2 keeps all libraries from the kernels of later processors",
    )
    add("--steps", type=int, default=4, help="that are profiled")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error("--steps: must be at least 1")
    if CHILD in os.environ:
        given = json.loads(os.environ[CHILD])
        shape = Shape.from_json(given["shape"])
        found = profile(shape, given["precision"], arguments.steps)
        print(json.dumps(found))
        return
    columns = {}
    for model, precision in itertools.product(
        arguments.models, arguments.precisions
    ):
        shape = Shape(MODELS[model], arguments.batch, arguments.length)
        given = {"shape": shape.to_json(), "precision": precision}
        made = subprocess.run(
            [sys.executable, __file__, "--steps", str(arguments.steps)],
            env={**environment(arguments.processor), CHILD: json.dumps(given)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found = json.loads(made.stdout.splitlines()[-1])
        columns[f"{model}, {precision}"] = found
    print(f"| ms per step | {' | '.join(columns)} |")
    print("| --- |" + " ---: |" * len(columns))
    for kind in next(iter(columns.values())):
        numbers = [f"{found[kind]:,.0f}" for found in columns.values()]
        print(f"| {kind} | {' | '.join(numbers)} |")


if __name__ == "__main__":
    main()
