import html
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from commands import keras_distil

from keras_distil import models


@pytest.fixture
def finished(toy_run, monkeypatch):
    """The toy run, and the cache that it used."""
    monkeypatch.setenv(
        "KERAS_DISTIL_CACHE", str(toy_run.folder.with_name("cache"))
    )
    return toy_run


def test_a_run_ends_with_a_table_and_its_folder(finished):
    folder, out = finished.folder, finished.printed
    for name in ("teacher", "student before", "student", "baseline"):
        assert name in out
    # Nothing of the table is cut off at 80 columns.
    assert "…" not in out
    assert str(folder) in out.replace("\n", "")
    for name in (
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "student.keras",
        "report.json",
        "report.html",
        "side_by_side.json",
        "logs/distill/train",
    ):
        assert (folder / name).exists(), name
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [line["step"] for line in steps] == [1, 2, 3, 1, 2, 3]
    assert {line["stage"] for line in steps} == {"distill", "baseline"}
    report = json.loads((folder / "report.json").read_text())
    assert report["rows"]["teacher"]["teacher_agreement"] == 1.0
    page = html.unescape((folder / "report.html").read_text())
    assert f"keras-distil {shlex.join(finished.command)}" in page
    assert "'" in shlex.join(finished.command)
    assert f"Report: {folder / 'report.html'}\n" in out


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.slow
@pytest.mark.essential
def test_a_finished_run_is_told_again_not_run_again(capsys, finished, tmp_path):
    folder = finished.copy(tmp_path / "run")
    before = (folder / "report.json").stat().st_mtime_ns
    command = ["run", finished.recipe_path, "--output", folder]
    baseline = ["--set", *finished.overrides]
    status, out, err = keras_distil(capsys, *command, *baseline)
    assert status == 0
    assert "Already finished" in err
    assert "student before" in out
    assert (folder / "report.json").stat().st_mtime_ns == before
    status, out, _ = keras_distil(capsys, *command, *baseline, "--json")
    assert status == 0
    report = json.loads((folder / "report.json").read_text())
    assert json.loads(out) == {**report, "folder": str(folder)}
    command += ["--set", "distill.steps=1"]
    status, _, err = keras_distil(capsys, *command)
    assert status == 1
    assert "finished run of another recipe" in err
    status, _, err = keras_distil(capsys, *command, "--fresh")
    assert status == 0
    assert (tmp_path / "run.old1" / "student.keras").is_file()


@pytest.mark.slow
def test_a_mirrored_run_on_one_device_is_the_plain_run(
    capsys, finished, tmp_path
):
    command = ["run", finished.recipe_path, "--output", tmp_path / "mirrored"]
    status, _, err = keras_distil(
        capsys, *command, "--set", "distill.strategy=mirrored"
    )
    assert status == 0, err
    plain, mirrored = (
        json.loads((folder / "report.json").read_text())["rows"]["student"]
        for folder in (finished.folder, tmp_path / "mirrored")
    )
    assert mirrored["mlm_loss"] == pytest.approx(plain["mlm_loss"], rel=1e-5)


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.slow
def test_a_teacher_is_trained_once(capsys, toy_recipe, tmp_path):
    arguments = [
        "run",
        toy_recipe,
        "--set",
        "teacher.train={method: adapter, rank: 2, steps: 2, batch_size: 4, "
        "learning_rate: 1e-3}",
    ]
    status, _, err = keras_distil(
        capsys, *arguments, "--output", tmp_path / "first"
    )
    assert status == 0
    assert "found done" not in err
    assert (tmp_path / "first" / "adapter.safetensors").is_file()
    # The teacher of another student, or of none, is the same.
    arguments += ["--set", "distill.steps=1"]
    status, _, err = keras_distil(
        capsys, *arguments, "--output", tmp_path / "second"
    )
    assert status == 0
    assert "found done" in err
    scores = [
        json.loads((tmp_path / name / "report.json").read_text())["rows"]
        for name in ("first", "second")
    ]
    assert scores[0]["teacher"]["mlm_loss"] == scores[1]["teacher"]["mlm_loss"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.sequence_length=64"], "the teacher has 12 positions"),
        (["student.num_layers=3"], "num_layers"),
        (["student.layers=[0, 7]"], "7"),
        (["data.root=/nowhere"], "/nowhere"),
        (['data.sources.0.pattern="*.nothing"'], "*.nothing"),
        (["distill.batch_size=4000"], "4000"),
        (["teacher.source=/nowhere/at-all"], "/nowhere/at-all"),
        (["distill.losses.soft_target.temperature=-1"], "temperature"),
        (["distill.temprature=2"], "temperature"),
        (["data.held_out_fraction=0.0001"], "held-out"),
    ],
)
def test_bad_input_is_one_line(capsys, toy_recipe, tmp_path, changes, message):
    options = [part for change in changes for part in ("--set", change)]
    status, out, err = keras_distil(
        capsys, "run", toy_recipe, *options, "--output", tmp_path / "run"
    )
    assert status == 1
    failure = [x for x in err.splitlines() if x.startswith("keras-distil: ")]
    assert len(failure) == 1
    assert message in failure[0]
    assert "Traceback" not in err


