"""Searches a distillation's settings with KerasTuner."""

from keras_distil.config import Dimension as Dimension
from keras_distil.search.hypermodel import (
    DistillationHyperModel as DistillationHyperModel,
)
