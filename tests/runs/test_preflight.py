"""What would end a run late is found before it has cost anything."""

import json
import shutil
import sys

import pytest
from commands import keras_distil

from keras_distil import config, models
from keras_distil.runs import checks, exports, preflight, run_folder
from keras_distil.utils.progress import Progress

POSITIONS = 12  # of the toy teacher


def again(toy_run, folder, *changes):
    """The command that goes on with a copy of the finished run."""
    toy_run.copy(folder)
    sets = [
        x for each in (*toy_run.overrides, *changes) for x in ("--set", each)
    ]
    return ["run", toy_run.recipe_path, "--output", folder, *sets]


def last_line(err):
    return err.splitlines()[-1]


LATE = [
    (
        "distill.losses={mlm: {}, cosine: {layers: [[7, 0]]}}",
        "distill.losses.cosine.layers: The teacher has 2 layers, 0 to 1. "
        "Received: layer 7.",
    ),
    (
        "distill.losses={mlm: {}, attention_relation: {layers: [[7, 0]]}}",
        "distill.losses.attention_relation.layers: The teacher has 2 layers, ",
    ),
    (
        "distill.losses={mlm: {}, attention_relation: {relation_heads: 5}}",
        "distill.losses.attention_relation: `relation_heads` must divide the "
        "widths of teacher and student, 16 and 16. Received: relation_heads=5",
    ),
    (
        "distill.losses={mlm: {}, attention_transfer: {}, "
        "output_mse: {weight: 0}}\nstudent.num_heads=4",
        "distill.losses.attention_transfer: Teacher and student must have as "
        "many attention heads. Received: 2 and 4 heads; use AttentionRelation",
    ),
    ("evaluate.latency_length=13", "`evaluate.latency_length` is 13, but the"),
    (
        "export={formats: [preset], max_length: 13}",
        "`export.max_length` is 13, but the teacher has 12 positions",
    ),
    (
        "export={formats: [litert_float32], lengths: [8, 13]}",
        "`export.lengths` is 13, but the teacher has 12 positions",
    ),
    (
        "teacher.train={method: adapter, initial_adapter: gone.safetensors, "
        "steps: 1, batch_size: 2, learning_rate: 1e-3}",
        "`teacher.train.initial_adapter` is gone.safetensors, but there is no",
    ),
]


@pytest.mark.parametrize(("change", "message"), LATE)
def test_a_late_failure_is_told_before_the_first_update(
    capsys, toy_recipe, tmp_path, change, message, monkeypatch
):
    monkeypatch.setattr("keras_distil.runs.preflight.load_corpus", None)
    sets = [x for each in change.split("\n") for x in ("--set", each)]
    command = ["run", toy_recipe, *sets]
    status, _, err = keras_distil(capsys, *command, "--dry-run")
    assert status == 1
    assert last_line(err).startswith(f"keras-distil: {message}")
    folder = tmp_path / "run"
    status, _, err = keras_distil(capsys, *command, "--output", folder)
    assert status == 1
    assert last_line(err).startswith(f"keras-distil: {message}")
    # The corrected recipe, whatever is corrected, takes the folder.
    corrected = config.load_recipe(toy_recipe, ["distill.steps=2"])
    run_folder.open_run(corrected, folder, Progress(quiet=True))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("data.sequence_length=12", "data.sequence_length"),
        (
            "finetune={tasks: [rte], source: files, rows: [teacher, student], "
            "max_length: 12}",
            "finetune.max_length",
        ),
    ],
)
def test_a_tokenizer_may_limit_the_length(
    capsys, toy_recipe, toy_teacher, tmp_path, change, key
):
    teacher = tmp_path / "limited"
    shutil.copytree(toy_teacher, teacher)
    settings = teacher / "tokenizer_config.json"
    given = json.loads(settings.read_text()) if settings.is_file() else {}
    settings.write_text(json.dumps({**given, "model_max_length": 9}))
    command = ["run", toy_recipe, "--set", f"teacher.source={teacher}"]
    command += ["--set", "data.sequence_length=9", "--set", change]
    command += ["--output", tmp_path / "run"]
    message = (
        f"keras-distil: `{key}` is 12, but the tokenizer of '{teacher}' has a "
        f"`model_max_length` of 9. Set it to 9 or below: --set {key}=9."
    )
    for more in (["--dry-run"], []):
        status, _, err = keras_distil(capsys, *command, *more)
        assert status == 1
        assert last_line(err) == message
    recipe = config.load_recipe(
        toy_recipe,
        [
            f"teacher.source={teacher}",
            "data.sequence_length=9",
            change,
            f"{key}=9",
        ],
    )
    checks.check_tokenizer_lengths(recipe)


