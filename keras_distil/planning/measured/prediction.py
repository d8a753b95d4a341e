"""Predicts time and memory of updates from a measured one."""

import dataclasses

from keras_distil.planning.measured import costs
from keras_distil.planning.measured.costs import Step


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A short run on this machine.

    Attributes:
        step: the update that was run.
        seconds: median seconds per update.
        others: share of the processor used by other processes meanwhile.
        base_gb: memory of the process before the models, 1e9 bytes.
        peak_gb: peak memory of the process.
        matrix_flops: FLOP per second of large matrix products, in the
            precision of `step`.
        bandwidth: bytes per second, of memory read and written.
        updates: number of timed updates.
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
    """The predicted time and memory of an update, by part.

    Attributes:
        seconds: seconds of each part.
        memory_gb: memory of each part, 1e9 bytes.
    """

    seconds: dict[str, float]
    memory_gb: dict[str, float]

    @property
    def step_s(self) -> float:
        """Seconds per update."""
        return sum(self.seconds.values())

    @property
    def peak_gb(self) -> float:
        """Peak memory of the process, 1e9 bytes."""
        return sum(self.memory_gb.values())


def predict(measured: Measurement, step: Step) -> Prediction:
    """Predicts time and memory of an update from those of another one.

    Formula:
        seconds = slowness * (arithmetic / matrix_flops + traffic / bandwidth)
        memory = base + parts + rest
            slowness, rest: chosen so that the measurement is predicted exactly

    Args:
        measured: the measured run, in the precision of `step`.
        step: the update to predict.

    Raises:
        ValueError: if the precisions differ.
    """
    if measured.step.precision != step.precision:
        raise ValueError(
            "A measurement is valid only for its precision. Received: "
            f"{measured.step.precision} for a step in {step.precision}."
        )
    factor = slowness(measured)
    predicted_gb = sum(costs.memory(measured.step).values()) / 1e9
    rest = measured.peak_gb - measured.base_gb - predicted_gb
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
    """Returns measured time over the time of arithmetic and traffic."""
    return measured.seconds / sum(_seconds(measured, measured.step).values())


def _seconds(measured: Measurement, step: Step) -> dict[str, float]:
    """Returns the time of each part at the measured peaks."""
    products, moved = costs.arithmetic(step), costs.traffic(step)
    return {
        name: products[name] / measured.matrix_flops
        + moved[name] / measured.bandwidth
        for name in products
    }
