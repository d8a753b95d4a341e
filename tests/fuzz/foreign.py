"""What comes with models and data of others: cards, names, questions, plans."""

import gzip
import json
import random
from pathlib import Path

import mutate
import numpy as np
from harness import Defect, Target
from targets import RECIPES, VOCABULARY, Toys, change_json
from tensorflow_datasets.core import naming

from keras_distil import config, data
from keras_distil.cli import app
from keras_distil.data import TfdsText
from keras_distil.data.tasks.dev_split import digests_of
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.tables import open_table
from keras_distil.data.tasks.text_rows import RowForm, read_text_rows
from keras_distil.data.tasks.word_rows import read_word_rows
from keras_distil.models.shape import encoder_shape
from keras_distil.runs.report import licences
from keras_distil.teachers.predictions.reading import read_predictions

_FRONT = (
    "mit",
    "apache-2.0",
    '"a|b`c`` <script>alert(1)</script> [x](javascript:y)"',
    "2001-99-99",
    "9" * 5000,
    "[" * 3000,
    "{a: " * 1000,
    "!!python/object/apply:os.system ['touch escaped']",
    "&a [*a]",
    '"\\x00\\e[31m"',
    "|\n  two\n  lines",
    "x" * 200,
)


def all_targets() -> list[Target]:
    """Every target."""
    refusals = app._EXPECTED
    toys = Toys()

    def plan(rng: random.Random, folder: Path) -> None:
        """A `.keras` archive whose shape is read for a plan."""
        toys.write_keras_file(rng, folder / "toy.keras")
        encoder_shape(folder / "toy.keras")

    return [
        Target("card", card, refusals, 4),
        Target("tfds_name", tfds_name, refusals, 4, False),
        Target("squad", squad, refusals, 4),
        Target("table", table, refusals, 4),
        Target("plan", plan, refusals, 4),
        Target("predictions", predictions, refusals, 4),
    ]


def predictions(rng: random.Random, folder: Path) -> None:
    """A file of predictions for two rows."""
    kind, labels, value = rng.choice(
        (
            ("classification", ["a", "b"], {"logits": {"a": 1.0, "b": 0.0}}),
            ("multi_label", ["a", "b"], {"probabilities": {"a": 0.5}}),
            ("regression", None, {"scores": 2.5}),
            (
                "token_classification",
                ["a", "b"],
                {"scores": [[{"a": 1}, None], [None, {"b": 1}]]},
            ),
            ("span", None, {"logits": {"start": [1.0, 0], "end": [0, 1.0]}}),
        )
    )
    rows = [{"id": "1", "hash": f"{1:016x}", **value}, {"id": 2, **value}]
    lines = [
        change_json(rng, json.dumps(row))
        if rng.random() < 0.7
        # Another row of the file stays whole.
        else json.dumps(row).encode()
        for row in rows
    ]
    path = folder / "predictions.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    keys = RowKeys("train", np.array([1, 2], np.uint64), digests_of(["1", "2"]))
    read_predictions([path], kind, labels, {"train": keys}, task="mine")


def _bomb(rng: random.Random) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, rng.randint(5, 30)):
        aliases = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines) + f"\nlicense: *a{len(lines) - 1}"


def card(rng: random.Random, folder: Path) -> None:
    """The README of a teacher, and what a recipe says, in a model's card."""
    front = rng.choice((f"license: {rng.choice(_FRONT)}", _bomb(rng)))
    text = f"---\n{front}\n---\nA model.\n".encode()
    if rng.random() < 0.4:
        text = mutate.change_bytes(rng, text)
    (folder / "README.md").write_bytes(text)
    (folder / "vocab.txt").write_text(VOCABULARY)
    recipe = config.load_recipe(RECIPES[0], [f"teacher.source={folder}"])
    if rng.random() < 0.5:
        stated = recipe.teacher.model_copy(
            update={"license": str(rng.choice(mutate.ODD_VALUES)) or "x"}
        )
        recipe = recipe.model_copy(update={"teacher": stated})
    for line in licences.licence_lines(recipe):
        if "\n" in line or "<script" in line or "\x00" in line:
            raise Defect(f"the card holds {line!r}")


def tfds_name(rng: random.Random, folder: Path) -> None:
    """The name of a data set, which must not make TFDS run code."""
    name = rng.choice(
        (
            *("wikipedia/20230601.en", "kubric:movi_a", "huggingface:a/b"),
            *("glue/cola:2.0.0", "a:b:c", "x/y=1", "../x", "/etc/passwd"),
        )
    )
    if rng.random() < 0.7:
        name = mutate.change_bytes(rng, name.encode()).decode("utf-8", "ignore")
    TfdsText(name)
    parsed, options = naming.parse_builder_name_kwargs(name)
    if parsed.namespace is not None or set(options) - {"config", "version"}:
        raise Defect(f"TFDS would run code for {name!r}")


def table(rng: random.Random, folder: Path) -> None:
    """A table of texts with labels, or sentences with tags."""
    suffix, text = rng.choice(
        (
            (".csv", 'text,label\n"a, ""b""",x\nc,y\nd,x\n'),
            (".tsv", "text\tlabel\na\tx|y\nb\ty\nc\tx\n"),
            (".jsonl", '{"text": "a", "label": ["x"]}\n{"text": "b"}\n'),
            (".conll", "a B-X\nb O\n\nc O\n"),
        )
    )
    encoding = rng.choice(("utf-8", "utf-16", "latin-1"))
    raw = mutate.change_bytes(rng, text.encode(encoding))
    path = folder / f"rows{suffix}"
    if rng.random() < 0.3:
        raw, path = gzip.compress(raw), folder / f"rows{suffix}.gz"
        raw = mutate.change_bytes(rng, raw) if rng.random() < 0.5 else raw
    path.write_bytes(raw)
    if suffix == ".conll":
        rows = read_word_rows([path], {}, encoding=encoding)
        for sentence in rows.sentences:
            if len(sentence.words) != len(sentence.tags or ()):
                raise Defect(f"words without tags: {sentence}")
        return
    kind = rng.choice(("classification", "multi_label", "regression"))
    found = read_text_rows([open_table(path, encoding)], RowForm(kind))
    texts = [text for first, _ in found.texts() for text in first]
    if len(texts) != len(found) or len(found) != len(found.labels):
        raise Defect(f"{len(texts)} texts and {len(found.labels)} labels")


def squad(rng: random.Random, folder: Path) -> None:
    """A file of questions."""
    answer = {"text": "two", "answer_start": 4}
    questions = [
        {"id": str(number), "question": "Which?", "answers": [answer]}
        for number in range(3)
    ]
    paragraph = {"context": "one two three", "qas": questions}
    content = {"data": [{"title": "t", "paragraphs": [paragraph]}]}
    path = folder / "train-v1.1.json"
    path.write_bytes(change_json(rng, json.dumps(content), (answer, questions)))
    for example in data.read_squad(path, require_answers=rng.random() < 0.5):
        for found in example.answers:
            end = found.start + len(found.text)
            if example.context[found.start : end] != found.text:
                raise Defect(f"an answer is not in its context: {found}")
