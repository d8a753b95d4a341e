"""Tasks from files: what is read, trained, scored and refused in a run."""

import gzip
import json
import random
import types

import marks
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from sklearn import metrics

from keras_distil import config, data, models
from keras_distil.evaluation.entities import count_entities
from keras_distil.evaluation.outputs import output_function
from keras_distil.evaluation.task_metrics import entity_f1
from keras_distil.models.task_model import kind_of
from keras_distil.runs import (
    exports,
    preflight,
    run_folder,
    stages,
    task_evaluation,
)
from keras_distil.runs.tasks import load_task
from keras_distil.search.trials import RecipeTrials
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")

LETTERS = "abcdefgh"


def words(generator, least=2, most=6):
    return " ".join(
        generator.choices(LETTERS, k=generator.randint(least, most))
    )


def different(generator, count, **sizes):
    texts = {}
    while len(texts) < count:
        texts[words(generator, **sizes)] = None
    return list(texts)


def write_lines(path, objects):
    path.write_text("\n".join(map(json.dumps, objects)) + "\n")


def write_classes(folder, count=60, most=6):
    """A text is good if it has an `a`."""
    texts = different(random.Random(0), count, most=most)
    lines = [
        f"{i},{text},{'good' if 'a' in text else 'bad'}"
        for i, text in enumerate(texts)
    ]
    (folder / "rows.csv").write_text("\n".join(["id,text,label", *lines, ""]))


def write_pairs(folder):
    generator = random.Random(1)
    lines = ["sentence1\tsentence2\tlabel"]
    lines += [
        f"{words(generator)}\t{words(generator)}\t{'yes' if i % 3 else 'no'}"
        for i in range(60)
    ]
    with gzip.open(folder / "rows.tsv.gz", "wt") as file:
        file.write("\n".join(lines))


def write_numbers(folder):
    texts = different(random.Random(2), 60)
    write_lines(
        folder / "rows.jsonl",
        [{"text": text, "score": text.count("a") / 2} for text in texts],
    )


def write_labels(folder):
    texts = different(random.Random(3), 60)
    write_lines(
        folder / "rows.jsonl",
        [
            {"text": text, "labels": [x for x in "abc" if x in text]}
            for text in texts
        ],
    )


def write_entities(folder, most=6):
    lines = []
    for text in different(random.Random(4), 60, most=most):
        before = "O"
        for word in text.split():
            tag = "O"
            if word in "ab":
                tag = "I-X" if before != "O" else "B-X"
            lines.append(f"{word} {tag}")
            before = tag
        lines.append("")
    (folder / "rows.conll").write_text("\n".join(lines))


def write_spans(folder):
    generator = random.Random(5)
    paragraphs = []
    for number, context in enumerate(different(generator, 40, least=5, most=9)):
        place = 2 * generator.randrange(len(context.split()))
        question = {
            "id": f"q{number}",
            "question": context[place],
            "answers": [{"text": context[place], "answer_start": place}],
        }
        paragraphs.append({"context": context, "qas": [question]})
    content = {"version": "1.1", "data": [{"paragraphs": paragraphs}]}
    (folder / "rows.json").write_text(json.dumps(content))


KINDS = {
    "classes": ("classification", "rows.csv", write_classes, {}),
    "losses": (
        "classification",
        "rows.csv",
        write_classes,
        {"metric": "log_loss", "class_weights": "balanced"},
    ),
    "pairs": ("classification", "rows.tsv.gz", write_pairs, {}),
    "numbers": (
        "regression",
        "rows.jsonl",
        write_numbers,
        {"metric": "mean_absolute_error"},
    ),
    "labels": ("multi_label", "rows.jsonl", write_labels, {}),
    "entities": ("token_classification", "rows.conll", write_entities, {}),
    "spans": ("span", "rows.json", write_spans, {"stride": 2}),
}


