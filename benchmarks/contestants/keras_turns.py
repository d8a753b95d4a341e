"""Shared code of the Keras contestants.

The peers are compiled without XLA, which Keras would enable by default: it
made both slower on CPUs, in float32 and in bfloat16.
"""

import keras
import keras_hub
import numpy as np
import tensorflow as tf

import contestants
from contestants.shapes import Data, Shape
from contestants.turns import Turns


class TakeTurns(keras.callbacks.Callback):
    """Lets `fit` continue when it is this process's turn."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns

    def on_train_batch_begin(self, batch: int, logs: dict | None = None):
        """Waits."""
        self._turns.before_step()


def fit(model: keras.Model, batches: tf.data.Dataset, turns: Turns) -> None:
    """Trains on the batches repeatedly until the turns end."""
    model.fit(
        batches.repeat().prefetch(1),
        steps_per_epoch=2**31,
        shuffle=False,
        verbose=0,
        callbacks=[TakeTurns(turns)],
    )


def hub_models(
    shape: Shape, precision: str
) -> tuple[keras_hub.models.Task, keras_hub.models.Task]:
    """Makes KerasHub's teacher and student with random weights."""
    sizes = shape.sizes
    arguments = {
        "vocabulary_size": sizes.vocabulary,
        "num_heads": sizes.heads,
        "hidden_dim": sizes.width,
        "intermediate_dim": sizes.wide,
        "max_sequence_length": sizes.positions,
        "dropout": 0.0,
        "dtype": precision,
    }
    keras.utils.set_random_seed(0)
    teacher = keras_hub.models.BertMaskedLM(
        keras_hub.models.BertBackbone(num_layers=sizes.layers, **arguments)
    )
    student = keras_hub.models.DistilBertMaskedLM(
        keras_hub.models.DistilBertBackbone(
            num_layers=sizes.student_layers, **arguments
        )
    )
    return teacher, student


def logits_and_states(task: keras_hub.models.Task) -> keras.Model:
    """Makes a model of both in one pass, with inputs that both models share."""
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask", "mask_positions")
    }
    features = {name: inputs[name] for name in ("token_ids", "padding_mask")}
    if "segment_ids" in task.backbone.input:
        features["segment_ids"] = keras.ops.zeros_like(inputs["token_ids"])
    states = task.backbone(features)
    if isinstance(states, dict):
        states = states["sequence_output"]
    logits = task.masked_lm_head(states, inputs["mask_positions"])
    # Softmax and the like in float32, as recommended in Keras's guide to mixed
    # precision.
    logits = keras.layers.Activation("linear", dtype="float32")(logits)
    states = keras.layers.Activation("linear", dtype="float32")(states)
    return keras.Model(inputs, (logits, states))


def at_positions(shape: Shape, data: Data) -> tuple[dict, np.ndarray]:
    """Returns inputs of KerasHub's masked-LM models, and labels or -1.

    The positions are all of them, or the masked ones, padded with the first
    position to the largest number in any sequence.
    """
    inputs = {"token_ids": data.token_ids, "padding_mask": data.padding_mask}
    if shape.positions == "all":
        every = np.arange(shape.length, dtype="int32")
        inputs["mask_positions"] = np.broadcast_to(every, data.targets.shape)
        return inputs, np.where(data.masked, data.targets, -1)
    most = data.masked.sum(-1).max()
    # Stable, so that masked positions come first, in order.
    positions = np.argsort(~data.masked, axis=-1, kind="stable")[..., :most]
    chosen = np.take_along_axis(data.masked, positions, axis=-1)
    labels = np.take_along_axis(data.targets, positions, axis=-1)
    inputs["mask_positions"] = (positions * chosen).astype("int32")
    return inputs, np.where(chosen, labels, -1)


def optimizer() -> keras.optimizers.Optimizer:
    """Makes an AdamW that clips, for steps that leave it to the optimizer."""
    return keras.optimizers.AdamW(
        contestants.LEARNING_RATE, global_clipnorm=contestants.CLIP_NORM
    )
