import keras
import keras_hub
import numpy as np
import pytest

SIZES = {
    "vocabulary_size": 32,
    "num_layers": 4,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 12,
}


def randomize(model):
    """Gives every weight a value that matters, biases and scales too."""
    generator = np.random.default_rng(5)
    for variable in model.weights:
        offset = 1.0 if variable.path.endswith("gamma") else 0.0
        noise = generator.normal(0.0, 0.5, variable.shape)
        variable.assign(offset + noise)
    return model


@pytest.fixture(scope="session")
def inputs():
    """Two rows for the toy models, the second padded."""
    padding_mask = np.ones((2, 7), "int32")
    padding_mask[1, 5:] = 0
    return {
        "token_ids": np.random.default_rng(3).integers(
            0, 32, (2, 7), dtype="int32"
        ),
        "padding_mask": padding_mask,
    }


@pytest.fixture(scope="session")
def bert_inputs(inputs):
    """The same with segment 0, as a BERT backbone requires."""
    return inputs | {"segment_ids": np.zeros((2, 7), "int32")}


@pytest.fixture(scope="session")
def toy_bert():
    """A BERT teacher of 4 layers; never change its weights."""
    from keras_distil.models import ExactBertBackbone, ExactBertMaskedLM

    return randomize(ExactBertMaskedLM(ExactBertBackbone(**SIZES)))


@pytest.fixture(scope="session")
def toy_distil_bert():
    """A DistilBERT teacher of 4 layers; never change its weights."""
    from keras_distil.models import ExactDistilBertMaskedLM

    backbone = keras_hub.models.DistilBertBackbone(**SIZES)
    return randomize(ExactDistilBertMaskedLM(backbone))


@pytest.fixture(scope="session")
def all_logits():
    """Function of a model and its inputs: logits at every position."""

    def compute(model, inputs):
        batch, length = inputs["token_ids"].shape
        positions = np.tile(np.arange(length, dtype="int32"), (batch, 1))
        features = inputs | {"mask_positions": positions}
        return keras.ops.convert_to_numpy(model(features, training=False))

    return compute
