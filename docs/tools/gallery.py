"""Draws the pictures of the gallery from finished runs.

    python docs/tools/gallery.py RUN [RUN ...] --plan RECIPE --devices N

writes one SVG for each thing that a run has, and prints its path: what each of
its models keeps of the teacher's score at which size and speed, which of the
teacher's layers the student has, which classes are confused, and what its
exports cost by precision. `--plan` draws a recipe's memory and hours by device.
The pictures are those of a run's report; `docs/gallery.md` shows them.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from keras_distil import config
from keras_distil.config import shipped
from keras_distil.runs import comparison, score_table
from keras_distil.runs.report import (
    charts,
    export_table,
    figures,
    svg,
    task_charts,
    task_details,
)

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "docs" / "images" / "gallery"
# Devices of which a plan tells memory and hours.
DEVICES = ("t4", "v100", "a10g", "l4", "a100", "h100")
# A chart's words are ten units high; so they are as high as those around it.
_PIXELS_PER_UNIT = 1.35
_PARTS = {
    "teacher_weights": ("teacher", "#555555"),
    "student_weights": ("student", "#0072b2"),
    "student_gradients": ("gradients", "#56b4e9"),
    "adamw_moments": ("AdamW", "#009e73"),
    "activations": ("activations", "#e69f00"),
    "vocabulary_chunk": ("logits", "#cc79a7"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the pictures; returns 1, with one line, if a run has none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--plan", metavar="RECIPE")
    parser.add_argument("--devices", type=int, default=1, metavar="N")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR")
    given = parser.parse_args(arguments)
    try:
        for run in given.runs:
            pictures = dict(pictures_of(run))
            if not pictures:
                raise ValueError(f"{run}: the run has nothing to draw.")
            for name, drawn in pictures.items():
                print(write(given.output / f"{name}.svg", drawn))
        if given.plan is not None:
            drawn = draw_plan(given.plan, devices=given.devices)
            name = f"plan_{Path(given.plan).stem}"
            print(write(given.output / f"{name}.svg", drawn))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def pictures_of(run: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields a name and the charts of each picture of a run.

    Args:
        run: a finished run's folder.

    Raises:
        ValueError: if it is none, or damaged.
    """
    path = run / "report.json"
    if not path.is_file():
        raise ValueError(
            f"{run} must be the folder of a finished run, and has no "
            f"{path.name}: `keras-distil run RECIPE --output {run}` makes one."
        )
    report = json.loads(path.read_text("utf-8"))
    name = report["name"]
    tasks = None
    if "tasks" in report:
        tasks = score_table.ResultTable.from_json(json.dumps(report["tasks"]))
    found = figures.cost_dots(report.get("rows", {}), tasks)
    drawn = [
        charts.draw_costs(
            kept(dots),
            # An axis is as high as 28 letters are long.
            score=f"kept: {score.replace(' of the tasks', '')}",
            prefix=f"kept-{n}",
        )
        for n, (score, dots) in enumerate(found.items())
    ]
    if drawn:
        yield f"kept_{name}", drawn
    compared = comparison.read(run / comparison.SIDE_BY_SIDE_FILE)
    if compared is not None:
        recipe = config.load_recipe(run / "recipe.yaml")
        copied = figures.copied_layers(compared, recipe)
        drawn = [
            charts.draw_similarity(
                compared.similarity, copied=copied, prefix="layers"
            )
        ]
        yield f"layers_{name}", drawn
    for task, details in task_details.read_all(report, run).items():
        if details.confusions is not None:
            names = details.confusions.names
            drawn = [
                task_charts.draw_confusions(row, names, counts, prefix=row)
                for row, counts in details.confusions.counts.items()
            ]
            yield f"confusions_{task}", drawn
    benchmarks = export_table.read_benchmarks(report, run)
    drawn = export_table.draw_exports(report, benchmarks)
    if drawn:
        yield f"exports_{name}", drawn


def kept(dots: Sequence[charts.Dot]) -> list[charts.Dot]:
    """Scores as shares of the teacher's, in percent.

    Args:
        dots: the models; without a teacher, or if its score is not above 0, the
            scores stay as they are.
    """
    of_teacher = [x.score for x in dots if x.role == score_table.TEACHER]
    whole = of_teacher[0] if of_teacher and of_teacher[0] > 0 else 100.0
    return [
        dataclasses.replace(dot, score=100.0 * dot.score / whole)
        for dot in dots
    ]


