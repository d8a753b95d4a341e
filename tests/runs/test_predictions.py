"""A teacher that is known by its predictions: written, read, learned from."""

import json
import math
import random

import numpy as np
import pytest
import yaml
from commands import keras_distil
from toy import randomize

from keras_distil import config, data, export, losses, models
from keras_distil.runs import given_predictions, run_folder, stages
from keras_distil.runs.details import making
from keras_distil.runs.details import schema as details
from keras_distil.runs.more_text import add_unlabelled
from keras_distil.runs.predict import predict_file
from keras_distil.runs.task_results import plan_row
from keras_distil.runs.tasks import load_task
from keras_distil.training.objectives import make_objective
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")

QUIET = Progress(quiet=True)


def texts(count=40, least=2, most=6, seed=0):
    generator = random.Random(seed)
    found = {}
    while len(found) < count:
        size = generator.randint(least, most)
        found[" ".join(generator.choices("abcdefgh", k=size))] = None
    return list(found)


def write_lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


def write_texts(path, label, **sizes):
    write_lines(
        path,
        [
            {"id": i, "body": text, "label": label(text)}
            for i, text in enumerate(texts(**sizes))
        ],
    )


def write_words(path):
    lines = []
    for text in texts(most=14):
        lines += [
            f"{word} {'B-X' if word in 'ab' else 'O'}" for word in text.split()
        ]
        lines.append("")
    path.write_text("\n".join(lines))


def write_spans(path):
    rows = []
    for i, context in enumerate(texts(20, least=5, most=9)):
        answer = {"text": context[2], "answer_start": 2}
        rows.append(
            {
                "id": f"q{i}",
                "question": context[2],
                "context": context,
                "answers": [answer],
            }
        )
    write_lines(path, rows)


BODY = {"columns": {"text": "body"}}
# Of each kind its file, how that is written, and settings of the task.
KINDS = {
    "classification": (
        "rows.jsonl",
        lambda path: write_texts(path, lambda x: "ab"["a" in x], most=9),
        {**BODY, "stride": 2},
    ),
    "multi_label": (
        "rows.jsonl",
        lambda path: write_texts(path, lambda x: [y for y in "abc" if y in x]),
        BODY,
    ),
    "regression": (
        "rows.jsonl",
        lambda path: write_texts(path, lambda x: x.count("a") / 2),
        BODY,
    ),
    "token_classification": ("rows.conll", write_words, {"stride": 2}),
    "span": ("rows.jsonl", write_spans, {"stride": 2}),
}


class Case:
    """A task, its live teacher and a recipe with predictions of it."""

    def __init__(self, kind, folder, tokens, **finetune):
        name, write, settings = KINDS[kind]
        write(folder / name)
        self.kind, self.folder, self.file = kind, folder, folder / name
        self.output = folder / "predictions.jsonl"
        entry = {"name": "mine", "kind": kind, "train": name, **settings}
        self.values = {
            "name": "predicted",
            "teacher": {
                "source": str(tokens),
                "predictions": str(self.output),
                "allow_chance_score": True,
            },
            "student": {"num_layers": 1},
            "data": {"root": str(folder)},
            "finetune": {
                "tasks": [{**entry, "dev_fraction": 0.2}],
                "max_length": 8,
                "max_question": 2,
                "epochs": 1,
                "batch_size": 16,
                "jit_compile": False,
                **finetune,
            },
            "evaluate": {"latency_length": 8},
        }
        self.path = folder / "recipe.yaml"
        self.path.write_text(yaml.safe_dump(self.values))
        self.recipe = config.load_recipe(self.path, [])
        self.task = load_task(self.recipe, "mine")
        self.untuned = models.load_teacher(str(tokens))
        self.teacher = randomize(
            models.task_model(
                self.untuned, kind, self.task.outputs, labels=self.task.labels
            ),
            seed=1,
        )
        self.model = folder / "teacher.keras"
        self.teacher.save(self.model)

    def predict(self, **options):
        return predict_file(
            str(self.model),
            self.file,
            self.output,
            recipe=self.recipe,
            progress=QUIET,
            **options,
        )

    def keep(self, name="run"):
        """Keeps the predictions in a run's folder; returns the run."""
        run = run_folder.open_run(self.recipe, self.folder / name, QUIET)
        given_predictions.keep_given_predictions(
            run,
            self.task,
            vocabulary_size=self.untuned.backbone.vocabulary_size,
        )
        return run


