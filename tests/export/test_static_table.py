"""Static tables: written, read back by `edge`, in eight bits."""

import json

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from keras_distil import edge, export, models
from keras_distil.models.architectures.text_embedder import ExactTextEmbedder
from keras_distil.models.static_embedding import (
    StaticBackbone,
    StaticTextEmbedder,
)

TEXTS = ["a b c", "x", "a naïve café " * 9, "日本語"]


@pytest.fixture(scope="module")
def static(bert, tokenizer):
    teacher = models.embedding_model(
        bert, tokenizer=tokenizer, prompts={"query": "b "}
    )
    return models.static_embedding_model(teacher, TEXTS, 8, sequence_length=12)


def test_a_table_embeds_as_the_model(static, tmp_path):
    made = export.export_static_table(static, tmp_path / "made")
    assert (made.format, made.precision) == ("static_table", "int8")
    assert 0.999 < made.comparison.cosine <= 1.0
    table = np.fromfile(made.path / "vectors.bin", edge.row_type(8))
    weights = static.backbone.token_embedding.embeddings.numpy()
    special = static.backbone.special_ids
    assert not table["scale"][special].any()
    others = np.setdiff1d(np.arange(len(weights)), special)
    np.testing.assert_allclose(
        (table["scale"][:, None] * table["row"])[others],
        weights[others],
        # Half of an integer, whose scale the largest number sets.
        atol=0.51 * np.abs(weights).max() / 127,
    )
    assert np.abs(table["row"][others]).max(axis=1).tolist() == [127] * len(
        others
    )
    assert made.size_mb == pytest.approx(len(weights) * 12 / 1e6)
    read = edge.StaticStudent(made.path)
    for prompt in (None, "query"):
        ours = static.encode_text(TEXTS, prompt)
        cosines = (ours * read.embed(TEXTS, prompt)).sum(axis=1)
        np.testing.assert_allclose(cosines, (ours**2).sum(axis=1), atol=1e-3)
    assert {path.name for path in made.path.iterdir()} == {
        "parity.json",
        "student.json",
        "tokenizer.json",
        "vectors.bin",
        "vocab.txt",
    }


def test_the_file_of_a_usual_vocabulary_is_below_8_million_bytes():
    assert 30_522 * edge.row_type(256).itemsize == 7_935_720


@pytest.mark.slow
def test_a_saved_model_of_a_table(static, tmp_path):
    made = export.export(static, tmp_path / "made", format="saved_model")
    loaded = tf.saved_model.load(made.path)
    found = loaded.signatures["texts"](texts=tf.constant(TEXTS))
    np.testing.assert_allclose(
        found["embedding"], static.encode_text(TEXTS), atol=1e-5
    )


def test_a_folder_of_sentence_transformers(static, tmp_path):
    made = export.export(static, tmp_path / "made", format="hugging_face")
    again = models.load_embedding_model(made.path)
    assert again.get_config()["prompts"] == {"query": "b "}
    assert again.preprocessor.sequence_length == 12
    assert again.backbone.special_ids == static.backbone.special_ids
    for method in ("encode_text", "encode_query"):
        np.testing.assert_allclose(
            getattr(again, method)(TEXTS),
            getattr(static, method)(TEXTS),
            atol=1e-6,
        )
    card = (made.path / "README.md").read_text("utf-8")
    assert "A table of one vector of width 8 per token" in card


def keep(folder, *modules):
    path = folder / "modules.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([entries[number] for number in modules]))


def store(folder, **tensors):
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: keep(folder, 0), "followed by Normalize alone. Receiv"),
        (
            lambda folder: store(folder, embeddings=np.zeros((9, 4))),
            "must hold the tensor embedding.weight of tokens and",
        ),
        (
            lambda folder: store(
                folder, **{"embedding.weight": np.zeros((9, 4), np.float32)}
            ),
            r"must have a row for each of the tokenizer's \d+ tokens. .*: 9 r",
        ),
        (
            lambda folder: (folder / "tokenizer.json").unlink(),
            "The tokenizer `.*tokenizer.json` is missing",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text("{"),
            "made/tokenizer.json` is damaged",
        ),
    ],
)
def test_damaged_folders(static, tmp_path, damage, message):
    made = export.export(static, tmp_path / "made", format="hugging_face")
    damage(made.path)
    with pytest.raises(ValueError, match=message):
        models.load_embedding_model(made.path)


@pytest.mark.parametrize("format", ["litert", "onnx", "preset"])
def test_formats_that_need_an_encoder(static, tmp_path, format):
    message = f"must have an encoder for format={format!r}: .*'static_table'"
    with pytest.raises(ValueError, match=message):
        export.export(static, tmp_path / "made", format=format)


def test_models_that_are_no_such_table(static, bert, tokenizer, tmp_path):
    encoder = models.embedding_model(bert, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="Received: ExactBertTextEmbedder"):
        export.export_static_table(encoder, tmp_path / "made")
    backbone = StaticBackbone(len(tokenizer.get_vocab()), 4)
    for settings, shown in (
        ({"normalize": False}, "'normalize': False"),
        ({"pooling_mode": "max"}, "'pooling_mode': 'max'"),
        ({"dimension": 3}, "'dimension': 3"),
    ):
        model = StaticTextEmbedder(backbone, static.preprocessor, **settings)
        assert isinstance(model, ExactTextEmbedder)
        with pytest.raises(ValueError, match=f"Received: .*{shown}"):
            export.export_static_table(model, tmp_path / "made")
    model = StaticTextEmbedder(backbone)
    with pytest.raises(ValueError, match="A static table needs its tokenizer"):
        export.export_static_table(model, tmp_path / "made")


def test_a_table_that_reads_texts_otherwise(static, tmp_path, monkeypatch):
    embed = edge.StaticStudent.embed
    monkeypatch.setattr(
        edge.StaticStudent,
        "embed",
        lambda self, texts, name: embed(self, texts[::-1], name),
    )
    with pytest.raises(RuntimeError, match="reads texts otherwise than the st"):
        export.export_static_table(static, tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_the_card_holds_the_prompts(static, tmp_path):
    made = export.export_static_table(static, tmp_path / "made")
    card = json.loads((made.path / "student.json").read_text())
    assert card["prompts"] == {"query": "b "}
    assert card["max_length"] == 12
