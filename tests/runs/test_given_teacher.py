"""Teachers that are fine-tuned already: `teacher.task_source`."""

import json
import random
import shutil

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from toy import randomize

from keras_distil import config, data, export, models
from keras_distil.evaluation.outputs import output_function
from keras_distil.models.labels import labels_of
from keras_distil.planning import estimate
from keras_distil.runs import (
    given_files,
    given_teacher,
    preflight,
    run_folder,
    stages,
)
from keras_distil.runs.task_results import plan_row
from keras_distil.runs.tasks import load_task
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")

LABELS = ("bad", "good", "so so")
FINETUNE = {
    "tasks": [
        {
            "name": "mine",
            "kind": "classification",
            "train": "rows.csv",
            "dev_fraction": 0.2,
        }
    ],
    "max_length": 12,
    "epochs": 1,
    "batch_size": 16,
    "jit_compile": False,
}


def write_rows(folder):
    generator = random.Random(0)
    texts = {
        " ".join(generator.choices("abcdefgh", k=generator.randint(2, 7)))
        for _ in range(60)
    }
    # Sets of text have no order.
    lines = [f"{text},{LABELS[text.count('a') % 3]}" for text in sorted(texts)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines, ""]))


def write_recipe(path, teacher, **settings):
    values = {
        "name": "given",
        "teacher": teacher,
        "student": {"num_layers": 1},
        "data": {"root": str(path.parent)},
        "finetune": FINETUNE,
        "evaluate": {"latency_length": 8},
        **settings,
    }
    path.write_text(yaml.safe_dump(values))
    return path


def classifier(teacher, labels, kind="classification"):
    outputs = 1 if labels is None else len(labels)
    model = models.task_model(
        models.load_teacher(teacher), kind, outputs, labels=labels
    )
    return randomize(model, seed=1, scale=0.6)


def give(folder, model, tokens):
    """Writes a model as a Hugging Face folder."""
    tokenizer = data.load_tokenizer(tokens)
    export.export_hugging_face(model, folder, tokenizer, overwrite=True)
    return str(folder)


@pytest.fixture(scope="module")
def home(shared_toy_recipe, tmp_path_factory):
    """A folder with rows, a teacher of another order of labels, its recipe."""
    folder = tmp_path_factory.mktemp("given")
    tokens = shared_toy_recipe.with_name("teacher")
    write_rows(folder)
    model = classifier(str(tokens), ["So-So", "BAD", "good"])
    given = give(folder / "teacher", model, tokens)
    write_recipe(folder / "given.yaml", {"task_source": given})
    return folder


@pytest.fixture(scope="module")
def task(home):
    return load_task(config.load_recipe(home / "given.yaml", []), "mine")


def test_outputs_are_put_into_the_order_of_the_data(home, task):
    recipe = config.load_recipe(home / "given.yaml", [])
    assert task.labels == LABELS
    teacher = given_teacher.load_given_teacher(recipe, task)
    assert labels_of(teacher) == LABELS
    inputs = next(task.evaluator.inputs())
    original = models.load_task_model(home / "teacher")
    np.testing.assert_array_equal(
        output_function(teacher)(inputs),
        output_function(original)(inputs)[:, [1, 2, 0]],
    )


def open_run(path, folder, *overrides, progress=None):
    recipe = config.load_recipe(path, overrides)
    return run_folder.open_run(recipe, folder, progress or Progress(quiet=True))


def test_a_teacher_no_better_than_a_constant_stops_the_run(
    home, task, tmp_path, capsys
):
    run = open_run(home / "given.yaml", tmp_path / "run")
    with pytest.raises(
        ValueError,
        match=r"`teacher.task_source`, .*teacher, scores \d.* on the "
        r"development set of mine, no better than the majority class with "
        r"\d.*go on with `teacher.allow_chance_score: true`",
    ):
        given_teacher.keep_given_teacher(run, task)
    run = open_run(
        home / "given.yaml",
        tmp_path / "other",
        "teacher.allow_chance_score=true",
        "finetune.seeds=[3, 4]",
        progress=Progress(),
    )
    given_teacher.keep_given_teacher(run, task)
    assert "no better than the majority class" in capsys.readouterr().err
    # It is the teacher of all seeds.
    (planned,) = plan_row(run, "mine", "teacher")
    assert planned.is_finished and planned.folder.name == "seed_3"


