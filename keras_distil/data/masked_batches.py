"""Batches for masked language modelling, as `tf.data` datasets."""

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from keras_distil.data.corpus.shards import CorpusError, ShardedSequences
from keras_distil.data.mask import mask_tokens
from keras_distil.data.order import shuffled
from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.stream import Stream

# Keep the orders of one seed and epoch independent.
_ORDER = 1
_BUCKET_ORDER = 2  # plus one for each further bucket
_BATCH_ORDER = -1

Sequences: TypeAlias = np.ndarray | ShardedSequences
# Maps rows and maskings, int64 (examples,), to more entries of `x`.
MoreInputs: TypeAlias = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


def masked_lm_dataset(
    sequences: Sequences | list[ShardedSequences],
    *,
    special: SpecialTokens,
    vocabulary_size: int,
    batch_size: int,
    seed: int,
    steps: int | None = None,
    first_step: int = 0,
    rate: float = 0.15,
    token_weights: np.ndarray | None = None,
    shuffle: bool = True,
    maskings: int | None = None,
    more_inputs: Sequence[MoreInputs] = (),
) -> tf.data.Dataset:
    """Builds a stream of training batches that can be entered at any step.

    Example `i` of the stream depends only on `seed`, the epoch `i // n` and
    the place `i % n`, where `n` is the number of sequences. Each epoch has a
    different order and different masks. Batches cross the ends of epochs, so
    no sequence is left out.

    With buckets, each batch has sequences of one bucket, and buckets come in
    random order. A bucket's last few sequences of an epoch, too few for a
    batch, are left out; they differ from epoch to epoch.

    Args:
        sequences: integers, (n, length), packed sequences; or a list of such
            arrays with different lengths, the buckets.
        special: the ids of the special tokens.
        vocabulary_size: int, exclusive upper limit of replacements.
        batch_size: int, sequences per batch.
        seed: int, determines order and masks.
        steps: int, batches in the whole stream; endless if None.
        first_step: int, batches to skip at the beginning without computing
            them: `steps - first_step` remain.
        rate: float in (0, 1], share of tokens to predict. Defaults to 0.15.
        token_weights: float, (vocabulary,), see `mask_tokens`.
        shuffle: bool; False keeps the order of `sequences` in each epoch.
        maskings: int, how many masks each sequence has: epochs cycle through
            those of the first ones. With None, each epoch has new masks.
        more_inputs: for each part (the sequences, or every bucket) a function
            that returns more entries of `x`; may be empty.

    Returns:
        A dataset of `({"token_ids", "padding_mask"}, y, sample_weight)`,
        each of shape (batch_size, length): masked ids, 1 at real tokens and
        the original ids in int32; 1 at tokens to predict in float32. The
        length is that of the bucket.

    Raises:
        ValueError: if there are too few sequences for one batch, or
            `batch_size`, `steps`, `first_step`, `rate` or `maskings` is out
            of range.
    """
    if maskings is not None and maskings < 1:
        raise ValueError(
            f"`maskings` must be at least 1. Received: maskings={maskings}."
        )
    options = (special, vocabulary_size, seed, rate, token_weights)
    more_inputs = list(more_inputs)
    if isinstance(sequences, list):
        more_inputs = more_inputs or [_add_nothing] * len(sequences)
        batch = _make_bucketed(
            sequences, batch_size, options, shuffle, maskings, more_inputs
        )
        return Stream(batch, batch_size=batch_size, steps=steps).dataset(
            first_step
        )
    count = _check(sequences, batch_size)
    if count < batch_size:
        raise ValueError(
            f"The corpus has {count} sequences, fewer than one batch of "
            f"{batch_size}. Lower `batch_size` or `sequence_length`, or add "
            "text."
        )
    make = _BatchMaker(
        sequences, *options, more_inputs=(more_inputs or [_add_nothing])[0]
    )

    def batch_of(step: tf.Tensor, places: tf.Tensor):
        example = step * batch_size + places
        epoch, row = example // count, example % count
        if shuffle:
            row = shuffled(row, seed, epoch, count, _ORDER)
        return make(row, _find_masking(epoch, maskings))

    stream = Stream(batch_of, batch_size=batch_size, steps=steps)
    return stream.dataset(first_step)


