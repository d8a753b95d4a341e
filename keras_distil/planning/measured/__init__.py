"""A plan based on a short measured run on this machine."""

from keras_distil.planning.measured.calibrated_plan import (
    WARM_UP_UPDATES,
    calibrate,
    durations,
    measurement,
)
from keras_distil.planning.measured.costs import Step, step_of
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
    "calibrate",
    "durations",
    "measurement",
    "predict",
    "step_of",
]
