"""A model's outputs are matched with a task's classes by name."""

import numpy as np
import pytest
from toy import make_teacher, randomize

from keras_distil import models
from keras_distil.evaluation import GLUEEvaluator
from keras_distil.evaluation.labels import class_columns

MNLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (None, None),
        (MNLI, None),
        (("CONTRADICTION", "Entailment", "neutral "), [1, 2, 0]),
        (("LABEL_0", "LABEL_1", "LABEL_2"), None),
        (("LABEL_2", "LABEL_0", "LABEL_1"), [1, 2, 0]),
        (("0", "1", "2"), None),
        (("2", "1", "0"), [2, 1, 0]),
    ],
)
def test_columns_of_classes(labels, columns):
    found = class_columns(labels, MNLI, "mnli")
    assert (None if found is None else found.tolist()) == columns


def test_marks_and_case_do_not_matter():
    labels = ("Not-Entailment", "ENTAILMENT")
    classes = ("entailment", "not_entailment")
    assert class_columns(labels, classes, "rte").tolist() == [1, 0]


@pytest.mark.parametrize(
    "labels",
    [
        ("negative", "neutral", "positive"),
        ("entailment", "neutral"),
        ("LABEL_1", "LABEL_2", "LABEL_3"),
        ("0", "1", "contradiction"),
        ("entailment", "Entailment", "neutral"),
    ],
)
def test_other_names_are_refused_with_both(labels):
    with pytest.raises(ValueError) as raised:
        class_columns(labels, MNLI, "mnli")
    message = str(raised.value)
    assert str(list(labels)) in message and str(list(MNLI)) in message
    assert "`id2label`" in message


def test_what_is_missing_on_either_side_is_named():
    with pytest.raises(
        ValueError,
        match="; no output is for 'Bad', 'so so'; no label is 'fine'. Give",
    ):
        class_columns(["fine", "good"], ["Bad", "good", "so so"], "mine")


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory, tiny_tokenizer):
    root = tmp_path_factory.mktemp("glue")
    (root / "MNLI").mkdir()
    header = "index\tpremise\thypothesis\tsentence1\tsentence2\tgold_label"
    letters = "abcdefgh"
    rows = [
        f"{i}\t\t\t{letters[i % 8]} {letters[i // 8]}\t{letters[i % 5]}"
        f"\t{MNLI[i % 3]}"
        for i in range(24)
    ]
    for split in ("dev_matched", "dev_mismatched"):
        text = "\n".join([header, *rows]) + "\n"
        (root / "MNLI" / f"{split}.tsv").write_text(text)
    return GLUEEvaluator("mnli", tiny_tokenizer, root=root, max_length=12)


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory):
    from keras_distil import data

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return data.load_tokenizer(folder)


def test_a_model_of_another_order_scores_the_same(evaluator):
    encoder = make_teacher(num_layers=1)
    model = models.task_model(encoder, "classification", 3)
    randomize(model, seed=3)
    other = models.task_model(
        encoder,
        "classification",
        3,
        labels=["contradiction", "entailment", "neutral"],
    )
    other.set_weights(model.get_weights())
    # Its output i is the class whose id is `order[i]`.
    order = [2, 0, 1]
    for weight in other.output_dense.weights:
        weight.assign(np.asarray(weight)[..., order])
    expected = evaluator.outputs(model)
    found = evaluator.outputs(other)
    for split in evaluator.task.dev:
        np.testing.assert_allclose(found[split], expected[split], atol=1e-5)
    assert evaluator.evaluate(other) == evaluator.evaluate(model)
    # Without names the columns are others.
    other.labels = None
    split = evaluator.task.dev[0]
    np.testing.assert_allclose(
        evaluator.outputs(other)[split], expected[split][:, order], atol=1e-5
    )
    other.labels = ("a", "b", "c")
    with pytest.raises(ValueError, match="those of mnli"):
        evaluator.evaluate(other)
