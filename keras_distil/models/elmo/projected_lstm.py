"""An LSTM whose output is a projection of its cell, as in ELMo."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_distil")
class ProjectedLSTMCell(keras.layers.Layer):
    """One step of an LSTM whose output is a projection of its cell.

    The input's contribution to the gates must already be computed, because
    one product for all steps reads the kernel once instead of at each step.
    `ProjectedLSTM` does both.

    Formula:
        i, f, g, o = split(inputs + h recurrent_kernel)
        c' = clip(sigmoid(f) * c + sigmoid(i) * tanh(g), cell_clip)
        h' = clip((sigmoid(o) * tanh(c')) projection_kernel, projection_clip)

    Args:
        units: int >= 1, width of the cell c.
        projection_units: int >= 1, width of the output h. None means no
            projection, so h is as wide as c.
        cell_clip: float > 0; the cell is kept within plus and minus this.
            None does not clip.
        projection_clip: the same for the output.
        **kwargs: see `keras.layers.Layer`.

    Call arguments:
        inputs: float, (batch, 4 * units).
        states: h, (batch, projection_units), and c, (batch, units).

    Returns:
        The new h, and the list of the new h and c.

    Raises:
        ValueError: if a size or a clip is not positive.

    Example:
        >>> lstm = keras.layers.RNN(ProjectedLSTMCell(16, 4))
        >>> tuple(lstm(ops.ones((2, 5, 64))).shape)
        (2, 4)

    Reference:
        Sak et al. 2014, arXiv:1402.1128, without peepholes; clipped as in
        https://github.com/allenai/bilm-tf. Gates are in Keras's order.
        Differs: none.
    """

    def __init__(
        self,
        units: int,
        projection_units: int | None = None,
        cell_clip: float | None = None,
        projection_clip: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive(
            units=units,
            projection_units=projection_units,
            cell_clip=cell_clip,
            projection_clip=projection_clip,
        )
        super().__init__(**kwargs)
        self.units = units
        self.projection_units = projection_units
        self.cell_clip = cell_clip
        self.projection_clip = projection_clip
        self.output_size = projection_units or units
        self.state_size = [self.output_size, units]

    def build(self, inputs_shape: Shape) -> None:
        """Builds the weights, whose shapes follow from the arguments."""
        del inputs_shape
        self.recurrent_kernel = self.add_weight(
            (self.output_size, 4 * self.units), name="recurrent_kernel"
        )
        if self.projection_units is not None:
            self.projection_kernel = self.add_weight(
                (self.units, self.projection_units), name="projection_kernel"
            )

    def call(
        self, inputs: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns the output and the states after one step."""
        output, cell = states
        gates = inputs + ops.matmul(output, self.recurrent_kernel)
        into, keep, candidate, out = ops.split(gates, 4, axis=-1)
        cell = ops.sigmoid(keep) * cell
        cell = cell + ops.sigmoid(into) * ops.tanh(candidate)
        cell = _clip(cell, self.cell_clip)
        output = ops.sigmoid(out) * ops.tanh(cell)
        if self.projection_units is not None:
            output = ops.matmul(output, self.projection_kernel)
        output = _clip(output, self.projection_clip)
        return output, [output, cell]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the cell."""
        return {
            **super().get_config(),
            "units": self.units,
            "projection_units": self.projection_units,
            "cell_clip": self.cell_clip,
            "projection_clip": self.projection_clip,
        }


@keras.saving.register_keras_serializable(package="keras_distil")
class ProjectedLSTM(keras.layers.Layer):
    """`ProjectedLSTMCell` over a sequence, in one direction.

    Args:
        units: see `ProjectedLSTMCell`.
        projection_units: see `ProjectedLSTMCell`.
        cell_clip: see `ProjectedLSTMCell`.
        projection_clip: see `ProjectedLSTMCell`.
        go_backwards: bool, whether to read from the last step to the first.
            The outputs are in the order of the inputs either way.
        **kwargs: see `keras.layers.Layer`.

    Call arguments:
        inputs: float, (batch, steps, features).
        mask: bool, (batch, steps). States pass masked steps unchanged, so a
            padded sequence read backwards starts at its last word.

    Returns:
        (batch, steps, projection_units), 0 at masked steps.

    Raises:
        ValueError: if a size or a clip is not positive.

    Example:
        >>> lstm = ProjectedLSTM(16, 4, cell_clip=3.0)
        >>> tuple(lstm(ops.ones((2, 5, 3))).shape)
        (2, 5, 4)

    Reference:
        See `ProjectedLSTMCell`.
        Differs: new kernels are Glorot-uniform; the bias of the forget gate
        starts at 1, as for `keras.layers.LSTM`.
    """

    def __init__(
        self,
        units: int,
        projection_units: int | None = None,
        cell_clip: float | None = None,
        projection_clip: float | None = None,
        go_backwards: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.go_backwards = go_backwards
        self.cell = ProjectedLSTMCell(
            units,
            projection_units,
            cell_clip,
            projection_clip,
            dtype=self.dtype_policy,
            name="cell",
        )
        self.input_gates = keras.layers.Dense(
            4 * units,
            bias_initializer=_open_forget_gates,
            dtype=self.dtype_policy,
            name="input_gates",
        )
        self.steps = keras.layers.RNN(
            self.cell,
            return_sequences=True,
            go_backwards=go_backwards,
            zero_output_for_mask=True,
            dtype=self.dtype_policy,
            name="steps",
        )

    def build(self, inputs_shape: Shape) -> None:
        """Builds the weights for inputs of this width."""
        self.input_gates.build(inputs_shape)
        self.steps.build((*inputs_shape[:-1], 4 * self.cell.units))

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the output of every step."""
        outputs = self.steps(self.input_gates(inputs), mask=mask)
        return ops.flip(outputs, axis=1) if self.go_backwards else outputs

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        """Returns (batch, steps, projection_units)."""
        return (*inputs_shape[:-1], self.cell.output_size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer."""
        return {
            **super().get_config(),
            "units": self.cell.units,
            "projection_units": self.cell.projection_units,
            "cell_clip": self.cell.cell_clip,
            "projection_clip": self.cell.projection_clip,
            "go_backwards": self.go_backwards,
        }


def check_positive(**values: float | None) -> None:
    """Refuses numbers that are not positive; None passes.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in values.items():
        if value is not None and value <= 0:
            raise ValueError(
                f"`{name}` must be positive. Received: {name}={value}."
            )


def _clip(x: Tensor, limit: float | None) -> Tensor:
    return x if limit is None else ops.clip(x, -limit, limit)


def _open_forget_gates(shape: tuple[int], dtype: str | None = None) -> Tensor:
    """Zeros, and ones for the second of the four gates."""
    (gates,) = shape
    units = gates // 4
    parts = [ops.zeros(units, dtype), ops.ones(units, dtype)]
    return ops.concatenate([*parts, ops.zeros(2 * units, dtype)])
