"""More examples of a task, with words replaced by a masked-LM model."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
import tokenizers
from keras_hub.models import MaskedLM

from keras_distil.data import (
    EncodedExamples,
    SpecialTokens,
    vocabulary_size,
    words_by_id,
)
from keras_distil.data.tasks.batches import padded
from keras_distil.models import forward
from keras_distil.utils import token_roles

_BATCH = 64  # masked copies per forward pass


def augment_examples(
    examples: EncodedExamples,
    model: MaskedLM,
    tokenizer: tokenizers.Tokenizer,
    *,
    copies: int,
    probability: float = 0.4,
    candidates: int = 15,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> EncodedExamples:
    """Adds copies of every example with some of its words replaced.

    Each word of one token is masked by itself, and the model's most likely
    words there are its candidates. A copy replaces each such word by one of
    its candidates with `probability`. Copies keep the labels.

    Args:
        examples: examples of a classification or a regression.
        model: a masked-LM model over the same vocabulary.
        tokenizer: the tokenizer of the examples.
        copies: int >= 1, copies of each example.
        probability: float in (0, 1], probability of replacing a word.
        candidates: int >= 1, number of candidates for each word.
        seed: int, determines the choices.
        progress: called with the number of examples done and in total.

    Returns:
        The examples, followed by all first copies, all second ones, and so on.

    Raises:
        ValueError: if a value is out of range, or the labels are not one
            array with one label per example.

    Reference:
        Jiao et al. 2020, arXiv:1909.10351, section 4 and algorithm 1, with
        its values of `probability` and `candidates`. Differs: words of
        several tokens are not replaced; there, they get neighbours of word
        vectors.
    """
    _check(examples, copies, probability, candidates)
    forward.check_masked_lm(model, "model")
    replaceable = _find_replaceable(examples, tokenizer)
    candidates_by_place = _find_candidates(
        examples, model, tokenizer, replaceable, candidates, progress
    )
    generator = np.random.default_rng(seed)
    tokens = [examples.token_ids]
    for _ in range(copies):
        chosen = generator.random(len(replaceable)) < probability
        which = generator.integers(0, candidates, len(replaceable))
        copy = examples.token_ids.copy()
        words = candidates_by_place[np.arange(len(replaceable)), which]
        copy[replaceable[chosen]] = words[chosen]
        tokens.append(copy)
    lengths = np.tile(examples.lengths, copies + 1)
    return dataclasses.replace(
        examples,
        token_ids=np.concatenate(tokens),
        starts=np.cumsum([0, *lengths], dtype=np.int64),
        first_lengths=np.tile(examples.first_lengths, copies + 1),
        labels=np.tile(np.asarray(examples.labels), copies + 1),
    )


def _check(
    examples: EncodedExamples, copies: int, probability: float, candidates: int
) -> None:
    for name, value in (("copies", copies), ("candidates", candidates)):
        if value < 1:
            raise ValueError(
                f"`{name}` must be at least 1. Received: {name}={value}."
            )
    if not 0 < probability <= 1:
        raise ValueError(
            "`probability` must be above 0 and at most 1. "
            f"Received: probability={probability}."
        )
    labels = examples.labels
    if isinstance(labels, dict) or np.shape(labels) != (len(examples),):
        raise ValueError(
            "`examples` must have one label each. Received: "
            f"{type(labels).__name__} of shape {np.shape(labels)}."
        )


def _find_replaceable(
    examples: EncodedExamples, tokenizer: tokenizers.Tokenizer
) -> np.ndarray:
    """Returns the positions in `token_ids` of words of one token."""
    ids = examples.token_ids
    words, pieces = _classify_tokens(tokenizer)
    followed = np.append(pieces[ids[1:]], False)
    return np.flatnonzero(words[ids] & ~followed)


def _classify_tokens(
    tokenizer: tokenizers.Tokenizer,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each id whether it may be a word and may continue one."""
    words = np.zeros(vocabulary_size(tokenizer), bool)
    pieces = np.zeros_like(words)
    spaced = token_roles.is_byte_level(tokenizer)
    for number, token in enumerate(words_by_id(tokenizer)):
        if spaced:
            # A word has its space with it, what continues one has none.
            text = token_roles.spell(tokenizer, number) or " "
            words[number] = text[0] == " " and text[1:].isalpha()
            pieces[number] = text[0].isalnum() or text[0] == "\ufffd"
        else:
            words[number] = token.isalpha()
            pieces[number] = token.startswith("##")
    words[list(SpecialTokens.from_tokenizer(tokenizer).ids)] = False
    return words, pieces


def _find_candidates(
    examples: EncodedExamples,
    model: MaskedLM,
    tokenizer: tokenizers.Tokenizer,
    replaceable: np.ndarray,
    count: int,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Returns the likeliest words at each place, int32, (places, count)."""
    words, _ = _classify_tokens(tokenizer)
    if count > words.sum():
        raise ValueError(
            f"`candidates` must be at most {words.sum()}, the words of the "
            f"vocabulary. Received: candidates={count}."
        )
    unused = model.backbone.vocabulary_size - len(words)
    never = np.append(np.where(words, 0.0, -np.inf), [-np.inf] * unused)
    never = never.astype(np.float32)
    matrix = tf.TensorSpec([None, None], tf.int32)

    @tf.function(
        autograph=False,
        input_signature=[
            {
                "token_ids": matrix,
                "padding_mask": matrix,
                "segment_ids": matrix,
                "mask_positions": matrix,
            },
            tf.TensorSpec([None], tf.int32),
        ],
    )
    def likeliest(inputs: dict[str, tf.Tensor], original: tf.Tensor):
        logits = forward.logits(model, inputs)[:, 0] + never
        # A word is not a candidate for itself.
        rows = tf.stack([tf.range(tf.shape(original)[0]), original], axis=1)
        lowest = tf.fill(tf.shape(original), -float("inf"))
        logits = tf.tensor_scatter_nd_update(logits, rows, lowest)
        return tf.math.top_k(logits, count).indices

    mask_id = SpecialTokens.from_tokenizer(tokenizer).mask_id
    candidates = np.zeros((len(replaceable), count), np.int32)
    done = 0
    for places, inputs, original in _mask_each(examples, replaceable, mask_id):
        candidates[places] = likeliest(
            tf.nest.map_structure(tf.constant, inputs), tf.constant(original)
        ).numpy()
        done += len(places)
        if progress is not None:
            progress(done, len(replaceable))
    return candidates


def _mask_each(
    examples: EncodedExamples, replaceable: np.ndarray, mask_id: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]]:
    """Yields batches of similar length, each example with one word masked."""
    example = np.searchsorted(examples.starts, replaceable, side="right") - 1
    order = np.argsort(examples.lengths[example], kind="stable")
    for begin in range(0, len(order), _BATCH):
        places = order[begin : begin + _BATCH]
        rows = example[places]
        inputs = padded(examples, rows)
        position = (replaceable[places] - examples.starts[rows])[:, np.newaxis]
        np.put_along_axis(inputs["token_ids"], position, mask_id, axis=1)
        inputs["mask_positions"] = position.astype(np.int32)
        yield places, inputs, examples.token_ids[replaceable[places]]