def _make_bucketed(
    buckets: list[ShardedSequences],
    batch_size: int,
    options: tuple,
    shuffle: bool,
    maskings: int | None,
    more_inputs: Sequence[MoreInputs],
) -> Callable:
    """Returns the buckets' batches as a function of step and places."""
    seed = options[2]
    counts = np.array([_check(b, batch_size) for b in buckets], np.int64)
    batches = counts // batch_size  # per epoch, in each bucket
    total = int(batches.sum())
    if not total:
        raise ValueError(
            f"No bucket of the corpus has the {batch_size} sequences of one "
            f"batch (they have {counts.tolist()}). Lower `batch_size`, or "
            "add text."
        )
    makers = [
        _BatchMaker(
            bucket, *options, places_before=int(before), more_inputs=more
        )
        for bucket, before, more in zip(
            buckets, np.cumsum([0, *counts[:-1]]), more_inputs, strict=True
        )
    ]
    ends = tf.constant(np.cumsum(batches), tf.int64)

    def make(bucket: int, number: tf.Tensor, epoch: tf.Tensor, places):
        row = number * batch_size + places
        epochs = tf.fill(tf.shape(places), epoch)
        # An empty bucket is never chosen, but its branch is traced.
        if shuffle and counts[bucket]:
            row = shuffled(
                row, seed, epochs, int(counts[bucket]), _BUCKET_ORDER + bucket
            )
        return makers[bucket](row, _find_masking(epochs, maskings))

    def batch(step: tf.Tensor, places: tf.Tensor):
        epoch, number = step // total, step % total
        if shuffle:
            number = shuffled(
                number[tf.newaxis], seed, epoch[tf.newaxis], total, _BATCH_ORDER
            )[0]
        bucket = tf.searchsorted(ends, number[tf.newaxis], side="right")[0]
        first = tf.concat([[tf.constant(0, tf.int64)], ends], 0)[bucket]
        return tf.switch_case(
            bucket,
            [
                lambda b=b: make(b, number - first, epoch, places)
                for b in range(len(buckets))
            ],
        )

    return batch


