"""The cost or gain of an option of keras_distil's step.

The values of one option run at the same time and take turns, each in a process,
so that a machine whose speed drifts is equally fast for all. Speeds are medians
over the rounds, relative to the first value.

    python benchmarks/variants.py chunk_size --models bert_base minilm
    python benchmarks/variants.py micro_batches --batches 32
    python benchmarks/variants.py top_k
    python benchmarks/variants.py jit_compile --processor avx2
    python benchmarks/variants.py added_loss --length 512
"""

import argparse
import contextlib
import dataclasses
import itertools
import statistics
import sys

import contestants
from contestants.process import PROCESSORS, Contestant, ContestantFailed
from contestants.report import shape_name
from contestants.shapes import MODELS, Shape, Variant

# The others are compared with the first of each.
VALUES = {
    "chunk_size": (256, 128, 512, 1024),
    "micro_batches": (1, 2, 4, 8),
    "top_k": (0, 8, 64),
    "jit_compile": (True, "products", False, "auto"),
    "added_loss": ("none", "attention_relation", "attention_transfer"),
}


def measure(
    shape: Shape,
    precision: str,
    choice: str,
    rounds: int,
    seconds: float,
    processor: str,
) -> list[tuple[float, float, float]]:
    """Returns tokens per second, relative speed, and GB, by value."""
    with contextlib.ExitStack() as stack:
        processes = []
        for value in VALUES[choice]:
            variant = dataclasses.replace(Variant(), **{choice: value})
            varied = dataclasses.replace(shape, variant=variant)
            processes.append(
                Contestant("keras_distil", precision, varied, processor)
            )
            stack.callback(processes[-1].close)
            processes[-1].warm_up()
        turns_by_round = []
        for number in range(rounds):
            # Every second round in reverse, so that drift cancels out.
            way = 1 - 2 * (number % 2)
            turns_by_round.append(
                [x.turn(seconds) for x in processes[::way]][::way]
            )
    rates = [
        [x["steps"] / x["seconds"] for x in turns] for turns in turns_by_round
    ]
    tokens = shape.batch * shape.length
    return [
        (
            tokens * statistics.median(rate[i] for rate in rates),
            statistics.median(rate[i] / rate[0] for rate in rates),
            max(turns[i]["peak_memory_gb"] for turns in turns_by_round),
        )
        for i in range(len(processes))
    ]


def parse_arguments() -> argparse.Namespace:
    """Reads the command line, and ends with a line if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("choice", choices=VALUES)
    add("--models", nargs="+", choices=MODELS, default=["bert_base"])
    add("--batches", nargs="+", type=int, default=[8], help="sequences")
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
    add("--rounds", type=int, default=5)
    add("--turn-seconds", type=float, default=1.0, help="minimum")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: must be at least 1")
    if min(arguments.batches) < max(VALUES["micro_batches"]):
        parser.error("--batches: must be at least 8")
    if arguments.choice == "top_k" and "toy" in arguments.models:
        # Masking draws random words from BERT's whole vocabulary.
        parser.error("--models: a cached teacher needs BERT's vocabulary")
    return arguments


def main() -> int:
    """Measures and prints a table."""
    arguments = parse_arguments()
    choice = arguments.choice
    print(f"| shape | precision | {choice} | tokens/s | times as fast | GB |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for model, batch, precision in itertools.product(
        arguments.models, arguments.batches, arguments.precisions
    ):
        shape = Shape(MODELS[model], batch, arguments.length)
        row = {"model": model, **dataclasses.asdict(shape)}
        try:
            rows = measure(
                *(shape, precision, choice),
                *(arguments.rounds, arguments.turn_seconds),
                arguments.processor,
            )
        except ContestantFailed as error:
            print(f"keras_distil failed: {error}", file=sys.stderr)
            return 1
        for value, (rate, ratio, memory) in zip(
            VALUES[choice], rows, strict=True
        ):
            print(
                f"| {shape_name(row)} | {precision} | {value} | {rate:.0f} "
                f"| {ratio:.2f} | {memory:.2f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
