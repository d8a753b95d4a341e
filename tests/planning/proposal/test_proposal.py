"""`keras-distil init`: what it sees in a file, and the recipe it writes."""

import gzip
import json
import random

import marks
import numpy as np
import pytest
from commands import keras_distil, run_command

from keras_distil import config
from keras_distil.models.shape import EncoderShape
from keras_distil.planning import proposal
from keras_distil.planning.proposal import rows as proposal_rows
from keras_distil.planning.proposal.duration import Work, expected_seconds
from keras_distil.runs import preflight, settled

TEXTS = sorted(
    {
        " ".join(random.Random(seed).choices("abcdefgh", k=2 + seed % 6))
        for seed in range(80)
    }
)[:60]
CLASSES = ["so so" if "a" in text else "bad" for text in TEXTS]


def table(*columns, separator=","):
    """The text of a CSV file: the name of each column before its values."""
    return "\n".join(map(separator.join, zip(*columns, strict=True))) + "\n"


def objects(**columns):
    rows = zip(*columns.values(), strict=True)
    return "\n".join(
        json.dumps(dict(zip(columns, row, strict=True))) for row in rows
    )


def entities(text):
    return ["B-X" if word == "a" else "O" for word in text.split()]


CONLL = "\n\n".join(
    "\n".join(map(" ".join, zip(text.split(), entities(text), strict=True)))
    for text in TEXTS
)
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "paragraphs": [
                {
                    "context": text,
                    "qas": [
                        {
                            "id": text,
                            "question": text[0],
                            "answers": [{"text": text[0], "answer_start": 0}],
                        }
                    ],
                }
                for text in TEXTS
            ]
        }
    ],
}
LISTS = [[x for x in "abc" if x in text] for text in TEXTS]
FLAGS = [[name, *("01"[name in text] for text in TEXTS)] for name in "abc"]
NUMBERS = [f"{text.count('a') / 7:.3f}" for text in TEXTS]
# By case: the file, its content, and what the recipe must say of the task.
FILES = {
    "classes": (
        "Tickets 1.csv",
        table(["queue", *CLASSES], ["body", *TEXTS]),
        {
            "name": "tickets_1",
            "kind": "classification",
            "columns": {"text": "body", "label": "queue"},
            "labels": ["bad", "so so"],
            "metric": "accuracy",
        },
    ),
    "pairs": (
        "rte.tsv",
        table(
            ["id", *("7" for _ in TEXTS)],
            ["sentence1", *TEXTS],
            ["sentence2", *TEXTS[::-1]],
            ["label", *("yes" if i % 8 else "no" for i in range(60))],
            separator="\t",
        ),
        {
            "name": "my_rte",
            "kind": "classification",
            # Ids that repeat are none.
            "columns": {
                "text": "sentence1",
                "text_pair": "sentence2",
                "label": "label",
                "id": False,
            },
            "labels": ["no", "yes"],
            "metric": "macro_f1",
        },
    ),
    "classes by content": (
        "rows.csv",
        table(
            ["number", *map(str, range(60))],
            ["words", *TEXTS],
            ["source", *("xyz"[i % 3] for i in range(60))],
            ["group", *("1.0" if "a" in text else "2.0" for text in TEXTS)],
        ),
        {
            "kind": "classification",
            "columns": {"text": "words", "label": "group"},
            "labels": ["1.0", "2.0"],
        },
    ),
    "numbers": (
        "rows.jsonl",
        objects(text=TEXTS, rating=[float(x) for x in NUMBERS]),
        {
            "kind": "regression",
            "columns": {"text": "text", "label": "rating"},
            "labels": None,
            "metric": "pearson",
        },
    ),
    "lists": (
        "rows.ndjson",
        objects(text=TEXTS, topics=LISTS),
        {
            "kind": "multi_label",
            "columns": {"text": "text", "label": "topics"},
            "labels": ["a", "b", "c"],
            "metric": "macro_f1",
        },
    ),
    "separators": (
        "rows.csv",
        table(["text", *TEXTS], ["label", *(";".join(x) for x in LISTS)]),
        {"kind": "multi_label", "separator": ";", "labels": ["a", "b", "c"]},
    ),
    "flags": (
        "rows.csv",
        table(["text", *TEXTS], *FLAGS),
        {
            "kind": "multi_label",
            "columns": {"text": "text", "label": ["a", "b", "c"]},
        },
    ),
    "conll": (
        "rows.conll",
        CONLL,
        {
            "kind": "token_classification",
            "labels": ["B-X", "O"],
            "metric": "entity_f1",
        },
    ),
    "tagged lists": (
        "rows.jsonl",
        objects(
            sentence=[text.split() for text in TEXTS],
            marks=[entities(text) for text in TEXTS],
        ),
        {
            "kind": "token_classification",
            "columns": {"tokens": "sentence", "tags": "marks"},
            "labels": ["B-X", "O"],
        },
    ),
    "squad": ("rows.json", json.dumps(SQUAD), {"kind": "span", "metric": "f1"}),
    "spans": (
        "rows.csv",
        table(
            ["question", *(text[0] for text in TEXTS)],
            ["passage", *(f"{text[0]} {text.upper()}" for text in TEXTS)],
            ["answer", *(text[0] for text in TEXTS)],
        ),
        {
            "kind": "span",
            "columns": {
                "question": "question",
                "context": "passage",
                "answers": "answer",
            },
        },
    ),
}


