"""The row `ngrams`: a linear model on words and pairs of words."""

import dataclasses
import random

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression, Ridge

from keras_distil import config, data
from keras_distil.data.tasks.batches import padded
from keras_distil.runs import ngrams, run_folder
from keras_distil.runs.task_results import plan_row, read_task_result
from keras_distil.runs.tasks import load_task
from keras_distil.utils.progress import Progress


@pytest.fixture(scope="module")
def tokenizer(shared_toy_recipe):
    return data.load_tokenizer(shared_toy_recipe.with_name("teacher"))


def words(generator):
    return " ".join(generator.choices("abcdefgh", k=generator.randint(2, 7)))


TEXTS = [words(random.Random(i)) for i in range(80)]
SECOND = [words(random.Random(100 + i)) for i in range(80)]


def features(texts):
    """Another count of n-grams, with a column for each."""
    counter = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
    counts = counter.fit_transform(texts)
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts)


def answers(tokenizer, labels, kind, outputs, second=None, weights=None):
    examples = data.encode_examples(
        tokenizer, TEXTS, second, np.array(labels), max_length=32
    )
    if weights is not None:
        examples = dataclasses.replace(examples, weights=weights)
    model = ngrams.fit_ngrams(examples, tokenizer, kind, outputs)
    found = model(padded(examples, np.arange(len(TEXTS))))
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), outputs)
    return found


def test_classes_are_those_of_another_count(tokenizer):
    labels = np.array([text.count("a b") + text.count("c") for text in TEXTS])
    labels = labels.clip(max=2)
    weights = np.linspace(0.5, 2.0, len(TEXTS)).astype(np.float32)
    # The fourth class has no example.
    found = answers(tokenizer, labels, "classification", 4, weights=weights)
    model = LogisticRegression(max_iter=1000)
    model.fit(features(TEXTS), labels, sample_weight=weights)
    wanted = model.predict_proba(features(TEXTS))
    shifted = np.exp(found - found.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares[:, :3], wanted, atol=1e-3)
    assert (shares[:, 3] < 1e-20).all()


def test_several_labels_and_numbers(tokenizer):
    labels = np.array(
        [["a" in text, "b" in text, False] for text in TEXTS], np.float32
    )
    found = answers(tokenizer, labels, "multi_label", 3)
    for column in (0, 1):
        model = LogisticRegression(max_iter=1000)
        model.fit(features(TEXTS), labels[:, column])
        wanted = model.decision_function(features(TEXTS))
        np.testing.assert_allclose(found[:, column], wanted, atol=1e-2)
    assert (found[:, 2] < -10).all()
    numbers = np.array([text.count("a") for text in TEXTS], np.float32)
    found = answers(tokenizer, numbers, "regression", 1)
    wanted = Ridge(solver="sparse_cg").fit(features(TEXTS), numbers)
    np.testing.assert_allclose(
        found[:, 0], wanted.predict(features(TEXTS)), atol=1e-2
    )


def test_the_texts_of_a_pair_are_told_apart(tokenizer):
    """A word in the second text is not the same word in the first."""
    labels = [int("a" in text) for text in SECOND]
    found = answers(tokenizer, labels, "classification", 2, SECOND)
    assert np.mean(found.argmax(axis=1) == labels) > 0.9
    assert list(ngrams._ngrams(["B a!", "a"])) == ["0 b", "0 a", "0 b a", "1 a"]


def test_the_row_of_a_run(toy_teacher, toy_glue, tmp_path, capsys):
    recipe = config.make_recipe(
        {
            "name": "ngrams",
            "teacher": {"source": str(toy_teacher)},
            "student": {"num_layers": 1},
            "data": {"root": str(toy_glue)},
            "finetune": {
                "tasks": ["rte"],
                "source": "files",
                "seeds": [2, 3],
                "max_length": 12,
            },
        }
    )
    # A recipe without a general stage has the row by default.
    assert "ngrams" in recipe.finetune.rows
    run = run_folder.open_run(recipe, tmp_path / "run", Progress())
    task = load_task(recipe, "rte")
    ngrams.score_ngrams(run, task)
    (planned,) = plan_row(run, "rte", "ngrams")
    assert planned.folder.name == "seed_2" and planned.is_finished
    result = read_task_result([planned], task)
    # Texts and labels alternate alike in training and development.
    assert result.metrics[0]["accuracy"] > 0.5
    assert "rte/ngrams: " in capsys.readouterr().err
    ngrams.score_ngrams(run, task)
    assert "ngrams" not in capsys.readouterr().err
    entities = dataclasses.replace(task, kind="token_classification")
    ngrams.score_ngrams(run, entities)
    assert "rte: no row ngrams" in capsys.readouterr().err