def gradients(teacher, student, kind, batches):
    own = losses.task_loss(kind, cosine_weight=0.0)[:2]
    objective = make_objective(teacher, student, own)
    batch = objective.batch(next(iter(batches)))
    sums, found = objective.compute_gradients(
        batch, objective.denominators(batch), training=True
    )
    return (
        {name: float(value) for name, value in sums.items()},
        [np.array(each) for each in found],
    )


@pytest.fixture(scope="module")
def case(shared_toy_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicted")
    made = Case(
        "classification", folder, shared_toy_recipe.with_name("teacher")
    )
    made.predict()
    export.export_hugging_face(
        made.teacher,
        folder / "folder",
        data.load_tokenizer(made.values["teacher"]["source"]),
        overwrite=True,
    )
    return made


def check_gradients(case):
    """Compares with the live teacher, whose predictions are written."""
    run = case.keep()
    predicted = given_predictions.open_predictions(run, "mine")
    student = models.task_model(
        case.untuned, case.kind, case.task.outputs, dropout=0.0
    )
    # Far from the teacher, so that gradients are large.
    randomize(student, seed=2)
    options = {"batch_size": 12, "seed": 3}
    examples = case.task.train
    sums, wanted = gradients(
        case.teacher,
        student,
        case.kind,
        data.task_dataset(examples, **options),
    )
    own_sums, found = gradients(
        predicted, student, case.kind, predicted.dataset(examples, **options)
    )
    assert sums["soft_target_sum"] > 1e-3
    for name, value in sums.items():
        assert own_sums[name] == pytest.approx(value, rel=1e-6), name
    # Of variables whose gradients cancel, only rounding is left.
    most = max(np.abs(each).max() for each in wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=2e-6 * most)
    # They score as the teacher itself.
    (planned,) = plan_row(run, "mine", "teacher")
    result = json.loads((planned.folder / "result.json").read_text())
    score = case.task.evaluator.score(case.teacher)
    assert result["dev_scores"] == [pytest.approx(score, abs=1e-6)]


def test_a_batch_has_the_gradients_of_the_live_teacher(case):
    assert len(case.output.read_text().splitlines()) == 40
    # Some texts are read in two windows.
    assert len(case.task.train) > len(case.task.keys["train"])
    check_gradients(case)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [x for x in KINDS if x != "classification"])
def test_other_kinds_have_the_gradients_of_the_live_teacher(
    kind, shared_toy_recipe, tmp_path
):
    case = Case(kind, tmp_path, shared_toy_recipe.with_name("teacher"))
    assert case.predict() == (20 if kind == "span" else 40)
    check_gradients(case)


def test_the_command_finds_the_run_of_a_model(case, capsys, tmp_path):
    """Of a run's own file, tokenizer, columns and lengths are known."""
    run = tmp_path / "run"
    model = run / "tasks" / "mine" / "teacher" / "seed_0" / "model.keras"
    model.parent.mkdir(parents=True)
    model.write_bytes(case.model.read_bytes())
    (run / "recipe.yaml").write_bytes(case.path.read_bytes())
    output = tmp_path / "found.jsonl"
    words = ["predict", str(model), str(case.file), "--output", str(output)]
    status, out, err = keras_distil(capsys, *words)
    assert status == 0, err
    assert out == f"Predictions: {output} (40 rows)\n"
    assert output.read_bytes() == case.output.read_bytes()
    status, _, err = keras_distil(capsys, *words)
    assert (status, err.count("\n")) == (1, 1) and "is there already" in err
    # Without the run, the message says what helps.
    words = ["predict", str(case.model), str(case.file), "--output", "x"]
    status, _, err = keras_distil(capsys, *words)
    assert status == 1 and "has no tokenizer beside it: add --recipe" in err
    output.unlink()
    words[-1] = str(output)
    status, _, err = keras_distil(capsys, *words, "--recipe", str(run))
    assert status == 0, err
    assert output.read_bytes() == case.output.read_bytes()


def test_options_are_checked(case, tmp_path, capsys):
    """Lines that say what an option takes; with it, the command goes on."""
    words = ["predict", str(case.model), str(case.file)]
    words += ["--output", str(tmp_path / "x"), "--recipe", str(case.path)]
    for option, value, said in (
        ("--task", "other", "--task` must name one of the recipe's tasks with"),
        ("--column", "texts=body", "must be KEY=NAME with a key of a classif"),
        ("--max-length", "13", "`--max-length` must be at most 12, the posi"),
    ):
        status, _, err = keras_distil(capsys, *words, option, value)
        assert status == 1 and said in err and err.count("\n") == 1