@pytest.fixture(autouse=True)
def _known_machine(monkeypatch):
    """A machine whose speed needs no measurement."""
    measured = settled.SettledPrecision(value="float32", gflops={"float32": 10})
    monkeypatch.setattr(settled, "measure_precision", lambda: measured)


def write_file(folder, case):
    name, content, wanted = FILES[case]
    (folder / name).write_text(content, "utf-8")
    return folder / name, wanted


def recipe_of(made):
    return config.make_recipe(config.read_yaml(made.text, where="the recipe"))


@pytest.mark.parametrize("case", FILES)
def test_what_a_file_holds_is_found(case, toy_teacher, tmp_path):
    path, wanted = write_file(tmp_path, case)
    made = proposal.propose(path, str(toy_teacher))
    recipe = recipe_of(made)
    (entry,) = recipe.finetune.tasks
    assert {key: getattr(entry, key) for key in wanted} == wanted
    # A run finds nothing to refuse, in the file's own folder or elsewhere.
    remarks = preflight.open_inputs(recipe)
    assert not any("no training row" in line for line in remarks)
    assert any("few" in line for line in made.warnings)
    assert recipe.teacher.source == str(toy_teacher)
    assert (recipe.student.num_layers, recipe.precision) == (1, "float32")
    assert recipe.export.formats == ["litert_dynamic_int8"]
    # Few rows, in batches of 32.
    epochs = 10 if wanted["kind"] == "multi_label" else 5
    assert recipe.finetune.epochs == epochs
    assert recipe.finetune.batch_size == 32
    assert f"epochs: {epochs}  # of 2 updates" in made.text


def test_the_length_is_that_of_nearly_all_texts(toy_teacher, tmp_path):
    path, _ = write_file(tmp_path, "classes")
    # A word is a token here, and two frame a text.
    counts = [len(text.split()) + 2 for text in TEXTS]
    typical = int(np.ceil(np.percentile(counts, 99)))
    assert typical > 8
    made = proposal.propose(path, str(toy_teacher))
    # Rounded up to 16, but the teacher has 12 positions.
    assert recipe_of(made).finetune.max_length == 12
    assert f"at most {typical} tokens" in made.text
    assert "stride" not in made.text
    short = [" ".join(text.split()[:3]) for text in TEXTS]
    path.write_text(
        table(["queue", *CLASSES], ["body", *short[:-2], *["a b " * 9] * 2])
    )
    made = proposal.propose(path, str(toy_teacher))
    assert recipe_of(made).finetune.max_length == 12
    assert "# 3% have more than are read." in made.text
    assert "# stride: 3" in made.text
    # One text of 240 decides nothing.
    several = [*(4 * short)[:-1], "a b " * 9]
    path.write_text(table(["queue", *CLASSES * 4], ["body", *several]))
    made = proposal.propose(path, str(toy_teacher))
    assert recipe_of(made).finetune.max_length == 8