def entry_of(name, folder, **more):
    kind, train, write, settings = KINDS[name]
    write(folder)
    return {
        "name": "mine",
        "kind": kind,
        "train": train,
        "dev_fraction": 0.2,
        **settings,
        **more,
    }


def write_recipe(folder, teacher, entry, **settings):
    student = folder / "student.keras"
    models.initialize_student(models.load_teacher(teacher), 1).save(student)
    finetune = {
        "tasks": [entry],
        "rows": ["teacher", "student"],
        "max_length": 12,
        "max_question": 2,
        "epochs": 1,
        "batch_size": 8,
        "jit_compile": False,
        **settings,
    }
    path = folder / "own.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "own",
                "teacher": {"source": str(teacher)},
                "student": {"source": str(student)},
                "data": {"root": str(folder)},
                "finetune": finetune,
                "evaluate": {"latency_length": 8},
            }
        )
    )
    return path


def start(path, folder, progress=None):
    recipe = config.load_recipe(path, [])
    run = run_folder.open_run(recipe, folder, progress or Progress(quiet=True))
    return stages.run_recipe(run)


@pytest.mark.parametrize("name", marks.slow_except(KINDS, "classes"))
def test_a_run_of_every_kind(name, toy_teacher, tmp_path):
    entry = entry_of(name, tmp_path)
    path = write_recipe(tmp_path, toy_teacher, entry)
    report = start(path, tmp_path / "run")
    recipe = config.load_recipe(path, [])
    own = recipe.finetune.own_task("mine")
    task = load_task(recipe, "mine")
    # Scores of others on GLUE would say nothing here.
    assert report["tasks"]["published"] == []
    for row in report["tasks"]["rows"]:
        kept = tmp_path / "run" / "tasks" / "mine" / row["name"] / "seed_0"
        model = models.load_task_model(kept / "model.keras")
        assert kind_of(model) == entry["kind"]
        found = task.evaluator.predictions(model)
        written = load_file(kept / "predictions.safetensors")
        np.testing.assert_array_equal(written["dev"], found["dev"])
        result = json.loads((kept / "result.json").read_text())
        value = result["metrics"]["dev"][own.metric]
        score = task.evaluator.score(model)
        assert max(result["dev_scores"]) == pytest.approx(score, abs=1e-6)
        is_error = own.metric in ("log_loss", "mean_absolute_error")
        assert score == pytest.approx(-value if is_error else value, abs=1e-9)
        table = row["tasks"]["mine"]["score"]
        assert table == pytest.approx(100 * score, abs=1e-4)
    # The same command of the evaluation.
    best = tmp_path / "run" / "tasks" / "mine" / "student" / "seed_0"
    scores = task_evaluation.evaluate_file(
        recipe, "mine", best / "model.keras", None
    )
    assert scores["dev"][own.metric] == pytest.approx(value, abs=1e-6)
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert "Task mine: " in card and entry["train"] in card


def model_of(toy_teacher, kind, outputs, labels=None):
    model = models.task_model(
        models.load_teacher(toy_teacher), kind, outputs, labels=labels
    )
    kernel = model.output_dense.kernel
    noise = np.random.default_rng(0).normal(0.0, 2.0, kernel.shape)
    kernel.assign(noise.astype("float32"))
    return model


def load(tmp_path, toy_teacher, entry, **settings):
    path = write_recipe(tmp_path, toy_teacher, entry, **settings)
    return load_task(config.load_recipe(path, []), "mine")


