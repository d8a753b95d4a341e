"""What KerasHub's classes lack to compute exactly what checkpoints do."""

from typing import Any

import keras
from keras import ops
from keras_hub.models import Backbone

from keras_distil.models import encoder_weights
from keras_distil.models.architectures.activations import ACTIVATIONS, DEFAULT
from keras_distil.models.labels import Labelled
from keras_distil.models.weights import copy_weights


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


class ExactEncoder:
    """Adds the activation and the epsilon of a checkpoint to an encoder.

    Args:
        *args: arguments of the KerasHub encoder.
        activation: name of the activation in the feed-forward parts, as in
            Hugging Face's configurations. Defaults to "gelu", exact.
        layer_norm_epsilon: float, epsilon of all layer normalisations.
            Defaults to the family's.
        **kwargs: keyword arguments of the KerasHub encoder.

    Raises:
        ValueError: if the activation is unknown.
    """

    # Epsilon of the family's checkpoints.
    default_epsilon: float

    def __init__(
        self,
        *args: Any,
        activation: str = DEFAULT,
        layer_norm_epsilon: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_not_cloned(type(self), args)
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {list(ACTIVATIONS)}. "
                f"Received: activation={activation!r:.60}."
            )
        super().__init__(*args, **kwargs)
        self.activation = activation
        self.layer_norm_epsilon = (
            self.default_epsilon
            if layer_norm_epsilon is None
            else layer_norm_epsilon
        )
        apply_settings(self, self.activation, self.layer_norm_epsilon)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the encoder."""
        config = super().get_config()  # type: ignore[misc]
        if self.activation != DEFAULT:
            config["activation"] = self.activation
        if self.layer_norm_epsilon != self.default_epsilon:
            config["layer_norm_epsilon"] = self.layer_norm_epsilon
        return config


def apply_settings(backbone: Backbone, activation: str, epsilon: float) -> None:
    """Gives the layers of an encoder an activation and an epsilon."""
    for layer in backbone.transformer_layers:
        encoder_weights.set_activation(layer, ACTIVATIONS[activation])
        encoder_weights.set_epsilon(layer, epsilon)
    encoder_weights.read_embeddings(backbone).norm.epsilon = epsilon


def activation_of(backbone: Backbone) -> str:
    """Returns the name of an encoder's activation; "gelu" if it has none."""
    return getattr(backbone, "activation", DEFAULT)


class OptionalInputs:
    """Lets inputs be left out that most callers do not have.

    KerasHub's models need all their inputs. Here "segment_ids" may be left
    out, which are then 0, and "mask_positions", which are then all positions.
    Segments that the encoder does not read are dropped, so a student takes
    the batches of its teacher.

    Raises:
        ValueError: in a call, if there are other inputs.
    """

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the model; see the class for the inputs."""
        # Keras checks the names of the inputs before it calls `call`.
        if isinstance(inputs, dict) and "token_ids" in inputs:
            inputs = _complete(inputs, self.input)  # type: ignore[attr-defined]
        return super().__call__(inputs, *args, **kwargs)  # type: ignore[misc]


def _complete(inputs: dict[str, Any], names: Any) -> dict[str, Any]:
    """Returns the inputs that a model reads, with those left out."""
    if inputs.keys() == names.keys():
        return inputs
    unknown = sorted(inputs.keys() - names.keys() - {"segment_ids"})
    if unknown:
        # Keras would only warn, and take one input for another.
        raise ValueError(
            f"`inputs` may hold {sorted(names)}. Received: {unknown[0]!r}, "
            "too. Leave it out."
        )
    # Keras takes no mixture of arrays and tensors.
    completed = {k: ops.convert_to_tensor(v) for k, v in inputs.items()}
    token_ids = ops.cast(completed["token_ids"], "int32")
    if "segment_ids" in names:
        completed.setdefault("segment_ids", ops.zeros_like(token_ids))
    else:
        completed.pop("segment_ids", None)
    if "mask_positions" in names and "mask_positions" not in inputs:
        counted = ops.cumsum(ops.ones_like(token_ids), axis=-1)
        completed["mask_positions"] = counted - 1
    return completed


class ExactMaskedLM(OptionalInputs):
    """Gives a KerasHub masked-LM head what a checkpoint's head has.

    Its epsilon is the encoder's, and so is its activation, unless the family's
    heads always have their own. KerasHub's classes compile by default, this
    one only on demand.

    "mask_positions" and "segment_ids" may be left out of the inputs: the
    outputs are then the logits at all positions, and all tokens are of the
    first segment.

    Args:
        *args: arguments of the KerasHub model.
        compile: bool, whether to compile with KerasHub's defaults.
        **kwargs: keyword arguments of the KerasHub model.

    Call arguments:
        inputs: "token_ids" and "padding_mask", int32, (batch, length), and
            optionally "mask_positions", int32, (batch, positions), and
            "segment_ids", which an encoder without segments does not read.

    Returns:
        Logits, float, (batch, length or positions, vocabulary).
    """

    # Epsilon of a KerasHub encoder, which has no such setting.
    default_epsilon: float
    has_own_activation = False

    def __init__(
        self, *args: Any, compile: bool = False, **kwargs: Any
    ) -> None:
        check_not_cloned(type(self), args)
        super().__init__(*args, compile=compile, **kwargs)  # type: ignore[call-arg]
        backbone = self.backbone  # type: ignore[attr-defined]
        encoder_weights.set_head(
            self,
            epsilon=epsilon_of(backbone, self.default_epsilon),
            activation=None
            if self.has_own_activation
            else ACTIVATIONS[activation_of(backbone)],
        )

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Exports the model as Keras does, by default without mask_positions.

        Args:
            filepath: see `keras.Model.export`.
            format: see `keras.Model.export`.
            verbose: see `keras.Model.export`.
            input_signature: see `keras.Model.export`. Defaults to the inputs
                without "mask_positions": the outputs are logits at all
                positions. `[model.input]` has them.
            **kwargs: see `keras.Model.export`.
        """
        if input_signature is None:
            inputs = dict(self.input)  # type: ignore[attr-defined]
            del inputs["mask_positions"]
            input_signature = [inputs]
        return super().export(  # type: ignore[misc]
            filepath, format, verbose, input_signature, **kwargs
        )


class ExactTextClassifier(OptionalInputs, Labelled):
    """Gives a KerasHub classifier of texts the names of its classes.

    KerasHub's classes compile by default, this one only on demand.

    Args:
        *args: arguments of the KerasHub model.
        compile: bool, whether to compile with KerasHub's defaults.
        **kwargs: keyword arguments of the KerasHub model, and of `Labelled`.
    """

    def __init__(
        self, *args: Any, compile: bool = False, **kwargs: Any
    ) -> None:
        check_not_cloned(type(self), args)
        super().__init__(*args, compile=compile, **kwargs)


def epsilon_of(backbone: Backbone, default: float) -> float:
    """Returns an encoder's epsilon, or the default if it is no setting."""
    return getattr(backbone, "layer_norm_epsilon", default)


def copy_layers(
    source: list[keras.layers.Layer], target: list[keras.layers.Layer]
) -> None:
    """Copies the weights of layers, one by one."""
    for old, new in zip(source, target, strict=True):
        copy_weights(old, new)
