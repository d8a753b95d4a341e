"""Tokenizers of both kinds are written with an export and read back equal."""

import json

import keras_hub
import pytest
import tokenizers
from toy import byte_level_tokenizer, randomize

from keras_distil import data, export, models
from keras_distil.export import tokenizer_files, vocabulary

SIZES = {
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 8,
    "max_sequence_length": 16,
}
TEXTS = (" The  student's <mask>, naïve <mask>", "日本 👍\t\n x", "")


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return byte_level_tokenizer(tmp_path_factory.mktemp("byte_level"))


@pytest.fixture(scope="module")
def reader():
    """A student of a byte-level vocabulary; only its files matter here."""
    backbone = keras_hub.models.DistilBertBackbone(vocabulary_size=701, **SIZES)
    return randomize(models.ExactDistilBertMaskedLM(backbone), seed=3)


def settings_of(folder):
    return json.loads((folder / "tokenizer_config.json").read_text("utf-8"))


def check_same(tokenizer, folder):
    back = data.load_tokenizer(folder)
    for text in TEXTS:
        assert back.encode(text, "b").ids == tokenizer.encode(text, "b").ids
        assert back.encode(text).offsets == tokenizer.encode(text).offsets
    assert data.SpecialTokens.from_tokenizer(back) == (
        data.SpecialTokens.from_tokenizer(tokenizer)
    )


def test_a_byte_level_tokenizer_in_a_hugging_face_folder(
    byte_level, reader, tmp_path
):
    made = export.export_hugging_face(reader, tmp_path / "made", byte_level)
    settings = settings_of(made.path)
    assert settings["tokenizer_class"] == "RobertaTokenizer"
    assert (settings["add_prefix_space"], settings["trim_offsets"]) == (0, 1)
    assert settings["mask_token"] == "<mask>"
    assert settings["added_tokens_decoder"]["700"]["lstrip"]
    assert not settings["clean_up_tokenization_spaces"]
    assert not (made.path / "vocab.txt").exists()
    check_same(byte_level, made.path)
    # The older files alone say the same.
    (made.path / "tokenizer.json").unlink()
    check_same(byte_level, made.path)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("space", "RobertaTokenizer"),
        ("offsets", "RobertaTokenizer"),
        ("normalizer", "PreTrainedTokenizerFast"),
        ("unknown", "PreTrainedTokenizerFast"),
        ("frame", "PreTrainedTokenizerFast"),
        ("words", "PreTrainedTokenizerFast"),
    ],
)
def test_the_class_is_one_that_reads_the_same(
    change, name, reader, byte_level, tmp_path
):
    settings = {"space": {"add_prefix_space": True}} | {
        "offsets": {"trim_offsets": False}
    }
    tokenizer = byte_level_tokenizer(tmp_path, **settings.get(change, {}))
    if change == "normalizer":
        tokenizer.normalizer = tokenizers.normalizers.NFC()
    elif change == "unknown":
        tokenizer.model.unk_token = "<unk>"
    elif change == "frame":
        tokenizer.post_processor = tokenizers.processors.BertProcessing(
            ("</s>", 2), ("<s>", 0)
        )
    elif change == "words":
        digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [digits, tokenizer.pre_tokenizer]
        )
    made = export.export_hugging_face(reader, tmp_path / "made", tokenizer)
    assert settings_of(made.path)["tokenizer_class"] == name
    check_same(tokenizer, made.path)


def test_a_mask_of_another_name(reader, tmp_path):
    tokenizer = byte_level_tokenizer(tmp_path, mask_token="ing")
    assert data.SpecialTokens.from_tokenizer(tokenizer).mask_id == (
        tokenizer.token_to_id("ing")
    )
    made = export.export_hugging_face(reader, tmp_path / "made", tokenizer)
    assert settings_of(made.path)["mask_token"] == "ing"
    special = json.loads((made.path / "special_tokens_map.json").read_text())
    assert special["mask_token"] == "ing"
    check_same(tokenizer, made.path)


def test_a_word_piece_mask_of_another_name(tokenizer, student, tmp_path):
    words = tokenizer.get_vocab()
    lines = [w.replace("[MASK]", "xmask") for w in sorted(words, key=words.get)]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n", "utf-8")
    settings = {"mask_token": "xmask"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    other = data.load_tokenizer(tmp_path)
    assert other.encode("a xmask b").ids == tokenizer.encode("a [MASK] b").ids
    made = export.export_hugging_face(student, tmp_path / "made", other)
    assert settings_of(made.path)["mask_token"] == "xmask"
    check_same(other, made.path)


def test_the_tokenizer_json_of_a_usual_tokenizer_says_nothing_of_roles(
    tokenizer, tmp_path
):
    vocabulary.write_vocabulary(tokenizer, tmp_path)
    assert (tmp_path / "tokenizer.json").read_text("utf-8") == (
        tokenizer.to_str(pretty=True)
    )
    assert "mask_token" not in tokenizer.to_str()
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["tokenizer.json", "vocab.txt"]
    )


def test_a_tokenizer_that_reads_back_otherwise(byte_level, reader, tmp_path):
    export.export_hugging_face(reader, tmp_path / "made", byte_level)
    other = byte_level_tokenizer(tmp_path / "other", pad_token="ing")
    with pytest.raises(ValueError, match="its set of special tokens reads"):
        tokenizer_files.check_tokenizer(other, tmp_path / "made")
    other.add_tokens(["zzz"])
    with pytest.raises(ValueError, match="its vocabulary reads back otherwise"):
        tokenizer_files.check_tokenizer(other, tmp_path / "made")


def test_other_kinds_have_no_files(tmp_path):
    words = tokenizers.models.WordLevel({"a": 0}, unk_token="a")
    with pytest.raises(
        ValueError,
        match=r"kinds \['WordPiece', 'BPE'\], as .* Received: WordLevel",
    ):
        vocabulary.write_vocabulary(tokenizers.Tokenizer(words), tmp_path)


def test_a_preset_takes_no_byte_level_tokenizer(byte_level, reader, tmp_path):
    with pytest.raises(ValueError, match="are WordPiece. Received: .* BPE. Ex"):
        export.export_preset(reader, tmp_path / "made", byte_level)
    export.export_preset(reader, tmp_path / "made")


@pytest.mark.slow
def test_a_saved_model_reads_texts_by_bytes(
    byte_level, reader, tmp_path, caplog
):
    from keras_distil.export.signatures import load_signatures

    made = export.export_saved_model(reader, tmp_path / "made", byte_level)
    assert made.note is None
    assert {"texts", "text_pairs"} <= set(load_signatures(made.path))
    # A form of the tokenizer that no graph has.
    other = tokenizers.Tokenizer.from_str(byte_level.to_str())
    other.normalizer = tokenizers.normalizers.Lowercase()
    made = export.export_saved_model(
        reader, tmp_path / "made", other, overwrite=True
    )
    assert made.note.startswith(
        "This SavedModel takes token ids, not texts: its tokenizer has a "
        "normalizer, for"
    )
    assert made.note in caplog.text
    assert sorted(load_signatures(made.path)) == [
        "serving_default",
        "token_ids",
    ]
