"""Scores of trained models."""

from keras_distil.evaluation.masked_lm import MaskedLMScores, score_masked_lm

__all__ = ["MaskedLMScores", "score_masked_lm"]
