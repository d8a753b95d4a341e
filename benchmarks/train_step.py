"""Speed and memory of a distillation step, compared with peers.

Every contestant runs in a process, so that its peak memory is separate. Those
that are compared exist at the same time and take turns of a second or more, so
that a machine whose speed drifts is equally fast for all; waiting ones sleep.
Ratios are medians over the rounds, of the two rates in one round. Weights are
random, dropout is 0 for all, and all train on the same batches. The peak is the
best matrix product of NumPy's BLAS, TensorFlow, XLA and PyTorch, square or of
the step's own shapes, measured in every round; variables that restrict kernels
are unset.

    python benchmarks/train_step.py                          # the usual shapes
    python benchmarks/train_step.py --batches 8 32 --lengths 128 512
    python benchmarks/train_step.py --full --json figures.json
    python benchmarks/train_step.py --processor avx2   # without AVX-512

The PyTorch step needs the extra `peers`: pip install -e '.[peers]'
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import contestants
from contestants import report
from contestants.process import PROCESSORS, Contestant, ContestantFailed
from contestants.shapes import (
    MODELS,
    Shape,
    make_data,
    real_tokens,
    useful_flops,
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A shape, and the contestants that train on it.

    Args:
        model: one of `shapes.MODELS`.
        shape: sizes of the model and of a batch.
        peers: names in `contestants.PEERS`.
        precisions: some of `contestants.PRECISIONS`, for ours and for theirs.
    """

    model: str
    shape: Shape
    peers: tuple[str, ...] = contestants.PEERS
    precisions: tuple[str, ...] = contestants.PRECISIONS


def usual_comparisons() -> list[Comparison]:
    """Returns the most telling comparisons, half an hour with all peers."""
    base, mini = MODELS["bert_base"], MODELS["minilm"]
    plain = ("plain_keras",)
    return [
        Comparison("bert_base", Shape(base, 8, 128)),
        Comparison(
            "bert_base", Shape(base, 32, 128), ("pytorch",), ("float32",)
        ),
        Comparison("bert_base", Shape(base, 8, 128, padding=0.4), plain),
        Comparison("bert_base", Shape(base, 8, 128, "masked"), plain),
        Comparison("minilm", Shape(mini, 8, 128)),
    ]


