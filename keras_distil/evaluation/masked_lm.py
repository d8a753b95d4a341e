"""Held-out masked language modelling and agreement with the teacher."""

import dataclasses

import tensorflow as tf
from keras_hub.models import MaskedLM

from keras_distil import losses
from keras_distil.training.distiller import Distiller


@dataclasses.dataclass(frozen=True)
class MaskedLMScores:
    """Means over the masked positions of held-out text.

    Attributes:
        mlm_accuracy: share of masked tokens predicted, 0 to 1.
        mlm_loss: crossentropy of the masked tokens, nats.
        teacher_agreement: share of masked tokens for which the model and the
            teacher have the same first choice, 0 to 1.
    """

    mlm_accuracy: float
    mlm_loss: float
    teacher_agreement: float


class _Scorer(Distiller):
    """A Distiller that only scores, even models that cannot be trained."""

    _trains = False


def score_masked_lm(
    model: MaskedLM, teacher: MaskedLM, batches: tf.data.Dataset
) -> MaskedLMScores:
    """Scores a model on batches with fixed masks.

    Args:
        model: the model to score; may be the teacher itself.
        teacher: the teacher whose first choices are compared.
        batches: a finite dataset of Keras triples.

    Returns:
        The scores over all masked positions of all batches.
    """
    itself = model is teacher
    scorer = _Scorer(
        None if itself else teacher, model, [losses.MaskedLMCrossentropy()]
    )
    scorer.compile("sgd")
    logs = scorer.evaluate(batches, verbose=0, return_dict=True)
    return MaskedLMScores(
        mlm_accuracy=logs["mlm_accuracy"],
        mlm_loss=logs["mlm_loss"],
        teacher_agreement=1.0 if itself else logs["teacher_agreement"],
    )
