"""The words that a masked-LM model expects in the place of others."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from keras_hub.models import MaskedLM

from keras_distil.data import EncodedExamples
from keras_distil.data.tasks.batches import padded
from keras_distil.models import forward
from keras_distil.models.replaceable_words import Words

_BATCH = 64  # masked words per forward pass


class WordCandidates:
    """Predicts words of one token for words that are masked.

    Each word is masked by itself. One mask stands for the whole of it, however
    many tokens it has, since the model predicts a token per mask.

    Args:
        model: a masked-LM model.
        whole: bool, (vocabulary,), the tokens that are a word by themselves.
        mask_id: int, the token that masks a word.
        count: int >= 1, number of candidates for each word.
    """

    def __init__(
        self, model: MaskedLM, whole: np.ndarray, *, mask_id: int, count: int
    ) -> None:
        self._mask_id = mask_id
        self._count = count
        unused = model.backbone.vocabulary_size - len(whole)
        never = np.append(np.where(whole, 0.0, -np.inf), [-np.inf] * unused)
        matrix = tf.TensorSpec([None, None], tf.int32)
        names = ("token_ids", "padding_mask", "segment_ids", "mask_positions")

        def likeliest(
            inputs: dict[str, tf.Tensor], original: tf.Tensor
        ) -> tf.Tensor:
            states = forward.encode(model, inputs, training=False)
            rows = tf.range(tf.shape(original)[0])
            places = rows * tf.shape(states)[1]
            places += inputs["mask_positions"][:, 0]
            masked = forward.gather_rows(states, places)
            projection = forward.project(model, masked)
            logits = tf.cast(projection.products(), tf.float32)
            logits += projection.bias + tf.constant(never, tf.float32)
            # A word is not a candidate for itself.
            lowest = tf.fill(tf.shape(original), -float("inf"))
            logits = tf.tensor_scatter_nd_update(
                logits, tf.stack([rows, original], axis=1), lowest
            )
            return tf.math.top_k(logits, count).indices

        self._likeliest = tf.function(
            likeliest,
            autograph=False,
            input_signature=[
                dict.fromkeys(names, matrix),
                tf.TensorSpec([None], tf.int32),
            ],
        )

    def predict(
        self,
        examples: EncodedExamples,
        words: Words,
        progress: Callable[[int], None],
    ) -> np.ndarray:
        """Returns the likeliest words in the place of each.

        Args:
            examples: the examples.
            words: words in them.
            progress: called with the number of words done.

        Returns:
            int32, (words, count), the likeliest first.
        """
        found = np.zeros((len(words), self._count), np.int32)
        done = 0
        for chosen in self._batches(examples, words):
            found[chosen] = self._run(examples, words, chosen)
            done += len(chosen)
            progress(done)
        return found

    def seconds_per_place(
        self, examples: EncodedExamples, words: Words
    ) -> float:
        """Measures a pass of usual length, in seconds per row and place."""
        batches = list(self._batches(examples, words))
        chosen = batches[len(batches) // 2]
        self._run(examples, words, chosen)
        started = time.perf_counter()
        self._run(examples, words, chosen)
        seconds = time.perf_counter() - started
        return seconds / count_places(examples, words.example[chosen])

    def _batches(
        self, examples: EncodedExamples, words: Words
    ) -> Iterator[np.ndarray]:
        """Yields words in examples of similar length."""
        order = np.argsort(examples.lengths[words.example], kind="stable")
        for begin in range(0, len(order), _BATCH):
            yield order[begin : begin + _BATCH]

    def _run(
        self, examples: EncodedExamples, words: Words, chosen: np.ndarray
    ) -> np.ndarray:
        inputs = mask_words(examples, words, chosen, self._mask_id)
        original = examples.token_ids[words.first[chosen]].astype(np.int32)
        # No candidate equals a word of several tokens, nor the mask.
        original[words.sizes[chosen] > 1] = self._mask_id
        return self._likeliest(
            tf.nest.map_structure(tf.constant, inputs), tf.constant(original)
        ).numpy()


def count_places(examples: EncodedExamples, rows: np.ndarray) -> int:
    """Counts the places of some examples in padded batches, about."""
    lengths = examples.starts[rows + 1] - examples.starts[rows]
    return int((-(-lengths // 8) * 8).sum())


def mask_words(
    examples: EncodedExamples, words: Words, chosen: np.ndarray, mask_id: int
) -> dict[str, np.ndarray]:
    """Returns a batch with one word of each example replaced by one mask.

    Args:
        examples: the examples.
        words: words in them.
        chosen: int, (batch,), the words to mask.
        mask_id: int, the token that masks a word.

    Returns:
        "token_ids", "padding_mask" and "segment_ids", int32, (batch, length),
        and "mask_positions", int32, (batch, 1).
    """
    rows = words.example[chosen]
    inputs = padded(examples, rows)
    position = (words.first[chosen] - examples.starts[rows])[:, np.newaxis]
    left_out = (words.sizes[chosen] - 1)[:, np.newaxis]
    length = inputs["token_ids"].shape[1]
    place = np.arange(length)[np.newaxis]
    # What comes after a word of several tokens moves up to its mask.
    source = place + np.where(place > position, left_out, 0)
    beyond = source >= length
    source = np.minimum(source, length - 1)
    for name, values in inputs.items():
        empty = examples.pad_id if name == "token_ids" else 0
        moved = np.take_along_axis(values, source, axis=1)
        inputs[name] = np.where(beyond, empty, moved).astype(np.int32)
    np.put_along_axis(inputs["token_ids"], position, mask_id, axis=1)
    inputs["mask_positions"] = position.astype(np.int32)
    return inputs
