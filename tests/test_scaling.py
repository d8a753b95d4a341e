"""The benchmark of how costs grow."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(SCRIPTS))

import scaling  # noqa: E402
from contestants import shapes  # noqa: E402

TOY = shapes.MODELS["toy"]
FOUND = {"measured": {8: 0.5, 16: 0.25}, "arithmetic": {8: 0.4}}


def test_every_length_has_as_many_tokens():
    made = scaling.panel_shapes("length").values()
    assert {x.batch * x.length for x in made} == {scaling.TOKENS}


def test_a_student_has_half_the_layers():
    for layers, shape in scaling.panel_shapes("layers").items():
        assert shape.sizes.layers == layers
        assert shape.sizes.student_layers == layers / 2


def test_table_leaves_out_what_failed():
    text = scaling.table("batch", "float32", FOUND)
    assert "| 8 | 0.50 | 0.40 |" in text
    assert "| 16 | 0.25 | - |" in text


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    figures = {"batch": {"float32": FOUND}}
    # As it comes from a file.
    figures = json.loads(json.dumps(figures))
    path = tmp_path / "plot.png"
    scaling.draw(figures, path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_memory_in_chunks_is_less_than_of_whole_logits():
    # Some MB of logits, and a hundred.
    sizes = dataclasses.replace(TOY, vocabulary=4096)
    made = {x: shapes.Shape(sizes, x, 128) for x in (16, 64)}
    found = scaling.measure_memory(made, "float32")
    assert found["whole"][64] > found["in chunks"][64] > 0
    assert found["whole"][64] > 2 * found["whole"][16]


@pytest.mark.slow
def test_times_follow_the_shapes():
    made = {x: shapes.Shape(TOY, x, 16) for x in (2, 4)}
    found = scaling.measure_times(made, "float32", 2, 0.05)
    assert set(found["measured"]) == set(found["arithmetic"]) == {2, 4}
    assert min(found["measured"].values()) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--panels", "width"], "invalid choice"),
        (["--rounds", "0"], "--rounds: must be at least 1"),
    ],
)
def test_wrong_options(words, message):
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "scaling.py"), *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
