"""What a batch costs: forward passes, losses and gradients of one task."""

from keras_distil.objectives.masked_lm import MaskedLMBatch, MaskedLMObjective

__all__ = ["MaskedLMBatch", "MaskedLMObjective"]