def test_prepare_tells_what_it_made(capsys, toy_recipe):
    status, out, _ = keras_distil(capsys, "prepare", toy_recipe)
    assert status == 0
    assert "sequences of at most 12 tokens" in out


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.slow
def test_a_prepared_corpus_is_trained_on(capsys, toy_recipe, tmp_path):
    folder = tmp_path / "corpus"
    settings = ["--set", "data.layout=bucketed"]
    status, out, _ = keras_distil(
        capsys, "prepare", toy_recipe, "--output", folder, *settings
    )
    assert status == 0
    assert f"--set data.prepared={folder}" in out
    settings += ["--set", f"data.prepared={folder}"]
    # Its text is not needed any more.
    settings += ["--set", "data.sources.0.pattern=none.txt"]
    status, _, err = keras_distil(
        capsys, "run", toy_recipe, "--output", tmp_path / "run", *settings
    )
    assert status == 0, err
    status, _, err = keras_distil(
        capsys,
        "run",
        toy_recipe,
        *settings,
        "--set",
        "data.sequence_length=10",
        "--output",
        tmp_path / "other",
    )
    assert status == 1
    assert "prepared with sequence_length=12, but 10 was requested" in err


def test_prepare_on_beam_writes_the_same(capsys, toy_recipe, tmp_path):
    made = []
    for name, options in (
        ("a", ()),
        ("b", ("--beam", "--runner=DirectRunner")),
    ):
        command = ("prepare", toy_recipe, "--output", tmp_path / name)
        status, _, err = keras_distil(capsys, *command, *options)
        assert status == 0, err
        made.append(
            {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        )
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam", "--runner=DirectRunner"], "`--beam` needs `--output`"),
        (
            ["--beam", "--x", "--workers", "2", "--output", "a"],
            "`--workers` is",
        ),
        (["--set", "data.prepared=a"], "there is nothing to prepare"),
    ],
)
def test_prepare_with_wrong_options(capsys, toy_recipe, options, message):
    status, _, err = keras_distil(capsys, "prepare", toy_recipe, *options)
    assert status == 1
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.essential
def test_a_fresh_process_prints_no_tensorflow_noise(toy_recipe, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "keras_distil.cli.app", "prepare", toy_recipe],
        capture_output=True,
        text=True,
        env={
            **{k: v for k, v in os.environ.items() if "TF_" not in k},
        },
    )
    assert done.returncode == 0, done.stderr
    for noise in ("oneDNN", "cuda", "absl", "WARNING"):
        assert noise not in done.stderr


def test_a_model_is_scored_on_a_task(capsys, toy_teacher, toy_glue, tmp_path):
    recipe = tmp_path / "tasks.yaml"
    recipe.write_text(
        f"{{name: t, teacher: {{source: {toy_teacher}}}, "
        f"data: {{root: {toy_glue}}}, finetune: {{tasks: [rte], rows: "
        "[teacher], source: files, max_length: 12}}"
    )
    path = tmp_path / "model.keras"
    teacher = models.load_teacher(toy_teacher)
    models.task_model(teacher, "classification", 2).save(path)
    status, out, _ = keras_distil(
        capsys, "evaluate", recipe, "--task", "rte", "--model", path
    )
    assert status == 0
    assert re.fullmatch(r"rte dev accuracy: \d+\.\d\d\n", out)
    status, found, _ = keras_distil(
        capsys, "evaluate", recipe, "--task", "rte", "--model", path, "--json"
    )
    assert status == 0
    share = json.loads(found)["dev"]["accuracy"]
    assert out == f"rte dev accuracy: {100 * share:.2f}\n"
    status, _, err = keras_distil(
        capsys, "evaluate", recipe, "--task", "cola", "--model", path
    )
    assert status == 1
    assert "has no task 'cola'; the nearest is 'rte'" in err