class Peaks:
    """The best matrix products of all libraries, in every round.

    Args:
        libraries: processes that multiply matrices, one per library.
        precisions: some of `contestants.PRECISIONS`.
    """

    def __init__(
        self, libraries: list[Contestant], precisions: tuple[str, ...]
    ) -> None:
        self._libraries, self._precisions = libraries, precisions
        self._turns: dict[str, list[dict]] = {}

    def turn(self) -> dict[str, float]:
        """Measures all products; returns the best FLOP/s by precision."""
        best = dict.fromkeys(self._precisions, 0.0)
        for library in self._libraries:
            turn = library.turn(0.0)
            self._turns.setdefault(library.precision, []).append(turn)
            for precision in best:
                rates = turn["rates"].get(precision, {})
                best[precision] = max(best[precision], *rates.values(), 0.0)
        return best

    def rows(self) -> list[dict]:
        """Returns the medians of each library's products, by precision."""
        return [
            {
                "precision": precision,
                "library": library,
                "kernels": turns[0]["kernels"],
                "rates": {
                    name: statistics.median(
                        turn["rates"][precision][name] for turn in turns
                    )
                    for name in turns[0]["rates"][precision]
                },
            }
            for precision in self._precisions
            for library, turns in self._turns.items()
            if precision in turns[0]["rates"]
        ]


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a comparison found.

    Attributes:
        rows: a row per contestant.
        ratios: a row per pair that is compared.
        products: a row per library and precision.
    """

    rows: list[dict]
    ratios: list[dict]
    products: list[dict]


def measure(
    comparison: Comparison, rounds: int, seconds: float, processor: str
) -> Figures:
    """Runs a comparison.

    Args:
        comparison: the comparison to run.
        rounds: turns of each contestant.
        seconds: minimum duration of a turn.
        processor: one of `process.PROCESSORS`.
    """
    with contextlib.ExitStack() as stack:

        def start(name: str, precision: str) -> Contestant:
            contestant = Contestant(
                name, precision, comparison.shape, processor
            )
            stack.callback(contestant.close)
            return contestant

        libraries = [
            start("products", library)
            for library, packages in contestants.PRODUCTS.items()
            if not lacking(packages)
        ]
        ours = [start("keras_distil", x) for x in comparison.precisions]
        for contestant in (*libraries, *ours):
            contestant.warm_up()
        peaks = Peaks(libraries, comparison.precisions)
        race = Race(comparison, peaks, rounds, seconds)
        if not comparison.peers:
            race.run(ours)
        # One peer at a time, because memory could not hold all of them.
        for precision, name in itertools.product(
            comparison.precisions, comparison.peers
        ):
            peer = start(name, precision)
            try:
                peer.warm_up()
                race.run(ours, peer)
            except ContestantFailed as error:
                race.failed(peer, str(error))
            peer.close()
        products = [{**race.shape, **row} for row in peaks.rows()]
        return Figures(race.rows(), race.ratios, products)


class Race:
    """Rounds of turns of some contestants, and their measurements.

    Args:
        comparison: the comparison to run.
        peaks: the matrix products to which steps are compared.
        rounds: turns of each contestant.
        seconds: minimum duration of a turn.
    """

    def __init__(
        self,
        comparison: Comparison,
        peaks: Peaks,
        rounds: int,
        seconds: float,
    ) -> None:
        self.ratios: list[dict] = []
        self._peaks = peaks
        self._rounds, self._seconds = rounds, seconds
        shape, data = comparison.shape, make_data(comparison.shape)
        self._tokens = shape.batch * shape.length
        self._real_tokens = real_tokens(data)
        self._flops = useful_flops(shape, data)
        self.shape = {
            "model": comparison.model,
            **{
                name: value
                for name, value in dataclasses.asdict(shape).items()
                if name not in ("sizes", "variant")
            },
        }
        self._turns: dict[tuple[str, str], list[dict]] = {}
        self._failures: dict[tuple[str, str], str] = {}

    def run(self, ours: list[Contestant], peer: Contestant | None = None):
        """Runs the rounds.

        A peer in bfloat16 is compared with ours in bfloat16, one in float32
        with both.
        """
        if peer is not None and peer.precision != "float32":
            ours = [x for x in ours if x.precision == peer.precision]
        group = [*ours, *([peer] if peer else [])]
        pairs: dict[str, list[float]] = {x.precision: [] for x in ours}
        for number in range(self._rounds):
            # Every second round in reverse, so that drift cancels out.
            order = group[:: 1 - 2 * (number % 2)]
            rates = self._round(order)
            if peer is not None:
                for precision, values in pairs.items():
                    values.append(rates["keras_distil", precision])
                    values[-1] /= rates[peer.name, peer.precision]
        if peer is None:
            return
        for precision, values in pairs.items():
            self.ratios.append(
                {
                    **self.shape,
                    "precision": precision,
                    "peer": peer.name,
                    "peer_precision": peer.precision,
                    "speed": statistics.median(values),
                    "speeds": values,
                    "memory": self._memory("keras_distil", precision)
                    / self._memory(peer.name, peer.precision),
                }
            )

    def _round(self, group: list[Contestant]) -> dict:
        """Runs a turn for each; returns steps per second by contestant."""
        peaks = self._peaks.turn()
        rates = {}
        for contestant in group:
            waiting = [x for x in group if x is not contestant]
            before = sum(x.cpu_seconds() for x in waiting)
            turn = contestant.turn(self._seconds)
            key = contestant.name, contestant.precision
            used = sum(x.cpu_seconds() for x in waiting) - before
            turn["waiting_cpu"] = used / turn["seconds"]
            turn["peak"] = peaks[contestant.precision]
            self._turns.setdefault(key, []).append(turn)
            rates[key] = turn["steps"] / turn["seconds"]
        return rates

    def _memory(self, *key: str) -> float:
        return max(turn["peak_memory_gb"] for turn in self._turns[key])

    def failed(self, contestant: Contestant, reason: str) -> None:
        """Records that a contestant could not be measured."""
        self._failures[contestant.name, contestant.precision] = reason

    def rows(self) -> list[dict]:
        """Returns the medians of each contestant's turns."""
        return [
            *(self._figures(*key) for key in self._turns),
            *(
                {**self.shape, "name": name, "precision": precision}
                | {"failed": reason}
                for (name, precision), reason in self._failures.items()
            ),
        ]

    def _figures(self, name: str, precision: str) -> dict:
        turns = self._turns[name, precision]
        step_s = statistics.median(x["seconds"] / x["steps"] for x in turns)
        return {
            **self.shape,
            "name": name,
            "precision": precision,
            "step_s": step_s,
            "tokens_per_second": self._tokens / step_s,
            "real_tokens_per_second": self._real_tokens / step_s,
            "useful_flops": self._flops,
            "peak": statistics.median(x["peak"] for x in turns),
            # From the same round as each turn.
            "peak_fraction": statistics.median(
                self._flops * x["steps"] / x["seconds"] / x["peak"]
                for x in turns
            ),
            "peak_memory_gb": self._memory(name, precision),
            "waiting_cpu": statistics.median(x["waiting_cpu"] for x in turns),
        }


