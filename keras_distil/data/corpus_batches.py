"""Batches of a prepared corpus, with what its tokenizer tells."""

import tensorflow as tf
import tokenizers

from keras_distil.data.corpus.prepared_corpus import PreparedCorpus
from keras_distil.data.masked_batches import held_out_dataset, masked_lm_dataset
from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.vocabulary import vocabulary_size


def training_batches(
    corpus: PreparedCorpus,
    tokenizer: tokenizers.Tokenizer,
    *,
    batch_size: int,
    seed: int = 0,
) -> tf.data.Dataset:
    """Builds an endless stream of masked training batches.

    Every epoch has another order and other masks. `masked_lm_dataset`, which
    does the work, has more options.

    Args:
        corpus: as returned by `prepare_corpus`.
        tokenizer: the tokenizer that it was prepared with.
        batch_size: int, sequences per batch.
        seed: int, determines order and masks. Defaults to 0.

    Returns:
        A dataset of `({"token_ids", "padding_mask"}, y, sample_weight)`, each
        of shape (batch_size, sequence_length), see `masked_lm_dataset`. `fit`
        needs `steps_per_epoch` with it.

    Raises:
        TypeError: if `corpus` is anything else, such as its sequences.
        ValueError: if there are too few sequences for one batch, or the
            tokenizer is another one.
    """
    _check_tokenizer(corpus, tokenizer)
    return masked_lm_dataset(
        corpus.train,
        special=SpecialTokens.from_tokenizer(tokenizer),
        vocabulary_size=vocabulary_size(tokenizer),
        batch_size=batch_size,
        seed=seed,
    )


def held_out_batches(
    corpus: PreparedCorpus,
    tokenizer: tokenizers.Tokenizer,
    *,
    batch_size: int,
    seed: int = 0,
) -> tf.data.Dataset:
    """Builds one pass over the held-out sequences, always with equal masks.

    Args:
        corpus: as returned by `prepare_corpus`.
        tokenizer: the tokenizer that it was prepared with.
        batch_size: int, sequences per batch; the last may have fewer.
        seed: int, determines the masks. Defaults to 0.

    Returns:
        A dataset as from `training_batches`, but finite, for
        `validation_data` and `evaluate`.

    Raises:
        TypeError: if `corpus` is anything else, such as its sequences.
        ValueError: if no text was held out, or the tokenizer is another one.
    """
    _check_tokenizer(corpus, tokenizer)
    return held_out_dataset(
        corpus.held_out,
        special=SpecialTokens.from_tokenizer(tokenizer),
        vocabulary_size=vocabulary_size(tokenizer),
        batch_size=batch_size,
        seed=seed,
    )


def _check_tokenizer(
    corpus: PreparedCorpus, tokenizer: tokenizers.Tokenizer
) -> None:
    if not isinstance(corpus, PreparedCorpus):
        raise TypeError(
            "`corpus` must be what `data.prepare_corpus` or `data.open_corpus` "
            f"returns. Received: {type(corpus).__name__}."
        )
    expected, size = len(corpus.token_counts), vocabulary_size(tokenizer)
    if size != expected:
        raise ValueError(
            "`tokenizer` must be the one that the corpus was prepared with, "
            f"which has {expected} tokens. Received: one of {size} tokens."
        )
