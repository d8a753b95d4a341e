"""Where a student does not answer as its teacher, with the texts."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_distil.evaluation.spans import SpanEvaluator
from keras_distil.evaluation.task_files import WordSplit
from keras_distil.evaluation.temperature import decisions
from keras_distil.runs.details.dev_texts import DevTexts, shortened
from keras_distil.runs.details.schema import (
    Disagreement,
    Disagreements,
    Opinion,
)
from keras_distil.runs.score_table import STUDENT, TEACHER

# How many are kept.
_SHOWN = 20
# What a label is in a text, by 0 and 1.
_THERE = ("no", "yes")


def of_classes(
    texts: DevTexts,
    labels: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    names: Sequence[str],
) -> Disagreements:
    """Finds the texts whose first choices differ.

    The most confident come first: those with the largest sum of both models'
    probabilities of their choices.

    Args:
        texts: the texts.
        labels: their classes, int, (texts,).
        outputs: logits, float32, (texts, classes), of teacher and student.
        names: the classes.
    """
    teacher, student = outputs[TEACHER], outputs[STUDENT]
    one, other = teacher.argmax(axis=1), student.argmax(axis=1)
    sure = {row: decisions(outputs[row], labels)[0] for row in outputs}
    differing = _strongest_first(one != other, sure[TEACHER] + sure[STUDENT])
    return Disagreements(
        count=len(differing),
        decisions=len(labels),
        unit="texts",
        shown=[
            Disagreement(
                **_text(texts, number),
                truth=names[labels[number]],
                teacher=_opinion(names[one[number]], sure[TEACHER][number]),
                student=_opinion(names[other[number]], sure[STUDENT][number]),
            )
            for number in differing[:_SHOWN]
        ],
    )


def of_labels(
    texts: DevTexts,
    labels: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    names: Sequence[str],
) -> Disagreements:
    """Finds the labels of texts that only one model sees.

    The most confident come first: those whose probabilities are farthest apart.

    Args:
        texts: the texts.
        labels: 0 and 1, (texts, labels).
        outputs: logits, float32, (texts, labels), of teacher and student.
        names: the labels.
    """
    there = {
        row: decisions(outputs[row], labels)[0] for row in (TEACHER, STUDENT)
    }
    one, other = (there[row] > 0.5 for row in (TEACHER, STUDENT))
    differing = _strongest_first(
        one != other, np.abs(there[TEACHER] - there[STUDENT])
    )
    shown = []
    for place in differing[:_SHOWN]:
        number, label = divmod(place, len(names))
        shown.append(
            Disagreement(
                **_text(texts, number),
                label=names[label],
                truth=_THERE[int(labels[number, label])],
                teacher=_presence(there[TEACHER][place]),
                student=_presence(there[STUDENT][place]),
            )
        )
    return Disagreements(
        count=len(differing),
        decisions=labels.size,
        unit="labels of texts",
        shown=shown,
    )


def of_numbers(
    texts: DevTexts, labels: np.ndarray, outputs: Mapping[str, np.ndarray]
) -> Disagreements:
    """Finds the texts whose numbers are farthest apart.

    Args:
        texts: the texts.
        labels: numbers, (texts,).
        outputs: float32, (texts, 1), of teacher and student.
    """
    one, other = outputs[TEACHER][:, 0], outputs[STUDENT][:, 0]
    distances = np.abs(one - other)
    differing = _strongest_first(one != other, distances)
    return Disagreements(
        count=len(differing),
        decisions=len(labels),
        unit="texts",
        mean_difference=float(distances.mean(dtype=np.float64)),
        shown=[
            Disagreement(
                **_text(texts, number),
                truth=f"{labels[number]:.4g}",
                teacher=Opinion(answer=f"{one[number]:.4g}"),
                student=Opinion(answer=f"{other[number]:.4g}"),
            )
            for number in differing[:_SHOWN]
        ],
    )


def of_words(
    texts: DevTexts,
    split: WordSplit,
    answers: Mapping[str, tuple[Sequence[Sequence[str]], np.ndarray]],
) -> Disagreements:
    """Finds the words whose tags differ.

    The most confident come first, as for classes.

    Args:
        texts: the sentences.
        split: likewise, with their tags.
        answers: of teacher and student, as from `WordTaskEvaluator.answers`.
    """
    flat = [
        np.array([tag for tags in found for tag in tags], object)
        for found in (split.tags, answers[TEACHER][0], answers[STUDENT][0])
    ]
    truth, one, other = flat
    sure = {row: answers[row][1] for row in (TEACHER, STUDENT)}
    differing = _strongest_first(one != other, sure[TEACHER] + sure[STUDENT])
    shown = []
    for number in differing[:_SHOWN]:
        before, word, after = texts.word(split.encoded, number)
        shown.append(
            Disagreement(
                text=before,
                word=word,
                after=after,
                truth=truth[number],
                teacher=_opinion(one[number], sure[TEACHER][number]),
                student=_opinion(other[number], sure[STUDENT][number]),
            )
        )
    return Disagreements(
        count=len(differing), decisions=len(truth), unit="words", shown=shown
    )


def of_spans(
    evaluator: SpanEvaluator, answers: Mapping[str, Sequence[str]]
) -> Disagreements:
    """Finds the questions with different answers.

    Where one of the two is right comes first.

    Args:
        evaluator: has the questions.
        answers: texts, "" for none, of teacher and student.
    """
    one, other = answers[TEACHER], answers[STUDENT]
    truths = [
        {answer.text for answer in example.answers} or {""}
        for example in evaluator.examples
    ]
    rights = np.array(
        [
            (a in right) != (b in right)
            for a, b, right in zip(one, other, truths, strict=True)
        ]
    )
    differ = np.array([a != b for a, b in zip(one, other, strict=True)])
    differing = _strongest_first(differ, rights.astype(np.float64))
    shown = []
    for number in differing[:_SHOWN]:
        example = evaluator.examples[number]
        first = example.answers[0].text if example.answers else ""
        shown.append(
            Disagreement(
                text=shortened(example.question),
                second=shortened(example.context),
                truth=first,
                teacher=Opinion(answer=one[number]),
                student=Opinion(answer=other[number]),
            )
        )
    return Disagreements(
        count=len(differing),
        decisions=len(truths),
        unit="questions",
        shown=shown,
    )


def _strongest_first(differ: np.ndarray, strength: np.ndarray) -> list[int]:
    """Returns the numbers of what differs, the strongest first."""
    found = np.flatnonzero(differ)
    # The first of equals.
    return found[np.argsort(-strength[found], kind="stable")].tolist()


def _text(texts: DevTexts, number: int) -> dict[str, str]:
    found = texts.texts(number)
    return {"text": " ".join(found[:1]), "second": " ".join(found[1:])}


def _opinion(answer: str, confidence: float) -> Opinion:
    return Opinion(answer=answer, confidence=round(float(confidence), 4))


def _presence(probability: float) -> Opinion:
    """The answer on a label, with the probability of this answer."""
    there = bool(probability > 0.5)
    return _opinion(_THERE[there], probability if there else 1 - probability)
