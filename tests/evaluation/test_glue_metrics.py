"""Each metric against literals, NumPy, and the libraries' functions."""

import warnings

import ml_dtypes
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from keras_distil.data.tasks.glue import GLUE_TASKS
from keras_distil.evaluation.glue_metrics import (
    class_predictions,
    macro_score,
    main_score,
    score_glue,
    write_submission,
)

# The libraries and the formulas differ by rounding only.
ROUNDING = 1e-9


# By hand.


def test_matthews_by_hand():
    labels = [1, 1, 1, 0, 0, 0, 0, 1]
    predictions = [1, 1, 0, 0, 0, 1, 0, 1]
    # tp 3, fn 1, fp 1, tn 3: (9 - 1) / sqrt(4 * 4 * 4 * 4) = 8 / 16.
    assert score_glue("cola", labels, predictions) == {
        "matthews_correlation": pytest.approx(0.5, abs=ROUNDING)
    }
    # All wrong.
    opposite = score_glue("cola", [0, 1, 1], [1, 0, 0])
    assert opposite["matthews_correlation"] == pytest.approx(-1.0)


@pytest.mark.parametrize("task", ["sst2", "qnli", "rte", "wnli"])
def test_accuracy_by_hand(task):
    # 3 of 4.
    assert score_glue(task, [0, 1, 1, 0], [0, 1, 0, 0]) == {"accuracy": 0.75}


def test_accuracy_of_three_classes_by_hand():
    # 3 of 5.
    assert score_glue("mnli", [0, 1, 2, 2, 1], [0, 1, 2, 0, 2]) == {
        "accuracy": 0.6
    }


@pytest.mark.parametrize("task", ["mrpc", "qqp"])
def test_accuracy_and_f1_by_hand(task):
    labels = [1, 1, 1, 0, 0, 0, 0, 0]
    predictions = [1, 1, 0, 1, 0, 0, 0, 0]
    # 6 of 8; tp 2, fp 1, fn 1: 2 * 2 / (2 * 2 + 1 + 1) = 4 / 6. The F1 of
    # class 0 would be 0.8, its mean with that of class 1 0.7333.
    assert score_glue(task, labels, predictions) == {
        "accuracy": 0.75,
        "f1": pytest.approx(2 / 3, abs=ROUNDING),
    }


def test_correlations_by_hand():
    labels = [0.0, 1.0, 2.0, 5.0]
    predictions = [1.0, 0.0, 2.0, 9.0]
    # Means 2 and 3, differences -2 -1 0 3 and -2 -3 -1 6: 4 + 3 + 0 + 18 = 25
    # over sqrt(14 * 50) = 26.45751. Ranks 1 2 3 4 and 2 1 3 4:
    # 1 - 6 * (1 + 1) / (4 * 15) = 0.8.
    scores = score_glue("stsb", labels, predictions)
    assert scores == {
        "pearson": pytest.approx(0.944911182523, abs=ROUNDING),
        "spearman": pytest.approx(0.8, abs=ROUNDING),
    }


def test_spearman_with_ties_by_hand():
    # Ranks 1.5 1.5 3 and 1 2.5 2.5: differences from 2 are -0.5 -0.5 1 and
    # -1 0.5 0.5, so (0.5 - 0.25 + 0.5) / 1.5 = 0.5.
    scores = score_glue("stsb", [1.0, 1.0, 4.0], [0.0, 7.0, 7.0])
    assert scores["spearman"] == pytest.approx(0.5, abs=ROUNDING)


# Independent formulas, and the libraries.


def numpy_matthews(labels, predictions):
    count = len(labels)
    table = np.zeros((2, 2))
    for label, prediction in zip(labels, predictions, strict=True):
        table[label, prediction] += 1 / count
    (tn, fp), (fn, tp) = table
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / np.sqrt(below)


def numpy_f1(labels, predictions):
    both = np.sum((labels == 1) & (predictions == 1))
    precision = both / np.sum(predictions == 1)
    recall = both / np.sum(labels == 1)
    return 2 * precision * recall / (precision + recall)


def numpy_pearson(labels, predictions):
    x = labels - labels.mean()
    y = predictions - predictions.mean()
    return x @ y / np.sqrt((x @ x) * (y @ y))


def numpy_ranks(values):
    """The mean of the places that equal values take."""
    less = (values[:, None] > values[None]).sum(1)
    equal = (values[:, None] == values[None]).sum(1)
    return less + (equal + 1) / 2


