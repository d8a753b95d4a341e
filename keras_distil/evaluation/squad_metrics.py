"""Exact match and F1 of SQuAD, as in the official scripts."""

import dataclasses
import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from keras_distil.data.tasks.squad import SquadExample

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:an?|the)\b")


def normalize_answer(text: str) -> str:
    """Returns an answer reduced to what counts in comparisons.

    Lower case; without ASCII punctuation; then without the words a, an and
    the; with single spaces. Other punctuation, such as dashes, stays.

    Example:
        >>> normalize_answer("The  U.S. Army")
        'us army'

    Reference:
        evaluate-v1.1.py and evaluate-v2.0.py of
        https://rajpurkar.github.io/SQuAD-explorer/
        Differs: none.
    """
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", bare).split())


def exact_match(prediction: str, answer: str) -> float:
    """Returns 1.0 if two answers are equal after normalization, else 0.0.

    Example:
        >>> exact_match("the Nobel Prize.", "Nobel prize")
        1.0
    """
    return float(normalize_answer(prediction) == normalize_answer(answer))


def f1_score(prediction: str, answer: str, *, version: str = "1.1") -> float:
    """Returns the overlap of the words of two answers, 0 to 1.

    Formula:
        f1 = 2 * common / (words of the prediction + words of the answer)

    Words are those of the normalized answers; one that occurs twice counts
    twice.

    Args:
        prediction: the predicted answer.
        answer: the gold answer.
        version: "1.1" gives 0 if an answer has no words; "2.0" gives 1 if
            neither has any.

    Raises:
        ValueError: if the version is unknown.

    Example:
        >>> f1_score("seven months", "seven months old")
        0.8
    """
    if version not in ("1.1", "2.0"):
        raise ValueError(
            f"`version` must be '1.1' or '2.0'. Received: version={version!r}."
        )
    predicted = Counter(normalize_answer(prediction).split())
    gold = Counter(normalize_answer(answer).split())
    if version == "2.0" and not (predicted and gold):
        return float(predicted == gold)
    common = (predicted & gold).total()
    if common == 0:
        return 0.0
    return 2 * common / (predicted.total() + gold.total())


@dataclasses.dataclass(frozen=True)
class SquadScores:
    """Scores over all questions, in percent.

    Attributes:
        exact: share of questions whose answer equals a gold answer.
        f1: mean F1 with the best-matching gold answer.
        total: number of questions.
        has_answer_exact: `exact` of the questions that have an answer; None
            if there are none.
        has_answer_f1: `f1` of these questions, or None.
        has_answer_total: number of these questions.
        no_answer_exact: share of the impossible questions that are left
            without an answer; None if there are none.
        no_answer_f1: the same.
        no_answer_total: number of impossible questions.
    """

    exact: float
    f1: float
    total: int
    has_answer_exact: float | None
    has_answer_f1: float | None
    has_answer_total: int
    no_answer_exact: float | None
    no_answer_f1: float | None
    no_answer_total: int


