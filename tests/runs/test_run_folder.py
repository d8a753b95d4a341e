import json

import pytest

from keras_distil import config
from keras_distil.runs import run_folder
from keras_distil.utils.progress import Progress


@pytest.fixture
def recipe(toy_recipe):
    return config.load_recipe(toy_recipe)


def open_run(recipe, folder, **arguments):
    return run_folder.open_run(
        recipe, folder, Progress(quiet=True), **arguments
    )


def test_a_run_goes_on_in_its_folder(recipe, tmp_path):
    folder = tmp_path / "run"
    open_run(recipe, folder)
    (folder / "metrics.jsonl").write_text("{}\n")
    open_run(recipe, folder)
    assert (folder / "metrics.jsonl").read_text() == "{}\n"
    assert [path.name for path in tmp_path.glob("run*")] == ["run"]


def test_fresh_moves_aside_and_deletes_nothing(recipe, tmp_path):
    folder = tmp_path / "run"
    open_run(recipe, folder)
    (folder / "metrics.jsonl").write_text("{}\n")
    open_run(recipe, folder, fresh=True)
    open_run(recipe, folder, fresh=True)
    assert (tmp_path / "run.old1" / "metrics.jsonl").read_text() == "{}\n"
    assert (tmp_path / "run.old2" / "recipe.yaml").is_file()
    assert not (folder / "metrics.jsonl").exists()


def test_a_changed_recipe_is_refused_with_the_keys(
    toy_recipe, recipe, tmp_path
):
    open_run(recipe, tmp_path / "run")
    changed = config.load_recipe(
        toy_recipe, ["distill.steps=4", "distill.losses.mlm.weight=3"]
    )
    with pytest.raises(
        ValueError,
        match=r"an unfinished run of another recipe: "
        r"distill.steps \(3, now 4\), "
        r"distill.losses.mlm.weight \(1.0, now 3.0\). Give another folder",
    ):
        open_run(changed, tmp_path / "run")
    open_run(changed, tmp_path / "run", fresh=True)


def test_a_later_run_is_refused(recipe, tmp_path):
    open_run(recipe, tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "format_version": 99}))
    with pytest.raises(ValueError, match="has format version 99; this keras_"):
        open_run(recipe, tmp_path / "run")


def test_an_unfinished_run_of_another_order_is_refused(recipe, tmp_path):
    folder = tmp_path / "run"
    open_run(recipe, folder)
    path = folder / "environment.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "format_version": 1}))
    with pytest.raises(
        ValueError,
        match=r"begun by an earlier keras_distil \(format version 1, now 3\), "
        r"which takes the data in another order.*with --fresh",
    ):
        open_run(recipe, folder)
    report = '{"name": "x", "rows": {"teacher": {}}, "duration_s": 1}'
    (folder / "report.json").write_text(report)
    open_run(recipe, folder)


def test_files_that_are_no_run_are_left_alone(recipe, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="holds files, but no run: recipe.yam"):
        open_run(recipe, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_a_recipe_that_cannot_be_read_is_told(recipe, tmp_path):
    open_run(recipe, tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text("name: [")
    with pytest.raises(ValueError, match="recipe.yaml cannot be read"):
        open_run(recipe, tmp_path / "run")


def test_who_does_not_write_touches_nothing(recipe, tmp_path):
    run = open_run(recipe, tmp_path / "run", writes=False)
    run.write_json(tmp_path / "report.json", {})
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "report.json").exists()


def test_of_each_stage_the_last_command_is_kept(recipe, tmp_path):
    folder = tmp_path / "run"
    assert run_folder.read_commands(folder) == []
    open_run(recipe, folder)
    assert run_folder.read_commands(folder) == []
    for command in (["distill", "a"], ["finetune"], ["distill", "b", "--set"]):
        open_run(recipe, folder, command=command)
    kept = [["finetune"], ["distill", "b", "--set"]]
    assert run_folder.read_commands(folder) == kept
    # A finished run is told again, not made.
    report = '{"name": "x", "rows": {"teacher": {}}, "duration_s": 1}'
    (folder / "report.json").write_text(report)
    open_run(recipe, folder, command=["run"])
    assert run_folder.read_commands(folder) == kept
    open_run(recipe, folder, command=["run"], fresh=True)
    assert run_folder.read_commands(folder) == [["run"]]


@pytest.mark.parametrize(
    "commands", ["{", "[]", "null", "[[]]", "[[1]]", "[1]", '{"run": []}']
)
def test_damaged_commands_are_none(recipe, tmp_path, commands):
    path = tmp_path / "commands.json"
    path.write_text(f'{{"commands": {commands}}}')
    assert run_folder.read_commands(tmp_path) == []
    open_run(recipe, tmp_path / "run")
    path.rename(tmp_path / "run" / path.name)
    open_run(recipe, tmp_path / "run", command=["run"])
    assert run_folder.read_commands(tmp_path / "run") == [["run"]]


@pytest.mark.parametrize(
    "text",
    [*["", "[]", "{", "[" * 100_000, '"x"']]
    + [
        f'{{"name": "x", "rows": {{"teacher": {{}}}}, "duration_s": {value}}}'
        for value in ("NaN", "1e999", "9" * 400, "true", '"1"')
    ],
)
def test_a_damaged_report_is_told(recipe, tmp_path, text):
    open_run(recipe, tmp_path / "run")
    (tmp_path / "run" / "report.json").write_text(text)
    with pytest.raises(ValueError, match="report.json is damaged. Remove it"):
        open_run(recipe, tmp_path / "run")
