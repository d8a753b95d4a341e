"""A student with fewer layers, started from its teacher's weights."""

import difflib
import logging
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import keras_hub
from keras_hub.models import Backbone

from keras_distil.models.architectures import (
    Family,
    family_of,
    is_text_classifier,
    titles,
)
from keras_distil.models.architectures.activations import DEFAULT
from keras_distil.models.architectures.exact import activation_of, epsilon_of
from keras_distil.models.embedding_model import (
    embedding_settings,
    is_embedder,
    put_embedding,
)
from keras_distil.models.encoder_weights import (
    MaskedLMHead,
    read_embeddings,
    read_masked_lm_head,
)
from keras_distil.models.labels import meaning_of
from keras_distil.models.origin import inherit_folder
from keras_distil.models.task_model import kind_of, put_output
from keras_distil.models.weights import (
    assign,
    check_all_not_quantized,
    copy_weights,
    seeded_build,
)

_LOGGER = logging.getLogger("keras_distil")

# The layers that the DistilBERT authors' script extracts from 12.
_PAPER_CODE_LAYERS = [0, 2, 4, 7, 9, 11]
_CHOICES = ("alternate", "paper_code", "first", "last")
_INITIALIZATIONS = ("teacher", "random")


def initialize_student(
    teacher: keras_hub.models.Task,
    num_layers: int | None = None,
    layers: str | Sequence[int] = "alternate",
    *,
    initialization: str = "teacher",
    hidden_dim: int | None = None,
    intermediate_dim: int | None = None,
    num_heads: int | None = None,
    dropout: float = 0.1,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int = 0,
) -> keras_hub.models.Task:
    """Builds a student from layers of its teacher.

    The student of a BERT is a DistilBERT; of other families, it is one of the
    same family. Embeddings, the chosen layers and the head are copied. The
    pooler of a masked-LM model and the token-type embeddings are dropped; the
    embedding of segment 0 is added to the position embeddings, so a student
    with all layers computes exactly what the teacher computes on a single
    segment.

    Only BERT's text classifier is copied approximately. It reads a pooler
    with tanh, DistilBERT's a layer with ReLU. That layer starts as the pooler
    with 1 added to its biases, which the output's biases subtract again: it
    computes max(z, -1) for tanh(z).

    A student of another width cannot use the teacher's weights: it starts
    with new ones, and a warning says so.

    Args:
        teacher: a `keras_hub` masked-LM model of a supported family, a model
            of a task, as from `load_task_model` or `task_model`, or an
            embedding model, as from `load_embedding_model`.
        num_layers: int, from 1 to the teacher's. Defaults to the length of
            `layers` if it is a list, else to half the teacher's.
        layers: which of the teacher's layers to copy, see
            `student_layer_indices`. Defaults to `"alternate"`.
        initialization: `"teacher"`, or `"random"` to copy nothing, as in the
            paper's ablation. Defaults to `"teacher"`.
        hidden_dim: int, width. Defaults to the teacher's.
        intermediate_dim: int, width inside the feed-forward layers. Defaults
            to the teacher's, in proportion to `hidden_dim`.
        num_heads: int, attention heads. Defaults to the teacher's.
        dropout: float in [0, 1). Defaults to 0.1.
        dtype: Keras dtype policy, or None for Keras's global policy.
        seed: int, determines new weights and the dropout layers. Keras's and
            Python's global random state is neither read nor changed.

    Returns:
        A masked-LM model, or a model of the teacher's task with equally many
        outputs, which are logits, or an embedding model with the teacher's
        pooling, dense layer, prompts and tokenizer. Not compiled.

    Raises:
        TypeError: if `teacher` is not of a supported family and one of these
            kinds, or a size is not an integer.
        ValueError: if a size or a layer is out of range, the initialization
            is unknown, or Keras has quantised the teacher.

    Example:
        >>> from keras_distil import models
        >>> backbone = models.ExactBertBackbone(
        ...     vocabulary_size=32, num_layers=4, num_heads=2,
        ...     hidden_dim=8, intermediate_dim=16, max_sequence_length=12,
        ... )
        >>> teacher = models.ExactBertMaskedLM(backbone)
        >>> student = models.initialize_student(teacher, 2, "alternate")
        >>> student.backbone.num_layers
        2

    Reference:
        Sanh et al. 2019, arXiv:1910.01108, section 3.
        Differs: the embedding of segment 0 is kept, folded into the
        positions; "alternate" takes layers 0, 2, 4, 6, 8, 10 of 12, the
        authors' code 0, 2, 4, 7, 9, 11 ("paper_code").
    """
    source, family = _check_teacher(teacher)
    indices = student_layer_indices(source.num_layers, num_layers, layers)
    sizes = _student_sizes(source, hidden_dim, intermediate_dim, num_heads)
    if initialization not in _INITIALIZATIONS:
        raise ValueError(
            f"`initialization` must be one of {list(_INITIALIZATIONS)}. "
            f"Received: initialization={initialization!r}."
        )
    if not 0 <= dropout < 1:
        raise ValueError(
            f"`dropout` must be in [0, 1). Received: dropout={dropout}."
        )
    with seeded_build(seed):
        backbone = family.make_encoder(
            vocabulary_size=source.vocabulary_size,
            num_layers=len(indices),
            max_sequence_length=source.max_sequence_length,
            dropout=dropout,
            dtype=dtype,
            **sizes,
            **_encoder_settings(source, family),
        )
        student = _put_head(backbone, family, teacher, dropout)
    inherit_folder(teacher, student)
    if initialization == "random":
        return student
    check_all_not_quantized(teacher)
    different = [
        f"{name} {getattr(source, name)} -> {size}"
        for name, size in sizes.items()
        if size != getattr(source, name)
    ]
    if different:
        _LOGGER.warning(
            "Nothing was copied from the teacher, not even layers: the "
            "student's weights are new, because its sizes differ (%s).",
            ", ".join(different),
        )
    else:
        _copy_embeddings(source, backbone)
        for index, layer in zip(
            indices, backbone.transformer_layers, strict=True
        ):
            copy_weights(source.transformer_layers[index], layer)
        _copy_head(teacher, student)
    return student