FORMULAS = {
    "matthews_correlation": numpy_matthews,
    "accuracy": lambda labels, predictions: np.mean(labels == predictions),
    "f1": numpy_f1,
    "pearson": numpy_pearson,
    "spearman": lambda labels, predictions: numpy_pearson(
        numpy_ranks(labels), numpy_ranks(predictions)
    ),
}
LIBRARIES = {
    "matthews_correlation": metrics.matthews_corrcoef,
    "accuracy": metrics.accuracy_score,
    "f1": metrics.f1_score,
    "pearson": lambda *arrays: stats.pearsonr(*arrays).statistic,
    "spearman": lambda *arrays: stats.spearmanr(*arrays).statistic,
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("task", GLUE_TASKS.values(), ids=list(GLUE_TASKS))
def test_random_examples(task, seed):
    generator = np.random.default_rng(seed)
    if task.is_regression:
        # Many equal values, some beyond the labels' range.
        labels = generator.integers(0, 26, 300) / 5
        predictions = np.round(labels + generator.normal(0, 1, 300), 1)
    else:
        labels = generator.integers(0, task.num_outputs, 300)
        wrong = generator.integers(0, task.num_outputs, 300)
        predictions = np.where(generator.random(300) < 0.4, wrong, labels)
    scores = score_glue(task, labels, predictions)
    assert tuple(scores) == task.metrics
    for name, score in scores.items():
        assert type(score) is float
        for expected in (FORMULAS[name], LIBRARIES[name]):
            value = expected(labels, predictions)
            assert score == pytest.approx(value, rel=0, abs=ROUNDING)
        assert 0.1 < score < 0.99


def test_types_do_not_count():
    labels = np.array([0, 1, 1, 0], np.uint8)
    predictions = np.array([0, 1, 0, 0], np.int64)
    assert score_glue("rte", labels, predictions) == {"accuracy": 0.75}
    scores = [1.0, 2.5, 4.0]
    half = np.array([0.5, 1.5, 1.0], np.float16)
    expected = score_glue("stsb", scores, half.tolist())
    assert score_glue("stsb", np.float32(scores), half) == expected
    bfloat = half.astype(ml_dtypes.bfloat16)
    assert score_glue("stsb", scores, bfloat) == expected


# Where a formula divides 0 by 0.


@pytest.mark.parametrize(
    ("task", "labels", "predictions", "expected"),
    [
        ("cola", [0, 1, 1], [1, 1, 1], {"matthews_correlation": 0.0}),
        ("cola", [0, 1, 1], [0, 0, 0], {"matthews_correlation": 0.0}),
        ("cola", [1, 1, 1], [0, 1, 1], {"matthews_correlation": 0.0}),
        ("cola", [1, 1], [1, 1], {"matthews_correlation": 0.0}),
        ("cola", [0], [0], {"matthews_correlation": 0.0}),
        ("mrpc", [0, 1], [0, 0], {"accuracy": 0.5, "f1": 0.0}),
        ("mrpc", [0, 0], [1, 0], {"accuracy": 0.5, "f1": 0.0}),
        ("mrpc", [0, 0], [0, 0], {"accuracy": 1.0, "f1": 0.0}),
        ("mrpc", [0], [1], {"accuracy": 0.0, "f1": 0.0}),
        ("qqp", [1, 1], [1, 1], {"accuracy": 1.0, "f1": 1.0}),
        ("sst2", [1], [1], {"accuracy": 1.0}),
        ("stsb", [1, 2, 3], [4, 4, 4], {"pearson": 0.0, "spearman": 0.0}),
        ("stsb", [2, 2, 2], [1, 2, 3], {"pearson": 0.0, "spearman": 0.0}),
        ("stsb", [0, 0], [0, 0], {"pearson": 0.0, "spearman": 0.0}),
        ("stsb", [3], [1], {"pearson": 0.0, "spearman": 0.0}),
        # Equal except for rounding.
        (
            "stsb",
            [1, 2, 3],
            [0.1, 0.1 + 2e-17, np.nextafter(0.1, 1)],
            {"pearson": 0.0, "spearman": 0.0},
        ),
    ],
)
def test_undefined_is_zero_without_a_warning(
    task, labels, predictions, expected
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score_glue(task, labels, predictions) == expected


def test_nearly_equal_predictions_count():
    """A model whose outputs hardly differ still has an order."""
    predictions = np.float32(2.5) + np.float32([0.0, 1e-6, 2e-6, 3e-6])
    assert len(set(predictions)) == 4
    scores = score_glue("stsb", [0, 1, 2, 5], predictions)
    assert scores["spearman"] == pytest.approx(1.0)
    assert scores["pearson"] > 0.9


# Averages.


def test_main_score():
    assert main_score({"accuracy": 0.9}) == 0.9
    # (0.75 + 0.25) / 2
    assert main_score({"accuracy": 0.75, "f1": 0.25}) == 0.5
    # Two development sets.
    matched, mismatched = {"accuracy": 0.75}, {"accuracy": 0.5}
    assert main_score(matched, mismatched) == 0.625
    assert main_score({"pearson": -0.5, "spearman": 0.25}) == -0.125


def test_macro_score():
    # (0.5 + 0.9 + 0.1) / 3; each task counts the same.
    scores = {"cola": 0.5, "sst2": 0.9, "stsb": 0.1}
    assert macro_score(scores) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "`scores` must hold a score. Received: none."),
        ([{}], "`scores` must hold a score. Received: none."),
        (
            [{"f1": 0.5}, {"f1": 50.0}],
            "`scores` must be numbers from -1 to 1. Received: f1=50.0.",
        ),
        (
            [{"f1": float("nan")}],
            "`scores` must be numbers from -1 to 1. Received: f1=nan.",
        ),
    ],
)
def test_bad_scores(given, message):
    with pytest.raises(ValueError) as raised:
        main_score(*given)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("by_task", "message"),
    [
        ({}, "^`by_task` must hold a score. Received: none.$"),
        ({"cola": 51.3}, "`by_task` must be numbers from -1 to 1. .*cola=51.3"),
        (
            {"cola": 0.5, "sst-2": 0.9},
            "Received: task='sst-2'. Nearest .* sst2",
        ),
    ],
)
def test_bad_scores_of_tasks(by_task, message):
    with pytest.raises(ValueError, match=message):
        macro_score(by_task)


