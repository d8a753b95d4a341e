"""What a run tells of its tasks' answers, and the temperature in exports."""

import json
import random
import re

import numpy as np
import pytest
import yaml
from scipy import special
from sklearn import metrics
from toy import randomize

from keras_distil import config, models
from keras_distil.evaluation.outputs import output_function
from keras_distil.runs import exports, run_folder
from keras_distil.runs.details import disagreements, schema
from keras_distil.runs.details.calibrating import calibrate
from keras_distil.runs.details.making import describe_tasks
from keras_distil.runs.task_results import plan_training, write_result
from keras_distil.runs.tasks import load_tasks
from keras_distil.utils.progress import Progress

LETTERS = "abcdefgh"


def different(count, least=2, most=8):
    generator = random.Random(0)
    texts = {}
    while len(texts) < count:
        length = generator.randint(least, most)
        texts[" ".join(generator.choices(LETTERS, k=length))] = None
    return list(texts)


def write_rows(folder, kind):
    """The same 60 texts to train and to score on, in two files."""
    rows = different(68)
    for name, own in (("train", rows[60:]), ("dev", rows[:60])):
        lines = []
        for text in own:
            row = {"text": text}
            if kind == "classification":
                row["label"] = "ab"[text.count("a") > 0]
            elif kind == "multi_label":
                row["label"] = [x for x in "abc" if x in text]
            elif kind == "regression":
                row["label"] = text.count("a") / 2
            elif kind == "token_classification":
                row = {"tokens": text.split()}
                tags = ["B-X" if x in "ab" else "O" for x in row["tokens"]]
                row["tags"] = tags
            else:
                place = text.split()[0]
                row = {"question": place, "context": text}
                row["answers"] = [{"text": place, "answer_start": 0}]
            lines.append(json.dumps(row))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def open_run(folder, teacher, kind, **settings):
    """A run of a task whose models are still to be made."""
    write_rows(folder, kind)
    entry = {
        "name": "mine",
        "kind": kind,
        "train": "train.jsonl",
        "dev": "dev.jsonl",
        **settings,
    }
    recipe = {
        "name": "own",
        "teacher": {"source": str(teacher)},
        "student": {"num_layers": 1},
        "data": {"root": str(folder)},
        "finetune": {
            "tasks": [entry],
            "rows": ["teacher", "student"],
            "max_length": 12,
            "max_question": 4,
            "stride": 2,
        },
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return run_folder.open_run(
        config.load_recipe(path), folder / "run", Progress(quiet=True)
    )


def answer_differently(model, task):
    """Changes the head, so that answers differ and are mostly right."""
    kernel, bias = model.output_dense.weights
    kernel.assign(10.0 * kernel)
    if task.kind not in ("classification", "multi_label"):
        return
    bias.assign(bias - task.evaluator.outputs(model)["dev"].mean(axis=0))
    if task.kind == "classification":
        said = task.evaluator.outputs(model)["dev"].argmax(axis=1)
        if (said == task.evaluator.classes["dev"]).mean() < 0.5:
            kernel.assign(-kernel)
            bias.assign(-bias)


def finish(run, task):
    """Puts models with random heads where trained ones would be."""
    made = {}
    for number, row in enumerate(("teacher", "student")):
        model = models.task_model(
            models.load_teacher(run.recipe.teacher.source),
            task.kind,
            task.outputs,
            labels=task.labels,
        )
        # Other seeds would do, as long as answers differ from text to text.
        answer_differently(randomize(model, seed=number), task)
        planned = plan_training(run, task.name, row, 0)
        planned.folder.mkdir(parents=True)
        model.save(planned.folder / "model.keras")
        predictions = task.evaluator.predictions(model)
        scores = task.evaluator.metrics(predictions)
        result = {"metrics": scores, "dev_scores": [0.5]}
        write_result(run, planned, predictions, result)
        made[row] = model
    return made


def described(folder, teacher, kind, **settings):
    run = open_run(folder, teacher, kind, **settings)
    tasks = load_tasks(run)
    made = finish(run, tasks["mine"])
    found = describe_tasks(run, tasks)["mine"]
    path = run.folder / "tasks" / "mine" / "details.json"
    assert schema.read(path) == found
    return run, tasks["mine"], made, found


def logits_of(task, model):
    """The outputs for each text, by itself."""
    examples, run = (
        task.evaluator.splits["dev"].examples,
        output_function(model),
    )
    found = []
    for ids in np.split(examples.token_ids, examples.starts[1:-1]):
        ones = np.ones_like(ids)[None]
        inputs = {"token_ids": ids[None], "padding_mask": ones}
        found.append(run({**inputs, "segment_ids": 0 * ones})[0])
    return np.stack(found).astype(np.float64)


def dev_rows(folder):
    lines = (folder / "dev.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def classes(shared_toy_recipe, tmp_path_factory):
    """A finished task of two classes."""
    folder = tmp_path_factory.mktemp("classes")
    teacher = shared_toy_recipe.with_name("teacher")
    return folder, *described(folder, teacher, "classification")


def test_classes_and_confusions(classes):
    folder, _, task, made, found = classes
    labels = ["ab".index(row["label"]) for row in dev_rows(folder)]
    for row, model in made.items():
        said = logits_of(task, model).argmax(axis=1)
        wanted = metrics.precision_recall_fscore_support(labels, said)
        np.testing.assert_allclose(
            [
                (x.precision, x.recall, x.f1, x.support)
                for x in found.classes[row]
            ],
            np.transpose(wanted),
            atol=1e-9,
        )
        counts = found.confusions.counts[row]
        assert counts == metrics.confusion_matrix(labels, said).tolist()
    assert found.confusions.names == ["a", "b"]


def test_disagreements_are_the_most_confident_ones(classes):
    folder, _, task, made, found = classes
    teacher, student = (
        special.softmax(logits_of(task, made[row]), axis=1)
        for row in ("teacher", "student")
    )
    differ = np.flatnonzero(teacher.argmax(axis=1) != student.argmax(axis=1))
    assert found.disagreements.count == len(differ) > 1
    assert found.disagreements.decisions == 60
    sure = (teacher.max(axis=1) + student.max(axis=1))[differ]
    first = int(differ[sure.argmax()])
    row, shown = dev_rows(folder)[first], found.disagreements.shown[0]
    assert (shown.text, shown.truth) == (row["text"], row["label"])
    assert shown.teacher.answer == "ab"[teacher[first].argmax()]
    assert shown.student.answer == "ab"[student[first].argmax()]
    # Kept with four digits; float32 outputs.
    assert shown.student.confidence == pytest.approx(
        student[first].max(), abs=1e-4
    )
    order = [
        x.teacher.confidence + x.student.confidence
        for x in found.disagreements.shown
    ]
    assert order == pytest.approx(sorted(order, reverse=True), abs=2e-4)


def test_scores_by_length(classes):
    folder, _, task, made, found = classes
    rows = dev_rows(folder)
    lengths = np.array([len(row["text"].split()) + 2 for row in rows])
    right = logits_of(task, made["student"]).argmax(axis=1) == [
        "ab".index(row["label"]) for row in rows
    ]
    assert sum(x.examples for x in found.lengths) == 60
    assert len(found.lengths) == 4
    longest = 0
    for part in found.lengths:
        assert part.shortest > longest
        longest = part.longest
        inside = (lengths >= part.shortest) & (lengths <= longest)
        assert inside.sum() == part.examples
        assert part.scores["student"] == pytest.approx(right[inside].mean())
    assert found.lengths[0].longest == np.quantile(lengths, 0.25)


def test_calibration_and_temperature(classes):
    folder, run, task, made, found = classes
    labels = np.array(["ab".index(x["label"]) for x in dev_rows(folder)])
    logits = logits_of(task, made["student"])
    calibrated = found.calibration
    assert calibrated.fitted_on == calibrated.reported_on == 30
    assert calibrated.reason is None and calibrated.temperature > 1.0
    # The halves, with the same generator.
    fitted, other = np.split(np.random.default_rng(0).permutation(60), 2)
    losses = [
        metrics.log_loss(
            labels[fitted],
            special.softmax(
                logits[fitted] / (calibrated.temperature * factor), axis=1
            ),
        )
        for factor in (0.99, 1.0, 1.01)
    ]
    assert losses[1] == min(losses)
    for row, temperature in (
        ("student", 1.0),
        ("student, calibrated", calibrated.temperature),
    ):
        powers = special.softmax(logits[other] / temperature, axis=1)
        assert calibrated.rows[row].log_loss == pytest.approx(
            metrics.log_loss(labels[other], powers), rel=1e-5
        )
        assert sum(x.count for x in calibrated.rows[row].bins) == 30
    student = run.folder / "tasks/mine/student/seed_0/model.keras"
    assert schema.temperature_of(student) == calibrated.temperature
    teacher = run.folder / "tasks/mine/teacher/seed_0/model.keras"
    assert schema.temperature_of(teacher) == 1.0
    assert schema.temperature_of(student.with_name("other.keras")) == 1.0


def exported(classes, tmp_path, formats, *changes):
    _, run, task, made, found = classes
    recipe = config.load_recipe(run.folder / "recipe.yaml", list(changes))
    reports = exports.export_file(
        recipe,
        run.folder / "tasks/mine/student/seed_0/model.keras",
        tmp_path,
        formats,
        task="mine",
        scored=True,
        overwrite=False,
        progress=Progress(quiet=True),
    )
    return reports, found.calibration.temperature, task, made["student"]


def test_an_export_has_the_temperature_in_its_last_layer(classes, tmp_path):
    reports, temperature, task, student = exported(
        classes, tmp_path, ["hugging_face"]
    )
    shipped = models.load_task_model(tmp_path / "hugging_face")
    np.testing.assert_allclose(
        logits_of(task, shipped),
        logits_of(task, student) / temperature,
        rtol=1e-4,
        atol=1e-5,
    )
    # Compared with the student divided likewise.
    assert reports[0].comparison.max_difference < 1e-4
    assert reports[0].comparison.score == pytest.approx(
        task.evaluator.score(student)
    )


def test_without_details_nothing_is_divided(classes, tmp_path):
    _, run, *_ = classes
    folder = tmp_path / "tasks" / "mine" / "student" / "seed_0"
    folder.mkdir(parents=True)
    assert schema.temperature_of(folder / "model.keras") == 1.0
    details = tmp_path / "tasks" / "mine" / "details.json"
    details.write_text("{")
    with pytest.raises(
        ValueError, match="details.json is damaged, and the temp"
    ):
        schema.temperature_of(folder / "model.keras")
    found = json.loads((run.folder / "tasks/mine/details.json").read_text())
    details.write_text(json.dumps({**found, "seed": 1}))
    # Of another seed's student.
    assert schema.temperature_of(folder / "model.keras") == 1.0


def sure(right, count, logit=3.0):
    """A student that says the first class; so many are it."""
    logits = np.tile(np.array([[logit, 0.0]], np.float32), (count, 1))
    return {"student": logits}, (np.arange(count) % 10 >= right).astype(int)


@pytest.mark.parametrize(
    ("outputs", "labels", "reason"),
    [
        (*sure(8, 40), "has 40 texts, and a temperature needs 50 or more"),
        (*sure(10, 60), "from 0.05 to 20 is the best: .* always right"),
        (*sure(3, 60), "from 0.05 to 20 is the best: .* better than chance"),
    ],
)
def test_where_no_temperature_is_fitted(outputs, labels, reason):
    found = calibrate(outputs, labels)
    assert found.temperature == 1.0 and list(found.rows) == ["student"]
    assert re.search(reason, found.reason)


def test_numbers_are_so_far_apart_on_average():
    class Texts:
        def texts(self, number):
            return [str(number)]

    outputs = {
        "teacher": np.float32([[1.0], [2.0], [5.0]]),
        "student": np.float32([[1.5], [2.0], [1.0]]),
    }
    found = disagreements.of_numbers(Texts(), np.float32([1, 2, 3]), outputs)
    assert found.mean_difference == 1.5
    assert [x.text for x in found.shown] == ["2", "0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("multi_label", {}),
        ("regression", {"metric": "mean_absolute_error"}),
        ("token_classification", {}),
        ("token_classification", {"metric": "accuracy"}),
        ("span", {}),
    ],
)
def test_other_kinds(kind, settings, toy_teacher, tmp_path):
    run, task, made, found = described(tmp_path, toy_teacher, kind, **settings)
    rows = dev_rows(tmp_path)
    shown = found.disagreements.shown
    assert 0 < len(shown) <= 20 and found.disagreements.count >= len(shown)
    scores = [part.scores["student"] for part in found.lengths]
    assert all(np.isfinite(scores)) and len(scores) > 1
    if kind == "multi_label":
        assert [x.name for x in found.classes["student"]] == ["a", "b", "c"]
        assert found.confusions is None
        assert found.calibration.fitted_on == 30
        there = {row["text"]: row["label"] for row in rows}
        for each in shown:
            truth = "yes" if each.label in there[each.text] else "no"
            assert each.truth == truth
            assert each.teacher.answer != each.student.answer
            assert each.student.confidence >= 0.5
    elif kind == "regression":
        values = {row["text"]: row["label"] for row in rows}
        assert all(float(x.truth) == values[x.text] for x in shown)
        apart = [
            abs(float(x.teacher.answer) - float(x.student.answer))
            for x in shown
        ]
        mean, count = found.disagreements.mean_difference, len(values)
        assert sum(apart) / count <= 1.001 * mean <= 1.002 * max(apart)
        if found.disagreements.count == len(shown):
            assert mean == pytest.approx(sum(apart) / count, rel=1e-2)
        assert all(score <= 0 for score in scores)
        assert not found.classes and found.calibration is None
    elif kind == "token_classification":
        names = [x.name for x in found.classes["student"]]
        assert names == (["B-X", "O"] if settings else ["X"])
        assert (found.confusions is not None) == bool(settings)
        sentences = {" ".join(row["tokens"]) for row in rows}
        for each in shown:
            whole = f"{each.text} {each.word} {each.after}"
            assert " ".join(whole.split()) in sentences
            assert each.truth == ("B-X" if each.word in "ab" else "O")
    else:
        contexts = {row["question"] for row in rows}
        assert all(each.text in contexts for each in shown)


@pytest.mark.slow
def test_all_runtimes_have_the_same_probabilities(
    classes, tmp_path, monkeypatch
):
    from toy import convert_litert_here

    from keras_distil import edge

    convert_litert_here(monkeypatch)
    formats = ["saved_model", "preset", "litert_float32", "onnx"]
    reports, temperature, task, student = exported(
        classes, tmp_path, formats, "export.lengths=[12]"
    )
    assert [each.format for each in reports] == [
        *("saved_model", "preset", "litert", "onnx"),
    ]
    wanted = special.softmax(logits_of(task, student) / temperature, axis=1)
    texts = [row["text"] for row in dev_rows(classes[0])]
    phone = edge.Student(tmp_path / "litert_float32")
    for text, probabilities in list(zip(texts, wanted, strict=True))[:8]:
        found = {answer.text: answer.score for answer in phone(text)}
        assert found == pytest.approx(
            dict(zip("ab", probabilities, strict=True)), abs=1e-3
        )