def test_errors_are_positive_wherever_they_are_seen(toy_teacher, tmp_path):
    entry = entry_of("numbers", tmp_path)
    path = write_recipe(tmp_path, toy_teacher, entry)
    recipe = config.load_recipe(path, [])
    task = load_task(recipe, "mine")
    assert task.shown(-0.25) == "0.250"
    assert task.logged("score", -0.25) == {"error": 0.25}
    assert task.logged_name == "dev_error"
    # What the export gate compares, says and keeps.
    compared, _ = exports._task_examples(recipe, "mine")
    assert compared.is_error and compared.scored is None
    # What TensorBoard has of a trial of a search.
    trials = types.SimpleNamespace(
        recipe=types.SimpleNamespace(
            search=types.SimpleNamespace(objective="mine")
        ),
        _task=task,
    )
    logged = RecipeTrials._logged(trials, {"check_mlm_loss": 2.0, "mine": -0.5})
    assert logged == {"check_mlm_loss": 2.0, "mine_error": 0.5}
    # A score stays what it is.
    path = write_recipe(tmp_path, toy_teacher, {**entry, "metric": "pearson"})
    task = load_task(config.load_recipe(path, []), "mine")
    assert task.shown(0.25) == "25.0"
    assert task.logged("score", 0.25) == {"score": 0.25}
    assert task.logged_name == "dev_score"
    trials._task = task
    assert RecipeTrials._logged(trials, {"mine": 0.5}) == {"mine": 0.5}


def test_scores_are_those_of_single_texts(toy_teacher, tmp_path):
    """The model's classes are in another order than the task's."""
    entry = entry_of("classes", tmp_path, metric="macro_f1")
    task = load(tmp_path, toy_teacher, entry)
    assert task.labels == ("bad", "good") and task.outputs == 2
    model = model_of(toy_teacher, "classification", 2, ["Good", "BAD"])
    tokenizer = data.load_tokenizer(toy_teacher)
    texts, said = [], []
    examples = task.evaluator.splits["dev"].examples
    run = output_function(model)
    for begin, end in zip(
        examples.starts[:-1], examples.starts[1:], strict=True
    ):
        ids = examples.token_ids[begin:end]
        texts.append(tokenizer.decode(ids.tolist()))
        inputs = {
            "token_ids": ids[None],
            "padding_mask": np.ones_like(ids)[None],
            "segment_ids": np.zeros_like(ids)[None],
        }
        said.append(("good", "bad")[int(run(inputs)[0].argmax())])
    true = ["good" if "a" in text else "bad" for text in texts]
    wanted = metrics.f1_score(true, said, average="macro")
    assert task.evaluator.score(model) == pytest.approx(wanted, abs=1e-9)
    # A fifth of each class is held out, and nothing of it is trained on.
    rows = (tmp_path / "rows.csv").read_text().splitlines()[1:]
    for name in ("good", "bad"):
        count = sum(row.endswith(name) for row in rows)
        assert true.count(name) == round(0.2 * count)
    trained = {
        tokenizer.decode(x.tolist())
        for x in np.split(task.train.token_ids, task.train.starts[1:-1])
    }
    assert not trained & set(texts) and len(trained) + len(texts) == len(rows)


def test_windows_of_a_text_are_one_example(toy_teacher, tmp_path):
    entry = entry_of("classes", tmp_path, stride=2, class_weights={"good": 3})
    write_classes(tmp_path, most=12)
    task = load(tmp_path, toy_teacher, entry, max_length=8)
    train = task.train
    assert len(train) > len(set(train.owners))
    # A window has its share of the text's weight.
    weights = np.bincount(train.owners, train.weights)
    first = np.unique(train.owners, return_index=True)[1]
    np.testing.assert_allclose(
        weights, np.where(train.labels[first] == 1, 3.0, 1.0), rtol=1e-6
    )
    assert any("are read in windows" in line for line in task.remarks)
    model = model_of(toy_teacher, "classification", 2, ["bad", "good"])
    split = task.evaluator.splits["dev"]
    outputs = task.evaluator.outputs(model)["dev"]
    run = output_function(model)
    for text in range(len(split.labels)):
        own = np.flatnonzero(split.examples.owners == text)
        logits = []
        for window in own:
            begin, end = split.examples.starts[window : window + 2]
            ids = split.examples.token_ids[begin:end][None]
            ones = np.ones_like(ids)
            logits.append(
                run(
                    {
                        "token_ids": ids,
                        "padding_mask": ones,
                        "segment_ids": 0 * ones,
                    }
                )[0]
            )
        np.testing.assert_allclose(
            outputs[text], np.mean(logits, axis=0), rtol=1e-4, atol=1e-5
        )