def held_out_dataset(
    sequences: Sequences,
    *,
    special: SpecialTokens,
    vocabulary_size: int,
    batch_size: int,
    seed: int,
    rate: float = 0.15,
    token_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Builds one pass over all sequences, in order, with fixed masks.

    The masks are those of epoch 0 of `masked_lm_dataset` with this seed, and
    do not depend on `batch_size`.

    Args:
        sequences: integers, (n, length), packed sequences.
        special: the ids of the special tokens.
        vocabulary_size: int, exclusive upper limit of replacements.
        batch_size: int, sequences per batch; the last may have fewer.
        seed: int, determines the masks.
        rate: float in (0, 1], share of tokens to predict. Defaults to 0.15.
        token_weights: float, (vocabulary,), see `mask_tokens`.

    Returns:
        A dataset as from `masked_lm_dataset`, of shape (None, length).

    Raises:
        ValueError: if there are no sequences, or `batch_size` or `rate` is
            out of range.
    """
    count = _check(sequences, batch_size)
    if not count:
        raise ValueError(
            "There are no held-out sequences. Raise `held_out_fraction` or "
            "add text."
        )
    return masked_rows_dataset(
        sequences,
        part=0,
        masking=0,
        start=0,
        stop=count,
        special=special,
        vocabulary_size=vocabulary_size,
        batch_size=batch_size,
        seed=seed,
        rate=rate,
        token_weights=token_weights,
    )


def masked_rows_dataset(
    sequences: Sequences | list[ShardedSequences],
    *,
    part: int,
    masking: int,
    start: int,
    stop: int,
    special: SpecialTokens,
    vocabulary_size: int,
    batch_size: int,
    seed: int,
    rate: float = 0.15,
    token_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Builds a pass over some rows, in order, with the masks of one epoch.

    The masks are those of `masked_lm_dataset` with the same arguments.

    Args:
        sequences: packed sequences, or the buckets.
        part: int, the bucket; 0 if the sequences are packed.
        masking: int, the epoch whose masks are used.
        start: int, the first row.
        stop: int, the row after the last.
        special: the ids of the special tokens.
        vocabulary_size: int, exclusive upper limit of replacements.
        batch_size: int, sequences per batch; the last may have fewer.
        seed: int, determines the masks.
        rate: float in (0, 1], share of tokens to predict. Defaults to 0.15.
        token_weights: float, (vocabulary,), see `mask_tokens`.

    Returns:
        A dataset as from `masked_lm_dataset`, of shape (None, length).
    """
    parts = sequences if isinstance(sequences, list) else [sequences]
    make = _BatchMaker(
        parts[part],
        special,
        vocabulary_size,
        seed,
        rate,
        token_weights,
        places_before=sum(map(len, parts[:part])),
    )

    def batch(step: tf.Tensor, places: tf.Tensor):
        rows = start + step * batch_size + places
        return make(
            rows, tf.fill(tf.shape(rows), tf.constant(masking, tf.int64))
        )

    count = stop - start
    stream = Stream(
        batch,
        batch_size=batch_size,
        steps=-(-count // batch_size),
        examples=count,
    )
    return stream.dataset()


def _find_masking(epochs: tf.Tensor, maskings: int | None) -> tf.Tensor:
    """Returns the epoch whose masks each epoch uses."""
    return epochs if maskings is None else epochs % maskings


def _add_nothing(rows: tf.Tensor, maskings: tf.Tensor) -> dict:
    return {}


class _BatchMaker:
    """Gathers and masks rows of an array or of shards on disk.

    `places_before` keeps the masks of several makers distinct.
    """

    def __init__(
        self,
        sequences: Sequences,
        special: SpecialTokens,
        vocabulary_size: int,
        seed: int,
        rate: float,
        token_weights: np.ndarray | None,
        *,
        places_before: int = 0,
        more_inputs: MoreInputs = _add_nothing,
    ):
        if token_weights is not None:
            _check_weights(np.asarray(token_weights), vocabulary_size)
        # Eager tensors are captured as inputs of the mapped function; a
        # graph constant would be copied, and is limited to 2 GB.
        with tf.device("cpu"):
            self._rows = row_reader(sequences)
            self.token_weights = (
                None
                if token_weights is None
                else tf.convert_to_tensor(token_weights, tf.float32)
            )
        self.special = special
        self.vocabulary_size = vocabulary_size
        self.seed = seed
        self.rate = rate
        self.places_before = places_before
        self.more_inputs = more_inputs

    def __call__(self, rows: tf.Tensor, epochs: tf.Tensor):
        token_ids = tf.cast(self._rows(rows), tf.int32)
        seeds = tf.fill(tf.shape(rows), tf.constant(self.seed, tf.int64))
        masked_ids, selected = mask_tokens(
            token_ids,
            tf.stack([seeds, epochs, rows + self.places_before], axis=-1),
            special=self.special,
            vocabulary_size=self.vocabulary_size,
            rate=self.rate,
            token_weights=self.token_weights,
        )
        # Only at the end, because a text may spell [PAD].
        real = tf.cast(token_ids != self.special.pad_id, tf.int32)
        padding_mask = tf.cumsum(real, axis=1, reverse=True)
        padding_mask = tf.minimum(padding_mask, 1)
        x = {
            "token_ids": masked_ids,
            "padding_mask": padding_mask,
            **self.more_inputs(rows, epochs),
        }
        return x, token_ids, selected


def row_reader(sequences: Sequences) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that reads rows, from memory or from disk."""
    if isinstance(sequences, ShardedSequences):

        def read(rows: tf.Tensor) -> tf.Tensor:
            # Marked stateless: under deterministic operations it may still
            # run in parallel.
            read_rows = tf.numpy_function(
                sequences.read, [rows], sequences.dtype, stateful=False
            )
            read_rows.set_shape([rows.shape[0], sequences.shape[1]])
            return read_rows

        return read
    rows_in_memory = tf.convert_to_tensor(sequences)
    return lambda rows: tf.gather(rows_in_memory, rows)


def reading_error(error: Exception) -> CorpusError | None:
    """Extracts the error of a corpus on disk from TensorFlow's error.

    TensorFlow wraps the error of a reading function in an error that has a
    traceback in its text.
    """
    match = re.search(rf"{CorpusError.__name__}: (.+)", str(error))
    return CorpusError(match[1]) if match else None


def _check_weights(token_weights: np.ndarray, vocabulary_size: int) -> None:
    if token_weights.shape != (vocabulary_size,):
        raise ValueError(
            "`token_weights` must have one weight per token, shape "
            f"({vocabulary_size},). Received: shape {token_weights.shape}."
        )
    if not (np.isfinite(token_weights) & (token_weights > 0)).all():
        raise ValueError(
            "`token_weights` must be positive and finite. Received: minimum "
            f"{token_weights.min()}, maximum {token_weights.max()}. "
            "`rare_token_weights` makes such weights from counts."
        )


def _check(sequences: Sequences, batch_size: int) -> int:
    if batch_size < 1:
        raise ValueError(
            "`batch_size` must be at least 1. "
            f"Received: batch_size={batch_size}."
        )
    if len(sequences.shape) != 2:
        raise ValueError(
            "`sequences` must have shape (sequences, length). "
            f"Received: shape {sequences.shape}."
        )
    return len(sequences)
