import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_distil import losses, models
from keras_distil.models import adapters, forward
from keras_distil.training.distiller import Distiller


def toy(seed=0):
    with models.weights.seeded_build(seed):
        backbone = models.ExactBertBackbone(
            vocabulary_size=32,
            num_layers=2,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            dropout=0.0,
            max_sequence_length=8,
        )
        return models.ExactBertMaskedLM(backbone)


@pytest.fixture(scope="module")
def triple():
    generator = np.random.default_rng(0)
    token_ids = generator.integers(5, 32, (8, 8)).astype("int32")
    masked = np.arange(64).reshape(8, 8) % 3 == 0
    x = {
        "token_ids": np.where(masked, 4, token_ids).astype("int32"),
        "padding_mask": np.ones((8, 8), "int32"),
    }
    return x, token_ids, masked.astype("float32")


@pytest.fixture(scope="module")
def trained(triple):
    """A toy model whose adapter has been trained for some steps.

    Nothing below changes it.
    """
    model = toy()
    model.backbone.pooled_dense.trainable = False
    adapters.enable_adapter(model, 2)
    trainer = Distiller(None, model, [losses.MaskedLMCrossentropy()])
    trainer.compile("adam", run_eagerly=True)
    x, y, sample_weight = triple
    trainer.fit(x, y, sample_weight=sample_weight, epochs=3, verbose=0)
    return model


def test_a_merged_adapter_computes_what_was_trained(trained, triple, tmp_path):
    path = tmp_path / "adapter.safetensors"
    adapters.save_adapter(trained, path, base_sha256="abc")
    merged = toy()
    fresh = np.asarray(forward.logits(toy(), triple[0]))
    adapters.merge_adapter(merged, path, base_sha256="abc")
    expected = np.asarray(forward.logits(trained, triple[0]))
    # Half precision keeps 11 bits of each factor.
    np.testing.assert_allclose(
        forward.logits(merged, triple[0]), expected, atol=2e-3
    )
    assert np.abs(fresh - expected).max() > 1e-2
    assert len(merged.weights) == len(toy().weights)


def test_kernels_and_embeddings_stay_as_they_were(trained):
    base = {v.path: np.asarray(v) for v in toy().weights}
    changed = set()
    for variable in trained.weights:
        value = base.get(variable.path)
        if value is not None and not np.array_equal(value, variable):
            changed.add(variable.path.rsplit("/", 1)[-1])
    assert changed <= {"bias", "gamma", "beta", "kernel", "output_bias"}
    kernels = [
        v.path
        for v in trained.weights
        if v.path in base
        and v.path.endswith("kernel")
        and not np.array_equal(base[v.path], v)
    ]
    # Only the head's dense layer is trained as a whole.
    assert [path.split("/")[-2] for path in kernels] == ["intermediate_dense"]


def test_a_restored_adapter_trains_on_from_where_it_was(
    trained, triple, tmp_path
):
    path = tmp_path / "adapter.safetensors"
    adapters.save_adapter(trained, path, base_sha256="abc")
    restored = toy()
    adapters.enable_adapter(restored, 2)
    adapters.restore_adapter(restored, path, base_sha256="abc")
    np.testing.assert_allclose(
        forward.logits(restored, triple[0]),
        forward.logits(trained, triple[0]),
        atol=2e-3,  # half precision keeps 11 bits of each factor
    )
    other_rank = toy()
    adapters.enable_adapter(other_rank, 3)
    with pytest.raises(ValueError, match="does not fit at"):
        adapters.restore_adapter(other_rank, path, base_sha256="abc")


def test_details_are_kept(trained, tmp_path):
    path = tmp_path / "adapter.safetensors"
    adapters.save_adapter(trained, path, base_sha256="abc")
    adapters.annotate_adapter(path, {"score": 0.5})
    details = adapters.merge_adapter(toy(), path, base_sha256="abc")
    assert details == {"score": 0.5}


def test_an_adapter_of_other_weights_is_refused(trained, tmp_path):
    path = tmp_path / "adapter.safetensors"
    adapters.save_adapter(trained, path, base_sha256="abc")
    with pytest.raises(ValueError, match="made for sha256 abc, the teacher's"):
        adapters.merge_adapter(toy(), path, base_sha256="def")


def test_damaged_adapters_are_refused(trained, tmp_path):
    path = tmp_path / "adapter.safetensors"
    with pytest.raises(ValueError, match="cannot be read"):
        adapters.merge_adapter(toy(), path, base_sha256="abc")
    adapters.save_adapter(trained, path, base_sha256="abc")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        adapters.merge_adapter(toy(), path, base_sha256="abc")
    path.write_bytes(whole)
    header = {
        "format_version": "1",
        "base_sha256": "abc",
        "scales": adapters._read(path)[0]["scales"],
        "details": "{}",
    }
    arrays = load_file(path)

    def rewrite(change, **more):
        save_file(change(dict(arrays)), path, metadata={**header, **more})

    def without(name):
        return lambda found: {k: v for k, v in found.items() if k != name}

    for change, message in (
        (without("masked_lm_head/output_bias"), "lacks 'masked_lm_head/outp"),
        (
            without("token_embedding/lora_embeddings_a"),
            "no change for 'token_embedding'",
        ),
        (
            lambda found: {**found, "more": np.zeros(1, np.float32)},
            "has no variable",
        ),
        (
            lambda found: {
                **found,
                "embeddings_layer_norm/beta": np.zeros(3, np.float32),
            },
            "does not fit at 'embeddings_layer_norm/beta'",
        ),
    ):
        rewrite(change)
        with pytest.raises(ValueError, match=message):
            adapters.merge_adapter(toy(), path, base_sha256="abc")
    rewrite(dict, format_version="2")
    with pytest.raises(ValueError, match="has format version '2'"):
        adapters.merge_adapter(toy(), path, base_sha256="abc")


def test_a_rank_is_at_least_one():
    with pytest.raises(ValueError, match="`rank` must be at least 1"):
        adapters.enable_adapter(toy(), 0)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"scales": "{}"}, "lacks a scale of 'token_embedding'"),
        ({"scales": "["}, "damaged: `scales` in its metadata must be a JSON"),
        ({"details": "[]"}, "damaged: `details` in its metadata must be"),
    ],
)
def test_damaged_metadata_is_reported(trained, tmp_path, header, message):
    path = tmp_path / "adapter.safetensors"
    adapters.save_adapter(trained, path, base_sha256="0")
    metadata, arrays = adapters._read(path)
    save_file(arrays, path, metadata={**metadata, **header})
    with pytest.raises(ValueError, match=message):
        adapters.merge_adapter(toy(), path, base_sha256="0")
