"""Pictures of a run's folder, and of a recipe's plan."""

import json
from xml.etree import ElementTree

import gallery
import pytest

from keras_distil import config
from keras_distil.runs.details import schema

ROWS = {
    "teacher": {"mlm_accuracy": 0.5, "latency_ms": 20.0, "size_mb": 90.0},
    "student": {"mlm_accuracy": 0.4, "latency_ms": 10.0, "size_mb": 60.0},
}
EXPORT = {
    "path": "litert_dynamic_int8",
    "precision": "dynamic_int8",
    "size_mb": 18.0,
    "comparison": {"max_difference": 0.5, "top1_agreement": 0.98},
}
RECIPE = {
    "name": "toy",
    "teacher": {"source": "embedded"},
    "student": {"num_layers": 1},
    "data": {"sources": [{"kind": "documentation"}]},
    "distill": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3},
}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    task = folder / "tasks" / "mine"
    task.mkdir(parents=True)
    report = {
        "name": "toy",
        "rows": ROWS,
        "export": [EXPORT],
        "tasks": {
            "tasks": ["mine"],
            "rows": [],
            "comparisons": [],
            "level": 0.95,
            "resamples": 10,
        },
    }
    (folder / "report.json").write_text(json.dumps(report))
    recipe = config.make_recipe(RECIPE)
    (folder / "recipe.yaml").write_text(config.dump_recipe(recipe))
    similarity = [[0.5, 0.25]] * 3
    compared = {"sequences": 4, "similarity": similarity, "guesses": []}
    (folder / "side_by_side.json").write_text(json.dumps(compared))
    counts = {"teacher": [[3, 1], [0, 4]], "student": [[2, 2], [1, 3]]}
    found = schema.TaskDetails(
        seed=0,
        kind="classification",
        confusions=schema.Confusions(
            classes=2, names=["no", "yes"], counts=counts
        ),
    )
    (task / schema.DETAILS_FILE).write_text(found.model_dump_json())
    return folder


def words(path):
    root = ElementTree.parse(path).getroot()
    return root, [x.text for x in root.iter() if x.tag.endswith("text")]


def test_a_run_has_four_pictures(run, tmp_path, capsys):
    output = tmp_path / "pictures"
    assert gallery.main([str(run), "--output", str(output)]) == 0
    names = ["kept_toy", "layers_toy", "confusions_mine", "exports_toy"]
    paths = [output / f"{name}.svg" for name in names]
    assert capsys.readouterr().out.split() == list(map(str, paths))
    assert sorted(paths) == sorted(output.iterdir())
    found = dict(zip(names, map(words, paths), strict=True))
    for root, _ in found.values():
        # It stands alone, and is as large as its words need.
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("role") == "img" and root.get("aria-label")
        assert 400 < float(root.get("width")) < 500
        ids = [x.get("id") for x in root.iter() if x.get("id")]
        assert len(ids) == len(set(ids))
    assert "student: 80.0, 60.0 MB, 10 ms" in found["kept_toy"][1]
    assert "teacher: 100.0, 90.0 MB, 20 ms" in found["kept_toy"][1]
    assert "0.25" in found["layers_toy"][1]
    shown = "litert_dynamic_int8: 98.0, 18.0 MB"
    assert shown in found["exports_toy"][1]


def test_pictures_of_both_models_stand_below_one_another(run, tmp_path):
    gallery.main([str(run), "--output", str(tmp_path)])
    root, found = words(tmp_path / "confusions_mine.svg")
    assert [x for x in found if x in ("teacher", "student")] == [
        "teacher",
        "student",
    ]
    style, first, second = root
    assert style.tag.endswith("style") and "--paper" in style.text
    assert float(second.get("y")) == float(first.get("height"))
    assert root.get("aria-label").count("examples of 2 classes") == 2


def test_scores_without_a_teacher_stay():
    dots = [gallery.charts.Dot("student", 1.0, 40.0, 2.0)]
    assert gallery.kept(dots) == dots


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert gallery.main([str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "must be the folder of a finished run" in line
    (tmp_path / "report.json").write_text('{"name": "toy"}')
    assert gallery.main([str(tmp_path)]) == 1
    assert "has nothing to draw" in capsys.readouterr().err


def test_a_plan_by_device(tmp_path):
    given = ["--plan", "distilbert_base_uncased", "--devices", "8"]
    assert gallery.main([*given, "--output", str(tmp_path)]) == 0
    _, found = words(tmp_path / "plan_distilbert_base_uncased.svg")
    plans = gallery.plan("distilbert_base_uncased", devices=8)
    assert list(plans) == list(gallery.DEVICES)
    for device, planned in plans.items():
        assert f"{device}, {planned['memory_gb']:.0f} GB" in found
        assert f"{planned['hours']:.3g}" in found
        parts = [planned["memory"][part] for part in gallery._PARTS]
        assert sum(parts) == pytest.approx(planned["memory"]["total"], abs=1e-3)


def test_hours_that_are_not_known(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    distill = {**RECIPE["distill"], "steps": None, "epochs": 1}
    recipe = config.make_recipe({**RECIPE, "distill": distill})
    path.write_text(config.dump_recipe(recipe))
    assert gallery.main(["--plan", str(path)]) == 1
    assert "its hours are known once the corpus" in capsys.readouterr().err