def test_a_format_whose_package_is_absent(toy_recipe, monkeypatch):
    recipe = config.load_recipe(toy_recipe, ["export.formats=[onnx]"])
    preflight.check_formats(recipe)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ImportError,
        match=r"which needs onnxruntime. Install it with: pip install "
        r"'keras-distil\[onnx\]'",
    ):
        preflight.check_formats(recipe)


def test_tasks_are_read_before_the_student_is_distilled(
    capsys, toy_recipe, toy_glue, tmp_path, monkeypatch
):
    def fit(*_, **__):
        raise AssertionError("trained before all was checked")

    monkeypatch.setattr("keras_distil.Distiller.fit", fit)
    text = tmp_path / "text"
    shutil.copytree(toy_glue / "RTE", text / "RTE")
    (text / "RTE" / "dev.tsv").write_text("index\tsentence1\n1\tx\n")
    tasks = "{tasks: [rte], source: files, max_length: 12}"
    command = ["run", toy_recipe, "--set", f"finetune={tasks}"]
    command += ["--set", "distill.baseline=true", "--output", tmp_path / "run"]
    for more in ([], ["--dry-run"]):
        status, _, err = keras_distil(capsys, *command, *more)
        assert status == 1
        assert "dev.tsv" in last_line(err)


def test_a_dry_run_opens_the_text(capsys, toy_recipe, tmp_path):
    command = ["run", toy_recipe, "--dry-run", "--set"]
    status, _, err = keras_distil(capsys, *command, "data.root=/nowhere")
    assert status == 1
    assert "No file matches pattern '*.txt' under root '/nowhere'" in err
    lines = tmp_path / "text" / "lines.txt"
    good = lines.read_bytes()
    lines.write_bytes(good.replace(b"line ", b"line \xe9 "))
    status, _, err = keras_distil(capsys, *command, "distill.steps=2")
    assert status == 1
    assert "100.0% of the text was skipped (80 of 80 lines" in err
    lines.write_bytes(good.replace(b" tells", b",tells"))
    status, out, err = keras_distil(capsys, *command, "distill.steps=2")
    assert status == 0
    assert "Warning: " in err and "looks like a table of 2 columns" in err
    lines.write_bytes(good)
    status, out, err = keras_distil(capsys, *command, "distill.steps=2")
    assert (status, err) == (0, "")


def test_a_dry_run_opens_tokenizer_and_students(
    capsys, toy_recipe, toy_teacher, toy_glue, tmp_path
):
    teacher = models.load_teacher(toy_teacher)
    student = models.initialize_student(teacher, num_layers=1)
    student.save(tmp_path / "student.keras")
    changes = {
        "distill": "null",
        "data.root": toy_glue,
        "finetune": "{tasks: [rte], source: files, max_length: 12, "
        "rows: [teacher, student]}",
        "student.source": tmp_path / "student.keras",
    }

    def dry_run(**more):
        pairs = {**changes, **more}.items()
        sets = [x for key, v in pairs for x in ("--set", f"{key}={v}")]
        return keras_distil(capsys, "run", toy_recipe, "--dry-run", *sets)

    status, _, err = dry_run()
    assert status == 0, err
    changes["student.source"] = tmp_path / "gone.keras"
    status, _, err = dry_run()
    assert status == 1
    assert "gone.keras" in last_line(err)
    (toy_teacher / "vocab.txt").unlink()
    changes["student.source"] = tmp_path / "student.keras"
    status, _, err = dry_run()
    assert status == 1
    assert str(toy_teacher) in last_line(err)


