"""The growth of a step's time and memory with batch, layers and length.

MiniLM's widths, all positions, no padding. The sizes of one panel run at the
same time and take turns; the memory is that of the losses on BERT-base's
logits.

    python benchmarks/scaling.py                    # prints tables
    python benchmarks/scaling.py --json scaling.json --plot scaling.png
    python benchmarks/scaling.py --json scaling.json --panels memory

With `--json`, a later run adds to the content of the file.
"""

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
from pathlib import Path

import contestants
from contestants.process import Contestant, ContestantFailed
from contestants.shapes import MODELS, Shape, make_data, useful_flops

BATCHES = (2, 4, 8, 16, 32, 64)
LAYERS = (2, 4, 6, 8, 12)  # of the teacher; the student has half
LENGTHS = (64, 128, 256, 512)
TOKENS = 2048  # per batch, at each length

TITLES = {
    "batch": "sequences of 128 tokens in a batch",
    "layers": "layers of the teacher (student: half)",
    "length": f"tokens of a sequence ({TOKENS:,} in a batch)",
    "memory": "sequences of 128 tokens in a batch",
}


def panel_shapes(panel: str) -> dict[int, Shape]:
    """Returns the shapes of a panel, by the values on its axis."""
    mini = MODELS["minilm"]
    if panel == "batch":
        return {x: Shape(mini, x, 128) for x in BATCHES}
    if panel == "layers":
        return {
            x: Shape(
                dataclasses.replace(mini, layers=x, student_layers=x // 2),
                batch=8,
                length=128,
            )
            for x in LAYERS
        }
    if panel == "length":
        return {x: Shape(mini, TOKENS // x, x) for x in LENGTHS}
    return {x: Shape(MODELS["bert_base"], x, 128) for x in BATCHES}


def measure_times(
    shapes: dict[int, Shape], precision: str, rounds: int, seconds: float
) -> dict[str, dict[int, float]]:
    """Returns milliseconds per token, measured and scaled by arithmetic."""
    with contextlib.ExitStack() as stack:
        processes = {}
        for x, shape in shapes.items():
            processes[x] = Contestant("keras_distil", precision, shape)
            stack.callback(processes[x].close)
            processes[x].warm_up()
        turns: dict[int, list[float]] = {x: [] for x in shapes}
        for _ in range(rounds):
            for x, process in processes.items():
                turn = process.turn(seconds)
                turns[x].append(turn["seconds"] / turn["steps"])
    tokens = {x: y.batch * y.length for x, y in shapes.items()}
    times = {
        x: 1000 * statistics.median(y) / tokens[x] for x, y in turns.items()
    }
    flops = {
        x: useful_flops(y, make_data(y)) / tokens[x] for x, y in shapes.items()
    }
    # A single rate, so that the curves are comparable.
    rate = statistics.median(times[x] / flops[x] for x in shapes)
    return {
        "measured": times,
        "arithmetic": {x: rate * flops[x] for x in flops},
    }


def measure_memory(
    shapes: dict[int, Shape], precision: str
) -> dict[str, dict[int, float]]:
    """Returns the GB that the losses on logits need above their inputs."""
    memory_gb: dict[str, dict[int, float]] = {"in chunks": {}, "whole": {}}
    for x, shape in shapes.items():
        process = Contestant("vocabulary", precision, shape)
        with contextlib.closing(process):
            before = process.turn(0.0)["peak_memory_gb"]
            peak = process.turn(0.0)["peak_memory_gb"]
            memory_gb["in chunks"][x] = peak - before
            try:
                peak = process.turn(0.0)["peak_memory_gb"]
            except ContestantFailed as error:
                print(f"Whole logits of batch {x}: {error}", file=sys.stderr)
            else:
                memory_gb["whole"][x] = peak - before
    return memory_gb


def table(panel: str, precision: str, figures: dict) -> str:
    """Returns a panel's figures as Markdown."""
    columns = list(figures)
    unit = "GB" if panel == "memory" else "ms per token"
    lines = [
        "",
        f"{unit}, {precision}",
        "",
        f"| {TITLES[panel]} | {' | '.join(columns)} |",
        "| ---: | " + " | ".join(["---:"] * len(columns)) + " |",
    ]
    for x in figures[columns[0]]:
        values = [
            f"{figures[name][x]:.2f}" if x in figures[name] else "-"
            for name in columns
        ]
        lines.append(f"| {x} | {' | '.join(values)} |")
    return "\n".join(lines)


def draw(figures: dict, path: Path) -> None:
    """Draws the panels that were measured."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    colors = dict(zip(contestants.PRECISIONS, ("C0", "C1"), strict=True))
    styles = {
        "measured": "o-",
        "arithmetic": "--",
        "in chunks": "o-",
        "whole": "s:",
    }
    for (panel, title), axis in zip(TITLES.items(), axes.flat, strict=True):
        for precision, curves in figures.get(panel, {}).items():
            for name, values in curves.items():
                axis.plot(
                    [int(x) for x in values],
                    list(values.values()),
                    styles[name],
                    color=colors[precision],
                    label=f"{precision.removeprefix('mixed_')}, {name}",
                )
        if panel != "layers":
            axis.set_xscale("log", base=2)
        axis.set_xticks(list(panel_shapes(panel)))
        axis.get_xaxis().set_major_formatter("{x:.0f}")
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel(title)
        axis.set_ylabel(
            "GB of the losses on logits"
            if panel == "memory"
            else "ms per token"
        )
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measures, prints tables, and writes JSON and draws if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--panels", nargs="+", choices=TITLES, default=TITLES)
    add(
        "--precisions",
        nargs="+",
        choices=contestants.PRECISIONS,
        default=contestants.PRECISIONS,
    )
    add("--rounds", type=int, default=3)
    add("--turn-seconds", type=float, default=0.5, help="minimum")
    add("--json", type=Path, help="file to add the figures to")
    add("--plot", type=Path, help="PNG to draw")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: must be at least 1")
    figures: dict = {}
    if arguments.json and arguments.json.is_file():
        figures = json.loads(arguments.json.read_text())
    for panel in arguments.panels:
        shapes = panel_shapes(panel)
        for precision in arguments.precisions:
            if panel == "memory":
                values = measure_memory(shapes, precision)
            else:
                values = measure_times(
                    *(shapes, precision),
                    *(arguments.rounds, arguments.turn_seconds),
                )
            figures.setdefault(panel, {})[precision] = values
            print(table(panel, precision, values), flush=True)
            if arguments.json:
                text = json.dumps(figures, indent=2)
                arguments.json.write_text(text + "\n")
    if arguments.plot:
        draw(figures, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
