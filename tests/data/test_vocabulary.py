"""Hashes and ids of vocabularies of both kinds."""

import pytest
import tokenizers
from tokenizers import models
from toy import byte_level_tokenizer

from keras_distil import data
from keras_distil.data.vocabulary import require_id


def test_the_hash_follows_what_splits_bytes(tmp_path):
    tokenizer = byte_level_tokenizer(tmp_path / "a")
    first = data.tokenizer_hash(tokenizer)
    assert first == data.tokenizer_hash(byte_level_tokenizer(tmp_path / "a"))
    spaced = byte_level_tokenizer(tmp_path / "b", add_prefix_space=True)
    assert data.vocabulary_hash(spaced) == data.vocabulary_hash(tokenizer)
    assert data.tokenizer_hash(spaced) != first
    (tmp_path / "a" / "merges.txt").write_text("#version: 0.2\n")
    letters = data.load_tokenizer(tmp_path / "a")
    assert data.vocabulary_hash(letters) == data.vocabulary_hash(tokenizer)
    assert data.tokenizer_hash(letters) != first


def test_an_id_that_must_be_there():
    tokenizer = tokenizers.Tokenizer(models.WordLevel({"a": 7}, unk_token="a"))
    assert require_id(tokenizer, "a") == 7
    with pytest.raises(ValueError, match="The vocabulary lacks 'b'"):
        require_id(tokenizer, "b")