def chosen_comparisons(arguments: argparse.Namespace) -> list[Comparison]:
    """Returns the comparisons that the options ask for."""
    peers = tuple(x for x in arguments.peers if x != "none")
    shapes = (
        arguments.models,
        arguments.batches,
        arguments.lengths,
        arguments.positions,
        arguments.padding,
    )
    if not arguments.full and not any(shapes):
        return [
            dataclasses.replace(
                usual,
                peers=tuple(x for x in usual.peers if x in peers),
                precisions=tuple(
                    x for x in usual.precisions if x in arguments.precisions
                ),
            )
            for usual in usual_comparisons()
            if set(usual.precisions) & set(arguments.precisions)
        ]
    if arguments.full:
        defaults = (
            ["bert_base", "minilm"],
            [4, 8, 16, 32, 64],
            [64, 128, 512],
            ["all", "masked"],
            [0.0, 0.4],
        )
    else:
        defaults = (["bert_base"], [8], [128], ["all"], [0.0])
    values = [
        given or usual for given, usual in zip(shapes, defaults, strict=True)
    ]
    return [
        Comparison(
            model,
            Shape(MODELS[model], batch, length, positions, padding),
            peers,
            tuple(arguments.precisions),
        )
        for model, batch, length, positions, padding in itertools.product(
            *values
        )
    ]


def available(comparisons: list[Comparison]) -> Iterator[Comparison]:
    """Yields the comparisons without peers that are not installed."""
    for comparison in comparisons:
        yield dataclasses.replace(
            comparison,
            peers=tuple(x for x in comparison.peers if not missing(x)),
        )


def missing(name: str) -> list[str]:
    """Returns the missing packages of a contestant."""
    _, packages = contestants.NAMES[name]
    return lacking(packages)


def lacking(packages: tuple[str, ...]) -> list[str]:
    """Returns those of some packages that are not installed."""
    return [x for x in packages if importlib.util.find_spec(x) is None]


def parse_arguments() -> argparse.Namespace:
    """Reads the command line, and ends with a line if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, metavar="MODEL")
    add("--batches", nargs="+", type=int, help="sequences per batch")
    add("--lengths", nargs="+", type=int, help="positions per sequence")
    add("--positions", nargs="+", choices=("all", "masked"))
    add("--padding", nargs="+", type=float, help="share of the positions")
    add(
        "--full",
        action="store_true",
        help="all values of what is not given; takes hours",
    )
    add(
        "--precisions",
        nargs="+",
        choices=contestants.PRECISIONS,
        default=contestants.PRECISIONS,
    )
    add(
        "--peers",
        nargs="+",
        choices=(*contestants.PEERS, "none"),
        default=contestants.PEERS,
    )
    add("--rounds", type=int, default=5)
    add("--turn-seconds", type=float, default=1.0, help="minimum")
    add(
        "--processor",
        choices=PROCESSORS,
        default="this",
        help="avx2 keeps all libraries from the kernels of later processors",
    )
    add("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    for name in ("batches", "lengths"):
        if min(getattr(arguments, name) or [2]) < 2:
            parser.error(f"--{name}: must be at least 2")
    if max(arguments.lengths or [2]) > 512:
        parser.error("--lengths: the models have 512 positions")
    if not all(0 <= x < 0.5 for x in arguments.padding or []):
        parser.error("--padding: must be at least 0 and below 0.5")
    if arguments.rounds < 1:
        parser.error("--rounds: must be at least 1")
    return arguments


def main() -> int:
    """Measures, prints tables and writes JSON if requested."""
    arguments = parse_arguments()
    comparisons = chosen_comparisons(arguments)
    for name in contestants.PEERS:
        if missing(name) and any(name in x.peers for x in comparisons):
            print(
                f"Not measured: {contestants.NAMES[name][0]}, for lack of "
                f"{' and '.join(missing(name))} (pip install -e '.[peers]').",
                flush=True,
            )
    rows, ratios, products = [], [], []
    for comparison in available(comparisons):
        row = {
            "model": comparison.model,
            **dataclasses.asdict(comparison.shape),
        }
        print(f"Measuring {report.shape_name(row)}", flush=True)
        try:
            found = measure(
                comparison,
                arguments.rounds,
                arguments.turn_seconds,
                arguments.processor,
            )
        except ContestantFailed as error:
            print(f"keras_distil failed: {error}", file=sys.stderr)
            return 1
        rows += found.rows
        ratios += found.ratios
        products += found.products
        if arguments.json:
            figures = {
                "contestants": rows,
                "ratios": ratios,
                "products": products,
            }
            arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(report.markdown(rows, ratios))
    print(report.products_table(products))
    return 0


if __name__ == "__main__":
    sys.exit(main())
