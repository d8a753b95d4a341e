import dataclasses
import json

import numpy as np
import pytest

from keras_distil.evaluation.significance import ScoredExamples
from keras_distil.runs.score_table import (
    PUBLISHED,
    Comparison,
    Costs,
    PublishedRow,
    Range,
    ResultTable,
    TaskResult,
    points,
)
from keras_distil.runs.table_making import make_table

RTE = [1, 0, 1, 0]
MRPC = [1, 1, 0, 0]


def rte(*seeds, labels=RTE):
    metrics = [{"accuracy": float(np.mean(np.equal(labels, p)))} for p in seeds]
    return TaskResult(ScoredExamples(labels, seeds), metrics)


def mrpc(predictions, accuracy, f1):
    examples = ScoredExamples(MRPC, [predictions])
    return TaskResult(examples, [{"accuracy": accuracy, "f1": f1}])


# The teacher's seeds have 1, 4 and 3 of 4 right. The student and the baseline
# have 2 of 4 right, but not the same.
RESULTS = {
    "baseline": {"rte": rte([1, 1, 1, 1])},
    "teacher": {
        "rte": rte([0, 0, 0, 1], [1, 0, 1, 0], [1, 0, 1, 1]),
        "mrpc": mrpc([1, 1, 0, 0], 1.0, 1.0),
    },
    "student": {
        "rte": rte([1, 0, 0, 1]),
        # 1 true positive, 1 missed: F1 is 2 / 3.
        "mrpc": mrpc([1, 0, 0, 0], 0.75, 2 / 3),
    },
}
COSTS = {
    "teacher": Costs(parameters=100, size_mb=0.4, latency_ms=8.0),
    "student": Costs(parameters=60, size_mb=0.24, latency_ms=2.0),
}


@pytest.fixture(scope="module")
def table():
    return make_table(RESULTS, COSTS, PUBLISHED)


@pytest.fixture(scope="module")
def rows(table):
    return {row.name: row for row in table.rows}


def test_order(table):
    assert [row.name for row in table.rows] == [
        "teacher",
        "student",
        "baseline",
    ]
    assert table.tasks == ("rte", "mrpc")
    one = {"rte": rte(RTE)}
    named = ("elmo", "int8", "student", "another", "teacher")
    other = make_table({name: one for name in named}, {})
    order = [row.name for row in other.rows]
    assert order == ["teacher", "student", "int8", "another", "elmo"]
    assert [row.student_size for row in other.rows] == [0, 1, 1, 1, 0]


def test_scores_by_hand(rows):
    teacher = rows["teacher"].tasks["rte"]
    assert (teacher.score, teacher.lowest, teacher.highest) == (75, 25, 100)
    assert (teacher.seeds, teacher.metrics) == (3, {"accuracy": 75.0})
    student = rows["student"].tasks
    assert (student["rte"].score, student["rte"].seeds) == (50.0, 1)
    assert student["rte"].lowest == student["rte"].highest == 50.0
    assert student["mrpc"].score == pytest.approx(70.8333333)
    assert student["mrpc"].metrics == pytest.approx(
        {"accuracy": 75.0, "f1": 66.6666667}
    )
    assert list(rows["baseline"].tasks) == ["rte"]


def test_mean_by_hand(rows):
    assert rows["teacher"].macro.score == 87.5
    assert rows["student"].macro.score == pytest.approx(60.4166667)
    # It lacks a task of the table.
    assert rows["baseline"].macro is None


def test_retention_by_hand(rows):
    assert rows["teacher"].macro.retention == 100.0
    assert rows["teacher"].tasks["rte"].retention == 100.0
    assert rows["student"].macro.retention == pytest.approx(69.0476190)
    assert rows["student"].tasks["rte"].retention == pytest.approx(66.6666667)
    assert rows["student"].tasks["mrpc"].retention == pytest.approx(70.8333333)
    assert rows["baseline"].tasks["rte"].retention == pytest.approx(200 / 3)


