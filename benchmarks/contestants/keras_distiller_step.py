"""Keras's own `keras.distillation.Distiller`.

It supports neither a padding mask nor sample weights, so soft targets and
hidden states count at padding, too. It refuses a teacher whose inputs differ
from the student's, hence the models around KerasHub's. It would run the student
twice for losses on a named layer, hence both outputs of one pass, as a tuple,
because a dict or list of losses does not fit what its `compile` makes of it.
"""

import keras
import numpy as np
import tensorflow as tf

import contestants
from contestants import keras_turns
from contestants.shapes import Shape, make_data
from contestants.turns import Turns

# Its total mixes the student's loss and the distillation losses to 1.
_TOTAL = (
    contestants.MLM_WEIGHT
    + contestants.SOFT_TARGET_WEIGHT
    + contestants.COSINE_WEIGHT
)
_REST = _TOTAL - contestants.MLM_WEIGHT


def make_distiller(
    shape: Shape, precision: str
) -> keras.distillation.Distiller:
    """Makes its closest form of the triple loss, compiled; 1 / 8 of ours."""
    teacher, student = map(
        keras_turns.logits_and_states, keras_turns.hub_models(shape, precision)
    )
    distiller = keras.distillation.Distiller(
        teacher,
        student,
        distillation_losses=[
            # A loss object, because a name would mean raw logits.
            keras.distillation.LogitsDistillation(
                temperature=contestants.TEMPERATURE,
                loss=(keras.losses.KLDivergence(), None),
            ),
            keras.distillation.FeatureDistillation(
                loss=(None, keras.losses.CosineSimilarity()),
            ),
        ],
        distillation_loss_weights=[
            contestants.SOFT_TARGET_WEIGHT / _REST,
            contestants.COSINE_WEIGHT / _REST,
        ],
        student_loss_weight=contestants.MLM_WEIGHT / _TOTAL,
    )
    distiller.compile(
        keras_turns.optimizer(),
        jit_compile=False,
        loss=(
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=-1
            ),
            lambda y, y_pred: 0.0,
        ),
    )
    return distiller


def run(shape: Shape, precision: str, turns: Turns) -> None:
    """Trains in turns."""
    inputs, labels = keras_turns.at_positions(shape, make_data(shape))
    # Its losses have the structure of the outputs, so labels must have it too.
    nothing = np.zeros(labels.shape[:2], "float32")
    batches = (inputs, (labels, nothing))
    dataset = tf.data.Dataset.from_tensor_slices(batches)
    keras_turns.fit(make_distiller(shape, precision), dataset, turns)
