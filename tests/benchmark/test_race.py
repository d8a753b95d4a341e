"""Contestants in separate processes, and the tables of their results."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras_hub
import numpy as np
import pytest
import rich.console
from toy import convert_litert_here, randomize

from keras_distil import export, models
from keras_distil.benchmark import (
    Contestant,
    Latency,
    Measured,
    chart,
    run_race,
)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=100,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=24,
    )
    model = randomize(models.ExactDistilBertMaskedLM(backbone), seed=1)
    folder = tmp_path_factory.mktemp("race")
    model.save(folder / "student.keras")
    loose = export.Tolerance(9.0, 9.0, 0.0)
    export.export_onnx(model, folder / "onnx", tolerance=loose)
    export.export_saved_model(model, folder / "saved_model", tolerance=loose)
    with pytest.MonkeyPatch.context() as patch:
        convert_litert_here(patch)
        export.export_litert(
            model, folder / "litert", lengths=[8, 16], tolerance=loose
        )
    return folder


def contestants(student, *names):
    paths = {
        "keras": ("keras", "student.keras"),
        "served": ("saved_model", "saved_model"),
        "phone": ("litert", "litert"),
        "onnx": ("onnx", "onnx/model.onnx"),
        "int8": ("onnx_int8", "onnx/model.onnx"),
        "gone": ("onnx", "missing.onnx"),
    }
    made = {
        name: Contestant(name, runtime, student / path, 1.0)
        for name, (runtime, path) in paths.items()
    }
    return [made[name] for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["phone", "onnx", "gone"],
        pytest.param(
            ["keras", "served", "phone", "onnx", "int8", "gone"],
            # Two of its processes load TensorFlow.
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_runtime_takes_its_turn(student, names):
    calls = []
    found = run_race(
        contestants(student, *names),
        lengths=[8, 24],
        num_threads=1,
        throughput_length=16,
        rounds=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    # Rounds, and those before them.
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert [each.contestant.name for each in found] == names
    *measured, gone = found
    assert gone.failed and "missing.onnx" in gone.failed
    for each in measured:
        assert each.failed is None
        # It supports up to 16 tokens.
        lengths = [8] if each.contestant.name == "phone" else [8, 24]
        assert list(each.latency) == lengths
        for taken in each.latency.values():
            assert 0 < taken.median_ms <= taken.p95_ms
        assert each.throughput > 0 and each.load_s > 0
        assert each.num_threads == 1
    memory = {x.contestant.name: x.peak_memory_mb for x in measured}
    # No TensorFlow in its process.
    assert memory["phone"] < memory.get("keras", 1000) / 2
    first = measured[0].contestant
    said = json.loads(json.dumps(measured[0].to_json()))
    assert said["name"] == first.name and said["path"] == first.path.name


def measured(name, latency, **arguments):
    who = Contestant(name, "keras", Path("x"), 12.0, **arguments)
    return Measured(who, 2, 0.5, 321.0, latency, 40.0)


ALL = [
    measured("teacher", {16: Latency(20.0, 31.0), 128: Latency(80.0, 90.0)}),
    measured("small", {16: Latency(4.0, 5.0)}, agreement=0.985, score=0.912),
    Measured(Contestant("gone", "onnx", Path("y"), 3.0), 2, failed="no file"),
]


def test_tables():
    console = rich.console.Console(width=80)
    with console.capture() as capture:
        console.print(chart.make_tables(ALL, title="both"))
    costs, medians, slowest = re.split("ms for one.*", capture.get())
    [teacher] = re.findall("teacher.*", costs)
    assert teacher.split()[1:6] == ["2", "12.0", "321", "0.50", "40.0"]
    [small] = re.findall("small.*", costs)
    assert small.split()[-2:] == ["98.5", "91.2"]
    [gone] = re.findall("gone.*", costs)
    assert "no file" in gone
    [teacher] = re.findall("teacher.*", medians)
    assert teacher.split()[2:] == ["20.0", "80.0"]
    [small] = re.findall("small.*", slowest)
    assert small.split()[2:] == ["5.0", "\N{EN DASH}"]


ERRORS = [
    measured("a", {16: Latency(4.0, 5.0)}, score=-0.693, is_error=True),
    measured("b", {16: Latency(3.0, 5.0)}, score=-1.25, is_error=True),
    measured("teacher", {16: Latency(20.0, 31.0)}),
]


def test_tables_of_errors():
    console = rich.console.Console(width=80)
    with console.capture() as capture:
        console.print(chart.make_tables(ERRORS, title="both"))
    costs, *_ = re.split("ms for one.*", capture.get())
    assert re.search(r"agree\s+%\s+error\s", costs)
    [one] = re.findall(r"\n *a +.*", costs)
    assert one.split()[-1] == "0.693"


def test_picture_of_errors(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    made = []
    keep = Figure.add_subplot

    def add_subplot(figure):
        made.append(keep(figure))
        return made[-1]

    monkeypatch.setattr(Figure, "add_subplot", add_subplot)
    chart.draw(ERRORS, tmp_path / "chart.png", length=16, title="both")
    [axes] = made
    assert axes.get_ylabel() == "error on the development set (less is better)"
    drawn = [float(dots.get_offsets()[0][1]) for dots in axes.collections]
    assert drawn == [0.693, 1.25]
    assert axes.yaxis_inverted()


@pytest.mark.parametrize("scored", [False, True])
def test_picture(tmp_path, scored):
    shown = (
        ALL
        if scored
        else [
            *ALL[:1],
            measured("x", {16: Latency(9.0, 9.0)}, agreement=0.9),
            ALL[2],
        ]
    )
    path = tmp_path / "chart.png"
    chart.draw(shown, path, length=16, title="both")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    import matplotlib.image

    image = matplotlib.image.imread(path)
    # Dots and words on white.
    assert 0.005 < np.mean(image[:, :, :3].min(axis=-1) < 0.9) < 0.5


def test_worker_ends_with_its_input(student):
    done = subprocess.run(
        [
            *[sys.executable, "-m", "keras_distil.benchmark.worker"],
            *["litert", str(student / "litert"), "1"],
        ],
        input="2 8\n1 20\n",
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(answers[0]) == ["load_s"]
    assert answers[1]["seconds"] > 0 and answers[1]["peak_memory_mb"] > 10
    assert answers[2] == {"too_long": True}