# Predictions from a model's outputs.


def test_classes_of_outputs():
    logits = np.float32([[0.5, 2.0, -1.0], [3.0, 3.0, 1.0], [-3.0, -2.0, -1.0]])
    predictions = class_predictions("mnli", logits)
    assert predictions.tolist() == [1, 0, 2]
    assert predictions.dtype == np.int32


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_scores_of_outputs(shape):
    logits = np.float32([-0.5, 0.25, 5.0, 5.5]).reshape(shape)
    predictions = class_predictions("stsb", logits)
    assert predictions.tolist() == [0.0, 0.25, 5.0, 5.0]
    assert predictions.dtype == np.float32
    assert predictions.shape == (4,)


def test_outputs_of_mixed_precision():
    logits = np.array([[0.5, 2.0], [3.0, 1.0]], ml_dtypes.bfloat16)
    assert class_predictions("cola", logits).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("task", "logits", "error", "message"),
    [
        (
            "cola",
            np.zeros((3, 3)),
            ValueError,
            r"`logits` must be of shape \(examples, 2\) for 'cola'. "
            r"Received: shape \(3, 3\).$",
        ),
        ("cola", np.zeros(3), ValueError, r"Received: shape \(3,\).$"),
        (
            "stsb",
            np.zeros((3, 2)),
            ValueError,
            r"\(examples, 1\) for 'stsb'. Received: shape \(3, 2\).$",
        ),
        (
            "cola",
            [[0.0, 1.0], [0.0, np.nan]],
            ValueError,
            r"`logits` must be finite. Received: nan at position \[1, 1\].$",
        ),
        (
            "stsb",
            [0.0, np.inf],
            ValueError,
            "`logits` must be finite. Received: inf at position 1.$",
        ),
        (
            "cola",
            [["a", "b"]],
            TypeError,
            "`logits` must be numbers. Received: dtype <U1.$",
        ),
    ],
)
def test_bad_outputs(task, logits, error, message):
    with pytest.raises(error, match=message):
        class_predictions(task, logits)


# Bad labels and predictions.


@pytest.mark.parametrize(
    ("task", "labels", "predictions", "error", "message"),
    [
        (
            "cola",
            [0, 1],
            [0, 1, 1],
            ValueError,
            "`labels` and `predictions` must be of one shape. Received: "
            r"labels.shape=\(2,\), predictions.shape=\(3,\).$",
        ),
        (
            "cola",
            [],
            [],
            ValueError,
            r"`labels` must be of shape \(examples,\), with at least one. "
            r"Received: shape \(0,\).$",
        ),
        (
            "cola",
            [0, 1],
            [[0], [1]],
            ValueError,
            r"`predictions` must be of shape .* Received: shape \(2, 1\).$",
        ),
        (
            "stsb",
            [],
            [],
            ValueError,
            r"`labels` must be of shape .* Received: shape \(0,\).$",
        ),
        (
            "cola",
            [0, 1],
            [0.0, 1.0],
            TypeError,
            "`predictions` must be integer class ids for 'cola'. "
            "Received: dtype float64.$",
        ),
        (
            "cola",
            [0, 1],
            [False, True],
            TypeError,
            "`predictions` must be integer class ids .* dtype bool.$",
        ),
        (
            "cola",
            [0, 2],
            [0, 1],
            ValueError,
            "`labels` must be 0 to 1. Received: 2 at position 1.$",
        ),
        (
            "mnli",
            [0, 2],
            [-1, 1],
            ValueError,
            "`predictions` must be 0 to 2. Received: -1 at position 0.$",
        ),
        (
            "stsb",
            [0.0, 5.5],
            [0.0, 1.0],
            ValueError,
            "`labels` must be 0 to 5. Received: 5.5 at position 1.$",
        ),
        (
            "stsb",
            [0.0, 5.0],
            [0.0, np.nan],
            ValueError,
            "`predictions` must be finite. Received: nan at position 1.$",
        ),
        (
            "stsb",
            [0.0, 5.0],
            ["0.0", "1.0"],
            TypeError,
            "`predictions` must be numbers. Received: dtype <U3.$",
        ),
    ],
)
def test_bad_examples(task, labels, predictions, error, message):
    with pytest.raises(error, match=message):
        score_glue(task, labels, predictions)