def test_intervals_by_hand(rows):
    # Of draws of 4 with 2 of 4 right, 6% have none and 6% have all.
    assert rows["student"].tasks["rte"].interval == Range(low=0, high=100)
    # All right in every draw; but 6% of them hold no positive, so that F1 is
    # 0 and its mean with accuracy 50.
    assert rows["teacher"].tasks["mrpc"].interval == Range(low=50, high=100)


def test_tasks_are_drawn_apart():
    labels = np.ones(400, int)
    system = rte((np.arange(400) < 300).astype(int), labels=labels)
    row = make_table({"student": {"a": system, "b": system}}, {}).rows[0]
    one, both = row.tasks["a"].interval, row.macro.interval
    # A mean of two has a smaller error, by the root of two.
    ratio = (both.high - both.low) / (one.high - one.low)
    assert ratio == pytest.approx(0.5**0.5, abs=0.1)


def test_costs(rows):
    student = rows["student"]
    assert (student.parameters, student.size_mb) == (60, 0.24)
    assert (student.latency_ms, student.latency_ratio) == (2.0, 0.25)
    assert rows["teacher"].latency_ratio == 1.0
    missing = rows["baseline"]
    assert missing.parameters is missing.size_mb is None
    assert missing.latency_ms is missing.latency_ratio is None


def test_ratio_to_no_time():
    costs = {"teacher": Costs(latency_ms=0.0), "student": Costs(latency_ms=1.0)}
    table = make_table(RESULTS, costs)
    assert [row.latency_ratio for row in table.rows] == [None] * 3


def test_comparisons(table):
    found = [(c.first, c.second, c.task) for c in table.comparisons]
    assert found == [
        ("student", "teacher", "rte"),
        ("student", "teacher", "mrpc"),
        ("student", "teacher", None),
        ("baseline", "teacher", "rte"),
        ("student", "baseline", "rte"),
    ]
    tie = table.comparison("student", "baseline", "rte")
    assert (tie.difference, tie.significant) == (0.0, False)
    # They are right about other examples.
    assert tie.interval.low < 0 < tie.interval.high
    mean = table.comparison("student", "teacher")
    assert mean.difference == pytest.approx(-27.0833333)
    assert table.comparison("student", "baseline") is None
    assert table.comparison("teacher", "student", "rte") is None


def test_significant_difference_by_hand():
    labels = np.ones(400, int)
    worse = (np.arange(400) < 300).astype(int)
    results = {
        "teacher": {"rte": rte(labels, labels=labels)},
        "student": {"rte": rte(worse, labels=labels)},
    }
    table = make_table(results, {}, resamples=2000)
    found = table.comparison("student", "teacher", "rte")
    assert (found.difference, found.significant) == (-25.0, True)
    assert found.p_value == 1.0
    # A quarter of 400 has a standard deviation of 2.165 points.
    assert found.interval.low == pytest.approx(-25 - 1.96 * 2.165, abs=0.6)
    assert found.interval.high == pytest.approx(-25 + 1.96 * 2.165, abs=0.6)
    # Draws are shared: so are the wrong answers.
    same = make_table({**results, "teacher": results["student"]}, {})
    tie = same.comparison("student", "teacher", "rte")
    assert tie.interval == Range(low=0, high=0)
    assert (tie.significant, tie.p_value) == (False, 1.0)


def test_options():
    narrow = make_table(RESULTS, {}, level=0.1, resamples=99, seed=1)
    assert (narrow.level, narrow.resamples) == (0.1, 99)
    assert narrow.rows[1].tasks["rte"].interval == Range(low=50, high=50)
    wide = make_table(RESULTS, {}, level=0.1, resamples=99)
    assert wide.rows != narrow.rows
    assert wide == make_table(RESULTS, {}, level=0.1, resamples=99)
    assert wide.published == ()


@pytest.mark.parametrize("without", ["teacher", "baseline", "student"])
def test_without_a_row(without):
    results = {name: row for name, row in RESULTS.items() if name != without}
    table = make_table(results, {})
    kept = [s.retention for row in table.rows for s in row.tasks.values()]
    assert (None in kept) == (without == "teacher")
    sides = {s for c in table.comparisons for s in (c.first, c.second)}
    assert sides == set(results)


