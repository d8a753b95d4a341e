"""Makes the golden checkpoints and outputs beside this file.

They come from the Hugging Face implementation, so they are independent of
this package. Run once, with torch and transformers installed, from here:

    python make_golden.py
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers

LENGTH = 9


def randomize(model):
    """Makes every weight matter: no zero bias, no unit scale."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        # Activations of order 1, where the forms of GELU differ most.
        scale = 0.6 if name.endswith("embeddings.weight") else 0.4
        offset = 1.0 if "orm.weight" in name else 0.0
        parameter.data = offset + scale * noise
    return model.eval()


def inputs(with_segments):
    """Two rows: the first has a second segment, the other is padded."""
    generator = np.random.default_rng(2)
    arrays = {
        "token_ids": generator.integers(5, 64, (2, LENGTH), dtype="int32"),
        "padding_mask": np.ones((2, LENGTH), "int32"),
    }
    arrays["padding_mask"][1, 6:] = 0
    if with_segments:
        arrays["segment_ids"] = np.zeros((2, LENGTH), "int32")
        arrays["segment_ids"][0, 5:] = 1
    return arrays


def save(name, model):
    """Writes the checkpoint and its outputs."""
    folder = Path(__file__).parent / name
    model.save_pretrained(folder, safe_serialization=True)
    arrays = inputs(with_segments=name == "bert")
    names = {
        "token_ids": "input_ids",
        "padding_mask": "attention_mask",
        "segment_ids": "token_type_ids",
    }
    tensors = {
        names[key]: torch.tensor(value).long() for key, value in arrays.items()
    }
    with torch.no_grad():
        outputs = model(**tensors, output_hidden_states=True)
    np.savez(
        folder / "outputs.npz",
        **arrays,
        hidden_states=outputs.hidden_states[-1].numpy(),
        logits=outputs.logits.numpy(),
    )


# Settings of the golden checkpoints that are computed, too.
VARIANTS = {
    "bert": (
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu", "layer_norm_eps": 0.01},
        {"hidden_act": "silu", "layer_norm_eps": 1e-5},
    ),
    "distil_bert": ({"activation": "relu"}, {"activation": "gelu_new"}),
    # Its head always has the exact GELU.
    "roberta": ({"hidden_act": "relu", "layer_norm_eps": 1e-3},),
}


def save_variants(name):
    """Writes the logits of the checkpoint under other settings."""
    folder = Path(__file__).parent / name
    arrays = np.load(folder / "outputs.npz")
    names = {"token_ids": "input_ids", "padding_mask": "attention_mask"}
    if "segment_ids" in arrays:
        names["segment_ids"] = "token_type_ids"
    tensors = {
        theirs: torch.tensor(arrays[ours]).long()
        for ours, theirs in names.items()
    }
    logits = {}
    for settings in VARIANTS[name]:
        config = transformers.AutoConfig.from_pretrained(folder, **settings)
        model = transformers.AutoModelForMaskedLM.from_pretrained(
            folder, config=config
        )
        with torch.no_grad():
            # In float64, as these models amplify rounding to 1e-4.
            outputs = model.eval().double()(**tensors)
        logits[json.dumps(settings)] = outputs.logits.numpy()
    np.savez(folder / "variants.npz", **logits)


if __name__ == "__main__":
    bert = transformers.BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    save("bert", randomize(transformers.BertForMaskedLM(bert)))
    distil_bert = transformers.DistilBertConfig(
        vocab_size=64,
        dim=16,
        n_layers=2,
        n_heads=2,
        hidden_dim=32,
        max_position_embeddings=12,
    )
    save(
        "distil_bert",
        randomize(transformers.DistilBertForMaskedLM(distil_bert)),
    )
    # Of another width inside, so that no family's sizes fit by accident; its
    # only token type has a weight, unlike that of released models.
    roberta = transformers.RobertaConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=14,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    save("roberta", randomize(transformers.RobertaForMaskedLM(roberta)))
    for name in VARIANTS:
        save_variants(name)
