"""Scores of trained models."""

from keras_distil.evaluation.calibration import (
    expected_calibration_error,
    masked_lm_calibration,
)
from keras_distil.evaluation.glue import GLUEEvaluator
from keras_distil.evaluation.masked_lm import MaskedLMScores, score_masked_lm
from keras_distil.evaluation.retention import (
    chance_score,
    kept_percent,
    most_frequent_share,
)
from keras_distil.evaluation.retrieval import RetrievalEvaluator
from keras_distil.evaluation.spans import SpanEvaluator
from keras_distil.evaluation.squad import SQuADEvaluator
from keras_distil.evaluation.sts import STSEvaluator

__all__ = [
    "GLUEEvaluator",
    "MaskedLMScores",
    "RetrievalEvaluator",
    "SQuADEvaluator",
    "STSEvaluator",
    "SpanEvaluator",
    "chance_score",
    "expected_calibration_error",
    "kept_percent",
    "masked_lm_calibration",
    "most_frequent_share",
    "score_masked_lm",
]