def test_teacher_without_a_task():
    results = {
        "teacher": {"rte": RESULTS["teacher"]["rte"]},
        "student": RESULTS["student"],
    }
    teacher, student = make_table(results, {}).rows
    assert teacher.macro is None
    assert student.macro.score == pytest.approx(60.4166667)
    assert student.macro.retention is None
    assert student.tasks["mrpc"].retention is None
    assert student.tasks["rte"].retention == pytest.approx(66.6666667)


def test_teacher_that_scores_nothing():
    results = {
        "teacher": {"rte": rte([0, 1, 0, 1])},
        "student": {"rte": rte(RTE)},
    }
    for row in make_table(results, {}).rows:
        assert row.tasks["rte"].retention is None
        assert row.macro.retention is None


def test_metric_of_one_s_own():
    result = TaskResult(ScoredExamples(RTE, [RTE]), [{"words": 3.0}])
    table = make_table(
        {"student": {"squad": result}},
        {},
        metrics={"squad": lambda y, p: np.mean(y == p) / 2},
        resamples=10,
    )
    score = table.rows[0].tasks["squad"]
    assert (score.score, score.metrics) == (50.0, {"words": 300.0})


def test_json(table):
    text = table.to_json()
    assert ResultTable.from_json(text) == table
    content = json.loads(text)
    assert content["format_version"] == 1
    assert content["rows"][2]["macro"] is None
    assert content["rows"][0]["tasks"]["rte"]["score"] == 75.0


def damage(text, *keys, value):
    content = json.loads(text)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["format_version"], 2, "version 1. Received: format_version: "),
        (["rows", 0, "name"], 3, "rows.0.name: Input should be a valid string"),
        (["rows", 0, "colour"], 3, "rows.0.colour: Extra inputs"),
        (["rows", 0, "size_mb"], -1.0, "rows.0.size_mb: Input should be gr"),
        (["rows", 0, "size_mb"], "1", "rows.0.size_mb: Input should be a val"),
        (["rows", 0, "latency_ms"], float("nan"), "rows.0.latency_ms"),
        (["rows", 1, "name"], "teacher", "must have different names"),
        (["tasks"], ["rte", "rte", "mrpc"], "must have different names"),
        (["tasks"], ["rte"], "`tasks` must name every task that is used"),
        (["comparisons", 0, "task"], "x", "`tasks` must name every task"),
        (["comparisons", 0, "first"], "x", "must be of rows of the table"),
    ],
)
def test_damaged_table(table, keys, value, message):
    with pytest.raises(ValueError, match=message) as raised:
        ResultTable.from_json(damage(table.to_json(), *keys, value=value))
    assert str(raised.value).startswith("`text` must be the JSON of a results")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "{}", "[" * 100_000, '{"a": "\udc80"}']
)
def test_no_table(text):
    with pytest.raises(
        ValueError, match="^`text` must be the JSON of"
    ) as raised:
        ResultTable.from_json(text)
    assert "\n" not in str(raised.value)


def test_every_cut_of_the_json_is_refused(table):
    text = table.to_json().rstrip()
    for end in range(0, len(text), 97):
        with pytest.raises(ValueError, match="`text` must be the JSON"):
            ResultTable.from_json(text[:end])


SENTENCE = Comparison(
    first="student",
    second="teacher",
    task="rte",
    difference=0.4,
    interval=Range(low=-0.3, high=1.1),
    p_value=0.2,
    significant=False,
    level=0.95,
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "The difference of 0.4 points between student and teacher on rte "
            "is not significant: its 95% interval [-0.3, 1.1] contains 0.",
        ),
        (
            {
                "task": None,
                "interval": Range(low=0.004, high=1.1),
                "significant": True,
                "level": 0.9,
            },
            "The difference of 0.4 points between student and teacher on the "
            "mean over the tasks is significant: its 90% interval [0.004, "
            "1.100] does not contain 0.",
        ),
        (
            {"difference": -0.04, "interval": Range(low=-0.02, high=0.0)},
            "The difference of 0.0 points between student and teacher on rte "
            "is not significant: its 95% interval [-0.02, 0.00] contains 0.",
        ),
    ],
)
def test_sentences(changes, sentence):
    assert SENTENCE.model_copy(update=changes).sentence == sentence