def test_longer_texts_are_counted_and_read_whole(case, tmp_path, capsys):
    table = tmp_path / "rows.csv"
    table.write_text('text\na b c d e f g h a b c\n" "\na b\n')
    common = {"columns": ["text=text"], "progress": Progress()}
    count = predict_file(
        str(case.model.with_name("folder")),
        table,
        tmp_path / "cut.jsonl",
        max_length=8,
        **common,
    )
    assert count == 2
    said = capsys.readouterr().err
    assert "1 of the 2 texts are longer than 8 tokens and lose their" in said
    assert "1 rows of rows.csv have no text." in said
    predict_file(
        str(case.model.with_name("folder")),
        table,
        tmp_path / "more.jsonl",
        max_length=12,
        **common,
    )
    one, other = (
        [json.loads(x) for x in (tmp_path / name).read_text().splitlines()]
        for name in ("cut.jsonl", "more.jsonl")
    )
    assert one[0] != other[0] and one[1] == other[1]


LOGITS = {"a": 1.0, "b": -1.0}
# What is written for the first row, in place of its own; and the message.
BAD = {
    "another id": (
        {"id": "x", "logits": LOGITS},
        r"1 of the 40 predictions in .*bad.jsonl are for rows that "
        r"mine does not have, first id 'x' \(.*line 1\)",
    ),
    "another text": (
        {"id": 0, "hash": "0" * 16, "logits": LOGITS},
        "line 1: the text of id '0' must be that of the task's row",
    ),
    "a duplicate": (
        {"id": 1, "logits": LOGITS},
        "line 2: a row must have one prediction. Received: another one for id "
        "'1'",
    ),
    "no name": (
        {"logits": LOGITS},
        "line 1: a prediction must name its row by `id`, or by `hash`, 16",
    ),
    "a missing one": (None, "The predictions lack 1 of the 3[0-9] rows of the"),
    "another sum": (
        {"id": 0, "probabilities": {"a": 0.5, "b": 0.2}},
        "line 1: probabilities must sum to 1, within 0.001. Received: 0.7. Wr",
    ),
    "a negative one": (
        {"id": 0, "probabilities": {"a": 1.5, "b": -0.5}},
        "line 1: probabilities must not be negative, nor above 1. Received: -0",
    ),
    "no score": (
        {"id": 0, "scores": {"a": 0}},
        "line 1: a label must have a score above 0. Received: none",
    ),
    "an unknown label": (
        {"id": 0, "scores": {"bb": 1}},
        r"line 1: a label must be one of \['a', 'b'\]. Received: 'bb'; the n",
    ),
    "too few logits": (
        {"id": 0, "logits": {"a": 1}},
        r"`logits` must have a number for each label. Received: none for \['b'",
    ),
    "no number": (
        {"id": 0, "logits": {"a": 1, "b": math.nan}},
        "the value of 'b' must be a finite number. Received: nan",
    ),
    "two forms": (
        {"id": 0, "logits": LOGITS, "scores": LOGITS},
        "the predictions for a classification must be one of logits, probab",
    ),
    "a list of numbers": (
        {"id": 0, "logits": 1.0},
        r"`logits` must be an object of labels and numbers, such as {'a': 1.0}",
    ),
    "other windows": (
        {"id": 0, "logits": [LOGITS] * 5},
        "is read in [12] windows, and must have as many predictions, or one",
    ),
    "no object": ([1], r"line 1: must be a JSON object. Received: '\[1\]'"),
    "an id of another type": (
        {"id": [1], "logits": LOGITS},
        r"line 1: `id` must be a text or a whole number. Received: \[1\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_predictions_are_one_line(name, case, tmp_path):
    change, said = BAD[name]
    lines = case.output.read_text().splitlines()
    trained = case.task.keys["train"]
    # The first row of the file is one of the training rows.
    rows = [json.loads(line) for line in lines]
    first = next(
        i
        for i, row in enumerate(rows)
        if int(row["hash"], 16) in trained.hashes
    )
    lines = [lines[first], *lines[:first], *lines[first + 1 :]]
    if isinstance(change, dict) and change.get("id") == 0:
        change = {**change, "id": rows[first]["id"]}
        said = said.replace("id '0'", f"id '{change['id']}'")
    if isinstance(change, dict) and change.get("id") == 1:
        change = {**change, "id": json.loads(lines[1])["id"]}
        said = said.replace("id '1'", f"id '{change['id']}'").replace(
            "'1'", f"'{change['id']}'"
        )
    lines[0] = "" if change is None else json.dumps(change)
    file = tmp_path / "bad.jsonl"
    file.write_text("\n".join(lines) + "\n")
    recipe = config.load_recipe(case.path, [f"teacher.predictions={file}"])
    run = run_folder.open_run(recipe, tmp_path / "run", QUIET)
    with pytest.raises(ValueError, match=said) as raised:
        given_predictions.keep_given_predictions(
            run, case.task, vocabulary_size=64
        )
    assert "\n" not in str(raised.value)


def test_probabilities_and_scores_are_logits(case):
    from keras_distil.teachers.predictions.values import ValueReader

    reader = ValueReader("classification", ["no", "Yes"])
    (half,) = reader.read({"probabilities": {"yes": 0.25, "no": 0.75}}, "here")
    np.testing.assert_allclose(half, np.log([0.75, 0.25]), rtol=1e-6)
    # An opinion alone, and votes.
    (sure,) = reader.read({"probabilities": {"LABEL_1": 1}}, "here")
    assert np.isfinite(sure).all() and sure[1] == 0 and sure[0] < -60
    (votes,) = reader.read({"scores": {"no": 3, "yes": 1}}, "here")
    np.testing.assert_allclose(votes, half, rtol=1e-6)
    several = ValueReader("multi_label", ["x", "y"])
    (odds,) = several.read({"probabilities": {"x": 0.2, "y": 1.0}}, "here")
    np.testing.assert_allclose(odds[0], np.log(0.25), rtol=1e-6)
    assert 60 < odds[1] < 80
    number = ValueReader("regression", None)
    assert number.read({"scores": 2.5}, "here")[0].tolist() == [2.5]
    assert number.read({"scores": {"score": -1}}, "here")[0].tolist() == [-1.0]
    spans = ValueReader("span", None)
    (span,) = spans.read(
        {"probabilities": {"start": [0.5, 0.5], "end": [1.0, 0.0]}}, "here"
    )
    np.testing.assert_allclose(span[:, 0], np.log([0.5, 0.5]), rtol=1e-6)
    with pytest.raises(
        ValueError, match="`start` and `end` must be lists of eq"
    ):
        spans.read({"logits": {"start": [1.0, 2.0], "end": [1.0]}}, "here")


def test_losses_on_states_are_refused(case):
    for loss, what in (
        ("cosine", "states"),
        ("attention_relation", "attention"),
    ):
        with pytest.raises(
            config.RecipeError,
            match=f"the loss {loss} reads {what} of the teacher, which `te",
        ):
            config.load_recipe(
                case.path, [f"finetune.losses={{label: {{}}, {loss}: {{}}}}"]
            )
    assert list(case.recipe.finetune.losses.by_name) == ["label", "soft_target"]
    run = case.keep()
    predicted = given_predictions.open_predictions(run, "mine")
    with pytest.raises(
        ValueError, match="'cosine' reads hidden states, and the"
    ):
        make_objective(
            predicted,
            models.task_model(case.untuned, "classification", 2),
            losses.task_loss("classification"),
        )


def test_rows_without_ids_and_unlabelled_text(case, tmp_path):
    """They are known by the hash of their text."""
    text = case.folder / "more.txt"
    text.write_text("c d e\n\na g h\n")
    more, without = tmp_path / "more.jsonl", tmp_path / "without.jsonl"
    count = predict_file(
        str(case.model), text, more, recipe=case.recipe, progress=QUIET
    )
    assert count == 2
    lines = [json.loads(x) for x in more.read_text().splitlines()]
    assert [line["row"] for line in lines] == [1, 3]
    lines = [json.loads(x) for x in case.output.read_text().splitlines()]
    write_lines(
        without,
        [{k: v for k, v in line.items() if k != "id"} for line in lines],
    )
    recipe = config.load_recipe(
        case.path,
        [
            f"teacher.predictions=[{without}, {more}]",
            "finetune.by_task={mine: {unlabelled: more.txt}}",
        ],
    )
    run = run_folder.open_run(recipe, tmp_path / "run", QUIET)
    task = add_unlabelled(run, case.task)
    given_predictions.keep_given_predictions(run, task, vocabulary_size=64)
    predicted = given_predictions.open_predictions(run, "mine")
    assert [part.rows for part in predicted._parts] == [len(task.train), 2]
    sets = given_predictions.student_sets(task)
    x, _, _ = next(iter(predicted.dataset(sets, batch_size=32, seed=0)))
    outputs = predicted.take_outputs(x)[1].outputs
    inputs = predicted.without_outputs(x)
    inputs.pop("label_weight")
    live = case.teacher(inputs, training=False)
    np.testing.assert_allclose(outputs, live, rtol=1e-5, atol=1e-6)


def predicted_case(kind, tokens, folder):
    case = Case(kind, folder, tokens.with_name("teacher"))
    case.predict()
    return case


def test_the_words_of_predictions_are_those_of_the_teacher(
    shared_toy_recipe, tmp_path
):
    case = predicted_case("token_classification", shared_toy_recipe, tmp_path)
    (planned,) = plan_row(case.keep(), "mine", "teacher")
    tags, sure = making._answers_of(case.task, planned)
    expected, wanted = case.task.evaluator.answers(case.teacher)
    assert tags == expected and np.ptp(wanted) > 0.01
    np.testing.assert_allclose(sure, wanted, atol=1e-6)


def test_the_spans_of_predictions_are_those_of_the_teacher(
    shared_toy_recipe, tmp_path
):
    case = predicted_case("span", shared_toy_recipe, tmp_path)
    (planned,) = plan_row(case.keep(), "mine", "teacher")
    found = making._answers_of(case.task, planned)
    answers = case.task.evaluator.splits["dev"].answers(case.teacher)
    assert found == [answer.text for answer in answers]
    assert len(set(found)) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "unit"), [("token_classification", "words"), ("span", "questions")]
)
def test_disagreements_with_predictions_of_words_and_spans(
    kind, unit, shared_toy_recipe, tmp_path
):
    case = predicted_case(kind, shared_toy_recipe, tmp_path)
    run = run_folder.open_run(case.recipe, tmp_path / "run", QUIET)
    stages.run_recipe(run)
    found = details.read(run.folder / "tasks" / "mine" / "details.json")
    assert found.disagreements.unit == unit
    assert found.disagreements.decisions > 0
    assert found.disagreements.count == len(found.disagreements.shown) or (
        len(found.disagreements.shown) == 20
    )
    if kind == "token_classification":
        assert list(found.classes)[:2] == ["teacher", "student"]


