"""Export as a stage of a run and as a command."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import keras_distil
from toy import convert_litert_here

from keras_distil import config, export
from keras_distil.cli import app
from keras_distil.models import load_task_model, load_teacher, task_model
from keras_distil.runs import (
    benchmarks,
    corpus,
    exports,
    run_folder,
    stages,
    task_results,
)
from keras_distil.utils.progress import Progress

ROOT = Path(__file__).parents[2]
FORMATS = [
    "saved_model",
    "hugging_face",
    "preset",
    "litert_float32",
    "onnx",
]


def main(monkeypatch, capsys, *arguments):
    """Runs the command line; returns its status, output and errors."""
    monkeypatch.setattr("sys.argv", ["keras-distil", *map(str, arguments)])
    try:
        app.main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(autouse=True)
def convert_here(monkeypatch):
    convert_litert_here(monkeypatch)


@pytest.fixture(scope="module")
def run(toy_run, shared_toy_recipe, tmp_path_factory):
    """A finished run that has exported nothing."""
    recipe = config.load_recipe(toy_run.recipe_path, toy_run.overrides)
    folder = toy_run.copy(tmp_path_factory.mktemp("finished") / "run")
    return run_folder.open_run(recipe, folder, Progress(quiet=True))


@pytest.mark.slow
def test_a_run_exports_its_student(shared_toy_recipe, toy_run, tmp_path):
    recipe = config.load_recipe(
        toy_run.recipe_path,
        [*toy_run.overrides, f"export.formats=[{', '.join(FORMATS)}]"],
    )
    # What was trained and scored is found done.
    folder = toy_run.copy(tmp_path / "run")
    made = run_folder.open_run(recipe, folder, Progress(quiet=True))
    report = stages.run_recipe(made)
    assert [each["path"] for each in report["export"]] == FORMATS
    for each in report["export"]:
        assert (made.folder / each["path"]).is_dir()
        found, allowed = each["comparison"], each["tolerance"]
        assert found["max_difference"] <= allowed["max_difference"]
    # Masked words of the held-out text.
    assert report["export"][0]["comparison"]["decisions"] > 8
    assert json.loads(made.report_path.read_text()) == report
    run_folder.check_report(made.report_path)
    load_teacher(made.folder / "hugging_face")


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.slow
def test_a_run_exports_the_best_student_of_each_task(
    run, shared_toy_recipe, toy_glue, tmp_path, monkeypatch, capsys
):
    recipe = config.load_recipe(
        shared_toy_recipe,
        [
            f"data.root={toy_glue}",
            "data.sources=[]",
            "distill=null",
            "finetune.tasks=[rte]",
            "finetune.source=files",
            "finetune.rows=[teacher, student]",
            "finetune.seeds=[0, 1]",
            "finetune.max_length=12",
            "finetune.epochs=1",
            f"student.source={run.folder / 'student.keras'}",
            "export.formats=[saved_model, hugging_face, litert_float32]",
        ],
    )
    made = run_folder.open_run(recipe, tmp_path / "run", Progress(quiet=True))
    report = stages.run_recipe(made)
    paths = [each["path"] for each in report["export"]]
    assert len(paths) == 3
    for path in paths:
        assert re.fullmatch(
            r"tasks/rte/student/seed_[01]/"
            "(saved_model|hugging_face|litert_float32)",
            path,
        )
    for each in report["export"]:
        found = each["comparison"]
        assert 0 <= found["score"] == found["student_score"] <= 1
    card = made.folder / paths[2] / "student.json"
    assert json.loads(card.read_text())["labels"] == [
        "entailment",
        "not_entailment",
    ]
    assert json.loads(card.read_text())["lengths"] == [12]
    load_task_model(made.folder / paths[1])
    settings = json.loads(
        (made.folder / paths[1] / "config.json").read_text("utf-8")
    )
    assert settings["id2label"] == {"0": "entailment", "1": "not_entailment"}
    # The best of the seeds, whichever that is.
    for seed, score in ((0, 0.1), (1, 0.9)):
        path = made.folder / "tasks/rte/student" / f"seed_{seed}/result.json"
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"dev_scores": [score, 0.0]}))
    best = task_results.find_best_student(made, "rte")
    assert best.parent.name == "seed_1"
    # The command finds it by the run, whose only task it is.
    arguments = ("export", made.folder, "--format", "preset", "--quiet")
    status, _, err = main(monkeypatch, capsys, *arguments)
    assert (status, err) == (0, "")
    assert (best.parent / "preset" / "config.json").is_file()
    path.write_text("{")
    with pytest.raises(ValueError, match="seed_1 are damaged. Remove"):
        task_results.find_best_student(made, "rte")


@pytest.mark.slow
def test_only_the_chief_exports(run):
    recipe = config.load_recipe(run.folder / "recipe.yaml")
    exporting = recipe.model_copy(update={"export": config.ExportSection()})
    worker = run_folder.Run(exporting, run.folder, run.progress, writes=False)
    assert exports.export_run(worker) == []


@pytest.mark.slow
def test_the_command(run, monkeypatch, capsys):
    arguments = ("export", run.folder, "--format", "hugging_face", "--quiet")
    status, out, err = main(monkeypatch, capsys, *arguments)
    assert (status, err) == (0, "")
    again = ("--overwrite", "--json")
    _, found, _ = main(monkeypatch, capsys, *arguments, *again)
    [report] = json.loads(found)
    assert report["format"] == "hugging_face"
    assert report["comparison"]["decisions"] > 8
    assert re.fullmatch(
        r".*run/hugging_face \(0.0 MB\): max difference 0, mean 0, top-1 agre"
        r"ement 100.00% of \d+\n",
        out,
    )
    status, _, err = main(monkeypatch, capsys, *arguments)
    assert status == 1
    assert re.fullmatch(r"keras-distil: .*hugging_face exists.*\n", err)
    status, _, err = main(monkeypatch, capsys, *arguments, "--overwrite")
    assert (status, err) == (0, "")


def test_the_command_takes_a_recipe_and_a_model(
    run, tmp_path, shared_toy_recipe, monkeypatch, capsys
):
    model = tmp_path / "moved.keras"
    shutil.copy(run.folder / "student.keras", model)
    status, out, err = main(
        monkeypatch,
        capsys,
        *("export", shared_toy_recipe, "--model", model, "--format", "preset"),
        *("--output", tmp_path / "out", "--quiet"),
    )
    assert (status, err) == (0, "")
    assert (tmp_path / "out" / "preset" / "task.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--format", "sentence_embedding"),
            "`--format` must not be 'sentence_embedding' any more: name",
        ),
        (
            ("--format", "onyx"),
            "one of saved_model, .*, onnx, static_table. Received: 'on",
        ),
        (("--model", "missing.keras"), "There is no model missing.keras."),
        (
            ("--model", "setup.py"),
            "`setup.py` is not a `.keras` file, nor a dir",
        ),
    ],
)
def test_bad_input_is_one_line(
    shared_toy_recipe, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(ROOT)
    status, out, err = main(
        monkeypatch,
        capsys,
        *(
            "export",
            shared_toy_recipe,
            "--output",
            tmp_path / "out",
            *arguments,
        ),
    )
    assert (status, out) == (1, "")
    assert re.fullmatch(f"keras-distil: .*{message}.*\n", err)
    assert not (tmp_path / "out").exists()


def test_what_a_task_has_no_form_of_is_told(
    shared_toy_recipe, tmp_path, run, monkeypatch, capsys
):
    model = tmp_path / "span.keras"
    task_model(load_teacher(run.folder / "student.keras"), "span").save(model)
    status, out, err = main(
        monkeypatch,
        capsys,
        *(
            "export",
            shared_toy_recipe,
            "--model",
            model,
            "--output",
            tmp_path / "out",
        ),
        *("--format", "preset", "--format", "static_table"),
    )
    assert status == 0
    said = " ".join((out + err).split())
    assert "KerasHub has no class for a span model." in said
    assert "is for a student that is a static table" in said
    assert not (tmp_path / "out").exists()


def test_weights_are_fitted_to_text_of_training(run, tmp_path, monkeypatch):
    seen = {}

    def record(model, target, tokenizer, **arguments):
        seen.update(arguments)
        return export.ExportReport(target, "litert", "x", None, None, 1.0)

    monkeypatch.setattr(export, "export", record)
    recipe = config.load_recipe(
        run.folder / "recipe.yaml", ["export.lengths=[8, 10]"]
    )
    exports.export_file(
        recipe,
        run.folder / "student.keras",
        tmp_path,
        ["litert_full_int8"],
        overwrite=False,
        progress=Progress(quiet=True),
    )
    assert seen["lengths"] == [8, 10] and seen["precision"] == "full_int8"
    held_out, other = seen["held_out"], seen["representative"]
    assert held_out.batches
    prepared = corpus.load_corpus(recipe)
    for examples, sequences in (
        (held_out, prepared.held_out),
        (other, prepared.train),
    ):
        rows = [np.asarray(row) for row in sequences]
        assert rows and examples.batches
        for batch, places in examples.batches:
            for ids, masked in zip(batch["token_ids"], places, strict=True):
                assert any(
                    np.array_equal(ids[~masked], row[~masked]) for row in rows
                )


def test_scores_need_a_task(run, monkeypatch, capsys):
    status, _, err = main(monkeypatch, capsys, "export", run.folder, "--score")
    assert status == 1
    assert err == (
        "keras-distil: `--score` needs the model's task: add --task.\n"
    )


def test_the_documented_tolerances_are_those_of_the_code():
    page = (ROOT / "docs" / "export" / "gate.md").read_text("utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([\d.e-]+) \| ([\d.e-]+) \| ([\d.]+)% "
        r"\| ([\d.]+) \| ([\d.]+)% \| ([\d.]+) \|",
        page,
        re.MULTILINE,
    )
    assert {
        (name, precision): export.Tolerance(
            float(largest),
            float(mean),
            round(float(share) / 100, 6),
            round(float(points) / 100, 6),
            round(float(spread) / 100, 6),
            float(cosine),
        )
        for (
            name,
            precision,
            largest,
            mean,
            share,
            points,
            spread,
            cosine,
        ) in rows
    } == export.TOLERANCES


def test_a_hugging_face_folder_is_exported_with_its_own_tokenizer(
    capsys, toy_recipe, toy_teacher, tmp_path
):
    model = tmp_path / "fine" / "model"
    shutil.copytree(toy_teacher, model)
    # One word more than the recipe's teacher has.
    words = (model / "vocab.txt").read_text().split()
    (model / "vocab.txt").write_text("\n".join([*words[:63], "xyz"]) + "\n")
    command = ["export", toy_recipe, "--model", model]
    status, out, err = keras_distil(
        capsys, *command, "--format", "hugging_face"
    )
    assert status == 0, err
    made = tmp_path / "fine" / "hugging_face"
    assert (made / "vocab.txt").read_text().split()[-1] == "xyz"
    assert load_teacher(made).backbone.num_layers == 2


def test_a_folder_is_measured_as_a_file(golden_bert, tmp_path):
    made = benchmarks._as_file(golden_bert, tmp_path)
    assert made.suffix == ".keras"
    assert load_teacher(made).backbone.num_layers == 2
    assert benchmarks._as_file(made, tmp_path) == made
