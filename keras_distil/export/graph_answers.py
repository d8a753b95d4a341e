"""What a student's outputs mean, inside a SavedModel.

They are the answers of `edge.Student`: classes with their probabilities,
entities and parts of a context with their places in the text.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_distil import edge
from keras_distil.export.student import Student, Tensors
from keras_distil.utils.entity_tags import EntityLabels

# From the outputs of a student, the inputs that a `GraphTokenizer` made, and
# the text that these have the places of.
Meaning: TypeAlias = Callable[
    [Mapping[str, tf.Tensor], Mapping[str, tf.Tensor], tf.Tensor], Tensors
]

# White space as Python's `str.isspace` defines it.
_SPACES = (
    r"[\x{9}-\x{D}\x{1C}-\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}"
    r"\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
)
# Makes a choice at padding impossible, and differences of two finite.
_NEVER = -1e9


def meaning_of_text(student: Student, labels: Sequence[str]) -> Meaning | None:
    """Returns what adds the answers to the outputs for one text.

    Args:
        student: the model.
        labels: names of its classes.

    Returns:
        A function; None if the outputs for one text are the answer.
    """
    if student.kind == "token_classification":
        return lambda outputs, encoded, texts: _tags(
            outputs, encoded, texts, labels
        )
    return _meaning_of_classes(student, labels)


def meaning_of_pair(student: Student, labels: Sequence[str]) -> Meaning | None:
    """Returns what adds the answers to the outputs for two texts.

    Args:
        student: the model.
        labels: names of its classes.

    Returns:
        A function; None if the outputs for two texts are the answer.
    """
    return (
        _span
        if student.kind == "span"
        else _meaning_of_classes(student, labels)
    )


def _meaning_of_classes(
    student: Student, labels: Sequence[str]
) -> Meaning | None:
    if student.kind == "classification":
        return lambda outputs, *_: _ranked(
            tf.nn.softmax(outputs["logits"]), labels
        )
    if student.kind == "multi_label":
        return lambda outputs, *_: _ranked(
            tf.sigmoid(outputs["logits"]), labels
        )
    if student.is_probability:
        return lambda outputs, *_: _ranked(
            tf.sigmoid(outputs["score"])[:, tf.newaxis], labels
        )
    return None


def _ranked(probabilities: tf.Tensor, labels: Sequence[str]) -> Tensors:
    """Names and probabilities of the classes, best first."""
    best = tf.argsort(probabilities, direction="DESCENDING", stable=True)
    return {
        "labels": tf.gather(tf.constant(list(labels)), best),
        "probabilities": tf.gather(probabilities, best, batch_dims=1),
    }


def _span(
    outputs: Mapping[str, tf.Tensor],
    encoded: Mapping[str, tf.Tensor],
    contexts: tf.Tensor,
) -> Tensors:
    """The likeliest part of each context, (batch,); empty without tokens."""
    inside = encoded["starts"] >= 0
    first_is, last_is = (
        tf.nn.softmax(tf.where(inside, outputs[name], _NEVER))
        for name in ("start_logits", "end_logits")
    )
    scores = first_is[:, :, tf.newaxis] * last_is[:, tf.newaxis, :]
    length = tf.shape(inside)[1]
    # Parts that do not end before they start.
    most = tf.minimum(edge.ANSWER_TOKENS, length) - 1
    scores = tf.linalg.band_part(scores, 0, most)
    flat = tf.reshape(scores, [-1, length * length])
    best = tf.argmax(flat, axis=1, output_type=tf.int32)
    some = tf.reduce_any(inside, axis=1)
    starts, ends = (
        tf.gather(encoded[name], place, batch_dims=1)
        for name, place in (("starts", best // length), ("ends", best % length))
    )
    starts = _without_space(contexts, starts, ends)
    size = tf.where(some, ends - starts, 0)
    return {
        "answers": tf.strings.substr(
            contexts, tf.maximum(starts, 0), size, unit="UTF8_CHAR"
        ),
        "probabilities": tf.where(some, tf.reduce_max(flat, axis=1), 0.0),
        "starts": tf.where(some, starts, -1),
        "ends": tf.where(some, ends, -1),
    }


def _tags(
    outputs: Mapping[str, tf.Tensor],
    encoded: Mapping[str, tf.Tensor],
    texts: tf.Tensor,
    labels: Sequence[str],
) -> Tensors:
    """The class of each token, and the entities."""
    probabilities = tf.nn.softmax(outputs["logits"])
    classes = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
    scores = tf.reduce_max(probabilities, axis=-1)
    is_token = encoded["starts"] >= 0
    names = tf.gather(tf.constant(list(labels)), classes)
    by_token = {
        "labels": tf.where(is_token, names, ""),
        "probabilities": tf.where(is_token, scores, 0.0),
        "starts": encoded["starts"],
        "ends": encoded["ends"],
    }
    words = _words(classes, scores, encoded, is_token)
    return by_token | _entities(words, texts, labels)


def _words(
    classes: tf.Tensor,
    scores: tf.Tensor,
    encoded: Mapping[str, tf.Tensor],
    is_token: tf.Tensor,
) -> Tensors:
    """The words of all texts, (all words,) each, with their first classes."""

    def of_tokens(values: tf.Tensor) -> tf.Tensor:
        return tf.boolean_mask(values, is_token)

    begins = of_tokens(encoded["begins"]) > 0
    first = {
        "class": of_tokens(classes),
        "score": of_tokens(scores),
        "start": of_tokens(encoded["starts"]),
        "row": tf.where(is_token)[:, 0],
    }
    word = tf.cumsum(tf.cast(begins, tf.int32)) - 1
    found = {
        name: tf.boolean_mask(values, begins) for name, values in first.items()
    }
    found["end"] = tf.math.segment_max(of_tokens(encoded["ends"]), word)
    return found


def _entities(
    words: Mapping[str, tf.Tensor], texts: tf.Tensor, labels: Sequence[str]
) -> Tensors:
    """The entities of each text, padded, (batch, entities) each."""
    known = EntityLabels.of(labels)
    before, row_before = (
        # Of the first word, any value.
        tf.concat([values[:1], values[:-1]], axis=0)
        for values in (words["class"], words["row"])
    )
    is_first = tf.equal(tf.range(tf.size(before)), 0)
    goes_on = (
        tf.gather_nd(
            tf.constant(known.goes_on), tf.stack([before, words["class"]], 1)
        )
        & tf.equal(row_before, words["row"])
        & ~is_first
    )
    # Words outside of entities are stretches of their own, left out later.
    stretch = tf.cumsum(tf.cast(~goes_on, tf.int32)) - 1
    first = {
        name: tf.boolean_mask(words[name], ~goes_on)
        for name in ("class", "start", "row")
    }
    kept = ~tf.gather(tf.constant(known.is_outside), first["class"])
    row = tf.boolean_mask(first["row"], kept)

    def padded(values: tf.Tensor, padding: Any) -> tf.Tensor:
        ragged = tf.RaggedTensor.from_value_rowids(
            tf.boolean_mask(values, kept), row, tf.size(texts, tf.int64)
        )
        return ragged.to_tensor(padding)

    ends = tf.math.segment_max(words["end"], stretch)
    starts = _without_space(
        tf.gather(texts, first["row"]), first["start"], ends
    )
    types = tf.gather(tf.constant(list(known.types)), first["class"])
    return {
        "entities": padded(types, ""),
        "entity_probabilities": padded(
            tf.math.segment_mean(words["score"], stretch), 0.0
        ),
        "entity_starts": padded(starts, -1),
        "entity_ends": padded(ends, -1),
    }


def _without_space(
    texts: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor
) -> tf.Tensor:
    """Returns where parts of texts begin, after white space.

    Byte-level tokens begin with the space before the word.
    """
    sizes = tf.maximum(ends - starts, 0)
    parts = tf.strings.substr(
        texts, tf.maximum(starts, 0), sizes, unit="UTF8_CHAR"
    )
    rest = tf.strings.regex_replace(parts, f"^{_SPACES}+", "")
    return starts + sizes - tf.strings.length(rest, unit="UTF8_CHAR")
