"""A plan that stands on a short measured run of this machine."""

from keras_distil.calibration.calibrated_plan import (
    WARM_UP_UPDATES,
    calibrate,
    durations,
    measurement,
)
from keras_distil.calibration.costs import Step, step_of
from keras_distil.calibration.prediction import Measurement, Prediction, predict
from keras_distil.calibration.process import MeasuredRecipe

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
