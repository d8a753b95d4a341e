"""The forward pass of any Keras model: outputs, logits, states of layers."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from keras_distil.models.taps import OUTPUT, Tap, Taps
from keras_distil.utils import graph_checks, private_api
from keras_distil.utils.error_text import first_line
from keras_distil.utils.graph_checks import BatchError

Tensor = Any

# Smallest probability whose logarithm is taken.
_FLOOR = 1e-35
# How far the probabilities of an example may be from a sum of 1.
_TOLERANCE = 1e-2
_LOGITS = "logits"
# Names in messages, at most.
_NAMED = 20


class Outputs(NamedTuple):
    """What a forward pass returns.

    Attributes:
        own: the outputs as the model returns them, (batch, ..., outputs).
        logits: float32, the same shape; the outputs of a regression.
        states: outputs of the named layers.
        updates: new values of variables, which the pass has not assigned.
        off: how far any example's probabilities are from a sum of 1; None if
            outputs are not probabilities.
    """

    own: Tensor
    logits: Tensor
    states: dict[Any, Tensor]
    updates: list[tuple[keras.Variable, Tensor]]
    off: Tensor | None = None


class _Updates(keras.StatelessScope):
    """Collects the values that would be assigned, with their variables."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._by_id: dict[int, tuple[keras.Variable, Tensor]] = {}

    def add_update(self, update: tuple[keras.Variable, Tensor]) -> None:
        super().add_update(update)
        self._by_id[id(update[0])] = update

    def updates(self) -> list[tuple[keras.Variable, Tensor]]:
        """Returns the variables and their last values."""
        return list(self._by_id.values())