def test_unknown_task():
    with pytest.raises(ValueError, match="Received: task='sst3'. Nearest"):
        score_glue("sst3", [0], [0])


# Submissions.


@pytest.mark.parametrize(
    ("task", "split", "predictions", "name", "lines"),
    [
        ("cola", "test", [1, 0], "CoLA.tsv", ["0\t1", "1\t0"]),
        ("sst2", "test", [0, 1], "SST-2.tsv", ["0\t0", "1\t1"]),
        ("mrpc", "test", [0, 1], "MRPC.tsv", ["0\t0", "1\t1"]),
        ("qqp", "test", [0, 1], "QQP.tsv", ["0\t0", "1\t1"]),
        ("stsb", "test", [2.71828, 5], "STS-B.tsv", ["0\t2.718", "1\t5.000"]),
        ("stsb", "test", [-0.0, 0], "STS-B.tsv", ["0\t0.000", "1\t0.000"]),
        (
            "mnli",
            "test_matched",
            [2, 0],
            "MNLI-m.tsv",
            ["0\tcontradiction", "1\tentailment"],
        ),
        (
            "mnli",
            "test_mismatched",
            [1, 0],
            "MNLI-mm.tsv",
            ["0\tneutral", "1\tentailment"],
        ),
        (
            "qnli",
            "test",
            [0, 1],
            "QNLI.tsv",
            ["0\tentailment", "1\tnot_entailment"],
        ),
        (
            "rte",
            "test",
            [1, 0],
            "RTE.tsv",
            ["0\tnot_entailment", "1\tentailment"],
        ),
        ("wnli", "test", [0, 1], "WNLI.tsv", ["0\t0", "1\t1"]),
    ],
)
def test_submission(tmp_path, task, split, predictions, name, lines):
    folder = tmp_path / "new" / "folder"
    path = write_submission(task, split, [0, 1], predictions, folder)
    assert path == folder / name
    expected = "\n".join(["index\tprediction", *lines, ""])
    assert path.read_bytes() == expected.encode()
    assert list(folder.iterdir()) == [path]


def test_submission_is_in_order(tmp_path):
    path = write_submission("sst2", "test", [2, 0, 1], [1, 0, 0], tmp_path)
    assert path.read_text().split("\n")[1:] == ["0\t0", "1\t0", "2\t1", ""]


def test_submission_replaces_an_older_one(tmp_path):
    write_submission("sst2", "test", [0, 1], [1, 0], str(tmp_path))
    path = write_submission("sst2", "test", [0], [0], str(tmp_path))
    assert path.read_text() == "index\tprediction\n0\t0\n"


@pytest.mark.parametrize(
    ("split", "ids", "predictions", "message"),
    [
        ("dev", [0], [0], r"`split` must be one of \['test'\] of 'rte'."),
        (
            "test",
            [1, 2],
            [0, 1],
            "`ids` must be 0 to 1 for 2 predictions, each once, in any order. "
            r"Received: 2 ids, \[1, 2\].$",
        ),
        ("test", [0, 0], [0, 1], r"`ids` must be .* Received: 2 ids, \[0, 0\]"),
        ("test", [0], [0, 1], "`ids` must be 0 to 1 .* Received: 1 ids"),
        ("test", [0], [2], "`predictions` must be 0 to 1. Received: 2 at"),
    ],
)
def test_bad_submission(tmp_path, split, ids, predictions, message):
    with pytest.raises(ValueError, match=message):
        write_submission("rte", split, ids, predictions, tmp_path)
    assert not list(tmp_path.iterdir())


def test_bad_scores_of_a_submission(tmp_path):
    message = "`predictions` must be 0 to 5. Received: 5.1 at position 1.$"
    with pytest.raises(ValueError, match=message):
        write_submission("stsb", "test", [0, 1], [1.0, 5.1], tmp_path)


def test_submission_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="RTE.tsv could not be written: "):
        write_submission("rte", "test", [0], [0], blocked)
