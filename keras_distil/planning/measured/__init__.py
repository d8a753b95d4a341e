"""A plan based on a short measured run on this machine."""

from keras_distil.planning.measured.costs import Step, step_of
from keras_distil.planning.measured.measured_plan import (
    WARM_UP_UPDATES,
    durations,
    measure,
    measurement,
)
from keras_distil.planning.measured.prediction import (
    Measurement,
    Prediction,
    predict,
)
from keras_distil.planning.measured.process import MeasuredRecipe

__all__ = [
    "WARM_UP_UPDATES",
    "MeasuredRecipe",
    "Measurement",
    "Prediction",
    "Step",
    "durations",
    "measure",
    "measurement",
    "predict",
    "step_of",
]