class ModelPass:
    """A model with the layers whose outputs are read as well.

    Args:
        model: any built Keras model.
        role: the argument's name, for messages.
        layers: names of layers.
        logits: where logits are read; None if they are the outputs.
        are_probabilities: whether the outputs are probabilities whose
            logarithm is taken.

    Attributes:
        layers: the layers by name.

    Raises:
        ValueError: if the model has no such layer, or several.
    """

    def __init__(
        self,
        model: keras.Model,
        role: str,
        layers: Collection[str],
        *,
        logits: Tap | None = None,
        are_probabilities: bool = False,
    ) -> None:
        self.model = model
        self.role = role
        self.layers = {x: _find_layer(model, role, x) for x in sorted(layers)}
        self._are_probabilities = are_probabilities
        taps = {
            f"{OUTPUT}/{name}": Tap(layer, OUTPUT)
            for name, layer in self.layers.items()
        }
        if logits is not None:
            taps[_LOGITS] = logits
        self._taps = Taps(taps)

    def __call__(self, inputs: Any, *, training: bool) -> Outputs:
        """Calls the model once.

        Args:
            inputs: whatever the model takes: a tensor, or a list, a tuple or
                a dict of tensors.
            training: whether the model trains. The new values of variables,
                such as the moving means of `BatchNormalization` and the
                states of dropout, are returned and not assigned.

        Raises:
            BatchError: if the model cannot be called on these inputs, or a
                layer is not called exactly once.
            ValueError: if the model adds losses of its own.
        """
        scope = _Updates(collect_losses=True)
        with self._taps.recording() as records, scope:
            own = self.call(inputs, training=training)
        if training and scope.losses:
            raise ValueError(
                "A student's own losses (regularisers, `add_loss`) are not "
                "part of the distillation loss. Remove them. Received: "
                f"{self.role}={self.model.name!r} with {len(scope.losses)} of "
                "them."
            )
        self._check_single(own)
        states = {x: self._state(x, records) for x in self.layers}
        logits, off = self._logits(own, records)
        return Outputs(own, logits, states, scope.updates(), off)

    def call(self, inputs: Any, *, training: bool) -> Any:
        """Returns the model's own outputs, with updates as Keras makes them.

        Raises:
            BatchError: if the model cannot be called on these inputs.
        """
        try:
            return self.model(inputs, training=training)
        except BatchError:
            raise
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            shapes = keras.tree.map_structure(lambda x: tuple(x.shape), inputs)
            raise BatchError(
                f"`{self.role}` {self.model.name!r} cannot be called on inputs "
                f"of shape {shapes}: {first_line(error)}"
            ) from error

    def _check_single(self, own: Any) -> None:
        if not tf.is_tensor(own):
            count = len(keras.tree.flatten(own))
            raise BatchError(_several_outputs(self.model, self.role, count))
        if own.shape.rank is None or own.shape.rank < 2 or not own.shape[-1]:
            raise BatchError(
                f"The output of `{self.role}` must have a batch axis and a "
                "last axis of known size, the classes or numbers. Received: "
                f"{self.role}={self.model.name!r} with an output of shape "
                f"{own.shape}."
            )
        if own.shape.rank > 2 and private_api.mask_of(own) is not None:
            raise BatchError(
                f"The output of `{self.role}` has a Keras mask, and all of its "
                "positions would count. Use mask_zero=False and no `Masking`. "
                f"Received: {self.role}={self.model.name!r}."
            )

    def _logits(
        self, own: Tensor, records: dict[str, list[Any]]
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the logits, and how far probabilities are from a sum of 1."""
        if _LOGITS in records:
            own = self._once(_LOGITS, "its last layer", records)
        logits = ops.cast(own, "float32")
        if not self._are_probabilities:
            return logits, None
        off = tf.reduce_max(tf.abs(tf.reduce_sum(logits, axis=-1) - 1.0))
        return tf.math.log(tf.maximum(logits, _FLOOR)), off

    def check(self, off: Tensor | None) -> list[Tensor]:
        """Asserts that probabilities are what they were said to be.

        It is not part of a call, because XLA leaves assertions out.

        Args:
            off: `Outputs.off`.
        """
        if off is None:
            return []
        return graph_checks.require(
            off <= _TOLERANCE,
            "`from_logits=False` says that outputs are probabilities, with a "
            f"sum of 1 (within {_TOLERANCE:g}). Received: a sum that is off by "
            f"{{}} from the {self.role} {self.model.name}.",
            lambda: (off,),
        )

    def _state(self, name: str, records: dict[str, list[Any]]) -> Tensor:
        state = self._once(f"{OUTPUT}/{name}", f"the layer {name!r}", records)
        found = None
        if not tf.is_tensor(state):
            found = f"an output of type {type(state).__name__}"
        elif not state.dtype.is_floating:
            found = f"an output of dtype {state.dtype.name}"
        elif state.shape.rank is None or state.shape.rank < 2:
            found = f"an output of shape {state.shape}"
        elif state.shape[-1] is None:
            found = f"an output of shape {state.shape}"
        elif state.shape.rank > 2 and private_api.mask_of(state) is not None:
            found = "a Keras mask"
        if found is None:
            return state
        raise BatchError(
            "A loss on hidden states needs layers with one float output, "
            "(batch, ..., channels), without a mask. Received: the layer "
            f"{name!r} of {self.role} {self.model.name!r} with {found}."
        )

    def _once(
        self, key: str, what: str, records: dict[str, list[Any]]
    ) -> Tensor:
        """Returns what was recorded, if it was exactly once and outside loops.

        A tensor within a loop, such as that of a recurrent layer's cell,
        belongs to the loop's own graph.
        """
        found = records[key]
        times = f"called {len(found)} times"
        if len(found) == 1:
            graph = getattr(found[0], "graph", None)
            inner = not tf.executing_eagerly() and (
                graph is not tf.compat.v1.get_default_graph()
            )
            if not inner or not tf.is_tensor(found[0]):
                return found[0]
            times = "called inside a loop or a `tf.function`"
        raise BatchError(
            f"`{self.role}` must call {what} exactly once in a forward pass. "
            f"Received: {self.role}={self.model.name!r}, where it is {times}."
        )

    def spec(self, inputs: Any, *, training: bool) -> Outputs:
        """Returns the shapes of outputs and states, as `keras.KerasTensor`s.

        Args:
            inputs: `keras.KerasTensor`s of the inputs.
            training: as in a call.

        Raises:
            ValueError: as a call does.
        """
        updated: list[keras.Variable] = []

        def trace(inputs: Any) -> Any:
            found = self(inputs, training=training)
            updated.extend(variable for variable, _ in found.updates)
            return found.own, found.logits, found.states

        own, logits, states = private_api.compute_output_spec(trace, inputs)
        return Outputs(own, logits, states, [(x, None) for x in updated])


def input_spec(model: keras.Model) -> Any:
    """Returns the inputs of a built model as `keras.KerasTensor`s.

    Args:
        model: any model.

    Returns:
        A tensor, list or dict of them; None if the model does not tell.
    """
    if private_api.is_functional(model):
        one = isinstance(model, keras.Sequential)
        return keras.tree.map_structure(
            lambda x: keras.KerasTensor((None, *x.shape[1:]), x.dtype),
            model.inputs[0] if one else model.input,
        )
    shape = (model.get_build_config() or {}).get("input_shape")
    return None if shape is None else _of_shape(shape)


def _of_shape(shape: Any) -> Any:
    """Returns tensors of the shapes that a model was built with."""
    if isinstance(shape, dict):
        return {name: _of_shape(each) for name, each in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return keras.KerasTensor((None, *shape[1:]))
    return [_of_shape(each) for each in shape]


def check_built(model: Any, role: str) -> None:
    """Raises an error unless a model is a Keras model with its weights.

    Args:
        model: the user's value.
        role: the argument's name, for messages.

    Raises:
        TypeError: if it is not a `keras.Model`.
        ValueError: if it has not been built, or has several outputs.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{role}` must be a `keras.Model`. Received: {role}={model!r:.80} "
            f"(of type {type(model).__name__})."
        )
    if not model.built:
        raise ValueError(
            f"`{role}` has no weights yet. Call it on a batch once, or begin "
            f"it with a `keras.Input`. Received: {role}={model.name!r}."
        )
    if private_api.is_functional(model) and len(model.outputs) != 1:
        raise ValueError(_several_outputs(model, role, len(model.outputs)))


def _several_outputs(model: keras.Model, role: str, count: int) -> str:
    return (
        f"`{role}` must have one output, a tensor. Make a `keras.Model` of one "
        f"of its outputs. Received: {role}={model.name!r} with {count}."
    )


def _find_layer(model: keras.Model, role: str, name: str) -> keras.layers.Layer:
    layers = [
        layer
        for layer in private_api.flatten_layers(model)
        if layer is not model and not isinstance(layer, keras.layers.InputLayer)
    ]
    found = [layer for layer in layers if layer.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"The layer {name!r} must be one layer of `{role}`. Received: "
            f"{role}={model.name!r} with {len(found)} layers of this name. "
            "Give them different names."
        )
    raise ValueError(
        f"`{role}` {model.name!r} has no layer {name!r}. Its layers: "
        f"{_listed([layer.name for layer in layers])}."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown
