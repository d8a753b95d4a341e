"""Teachers that are fine-tuned already: `teacher.task_source`."""

import json
import random
import shutil

import kagglehub
import keras_hub
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from toy import randomize

from keras_distil import config, data, export, models
from keras_distil.evaluation.outputs import output_function
from keras_distil.models.labels import labels_of
from keras_distil.models.task_model import kind_of
from keras_distil.planning import estimate
from keras_distil.runs import (
    given_files,
    given_teacher,
    preflight,
    run_folder,
    stages,
)
from keras_distil.runs.corpus import load_tokenizer
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
    """Of a run and of one that is given its teacher, the students are equal.

    The teacher's file brings no tokenizer; its run knows which one it is.
    """
    tokens = str(shared_toy_recipe.with_name("teacher"))
    write_rows(tmp_path)
    first = write_recipe(tmp_path / "first.yaml", {"source": tokens})
    stages.run_recipe(open_run(first, tmp_path / "one"))
    own = tmp_path / "one" / "tasks" / "mine" / "teacher" / "seed_0"
    teacher = {
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


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]


def hub_preset(folder, outputs=3, labels=None):
    """Saves a classifier of KerasHub's own classes as KerasHub does."""
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=WORDS, lowercase=True)
    model = keras_hub.models.BertTextClassifier(
        keras_hub.models.BertBackbone(
            vocabulary_size=len(WORDS),
            num_layers=2,
            num_heads=2,
            hidden_dim=16,
            intermediate_dim=24,
            max_sequence_length=16,
            dropout=0.0,
        ),
        num_classes=outputs,
        preprocessor=keras_hub.models.BertTextClassifierPreprocessor(
            tokenizer, sequence_length=16
        ),
    )
    randomize(model, seed=1, scale=0.6).save_to_preset(str(folder))
    if labels is not None:
        (folder / "labels.json").write_text(json.dumps(labels))
    return model


def task_and_recipe(folder, **teacher):
    write_rows(folder)
    recipe = config.load_recipe(
        write_recipe(folder / "given.yaml", teacher), []
    )
    return load_task(recipe, "mine"), recipe


def test_a_preset_of_keras_hub_is_a_teacher(tmp_path):
    """Its outputs equal KerasHub's own, of the same texts, by name."""
    preset = tmp_path / "preset"
    theirs = hub_preset(preset, labels=["So-So", "BAD", "good"])
    task, recipe = task_and_recipe(tmp_path, task_source=str(preset))
    assert len(preflight.open_inputs(recipe)) == 1
    said = []
    teacher = given_teacher.load_given_teacher(recipe, task, say=said.append)
    assert labels_of(teacher) == LABELS and not said
    texts = [line.split(",")[0] for line in rows_of(tmp_path)[:8]]
    tokenizer = load_tokenizer(recipe)
    inputs = data.encode_texts(tokenizer, texts, 12)
    inputs["segment_ids"] = np.zeros_like(inputs["token_ids"])
    np.testing.assert_allclose(
        output_function(teacher)(inputs),
        theirs.predict(texts, verbose=0)[:, [1, 2, 0]],
        # It pads to another length, so sums are of another order.
        atol=1e-4,
    )


def rows_of(folder):
    return (folder / "rows.csv").read_text().splitlines()[1:]


def test_a_preset_without_names_says_its_order(tmp_path):
    preset = tmp_path / "preset"
    hub_preset(preset)
    task, recipe = task_and_recipe(tmp_path, task_source=str(preset))
    said = []
    given_teacher.load_given_teacher(recipe, task, say=said.append)
    assert said == [
        f"the outputs of {preset} have no names: they are taken in the order "
        "of the labels of mine, ['bad', 'good', 'so so']."
    ]
    other = tmp_path / "other"
    hub_preset(other, outputs=4)
    task, recipe = task_and_recipe(tmp_path, task_source=str(other))
    with pytest.raises(
        ValueError, match="for each of the 3 labels of mine, .* with 4 outputs"
    ):
        given_teacher.load_given_teacher(recipe, task)
    encoder = tmp_path / "encoder"
    models.load_task_model(preset).backbone.save_to_preset(str(encoder))
    task, recipe = task_and_recipe(
        tmp_path, task_source=str(encoder), source=str(preset)
    )
    with pytest.raises(ValueError, match="Received: an encoder without a head"):
        given_teacher.load_given_teacher(recipe, task)


def test_our_own_presets_are_teachers(home, shared_toy_recipe, tmp_path):
    tokens = str(shared_toy_recipe.with_name("teacher"))
    model = models.initialize_student(
        classifier(tokens, ["So-So", "BAD", "good"]), 2
    )
    preset = tmp_path / "preset"
    export.export_preset(model, preset, data.load_tokenizer(tokens))
    task, recipe = task_and_recipe(tmp_path, task_source=str(preset))
    said = []
    teacher = given_teacher.load_given_teacher(recipe, task, say=said.append)
    assert labels_of(teacher) == LABELS and not said
    inputs = next(task.evaluator.inputs())
    np.testing.assert_allclose(
        output_function(teacher)(inputs),
        output_function(model)(inputs)[:, [1, 2, 0]],
        atol=1e-4,
    )


def test_a_preset_does_not_say_whether_labels_exclude_each_other(tmp_path):
    preset = tmp_path / "preset"
    hub_preset(preset, labels=["a", "b", "c"])
    lines = [
        {"text": text, "label": [x for x in "abc" if x in text]}
        for text in (row.split(",")[0] for row in rows_for(tmp_path))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    entry = {"name": "mine", "kind": "multi_label", "train": "rows.jsonl"}
    path = write_recipe(
        tmp_path / "several.yaml",
        {"task_source": str(preset)},
        finetune={**FINETUNE, "tasks": [entry]},
    )
    recipe = config.load_recipe(path, [])
    said = []
    teacher = given_teacher.load_given_teacher(
        recipe, load_task(recipe, "mine"), say=said.append
    )
    assert kind_of(teacher) == "multi_label"
    assert said == [
        f"{preset} does not say whether its labels exclude each other: they "
        "are taken not to, as in mine."
    ]


def rows_for(folder):
    write_rows(folder)
    return rows_of(folder)


@pytest.mark.slow
@pytest.mark.essential
def test_a_run_with_a_preset_by_name(tmp_path, monkeypatch):
    """Scored, kept, cut and taught from, without a download."""
    preset = tmp_path / "preset"
    hub_preset(preset, labels=["So-So", "BAD", "good"])

    def download(handle, path):
        if not (preset / path).is_file():
            raise ValueError(f"{path} is not present in the model files")
        return str(preset / path)

    monkeypatch.setattr(kagglehub, "model_download", download)
    teacher = {
        "task_source": "bert_tiny_en_uncased_sst2",
        "allow_chance_score": True,
    }
    write_rows(tmp_path)
    path = write_recipe(tmp_path / "named.yaml", teacher)
    given_files.check_given_files(config.load_recipe(path, []))
    report = stages.run_recipe(open_run(path, tmp_path / "run"))
    rows = {row["name"]: row for row in report["tasks"]["rows"]}
    assert {"teacher", "student"} <= set(rows)
    kept = tmp_path / "run/tasks/mine/teacher/seed_0/model.keras"
    assert labels_of(models.load_task_model(kept)) == LABELS
