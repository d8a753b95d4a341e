"""Students without a general stage, cut from a task's fine-tuned teacher."""

import json

import numpy as np
import pytest
from toy import randomize

from keras_distil import config, models
from keras_distil.models.task_model import kind_of
from keras_distil.planning import estimate
from keras_distil.runs import (
    finetuning,
    given_files,
    preflight,
    run_folder,
    stages,
    student,
)
from keras_distil.runs.task_results import MODEL_FILE, plan_training
from keras_distil.runs.tasks import load_task
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture
def recipe_path(toy_teacher, toy_glue, tmp_path):
    path = tmp_path / "cut.yaml"
    path.write_text(
        f"""
name: cut
teacher: {{source: {toy_teacher}}}
student: {{layers: [1]}}
data: {{root: {toy_glue}}}
finetune:
  tasks: [rte]
  source: files
  rows: [student, ngrams, baseline, teacher]
  seeds: [3, 4]
  max_length: 12
  epochs: 1
  batch_size: 4
  dropout: 0.25
  jit_compile: false
evaluate: {{latency_length: 8}}
"""
    )
    return path


def open_run(path, folder, *overrides):
    recipe = config.load_recipe(path, overrides)
    return run_folder.open_run(recipe, folder, Progress(quiet=True))


def weights_of(model):
    return [np.array(x) for x in model.weights]


