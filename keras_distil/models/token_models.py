"""Task models with an output for every token, which KerasHub lacks."""

from collections.abc import Sequence
from typing import Any

import keras
from keras_hub.models import Backbone, Task

from keras_distil.models.architectures.exact import (
    OptionalInputs,
    check_not_cloned,
)
from keras_distil.models.labels import check_labels

Tensor = Any


class _TokenModel(OptionalInputs, Task):
    """A dense layer on the last hidden states of any KerasHub encoder."""

    # KerasHub's preprocessors do not make labels for tokens.
    preprocessor_cls = None

    def __init__(
        self,
        backbone: Backbone,
        *,
        outputs: int,
        dropout: float,
        compile: bool = False,
        preprocessor: Any = None,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.output_dropout = keras.layers.Dropout(
            dropout, dtype=backbone.dtype_policy, name="output_dropout"
        )
        self.output_dense = keras.layers.Dense(
            outputs,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype=backbone.dtype_policy,
            name="logits",
        )

        # === Functional Model ===
        inputs = backbone.input
        states = backbone(inputs)
        if isinstance(states, dict):
            states = states["sequence_output"]
        outputs_tensor = self.output_dense(self.output_dropout(states))
        super().__init__(
            inputs=inputs, outputs=outputs_tensor, compile=compile, **kwargs
        )

        # === Config ===
        self.dropout = dropout


def _check_arguments(
    kind: type, backbone: Any, others: tuple[Any, ...]
) -> None:
    """Refuses `clone_model` and meaningless arguments.

    `clone_model` calls only a class that accepts any arguments; from any
    other class it silently makes a plain functional model.
    """
    check_not_cloned(kind, (backbone,))
    if others:
        raise TypeError(
            f"{kind.__name__} takes further arguments by keyword only. "
            f"Received: {others!r:.80}."
        )


@keras.saving.register_keras_serializable(package="keras_distil")
class TokenClassifier(_TokenModel):
    """A class for every token, as in named entity recognition.

    Args:
        backbone: any KerasHub encoder.
        num_classes: int >= 1.
        dropout: float in [0, 1), before the output. Defaults to 0.1.
        labels: names of the classes, in the order of the outputs, or None.
        **kwargs: arguments of `keras_hub.models.Task`.

    Call arguments:
        inputs: the encoder's inputs, (batch, length) each.

    Returns:
        Logits, float, (batch, length, num_classes).
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        dropout: float = 0.1,
        *others: Any,
        labels: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        _check_arguments(type(self), backbone, others)
        super().__init__(
            backbone, outputs=num_classes, dropout=dropout, **kwargs
        )
        self.num_classes = num_classes
        self.labels = check_labels(labels, num_classes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the model."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "dropout": self.dropout,
            "labels": None if self.labels is None else list(self.labels),
        }


@keras.saving.register_keras_serializable(package="keras_distil")
class SpanExtractor(_TokenModel):
    """The start and the end of an answer in a text, as in SQuAD.

    Args:
        backbone: any KerasHub encoder.
        dropout: float in [0, 1), before the output. Defaults to 0.1.
        **kwargs: arguments of `keras_hub.models.Task`.

    Call arguments:
        inputs: the encoder's inputs, (batch, length) each.

    Returns:
        Logits of start and end, float, (batch, length, 2).

    Reference:
        Devlin et al. 2019, arXiv:1810.04805, section 4.2.
    """

    def __init__(
        self,
        backbone: Backbone,
        dropout: float = 0.1,
        *others: Any,
        **kwargs: Any,
    ) -> None:
        _check_arguments(type(self), backbone, others)
        super().__init__(backbone, outputs=2, dropout=dropout, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the model."""
        return {**super().get_config(), "dropout": self.dropout}
