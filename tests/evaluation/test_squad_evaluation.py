import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from keras_distil.data import (
    SquadAnswer,
    SquadExample,
    load_squad,
    load_tokenizer,
    make_squad_windows,
)
from keras_distil.evaluation.squad import (
    NoAnswerThresholds,
    SQuADEvaluator,
    SquadScores,
    best_answers,
    best_no_answer_threshold,
    exact_match,
    f1_score,
    normalize_answer,
    score_questions,
    score_squad,
    write_predictions,
)

# Made by make_squad.py, in the same folder, with the official scripts.
GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "squad.json").read_text("utf-8")
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """One token per letter; [PAD] is not 0, on purpose."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokens = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return load_tokenizer(folder)


def example(id_, context, *golds, question="q", impossible=False):
    answers = tuple(SquadAnswer(g, context.index(g)) for g in golds)
    return SquadExample(id_, "", question, context, answers, impossible)


def scored(id_, *golds, impossible=False):
    """An example of which only the gold answers matter."""
    return example(id_, "|".join(golds), *golds, impossible=impossible)


def golden_examples(version):
    return [
        scored(q["id"], *q["golds"], impossible=q["is_impossible"])
        for q in GOLDEN[version]["questions"]
    ]


def test_normalized_as_officially():
    pairs = zip(GOLDEN["strings"], GOLDEN["pairs"]["normalized"], strict=True)
    for text, expected in pairs:
        assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("key", "metric"),
    [
        ("exact", exact_match),
        ("f1_of_1.1", f1_score),
        ("f1_of_2.0", lambda p, g: f1_score(p, g, version="2.0")),
    ],
)
def test_pairs_are_scored_as_officially(key, metric):
    strings = GOLDEN["strings"]
    found = [[metric(p, g) for g in strings] for p in strings]
    # Official F1 divides twice: the last digit may differ.
    np.testing.assert_allclose(found, GOLDEN["pairs"][key], rtol=1e-15)


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "f1"),
    [
        ("The Nobel Prize.", "nobel prize", 1, 1),
        ("in 1903", "1903", 0, 2 / 3),
        ("to to be", "to be be", 0, 2 / 3),
        ("1,000", "1000", 1, 1),
        ("the end", "theend", 0, 0),
        ("a", "the", 1, 0),
    ],
)
def test_scores_by_hand(prediction, gold, exact, f1):
    assert exact_match(prediction, gold) == exact
    assert f1_score(prediction, gold) == pytest.approx(f1, rel=1e-15)


def test_words_of_nothing():
    assert f1_score("", "") == f1_score("", "", version="1.1") == 0
    assert f1_score("the", ".", version="2.0") == 1
    assert f1_score("", "sea", version="2.0") == 0


def test_unknown_version():
    message = "`version` must be '1.1' or '2.0'. Received: version='2'."
    with pytest.raises(ValueError, match=message):
        f1_score("a", "b", version="2")


def test_first_version_is_scored_as_officially():
    golden = GOLDEN["1.1"]
    found = score_squad(golden_examples("1.1"), golden["predictions"])
    assert found.exact == pytest.approx(golden["scores"]["exact_match"])
    assert found.f1 == pytest.approx(golden["scores"]["final_f1"])
    assert (found.total, found.has_answer_total) == (200, 200)
    assert found.has_answer_exact == found.exact
    assert found.no_answer_total == 0
    assert found.no_answer_exact is found.no_answer_f1 is None


def test_second_version_is_scored_as_officially():
    golden = GOLDEN["2.0"]
    found = score_squad(golden_examples("2.0"), golden["predictions"])
    expected = golden["scores"]
    for name in ("exact", "f1", "total"):
        for ours, theirs in (
            ("", ""),
            ("has_answer_", "HasAns_"),
            ("no_answer_", "NoAns_"),
        ):
            value = getattr(found, ours + name)
            assert value == pytest.approx(expected[theirs + name])


@pytest.mark.parametrize("threshold", ["0.3", "0.45", "0.6"])
def test_threshold_counts_as_officially(threshold):
    golden = GOLDEN["2.0"]
    found = score_squad(
        golden_examples("2.0"),
        golden["predictions"],
        no_answer_scores=golden["no_answer_scores"],
        no_answer_threshold=float(threshold),
    )
    expected = golden["at_threshold"][threshold]
    assert found.exact == pytest.approx(expected["exact"])
    assert found.f1 == pytest.approx(expected["f1"])


def test_best_threshold_as_officially():
    golden = GOLDEN["2.0"]
    arguments = golden["predictions"], golden["no_answer_scores"]
    found = best_no_answer_threshold(golden_examples("2.0"), *arguments)
    expected = golden["scores"]
    assert found.exact == pytest.approx(expected["final_exact"])
    assert found.f1 == pytest.approx(expected["final_f1"])
    assert found.exact_threshold == expected["final_exact_thresh"]
    assert found.f1_threshold == expected["final_f1_thresh"]


def test_scores_of_questions():
    examples = [
        scored("1", "sea", "the old sea"),
        scored("2", "the", "sun"),
        scored("3", impossible=True),
    ]
    answers = {"1": "old sea", "2": "", "3": "", "unknown": "x"}
    exact, f1 = score_questions(examples, answers)
    assert exact.tolist() == f1.tolist() == [1, 0, 1]
    # By the rules of the first version, a gold answer of no words counts.
    exact, f1 = score_questions(examples[:2], answers)
    assert (exact.tolist(), f1.tolist()) == ([1, 1], [1, 0])
    scores = score_squad(examples, {**answers, "3": "x"})
    third = pytest.approx(100 / 3)
    assert scores == SquadScores(third, third, 3, 50, 50, 2, 0, 0, 1)


def thresholds(scores, *, answers=("sea", "sea", "x"), **others):
    examples = [
        scored("0", "sea"),
        scored("1", "sea"),
        scored("2", impossible=True),
    ]
    ids = [e.id for e in examples]
    answers = dict(zip(ids, answers, strict=True))
    scores = dict(zip(ids, scores, strict=True))
    best = best_no_answer_threshold(examples, answers, scores)
    reached = score_squad(
        examples,
        answers,
        no_answer_scores=scores,
        no_answer_threshold=best.f1_threshold,
    )
    assert reached.f1 == pytest.approx(best.f1)
    return best


def test_best_threshold_by_hand():
    best = thresholds([-1.0, 2.0, 3.0])
    assert best == NoAnswerThresholds(100, 2, 100, 2)
    # The impossible question is in the middle: 2 of 3, either way.
    best = thresholds([-1.0, 3.0, 2.0])
    assert best.f1 == pytest.approx(200 / 3)
    assert best.f1_threshold == -1


def test_threshold_does_not_part_equal_scores():
    best = thresholds([1.0, 2.0, 2.0])
    assert best.f1 == pytest.approx(200 / 3)
    assert best.f1_threshold == 1.0
    best = thresholds([1.0, 1.0, 1.0])
    assert (best.f1_threshold, best.f1) == (1.0, pytest.approx(200 / 3))


def test_threshold_if_nothing_is_worth_answering():
    wrong = ("x", "x", "x")
    best = thresholds([0.25, 0.5, 1.0], answers=wrong)
    assert (best.f1_threshold, best.f1) == (0.0, pytest.approx(100 / 3))
    best = thresholds([-3.0, 0.5, 1.0], answers=wrong)
    assert best.f1_threshold < -3
    best = thresholds([0.0, 0.5, 1.0], answers=wrong)
    assert best.f1_threshold < 0


def test_answer_without_a_word_to_an_impossible_question():
    best = thresholds([1.0, 2.0, 0.5], answers=("sea", "sea", "the"))
    assert (best.f1, best.f1_threshold) == (100, 2)


def test_unusable_predictions():
    examples = [scored("1", "a"), scored("2", "b")]
    message = "`answers` must have every question. Missing: 1, the first is '2'"
    with pytest.raises(ValueError, match=message):
        score_squad(examples, {"1": "a"})
    both = {"1": "a", "2": "b"}
    message = "`no_answer_scores` must have every question. Missing: 2, the"
    with pytest.raises(ValueError, match=message):
        best_no_answer_threshold(examples, both, {})
    with pytest.raises(ValueError, match=message):
        score_squad(
            examples, both, no_answer_scores={}, no_answer_threshold=1.0
        )
    message = "must be given together"
    with pytest.raises(ValueError, match=message):
        score_squad(examples, both, no_answer_threshold=1.0)
    with pytest.raises(ValueError, match=message):
        score_questions(examples, both, no_answer_scores={})
    message = "`examples` must hold a question. Received none."
    with pytest.raises(ValueError, match=message):
        score_squad([], {})
    message = "must have gold answers to be scored. Without: 1, the .* is '3'."
    with pytest.raises(ValueError, match=message):
        score_squad([*examples, scored("3")], {**both, "3": "a"})


def test_predictions_are_written_whole(tmp_path):
    path = tmp_path / "new" / "predictions.json"
    answers = {"1": "\xc5sa", "2": ""}
    write_predictions(path, answers)
    write_predictions(str(path), answers)
    assert json.loads(path.read_text("utf-8")) == answers
    assert os.listdir(path.parent) == ["predictions.json"]


def test_predictions_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="predictions.json could not be written"):
        write_predictions(tmp_path / "file" / "predictions.json", {})


# Space for 6 tokens of the context, or 7 with a question of one.
SIZES = {"max_length": 11, "stride": 2, "max_question": 2}


def windows_of(examples, tokenizer, **sizes):
    return make_squad_windows(examples, tokenizer, **{**SIZES, **sizes})


def zeros(windows):
    return [np.zeros(len(ids), np.float32) for ids in windows.token_ids]


# Its windows hold abcdef and efgh.
ONE = example("1", "a b c d e f g h", "b c", question="q r")
CONTEXT = 4  # position of a window's first context token


def test_best_span(tokenizer):
    windows = windows_of([ONE], tokenizer)
    starts, ends = zeros(windows), zeros(windows)
    starts[0][CONTEXT + 1], ends[0][CONTEXT + 2] = 3, 2
    starts[1][CONTEXT + 2] = 4
    # An end before that; the question; [SEP]: no spans. And e alone counts
    # in the first window, where more is around it.
    ends[1][CONTEXT], ends[1][1], starts[0][1] = 9, 99, 99
    starts[0][-1], ends[1][-1] = 99, 99
    starts[0][0], ends[0][0], starts[1][0], ends[1][0] = 7, 8, 1, 1.5
    (found,) = best_answers([ONE], windows, starts, ends, n_best=3)
    assert (found.text, found.start, found.end) == ("b c", 2, 5)
    assert found.score == 5
    texts = [(span.text, span.score) for span in found.n_best]
    assert texts == [("b c", 5), ("g", 4), ("g h", 4)]
    assert all(ONE.context[s.start : s.end] == s.text for s in found.n_best)
    assert found.no_answer_score == 2.5
    assert found.no_answer_odds == -2.5


def test_padded_logits(tokenizer):
    windows = windows_of([ONE], tokenizer)
    starts = np.zeros((len(windows), 12), np.float32)
    ends = starts.copy()
    starts[0, CONTEXT], ends[0, CONTEXT] = 1, 1
    length = len(windows.token_ids[1])
    starts[1, length:], ends[1, length:] = np.nan, np.inf
    (found,) = best_answers([ONE], windows, starts, ends)
    assert found.text == "a"


def test_equal_spans_go_by_the_text(tokenizer):
    windows = windows_of([ONE], tokenizer)
    (found,) = best_answers([ONE], windows, zeros(windows), zeros(windows))
    assert found.text == "a"
    assert [s.text for s in found.n_best[:3]] == ["a", "a b", "a b c"]
    assert len(found.n_best) == 20


def test_longest_span(tokenizer):
    windows = windows_of([ONE], tokenizer, max_length=20)
    starts, ends = zeros(windows), zeros(windows)
    starts[0][CONTEXT], ends[0][CONTEXT + 2], ends[0][CONTEXT + 1] = 2, 5, 1
    for most, text in ((3, "a b c"), (2, "b c"), (1, "c"), (30, "a b c")):
        (found,) = best_answers(
            [ONE], windows, starts, ends, max_answer_tokens=most
        )
        assert found.text == text


def test_no_answer(tokenizer):
    windows = windows_of([ONE], tokenizer)
    starts, ends = zeros(windows), zeros(windows)
    starts[0][CONTEXT] = 1
    for i, value in enumerate((3.0, 2.0)):
        starts[i][0] = value
    for threshold, text in ((None, "a"), (0.0, ""), (0.9, ""), (1.0, "a")):
        (found,) = best_answers(
            [ONE], windows, starts, ends, no_answer_threshold=threshold
        )
        assert (found.text, found.no_answer_odds) == (text, 1)
        assert found.n_best[0].text == "a"
        assert (found.start == -1) == (found.end == -1) == (text == "")


def test_context_without_a_token(tokenizer):
    empty = example("1", " ", impossible=True)
    windows = windows_of([empty, ONE], tokenizer)
    found, other = best_answers(
        [empty, ONE], windows, zeros(windows), zeros(windows)
    )
    assert (found.text, found.start, found.end) == ("", -1, -1)
    assert (found.score, found.n_best) == (-math.inf, ())
    assert found.no_answer_odds == math.inf
    assert other.text == "a"


def brute_force(example, windows, starts, ends, most):
    """Spans with their scores, one by one, in plain words."""
    chosen = [w for w in range(len(windows)) if windows.example[w] == example]
    best = {}
    for w in chosen:
        inside = np.flatnonzero(windows.offsets[w][:, 0] >= 0)
        for i in inside:
            for j in inside[inside >= i][:most]:
                around = min(i - inside[0], inside[-1] - j)
                first = windows.first_token[w] + i - inside[0]
                score = float(starts[w][i]) + float(ends[w][j])
                span = int(first), int(first + j - i)
                if span not in best or around > best[span][0]:
                    best[span] = around, score
    return sorted((s for _, s in best.values()), reverse=True)


@pytest.mark.parametrize("stride", [0, 1, 2, 3, 4, 5])
def test_each_span_counts_once_where_most_is_around_it(tokenizer, stride):
    rng = np.random.default_rng(stride)
    examples = [
        example(str(n), " ".join(rng.choice(list(LETTERS), n)), question="q r")
        for n in (1, 6, 7, 8, 13, 23)
    ]
    windows = windows_of(examples, tokenizer, stride=stride)
    starts = [rng.normal(size=len(ids)) for ids in windows.token_ids]
    ends = [rng.normal(size=len(ids)) for ids in windows.token_ids]
    for most in (1, 3, 30):
        found = best_answers(
            examples,
            windows,
            starts,
            ends,
            n_best=10**4,
            max_answer_tokens=most,
        )
        for i, prediction in enumerate(found):
            scores = [span.score for span in prediction.n_best]
            expected = brute_force(i, windows, starts, ends, most)
            np.testing.assert_allclose(scores, expected, rtol=1e-12)
            places = {(s.start, s.end) for s in prediction.n_best}
            assert len(places) == len(scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_best": 0}, "`n_best` must be at least 1. Received: n_best=0."),
        (
            {"max_answer_tokens": 0},
            "`max_answer_tokens` must be at least 1. Received: "
            "max_answer_tokens=0.",
        ),
        (
            {"start_logits": []},
            "`start_logits` must be given for each of 2 windows. Received: 0.",
        ),
        (
            {"end_logits": np.zeros((2, 9))},
            r"`end_logits` must have a logit for each token of a window, here "
            r"\(11,\). Received: shape=\(9,\) for window 0.",
        ),
        (
            {"end_logits": np.zeros((2, 11, 1))},
            r"Received: shape=\(11, 1\) for window 0.",
        ),
        (
            {"start_logits": np.full((2, 11), np.nan)},
            "`start_logits` must be finite. Received one of window 0 that",
        ),
        (
            {"examples": [ONE, ONE]},
            "`windows` must be those of `examples`. Received: windows of 1 "
            "examples for 2.",
        ),
        (
            {"examples": []},
            "Received: windows of 1 examples for 0.",
        ),
    ],
)
def test_wrong_arguments(tokenizer, arguments, message):
    windows = windows_of([ONE], tokenizer)
    made = {
        "examples": [ONE],
        "windows": windows,
        "start_logits": zeros(windows),
        "end_logits": zeros(windows),
    }
    with pytest.raises(ValueError, match=message):
        best_answers(**{**made, **arguments})


class Oracle:
    """A model that knows the answers and checks its inputs."""

    def __init__(self, examples, tokenizer):
        self.tokenizer = tokenizer
        self.of_question = {e.question: e for e in examples}
        self.batches = []

    def __call__(self, inputs):
        self.batches.append(inputs)
        logits = np.zeros((*inputs["token_ids"].shape, 2), np.float32)
        for row, ids in enumerate(inputs["token_ids"]):
            tokens = [self.tokenizer.id_to_token(i) for i in ids]
            first = tokens.index("[SEP]") + 1
            last = tokens.index("[SEP]", first)
            one = self.of_question[" ".join(tokens[1 : first - 1])]
            for answer in one.answers:
                wanted = answer.text.split()
                for i in range(first, last - len(wanted) + 1):
                    if tokens[i : i + len(wanted)] == wanted:
                        logits[row, i, 0] = 5
                        logits[row, i + len(wanted) - 1, 1] = 5
            if not logits[row].any():
                logits[row, 0] = 1
        return logits


EXAMPLES = [
    example("1", "a b c d e f g h i j k l m n o", "m n", question="x"),
    example("2", "a b c", "b", question="y"),
    example("3", " ".join(LETTERS), impossible=True, question="z"),
    example("4", "a b c d e f g h", "c d", "d", question="w"),
]


def test_model_that_knows_the_answers(tokenizer):
    oracle = Oracle(EXAMPLES, tokenizer)
    evaluator = SQuADEvaluator(EXAMPLES, tokenizer, batch_size=3, **SIZES)
    assert evaluator.evaluate(oracle) == SquadScores(
        100, 100, 4, 100, 100, 3, 100, 100, 1
    )
    texts = [p.text for p in evaluator.predictions(oracle)]
    assert texts == ["m n", "b", "", "c d"]


def test_no_answer_threshold(tokenizer):
    oracle = Oracle(EXAMPLES, tokenizer)

    def texts(examples, threshold=None):
        evaluator = SQuADEvaluator(
            examples, tokenizer, no_answer_threshold=threshold, **SIZES
        )
        return [p.text for p in evaluator.predictions(oracle)]

    # [CLS] has 2, the best span 0 or 10.
    assert texts(EXAMPLES, 1.9) == ["m n", "b", "", "c d"]
    assert texts(EXAMPLES, 2.0) == ["m n", "b", "a", "c d"]
    assert texts(EXAMPLES, -11.0) == [""] * 4
    # Where each question has an answer, none is left out, whatever [CLS] has.
    answerable = [dataclasses.replace(EXAMPLES[2], is_impossible=False)]
    assert texts(answerable) == ["a"]
    assert texts(answerable, 0.0) == [""]


@pytest.mark.parametrize(
    ("max_length", "lengths"),
    [
        # Windows of 29, 18, 11 and 6 tokens.
        (31, [31, 16]),
        (64, [32, 16]),
    ],
)
def test_batches(tokenizer, max_length, lengths):
    oracle = Oracle(EXAMPLES, tokenizer)
    sizes = {"max_length": max_length, "stride": 0, "max_question": 2}
    evaluator = SQuADEvaluator(EXAMPLES, tokenizer, batch_size=2, **sizes)
    evaluator.evaluate(oracle)
    assert [b["token_ids"].shape for b in oracle.batches] == [
        (2, length) for length in lengths
    ]
    seen = []
    for batch in oracle.batches:
        assert {a.dtype for a in batch.values()} == {np.dtype(np.int32)}
        assert set(batch) == {"token_ids", "segment_ids", "padding_mask"}
        mask = batch["padding_mask"]
        assert (np.diff(mask, axis=1) <= 0).all()
        assert (batch["token_ids"][mask == 0] == 1).all()
        assert (batch["segment_ids"][mask == 0] == 0).all()
        for row, length in enumerate(mask.sum(1)):
            ids = batch["token_ids"][row, :length]
            segments = batch["segment_ids"][row, :length]
            assert segments.tolist() == [0] * 3 + [1] * (length - 3)
            seen.append(ids.tobytes())
    assert sorted(seen) == sorted(
        ids.tobytes() for ids in evaluator.windows.token_ids
    )


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (
            np.zeros((1, 16)),
            r"`predict` must return logits of shape \(batch, length, 2\), "
            r"here \(1, 11, 2\). Received: shape=\(1, 16\).",
        ),
        (np.full((1, 11, 2), np.inf), "`start_logits` must be finite."),
    ],
)
def test_wrong_logits(tokenizer, logits, message):
    evaluator = SQuADEvaluator([EXAMPLES[1]], tokenizer, **SIZES)
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(lambda inputs: logits)


def test_wrong_settings(tokenizer):
    message = "`examples` must hold a question. Received none."
    with pytest.raises(ValueError, match=message):
        SQuADEvaluator([], tokenizer)
    for name in ("batch_size", "n_best", "max_answer_tokens"):
        message = f"`{name}` must be at least 1. Received: {name}=0."
        with pytest.raises(ValueError, match=message):
            SQuADEvaluator(EXAMPLES, tokenizer, **{name: 0})


def test_real_answers_are_found(tokenizer):
    """A model that points at gold answers scores all but 100."""
    root = os.environ.get("KERAS_DISTIL_TEST_DATA")
    if root is None:
        pytest.skip("KERAS_DISTIL_TEST_DATA is not set")
    from keras_distil.models.embedded import embedded_directory

    examples = load_squad("dev", root=Path(root) / "squad")
    real = load_tokenizer(embedded_directory())
    evaluator = SQuADEvaluator(examples, real)
    windows = evaluator.windows
    starts, ends = zeros(windows), zeros(windows)
    for w, (start, end) in enumerate(
        zip(windows.start, windows.end, strict=True)
    ):
        if start:
            starts[w][start] = ends[w][end] = 1
    found = best_answers(examples, windows, starts, ends, n_best=1)
    answers = {e.id: p.text for e, p in zip(examples, found, strict=True)}
    scores = score_squad(examples, answers)
    # Annotators begin or end some answers within a word, or mark sentences.
    assert scores.exact > 99 and scores.f1 > 99