def test_student_and_baseline_begin_as_the_teacher_of_their_seed(
    recipe_path, toy_teacher, tmp_path
):
    run = open_run(recipe_path, tmp_path / "run")
    task = load_task(run.recipe, "rte")
    untuned = models.load_teacher(toy_teacher)
    teacher = randomize(
        models.task_model(
            untuned, "classification", task.outputs, labels=task.labels
        ),
        seed=4,
    )
    planned = plan_training(run, "rte", "teacher", 4)
    planned.folder.mkdir(parents=True)
    teacher.save(planned.folder / MODEL_FILE)
    made, other = (
        student.make_task_model(
            run, plan_training(run, "rte", row, 4), untuned, task
        )
        for row in ("student", "baseline")
    )
    for a, b in zip(weights_of(made), weights_of(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert kind_of(made) == "classification" and made.labels == task.labels
    assert made.backbone.num_layers == 1 and made.dropout == 0.25
    one = weights_of(made.backbone.transformer_layers[0])
    other = weights_of(teacher.backbone.transformer_layers[1])
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        made.output_dense.kernel, teacher.output_dense.kernel
    )
    rows = {"teacher": untuned, "student": made, "baseline": made}
    assert student.copies_weights(run.recipe, "baseline", "rte", rows)
    for change in ("initialization=random", "source=x.keras"):
        changed = config.load_recipe(
            recipe_path,
            [f"student.{change}", "finetune.rows=[teacher, student]"],
        )
        assert not student.copies_weights(changed, "student", "rte", rows)
    assert not student.copies_weights(run.recipe, "teacher", "rte", rows)


def test_teachers_come_first_whatever_the_order_of_rows(recipe_path, tmp_path):
    run = open_run(recipe_path, tmp_path / "run")
    task = load_task(run.recipe, "rte")
    rows = [x for x in run.recipe.finetune.rows if x != "ngrams"]
    left = finetuning._trainings_left(run, task, rows)
    assert [f"{x.row} {x.seed}" for x in left] == [
        *("teacher 3", "student 3", "baseline 3"),
        *("teacher 4", "student 4", "baseline 4"),
    ]


def test_a_plan_shows_the_student(recipe_path):
    summary = estimate.summarise(config.load_recipe(recipe_path, []))
    assert summary["student"]["num_layers"] == 1


@pytest.mark.slow
def test_a_run_without_a_general_stage(recipe_path, tmp_path):
    report = stages.run_recipe(
        open_run(recipe_path, tmp_path / "run", "finetune.seeds=[3]")
    )
    table = report["tasks"]
    assert [row["name"] for row in table["rows"]] == [
        "teacher",
        "student",
        "baseline",
        "ngrams",
    ]
    assert table["cut"] == ["student", "baseline"]
    page = (tmp_path / "run" / "report.md").read_text()
    assert "with its output layer: student, baseline. So the baseline" in page
    results = sorted((tmp_path / "run" / "tasks").glob("*/*/*/result.json"))
    assert len(results) == 4
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == report


# === Tasks that cut their students while others take a given one ===


@pytest.fixture
def mixed(recipe_path, toy_teacher, tmp_path):
    """Overrides: CoLA begins with a given student, RTE with its teacher's."""
    given = randomize(
        models.initialize_student(models.load_teacher(toy_teacher), 1), seed=7
    )
    given.save(tmp_path / "given.keras")
    source = tmp_path / "given.keras"
    return [
        f"student={{source: {source}, baseline_source: {source}, layers: [1]}}",
        "finetune.tasks=[cola, rte]",
        "finetune.by_task={rte: {cut_student: true}}",
        "finetune.rows=[teacher, student, baseline]",
    ]


def test_a_task_may_cut_its_students_alone(
    recipe_path, toy_teacher, mixed, tmp_path
):
    run = open_run(recipe_path, tmp_path / "run", *mixed)
    untuned = models.load_teacher(toy_teacher)
    given = student.load_given_students(run, untuned)
    assert list(given) == ["student", "baseline"]
    assert not student.stand_in_students(run, untuned)
    starts = {}
    for name in ("cola", "rte"):
        task = load_task(run.recipe, name)
        teacher = randomize(
            models.task_model(
                untuned, "classification", task.outputs, labels=task.labels
            ),
            seed=4,
        )
        planned = plan_training(run, name, "teacher", 4)
        planned.folder.mkdir(parents=True)
        teacher.save(planned.folder / MODEL_FILE)
        starts[name] = [
            student.make_task_model(
                run, plan_training(run, name, row, 4), given[row], task
            )
            for row in given
        ]
        of_teacher = [
            np.array_equal(
                made.backbone.token_embedding.embeddings,
                teacher.backbone.token_embedding.embeddings,
            )
            for made in starts[name]
        ]
        assert of_teacher == [name == "rte"] * 2
    for made in starts["cola"]:
        np.testing.assert_array_equal(
            made.backbone.token_embedding.embeddings,
            given["student"].backbone.token_embedding.embeddings,
        )


def test_no_file_is_needed_where_all_tasks_cut(recipe_path, mixed):
    recipe = config.load_recipe(recipe_path, mixed)
    assert list(given_files.given_students(recipe)) == ["student", "baseline"]
    alone = config.load_recipe(
        recipe_path,
        [*mixed, "finetune.tasks=[rte]", "student.source=nowhere.keras"],
    )
    assert not given_files.given_students(alone)
    preflight.open_inputs(alone)
    assert estimate.summarise(alone)["student"]["num_layers"] == 1


def test_students_of_all_tasks_have_one_size(
    recipe_path, toy_teacher, mixed, tmp_path
):
    changed = [*mixed, "student.num_layers=2", "student.layers=[0, 1]"]
    wanted = (
        r"`finetune.by_task.rte.cut_student` cuts a student with num_layers 2, "
        r"but that of other tasks, .*given.keras, has 1, and a row of the "
        r"table is of one size: set `student.num_layers` to 1\."
    )
    with pytest.raises(ValueError, match=wanted):
        preflight.open_inputs(config.load_recipe(recipe_path, changed))
    run = open_run(recipe_path, tmp_path / "run", *changed)
    with pytest.raises(ValueError, match=wanted):
        student.load_given_students(run, models.load_teacher(toy_teacher))


@pytest.mark.slow
def test_a_run_with_a_task_that_cuts_its_students(recipe_path, mixed, tmp_path):
    folder = tmp_path / "run"
    report = stages.run_recipe(
        open_run(recipe_path, folder, *mixed, "finetune.seeds=[3]")
    )
    assert report["tasks"]["cut"] == ["student", "baseline"]
    assert report["tasks"]["cut_tasks"] == ["rte"]
    page = (folder / "report.md").read_text()
    assert "Rows that began on rte as layers of the fine-tuned teacher" in page
    card = (folder / "MODEL_CARD.md").read_text()
    assert "On rte, it is cut from the teacher." in card
