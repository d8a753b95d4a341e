"""The evaluator of span models against the model run by Keras."""

import numpy as np
import pytest

from keras_distil import data, models
from keras_distil.evaluation import SpanEvaluator, SQuADEvaluator
from keras_distil.evaluation.spans import mean_f1

LENGTHS = {"max_length": 12, "stride": 2, "max_question": 2}


@pytest.fixture
def model(toy_teacher):
    made = models.task_model(models.load_teacher(toy_teacher), "span")
    kernel = made.output_dense.kernel
    noise = np.random.default_rng(0).normal(0.0, 2.0, kernel.shape)
    kernel.assign(noise.astype("float32"))
    return made


def test_answers_and_scores_are_those_of_the_model(
    model, toy_teacher, toy_squad
):
    examples = data.load_squad("dev", root=toy_squad)
    tokenizer = data.load_tokenizer(toy_teacher)
    evaluator = SpanEvaluator(examples, tokenizer, **LENGTHS)
    expected = SQuADEvaluator(examples, tokenizer, **LENGTHS)

    def predict(inputs):
        return np.array(model(inputs))

    answers = expected.predictions(predict)
    found = evaluator.answers(model)
    assert [x.text for x in found] == [x.text for x in answers]
    np.testing.assert_allclose(
        [x.score for x in found], [x.score for x in answers], rtol=1e-4
    )
    assert len({round(x.score, 3) for x in found}) > 4
    scores = expected.evaluate(predict)
    predictions = evaluator.predictions(model)
    metrics = evaluator.metrics(predictions)["dev"]
    assert 100 * metrics["exact_match"] == pytest.approx(scores.exact)
    assert 100 * metrics["f1"] == pytest.approx(scores.f1)
    assert evaluator.score(model) == pytest.approx(scores.f1 / 100)
    labels = evaluator.labels["dev"]
    assert labels.shape == predictions["dev"].shape == (8, 2)
    assert mean_f1(labels, predictions["dev"]) == metrics["f1"]


def test_windows_become_examples(toy_teacher, toy_squad):
    examples = data.load_squad("train", root=toy_squad)
    windows = data.make_squad_windows(
        examples, data.load_tokenizer(toy_teacher), **LENGTHS
    )
    encoded = data.encode_windows(windows, pad_id=0, max_length=12)
    assert len(encoded) == len(windows)
    for number, (ids, segments) in enumerate(
        zip(windows.token_ids, windows.segment_ids, strict=True)
    ):
        start, end = encoded.starts[number : number + 2]
        np.testing.assert_array_equal(encoded.token_ids[start:end], ids)
        first = encoded.first_lengths[number]
        assert not segments[:first].any() and segments[first:].all()
    np.testing.assert_array_equal(encoded.labels["end"], windows.end)
