"""Tiny exports of every kind of model, for what runs them."""

import keras_hub
import pytest
from toy import convert_litert_here, randomize

from keras_distil import data, export, models

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "cat", "sat", "on", "mat", "dog", "who", "##s", "."),
]
LOOSE = export.Tolerance(9.0, 9.0, 0.0)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return data.load_tokenizer(folder)


@pytest.fixture(scope="session")
def encoder():
    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=len(WORDS),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=16,
    )
    return randomize(models.ExactDistilBertMaskedLM(backbone), seed=1)


@pytest.fixture(scope="session")
def exported(encoder, tokenizer, tmp_path_factory):
    """A folder for a kind of model, and the model, written once."""
    made = {}
    root = tmp_path_factory.mktemp("edge")

    def export_once(kind, outputs=0, labels=None):
        name = "-".join([kind, *(labels or [])])
        if name not in made:
            model = encoder
            if kind == "sentence_embedding":
                model = models.embedding_model(encoder)
            elif outputs:
                model = randomize(
                    models.task_model(encoder, kind, outputs), seed=5
                )
            made[name] = model
            with pytest.MonkeyPatch.context() as patch:
                convert_litert_here(patch)
                export.export_litert(
                    model,
                    root / name,
                    tokenizer,
                    precision="float32",
                    lengths=[16],
                    labels=labels,
                    tolerance=LOOSE,
                )
        return root / name, made[name]

    return export_once
