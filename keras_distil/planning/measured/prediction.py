"""From one measured update to what others take: time and memory."""

import dataclasses

from keras_distil.planning.measured import costs
from keras_distil.planning.measured.costs import Step


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A short run on this machine.

    Attributes:
        step: what was run.
        seconds: of an update, the median.
        others: share of the processor that other processes had meanwhile.
        base_gb: memory of the process before the models, 1e9 bytes.
        peak_gb: the most memory it had.
        matrix_flops: FLOP a second of large matrix products, in the precision
            of `step`.
        bandwidth: bytes a second, of memory read and written.
        updates: how many were timed.
    """

    step: Step
    seconds: float
    others: float
    base_gb: float
    peak_gb: float
    matrix_flops: float
    bandwidth: float
    updates: int


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What an update takes, by part.

    Attributes:
        seconds: of each part.
        memory_gb: of each part, 1e9 bytes.
    """

    seconds: dict[str, float]
    memory_gb: dict[str, float]

    @property
    def step_s(self) -> float:
        """Seconds of an update."""
        return sum(self.seconds.values())

    @property
    def peak_gb(self) -> float:
        """The most memory that the process has, 1e9 bytes."""
        return sum(self.memory_gb.values())


def predict(measured: Measurement, step: Step) -> Prediction:
    """Time and memory of an update, from those of another one.

    Formula:
        seconds = slowness * (arithmetic / matrix_flops + traffic / bandwidth)
        memory = base + parts + rest
            slowness, rest: such that what was measured is predicted exactly

    Args:
        measured: the calibration, in the precision of `step`.
        step: what to predict.

    Raises:
        ValueError: if the precisions differ.
    """
    if measured.step.precision != step.precision:
        raise ValueError(
            "A calibration counts for its own precision. Received: "
            f"{measured.step.precision} for a step in {step.precision}."
        )
    factor = slowness(measured)
    known = sum(costs.memory(measured.step).values()) / 1e9
    rest = measured.peak_gb - measured.base_gb - known
    return Prediction(
        seconds={
            name: factor * seconds
            for name, seconds in _seconds(measured, step).items()
        },
        memory_gb={
            "program": measured.base_gb,
            **{name: x / 1e9 for name, x in costs.memory(step).items()},
            "compiled_code_and_rest": rest,
        },
    )


def slowness(measured: Measurement) -> float:
    """Measured time of an update over that of its arithmetic and traffic."""
    return measured.seconds / sum(_seconds(measured, measured.step).values())


def _seconds(measured: Measurement, step: Step) -> dict[str, float]:
    """Time of each part at the measured peaks."""
    products, moved = costs.arithmetic(step), costs.traffic(step)
    return {
        name: products[name] / measured.matrix_flops
        + moved[name] / measured.bandwidth
        for name in products
    }