@pytest.mark.slow
def test_what_measures_may_change_when_a_run_goes_on(
    capsys, shared_toy_recipe, toy_run, tmp_path, quick_runs
):
    folder = tmp_path / "run"
    metrics = (toy_run.folder / "metrics.jsonl").read_bytes()
    before = json.loads((toy_run.folder / "report.json").read_text())
    status, _, err = keras_distil(
        capsys, *again(toy_run, folder, "evaluate.sequences=4", "name=other")
    )
    assert status == 0, err
    assert "evaluate.sequences (8, now 4)" in err
    # Nothing was trained, all was measured.
    assert (folder / "metrics.jsonl").read_bytes() == metrics
    report = json.loads((folder / "report.json").read_text())
    assert report["name"] == "other"
    assert report["rows"]["teacher"] != before["rows"]["teacher"]
    assert config.load_recipe(folder / "recipe.yaml").evaluate.sequences == 4


def test_an_export_is_added_to_a_finished_run(
    capsys, shared_toy_recipe, toy_run, tmp_path, monkeypatch, quick_runs
):
    folder = tmp_path / "run"
    before = json.loads((toy_run.folder / "report.json").read_text())
    monkeypatch.setattr("keras_distil.runs.distillation.score_on_text", None)
    status, _, err = keras_distil(
        capsys, *again(toy_run, folder, "export.formats=[preset]")
    )
    assert status == 0, err
    report = json.loads((folder / "report.json").read_text())
    assert report["rows"] == before["rows"]
    assert [made["format"] for made in report["export"]] == ["preset"]


def test_a_run_without_its_states_is_not_measured_again(toy_recipe, tmp_path):
    recipe = config.load_recipe(toy_recipe)
    run = run_folder.open_run(recipe, tmp_path / "run", Progress(quiet=True))
    (run.folder / run_folder.STUDENT_FILE).touch()
    other = config.load_recipe(toy_recipe, ["evaluate.sequences=4"])
    with pytest.raises(ValueError, match="cannot be measured again by eval"):
        run_folder.open_run(other, run.folder, Progress(quiet=True))


def test_trials_of_a_search_keep_what_they_are_measured_by(
    capsys, toy_recipe, tmp_path
):
    command = ["search", toy_recipe, "--output", tmp_path / "search"]
    command += ["--set"]
    choices = "{distill.learning_rate: {choices: [1e-3, 2e-3]}}"
    space = f"search={{trials: 1, space: {choices}}}"
    recipe = config.load_recipe(toy_recipe, [space])
    run_folder.open_run(recipe, tmp_path / "search", Progress(quiet=True))
    status, _, err = keras_distil(
        capsys, *command, space, "--set", "evaluate.sequences=4"
    )
    assert status == 1
    assert "run of another recipe: evaluate.sequences (8, now 4)" in err


@pytest.mark.parametrize("files", [["thesis.txt"], ["recipe.yaml"]])
def test_only_runs_are_moved(capsys, toy_recipe, tmp_path, files):
    folder = tmp_path / "mydocs"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("mine")
    command = ["run", toy_recipe, "--output", folder]
    for more in ([], ["--fresh"]):
        status, _, err = keras_distil(capsys, *command, *more)
        assert status == 1
        assert f"{folder} holds files, but no run" in err
        assert "--fresh" not in err
    assert [path.name for path in tmp_path.glob("mydocs*")] == ["mydocs"]
    assert sorted(path.name for path in folder.iterdir()) == files


@pytest.mark.slow
def test_a_corpus_of_less_than_a_batch_is_exported_from(
    toy_recipe, toy_teacher, monkeypatch
):
    monkeypatch.setattr(exports, "_REPRESENTATIVE", 10**6)
    recipe = config.load_recipe(toy_recipe)
    _, train = exports._text_examples(
        recipe, models.load_teacher(toy_teacher), Progress(quiet=True)
    )
    assert train is not None