@pytest.mark.slow
def test_a_run_with_predictions_alone(case, tmp_path):
    recipe = config.load_recipe(case.path, [])
    run = run_folder.open_run(recipe, tmp_path / "run", QUIET)
    report = stages.run_recipe(run)
    rows = {row["name"]: row for row in report["tasks"]["rows"]}
    assert list(rows) == ["teacher", "student", "baseline", "ngrams"]
    assert rows["teacher"]["parameters"] is None
    assert rows["student"]["parameters"] > 0 and not report["tasks"]["cut"]
    # The teacher's answers are known without a model.
    found = details.read(run.folder / "tasks" / "mine" / "details.json")
    assert list(found.classes) == ["teacher", "student", "baseline", "ngrams"]
    assert list(found.confusions.counts) == ["teacher", "student"]
    assert list(found.calibration.rows)[:2] == ["teacher", "student"]
    assert found.disagreements is not None
    # Without those of the development rows, the teacher has no row.
    dev = case.task.keys["dev"].hashes
    kept = [
        line
        for line in case.output.read_text().splitlines()
        if int(json.loads(line)["hash"], 16) not in dev
    ]
    some = tmp_path / "some.jsonl"
    some.write_text("\n".join(kept) + "\n")
    recipe = config.load_recipe(case.path, [f"teacher.predictions={some}"])
    run = run_folder.open_run(recipe, tmp_path / "other", QUIET)
    report = stages.run_recipe(run)
    names = [row["name"] for row in report["tasks"]["rows"]]
    assert names == ["student", "baseline", "ngrams"]
    found = details.read(run.folder / "tasks" / "mine" / "details.json")
    assert list(found.calibration.errors) == ["student"]
    assert found.disagreements is None and "teacher" not in found.classes
