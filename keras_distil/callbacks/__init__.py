"""Keras callbacks for distillation."""

from keras_distil.callbacks.best_epoch import BestEpoch
from keras_distil.callbacks.gradient_balancer import GradientBalancer
from keras_distil.callbacks.hparams_table import write_scores
from keras_distil.callbacks.metrics_log import MetricsLog
from keras_distil.callbacks.progress_bar import ProgressBar
from keras_distil.callbacks.schedulers import (
    LossWeightScheduler,
    TemperatureScheduler,
)
from keras_distil.callbacks.student_checkpoint import StudentCheckpoint
from keras_distil.callbacks.tensorboard import TensorBoard, code_block
from keras_distil.callbacks.training_state import TrainingState

__all__ = [
    "BestEpoch",
    "GradientBalancer",
    "LossWeightScheduler",
    "MetricsLog",
    "ProgressBar",
    "StudentCheckpoint",
    "TemperatureScheduler",
    "TensorBoard",
    "TrainingState",
    "code_block",
    "write_scores",
]
