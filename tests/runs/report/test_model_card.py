"""The model card of a run: every figure in it is the report's."""

import json
import re
import shutil

import pytest
import toy

from keras_distil import config, models
from keras_distil.runs import run_folder, stages
from keras_distil.runs.report import model_card
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(shared_toy_recipe, tmp_path_factory):
    recipe = config.load_recipe(
        shared_toy_recipe,
        ["export.formats=[hugging_face]", "teacher.license=CC0"],
    )
    folder = tmp_path_factory.mktemp("card") / "run"
    run = run_folder.open_run(recipe, folder, Progress(quiet=True))
    with toy.quick_runs():
        stages.run_recipe(run)
    return run


def card_of(run, **changes):
    recipe = run.recipe.model_copy(update=changes)
    return model_card.model_card(recipe, run.folder)


def test_a_run_leaves_its_card(finished):
    card = (finished.folder / "MODEL_CARD.md").read_text("utf-8")
    report = json.loads(finished.report_path.read_text())
    assert card == card_of(finished)
    assert card.startswith(f"# {finished.recipe.name}\n")
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        "Use",
        "Data",
        "Training",
        "Scores",
        "Calibration",
        "Size and speed",
        "Limits",
        "Licences",
        "Environment",
    ]
    # The toy teacher knows less than the most frequent word does.
    chance = report["most_frequent_token_accuracy"]
    assert report["rows"]["teacher"]["mlm_accuracy"] <= chance
    assert "kept_percent" not in report
    assert "no better than the most frequent word does" in card
    told = model_card.summary(
        finished.recipe, {**report, "kept_percent": 81.25}
    )
    assert "It keeps 81.2% of the teacher's masked accuracy" in told
    student = report["rows"]["student"]
    [row] = re.findall(r"^\| student \|(.*)$", card, re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert cells[0] == f"{100 * student['mlm_accuracy']:.1f}"
    assert cells[3] == f"{student['parameters'] / 1000:.1f} k"
    [row] = re.findall(r"^\| masked words \|(.*)$", card, re.MULTILINE)
    assert [float(cell) for cell in row.strip("| ").split("|")] == [
        round(100 * report["rows"][name]["calibration_error"], 1)
        for name in ("teacher", "student")
    ]
    assert "| `hugging_face` | float32 |" in card
    assert "Teacher `" in card and ": CC0." in card


def test_licences_are_found_or_said_to_be_unknown(finished, tmp_path):
    recipe = finished.recipe
    teacher = shutil.copytree(
        models.checkpoint_directory(recipe.teacher.source), tmp_path / "own"
    )
    unknown = recipe.teacher.model_copy(
        update={"license": None, "source": str(teacher)}
    )
    assert ": not stated." in card_of(finished, teacher=unknown)
    for text, expected in (
        ("---\nlicense: apache-2.0\n---\ntext", "apache-2.0"),
        ("---\nlicense: [\n---\n", "not stated"),
        ("---\n- a\n---\n", "not stated"),
        ("no front matter", "not stated"),
    ):
        (teacher / "README.md").write_text(text)
        assert f": {expected}." in card_of(finished, teacher=unknown)
    (teacher / "README.md").unlink()
    stated = recipe.data.model_copy(update={"license": "my own"})
    assert "- Data: my own." in card_of(finished, data=stated)
    sources = [
        {"kind": "documentation", "packages": ["numpy", "no_such_package"]},
        {"kind": "tfds", "name": "wiki40b/en", "split": "train", "field": "x"},
    ]
    data = config.data_section.DataSection.model_validate(
        {"sources": sources, "root": str(tmp_path)}
    )
    card = card_of(finished, data=data)
    assert re.search(r"Docstrings of numpy: .*BSD", card)
    assert "Docstrings of no_such_package: not stated." in card
    assert "`wiki40b/en`: see its page" in card


def test_measured_speeds_are_shown(finished):
    path = finished.folder / "benchmark.json"
    measured = {
        "name": "phone",
        "num_threads": 2,
        "peak_memory_mb": 1234.4,
        "latency": {"16": {"median_ms": 3.25, "p95_ms": 9.0}},
        "failed": None,
    }
    gone = measured | {"name": "gone", "failed": "no file"}
    content = {"settings": {"lengths": [16, 128]}, "measured": [measured, gone]}
    path.write_text(json.dumps(content))
    card = card_of(finished)
    assert "| phone | 2 | 1,234 | 3.250 | \N{EN DASH} |" in card
    assert "gone" not in card
    path.write_text("{")
    with pytest.raises(ValueError, match=r"benchmark.json is damaged"):
        card_of(finished)
    path.unlink()