def score_questions(
    examples: Sequence[SquadExample],
    answers: Mapping[str, str],
    *,
    no_answer_scores: Mapping[str, float] | None = None,
    no_answer_threshold: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores each question with the gold answer closest to its prediction.

    The rules are those of SQuAD 2.0 if a question is impossible, else those
    of 1.1. By the rules of 2.0, gold answers without words do not count, and
    the correct answer to an impossible question is "".

    Args:
        examples: the questions.
        answers: the predicted answer of each question, by id. Other ids are
            ignored.
        no_answer_scores: for each question, by id: the higher, the more
            likely it has no answer.
        no_answer_threshold: a question with a higher score counts as left
            without an answer, whatever `answers` says.

    Returns:
        Exact match and F1, each float64, (questions,), 0 to 1.

    Raises:
        ValueError: if there are no questions, a question has no prediction or
            no score, a possible question has no gold answer, or one of
            `no_answer_scores` and `no_answer_threshold` is missing.

    Reference:
        evaluate-v1.1.py and evaluate-v2.0.py of
        https://rajpurkar.github.io/SQuAD-explorer/
        Differs: a question without a prediction is an error; the script of
        1.1 gives it 0, that of 2.0 leaves it out.
    """
    if (no_answer_scores is None) != (no_answer_threshold is None):
        raise ValueError(
            "`no_answer_scores` and `no_answer_threshold` must be given "
            "together."
        )
    _check_scorable(examples, answers, "answers")
    second = any(example.is_impossible for example in examples)
    version = "2.0" if second else "1.1"
    pairs = [
        _score(answers[example.id], _golds(example, version), version)
        for example in examples
    ]
    exact, f1 = np.array(pairs, np.float64).T
    if no_answer_scores is None:
        return exact, f1
    _check_scorable(examples, no_answer_scores, "no_answer_scores")
    left_out = np.array([no_answer_scores[e.id] for e in examples])
    left_out = left_out > no_answer_threshold
    impossible = np.array([e.is_impossible for e in examples], np.float64)
    return (
        np.where(left_out, impossible, exact),
        np.where(left_out, impossible, f1),
    )


def score_squad(
    examples: Sequence[SquadExample],
    answers: Mapping[str, str],
    *,
    no_answer_scores: Mapping[str, float] | None = None,
    no_answer_threshold: float | None = None,
) -> SquadScores:
    """Scores predicted answers.

    Args:
        examples: as for `score_questions`.
        answers: as for `score_questions`.
        no_answer_scores: as for `score_questions`.
        no_answer_threshold: as for `score_questions`.

    Returns:
        The scores, in percent.

    Raises:
        ValueError: as for `score_questions`.
    """
    exact, f1 = score_questions(
        examples,
        answers,
        no_answer_scores=no_answer_scores,
        no_answer_threshold=no_answer_threshold,
    )
    impossible = np.array([example.is_impossible for example in examples])
    return SquadScores(
        100 * float(exact.mean()),
        100 * float(f1.mean()),
        len(examples),
        _percent(exact[~impossible]),
        _percent(f1[~impossible]),
        int((~impossible).sum()),
        _percent(exact[impossible]),
        _percent(f1[impossible]),
        int(impossible.sum()),
    )


@dataclasses.dataclass(frozen=True)
class NoAnswerThresholds:
    """Thresholds of the no-answer score that give the best scores.

    Attributes:
        exact: the best exact match, in percent.
        exact_threshold: threshold that gives it.
        f1: the best F1, in percent.
        f1_threshold: threshold that gives it.
    """

    exact: float
    exact_threshold: float
    f1: float
    f1_threshold: float


def best_no_answer_threshold(
    examples: Sequence[SquadExample],
    answers: Mapping[str, str],
    no_answer_scores: Mapping[str, float],
) -> NoAnswerThresholds:
    """Finds the best thresholds for leaving questions unanswered.

    The candidates are: to answer no question, and to answer those whose score
    is at most that of one of them. Of equally good thresholds the lowest is
    returned. Found on the scored questions themselves, they flatter a model.

    Args:
        examples: the questions.
        answers: the predicted answer of each question, by id, as if it had
            one.
        no_answer_scores: for each question, by id.

    Returns:
        The best scores and their thresholds.

    Raises:
        ValueError: as for `score_questions`.

    Reference:
        evaluate-v2.0.py of https://rajpurkar.github.io/SQuAD-explorer/
        Differs: questions with the same score are answered together or not at
        all, as a threshold implies; an answer without words is correct for an
        impossible question, as in the scores; if it is best to answer no
        question and a score is not positive, the threshold is below it, where
        the script has 0.
    """
    exact, f1 = score_questions(examples, answers)
    _check_scorable(examples, no_answer_scores, "no_answer_scores")
    scores = np.array([no_answer_scores[e.id] for e in examples], np.float64)
    impossible = np.array([e.is_impossible for e in examples], np.float64)
    return NoAnswerThresholds(
        *_best_threshold(exact, impossible, scores),
        *_best_threshold(f1, impossible, scores),
    )


def _score(
    prediction: str, golds: list[str], version: str
) -> tuple[float, float]:
    return (
        max(exact_match(prediction, gold) for gold in golds),
        max(f1_score(prediction, gold, version=version) for gold in golds),
    )


def _golds(example: SquadExample, version: str) -> list[str]:
    golds = [answer.text for answer in example.answers]
    if version == "2.0":
        golds = [gold for gold in golds if normalize_answer(gold)] or [""]
    return golds


def _check_scorable(
    examples: Sequence[SquadExample], given: Mapping[str, object], name: str
) -> None:
    if not examples:
        raise ValueError("`examples` must hold a question. Received none.")
    missing = [example.id for example in examples if example.id not in given]
    if missing:
        raise ValueError(
            f"`{name}` must have every question. Missing: {len(missing)}, the "
            f"first is '{missing[0]}'."
        )
    secret = [e.id for e in examples if not (e.answers or e.is_impossible)]
    if secret:
        raise ValueError(
            "`examples` must have gold answers to be scored. Without: "
            f"{len(secret)}, the first is '{secret[0]}'."
        )


def _percent(scores: np.ndarray) -> float | None:
    return 100 * float(scores.mean()) if len(scores) else None


def _best_threshold(
    scores: np.ndarray, impossible: np.ndarray, no_answer_scores: np.ndarray
) -> tuple[float, float]:
    """Returns the best mean in percent, and its lowest threshold."""
    order = np.argsort(no_answer_scores, kind="stable")
    sorted_scores = no_answer_scores[order]
    # The change from answering one more question at a time.
    gains = np.cumsum((scores - impossible)[order])
    tried = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    gains, thresholds = gains[tried], sorted_scores[tried]
    best = int(np.argmax(gains))
    unanswered = impossible.sum()
    if gains[best] <= 0:
        below = math.nextafter(sorted_scores[0], -math.inf)
        return 100 * float(unanswered / len(scores)), min(0.0, below)
    mean = (unanswered + gains[best]) / len(scores)
    return 100 * float(mean), float(thresholds[best])