def draw_plan(name: str, *, devices: int) -> str:
    """Draws what a recipe's distillation takes on each device.

    Args:
        name: a recipe that comes with the package, or a file.
        devices: int >= 1, how many of them share a batch.

    Raises:
        ValueError: if there is no such recipe, or its hours are not known.
    """
    from matplotlib.figure import Figure

    plans = plan(name, devices=devices)
    places = range(len(plans))
    with svg.style():
        figure = Figure(figsize=(charts.WIDTH, 3.6), layout="constrained")
        memory, time = figure.subplots(1, 2, sharey=True)
        left = [0.0] * len(plans)
        for part, (shown, color) in _PARTS.items():
            sizes = [each["memory"].get(part, 0.0) for each in plans.values()]
            memory.barh(places, sizes, left=left, color=color, label=shown)
            left = [a + b for a, b in zip(left, sizes, strict=True)]
        hours = [each["hours"] for each in plans.values()]
        bars = time.barh(places, hours, color="#999999")
        time.bar_label(bars, [f"{x:.3g}" for x in hours], padding=2)
        time.margins(x=0.3)
        names = [
            f"{device}, {each['memory_gb']:.0f} GB"
            for device, each in plans.items()
        ]
        memory.set_yticks(places, names)
        memory.invert_yaxis()
        memory.set_xlabel("GB of a device")
        time.set_xlabel("hours")
        for axes in (memory, time):
            axes.locator_params(axis="x", nbins=4)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", alpha=0.3)
            axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=3)
        return svg.inline(
            figure,
            label=f"Memory and hours of {name} by device",
            prefix="plan",
        )


def plan(name: str, *, devices: int) -> dict[str, dict[str, Any]]:
    """Memory in GB by part, memory in all and hours, by device.

    Args:
        name: as for `draw_plan`.
        devices: likewise.

    Raises:
        ValueError: likewise.
    """
    from keras_distil.planning import estimate
    from keras_distil.planning.devices import find_device

    path = Path(name)
    if name in shipped.list_names():
        path = shipped.find_recipe(name)
    recipe = config.load_recipe(path)
    found = {}
    for device in map(find_device, DEVICES):
        settled, _ = estimate.with_precision(recipe, device)
        summary = estimate.summarise(settled, devices=devices)
        planned = estimate.durations(settled, device=device, devices=devices)
        hours = planned["time"]["hours"]
        if isinstance(hours, str):
            raise ValueError(
                f"{name}: its hours are {hours}; give a recipe with "
                "`distill.steps`."
            )
        found[device.name] = {
            "memory": summary["memory_gb_per_device"],
            "memory_gb": device.memory_gb,
            "hours": hours,
        }
    return found


def write(path: Path, drawn: str | Sequence[str]) -> Path:
    """Writes charts below one another into one file.

    Args:
        path: the SVG to write.
        drawn: an `<svg>` or several, whose ids differ.

    Returns:
        The path.

    Raises:
        OSError: if it cannot be written.
    """
    texts = [drawn] if isinstance(drawn, str) else drawn
    parts = [ElementTree.fromstring(text) for text in texts]
    sizes = [
        [float(x) for x in part.get("viewBox", "").split()[2:]]
        for part in parts
    ]
    width, height = max(x for x, _ in sizes), sum(y for _, y in sizes)
    labels = "; ".join(part.attrib.pop("aria-label") for part in parts)
    whole = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width:g} {height:g}",
            "width": f"{_PIXELS_PER_UNIT * width:.0f}",
            "height": f"{_PIXELS_PER_UNIT * height:.0f}",
            "role": "img",
            "aria-label": labels,
        },
    )
    style = ElementTree.SubElement(whole, "style")
    style.text = (
        f"@media (prefers-color-scheme: dark) {{ :root {{ {svg.DARK} }} }}"
    )
    top = 0.0
    for part, (own_width, own_height) in zip(parts, sizes, strict=True):
        del part.attrib["role"]
        part.set("y", f"{top:g}")
        part.set("width", f"{own_width:g}")
        part.set("height", f"{own_height:g}")
        whole.append(part)
        top += own_height
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ElementTree.tostring(whole, encoding="unicode")
    path.write_text(f"{text}\n", "utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
