import numpy as np
import pytest
import scipy.stats

from keras_distil.evaluation import significance
from keras_distil.evaluation.significance import (
    ACCURACY,
    COUNTED_METRICS,
    F1,
    MATTHEWS,
    PEARSON,
    SPEARMAN,
    Interval,
    PairedDifference,
    ScoredExamples,
    bootstrap_scores,
    interval,
    macro_samples,
    mean_of,
    paired_difference,
    task_seed,
)


def classes(size, right=0.75, seed=1):
    """Labels 0 and 1, and predictions of which a share is right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=size)
    wrong = rng.random(size) >= right
    return labels, np.where(wrong, 1 - labels, labels)


def scores(size, seed=1):
    """Labels in steps of 0.2, and predictions near them, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(26, size=size) / 5
    return labels, np.round(labels + rng.normal(size=size), 1)


def f1_in_words(labels, predictions):
    pairs = list(zip(labels, predictions, strict=True))
    true_positives = pairs.count((1, 1))
    missed, wrongly = pairs.count((1, 0)), pairs.count((0, 1))
    return true_positives / (true_positives + (missed + wrongly) / 2)


# Of two classes, the Matthews correlation is Pearson's of the class numbers.
REFERENCES = {
    "accuracy": (classes, lambda y, p: np.mean(y == p)),
    "f1": (classes, f1_in_words),
    "matthews_correlation": (classes, lambda y, p: np.corrcoef(y, p)[0, 1]),
    "pearson": (scores, lambda y, p: scipy.stats.pearsonr(y, p).statistic),
    "spearman": (scores, lambda y, p: scipy.stats.spearmanr(y, p).statistic),
}


def test_every_metric_has_a_reference():
    assert list(COUNTED_METRICS) == list(REFERENCES)


@pytest.mark.parametrize("name", REFERENCES)
def test_counting_is_drawing(name):
    make, reference = REFERENCES[name]
    labels, predictions = make(60)
    draws = np.random.default_rng(2).integers(60, size=(20, 60))
    counts = np.array([np.bincount(draw, minlength=60) for draw in draws])
    found = COUNTED_METRICS[name].by_counts(
        labels, predictions, counts.astype("float64")
    )
    gathered = [reference(labels[draw], predictions[draw]) for draw in draws]
    # Sums of 60 float64 numbers.
    np.testing.assert_allclose(found, gathered, rtol=1e-12)
    once = COUNTED_METRICS[name](labels, predictions)
    assert once == pytest.approx(reference(labels, predictions), rel=1e-12)


def test_metrics_by_hand():
    labels, predictions = np.array([1, 1, 1, 0]), np.array([1, 1, 0, 1])
    # 2 true positives, 1 missed, 1 wrongly positive, no true negative.
    assert ACCURACY(labels, predictions) == 0.5
    assert F1(labels, predictions) == pytest.approx(4 / 6)
    assert MATTHEWS(labels, predictions) == pytest.approx(-1 / 3)
    both = mean_of(ACCURACY, F1)
    assert both.name == "accuracy+f1"
    assert both(labels, predictions) == pytest.approx(7 / 12)


def test_matthews_of_three_classes():
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1])
    # Right 3 of 4; labels 2, 1, 1 and predictions 2, 2, 0 of each class:
    # (3 * 4 - 6) / sqrt((16 - 6) * (16 - 8)), Gorodkin 2004.
    assert MATTHEWS(labels, predictions) == pytest.approx(6 / 80**0.5)


def test_ranks_by_hand():
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4 less their mean 2.5.
    found = SPEARMAN(np.array([1, 7, 7, 9]), np.array([1, 2, 3, 4]))
    assert found == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


@pytest.mark.parametrize("metric", [MATTHEWS, PEARSON, SPEARMAN])
def test_no_correlation_with_one_value(metric):
    varied = np.array([0, 1, 0, 1])
    assert metric(varied, np.array([1, 1, 1, 1])) == 0.0
    assert metric(np.array([1, 1, 1, 1]), varied) == 0.0
    # A draw of one value out of two.
    counts = np.array([[3.0, 0.0, 1.0, 0.0]])
    assert metric.by_counts(varied, varied, counts) == [0.0]