def test_points():
    assert [points(x) for x in (-0.04, 0.0, -12.34)] == ["0.0", "0.0", "-12.3"]


def test_published_figures():
    found = {
        row.name: (row.macro, row.parameters, row.latency_ms)
        for row in PUBLISHED
    }
    # The table in section 3.1 of the summary.
    assert found == {
        "BERT-base": (79.5, 110_000_000, 649.0),
        "DistilBERT": (77.0, 66_000_000, 410.0),
        "ELMo": (71.0, 180_000_000, 895.0),
    }
    for row in PUBLISHED[:2]:
        # The macro score is the mean of the nine, each given to 0.1.
        assert np.mean(list(row.scores.values())) == pytest.approx(
            row.macro, abs=0.15
        )
    # "Retains 97%".
    assert round(PUBLISHED[1].retention) == 97
    assert all("1910.01108" in row.source for row in PUBLISHED)


def test_published_rows_are_kept():
    row = PublishedRow(name="x", source="y", scores={"rte": 59.9})
    table = make_table(RESULTS, {}, [row], resamples=2)
    assert ResultTable.from_json(table.to_json()).published == (row,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameters", -1),
        ("size_mb", float("nan")),
        ("latency_ms", float("inf")),
    ],
)
def test_impossible_costs(name, value):
    message = f"`{name}` must be a finite number that .* {name}={value}"
    with pytest.raises(ValueError, match=message):
        Costs(**{name: value})


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "one entry for each of the 1 seeds of `examples`. Received: 0"),
        ([{}, {}], "each of the 1 seeds of `examples`. Received: 2"),
        ([{"f1": float("nan")}], "must be finite numbers. Received: f1=nan"),
    ],
)
def test_impossible_metrics(metrics, message):
    with pytest.raises(ValueError, match=message):
        TaskResult(ScoredExamples(RTE, [RTE]), metrics)


def test_seeds_with_other_metrics():
    examples = ScoredExamples(RTE, [RTE, RTE])
    message = r"same metrics for every seed.*\[\['a'\], \['b'\]\]"
    with pytest.raises(ValueError, match=message):
        TaskResult(examples, [{"a": 1.0}, {"b": 1.0}])


def with_metrics(**metrics):
    return dataclasses.replace(rte(RTE), metrics=[metrics])


@pytest.mark.parametrize(
    ("results", "costs", "message"),
    [
        ({}, {}, r"`results` must hold a task or more. Received: rows \[\]"),
        ({"student": {}}, {}, r"must hold a task .* rows \['student'\]"),
        (RESULTS, {"elmo": Costs()}, r"`costs` must be .* \['elmo'\]"),
        (
            {"a": {"rte": rte(RTE)}, "b": {"rte": rte(MRPC, labels=MRPC)}},
            {},
            "must have the same labels in every row. .* of 'rte'",
        ),
        (
            {"a": {"rte": rte(RTE)}, "b": {"rte": with_metrics(f1=1.0)}},
            {},
            r"same metrics in every row. .* \['accuracy'\] and \['f1'\]",
        ),
        (
            {"a": {"rte": with_metrics(bleu=1.0)}},
            {},
            r"must have a function for 'rte', .* \['bleu'\]",
        ),
        ({"a": {"rte": with_metrics()}}, {}, r"function for 'rte', .* \[\]"),
        (
            {"a": {"rte": with_metrics(accuracy=0.5)}},
            {},
            "must be those of the examples. Received: accuracy=0.5 of 'rte', "
            "whose examples give 1.0",
        ),
    ],
)
def test_wrong_results(results, costs, message):
    with pytest.raises(ValueError, match=message):
        make_table(results, costs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"level": 1.0}, ValueError, "`level` must be between 0 and 1"),
        ({"resamples": 0}, ValueError, "`resamples` must be at least 1"),
        ({"seed": 0.5}, TypeError, "`seed` must be an integer"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        make_table(RESULTS, COSTS, **options)
