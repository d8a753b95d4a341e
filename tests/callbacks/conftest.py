import keras
import numpy as np
import pytest
from pool import pooled

from keras_distil import Distiller, losses, models


@pooled
def make_models():
    backbone = models.ExactBertBackbone(
        vocabulary_size=32,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        dropout=0.0,
        max_sequence_length=8,
    )
    teacher = models.ExactBertMaskedLM(backbone)
    return teacher, models.initialize_student(teacher, 1, dropout=0.0)


@pytest.fixture(scope="package")
def make_distiller():
    """Makes a compiled Distiller on toy models.

    Eager by default, which is faster for a few steps of these sizes.
    """

    def make(**compile_arguments):
        teacher, student = make_models()
        distiller = Distiller(teacher, student, losses.triple_loss())
        compile_arguments.setdefault("run_eagerly", True)
        distiller.compile(keras.optimizers.SGD(0.01), **compile_arguments)
        return distiller

    return make


@pytest.fixture(scope="package")
def triple():
    """Eight examples of eight tokens, every third one masked."""
    generator = np.random.default_rng(0)
    token_ids = generator.integers(5, 32, (8, 8)).astype("int32")
    masked = np.arange(64).reshape(8, 8) % 3 == 0
    x = {
        "token_ids": np.where(masked, 4, token_ids).astype("int32"),
        "padding_mask": np.ones((8, 8), "int32"),
    }
    return x, token_ids, masked.astype("float32")