@pytest.mark.parametrize("metric", [PEARSON, SPEARMAN])
def test_rounding_is_not_a_correlation(metric):
    nearly = np.array([0.3, 0.1 + 0.2, 0.1 + 0.2, 0.3])
    assert metric(np.array([1.0, 2.0, 2.0, 1.0]), nearly) == 0.0


def test_rounding_in_a_draw_of_one_value_is_not_a_correlation():
    rng = np.random.default_rng(3)
    labels, predictions = np.repeat(rng.normal(size=(2, 200)), 7, axis=1)
    # Each draw has the seven examples of one value alone.
    counts = np.kron(np.eye(200), [3.0, 1.0, 7.0, 5.0, 3.0, 1.0, 9.0])
    found = PEARSON.by_counts(labels, predictions, counts)
    assert found.tolist() == [0.0] * 200


def test_f1_without_positives():
    zeros = np.zeros(3, int)
    assert F1(zeros, zeros) == 0.0


def test_two_examples_one_right():
    labels, predictions = np.array([1, 1]), np.array([[1, 0]])
    found = bootstrap_scores(labels, predictions, ACCURACY, resamples=10_000)
    values, counts = np.unique(found, return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    # A share of 10,000 has a standard deviation of at most 0.005.
    np.testing.assert_allclose(counts / 10_000, [0.25, 0.5, 0.25], atol=0.025)


def test_any_function_is_a_metric():
    labels, predictions = scores(50)
    systems = np.stack([predictions, predictions[::-1], labels])
    slow = bootstrap_scores(
        labels,
        systems,
        lambda y, p: scipy.stats.pearsonr(y, p).statistic,
        resamples=20,
    )
    fast = bootstrap_scores(labels, systems, PEARSON, resamples=20)
    assert slow.shape == (20,)
    assert slow.std() > 0
    np.testing.assert_allclose(slow, fast, rtol=1e-12)


def test_rows_of_more_than_one_number_are_drawn_whole():
    labels = np.arange(12).reshape(6, 2)
    # Another seed, all of it correct.
    predictions = np.stack([labels, labels])
    found = bootstrap_scores(
        labels, predictions, lambda y, p: np.mean(y == p), resamples=5
    )
    assert found.tolist() == [1.0] * 5


def test_median_over_seeds():
    labels = np.zeros(4)
    predictions = np.array([[1.0] * 4, [9.0] * 4, [2.0] * 4])
    found = bootstrap_scores(
        labels, predictions, lambda y, p: p.mean(), resamples=3
    )
    assert found.tolist() == [2.0] * 3


def test_draws_are_the_same_however_many_are_held(monkeypatch):
    labels, predictions = classes(30)
    whole = bootstrap_scores(labels, predictions[None], ACCURACY)
    monkeypatch.setattr(significance, "_COUNTS_AT_A_TIME", 100)
    parts = bootstrap_scores(labels, predictions[None], ACCURACY)
    assert whole.tolist() == parts.tolist()
    assert whole.shape == (1000,)


def test_seed():
    labels, predictions = classes(30)

    def draw(**options):
        return bootstrap_scores(
            labels, predictions[None], ACCURACY, **options
        ).tolist()

    assert draw() == draw(seed=0)
    assert draw() != draw(seed=1)
    assert draw(resamples=7) == draw()[:7]


def correlation(labels, predictions, axis):
    def centred(values):
        return values - values.mean(axis=axis, keepdims=True)

    y, p = centred(labels), centred(predictions)
    return (y * p).sum(axis) / np.sqrt((y**2).sum(axis) * (p**2).sum(axis))


@pytest.mark.parametrize(
    ("make", "metric", "statistic"),
    [
        (classes, ACCURACY, lambda y, p, axis: np.mean(y == p, axis=axis)),
        (scores, PEARSON, correlation),
    ],
)
def test_as_scipy(make, metric, statistic):
    labels, predictions = make(120)
    draws = 10_000
    found = bootstrap_scores(labels, predictions[None], metric, resamples=draws)
    peer = scipy.stats.bootstrap(
        (labels, predictions),
        statistic,
        paired=True,
        method="percentile",
        n_resamples=draws,
        vectorized=True,
        rng=np.random.default_rng(5),
    )
    # The end of a normal distribution's 95% interval, from N draws, has a
    # standard error of sqrt(0.025 * 0.975 / N) / 0.0584 = 2.7 / sqrt(N)
    # standard deviations; both are drawn; 4 errors; and accuracies come in
    # steps.
    error = 4 * 2**0.5 * 2.7 / draws**0.5 * peer.standard_error
    step = 1 / 120 if metric is ACCURACY else 0.0
    ends, peers = interval(found), peer.confidence_interval
    assert ends.low == pytest.approx(peers.low, abs=error + step)
    assert ends.high == pytest.approx(peers.high, abs=error + step)
    assert found.std() == pytest.approx(peer.standard_error, rel=0.05)


def test_as_the_binomial_distribution():
    size, right = 400, 320
    labels = np.ones(size, int)
    predictions = (np.arange(size) < right).astype(int)
    found = interval(
        bootstrap_scores(labels, predictions[None], ACCURACY, resamples=10_000)
    )
    # Drawing from 400 of which 320 are right is the binomial distribution; a
    # standard deviation is 8 examples, an end's standard error 0.2.
    low, high = scipy.stats.binom.ppf([0.025, 0.975], size, right / size)
    assert found.low * size == pytest.approx(low, abs=1.01)
    assert found.high * size == pytest.approx(high, abs=1.01)
    # And that is nearly normal.
    assert found.low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.003)
    assert found.high == pytest.approx(0.8 + 1.96 * 0.02, abs=0.003)


