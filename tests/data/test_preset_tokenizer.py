"""The tokenizer of a KerasHub preset, compared with KerasHub's own."""

import json

import keras_hub
import pytest
from toy import byte_level_tokenizer

from keras_distil import data

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    *SPECIAL,
    "the",
    "cat",
    "sat",
    "##s",
    "\u00e9t\u00e9",
    ",",
    "c",
    "##at",
]
TEXT = "The cats, sat THE \u00e9t\u00e9 dog"


@pytest.mark.parametrize("name", ["BertTokenizer", "DistilBertTokenizer"])
def test_word_pieces(name, tmp_path):
    own = getattr(keras_hub.tokenizers, name)(vocabulary=WORDS, lowercase=True)
    own.save_to_preset(tmp_path)
    tokenizer = data.load_tokenizer(tmp_path)
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert ids == own(TEXT).tolist()
    assert data.SpecialTokens.from_tokenizer(tokenizer).cls_id == 2


def test_byte_level_pieces(tmp_path):
    byte_level_tokenizer(tmp_path / "own")
    own = keras_hub.tokenizers.RobertaTokenizer(
        vocabulary=str(tmp_path / "own" / "vocab.json"),
        merges=str(tmp_path / "own" / "merges.txt"),
    )
    own.save_to_preset(tmp_path / "preset")
    tokenizer = data.load_tokenizer(tmp_path / "preset")
    text = "a letter, another"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == own(text).tolist()


def test_what_is_missing_is_named(tmp_path):
    own = keras_hub.tokenizers.BertTokenizer(vocabulary=WORDS, lowercase=True)
    own.save_to_preset(tmp_path)
    path = tmp_path / "tokenizer.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "class_name": "T5Tokenizer"}))
    with pytest.raises(ValueError, match="assets/tokenizer.*must be one of"):
        data.load_tokenizer(tmp_path)
    path.write_text(json.dumps(described))
    (tmp_path / "assets" / "tokenizer" / "vocabulary.txt").unlink()
    with pytest.raises(FileNotFoundError, match="assets/tokenizer"):
        data.load_tokenizer(tmp_path)
