"""Tasks of a run: what is kept, what goes on, what is refused."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import toy
from html_reader import Page
from safetensors.numpy import load_file

from keras_distil import config, data, export, models
from keras_distil.benchmark import latency
from keras_distil.benchmark.latency import measure_latency_ms
from keras_distil.runs import (
    costs,
    finetuning,
    run_folder,
    stages,
    task_evaluation,
    task_results,
    tasks,
)
from keras_distil.training import distribution
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")


def write_recipe(path, teacher, glue):
    """Writes a recipe that fine-tunes the teacher and a student."""
    student = path.parent / "student.keras"
    models.initialize_student(models.load_teacher(teacher), 1).save(student)
    path.write_text(
        f"""
name: tasks
teacher: {{source: {teacher}}}
student: {{source: {student}}}
data: {{root: {glue}}}
finetune:
  tasks: [rte, stsb]
  source: files
  rows: [teacher, student]
  seeds: [3]
  max_length: 12
  epochs: 1
  batch_size: 4
  jit_compile: false
evaluate: {{latency_length: 8}}
"""
    )
    return path


@pytest.fixture
def recipe_path(toy_teacher, toy_glue, tmp_path):
    return write_recipe(tmp_path / "tasks.yaml", toy_teacher, toy_glue)


@pytest.fixture(scope="module")
def finished(shared_toy_recipe, shared_toy_glue, tmp_path_factory):
    """A finished run: its recipe, what changes it, its folder and report."""
    folder = tmp_path_factory.mktemp("tasks")
    teacher = shared_toy_recipe.with_name("teacher")
    path = write_recipe(folder / "tasks.yaml", teacher, shared_toy_glue)
    overrides = [
        *["finetune.tasks=[rte]", "finetune.epochs=2"],
        "finetune.augment_copies=2",
    ]
    with toy.eager_steps():
        report = start(path, folder / "run", *overrides)
    return path, overrides, folder / "run", report


def start(recipe_path, folder, *overrides):
    recipe = config.load_recipe(recipe_path, overrides)
    run = run_folder.open_run(recipe, folder, Progress(quiet=True))
    return stages.run_recipe(run)


def train_alone(recipe_path, folder, *overrides):
    """Trains teachers and students, without what a run does with them.

    Returns:
        What is kept of each, but for its duration.
    """
    recipe = config.load_recipe(recipe_path, overrides)
    run = run_folder.open_run(recipe, folder, Progress(quiet=True))
    encoders = {
        "teacher": models.load_teacher(recipe.teacher.source),
        "student": models.load_teacher(recipe.student.source),
    }
    for name in recipe.finetune.tasks:
        task = tasks.load_task(recipe, name)
        finetuning.train_rows(run, task, encoders, list(encoders))
    return results_of(folder)


def results_of(folder):
    found = {}
    for path in (folder / "tasks").glob("*/*/*/result.json"):
        result = json.loads(path.read_text())
        del result["duration_s"]
        found[path.relative_to(folder)] = result
    return found


@pytest.mark.slow
def test_a_run_that_broke_off_goes_on(recipe_path, tmp_path, monkeypatch):
    teacher = "finetune.rows=[teacher]"
    whole = start(recipe_path, tmp_path / "whole", teacher)
    folder = tmp_path / "broken"
    make = finetuning.make_task_trainer

    def fail(settings, student, kind, **arguments):
        if kind == "regression":
            raise OSError("the machine went away")
        return make(settings, student, kind, **arguments)

    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "make_task_trainer", fail)
        with pytest.raises(OSError, match="went away"):
            start(recipe_path, folder, teacher)
    results = sorted((folder / "tasks").glob("*/*/*/result.json"))
    assert len(results) == 1 and "rte" in str(results[0])
    before = [path.stat().st_mtime_ns for path in results]
    report = start(recipe_path, folder, teacher)
    assert before == [path.stat().st_mtime_ns for path in results]

    def scores(made):
        return [row["tasks"] for row in made["tasks"]["rows"]]

    assert scores(report) == scores(whole)
    assert not list(folder.glob("tasks/*/*/*/checkpoints"))


@pytest.mark.slow
@pytest.mark.essential
def test_results_are_what_the_kept_model_says(finished):
    path, _, folder, report = finished
    recipe = config.load_recipe(path)
    for row in report["tasks"]["rows"]:
        kept = folder / "tasks" / "rte" / row["name"] / "seed_3"
        evaluator = tasks.load_task(recipe, "rte").evaluator
        model = models.load_task_model(kept / "model.keras")
        found = evaluator.predictions(model)["dev"]
        written = load_file(kept / "predictions.safetensors")["dev"]
        np.testing.assert_array_equal(written, found)
        result = json.loads((kept / "result.json").read_text())
        accuracy = float(np.mean(found == evaluator.examples["dev"].labels))
        assert result["metrics"]["dev"]["accuracy"] == pytest.approx(accuracy)
        assert max(result["dev_scores"]) == pytest.approx(accuracy)
        assert row["tasks"]["rte"]["score"] == pytest.approx(100 * accuracy)
    page = Page((folder / "report.html").read_text())
    page.check_alone()
    assert page.headings() == [
        "Summary",
        "Tasks",
        "Answers: rte",
        "Learning curves",
        "Size, latency and score",
        "Environment",
        "Command and recipe",
    ]
    labels = [a["aria-label"] for tag, a in page.elements if tag == "svg"]
    rows = ", ".join(row["name"] for row in report["tasks"]["rows"])
    assert f"rte: loss on the labels over the updates: {rows}" in labels
    assert any(label.startswith("mean score of the tasks") for label in labels)
    assert "| student" in (folder / "report.md").read_text()
    errors = report["calibration"]["rte"]
    assert list(errors) == ["teacher", "student"]
    assert all(0 <= error <= 1 for error in errors.values())
    card = (folder / "MODEL_CARD.md").read_text()
    teacher, student = (f"{100 * error:.1f}" for error in errors.values())
    assert f"| rte | {teacher} | {student} |" in card
    assert "Tasks: rte, from the official files." in card


@pytest.mark.slow
def test_a_task_has_settings_of_its_own(recipe_path, tmp_path):
    report = start(
        recipe_path,
        tmp_path / "run",
        "finetune.rows=[teacher]",
        "finetune.seeds=[1, 2]",
        "finetune.by_task={stsb: {seeds: [5], epochs: 3}}",
    )
    trained = (tmp_path / "run" / "tasks").glob("*/*/*/result.json")
    assert sorted(path.parts[-4] + path.parts[-2] for path in trained) == [
        "rteseed_1",
        "rteseed_2",
        "stsbseed_5",
    ]
    tasks = report["tasks"]["rows"][0]["tasks"]
    assert (tasks["rte"]["seeds"], tasks["stsb"]["seeds"]) == (2, 1)
    epochs = {
        path.parts[-4]: len(json.loads(path.read_text())["dev_scores"])
        for path in (tmp_path / "run" / "tasks").glob("*/*/*/result.json")
    }
    assert epochs["rte"] < epochs["stsb"] == 3


@pytest.mark.slow
def test_a_student_can_be_trained_without_any_teacher(recipe_path, tmp_path):
    report = start(
        recipe_path,
        tmp_path / "run",
        "finetune.tasks=[rte]",
        "finetune.rows=[baseline]",
        f"student.baseline_source={tmp_path / 'student.keras'}",
        "student.source=null",
    )
    (row,) = report["tasks"]["rows"]
    assert row["name"] == "baseline"
    assert row["tasks"]["rte"]["retention"] is None
    assert (tmp_path / "run" / run_folder.PAGE_FILE).is_file()


@pytest.mark.slow
def test_elmo_stands_in_the_table_by_its_costs(
    recipe_path, tmp_path, monkeypatch
):
    encoder = models.ElmoEncoder(
        character_dim=2,
        filters=[[1, 4]],
        num_highways=1,
        units=4,
        projection_units=2,
    )
    small = models.ElmoClassifier(2, encoder=encoder, units=3, hidden_units=4)
    monkeypatch.setattr(costs, "make_elmo", lambda: small)
    # Both really run.
    monkeypatch.setattr(latency, "measure_latency_ms", measure_latency_ms)
    report = start(
        recipe_path,
        tmp_path / "run",
        "finetune.tasks=[rte]",
        "finetune.rows=[teacher, elmo]",
    )
    teacher, elmo = report["tasks"]["rows"]
    assert (teacher["name"], elmo["name"]) == ("teacher", "elmo")
    assert elmo["tasks"] == {} and elmo["macro"] is None
    assert elmo["parameters"] == small.count_params()
    assert elmo["latency_ms"] > 0
    assert "| elmo" in (tmp_path / "run" / "report.md").read_text().lower()


@pytest.mark.slow
def test_the_student_alone_sees_augmented_examples(finished):
    lines = (finished[2] / "metrics.jsonl").read_text().splitlines()
    stages_of = [json.loads(line)["stage"] for line in lines]
    # Twice 8 examples in batches of 4, and 16 more.
    assert stages_of.count("rte/teacher/seed_3") == 4
    assert stages_of.count("rte/student/seed_3") == 12


def planned(recipe_path, folder, *overrides):
    source = config.load_recipe(recipe_path).student.source
    recipe = config.load_recipe(
        recipe_path,
        [
            "finetune.tasks=[rte]",
            "finetune.seeds=[3, 1]",
            f"student.baseline_source={source}",
            "finetune.rows=[teacher, student, baseline]",
            *overrides,
        ],
    )
    run = run_folder.open_run(recipe, folder, Progress(quiet=True))
    task = tasks.load_task(recipe, "rte")
    rows = recipe.finetune.rows
    return run, task, finetuning._trainings_left(run, task, rows)


def test_the_teachers_of_all_seeds_come_first(recipe_path, tmp_path):
    run, task, trainings = planned(
        recipe_path, tmp_path / "all", "finetune.teacher_seeds=all"
    )
    assert [each.name for each in trainings] == [
        "rte/teacher/seed_3",
        "rte/teacher/seed_1",
        "rte/student/seed_3",
        "rte/baseline/seed_3",
        "rte/student/seed_1",
        "rte/baseline/seed_1",
    ]
    teachers = [x.name for x in task_results.plan_teachers(run, trainings[2])]
    assert teachers == ["rte/teacher/seed_3", "rte/teacher/seed_1"]
    # That of its own seed, whose states it goes on with, is each one's first.
    teachers = [x.name for x in task_results.plan_teachers(run, trainings[4])]
    assert teachers == ["rte/teacher/seed_1", "rte/teacher/seed_3"]
    # Two forward passes of a teacher are two thirds of its update.
    assert finetuning._slowness(run, "rte", "student") == 2
    assert finetuning._slowness(run, "rte", "teacher") == 1
    # Each row has one epoch of two batches, and a student counts twice.
    encoder = models.load_teacher(run.recipe.teacher.source)
    rows = run.recipe.finetune.rows
    encoders = dict.fromkeys(rows, encoder)
    assert finetuning._updates_left(run, task, encoders, rows) == 2 * (
        2 + 2 * 2 + 2
    )
    run, _, trainings = planned(recipe_path, tmp_path / "own")
    names = [each.name.removeprefix("rte/") for each in trainings]
    assert names[:3] == ["teacher/seed_3", "student/seed_3", "baseline/seed_3"]
    teachers = [x.name for x in task_results.plan_teachers(run, trainings[4])]
    assert teachers == ["rte/teacher/seed_1"]


@pytest.mark.slow
def test_a_run_with_the_teachers_of_all_seeds(
    recipe_path, tmp_path, monkeypatch
):
    """It goes on after a fault; with one seed it is the usual run."""
    both = [
        "finetune.tasks=[rte]",
        "finetune.seeds=[3, 1]",
        "finetune.teacher_seeds=all",
        # One student's second teacher, whose states it reads, is another's
        # first: both read the same caches.
        "finetune.teacher_cache=true",
        "finetune.losses={label: {}, soft_target: {}, cosine: {teacher: 1}}",
    ]
    folder = tmp_path / "both"
    make, given = finetuning.make_task_trainer, []

    def watch(settings, student, kind, *, teacher, **arguments):
        given.append(len(teacher or ()))
        if len(given) == 4:
            raise OSError("the machine went away")
        return make(settings, student, kind, teacher=teacher, **arguments)

    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "make_task_trainer", watch)
        with pytest.raises(OSError, match="went away"):
            start(recipe_path, folder, *both)
    assert given == [0, 0, 2, 2]
    start(recipe_path, folder, *both)
    whole = train_alone(recipe_path, tmp_path / "whole", *both)
    assert len(whole) == 4
    assert results_of(folder) == whole
    found = []
    for teachers in ("all", "own"):
        train_alone(
            recipe_path,
            tmp_path / teachers,
            "finetune.tasks=[rte]",
            f"finetune.teacher_seeds={teachers}",
        )
        kept = tmp_path / teachers / "tasks" / "rte" / "student" / "seed_3"
        model = models.load_task_model(kept / "model.keras")
        found.append([v.numpy() for v in model.weights])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_damaged_results_are_named(finished, tmp_path):
    path, overrides, folder, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    kept = tmp_path / "run" / "tasks" / "rte" / "teacher" / "seed_3"
    good = (kept / "result.json").read_text()
    for damage in ("{", json.dumps({"metrics": {"test": {}}})):
        (kept / "result.json").write_text(damage)
        with pytest.raises(ValueError, match="teacher/seed_3 are damaged"):
            start(path, tmp_path / "run", *overrides)
    (kept / "result.json").write_text(good)
    (kept / "predictions.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="Remove the folder, and the same"):
        start(path, tmp_path / "run", *overrides)


def test_what_does_not_fit_is_refused(recipe_path, tmp_path, toy_teacher):
    with pytest.raises(ValueError, match="`finetune.max_length` is 13, but"):
        start(recipe_path, tmp_path / "1", "finetune.max_length=13")
    with pytest.raises(ValueError, match="needs `data.root`"):
        start(recipe_path, tmp_path / "2", "data.root=null")
    backbone = models.ExactBertBackbone(
        vocabulary_size=7,
        num_layers=1,
        num_heads=2,
        hidden_dim=4,
        intermediate_dim=8,
        max_sequence_length=12,
    )
    models.ExactBertMaskedLM(backbone).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="a vocabulary of 7 entries, its tea"):
        start(
            recipe_path,
            tmp_path / "3",
            f"student.source={tmp_path / 'other.keras'}",
        )


def test_several_workers_are_refused(recipe_path, tmp_path, monkeypatch):
    monkeypatch.setattr(distribution, "worker_index", lambda: (0, 2))
    with pytest.raises(ValueError, match="trained by a single process"):
        start(recipe_path, tmp_path / "run")


@pytest.fixture
def kept_model(toy_teacher, tmp_path):
    path = tmp_path / "model.keras"
    models.task_model(models.load_teacher(toy_teacher), "regression").save(path)
    return path


def test_a_kept_model_is_scored(recipe_path, kept_model, toy_glue, tmp_path):
    recipe = config.load_recipe(recipe_path)
    train = (toy_glue / "STS-B" / "dev.tsv").read_text().splitlines()
    unlabelled = [line.rpartition("\t")[0] for line in train]
    (toy_glue / "STS-B" / "test.tsv").write_text("\n".join(unlabelled) + "\n")
    found = task_evaluation.evaluate_file(
        recipe, "stsb", kept_model, tmp_path / "submission"
    )
    evaluator = tasks.load_task(recipe, "stsb").evaluator
    assert found == evaluator.evaluate(models.load_task_model(kept_model))
    assert (tmp_path / "submission" / "STS-B.tsv").is_file()


@pytest.fixture
def shuffled_folder(kept_model, toy_teacher, tmp_path):
    """The kept model as a folder whose words have other ids."""
    model = toy.randomize(models.load_task_model(kept_model), seed=4)
    model.save(kept_model)
    words = (toy_teacher / "vocab.txt").read_text().split()
    order = np.random.default_rng(2).permutation(len(words))
    table = model.backbone.token_embedding.embeddings
    rows = np.array(table)
    rows[: len(words)] = rows[order]
    table.assign(rows)
    (tmp_path / "words").mkdir()
    text = "\n".join(words[i] for i in order) + "\n"
    (tmp_path / "words" / "vocab.txt").write_text(text)
    tokenizer = data.load_tokenizer(tmp_path / "words")
    made = export.export_hugging_face(model, tmp_path / "folder", tokenizer)
    return made.path


def test_a_folder_is_scored_with_its_own_tokenizer(
    recipe_path, kept_model, shuffled_folder
):
    recipe = config.load_recipe(recipe_path)
    expected = task_evaluation.evaluate_file(recipe, "stsb", kept_model, None)
    found = task_evaluation.evaluate_file(recipe, "stsb", shuffled_folder, None)
    assert found["dev"] == pytest.approx(expected["dev"], abs=1e-5)
    # With the teacher's tokenizer the ids are those of other words.
    wrong = tasks.load_task(recipe, "stsb").evaluator.evaluate(
        models.load_task_model(shuffled_folder)
    )
    assert wrong["dev"] != pytest.approx(expected["dev"], abs=1e-2)
    for name in data.TOKENIZER_FILES:
        (shuffled_folder / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match="folder` has no tokenizer, and ano"):
        task_evaluation.evaluate_file(recipe, "stsb", shuffled_folder, None)


def test_a_model_of_fewer_words_than_the_tokenizer_is_refused(
    recipe_path, toy_teacher, tmp_path
):
    teacher = toy.make_teacher(num_layers=1, vocabulary_size=20)
    path = tmp_path / "few.keras"
    models.task_model(teacher, "regression").save(path)
    recipe = config.load_recipe(recipe_path)
    with pytest.raises(ValueError, match="has 64 entries, but .*few.keras` a"):
        task_evaluation.evaluate_file(recipe, "stsb", path, None)


def test_a_task_that_is_half_unknown_is_refused(
    recipe_path, toy_teacher, toy_squad
):
    path = toy_teacher / "vocab.txt"
    path.write_text(path.read_text().upper())
    recipe = config.load_recipe(recipe_path)
    with pytest.raises(ValueError, match="of the task stsb .*do_lower_case"):
        tasks.load_task(recipe, "stsb")
    with pytest.raises(ValueError, match="of the task squad .*do_lower_case"):
        tasks.load_task(
            config.load_recipe(
                recipe_path,
                [
                    *["finetune.tasks=[squad]", "finetune.max_question=4"],
                    *["finetune.stride=2", f"data.root={toy_squad}"],
                ],
            ),
            "squad",
        )


def test_messages_name_the_tokenizers_own_unknown_token(
    recipe_path, toy_teacher, capsys
):
    words = (toy_teacher / "vocab.txt").read_text()
    (toy_teacher / "vocab.txt").write_text(words.replace("[UNK]", "odd"))
    settings = {"unk_token": "odd"}
    (toy_teacher / "tokenizer_config.json").write_text(json.dumps(settings))
    task = tasks.load_task(config.load_recipe(recipe_path), "stsb")
    assert task.unknown_token == "odd"
    (toy_teacher / "vocab.txt").write_text(
        words.upper().replace("[UNK]", "odd")
    )
    with pytest.raises(ValueError, match="of the task stsb .* are odd: the"):
        tasks.load_task(config.load_recipe(recipe_path), "stsb")


def test_a_model_that_cannot_be_scored_is_refused(
    recipe_path, kept_model, toy_teacher, toy_squad, tmp_path
):
    recipe = config.load_recipe(recipe_path)

    def refused(message, task, path=kept_model, recipe=recipe, folder=None):
        with pytest.raises((ValueError, OSError), match=message):
            task_evaluation.evaluate_file(recipe, task, path, folder)

    refused("no task 'stb'; the nearest is 'stsb'", "stb")
    refused("is for a regression with 1 outputs; rte is a classif", "rte")
    refused("There is no model", "stsb", tmp_path / "none.keras")
    (tmp_path / "torn.keras").write_bytes(b"x")
    refused("or a damaged one", "stsb", tmp_path / "torn.keras")
    other = tmp_path / "other.keras"
    models.load_teacher(toy_teacher).save(other)
    refused("must hold a model that was fine-tuned.*MaskedLM", "stsb", other)
    span = tmp_path / "span.keras"
    models.task_model(models.load_teacher(toy_teacher), "span").save(span)
    squad = config.load_recipe(
        recipe_path,
        [
            "finetune.tasks=[squad]",
            "finetune.max_question=2",
            "finetune.stride=2",
            f"data.root={toy_squad}",
        ],
    )
    refused("not handed in", "squad", span, squad, tmp_path)
    scores = task_evaluation.evaluate_file(squad, "squad", span, None)["dev"]
    assert set(scores) == {"exact_match", "f1"}


def test_a_models_own_tokenizer_is_asked_for(
    finished, toy_teacher, recipe_path
):
    path, *_ = (finished[2] / "tasks").glob("rte/teacher/*/model.keras")
    recipe = config.load_recipe(recipe_path)
    assert task_evaluation.evaluate_file(recipe, "rte", path, None)
    # The same words, of which two have each other's ids.
    vocabulary = toy_teacher / "vocab.txt"
    words = vocabulary.read_text().split("\n")
    words[7], words[8] = words[8], words[7]
    vocabulary.write_text("\n".join(words))
    with pytest.raises(ValueError, match="was trained with another tokenizer"):
        task_evaluation.evaluate_file(recipe, "rte", path, None)


def test_a_file_that_keras_cannot_read_is_refused(kept_model, tmp_path):
    with zipfile.ZipFile(kept_model) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    members["model.weights.h5"] = b"\0" * len(members["model.weights.h5"])
    path = tmp_path / "zeros.keras"
    with zipfile.ZipFile(path, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    with pytest.raises(ValueError, match="zeros.keras` cannot be loaded"):
        models.load_task_model(path)