def test_coverage_of_a_known_population():
    trials, inside = 300, 0
    rng = np.random.default_rng(7)
    for _ in range(trials):
        labels = np.ones(150, int)
        predictions = (rng.random(150) < 0.7).astype(int)[None]
        drawn = bootstrap_scores(labels, predictions, ACCURACY, resamples=300)
        ends = interval(drawn, level=0.9)
        inside += ends.low <= 0.7 <= ends.high
    # 300 trials have a standard deviation of 0.017.
    assert inside / trials == pytest.approx(0.9, abs=0.06)


def test_false_alarms_of_equal_systems():
    trials, alarms = 300, 0
    rng = np.random.default_rng(8)
    for _ in range(trials):
        labels = np.ones(150, int)
        first, second = (rng.random((2, 1, 150)) < 0.7).astype(int)
        found = paired_difference(
            bootstrap_scores(labels, first, ACCURACY, resamples=300),
            bootstrap_scores(labels, second, ACCURACY, resamples=300),
            level=0.9,
        )
        alarms += not found.inside
    assert alarms / trials == pytest.approx(0.1, abs=0.06)


def test_interval_by_hand():
    found = interval(np.arange(101.0))
    assert (found.low, found.high) == pytest.approx((2.5, 97.5))
    assert interval(np.arange(101.0), level=0.5) == Interval(25.0, 75.0)


def test_paired_difference_by_hand():
    first, second = np.array([3.0, 2.0, 5.0, 1.0]), np.array([1.0, 2.0, 2.0, 2])
    # Differences 2, 0, 3, -1: two of four are 0 or less.
    found = paired_difference(first, second, level=0.5)
    assert found == PairedDifference(1.0, -0.25, 2.25, 0.5, True)
    other = paired_difference(first + 2.0, second, level=0.5)
    assert other == PairedDifference(3.0, 1.75, 4.25, 0.0, False)


@pytest.mark.parametrize(
    ("differences", "inside"),
    [([0.0, 0.0], True), ([-1.0, 1.0], True), ([-1.0, -0.5], False)],
)
def test_inside_holds_its_ends(differences, inside):
    found = paired_difference(np.array(differences), np.zeros(2))
    assert found.inside is inside


