"""Logits against the Hugging Face implementation, position by position."""

import numpy as np
import pytest

from keras_distil import models

pytestmark = pytest.mark.peer

BERT = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
}
ROBERTA = {**BERT, "type_vocab_size": 1, "max_position_embeddings": 18}
DISTIL_BERT = {
    "vocab_size": 90,
    "dim": 24,
    "n_layers": 3,
    "n_heads": 3,
    "hidden_dim": 40,
    "max_position_embeddings": 16,
}


def build(class_name, config):
    """A model of the peer in which all weights matter."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind = class_name.partition("For")[0]
    settings = getattr(transformers, f"{kind}Config")(**config)
    model = getattr(transformers, class_name)(settings)
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        offset = 1.0 if "orm.weight" in name else 0.0
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = offset + 0.4 * noise
    return model.eval()


def their_logits(model, arrays):
    torch = pytest.importorskip("torch")
    names = {
        "token_ids": "input_ids",
        "padding_mask": "attention_mask",
        "segment_ids": "token_type_ids",
    }
    tensors = {
        names[key]: torch.tensor(value).long() for key, value in arrays.items()
    }
    with torch.no_grad():
        outputs = model(**tensors)
    # A pre-training model has two heads.
    logits = getattr(outputs, "prediction_logits", None)
    return (outputs.logits if logits is None else logits).numpy()


def batch(with_segments, lowest=0):
    generator = np.random.default_rng(6)
    padding_mask = np.ones((3, 11), "int32")
    padding_mask[1, 7:] = 0
    padding_mask[2, 1:] = 0
    arrays = {
        "token_ids": generator.integers(lowest, 90, (3, 11), dtype="int32"),
        "padding_mask": padding_mask,
    }
    if with_segments:
        segments = generator.integers(0, 2, (3, 11), dtype="int32")
        arrays["segment_ids"] = segments
    return arrays


@pytest.mark.parametrize(
    "class_name, saving",
    [
        ("BertForMaskedLM", {}),
        ("BertForMaskedLM", {"max_shard_size": "20KB"}),
        # With a pooler, and a head that is ignored.
        ("BertForPreTraining", {}),
        ("DistilBertForMaskedLM", {}),
        ("DistilBertForMaskedLM", {"max_shard_size": "20KB"}),
        ("RobertaForMaskedLM", {}),
        ("RobertaForMaskedLM", {"max_shard_size": "20KB"}),
    ],
)
def test_logits(class_name, saving, tmp_path, all_logits):
    is_bert = class_name.startswith("Bert")
    is_roberta = class_name.startswith("Roberta")
    config = {"B": BERT, "D": DISTIL_BERT, "R": ROBERTA}[class_name[0]]
    peer = build(class_name, config)
    peer.save_pretrained(tmp_path, **saving)
    sharded = (tmp_path / "model.safetensors.index.json").exists()
    assert sharded == bool(saving)
    # RoBERTa gives its padding, id 1, no position of its own.
    arrays = batch(with_segments=is_bert, lowest=2 if is_roberta else 0)
    # Sums of float32 in another order; logits are of order 10.
    np.testing.assert_allclose(
        all_logits(models.load_teacher(tmp_path), arrays),
        their_logits(peer, arrays),
        atol=1e-4,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_hidden_layers": 1, "num_attention_heads": 1},
        {"hidden_size": 12, "num_attention_heads": 4, "intermediate_size": 9},
        {"vocab_size": 91, "max_position_embeddings": 13},
        {"layer_norm_eps": 1e-5, "hidden_act": "gelu_new"},
    ],
)
@pytest.mark.parametrize("family", ["Bert", "Roberta"])
def test_logits_of_other_shapes(family, sizes, tmp_path, all_logits):
    config = {"Bert": BERT, "Roberta": ROBERTA}[family]
    peer = build(f"{family}ForMaskedLM", {**config, **sizes})
    peer.save_pretrained(tmp_path)
    arrays = batch(with_segments=family == "Bert", lowest=2)
    np.testing.assert_allclose(
        all_logits(models.load_teacher(tmp_path), arrays),
        their_logits(peer, arrays),
        atol=1e-4,
        rtol=1e-5,
    )


def test_pooler(tmp_path):
    torch = pytest.importorskip("torch")
    peer = build("BertForPreTraining", BERT)
    peer.save_pretrained(tmp_path)
    arrays = batch(with_segments=True)
    with torch.no_grad():
        pooled = peer.bert(
            input_ids=torch.tensor(arrays["token_ids"]).long(),
            attention_mask=torch.tensor(arrays["padding_mask"]).long(),
            token_type_ids=torch.tensor(arrays["segment_ids"]).long(),
        ).pooler_output
    teacher = models.load_teacher(tmp_path)
    np.testing.assert_allclose(
        teacher.backbone(arrays)["pooled_output"], pooled.numpy(), atol=1e-5
    )


def test_renamed_norms_and_no_prefix(tmp_path, all_logits):
    from safetensors.numpy import load_file, save_file

    peer = build("BertForMaskedLM", BERT)
    peer.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in load_file(file).items()
    }
    # Older files hold the tied decoder under its own name.
    words = tensors["embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.weight"] = words.copy()
    save_file(tensors, file)
    arrays = batch(with_segments=True)
    np.testing.assert_allclose(
        all_logits(models.load_teacher(tmp_path), arrays),
        their_logits(peer, arrays),
        atol=1e-4,
        rtol=1e-5,
    )
