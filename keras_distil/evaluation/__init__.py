"""Scores of trained models."""

from keras_distil.evaluation.glue import GLUEEvaluator
from keras_distil.evaluation.masked_lm import MaskedLMScores, score_masked_lm
from keras_distil.evaluation.spans import SpanEvaluator
from keras_distil.evaluation.squad import SQuADEvaluator

__all__ = [
    "GLUEEvaluator",
    "MaskedLMScores",
    "SQuADEvaluator",
    "SpanEvaluator",
    "score_masked_lm",
]