def test_systems_share_their_draws():
    labels, first = classes(200)
    second = first.copy()
    second[np.flatnonzero(first == labels)[:3]] ^= 1
    drawn = [
        bootstrap_scores(labels, one[None], ACCURACY) for one in (first, second)
    ]
    same = paired_difference(drawn[0], drawn[0])
    assert same == PairedDifference(0.0, 0.0, 0.0, 1.0, True)
    # Three examples of 200 differ: a difference's standard deviation is
    # sqrt(3) / 200, a score's 6 / 200.
    assert np.std(drawn[0] - drawn[1]) == pytest.approx(3**0.5 / 200, rel=0.1)
    assert np.std(drawn[0]) > 0.025
    # In a share (1 - 3 / 200)**200 of the draws none of the three comes.
    found = paired_difference(*drawn)
    assert found.p_value == pytest.approx(0.0487, abs=0.03)
    assert found.mean == pytest.approx(3 / 200, rel=0.1)


def test_tasks_draw_independently():
    labels, predictions = classes(200)
    one, other = (
        bootstrap_scores(
            labels, predictions[None], ACCURACY, seed=task_seed(task)
        )
        for task in ("cola", "rte")
    )
    # 1000 pairs: the standard error of no correlation is 0.032.
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.13
    macro = macro_samples({"cola": one, "rte": other})
    assert macro.std() == pytest.approx(one.std() / 2**0.5, rel=0.1)


def test_task_seed():
    seeds = {task_seed(t, s) for t in ("cola", "rte", "\udc80") for s in (0, 1)}
    assert len(seeds) == 6
    # sha256sum of "0/cola", its first 16 digits.
    assert task_seed("cola") == 0x928CAB8A4E9F17BA


def test_macro_by_hand():
    found = macro_samples({"a": np.array([1.0, 2]), "b": np.array([3.0, 8])})
    assert found.tolist() == [2.0, 5.0]


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [[]], r"`labels` must hold at least one .* shape \(0,\)"),
        (1, [[1]], r"`labels` must hold at least one .* shape \(\)"),
        ([1], [1], r"`predictions` must have .*\(seeds, 1, .* shape \(1,\)"),
        ([1, 0], [[1]], r"\(seeds, 2, ...\), .* shape \(1, 1\)"),
        ([1], np.zeros((0, 1)), r"shape \(0, 1\)"),
        ([1.0], [[np.nan]], "`predictions` must be finite. Received: nan"),
        ([np.inf], [[1.0]], "`labels` must be finite. Received: inf"),
    ],
)
def test_unusable_examples(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        ScoredExamples(labels, predictions)
    with pytest.raises(ValueError, match=message):
        bootstrap_scores(labels, predictions, ACCURACY)


def test_examples_become_arrays():
    examples = ScoredExamples([1, 0], [[1, 1]])
    assert examples.labels.tolist() == [1, 0]
    assert examples.predictions.shape == (1, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resamples": 0}, ValueError, "`resamples` must be at least 1"),
        ({"resamples": 1.5}, TypeError, "`resamples` must be an integer"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0.*seed=-1"),
        ({"seed": None}, TypeError, "`seed` must be an integer.*seed=None"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        bootstrap_scores([1], [[1]], ACCURACY, **options)


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), ("", TypeError)])
def test_wrong_task_seed(seed, error):
    with pytest.raises(error, match="`seed` must be"):
        task_seed("cola", seed)


def test_metric_that_is_not_finite():
    with pytest.raises(ValueError, match="finite number .* Received: nan"):
        bootstrap_scores([1, 0], [[1, 0]], lambda y, p: float("nan"))


@pytest.mark.parametrize("level", [0.0, 1.0, 95, float("nan")])
def test_wrong_level(level):
    with pytest.raises(ValueError, match="`level` must be between 0 and 1"):
        interval(np.array([1.0]), level)


@pytest.mark.parametrize("samples", [[], [[1.0]], 1.0])
def test_interval_of_no_draws(samples):
    with pytest.raises(ValueError, match="`samples` must be an array with one"):
        interval(samples)


def test_difference_of_other_draws():
    with pytest.raises(ValueError, match=r"same draws.*\(2,\) and \(3,\)"):
        paired_difference(np.zeros(2), np.zeros(3))


@pytest.mark.parametrize("samples", [{}, {"a": np.zeros(2), "b": np.zeros(3)}])
def test_macro_of_other_draws(samples):
    with pytest.raises(ValueError, match="`samples` must hold at least one"):
        macro_samples(samples)


def test_mean_of_no_metric():
    with pytest.raises(ValueError, match="`metrics` must hold at least one"):
        mean_of()
