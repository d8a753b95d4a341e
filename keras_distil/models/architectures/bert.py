"""BERT as its checkpoints were trained, on KerasHub's classes."""

from typing import Any

import keras
import keras_hub

from keras_distil.models.labels import Labelled

# Epsilon of the head's layer normalisation in the released checkpoints.
HEAD_EPSILON = 1e-12


def check_not_cloned(kind: type, arguments: tuple[Any, ...]) -> None:
    """Raises TypeError if `keras.models.clone_model` calls the constructor.

    `clone_model` calls a class that accepts any arguments as if it were a
    plain functional model, with symbolic inputs and outputs.

    Args:
        kind: the class of the model.
        arguments: the positional arguments of its constructor.
    """
    if arguments and isinstance(arguments[0], dict):
        raise TypeError(
            f"`keras.models.clone_model` cannot clone a {kind.__name__}. Use "
            "`type(model).from_config(model.get_config())` and, for the "
            "weights, `set_weights(model.get_weights())`."
        )


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactBertBackbone(keras_hub.models.BertBackbone):
    """KerasHub's BERT encoder with the exact GELU.

    KerasHub computes the tanh approximation of GELU, while BERT checkpoints
    were trained with the exact function. The difference reaches the third
    decimal of the last hidden states. Arguments, inputs, outputs and weights
    are those of `keras_hub.models.BertBackbone`.

    Args:
        *args: see `keras_hub.models.BertBackbone`.
        **kwargs: see `keras_hub.models.BertBackbone`.

    Example:
        >>> from keras_distil import models
        >>> backbone = models.ExactBertBackbone(
        ...     vocabulary_size=32, num_layers=1, num_heads=2,
        ...     hidden_dim=8, intermediate_dim=16, max_sequence_length=12,
        ... )
        >>> backbone.count_params()
        1056

    Reference:
        Hendrycks and Gimpel 2016, arXiv:1606.08415.
        Differs: none.
    """

    def __init__(self, *args, **kwargs) -> None:
        check_not_cloned(type(self), args)
        super().__init__(*args, **kwargs)
        exact_gelu = keras.activations.get("gelu")
        # A functional model calls its layers every time it runs, so changing
        # them after its construction is enough.
        for layer in self.transformer_layers:
            layer.activation = exact_gelu
            layer._feedforward_intermediate_dense.activation = exact_gelu


def set_head_epsilon(task: keras_hub.models.MaskedLM) -> None:
    """Gives a KerasHub masked-LM head the epsilon of the checkpoints."""
    head = task.masked_lm_head
    head.layer_norm_epsilon = HEAD_EPSILON
    head._intermediate_layer_norm.epsilon = HEAD_EPSILON


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactBertMaskedLM(keras_hub.models.BertMaskedLM):
    """KerasHub's BERT for masked-LM with the head of its checkpoints.

    The layer normalisation of the head has an epsilon of 1e-12 instead of
    KerasHub's 1e-5. All else is as in `keras_hub.models.BertMaskedLM`.

    Args:
        *args: see `keras_hub.models.BertMaskedLM`.
        compile: bool, whether to compile with KerasHub's defaults. Defaults
            to False: KerasHub's classes compile, and then warn when a model
            saved without an optimizer is loaded.
        **kwargs: see `keras_hub.models.BertMaskedLM`.
    """

    backbone_cls = ExactBertBackbone

    def __init__(self, *args, compile: bool = False, **kwargs) -> None:
        check_not_cloned(type(self), args)
        super().__init__(*args, compile=compile, **kwargs)
        set_head_epsilon(self)


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactBertTextClassifier(Labelled, keras_hub.models.BertTextClassifier):
    """KerasHub's BERT for text classification, on the exact encoder.

    It keeps the names of its classes, see `Labelled`.

    Args:
        *args: see `keras_hub.models.BertTextClassifier`.
        compile: bool, whether to compile with KerasHub's defaults. Defaults
            to False, as for `ExactBertMaskedLM`.
        **kwargs: see `keras_hub.models.BertTextClassifier`.
    """

    backbone_cls = ExactBertBackbone

    def __init__(self, *args, compile: bool = False, **kwargs) -> None:
        check_not_cloned(type(self), args)
        super().__init__(*args, compile=compile, **kwargs)