def test_a_plan_and_a_dry_run_need_no_other_teacher(home):
    recipe = config.load_recipe(home / "given.yaml", [])
    summary = estimate.summarise(recipe)
    assert summary["teacher"]["num_layers"] == 2
    assert summary["student"]["num_layers"] == 1
    assert len(preflight.open_inputs(recipe)) == 1


def test_a_source_that_is_missing_is_one_line(tmp_path):
    path = write_recipe(tmp_path / "bad.yaml", {"task_source": "no/model"})
    with pytest.raises(
        FileNotFoundError, match="`teacher.task_source` is no/model, but there"
    ):
        given_files.check_given_files(config.load_recipe(path, []))


def load_given(home, task, folder, model, *, source=None):
    """Loads a model, saved as a file, as the teacher of a task."""
    file = folder / "other.keras"
    model.save(file)
    teacher = {"task_source": str(file), "source": source}
    recipe = config.load_recipe(write_recipe(folder / "bad.yaml", teacher), [])
    return given_teacher.load_given_teacher(recipe, task)


def test_teachers_of_other_tasks_are_refused(home, task, tmp_path):
    tokens = str(home / "teacher")
    encoder = models.load_task_model(tokens)
    other = models.task_model(encoder, "classification", 2, labels=["a", "bad"])
    with pytest.raises(ValueError, match="no output is for 'good', 'so so'; n"):
        load_given(home, task, tmp_path, other, source=tokens)
    with pytest.raises(
        ValueError,
        match=r"The teacher '.*other.keras' brings no vocabulary .* or name "
        "one as `teacher.source`, whose tokenizer it shares",
    ):
        load_given(home, task, tmp_path, other)
    other = models.task_model(encoder, "classification", 2)
    with pytest.raises(
        ValueError, match="output for each of the 3 labels of mine, .* with 2 o"
    ):
        load_given(home, task, tmp_path, other, source=tokens)
    other = models.task_model(encoder, "regression")
    with pytest.raises(
        ValueError,
        match="must be a model for a classification, as mine is. Received: .*"
        "other.keras, a model for a regression",
    ):
        load_given(home, task, tmp_path, other, source=tokens)


def test_a_teacher_with_another_tokenizer_is_refused(home, task, tmp_path):
    own = shutil.copytree(home / "teacher", tmp_path / "own")
    (own / "tokenizer.json").unlink()
    words = (own / "vocab.txt").read_text().split("\n")
    words[5:7] = reversed(words[5:7])
    (own / "vocab.txt").write_text("\n".join(words))
    teacher = {"task_source": str(own), "source": str(home / "teacher")}
    path = write_recipe(tmp_path / "bad.yaml", teacher)
    with pytest.raises(
        ValueError,
        match="that of `teacher.task_source`. Received: .* whose tokens differ",
    ):
        given_teacher.load_given_teacher(config.load_recipe(path, []), task)


@pytest.mark.slow
def test_the_run_s_own_teacher_given_back_teaches_the_same(
    home, shared_toy_recipe, tmp_path
):
    """Of a run and of one that is given its teacher, the students are equal."""
    tokens = str(shared_toy_recipe.with_name("teacher"))
    write_rows(tmp_path)
    first = write_recipe(tmp_path / "first.yaml", {"source": tokens})
    stages.run_recipe(open_run(first, tmp_path / "one"))
    own = tmp_path / "one" / "tasks" / "mine" / "teacher" / "seed_0"
    teacher = {
        "source": tokens,
        "task_source": str(own / "model.keras"),
        "allow_chance_score": True,
    }
    second = write_recipe(tmp_path / "second.yaml", teacher)
    report = stages.run_recipe(open_run(second, tmp_path / "two"))
    assert not (tmp_path / "two" / "logs" / "mine" / "teacher").exists()
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name / "tasks" / "mine"
        model = models.load_task_model(folder / "student/seed_0/model.keras")
        found.append(
            (
                [np.array(x) for x in model.weights],
                load_file(folder / "teacher/seed_0/predictions.safetensors"),
                json.loads((folder / "student/seed_0/result.json").read_text())[
                    "metrics"
                ],
            )
        )
    one, two = found
    for a, b in zip(one[0], two[0], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one[1]["dev"], two[1]["dev"])
    assert one[2] == two[2]
    assert [row["name"] for row in report["tasks"]["rows"]][0] == "teacher"
