"""The shape of an encoder, and its costs, without its weights."""

import dataclasses
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_hub

from keras_distil.models.architectures import FAMILIES
from keras_distil.models.checkpoints import read_config
from keras_distil.models.checkpoints.sentence_transformers import (
    MODULES_FILE,
    read_sentence_transformer,
)
from keras_distil.models.embedded import (
    EMBEDDED,
    EMBEDDED_BASE,
    embedded_directory,
)
from keras_distil.models.hub import HUB_SCHEME, download_error, parse_source
from keras_distil.models.initialize_student import (
    _student_sizes,
    student_layer_indices,
)
from keras_distil.models.keras_archive import check_archive
from keras_distil.models.presets import fetch_config, nearest_preset
from keras_distil.utils.disk import read_json


@dataclasses.dataclass(frozen=True)
class EncoderShape:
    """The sizes of an encoder with a masked-LM head.

    Attributes:
        architecture: name of its family: `model_type` of `config.json`.
        vocabulary_size: rows of the token embedding, which the head shares.
        num_layers: transformer layers.
        num_heads: attention heads per layer.
        hidden_dim: width.
        intermediate_dim: width inside the feed-forward layers.
        max_sequence_length: rows of the position embedding.
        num_segments: rows of the token-type embedding, 0 without one.
    """

    architecture: str
    vocabulary_size: int
    num_layers: int
    num_heads: int
    hidden_dim: int
    intermediate_dim: int
    max_sequence_length: int
    num_segments: int = 0

    @property
    def encoder_parameters(self) -> int:
        """Number of weights of the encoder alone."""
        width = self.hidden_dim
        head = width * width + 3 * width + self.vocabulary_size
        return self.parameters - head

    @property
    def parameters(self) -> int:
        """Number of weights of the encoder and the masked-LM head.

        The vocabulary matrix counts once. The encoder's pooler is included:
        KerasHub builds it, although masked language modelling does not use it.
        """
        width, inner = self.hidden_dim, self.intermediate_dim
        rows = (
            self.vocabulary_size + self.max_sequence_length + self.num_segments
        )
        dense = width * width + width
        norm = 2 * width
        feed_forward = 2 * width * inner + inner + width
        layer = 4 * dense + feed_forward + 2 * norm
        pooler = dense if FAMILIES[self.architecture].weights.pooler else 0
        head = dense + norm + self.vocabulary_size
        return rows * width + norm + self.num_layers * layer + pooler + head

    def flops_per_token(self, length: int) -> int:
        """Returns the floating-point operations per token of a forward pass.

        Formula:
            num_layers * (8 * hidden_dim**2 + 4 * hidden_dim * intermediate_dim
                          + 4 * length * hidden_dim)

        Matrix products only, counting a multiplication and an addition as 2:
        the four projections of attention, the feed-forward part, scores and
        their sum.

        Args:
            length: tokens per sequence.
        """
        width = self.hidden_dim
        projections = 8 * width * width + 4 * width * self.intermediate_dim
        return self.num_layers * (projections + 4 * length * width)

    @property
    def head_flops_per_token(self) -> int:
        """Operations of the head for each token that needs logits.

        Formula:
            2 * hidden_dim**2 + 2 * hidden_dim * vocabulary_size
        """
        return 2 * self.hidden_dim * (self.hidden_dim + self.vocabulary_size)


# By the name of the class that KerasHub's configurations hold.
_ARCHITECTURES = {
    encoder.__name__: family.name
    for family in FAMILIES.values()
    for encoder in family.encoders
}


def encoder_shape(
    source: str | os.PathLike, *, of_task: bool = False
) -> tuple[EncoderShape, str]:
    """Finds the shape of a teacher without loading its weights.

    For a preset or a model on the Hugging Face Hub, at most its `config.json`
    is downloaded, and nothing for the models of the papers.

    Args:
        source: as for `load_teacher`, but not a live model.
        of_task: bool, whether a `.keras` file holds a model of a task.

    Returns:
        The shape, and a description of its origin.

    Raises:
        ValueError: if there is no such source, or its family is not
            supported.
        ConnectionError: if a `config.json` cannot be downloaded.

    Example:
        >>> shape, origin = encoder_shape(
        ...     "hf://distilbert/distilbert-base-uncased"
        ... )
        >>> shape.num_layers, shape.parameters
        (6, 66985530)
    """
    source = os.fspath(source)
    if source in (EMBEDDED, EMBEDDED_BASE):
        shape = _directory_shape(embedded_directory())
        return shape, "config.json of the embedded teacher"
    if source.startswith(HUB_SCHEME):
        return _hub_shape(source)
    if source.endswith(".keras"):
        kind = keras_hub.models.Task if of_task else keras_hub.models.MaskedLM
        return _keras_file_shape(Path(source), kind), source
    if Path(source).is_dir():
        return _directory_shape(Path(source)), str(Path(source, "config.json"))
    directory = fetch_config(source)
    if directory is not None:
        return _directory_shape(directory), f"config.json of {source}"
    raise ValueError(
        "`source` must be a local directory, a `.keras` file, "
        f"`{HUB_SCHEME}organisation/name`, a KerasHub preset or `{EMBEDDED}` "
        f"for its shape to be known beforehand. Received: {source!r}."
        f"{nearest_preset(source)}"
    )