def test_what_is_unclear_stands_beside_it(toy_teacher, tmp_path):
    path, _ = write_file(tmp_path, "classes by content")
    text = proposal.propose(path, str(toy_teacher)).text
    assert "label: group  # or source" in text
    assert "kind: classification  # or regression" in text
    assert "metric: accuracy  # or macro_f1, weighted_f1" in text
    assert "# Rows: " in text and "# Duration: about " in text
    path.write_text(
        table(["text", *TEXTS], ["stars", *(str(i % 12) for i in range(60))])
    )
    text = proposal.propose(path, str(toy_teacher)).text
    assert "kind: regression  # or classification" in text


def test_two_columns_of_sentences_are_a_pair(toy_teacher, tmp_path):
    path = tmp_path / "close.csv"
    label = ["closeness", *NUMBERS]
    left = [f"{x} a b c d e f g h" for x in TEXTS]
    right = [f"c d {x}" for x in TEXTS]
    path.write_text(table(["left", *left], label, ["right", *right]))
    made = proposal.propose(path, str(toy_teacher))
    (entry,) = recipe_of(made).finetune.tasks
    assert entry.columns == {
        "text": "left",
        "text_pair": "right",
        "label": "closeness",
    }
    assert "text_pair: right  # left alone: remove this line" in made.text
    # Names and dates are no texts.
    dates = [f"2020-01-01 {i:02}:{j:02}" for i in range(6) for j in range(10)]
    path.write_text(table(["left", *left], label, ["seen", *dates]))
    made = proposal.propose(path, str(toy_teacher))
    (entry,) = recipe_of(made).finetune.tasks
    assert entry.columns == {"text": "left", "label": "closeness"}
    assert "text: left  # or seen; two texts: add text_pair" in made.text


@pytest.mark.parametrize("name", ["dev", "validation", "valid", "val"])
def test_a_development_set_beside_it_is_taken(name, toy_teacher, tmp_path):
    folder = tmp_path / "My tickets"
    folder.mkdir()
    content = table(["body", *TEXTS], ["queue", *CLASSES])
    (folder / "train.csv").write_text(content)
    other = folder / f"{name}.csv"
    other.write_text("body,stars\na b,1\n")
    made = proposal.propose(folder / "train.csv", str(toy_teacher))
    (entry,) = recipe_of(made).finetune.tasks
    # Other columns: it is of something else.
    assert (entry.name, entry.dev) == ("my_tickets", None)
    assert "dev_fraction: 0.1" in made.text
    other.write_text(
        "queue,body\nbad,h h h h h h h h h\nso so,a h a h a h a h\n"
    )
    made = proposal.propose(folder / "train.csv", str(toy_teacher))
    (entry,) = recipe_of(made).finetune.tasks
    assert (entry.train, entry.dev) == (["train.csv"], [f"{name}.csv"])
    assert "dev_fraction" not in made.text
    assert f"dev: {other}" in made.findings
    assert not made.warnings
    (remark,) = preflight.open_inputs(recipe_of(made))
    assert "has only 2 development rows" in remark


def test_all_rows_are_counted_and_few_looked_at(
    toy_teacher, tmp_path, monkeypatch
):
    monkeypatch.setattr(proposal_rows, "SAMPLE", 4)
    # Sorted by class, with a class at the end that no looked-at row has.
    path = tmp_path / "rows.csv"
    classes = sorted(CLASSES)[:-1] + ["yes"]
    path.write_text(table(["text", *TEXTS], ["label", *classes]))
    sample = proposal_rows.read_sample(path, "utf-8")
    assert sample.rows == 60
    assert sample.values["text"] == TEXTS[::16]
    made = proposal.propose(path, str(toy_teacher))
    (entry,) = recipe_of(made).finetune.tasks
    assert entry.labels == ["bad", "so so", "yes"]
    assert any("fewer than 10 rows: yes" in line for line in made.warnings)


def test_the_expected_duration():
    shape = EncoderShape("bert", 64, 2, 2, 16, 32, 12, 2)
    work = Work(
        shape, 1, rows=1_000, tokens=10.0, epochs=5, trains_teacher=True
    )
    # By hand: per layer 8 * 16**2 + 4 * 16 * 32 + 4 * 10 * 16 = 4,736 FLOP a
    # token; 50,000 tokens; 0.4 of 1e6 FLOP/s; and 15 s for each training.
    layer_s = 4_736 * 50_000 / 0.4e6
    assert expected_seconds(work, 1e6) == pytest.approx(
        {
            "teacher": 15 + 6 * layer_s,
            "student": 15 + 5 * layer_s,
            "baseline": 15 + 3 * layer_s,
        }
    )


