"""The accuracy of `keras-distil plan --calibrate` for other shapes.

The measured run is the embedded teacher to three layers, at 16 x 64. From it
the time and memory of other batches, lengths and depths are predicted, and then
measured. Every shape runs in a separate process. Its updates and those of the
measured run take turns, so that a machine whose speed drifts is equally fast
for both; rounds in which other processes used the processor are repeated.

    python benchmarks/plan_accuracy.py                        # prints a table
    python benchmarks/plan_accuracy.py --json accuracy.json
    python benchmarks/plan_accuracy.py --shapes 8x128x2 --precisions float32
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from keras_distil.config import Recipe, load_recipe
from keras_distil.planning import measured
from keras_distil.planning.measured import MeasuredRecipe

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
PRECISIONS = ("float32", "mixed_bfloat16")
QUIET = 0.05  # share of the processor that others may use in a round
SECONDS_BETWEEN_TRIES = 2.0
AIM = 0.15


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch and a student.

    Args:
        batch: int, sequences per batch.
        length: int, tokens per sequence.
        layers: int, layers of the student.
    """

    batch: int
    length: int
    layers: int

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Reads "BATCHxLENGTHxLAYERS"."""
        return cls(*map(int, text.split("x")))

    def __str__(self) -> str:
        """Returns the form that `parse` reads."""
        return f"{self.batch}x{self.length}x{self.layers}"

    def recipe(self, precision: str) -> Recipe:
        """Returns the quickstart's recipe with these sizes."""
        return load_recipe(
            str(RECIPE),
            [
                f"precision={precision}",
                f"distill.batch_size={self.batch}",
                f"data.sequence_length={self.length}",
                f"student.num_layers={self.layers}",
            ],
        )


MEASURED = Case(16, 64, 3)
CASES = [
    Case(8, 64, 3),
    Case(32, 64, 3),
    Case(16, 128, 3),
    Case(8, 256, 3),
    Case(16, 64, 2),
    Case(16, 64, 4),
    Case(32, 128, 2),
    Case(16, 256, 4),
]


class Rounds:
    """Updates of the measured run and of another case, in turns.

    Args:
        pair: both processes, ready to run updates.
        tries: maximum number of rounds.
    """

    def __init__(
        self, pair: tuple[MeasuredRecipe, MeasuredRecipe], tries: int
    ) -> None:
        self._pair = pair
        self._tries = tries
        self._found: list[tuple[float, list[float]]] = []

    def run(self, quiet_rounds: int) -> None:
        """Runs rounds until this many were quiet."""
        for number in range(self._tries):
            order = (0, 1) if number % 2 else (1, 0)
            updates = {place: self._pair[place].update() for place in order}
            others = max(x.others for x in updates.values())
            self._found.append(
                (others, [updates[place].seconds for place in (0, 1)])
            )
            if len(self._quiet()) >= quiet_rounds:
                return
            if others > QUIET:
                time.sleep(SECONDS_BETWEEN_TRIES)

    def _quiet(self) -> list[list[float]]:
        return [seconds for others, seconds in self._found if others <= QUIET]

    def results(self) -> tuple[list[list[float]], float]:
        """Returns both times of every valid round, and the share of others.

        If too few were quiet, the three with the smallest share are valid.
        """
        best = sorted(self._found)[: max(3, len(self._quiet()))]
        return [x for _, x in best], statistics.median(x for x, _ in best)


def measure(
    precision: str, cases: list[Case], rounds: int, tries: int
) -> Iterator[dict]:
    """Predicts and measures the cases of one precision.

    Yields:
        A row for each case.
    """
    base = MEASURED.recipe(precision)
    with MeasuredRecipe(base) as measuring:
        warm_up(measuring)
        # Measuring rates takes memory, so it comes last.
        measured_peak = measuring.peak_gb
        for case in cases:
            recipe = case.recipe(precision)
            with MeasuredRecipe(recipe) as running:
                warm_up(running)
                turns = Rounds((measuring, running), tries)
                turns.run(rounds)
                times, others = turns.results()
                measurement = dataclasses.replace(
                    measured.measurement(
                        measuring,
                        base,
                        seconds=statistics.median(x[0] for x in times),
                        others=others,
                        updates=len(times),
                    ),
                    peak_gb=measured_peak,
                )
                predicted = measured.predict(
                    measurement, measured.step_of(recipe)
                )
                step_s = statistics.median(x[1] for x in times)
                # From the rounds: what slows both down cancels out.
                ratio = statistics.median(
                    predicted.step_s / measurement.seconds * x[0] / x[1]
                    for x in times
                )
                yield {
                    "precision": precision,
                    **dataclasses.asdict(case),
                    "predicted_s": predicted.step_s,
                    "measured_s": step_s,
                    "time_ratio": ratio,
                    "predicted_gb": predicted.peak_gb,
                    "measured_gb": running.peak_gb,
                    "memory_ratio": predicted.peak_gb / running.peak_gb,
                    "others": others,
                    "rounds": times,
                    "predicted_seconds": predicted.seconds,
                    "predicted_memory_gb": predicted.memory_gb,
                    "matrix_flops": measurement.matrix_flops,
                    "bandwidth": measurement.bandwidth,
                    "measured_run_gb": measured_peak,
                }


def warm_up(running: MeasuredRecipe) -> None:
    """Runs updates that do not count."""
    for _ in range(measured.WARM_UP_UPDATES):
        running.update()


def markdown(rows: list[dict]) -> str:
    """Returns the rows as a table, and the worst ratios."""
    lines = [
        "| precision | batch | length | layers | predicted s | measured s "
        "| ratio | predicted GB | measured GB | ratio |",
        "| --- |" + " ---: |" * 9,
    ]
    for row in rows:
        lines.append(
            "| {precision} | {batch} | {length} | {layers} "
            "| {predicted_s:.3f} | {measured_s:.3f} | {time_ratio:.2f} "
            "| {predicted_gb:.2f} | {measured_gb:.2f} | {memory_ratio:.2f} "
            "|".format(**row)
        )
    worst = {
        name: max(abs(row[f"{name}_ratio"] - 1) for row in rows)
        for name in ("time", "memory")
    }
    lines.append(
        f"\nLargest deviation: time {100 * worst['time']:.0f}%, memory "
        f"{100 * worst['memory']:.0f}% (aim: {100 * AIM:.0f}%)."
    )
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line, and ends with a line if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--shapes",
        nargs="+",
        type=Case.parse,
        default=CASES,
        metavar="BATCHxLENGTHxLAYERS",
    )
    add("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    add("--rounds", type=int, default=5, help="quiet rounds per shape")
    add("--tries", type=int, default=20, help="maximum number of rounds")
    add("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    if not 1 <= arguments.rounds <= arguments.tries:
        parser.error("--rounds: must be at least 1, and at most --tries")
    return arguments


def main() -> int:
    """Measures, prints a table and writes JSON if requested."""
    arguments = parse_arguments()
    rows: list[dict] = []
    for precision in arguments.precisions:
        for row in measure(
            precision, arguments.shapes, arguments.rounds, arguments.tries
        ):
            rows.append(row)
            print(markdown([row]).splitlines()[2], flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    print()
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
