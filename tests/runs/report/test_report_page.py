"""The page of a run, from a toy run's folder and from damaged ones."""

import json
import shutil

import pytest
from html_reader import Page

from keras_distil import config
from keras_distil.runs import report

pytestmark = pytest.mark.slow

SECTIONS = [
    "Summary",
    "Held-out text",
    "Learning curves",
    "Schedules",
    "Similarity of layers",
    "Size, latency and score",
    "Sample predictions",
    "Environment",
    "Command and recipe",
]
HOSTILE = "<script>alert('1')</script> \"&amp; $x_ _y\x1b ]]> --> 模"


@pytest.fixture
def finished(toy_run):
    return toy_run.folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy, without what the page does not show."""
    names = shutil.ignore_patterns("*.keras", "logs", "checkpoints")
    return shutil.copytree(finished, tmp_path / "run", ignore=names)


def found(folder):
    return json.loads((folder / "report.json").read_text())


def page_of(folder, **changes):
    page = Page(report.make_page(folder, found(folder) | changes))
    page.check_alone()
    return page


def test_a_run_leaves_its_page(finished, toy_run):
    text = (finished / "report.html").read_text("utf-8")
    assert len(text) < 300_000
    page = Page(text)
    page.check_alone()
    assert page.headings() == SECTIONS
    assert [x for x in page.texts if x == "toy"] == ["toy"] * 2
    rows = found(finished)["rows"]
    assert page.cells[0] == [
        "Model",
        "Masked-word accuracy, %",
        "Masked-LM loss, nats",
        "Agreement with the teacher, %",
        "Parameters",
        "CPU latency, ms",
        "Size, MB",
    ]
    names = [cells[0] for cells in page.cells[1:5]]
    assert (
        names
        == list(rows)
        == ["teacher", "student before", "student", "baseline"]
    )
    for cells, row in zip(page.cells[1:5], rows.values(), strict=True):
        assert cells[1] == f"{100 * row['mlm_accuracy']:.1f}"
        assert cells[2] == f"{row['mlm_loss']:.3f}"
    assert "no better than the most frequent word does" in text
    assert "The baseline, the same model" in text
    recipe = toy_run.recipe_path
    assert recipe.name == "my toy.yaml"
    assert f"keras-distil run &#x27;{recipe}&#x27; --output" in text
    assert "  sequence_length: 12\n" in text
    labels = [a["aria-label"] for tag, a in page.elements if tag == "svg"]
    assert "Masked-LM loss, nats over the updates: student, baseline" in labels
    assert "Linear CKA of 3 states of the teacher by 2 of the student" in labels
    assert len(labels) == 6 + 3
    # One choice is marked right at most.
    samples = [a for tag, a in page.elements if a.get("class") == "samples"]
    assert len(samples) == 1 and 0 < text.count("<mark>") <= 12


@pytest.mark.essential
def test_it_is_made_again_the_same(finished, folder):
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    path = report.write_page(folder, found(folder))
    assert path == folder / "report.html"
    assert path.read_text() == before


LOST = {
    "metrics.jsonl": ["Learning curves"],
    "side_by_side.json": ["Similarity of layers", "Sample predictions"],
    "environment.json": ["Environment"],
    "recipe.yaml": ["Summary", "Schedules"],
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_missing_is_left_out(folder, name):
    (folder / name).unlink()
    expected = [x for x in SECTIONS if x not in LOST[name]]
    assert page_of(folder).headings() == expected


@pytest.mark.parametrize(
    "damage", [None, b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 9999]
)
def test_what_is_damaged_is_left_out(folder, damage):
    for name in (*LOST, "commands.json"):
        (folder / name).unlink()
        if damage is not None:
            (folder / name).write_bytes(damage)
    left = ["Held-out text", "Size, latency and score"]
    if damage not in (None, b"", b"\xff\xfe"):
        # It is shown as the text that it is.
        left.append("Command and recipe")
    assert page_of(folder).headings() == left


def test_commands_that_are_not_known(folder):
    (folder / "commands.json").unlink()
    page = page_of(folder)
    assert page.headings() == SECTIONS
    assert "keras-distil run" not in page.text


def test_without_masked_words(folder):
    path = folder / "side_by_side.json"
    content = json.loads(path.read_text()) | {"guesses": []}
    path.write_text(json.dumps(content))
    headings = page_of(folder).headings()
    assert headings == [x for x in SECTIONS if x != "Sample predictions"]


def test_a_run_of_the_teacher_alone(folder):
    recipe = config.load_recipe(
        folder / "recipe.yaml",
        [
            *("distill=null", "student=null"),
            "teacher.train={method: adapter, rank: 2, steps: 3, "
            "batch_size: 4, learning_rate: 1e-3}",
        ],
    )
    (folder / "recipe.yaml").write_text(config.dump_recipe(recipe))
    (folder / "side_by_side.json").unlink()
    lines = (folder / "metrics.jsonl").read_text()
    lines = lines.replace('"distill"', '"teacher"').replace("baseline", "other")
    (folder / "metrics.jsonl").write_text(lines)
    scores = {"mlm_accuracy": 0.5, "mlm_loss": 2.0, "teacher_agreement": 1.0}
    made = {"name": "t", "duration_s": 1.0, "rows": {"teacher": scores}}
    page = Page(report.make_page(folder, made))
    page.check_alone()
    assert page.headings() == [
        "Summary",
        "Held-out text",
        "Learning curves",
        "Environment",
        "Command and recipe",
    ]
    assert page.cells[:2] == [
        [
            "Model",
            "Masked-word accuracy, %",
            "Masked-LM loss, nats",
            "Agreement with the teacher, %",
        ],
        ["teacher", "50.0", "2.000", "100.0"],
    ]
    assert "CPU latency" not in page.text


def test_epochs_have_the_steps_of_the_run(folder):
    recipe = config.load_recipe(
        folder / "recipe.yaml", ["distill.steps=null", "distill.epochs=1"]
    )
    (folder / "recipe.yaml").write_text(config.dump_recipe(recipe))
    assert "Schedules" in page_of(folder).headings()
    # Nothing tells them now.
    (folder / "metrics.jsonl").unlink()
    assert "Schedules" not in page_of(folder).headings()


@pytest.mark.parametrize("latency_ms", [0.0, -1.0, 1e300])
def test_costs_that_no_axis_holds(folder, latency_ms):
    rows = found(folder)["rows"]
    for row in rows.values():
        row["latency_ms"] = latency_ms
    page = page_of(folder, rows=rows)
    assert "Size, latency and score" not in page.headings()


def test_hostile_names(folder):
    rows = found(folder)["rows"]
    rows[HOSTILE] = rows.pop("baseline")
    lines = [
        json.dumps({"stage": f"{HOSTILE}/{HOSTILE}/seed_0", "step": n})[:-1]
        + ', "label_loss": 1.0}'
        for n in (1, 2)
    ]
    lines += [json.dumps({"stage": "distill", "step": 1, f"{HOSTILE}_loss": 1})]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    path = folder / "side_by_side.json"
    content = json.loads(path.read_text())
    for guess in content["guesses"]:
        guess |= {"before": HOSTILE, "after": HOSTILE, "word": HOSTILE}
        guess["teacher"][0]["word"] = HOSTILE
    path.write_text(json.dumps(content))
    path = folder / "environment.json"
    content = json.loads(path.read_text()) | {"commit": HOSTILE}
    content["versions"][HOSTILE] = HOSTILE
    path.write_text(json.dumps(content))
    (folder / "commands.json").write_text(
        json.dumps({"commands": [["run", HOSTILE]]})
    )
    (folder / "recipe.yaml").write_text(HOSTILE)
    page = page_of(folder, name=HOSTILE, rows=rows)
    assert page.headings() == [
        x for x in SECTIONS if x not in ("Summary", "Schedules")
    ]
    shown = HOSTILE.replace("\x1b", "\ufffd")
    assert page.texts.count(shown) > 10


def test_damaged_tasks_are_told(folder):
    with pytest.raises(ValueError, match="tasks"):
        page_of(folder, tasks={"tasks": 1})
