"""Static sentence embedders: one vector per token, without context."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import tokenizers
from keras import ops
from keras_hub.models import Backbone, TextEmbedder

from keras_distil.data import (
    EncodedExamples,
    Encoder,
    SpecialTokens,
)
from keras_distil.models.architectures.text_embedder import ExactTextEmbedder
from keras_distil.models.checkpoints.static_folder import read_static_folder
from keras_distil.models.directions import principal_directions
from keras_distil.models.embedding_model import (
    check_embedder,
    vector_width,
)
from keras_distil.models.text_preprocessor import (
    TextPreprocessor,
    read_tokenizer,
)
from keras_distil.models.weights import assign, seeded_build
from keras_distil.utils.checks import check_count

Tensor = Any

# The constant of Arora et al. 2017: a token of this share of the text has
# half the weight of a rare one.
_HALF_SHARE = 1e-3
_WORD_PIECE = "WordPiece"
_DEFAULT_LENGTH = 512


@keras.saving.register_keras_serializable(package="keras_distil")
class StaticTokens(keras.layers.Layer):
    """Looks up the vector of each token; special tokens and padding have none.

    Args:
        vocabulary_size: int, rows of the table.
        hidden_dim: int, width of the vectors.
        special_ids: ids of tokens that stand for no text.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        token_ids: int, (batch, length).
        padding_mask: int, (batch, length), above 0 at tokens.

    Returns:
        float, (batch, length, hidden_dim).
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_dim: int,
        special_ids: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.special_ids = [int(x) for x in special_ids]
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(vocabulary_size, hidden_dim),
            initializer="uniform",
        )
        self.built = True

    def call(self, token_ids: Tensor, padding_mask: Tensor) -> Tensor:
        """Returns the vectors of tokens; see the class."""
        real = ops.cast(padding_mask, "bool")
        for special in self.special_ids:
            real = ops.logical_and(real, token_ids != special)
        vectors = ops.take(self.embeddings, token_ids, axis=0)
        return ops.where(ops.expand_dims(real, -1), vectors, 0.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer."""
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "special_ids": self.special_ids,
        }


@keras.saving.register_keras_serializable(package="keras_distil")
class StaticBackbone(Backbone):
    """An encoder without context: a table of token vectors.

    Args:
        vocabulary_size: int, rows of the table.
        hidden_dim: int, width of the vectors.
        special_ids: ids of tokens that stand for no text.
        dtype: Keras dtype policy.
        **kwargs: arguments of `keras_hub.models.Backbone`.

    Call arguments:
        inputs: "token_ids" and "padding_mask", int32, (batch, length).

    Returns:
        float, (batch, length, hidden_dim).
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_dim: int,
        special_ids: Sequence[int] = (),
        dtype: str | keras.DTypePolicy | None = None,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.token_embedding = StaticTokens(
            vocabulary_size,
            hidden_dim,
            special_ids,
            dtype=dtype,
            name="token_embedding",
        )

        # === Functional Model ===
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("token_ids", "padding_mask")
        }
        super().__init__(
            inputs=inputs,
            outputs=self.token_embedding(**inputs),
            dtype=dtype,
            **kwargs,
        )

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.special_ids = [int(x) for x in special_ids]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the encoder."""
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "special_ids": self.special_ids,
        }


@keras.saving.register_keras_serializable(package="keras_distil")
class StaticTextEmbedder(ExactTextEmbedder, keras_hub.models.TextEmbedder):
    """A sentence embedder whose vector is a mean of the tokens' own.

    See `ExactTextEmbedder`.

    Args:
        *args: see `ExactTextEmbedder`.
        **kwargs: see `ExactTextEmbedder`.
    """

    backbone_cls = StaticBackbone


def static_embedding_model(
    teacher: TextEmbedder,
    texts: Sequence[str],
    dimension: int = 256,
    *,
    added_words: int = 0,
    sequence_length: int = _DEFAULT_LENGTH,
    batch_size: int = 256,
    seed: int = 0,
) -> TextEmbedder:
    """Makes a static table of a teacher's vectors of single tokens.

    Each token is a text of its own to the teacher. The vectors lose their
    mean, are reduced to their principal components if there are fewer than the
    teacher has coordinates, and weighted: a token of the share p of `texts` has
    the weight a / (a + p), a = 0.001. The vector of a text is the mean of its
    tokens', scaled to length 1. It is a start, to be trained against the
    teacher's vectors of whole texts by a `Distiller`.

    Args:
        teacher: an embedding model with a tokenizer.
        texts: typical texts, in which tokens are counted.
        dimension: int >= 1, size of the vectors, at most the teacher's.
        added_words: int >= 0, how many of the texts' most frequent words the
            vocabulary lacks get a row. Only for WordPiece. The teacher then
            reads other ids than the student: give a Distiller the teacher's
            vectors.
        sequence_length: int >= 8, tokens at which a text is cut.
        batch_size: int >= 1, tokens per batch of the teacher.
        seed: int, of what is random in building the model: nothing stays.

    Returns:
        A `StaticTextEmbedder`.

    Raises:
        TypeError: if `teacher` is not an embedding model with a tokenizer.
        ValueError: if a number is out of range, or words cannot be added.

    Reference:
        Tulkens and van Dongen 2024, model2vec. Arora, Liang and Ma 2017, A
        simple but tough-to-beat baseline for sentence embeddings, section 3.
        Differs: shares are counted, not estimated from ranks.
    """
    check_embedder(teacher, "teacher")
    preprocessor = teacher.preprocessor
    if not isinstance(preprocessor, TextPreprocessor) or (
        preprocessor.tokenizer is None
    ):
        raise TypeError(
            "`teacher` must have a tokenizer, as from "
            "`models.load_embedding_model`. Received: "
            f"preprocessor={preprocessor!r:.60}."
        )
    dimension = check_count("dimension", dimension)
    if dimension > vector_width(teacher):
        raise ValueError(
            f"`dimension` must be at most {vector_width(teacher)}, the size of "
            f"the teacher's vectors. Received: dimension={dimension}."
        )
    tokenizer = preprocessor.tokenizer
    if check_count("added_words", added_words, 0):
        tokenizer = with_words(tokenizer, texts, added_words)
    special = SpecialTokens.from_tokenizer(tokenizer)
    shares = _shares(tokenizer, texts, special)
    vectors = _token_vectors(teacher, tokenizer, special, batch_size)
    vectors -= vectors.mean(axis=0)
    if dimension < vector_width(teacher):
        vectors = vectors @ principal_directions(vectors)[:, :dimension]
    table = vectors * (_HALF_SHARE / (_HALF_SHARE + shares))[:, np.newaxis]
    with seeded_build(seed):
        backbone = StaticBackbone(len(table), dimension, special.ids)
        model = StaticTextEmbedder(
            backbone,
            TextPreprocessor(tokenizer, sequence_length=sequence_length),
            prompts=getattr(teacher, "prompts", None),
            default_prompt_name=getattr(teacher, "default_prompt_name", None),
        )
    assign(backbone.token_embedding.embeddings, table)
    return model


def load_static_folder(
    directory: Path, *, dtype: str | keras.DTypePolicy | None, seed: int
) -> TextEmbedder:
    """Loads a static table in the layout of sentence-transformers.

    Args:
        directory: the folder.
        dtype: Keras dtype policy of the table, or None for Keras's global one.
        seed: int, of what is random in building the model: nothing stays.

    Raises:
        ValueError: if a file is missing or damaged, or table and tokenizer do
            not belong together.
    """
    folder = read_static_folder(directory)
    tokenizer = read_tokenizer(folder.tokenizer_file)
    length = _DEFAULT_LENGTH
    if tokenizer.truncation is not None:
        framing = tokenizer.num_special_tokens_to_add(False)
        length = tokenizer.truncation["max_length"] + framing
    tokenizer.no_truncation()
    table, special = folder.table, SpecialTokens.from_tokenizer(tokenizer)
    if len(table) < tokenizer.get_vocab_size():
        raise ValueError(
            f"The table in `{directory}` must have a row for each of the "
            f"tokenizer's {tokenizer.get_vocab_size()} tokens. Received: "
            f"{len(table)} rows."
        )
    # sentence-transformers leaves out those that frame a text, and no others.
    frame = (special.pad_id, special.cls_id, special.sep_id)
    without = [x for x in special.ids if x in frame or not table[x].any()]
    with seeded_build(seed):
        tokens, dimension = table.shape
        backbone = StaticBackbone(tokens, dimension, without, dtype=dtype)
        model = StaticTextEmbedder(
            backbone,
            TextPreprocessor(tokenizer, sequence_length=length),
            prompts=folder.prompts,
            default_prompt_name=folder.default_prompt_name,
        )
    assign(backbone.token_embedding.embeddings, table)
    return model


def with_words(
    tokenizer: tokenizers.Tokenizer, texts: Sequence[str], count: int
) -> tokenizers.Tokenizer:
    """Adds frequent whole words to a WordPiece vocabulary.

    Args:
        tokenizer: the tokenizer; it is not changed.
        texts: texts whose words are counted, as the tokenizer normalises
            them.
        count: int, words to add, of those that are several pieces; fewer if
            there are fewer.

    Raises:
        ValueError: if the tokenizer is of another kind.
    """
    kind = type(tokenizer.model).__name__
    if kind != _WORD_PIECE:
        raise ValueError(
            "`added_words` needs a WordPiece tokenizer, which finds whole "
            f"words by itself. Received: {kind}. Use added_words=0."
        )
    counts: Counter[str] = Counter()
    for text in texts:
        plain = tokenizer.normalizer.normalize_str(text)
        words = tokenizer.pre_tokenizer.pre_tokenize_str(plain)
        counts.update(word for word, _ in words)
    known = tokenizer.get_vocab(with_added_tokens=True)
    described = json.loads(tokenizer.to_str())
    longest = described["model"]["max_input_chars_per_word"]
    # By count, and of equal counts in alphabetical order.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    added = [x for x in ranked if x not in known and len(x) <= longest][:count]
    described["model"]["vocab"] |= {
        word: number for number, word in enumerate(added, len(known))
    }
    return tokenizers.Tokenizer.from_str(json.dumps(described))


def _shares(
    tokenizer: tokenizers.Tokenizer,
    texts: Sequence[str],
    special: SpecialTokens,
) -> np.ndarray:
    """Returns each token's share of the texts' tokens, float64."""
    size = tokenizer.get_vocab_size()
    counts = np.zeros(size)
    for ids in Encoder(tokenizer).encode(texts):
        counts += np.bincount(ids, minlength=size)
    counts[list(special.ids)] = 0.0
    if not counts.any():
        raise ValueError(
            "`texts` must hold tokens of the vocabulary. Received: none."
        )
    return counts / counts.sum()


def _token_vectors(
    teacher: TextEmbedder,
    tokenizer: tokenizers.Tokenizer,
    special: SpecialTokens,
    batch_size: int,
) -> np.ndarray:
    """Returns the teacher's vector of each token alone, float64.

    A token that the teacher's vocabulary lacks is read in its pieces.
    """
    known = teacher.preprocessor.tokenizer.get_vocab_size()
    words = [
        tokenizer.id_to_token(number)
        for number in range(known, tokenizer.get_vocab_size())
    ]
    pieces = teacher.preprocessor.tokenizer.encode_batch(
        words, add_special_tokens=False
    )
    texts = [[x] for x in range(known)] + [piece.ids for piece in pieces]
    rows = [[special.cls_id, *text, special.sep_id] for text in texts]
    lengths = np.array([len(row) for row in rows])
    examples = EncodedExamples(
        token_ids=np.concatenate(rows).astype(np.int32),
        starts=np.cumsum([0, *lengths], dtype=np.int64),
        first_lengths=lengths.astype(np.int32),
        labels=None,
        pad_id=special.pad_id,
        max_length=int(lengths.max()),
    )
    vectors = teacher.encode_tokens(examples, batch_size=batch_size)
    vectors = vectors.astype(np.float64)
    special_ids = list(special.ids)
    # Never looked up, so they must not move the mean.
    ordinary = np.delete(vectors, special_ids, axis=0)
    vectors[special_ids] = ordinary.mean(axis=0)
    return vectors
