import numpy as np
import pytest
from safetensors import safe_open

from keras_distil.models.architectures import FAMILIES, weight_table


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_tables_name_every_tensor_once(
    architecture, golden_bert, golden_distil_bert
):
    directory = golden_bert if architecture == "bert" else golden_distil_bert
    with safe_open(directory / "model.safetensors", "numpy") as file:
        stored = sorted(file.keys())
    rules = FAMILIES[architecture].weights.rules(
        2, pooler=False, masked_lm=True
    )
    assert sorted(rule.hugging_face for rule in rules) == stored
    assert len({rule.keras for rule in rules}) == len(rules)


def test_pooler_and_head_are_optional():
    def names(**sections):
        rules = FAMILIES["bert"].weights.rules(1, **sections)
        return {rule.hugging_face for rule in rules}

    bare = names(pooler=False, masked_lm=False)
    assert names(pooler=True, masked_lm=False) - bare == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    }
    assert names(pooler=False, masked_lm=True) - bare == {
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.bias",
    }


@pytest.mark.parametrize(
    "name, keras_shape, tensor_shape",
    [
        ("SAME", (5, 3), (5, 3)),
        ("DENSE_KERNEL", (5, 3), (3, 5)),
        ("SPLIT_KERNEL", (5, 2, 3), (6, 5)),
        ("SPLIT_BIAS", (2, 3), (6,)),
        ("MERGE_KERNEL", (2, 3, 5), (5, 6)),
    ],
)
def test_layouts_round_trip(name, keras_shape, tensor_shape):
    layout = getattr(weight_table, name)
    assert layout.hugging_face_shape(keras_shape) == tensor_shape
    tensor = np.arange(np.prod(tensor_shape)).reshape(tensor_shape)
    array = layout.to_keras(tensor, keras_shape)
    assert array.shape == keras_shape
    np.testing.assert_array_equal(layout.to_hugging_face(array), tensor)


def test_kernels_of_attention_element_by_element():
    tensor = np.arange(30).reshape(6, 5)
    kernel = weight_table.SPLIT_KERNEL.to_keras(tensor, (5, 2, 3))
    assert kernel[4, 1, 2] == tensor[1 * 3 + 2, 4]
    assert kernel[0, 1, 0] == tensor[3, 0]
    tensor = np.arange(30).reshape(5, 6)
    kernel = weight_table.MERGE_KERNEL.to_keras(tensor, (2, 3, 5))
    assert kernel[1, 2, 4] == tensor[4, 1 * 3 + 2]
    assert kernel[1, 0, 0] == tensor[0, 3]


@pytest.mark.parametrize(
    "architecture, name, canonical",
    [
        (
            "bert",
            "embeddings.LayerNorm.gamma",
            "bert.embeddings.LayerNorm.weight",
        ),
        (
            "bert",
            "bert.embeddings.LayerNorm.beta",
            "bert.embeddings.LayerNorm.bias",
        ),
        ("bert", "cls.predictions.bias", "cls.predictions.bias"),
        ("distilbert", "vocab_projector.bias", "vocab_projector.bias"),
        (
            "distilbert",
            "transformer.layer.0.ffn.lin1.bias",
            "distilbert.transformer.layer.0.ffn.lin1.bias",
        ),
    ],
)
def test_canonical_name(architecture, name, canonical):
    assert FAMILIES[architecture].weights.canonical_name(name) == canonical