def embedder_shape(source: str | os.PathLike) -> tuple[EncoderShape, str]:
    """Finds the shape of a sentence embedder's encoder; see `encoder_shape`.

    Args:
        source: as for `load_embedding_model`, but not a live model.

    Raises:
        ValueError: as `encoder_shape`, or if there is no encoder.
        ConnectionError: if a `config.json` cannot be downloaded.
    """
    source = os.fspath(source)
    if source.endswith(".keras"):
        kind = keras_hub.models.TextEmbedder
        return _keras_file_shape(Path(source), kind), source
    if Path(source, MODULES_FILE).is_file():
        source = os.fspath(read_sentence_transformer(Path(source)).encoder)
    return encoder_shape(source)


def student_shape(
    teacher: EncoderShape,
    num_layers: int | None = None,
    layers: str | Sequence[int] = "alternate",
    *,
    hidden_dim: int | None = None,
    intermediate_dim: int | None = None,
    num_heads: int | None = None,
) -> EncoderShape:
    """Returns the shape of the model that `initialize_student` builds.

    Args:
        teacher: the teacher's shape.
        num_layers: as for `initialize_student`, like all arguments below.
        layers: which of the teacher's layers are copied.
        hidden_dim: width.
        intermediate_dim: width inside the feed-forward layers.
        num_heads: attention heads.

    Raises:
        TypeError: if a size is not an integer.
        ValueError: if a size or a layer is out of range.
    """
    indices = student_layer_indices(teacher.num_layers, num_layers, layers)
    sizes = _student_sizes(teacher, hidden_dim, intermediate_dim, num_heads)
    return EncoderShape(
        FAMILIES[teacher.architecture].of_students.name,
        vocabulary_size=teacher.vocabulary_size,
        num_layers=len(indices),
        max_sequence_length=teacher.max_sequence_length,
        **sizes,
    )


def _directory_shape(directory: Path) -> EncoderShape:
    path = directory / "config.json"
    if path.is_file() and "registered_name" in (config := read_json(path)):
        return _keras_hub_shape(config, path)
    checkpoint = read_config(directory)
    return _shape_of(checkpoint.family.name, checkpoint.backbone)


def _hub_shape(source: str) -> tuple[EncoderShape, str]:
    hub_source = parse_source(source)
    # Imported here because local sources do not need it.
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(
        hub_source.repository, "config.json", **hub_source.options
    )
    if not isinstance(cached, str):
        for family in FAMILIES.values():
            name = hub_source.repository
            for publisher in family.publishers:
                name = name.removeprefix(publisher)
            if name in family.published:
                # Without a network, a request to the Hub fails after half a
                # minute.
                shape = EncoderShape(family.name, **family.published[name])
                return shape, f"published shape of {name}, not downloaded"
        cached = _download_config(source)
    return _directory_shape(Path(cached).parent), f"config.json of {source}"


def _download_config(source: str) -> str:
    import huggingface_hub

    hub_source = parse_source(source)
    try:
        return huggingface_hub.hf_hub_download(
            hub_source.repository, "config.json", **hub_source.options
        )
    # As in `download_checkpoint`: no narrower class covers the client.
    except Exception as error:
        what = f"the config.json of {source!r}"
        raise download_error(what, error) from error


# Kinds of models in `.keras` files, as messages call them.
_KINDS = {
    keras_hub.models.MaskedLM: "masked-LM",
    keras_hub.models.Task: "task",
    keras_hub.models.TextEmbedder: "text embedding",
}


def _keras_file_shape(
    path: Path, kind: type[keras_hub.models.Task]
) -> EncoderShape:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"`{path}` must be a `.keras` archive. Received: "
            f"{'another file' if path.is_file() else 'no file'}."
        )
    config = check_archive(path, kind, _KINDS[kind])
    backbone = config.get("config", {}).get("backbone")
    if not isinstance(backbone, Mapping):
        raise ValueError(
            f"`{path}` must hold a `keras_hub.models.{kind.__name__}`. "
            f"Received: {config.get('class_name')}."
        )
    return _keras_hub_shape(backbone, path)


def _keras_hub_shape(config: Mapping[str, Any], path: Path) -> EncoderShape:
    """Reads the shape from KerasHub's config of a backbone."""
    class_name = config.get("class_name")
    if class_name not in _ARCHITECTURES:
        raise ValueError(
            f"`{path}` must describe one of {sorted(_ARCHITECTURES)}. "
            f"Received: {class_name!r}."
        )
    return _shape_of(_ARCHITECTURES[class_name], config["config"])


def _shape_of(architecture: str, sizes: Mapping[str, Any]) -> EncoderShape:
    names = {field.name for field in dataclasses.fields(EncoderShape)}
    arguments = {name: sizes[name] for name in names & set(sizes)}
    return EncoderShape(architecture, **arguments)
