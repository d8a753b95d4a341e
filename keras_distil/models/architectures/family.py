"""What is particular to a model family, as data and a few functions."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras_hub.models import (
    Backbone,
    MaskedLM,
    Task,
    TextClassifier,
    TextEmbedder,
)

from keras_distil.models.architectures.weight_table import WeightTable


@dataclasses.dataclass(frozen=True)
class ConfigKeys:
    """How a family's `config.json` names its settings.

    Attributes:
        class_stem: how Hugging Face's class names begin: "Bert".
        sizes: keys of the sizes -> arguments of the KerasHub encoder.
        activation: key of the activation in the feed-forward parts.
        dropout: key of the dropout rate.
        attention_dropout: key of the dropout rate of attention weights.
        epsilon: key of the layer normalisations' epsilon; None if it is no
            setting of the family.
        head_dropouts: key of the dropout rate before the output, and its
            default, by kind of task. A default of None is the encoder's rate,
            which kinds that are not listed have, too.
        kinds_without_dropout: kinds without dropout before the output.
        unused_positions: number of rows of the position table that no token
            reads; they come first.
        required: keys with the values that are supported; the first one is
            the format's default.
        constants: keys and values that every written configuration holds.
    """

    class_stem: str
    sizes: Mapping[str, str]
    activation: str
    dropout: str
    attention_dropout: str
    epsilon: str | None = None
    head_dropouts: Mapping[str, tuple[str, float | None]] = dataclasses.field(
        default_factory=dict
    )
    kinds_without_dropout: frozenset[str] = frozenset()
    unused_positions: int = 0
    required: Mapping[str, tuple[Any, ...]] = dataclasses.field(
        default_factory=dict
    )
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class KerasHubClasses:
    """KerasHub's own classes of a family, of which presets are made.

    Attributes:
        encoder: class of the encoder. Every encoder of the family is one.
        tokenizer: class of the tokenizer.
        masked_lm: class of the masked-LM model.
        masked_lm_preprocessor: its preprocessor.
        text_classifier: class of the classifier of texts.
        text_classifier_preprocessor: its preprocessor.
        text_embedder: class of the sentence embedder; None if there is none.
        text_embedder_preprocessor: its preprocessor.
        computes_alike: whether these classes compute what checkpoints of the
            family were trained with, except for the head's epsilon.
    """

    encoder: type[Backbone]
    tokenizer: Any
    masked_lm: type[MaskedLM]
    masked_lm_preprocessor: Any
    text_classifier: type[TextClassifier]
    text_classifier_preprocessor: Any
    text_embedder: Any = None
    text_embedder_preprocessor: Any = None
    computes_alike: bool = True


@dataclasses.dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        name: `model_type` of its `config.json`.
        title: its name in texts.
        hub: KerasHub's classes.
        make_encoder: makes an encoder that computes as checkpoints do, from
            the arguments of KerasHub's class and, if they differ from the
            family's own, "activation" (a name of `ACTIVATIONS`) and
            "layer_norm_epsilon".
        encoders: classes of encoders whose forward pass is known.
        epsilon: epsilon of its layer normalisations, unless a configuration
            says otherwise.
        masked_lm: class of the masked-LM model.
        text_classifier: class of the classifier of texts.
        text_embedder: class of the sentence embedder.
        pooler: returns the layers of a classifier between the first token's
            state and the dropout before its output, in order.
        config: how its `config.json` names things.
        weights: names and layouts of its weights.
        tokenizer_class: name of its tokenizer in Hugging Face.
        student: family of the students made from it; None for its own.
        copy_pooler: copies the pooler of a classifier to a student.
        example_preset: name of a KerasHub preset, for messages.
        published: sizes of released models by name.
        publishers: the beginnings of their names on the Hugging Face Hub.
    """

    name: str
    title: str
    hub: KerasHubClasses
    make_encoder: Callable[..., Backbone]
    encoders: tuple[type[Backbone], ...]
    epsilon: float
    masked_lm: type[MaskedLM]
    text_classifier: type[TextClassifier]
    text_embedder: type[TextEmbedder]
    pooler: Callable[[Task], list[keras.layers.Layer]]
    config: ConfigKeys
    weights: WeightTable
    tokenizer_class: str
    student: "Family | None"
    copy_pooler: Callable[[Task, Task], None]
    example_preset: str
    published: Mapping[str, Mapping[str, int]]
    publishers: tuple[str, ...]

    @property
    def of_students(self) -> "Family":
        """The family of the students made from it."""
        return self if self.student is None else self.student