def student_layer_indices(
    teacher_num_layers: int,
    num_layers: int | None = None,
    layers: str | Sequence[int] = "alternate",
) -> list[int]:
    """Returns the teacher's layer that each student layer starts from.

    Args:
        teacher_num_layers: int, depth of the teacher.
        num_layers: int, depth of the student, or None as for
            `initialize_student`.
        layers: `"alternate"` (evenly spaced from layer 0: every second layer
            for half the depth), `"paper_code"` (0, 2, 4, 7, 9, 11, for 12 to
            6 layers only), `"first"`, `"last"`, or a list of indices without
            repetition.

    Returns:
        List of int, one per student layer.

    Raises:
        TypeError: if `num_layers` or an index is not an integer, or `layers` is
            neither a name nor a list.
        ValueError: if the depth, an index or the name is invalid.

    Example:
        >>> from keras_distil import models
        >>> models.student_layer_indices(12, 6)
        [0, 2, 4, 6, 8, 10]
        >>> models.student_layer_indices(12, 4)
        [0, 3, 6, 9]
    """
    if not isinstance(layers, str | Iterable):
        raise TypeError(
            "`layers` must be a name or a list of layer indices. "
            f"Received: layers={layers!r}."
        )
    if not isinstance(layers, str):
        return _listed_indices(teacher_num_layers, num_layers, layers)
    if layers not in _CHOICES:
        near = difflib.get_close_matches(layers, _CHOICES, n=1, cutoff=0.0)
        raise ValueError(
            f"`layers` must be one of {list(_CHOICES)} or a list of layer "
            f"indices. Received: layers={layers!r}. Did you mean {near[0]!r}?"
        )
    if num_layers is None:
        num_layers = max(1, teacher_num_layers // 2)
    num_layers = _check_num_layers(teacher_num_layers, num_layers)
    if layers == "paper_code":
        if (teacher_num_layers, num_layers) != (12, 6):
            raise ValueError(
                '`layers="paper_code"` is for a teacher of 12 layers and a '
                f"student of 6. Received: {teacher_num_layers} and "
                f'{num_layers}. Use "alternate" or a list.'
            )
        return list(_PAPER_CODE_LAYERS)
    if layers == "first":
        return list(range(num_layers))
    if layers == "last":
        return list(range(teacher_num_layers - num_layers, teacher_num_layers))
    return [i * teacher_num_layers // num_layers for i in range(num_layers)]


def _check_num_layers(teacher_num_layers: int, num_layers: int) -> int:
    num_layers = _check_integer("num_layers", num_layers)
    if not 1 <= num_layers <= teacher_num_layers:
        raise ValueError(
            "`num_layers` must be from 1 to the teacher's "
            f"{teacher_num_layers}. Received: num_layers={num_layers}."
        )
    return num_layers


def _listed_indices(
    teacher_num_layers: int, num_layers: int | None, layers: Sequence[int]
) -> list[int]:
    indices = [_check_integer("layers", index) for index in layers]
    if not indices:
        raise ValueError("`layers` must name at least one layer. Received: [].")
    for index in indices:
        if not 0 <= index < teacher_num_layers:
            raise ValueError(
                f"`layers` must be from 0 to {teacher_num_layers - 1}, for a "
                f"teacher of {teacher_num_layers} layers. "
                f"Received: index {index}."
            )
    if len(set(indices)) != len(indices):
        raise ValueError(
            f"`layers` must not name a layer twice. Received: layers={indices}."
        )
    if num_layers is not None and (
        _check_integer("num_layers", num_layers) != len(indices)
    ):
        raise ValueError(
            "`num_layers` must be None or the number of `layers`. Received: "
            f"num_layers={num_layers} and {len(indices)} layers."
        )
    return indices


def _check_integer(name: str, value: Any) -> int:
    """Returns an integer of any integer type; refuses a bool."""
    if isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer. Received: {value!r}.")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"`{name}` must be an integer. Received: {value!r}."
        ) from None


def _check_teacher(
    teacher: keras_hub.models.Task,
) -> tuple[Backbone, Family]:
    """Returns the teacher's encoder, and the family of its students."""
    family = family_of(teacher)
    is_masked_lm = family is not None and isinstance(
        teacher, family.hub.masked_lm
    )
    is_known = is_masked_lm or is_embedder(teacher)
    if family is None or not (is_known or kind_of(teacher) is not None):
        raise TypeError(
            f"`teacher` must be a `keras_hub` model of a supported family "
            f"({titles()}) for masked language modelling, a task or sentence "
            f"embeddings. Received: {type(teacher).__name__}. `load_teacher`, "
            "`load_task_model` and `load_embedding_model` make one."
        )
    return teacher.backbone, family.of_students


def _encoder_settings(source: Backbone, family: Family) -> dict[str, Any]:
    """Returns what a student's encoder takes over besides sizes."""
    settings: dict[str, Any] = {}
    activation = activation_of(source)
    if activation != DEFAULT:
        settings["activation"] = activation
    epsilon = epsilon_of(source, family.epsilon)
    if epsilon == family.epsilon:
        return settings
    if family.config.epsilon is not None:
        return {**settings, "layer_norm_epsilon": epsilon}
    _LOGGER.warning(
        "The teacher's layer normalisations have an epsilon of %g. A "
        "%s always has %g, so the student begins a little off.",
        epsilon,
        family.title,
        family.epsilon,
    )
    return settings


def _put_head(
    backbone: Backbone,
    family: Family,
    teacher: keras_hub.models.Task,
    dropout: float,
) -> keras_hub.models.Task:
    """Builds the student: the encoder with a head of the teacher's kind."""
    if is_embedder(teacher):
        return put_embedding(
            backbone, teacher.preprocessor, **embedding_settings(teacher)
        )
    kind = kind_of(teacher)
    if kind is None:
        return family.masked_lm(backbone)
    outputs = getattr(teacher, "num_classes", 1)
    student = put_output(
        backbone, kind, outputs, dropout=dropout, **meaning_of(teacher)
    )
    width = getattr(teacher, "hidden_dim", None)
    if width not in (None, teacher.backbone.hidden_dim):
        # The head may have another width than the encoder, in KerasHub alone.
        options = {**student.get_config(), "backbone": backbone}
        student = type(student)(**{**options, "hidden_dim": width})
    return student


def _student_sizes(
    source: Any,
    hidden_dim: int | None,
    intermediate_dim: int | None,
    num_heads: int | None,
) -> dict[str, int]:
    """Returns the student's widths, by default the teacher's."""
    if hidden_dim is None:
        hidden_dim = source.hidden_dim
    if num_heads is None:
        num_heads = source.num_heads
    if intermediate_dim is None:
        intermediate_dim = (
            source.intermediate_dim * hidden_dim // source.hidden_dim
        )
    sizes = {
        "hidden_dim": hidden_dim,
        "intermediate_dim": intermediate_dim,
        "num_heads": num_heads,
    }
    for name, size in sizes.items():
        sizes[name] = _check_integer(name, size)
        if sizes[name] < 1:
            raise ValueError(
                f"`{name}` must be positive. Received: {name}={size}."
            )
    if sizes["hidden_dim"] % sizes["num_heads"]:
        raise ValueError(
            "`hidden_dim` must be divisible by `num_heads`. Received: "
            f"hidden_dim={hidden_dim}, num_heads={num_heads}."
        )
    return sizes


def _copy_embeddings(source: Backbone, target: Backbone) -> None:
    old, new = read_embeddings(source), read_embeddings(target)
    copy_weights(old.tokens, new.tokens)
    positions = old.positions.position_embeddings
    if old.segments is not None and new.segments is None:
        # (positions, width) + (width,): segment 0 adds the same everywhere.
        positions = keras.ops.cast(positions, "float32") + keras.ops.cast(
            old.segments.embeddings[0], "float32"
        )
    assign(new.positions.position_embeddings, positions)
    copy_weights(old.norm, new.norm)


def _copy_head(
    teacher: keras_hub.models.Task, student: keras_hub.models.Task
) -> None:
    if is_embedder(teacher):
        # KerasHub's own class has nothing to copy.
        if embedding_settings(teacher)["dimension"] is not None:
            copy_weights(teacher.sentence_embedding, student.sentence_embedding)
        return
    if kind_of(teacher) is None:
        _copy_masked_lm_head(*map(read_masked_lm_head, (teacher, student)))
        return
    copy_weights(teacher.output_dense, student.output_dense)
    family = family_of(teacher)
    if family is not None and is_text_classifier(teacher):
        family.copy_pooler(teacher, student)


def _copy_masked_lm_head(source: MaskedLMHead, target: MaskedLMHead) -> None:
    # Part by part, because the head also lists the token embedding.
    copy_weights(source.dense, target.dense)
    copy_weights(source.norm, target.norm)
    assign(target.bias, source.bias)