@pytest.fixture
def classifier(edit_checkpoint, golden_bert, toy_teacher):
    """Makes a fine-tuned teacher, whose outputs have these labels."""

    def make(labels, **settings):
        generator = np.random.default_rng(0)
        shapes = {
            "bert.pooler.dense.weight": (16, 16),
            "bert.pooler.dense.bias": (16,),
            "classifier.weight": (len(labels), 16),
            "classifier.bias": (len(labels),),
        }
        folder = edit_checkpoint(
            golden_bert,
            tensors=lambda tensors: {
                **{k: v for k, v in tensors.items() if "cls." not in k},
                **{
                    name: generator.normal(size=shape).astype("float32")
                    for name, shape in shapes.items()
                },
            },
            config={
                "architectures": ["BertForSequenceClassification"],
                "id2label": {str(i): name for i, name in enumerate(labels)},
                **settings,
            },
        )
        (folder / "vocab.txt").write_bytes(
            (toy_teacher / "vocab.txt").read_bytes()
        )
        return folder

    return make


def test_a_fine_tuned_teacher_brings_its_labels(classifier, tmp_path):
    path, _ = write_file(tmp_path, "classes")
    made = proposal.propose(path, str(classifier(["So_So", "other", "BAD"])))
    recipe = recipe_of(made)
    assert recipe.teacher.task_source and recipe.teacher.source is None
    # In the order of the outputs, as the file spells them.
    assert recipe.finetune.tasks[0].labels == ["so so", "other", "bad"]
    assert "teacher " not in "".join(made.findings)
    assert preflight.open_inputs(recipe)


def test_a_teacher_decides_between_kinds(classifier, tmp_path):
    path = tmp_path / "rows.csv"
    stars = [str(1 + i % 5) for i in range(60)]
    path.write_text(table(["text", *TEXTS], ["label", *stars]))
    source = str(classifier(["score"], problem_type="regression"))
    made = proposal.propose(path, source)
    assert recipe_of(made).finetune.tasks[0].kind == "regression"


@pytest.mark.parametrize(
    ("case", "labels", "said"),
    [
        ("classes", ["bad", "good"], "; no output is for 'so so'. Give"),
        ("numbers", ["a", "b"], "is a model for a classification, and the col"),
        ("conll", ["a", "b"], "must be a model for a token_classification, wh"),
    ],
)
def test_teachers_for_something_else(case, labels, said, classifier, tmp_path):
    path, _ = write_file(tmp_path, case)
    with pytest.raises(ValueError, match=said):
        proposal.propose(path, str(classifier(labels)))


