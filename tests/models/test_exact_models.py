import math

import keras
import keras_hub
import numpy as np
import pytest

from keras_distil import models
from keras_distil.models.architectures import FAMILIES

SIZES = {
    "vocabulary_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 12,
}


def test_they_are_keras_hub_models(toy_bert, toy_distil_bert):
    assert isinstance(toy_bert, keras_hub.models.BertMaskedLM)
    assert isinstance(toy_bert.backbone, keras_hub.models.BertBackbone)
    assert isinstance(toy_distil_bert, keras_hub.models.DistilBertMaskedLM)


def test_gelu_is_exact(toy_bert):
    x = np.linspace(-3, 3, 13)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    for layer in toy_bert.backbone.transformer_layers:
        dense = layer._feedforward_intermediate_dense
        # 1e-6: float32; the tanh approximation is off by up to 4.7e-4.
        np.testing.assert_allclose(
            dense.activation(x.astype("float32")), expected, atol=1e-6
        )
        config = layer.get_config()
        assert config["activation"] == "gelu"


def test_stock_backbone_differs(toy_bert, bert_inputs):
    stock = keras_hub.models.BertBackbone.from_config(
        toy_bert.backbone.get_config()
    )
    stock.set_weights(toy_bert.backbone.get_weights())
    difference = np.abs(
        stock(bert_inputs)["sequence_output"]
        - toy_bert.backbone(bert_inputs)["sequence_output"]
    )
    # Shows that the other tests would notice the approximation.
    assert difference.max() > 1e-4


@pytest.mark.parametrize("name", ["toy_bert", "toy_distil_bert"])
def test_head_epsilon(name, request):
    head = request.getfixturevalue(name).masked_lm_head
    assert head._intermediate_layer_norm.epsilon == 1e-12
    assert head.get_config()["layer_norm_epsilon"] == 1e-12


@pytest.mark.parametrize("name", ["toy_bert", "toy_distil_bert"])
def test_save_and_load(name, request, tmp_path, all_logits, bert_inputs):
    model = request.getfixturevalue(name)
    inputs = {k: bert_inputs[k] for k in model.backbone.input}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert type(loaded.backbone) is type(model.backbone)
    np.testing.assert_array_equal(
        all_logits(loaded, inputs), all_logits(model, inputs)
    )
    # Export finds the weights of a loaded model by these paths.
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]


@pytest.mark.parametrize("name", ["toy_bert", "toy_distil_bert"])
def test_clone_from_config(name, request, all_logits, bert_inputs):
    model = request.getfixturevalue(name)
    inputs = {k: bert_inputs[k] for k in model.backbone.input}
    clone = type(model).from_config(model.get_config())
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        all_logits(clone, inputs), all_logits(model, inputs)
    )


@pytest.mark.slow
@pytest.mark.essential
def test_it_still_trains_with_fit(inputs):
    keras.utils.set_random_seed(0)
    # Without dropout, every loss is for the same words.
    sizes = SIZES | {"dropout": 0.0}
    backbone = keras_hub.models.DistilBertBackbone(**sizes)
    model = models.ExactDistilBertMaskedLM(backbone)
    assert not model.compiled
    # XLA would take longer than the training.
    model.compile(jit_compile=False)
    positions = np.array([[1, 2], [3, 4]], "int32")
    history = model.fit(
        inputs | {"mask_positions": positions},
        positions,
        epochs=20,
        verbose=0,
    )
    losses = history.history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["toy_bert", "toy_distil_bert"])
def test_tables_name_every_variable(name, request):
    model = request.getfixturevalue(name)
    family = FAMILIES[name.removeprefix("toy_").replace("_", "")]
    rules = family.weights.rules(4, pooler=True, masked_lm=True)
    assert {rule.keras for rule in rules} == {v.path for v in model.weights}
    assert len(rules) == len(model.weights)
