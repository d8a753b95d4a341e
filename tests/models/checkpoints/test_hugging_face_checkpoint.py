import numpy as np
import pytest
from safetensors.numpy import load_file

from keras_distil.models.checkpoints import HuggingFaceCheckpoint

# Shapes of the Keras variables of the golden models, by the end of the path.
SHAPES = {
    "token_embedding/embeddings": (64, 16),
    "position_embedding/embeddings": (12, 16),
    "segment_embedding/embeddings": (2, 16),
    "query/kernel": (16, 2, 8),
    "query/bias": (2, 8),
    "key/kernel": (16, 2, 8),
    "key/bias": (2, 8),
    "value/kernel": (16, 2, 8),
    "value/bias": (2, 8),
    "attention_output/kernel": (2, 8, 16),
    "feedforward_intermediate_dense/kernel": (16, 32),
    "feedforward_intermediate_dense/bias": (32,),
    "feedforward_output_dense/kernel": (32, 16),
    "pooled_dense/kernel": (16, 16),
    "intermediate_dense/kernel": (16, 16),
    "output_bias": (64,),
}


def read(directory):
    checkpoint = HuggingFaceCheckpoint(directory)
    rules = checkpoint.table.rules(2, pooler=True, masked_lm=True)
    shapes = {
        rule.keras: next(
            (
                shape
                for end, shape in SHAPES.items()
                if f"/{rule.keras}".endswith(f"/{end}")
            ),
            (16,),
        )
        for rule in rules
    }
    return dict(checkpoint.read(shapes))


def assert_reads_like(directory, golden):
    expected = read(golden)
    found = read(directory)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value)


def test_values_reach_their_variables(golden_bert):
    stored = load_file(golden_bert / "model.safetensors")
    found = read(golden_bert)
    np.testing.assert_array_equal(
        found["transformer_layer_1/feedforward_output_dense/kernel"],
        stored["bert.encoder.layer.1.output.dense.weight"].T,
    )
    np.testing.assert_array_equal(
        found["mlm_head/output_bias"], stored["cls.predictions.bias"]
    )
    assert not any("pooled" in path for path in found)


def with_older_names(tensors):
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in tensors.items()
    }


def without_prefix(tensors):
    return {
        name.removeprefix("bert.").removeprefix("distilbert."): value
        for name, value in tensors.items()
    }


def with_ignored(tensors):
    return tensors | {
        "bert.embeddings.position_ids": np.arange(12)[None],
        "cls.seq_relationship.weight": np.ones((2, 16), "float32"),
        "cls.seq_relationship.bias": np.ones(2, "float32"),
    }


def with_decoder(tensors):
    words = tensors["bert.embeddings.word_embeddings.weight"]
    return tensors | {
        "cls.predictions.decoder.weight": words.copy(),
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].copy(),
    }


def with_the_decoder_bias_only(tensors):
    tensors["cls.predictions.decoder.bias"] = tensors.pop(
        "cls.predictions.bias"
    )
    return tensors


@pytest.mark.parametrize(
    "tensors",
    [
        with_older_names,
        without_prefix,
        with_ignored,
        with_decoder,
        with_the_decoder_bias_only,
    ],
)
def test_other_names_of_bert(golden_bert, edit_checkpoint, tensors):
    directory = edit_checkpoint(golden_bert, tensors=tensors)
    assert_reads_like(directory, golden_bert)


def with_projector(tensors):
    words = tensors["distilbert.embeddings.word_embeddings.weight"]
    return tensors | {"vocab_projector.weight": words.copy()}


@pytest.mark.parametrize("tensors", [without_prefix, with_projector])
def test_other_names_of_distil_bert(
    golden_distil_bert, edit_checkpoint, tensors
):
    directory = edit_checkpoint(golden_distil_bert, tensors=tensors)
    assert_reads_like(directory, golden_distil_bert)


def test_sections_that_are_stored(golden_bert, edit_checkpoint):
    def bare_with_pooler(tensors):
        encoder = {
            name: value
            for name, value in tensors.items()
            if not name.startswith("cls.")
        }
        return encoder | {
            "bert.pooler.dense.weight": np.ones((16, 16), "float32"),
            "bert.pooler.dense.bias": np.ones(16, "float32"),
        }

    checkpoint = HuggingFaceCheckpoint(golden_bert)
    assert checkpoint.has_masked_lm_head and not checkpoint.has_pooler
    directory = edit_checkpoint(golden_bert, tensors=bare_with_pooler)
    checkpoint = HuggingFaceCheckpoint(directory)
    assert checkpoint.has_pooler and not checkpoint.has_masked_lm_head
    found = read(directory)
    assert "pooled_dense/kernel" in found
    assert not any("mlm_head" in path for path in found)


def without(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


def replaced(name, value):
    return lambda tensors: tensors | {name: value}


@pytest.mark.parametrize(
    "tensors, message",
    [
        (
            without("bert.encoder.layer.1.output.dense.bias"),
            r"lacks the tensor `bert.encoder.layer.1.output.dense.bias` of "
            r"shape \(16,\)",
        ),
        (
            without("cls.predictions.bias"),
            r"lacks the tensor `cls.predictions.bias` of shape \(64,\)",
        ),
        (
            replaced(
                "bert.embeddings.word_embeddings.weight",
                np.ones((63, 16), "float32"),
            ),
            r"`bert.embeddings.word_embeddings.weight` in .*model.safetensors"
            r"` must have the shape \(64, 16\).*Received: \(63, 16\)",
        ),
        (
            replaced("adapter.weight", np.ones((3, 16), "float32")),
            r"`adapter.weight` of shape \(3, 16\) in .*model.safetensors` "
            r"belongs to no layer of a bert .*2 layers",
        ),
        (
            replaced(
                "cls.predictions.decoder.weight", np.ones((64, 16), "float32")
            ),
            r"`cls.predictions.decoder.weight` .*differs from "
            r"`bert.embeddings.word_embeddings.weight`: an untied output",
        ),
        (
            replaced("embeddings.LayerNorm.gamma", np.ones(16, "float32")),
            "two names of the same weight",
        ),
    ],
)
def test_tensors_that_do_not_fit(
    golden_bert, edit_checkpoint, tensors, message
):
    directory = edit_checkpoint(golden_bert, tensors=tensors)
    with pytest.raises(ValueError, match=message):
        read(directory)


@pytest.mark.parametrize(
    "name", ["vocab_size", "num_hidden_layers", "intermediate_size"]
)
def test_sizes_are_checked_before_a_model_is_built(
    golden_bert, edit_checkpoint, name
):
    directory = edit_checkpoint(golden_bert, config={name: 10**12})
    with pytest.raises(
        ValueError, match="must have the shape|lacks the tensor"
    ):
        HuggingFaceCheckpoint(directory)