BAD = {
    "no file": ("none.csv", None, "There is no file"),
    "another ending": (
        "x.pdf",
        b"x",
        "`FILE` must be a file that ends in .csv",
    ),
    "an empty file": ("x.csv", b"", "has no rows. Give a file with some"),
    "a header alone": ("x.csv", b"text,label\n", "has no rows"),
    "an empty conll": ("x.conll", b"\n", "must be a sentence or more"),
    "no questions": ("x.json", b'{"data": []}', "question"),
    "one column": (
        "x.csv",
        table(["text;label", *(f"{x};y" for x in TEXTS)]).encode(),
        r"two columns or more.* as read: \['text;label'\].*separated by commas",
    ),
    "one class": (
        "x.csv",
        table(["text", *TEXTS], ["label", *["spam"] * 60]).encode(),
        r"must have two labels or more. Received: \['spam'\]",
    ),
    "no label": (
        "x.csv",
        table(["text", *TEXTS], ["other", *TEXTS[::-1]]).encode(),
        "must be a column of labels: classes that repeat, lists, or numbers",
    ),
    "no text": (
        "x.csv",
        b"a,b\n1,2\n2,3\n",
        "must be a column of texts. Received: none",
    ),
    "latin-1": (
        "x.csv",
        "text,label\nä b,x\n".encode("latin-1"),
        r"line 2: the text must be utf-8. Received: byte 0xe4 .*"
        r"file. Save the file as UTF-8.$",
    ),
    "an uneven row": (
        "x.csv",
        b"text,label\na b,x\na, b,x\n",
        "line 3: a row must have 2 fields",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(case, toy_teacher, tmp_path):
    name, content, said = BAD[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        proposal.propose(tmp_path / name, str(toy_teacher))


def test_bad_teachers(toy_teacher, tmp_path):
    path, _ = write_file(tmp_path, "classes")
    with pytest.raises(FileNotFoundError, match="There is no model"):
        proposal.propose(path, str(tmp_path / "none"))
    with gzip.open(tmp_path / "x.keras", "w"):
        pass
    with pytest.raises(ValueError, match="x.keras"):
        proposal.propose(path, str(tmp_path / "x.keras"))
    (toy_teacher / "vocab.txt").unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer"):
        proposal.propose(path, str(toy_teacher))


def test_utf_16_is_seen(toy_teacher, tmp_path):
    path, _ = write_file(tmp_path, "classes")
    path.write_text(path.read_text("utf-8"), "utf-16")
    recipe = recipe_of(proposal.propose(path, str(toy_teacher)))
    assert recipe.finetune.tasks[0].encoding == "utf-16"
    assert preflight.open_inputs(recipe)


def test_names_that_yaml_or_glob_would_read_otherwise(toy_teacher, tmp_path):
    path = tmp_path / "[no] #1.csv"
    labels = ["yes" if "a" in text else "n: o #" for text in TEXTS]
    path.write_text(table(["text # a", *TEXTS], ["on", *labels]))
    recipe = recipe_of(proposal.propose(path, str(toy_teacher)))
    (entry,) = recipe.finetune.tasks
    assert entry.labels == ["n: o #", "yes"]
    assert entry.columns == {"text": "text # a", "label": "on"}
    assert preflight.open_inputs(recipe)


def test_the_command_overwrites_nothing(
    capsys, toy_teacher, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path, _ = write_file(tmp_path, "classes")
    words = ("init", path.name, "--teacher", str(toy_teacher))
    status, out, err = keras_distil(capsys, *words)
    assert status == 0 and err.startswith("Warning: 60 rows are few")
    assert out.startswith("Tickets 1.csv: 60 rows, classification\n")
    assert out.endswith("Next: keras-distil run tickets_1.yaml\n")
    written = (tmp_path / "tickets_1.yaml").read_text("utf-8")
    status, out, err = keras_distil(capsys, *words)
    assert (status, out) == (1, "") and err.count("\n") == 1
    assert "tickets_1.yaml exists, and nothing is overwritten" in err
    assert (tmp_path / "tickets_1.yaml").read_text("utf-8") == written
    # Another name, as the message says.
    status, out, _ = keras_distil(capsys, *words, "--output", "b c.yaml")
    assert status == 0
    assert out.endswith("Next: keras-distil run 'b c.yaml'\n")
    assert "# Command: keras-distil run 'b c.yaml'" in (
        (tmp_path / "b c.yaml").read_text("utf-8")
    )
    # The recipe passes as it is.
    assert run_command("run", "b c.yaml", "--dry-run") == 0


# Each trains two models or three.
TOY_RUNS = ("classes", "pairs", "numbers", "separators", "conll", "squad")


@pytest.mark.slow
@pytest.mark.parametrize("case", marks.essential(TOY_RUNS, "classes"))
def test_the_recipe_runs(case, toy_teacher, tmp_path, quick_runs, capsys):
    path, _ = write_file(tmp_path, case)
    recipe = tmp_path / "recipe.yaml"
    words = ["--teacher", toy_teacher, "--output", recipe]
    assert run_command("init", path, *words) == 0
    less = ["finetune.epochs=1", "finetune.jit_compile=false"]
    if case == "squad":
        # Of the few toy answers, one that 8 bits change is too many.
        less.append("export.formats=[litert_float32]")
    overrides = [word for change in less for word in ("--set", change)]
    folder = tmp_path / "run"
    assert run_command("run", recipe, "--output", folder, *overrides) == 0
    report = json.loads((folder / "report.json").read_text())
    (export,) = report["export"]
    assert (folder / export["path"]).exists()
    score = 100 * export["comparison"]["score"]
    assert (
        f"MB): score {score:.1f} of the student's " in capsys.readouterr().out
    )