def test_balanced_weights_are_those_of_scikit_learn(toy_teacher, tmp_path):
    from sklearn.utils.class_weight import compute_sample_weight

    task = load(tmp_path, toy_teacher, entry_of("losses", tmp_path))
    np.testing.assert_allclose(
        task.train.weights,
        compute_sample_weight("balanced", task.train.labels),
        rtol=1e-6,
    )


@pytest.mark.parametrize("stride", [None, 2])
def test_entities_are_found_word_by_word(toy_teacher, tmp_path, stride):
    entry = entry_of("entities", tmp_path, stride=stride)
    write_entities(tmp_path, most=14)
    task = load(tmp_path, toy_teacher, entry, max_length=8)
    assert task.labels == ("B-X", "I-X", "O")
    model = model_of(toy_teacher, "token_classification", 3, task.labels)
    evaluator = task.evaluator
    said = evaluator.tags(model)
    split = evaluator.splits["dev"]
    assert list(map(len, said)) == list(map(len, split.tags))
    run = output_function(model)
    tokenizer = data.load_tokenizer(toy_teacher)
    for tags, sentence in zip(said, split.tags, strict=True):
        assert len(tags) == len(sentence)
        if stride is None:
            assert set(tags[6:]) <= {"O"}
    # Every word is a piece here, so a short sentence is its own example.
    starts, examples = split.encoded.examples.starts, split.encoded.examples
    short = [
        i
        for i in range(len(said))
        if split.encoded.counts[i] <= 6 and (examples.owners == i).sum() == 1
    ]
    assert short
    for i in short:
        window = int(np.flatnonzero(examples.owners == i)[0])
        ids = examples.token_ids[starts[window] : starts[window + 1]][None]
        ones = np.ones_like(ids)
        logits = run(
            {"token_ids": ids, "padding_mask": ones, "segment_ids": 0 * ones}
        )
        classes = logits[0, 1:-1].argmax(axis=-1)
        assert said[i] == [task.labels[x] for x in classes]
        assert tokenizer.decode(ids[0].tolist()).split()
    counts = [
        count_entities(a, b) for a, b in zip(split.tags, said, strict=True)
    ]
    assert evaluator.score(model) == pytest.approx(
        entity_f1(np.stack(counts)), abs=1e-9
    )
    kept = [line for line in task.remarks if "longer than 8 tokens" in line]
    assert len(kept) == 1 and ("windows:" in kept[0]) == (stride is not None)


def test_a_test_set_is_scored_beside(toy_teacher, tmp_path):
    entry = entry_of("classes", tmp_path, test="test.csv")
    (tmp_path / "test.csv").write_text(
        "text,label\nh h a,good\nh h h h h,bad\n"
    )
    task = load(tmp_path, toy_teacher, entry)
    model = model_of(toy_teacher, "classification", 2, task.labels)
    scores = task.evaluator.evaluate(model)
    assert list(scores) == ["dev", "test"] and list(task.evaluator.labels) == [
        "dev"
    ]
    # Without labels it is only read.
    (tmp_path / "test.csv").write_text("text\nh h a\nh h h h h\n")
    task = load(tmp_path, toy_teacher, entry)
    assert list(task.evaluator.evaluate(model)) == ["dev"]


def remarks(tmp_path, toy_teacher, entry, **settings):
    path = write_recipe(tmp_path, toy_teacher, entry, **settings)
    return preflight.open_inputs(config.load_recipe(path, []))


def test_what_the_user_should_know_is_said_before(toy_teacher, tmp_path):
    entry = entry_of("classes", tmp_path, labels=["good", "bad", "so so"])
    said = remarks(tmp_path, toy_teacher, entry)
    assert said == [
        "The task mine has only 12 development rows: a score on so few says "
        "little.",
        "1 of the 3 labels of mine have no training row: so so.",
    ]
    write_classes(tmp_path, most=20)
    task = load(tmp_path, toy_teacher, entry)
    (line,) = [line for line in task.remarks if "longer than" in line]
    assert "lose their ends; `stride` reads them in windows" in line


