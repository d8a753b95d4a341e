"""The signatures of a SavedModel that read texts."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_distil.export.graph_answers import (
    Meaning,
    meaning_of_pair,
    meaning_of_text,
)
from keras_distil.export.graph_encoding import TextsInGraph
from keras_distil.export.signatures import Signature
from keras_distil.export.student import SENTENCE_EMBEDDING, Student
from keras_distil.models.embedding_model import prompts_by_use

BY_TEXT = "texts"
BY_PAIR = "text_pairs"
_ENCODED = ("token_ids", "padding_mask")


def text_signatures(
    student: Student,
    tokenizer: TextsInGraph,
    max_length: int,
    labels: Sequence[str],
) -> dict[str, Signature]:
    """Returns the signatures that read strings, by name.

    Args:
        student: the model.
        tokenizer: its tokenizer.
        max_length: tokens to which texts are cut.
        labels: names of its classes.
    """

    def outputs(
        inputs: dict[str, tf.Tensor], texts: tf.Tensor, mean: Meaning | None
    ) -> dict[str, Any]:
        found = student.outputs(inputs)
        answers = {} if mean is None else mean(found, inputs, texts)
        return found | {name: inputs[name] for name in _ENCODED} | answers

    def of_texts(texts: tf.Tensor) -> dict[str, Any]:
        encoded = tokenizer.encode(texts, max_length=max_length)
        return outputs(encoded, texts, meaning_of_text(student, labels))

    def of_pairs(first: tf.Tensor, second: tf.Tensor) -> dict[str, Any]:
        encoded = tokenizer.encode_pairs(first, second, max_length=max_length)
        return outputs(encoded, second, meaning_of_pair(student, labels))

    def after(prompt: str) -> Callable[[tf.Tensor], dict[str, Any]]:
        return lambda texts: of_texts(_join(prompt, texts))

    if student.kind == SENTENCE_EMBEDDING:
        return {
            name: (after(prompt), _strings("texts"))
            for name, prompt in prompts_by_use(student.model).items()
        }
    return {
        BY_TEXT: (of_texts, _strings("texts")),
        BY_PAIR: (of_pairs, _strings("first", "second")),
    }


def _strings(*names: str) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([None], tf.string, name) for name in names]


def _join(prompt: str, texts: tf.Tensor) -> tf.Tensor:
    """Puts a prompt before texts, none of which may be empty."""
    checked = tf.debugging.assert_positive(
        tf.strings.length(tf.strings.strip(texts)),
        "A text must have a character that is not white space. Leave it out.",
    )
    with tf.control_dependencies([checked]):
        return tf.strings.join([prompt, texts])
