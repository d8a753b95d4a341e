"""From the outputs of a student to answers: classes, and parts of texts."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_distil.utils.entity_tags import EntityLabels

# Longer answers of a span model are not considered.
ANSWER_TOKENS = 30


@dataclasses.dataclass(frozen=True)
class Answer:
    """One of the student's answers.

    Attributes:
        text: a word, a class, the type of an entity, or a part of the context.
        score: its probability; for a span, the product of the probabilities
            of its start and its end; for an entity, the mean of its words'.
        start: index of its first character in the text; None for a class.
        end: index after its last character.
    """

    text: str
    score: float
    start: int | None = None
    end: int | None = None


def choose_classes(
    probabilities: np.ndarray, labels: Sequence[str], top: int
) -> list[Answer]:
    """Returns the likeliest classes, best first."""
    return [
        Answer(labels[index], score)
        for index, score in best_of(probabilities, top)
    ]


def tag_tokens(
    logits: np.ndarray, encoded: Any, labels: Sequence[str]
) -> list[Answer]:
    """Returns the class of each token of a text.

    Args:
        logits: float, (length, classes).
        encoded: the `tokenizers.Encoding` of the text.
        labels: names of the classes.
    """
    classes, scores = _decide(logits)
    return [
        Answer(labels[classes[place]], float(scores[place]), start, end)
        for place, (start, end) in enumerate(encoded.offsets)
        if not encoded.special_tokens_mask[place]
    ]


def tag_entities(
    logits: np.ndarray, encoded: Any, text: str, labels: Sequence[str]
) -> list[Answer]:
    """Returns the entities of a text.

    A word has the class of its first token.

    Args:
        logits: float, (length, classes).
        encoded: the `tokenizers.Encoding` of the text.
        text: the text.
        labels: names of the classes.
    """
    classes, scores = _decide(logits)
    words = [
        list(places)
        for number, places in itertools.groupby(
            range(len(encoded.ids)), encoded.word_ids.__getitem__
        )
        if number is not None
    ]
    known = EntityLabels.of(labels)
    of_words = [classes[places[0]] for places in words]
    answers = []
    for first, last in known.find(of_words):
        firsts = [places[0] for places in words[first : last + 1]]
        start = encoded.offsets[firsts[0]][0]
        end = encoded.offsets[words[last][-1]][1]
        answers.append(
            Answer(
                known.types[classes[firsts[0]]],
                float(scores[firsts].mean()),
                _without_space(text, start, end),
                end,
            )
        )
    return answers


def find_spans(
    outputs: Mapping[str, np.ndarray], encoded: Any, context: str, top: int
) -> list[Answer]:
    """Returns the likeliest parts of a context, best first.

    Args:
        outputs: "start_logits" and "end_logits", float, (length,).
        encoded: the `tokenizers.Encoding` of question and context.
        context: the context.
        top: the most answers.
    """
    inside = np.array([s == 1 for s in encoded.sequence_ids])
    count = len(inside)
    starts, ends = (
        softmax(np.where(inside, outputs[name][:count], -np.inf))
        for name in ("start_logits", "end_logits")
    )
    # Spans within the context that do not end before they start.
    possible = np.triu(np.outer(inside, inside))
    possible = np.tril(possible, ANSWER_TOKENS - 1)
    scores = np.where(possible, np.outer(starts, ends), -1.0)
    answers = []
    top = min(top, int(np.count_nonzero(possible)))
    for index, score in best_of(scores.reshape(-1), top):
        first, last = divmod(index, count)
        start, end = encoded.offsets[first][0], encoded.offsets[last][1]
        start = _without_space(context, start, end)
        answers.append(Answer(context[start:end], score, start, end))
    return answers


def _decide(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the likeliest class of each token, and its probability."""
    probabilities = softmax(logits)
    return probabilities.argmax(axis=-1), probabilities.max(axis=-1)


def _without_space(text: str, start: int, end: int) -> int:
    """Returns where a part of a text begins, after white space.

    Byte-level tokens begin with the space before the word.
    """
    while start < end and text[start].isspace():
        start += 1
    return start


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities of logits, each by itself, float64."""
    # This form does not overflow.
    return (1.0 + np.tanh(np.asarray(logits, np.float64) / 2.0)) / 2.0


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities of logits over the last axis, float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted.astype(np.float64))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def best_of(scores: np.ndarray, top: int) -> list[tuple[int, float]]:
    """Returns indices and values of the greatest scores, best first."""
    order = np.argsort(scores, kind="stable")[::-1][:top]
    return [(int(index), float(scores[index])) for index in order]
