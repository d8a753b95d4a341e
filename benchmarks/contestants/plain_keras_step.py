"""A straightforward Keras `train_step`: models called, whole logits."""

from typing import Any

import keras
import tensorflow as tf

import contestants
from contestants import keras_turns
from contestants.shapes import Shape, make_data
from contestants.turns import Turns

Tensor = Any


class PlainDistiller(keras.Model):
    """The triple loss on full logits.

    Args:
        teacher: a model from `keras_turns.logits_and_states`.
        student: another one.
    """

    def __init__(self, teacher: keras.Model, student: keras.Model) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student
        teacher.trainable = False
        self.built = True

    def train_step(self, data: tuple) -> dict[str, Tensor]:
        """Runs one update of the student."""
        inputs, labels, soft_weight = data
        teacher = self.teacher(inputs, training=False)
        with tf.GradientTape() as tape:
            student = self.student(inputs, training=True)
            loss = triple_loss(
                teacher, student, labels, soft_weight, inputs["padding_mask"]
            )
            scaled = self.optimizer.scale_loss(loss)
        variables = self.student.trainable_variables
        self.optimizer.apply_gradients(
            zip(tape.gradient(scaled, variables), variables, strict=True)
        )
        return {"loss": loss}


def triple_loss(
    teacher: tuple[Tensor, Tensor],
    student: tuple[Tensor, Tensor],
    labels: Tensor,
    soft_weight: Tensor,
    padding_mask: Tensor,
) -> Tensor:
    """Returns the weighted sum of the losses' means over tokens."""
    temperature = contestants.TEMPERATURE
    teacher_logits, teacher_states = teacher
    student_logits, student_states = student
    masked = tf.cast(labels >= 0, tf.float32)
    crossentropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.maximum(labels, 0), student_logits
    )
    log_teacher = tf.nn.log_softmax(teacher_logits / temperature)
    log_student = tf.nn.log_softmax(student_logits / temperature)
    divergence = tf.reduce_sum(
        tf.exp(log_teacher) * (log_teacher - log_student), axis=-1
    )
    similarity = tf.reduce_sum(
        tf.math.l2_normalize(teacher_states, axis=-1)
        * tf.math.l2_normalize(student_states, axis=-1),
        axis=-1,
    )
    real = tf.cast(padding_mask, tf.float32)
    return (
        contestants.MLM_WEIGHT * _mean(crossentropy, masked)
        + contestants.SOFT_TARGET_WEIGHT
        * temperature**2
        * _mean(divergence, soft_weight)
        + contestants.COSINE_WEIGHT * _mean(1.0 - similarity, real)
    )


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return tf.reduce_sum(values * weight) / tf.reduce_sum(weight)


def make_distiller(shape: Shape, precision: str) -> PlainDistiller:
    """Makes and compiles a step with random models."""
    teacher, student = keras_turns.hub_models(shape, precision)
    distiller = PlainDistiller(
        keras_turns.logits_and_states(teacher),
        keras_turns.logits_and_states(student),
    )
    distiller.compile(keras_turns.optimizer(), jit_compile=False)
    return distiller


def run(shape: Shape, precision: str, turns: Turns) -> None:
    """Trains in turns."""
    data = make_data(shape)
    inputs, labels = keras_turns.at_positions(shape, data)
    soft = data.padding_mask if shape.positions == "all" else labels >= 0
    batches = (inputs, labels, soft.astype("float32"))
    dataset = tf.data.Dataset.from_tensor_slices(batches)
    keras_turns.fit(make_distiller(shape, precision), dataset, turns)
