"""Scores of trained models."""

from keras_distil.evaluation.calibration import (
    expected_calibration_error,
    masked_lm_calibration,
)
from keras_distil.evaluation.glue import GLUEEvaluator
from keras_distil.evaluation.masked_lm import MaskedLMScores, score_masked_lm
from keras_distil.evaluation.spans import SpanEvaluator
from keras_distil.evaluation.squad import SQuADEvaluator

__all__ = [
    "GLUEEvaluator",
    "MaskedLMScores",
    "SQuADEvaluator",
    "SpanEvaluator",
    "expected_calibration_error",
    "masked_lm_calibration",
    "score_masked_lm",
]