DEV = "text,label\n"
BAD = {
    "files that do not exist": (
        "classes",
        {"train": "none*.csv"},
        r"task mine: No file matches pattern 'none\*.csv' under root",
    ),
    "files outside of the root": (
        "classes",
        {"train": "../rows.csv"},
        "task mine: The pattern .* leaves .* set `allow_outside_root: true`",
    ),
    "another ending": (
        "classes",
        {"train": "own.yaml"},
        "a file of a classification must end in .csv, .tsv.*own.yaml",
    ),
    "a label that training lacks": (
        "classes",
        {"dev": DEV + "x y,goood\n"},
        r"dev.csv', line 2: the label must be one of \['bad', 'good'\], the lab"
        r"els of the training rows. Received: 'goood'; the nearest is 'good'",
    ),
    "texts of the training rows": (
        "classes",
        {"dev": "rows.csv"},
        "60 of the 60 rows of .*rows.csv' have the text of a row of .* At most",
    ),
    "weights of other labels": (
        "classes",
        {"class_weights": {"god": 2.0}},
        "`class_weights` of the task mine must name labels of it. Received: "
        "'god'; the nearest is 'good'",
    ),
    "windows of pairs": (
        "pairs",
        {"stride": 3},
        "`stride` is for single texts",
    ),
    "tags that mark no entities": (
        "entities",
        {"labels": ["O", "B-X", "I-X", "NOUN"]},
        "mine: `metric: entity_f1` needs tags of IOB1",
    ),
    "a tag that is not listed": (
        "entities",
        {"labels": ["O", "B-X"]},
        r"rows.conll', line \d+: the tag must be one of .* Received: 'I-X'",
    ),
    "one row": (
        "classes",
        {"train": "few.csv", "dev": DEV + "x y,a\n", "labels": ["a", "b"]},
        "must have two training rows or more. Received: 1, besides those held",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data(name, toy_teacher, tmp_path):
    kind, changes, said = BAD[name]
    entry = entry_of(kind, tmp_path, **changes)
    (tmp_path / "few.csv").write_text(DEV + "a b,a\n")
    if entry.get("dev", "").startswith(DEV):
        (tmp_path / "dev.csv").write_text(entry["dev"])
        entry["dev"] = "dev.csv"
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        load(tmp_path, toy_teacher, entry)


def test_spans_of_tables(toy_teacher, tmp_path):
    rows = [
        {"question": "a", "context": f"{x} a h", "answers": "a"}
        for x in LETTERS[1:]
    ]
    rows[0]["answers"] = {"text": ["a"], "answer_start": [2]}
    rows[1]["answers"] = [{"text": "a", "answer_start": 2}]
    write_lines(tmp_path / "rows.jsonl", rows)
    entry = {
        "name": "mine",
        "kind": "span",
        "train": "rows.jsonl",
        "dev_fraction": 0.3,
        "stride": 2,
    }
    task = load(tmp_path, toy_teacher, entry)
    assert len(task.train) == 5
    # [CLS] a [SEP] x a h: the answer is at position 4.
    assert list(task.train.labels["start"]) == [4] * 5
    assert list(task.train.labels["end"]) == [4] * 5
    rows[0]["answers"] = "b"
    write_lines(tmp_path / "rows.jsonl", [{**rows[0], "context": "b b"}])
    with pytest.raises(
        ValueError, match="'b', which is there 2 times. Write it"
    ):
        load(tmp_path, toy_teacher, entry)
    write_lines(
        tmp_path / "rows.jsonl", [{**rows[0], "answers": [{"text": 3}]}]
    )
    with pytest.raises(ValueError, match="an answer must have a `text` and an"):
        load(tmp_path, toy_teacher, entry)
