"""keras_distil, as its recipes run it."""

import keras

import contestants
from contestants import keras_turns
from contestants.shapes import Shape, make_data
from contestants.turns import Turns
from keras_distil import Distiller, losses, models


def make_distiller(shape: Shape, precision: str) -> Distiller:
    """A Distiller of random models, compiled."""
    sizes = shape.sizes
    keras.utils.set_random_seed(0)
    teacher = models.ExactBertMaskedLM(
        models.ExactBertBackbone(
            vocabulary_size=sizes.vocabulary,
            num_layers=sizes.layers,
            num_heads=sizes.heads,
            hidden_dim=sizes.width,
            intermediate_dim=sizes.wide,
            max_sequence_length=sizes.positions,
            dtype=precision,
        )
    )
    student = models.initialize_student(
        teacher, sizes.student_layers, dropout=0.0, dtype=precision
    )
    triple_loss = losses.triple_loss(
        contestants.MLM_WEIGHT,
        contestants.SOFT_TARGET_WEIGHT,
        contestants.COSINE_WEIGHT,
        temperature=contestants.TEMPERATURE,
        positions=shape.positions,
    )
    compute_dtype = keras.dtype_policies.get(precision).compute_dtype
    distiller = Distiller(
        models.with_dtype(teacher, compute_dtype), student, triple_loss
    )
    distiller.compile(
        keras.optimizers.AdamW(contestants.LEARNING_RATE),
        clip_norm=contestants.CLIP_NORM,
        jit_compile=True,
    )
    return distiller


def run(shape: Shape, precision: str, turns: Turns) -> None:
    """Trains in turns."""
    data = make_data(shape)
    x = {"token_ids": data.token_ids, "padding_mask": data.padding_mask}
    batches = (x, data.targets, data.masked.astype("float32"))
    keras_turns.fit(make_distiller(shape, precision), batches, turns)
