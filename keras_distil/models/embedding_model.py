"""Sentence embedders, built from encoders, and what they compute."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_hub
import numpy as np
import tokenizers
from keras_hub.models import Backbone, TextEmbedder

from keras_distil.data import load_tokenizer
from keras_distil.models.architectures import family_of, titles
from keras_distil.models.architectures.sentence_embedding import (
    SentenceEmbedding,
)
from keras_distil.models.architectures.text_embedder import ExactTextEmbedder
from keras_distil.models.directions import choose_directions
from keras_distil.models.origin import folder_of, inherit_folder
from keras_distil.models.supported import check_inputs, is_patched
from keras_distil.models.text_preprocessor import TextPreprocessor
from keras_distil.models.weights import assign, copy_weights, seeded_build
from keras_distil.utils.checks import check_count

Tensor = Any


def embedding_model(
    encoder: keras_hub.models.Task | Backbone,
    pooling_mode: str = "mean",
    normalize: bool = True,
    dimension: int | None = None,
    *,
    tokenizer: tokenizers.Tokenizer | None = None,
    sequence_length: int | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int = 0,
) -> TextEmbedder:
    """Makes a copy of an encoder a sentence embedder.

    Args:
        encoder: a KerasHub encoder of a supported family, or a task model
            whose encoder is used. It is not changed. Of an embedding model,
            tokenizer, length and prompts are taken over unless others are
            given.
        pooling_mode: "mean" or "max" over the tokens' last states, or "cls",
            the first token's state.
        normalize: bool, whether vectors are scaled to length 1.
        dimension: int >= 1, size of the vectors, by a new dense layer after
            the pooling; None for the encoder's width, without one.
        tokenizer: reads texts; None for that of the folder that the encoder
            was loaded from, if there is one.
        sequence_length: int >= 8, tokens at which a text is cut. Defaults to
            the encoder's positions.
        prompts: by name, what is put before a text; see `ExactTextEmbedder`.
        default_prompt_name: the prompt of texts without another.
        dtype: Keras dtype policy of the encoder; None keeps its own. Vectors
            are always float32.
        seed: int, determines the dense layer and the dropout layers.

    Returns:
        A `keras_hub.models.TextEmbedder`, not compiled; for a
        BERT it is also KerasHub's own class of that family.

    Raises:
        TypeError: if `encoder` is not of a supported family, or an argument
            has a wrong type.
        ValueError: if a name is unknown or a number out of range.

    Example:
        >>> from keras_distil import models
        >>> backbone = models.ExactBertBackbone(
        ...     vocabulary_size=32, num_layers=1, num_heads=2,
        ...     hidden_dim=8, intermediate_dim=16, max_sequence_length=12,
        ... )
        >>> model = models.embedding_model(backbone, dimension=4)
        >>> model.predict(
        ...     {"token_ids": [[2, 7, 3]], "padding_mask": [[1, 1, 1]]},
        ...     verbose=0,
        ... ).shape                                         # doctest: +SKIP
        (1, 4)

    Reference:
        Reimers and Gurevych 2019, arXiv:1908.10084. Differs: none.
    """
    backbone = getattr(encoder, "backbone", encoder)
    if not isinstance(backbone, Backbone) or family_of(backbone) is None:
        advice = ""
        if isinstance(encoder, str):
            advice = " `models.load_embedding_model` loads a folder or a name."
        raise TypeError(
            "`encoder` must be a KerasHub encoder or task model of a supported "
            f"family: {titles()}. Received: {type(encoder).__name__}.{advice}"
        )
    if tokenizer is None:
        tokenizer = own_tokenizer(encoder)
    if sequence_length is None:
        preprocessor = getattr(encoder, "preprocessor", None)
        sequence_length = getattr(preprocessor, "sequence_length", None)
    if prompts is None and default_prompt_name is None:
        prompts = getattr(encoder, "prompts", None)
        default_prompt_name = getattr(encoder, "default_prompt_name", None)
    with seeded_build(seed):
        model = put_embedding(
            _copy_encoder(backbone, dtype),
            make_preprocessor(tokenizer, sequence_length, backbone),
            pooling_mode=pooling_mode,
            normalize=normalize,
            dimension=dimension,
            prompts=prompts,
            default_prompt_name=default_prompt_name,
        )
    inherit_folder(encoder, model)
    return model


def put_embedding(
    backbone: Backbone, preprocessor: Any, **settings: Any
) -> TextEmbedder:
    """Makes the encoder itself a sentence embedder; see `embedding_model`."""
    family = family_of(backbone)
    if family is None:
        raise TypeError(
            f"The encoder must be of a supported family: {titles()}. "
            f"Received: {type(backbone).__name__}."
        )
    return family.text_embedder(backbone, preprocessor, **settings)


def with_principal_components(
    model: TextEmbedder,
    vectors: np.ndarray,
    dimension: int,
    cuts: Sequence[int] = (),
) -> TextEmbedder:
    """Reduces an embedder's vectors to their principal components.

    The vectors are multiplied by the first eigenvectors of their second
    moments, largest first: of all linear maps to this size, that keeps dot
    products best. At full size it is a rotation, which changes no similarity
    and sorts the coordinates by their share. For `losses.Matryoshka`, `cuts`
    gives the numbers of coordinates that are to be enough: the first ones are
    then turned until their cosines with near texts are closest to the whole
    vectors', which takes half a minute; see `models.directions`.

    Args:
        model: an embedding model, without or with a linear dense layer; it is
            not changed.
        vectors: float, (texts, width), the model's vectors of typical texts,
            at least as many as `dimension`; from `encode_text`.
        dimension: int, size of the new vectors, at most the old.
        cuts: ints below `dimension`; none for the components alone.

    Returns:
        A model of the same class, whose dense layer makes the components.

    Raises:
        TypeError: if `model` is not an embedding model.
        ValueError: if the sizes do not fit, a value is not finite, or the
            dense layer has a tanh.

    Reference:
        Su et al. 2021, arXiv:2103.15316 (whitening), without the division by
        the spread. Differs: the mean is not subtracted, as that would change
        cosines.
    """
    check_embedder(model, "model")
    vectors = np.asarray(vectors, np.float64)
    width = vector_width(model)
    dimension = check_count("dimension", dimension)
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise ValueError(
            f"`vectors` must be the model's, (texts, {width}). Received: "
            f"shape {vectors.shape}."
        )
    if not dimension <= min(vectors.shape):
        raise ValueError(
            f"`dimension` must be at most {min(vectors.shape)}, the number "
            "and the width of `vectors`. Received: "
            f"dimension={dimension}."
        )
    if not np.isfinite(vectors).all():
        raise ValueError("`vectors` must be finite. Received: others.")
    return with_directions(model, choose_directions(vectors, dimension, cuts))


def with_directions(
    model: TextEmbedder, directions: np.ndarray
) -> TextEmbedder:
    """Multiplies an embedder's vectors by a matrix, in its dense layer.

    Args:
        model: as for `with_principal_components`.
        directions: float64, (width, dimension).

    Raises:
        ValueError: if the dense layer has a tanh.
    """
    width, dimension = directions.shape
    settings = embedding_settings(model)
    if settings["activation"] != "linear":
        raise ValueError(
            "The dense layer of `model` must be linear. Received: "
            f"activation={settings['activation']!r}."
        )
    kernel, bias = np.eye(width), np.zeros(width)
    if settings["dimension"] is not None:
        weights = model.sentence_embedding.weights
        kernel, bias = (np.asarray(x.numpy(), np.float64) for x in weights)
    with seeded_build(0):
        reduced = put_embedding(
            _copy_encoder(model.backbone, None),
            model.preprocessor,
            **{**settings, "dimension": dimension},
        )
    assign(reduced.sentence_embedding.kernel, kernel @ directions)
    assign(reduced.sentence_embedding.bias, bias @ directions)
    inherit_folder(model, reduced)
    return reduced


# === What an embedder is and computes ===


def is_embedder(model: Any) -> bool:
    """Checks whether a model is a static embedder, or one of a known family."""
    return isinstance(model, ExactTextEmbedder) or (
        isinstance(model, TextEmbedder) and family_of(model) is not None
    )


def check_embedder(model: Any, role: str) -> None:
    """Raises TypeError unless a model's vectors are known.

    Args:
        model: the model to check.
        role: the argument's name, for the message.

    Raises:
        TypeError: if it is not an embedding model of a supported family, or
            has layers besides its encoder and its embedding.
    """
    own = isinstance(model, ExactTextEmbedder)
    family = family_of(model)
    is_hubs = family is not None and type(model) is family.hub.text_embedder
    if not (own or is_hubs):
        raise TypeError(
            f"`{role}` must be an embedding model, such as "
            "`models.embedding_model` makes and `models.load_embedding_model` "
            f"loads. Received: {type(model).__name__}."
        )
    check_inputs(model, role)
    strange = [model] if is_patched(model) else []
    if own:
        known = {id(model.backbone), id(model.sentence_embedding)}
        strange += [
            operation
            for operation in model.operations
            if id(operation) not in known
            and not isinstance(operation, keras.layers.InputLayer)
        ]
    if strange:
        raise TypeError(
            f"`{role}` must compute its vectors only by its encoder and its "
            f"embedding. Received: {role}={model.name!r} with another "
            f"{strange[0].name!r} (of type {type(strange[0]).__name__}). Build "
            "it again from its encoder."
        )


def embedding_settings(model: TextEmbedder) -> dict[str, Any]:
    """Returns the arguments of `put_embedding` for an embedder like this."""
    return {
        "pooling_mode": model.pooling_mode,
        "normalize": model.normalize,
        "dimension": getattr(model, "dimension", None),
        "activation": getattr(model, "activation", "linear"),
        "prompts": getattr(model, "prompts", None),
        "default_prompt_name": getattr(model, "default_prompt_name", None),
    }


def prompts_by_use(model: TextEmbedder) -> dict[str, str]:
    """Returns what an embedder puts before "texts", "queries", "documents".

    A model without prompts has only "texts", with nothing before them.
    """
    if not getattr(model, "prompts", None):
        return {"texts": ""}
    return model.usual_prompts()


def text_length(model: TextEmbedder) -> int:
    """Returns the number of tokens at which an embedder cuts a text."""
    preprocessor = model.preprocessor
    if preprocessor is None:
        return model.backbone.max_sequence_length
    return preprocessor.sequence_length


def vector_width(model: Any) -> int:
    """Returns the size of the vectors of an embedder, or of a cached one."""
    return getattr(model, "dimension", None) or model.backbone.hidden_dim


def vectors_of(
    model: TextEmbedder, states: Tensor, padding_mask: Tensor
) -> Tensor:
    """Returns an embedder's vectors from its encoder's last hidden states.

    Args:
        model: a model that `check_embedder` accepts.
        states: float, (batch, length, width). Values at padding do not matter.
        padding_mask: int, (batch, length).

    Returns:
        float32, (batch, dimension).
    """
    if isinstance(model, ExactTextEmbedder):
        return model.sentence_embedding(states, padding_mask)
    layer = SentenceEmbedding(model.pooling_mode, model.normalize)
    return layer(states, padding_mask)


# === Parts ===


def own_tokenizer(encoder: Any) -> tokenizers.Tokenizer | None:
    """Returns the tokenizer that an encoder came with; None without one."""
    preprocessor = getattr(encoder, "preprocessor", None)
    if isinstance(preprocessor, TextPreprocessor):
        return preprocessor.tokenizer
    folder = folder_of(encoder)
    if folder is None:
        return None
    try:
        return load_tokenizer(folder)
    except FileNotFoundError:
        return None


def make_preprocessor(
    tokenizer: tokenizers.Tokenizer | None,
    sequence_length: int | None,
    backbone: Backbone,
) -> TextPreprocessor | None:
    """Returns what reads texts for an encoder; None without a tokenizer.

    Args:
        tokenizer: the tokenizer, or None.
        sequence_length: tokens at which a text is cut; None for the encoder's
            positions.
        backbone: the encoder.

    Raises:
        ValueError: if it has fewer positions.
    """
    longest = backbone.max_sequence_length
    if sequence_length is not None and sequence_length > longest:
        raise ValueError(
            f"`sequence_length` must be at most {longest}, the encoder's "
            f"positions. Received: sequence_length={sequence_length}."
        )
    if tokenizer is None:
        return None
    return TextPreprocessor(
        tokenizer, sequence_length=sequence_length or longest
    )


def _copy_encoder(
    backbone: Backbone, dtype: str | keras.DTypePolicy | None
) -> Backbone:
    config = backbone.get_config()
    # A Distiller freezes its teacher, but a copy of its encoder is trainable.
    config["trainable"] = True
    if dtype is not None:
        config["dtype"] = dtype
    copy = type(backbone).from_config(config)
    copy_weights(backbone, copy)
    return copy
