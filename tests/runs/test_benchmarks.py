"""The command that measures a student: what it finds, writes and says."""

import importlib.util
import json
import re
import sys

import pytest
from toy import convert_litert_here

from keras_distil import config
from keras_distil.benchmark import Latency, Measured, race
from keras_distil.cli import app
from keras_distil.models import load_teacher, task_model
from keras_distil.runs import benchmarks, exports, run_folder
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(toy_run, shared_toy_recipe, tmp_path_factory):
    """A finished run with three exports."""
    recipe = config.load_recipe(toy_run.recipe_path, toy_run.overrides)
    folder = toy_run.copy(tmp_path_factory.mktemp("finished") / "run")
    made = run_folder.open_run(recipe, folder, Progress(quiet=True))
    with pytest.MonkeyPatch.context() as patch:
        convert_litert_here(patch)
        exports.export_file(
            recipe,
            folder / "student.keras",
            folder,
            ["litert_float32", "onnx", "hugging_face"],
            overwrite=False,
            progress=Progress(quiet=True),
        )
    return made


@pytest.fixture
def raced(monkeypatch):
    """What would be measured, without the processes."""
    seen = []

    def run_race(contestants, *, lengths, num_threads, progress, **arguments):
        seen.append((list(contestants), lengths, num_threads, arguments))
        progress(1, 1)
        for each in contestants:
            assert each.path.exists()
        latency = {length: Latency(2.0, 3.0) for length in lengths}
        return [
            Measured(each, num_threads, 0.1, 50.0, latency, 9.0)
            for each in contestants
        ]

    monkeypatch.setattr(race, "run_race", run_race)
    return seen


def main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["keras-distil", *map(str, arguments)])
    status = 0
    try:
        app.main()
    except SystemExit as ended:
        status = ended.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.slow
def test_the_command(run, raced, monkeypatch, capsys):
    status, out, err = main(
        monkeypatch,
        capsys,
        *("benchmark", run.folder, "--set", "benchmark.lengths=[8, 12]"),
        *("--set", "benchmark.threads=[1, 3]", "--set", "benchmark.rounds=2"),
    )
    assert status == 0
    said = " ".join(err.split())
    if importlib.util.find_spec("torch") is None:
        assert "Without pytorch: torch" in said
    assert f"Results: {run.folder}" in "".join(out.split("\n"))
    assert [(lengths, threads) for _, lengths, threads, _ in raced] == [
        ([8, 12], 1),
        ([8, 12], 3),
    ]
    found = {each.name: each for each in raced[0][0]}
    assert list(found)[:4] == ["teacher", "student", "litert_float32", "onnx"]
    assert "onnx_int8" in found
    assert found["onnx"].path.name == "model.onnx"
    assert found["onnx"].agreement == 1.0 and found["onnx"].score is None
    assert found["onnx_int8"].size_mb is None
    assert found["litert_float32"].size_mb > 0
    content = json.loads((run.folder / "benchmark.json").read_text())
    assert content["environment"]["hardware"]["cpu_cores"] >= 1
    assert len(content["measured"]) == 2 * len(found)
    assert content["measured"][0]["latency"]["8"] == {
        "median_ms": 2.0,
        "p95_ms": 3.0,
    }
    assert (run.folder / "benchmark.png").read_bytes()[:4] == b"\x89PNG"


def test_the_result_as_json(run, raced, monkeypatch, capsys):
    status, out, _ = main(
        monkeypatch,
        capsys,
        *("benchmark", run.folder, "--set", "benchmark.lengths=[8]"),
        *("--set", "benchmark.threads=[1]", "--json"),
    )
    assert status == 0
    content = json.loads((run.folder / "benchmark.json").read_text())
    assert json.loads(out) == content["measured"]


def test_a_students_own_teacher(run, raced, tmp_path):
    """Of a task: the one of its seed, beside it."""
    made = {}
    for row in ("teacher", "student"):
        path = tmp_path / "rte" / row / "seed_1" / "model.keras"
        path.parent.mkdir(parents=True)
        encoder = load_teacher(run.folder / "student.keras")
        task_model(encoder, "classification", 2).save(path)
        made[row] = path
    recipe = config.load_recipe(
        run.folder / "recipe.yaml",
        ["benchmark={lengths: [8], threads: [1], rounds: 1}"],
    )
    benchmarks.benchmark(recipe, made["student"], progress=Progress(quiet=True))
    [(contestants, *_)] = raced
    assert [each.path for each in contestants] == [
        made["teacher"],
        made["student"],
    ]


def test_the_picture_is_of_the_length_that_most_take():
    def took(*lengths):
        latency = {length: Latency(1.0, 1.0) for length in lengths}
        return Measured(None, 1, latency=latency)

    choose = benchmarks._length_of_chart
    assert choose([took(16, 128, 512), took(16, 128, 512)]) == 128
    assert choose([took(16, 64, 128), took(16, 64)]) == 64
    assert choose([took()]) == 128


def test_threads_up_to_the_cores(monkeypatch):
    for cores, expected in (
        (1, [1]),
        (2, [1, 2]),
        (6, [1, 2, 4, 6]),
        (None, [1]),
    ):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert benchmarks._powers_of_two() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "missing.keras"), "There is no model missing.keras."),
        (
            ("--set", "benchmark.lengths=[8, 8]"),
            r"benchmark.lengths: must name each once. Received: \[8, 8\].*",
        ),
        (("--set", "benchmark.rounds=0"), "benchmark.rounds: .*"),
    ],
)
def test_bad_input_is_one_line(run, monkeypatch, capsys, arguments, message):
    status, out, err = main(
        monkeypatch, capsys, "benchmark", run.folder, *arguments
    )
    assert (status, out) == (1, "")
    assert re.search(message, err)
    assert "Traceback" not in err


def test_damaged_reports_of_exports(run, raced):
    path = run.folder / "onnx" / "parity.json"
    before = path.read_text()
    recipe = config.load_recipe(run.folder / "recipe.yaml")
    try:
        for text in ("{", "{}", '{"precision": 1, "comparison": []}'):
            path.write_text(text)
            with pytest.raises(ValueError, match=r"parity.json is damaged"):
                benchmarks.benchmark(
                    recipe,
                    run.folder / "student.keras",
                    progress=Progress(quiet=True),
                )
    finally:
        path.write_text(before)
