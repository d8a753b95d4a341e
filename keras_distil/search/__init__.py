"""Searches a distillation's settings with KerasTuner."""

from keras_distil.config import Dimension as Dimension
from keras_distil.search.any_hypermodel import (
    AnyModelHyperModel as AnyModelHyperModel,
)
from keras_distil.search.hypermodel import (
    DistillationHyperModel as DistillationHyperModel,
)
