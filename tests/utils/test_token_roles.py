"""What a tokenizer's tokens are for, and how they look to a reader."""

import pytest
import tokenizers
from tokenizers import models, processors
from toy import byte_level_tokenizer

from keras_distil.utils import token_roles


@pytest.fixture
def byte_level(tmp_path):
    return byte_level_tokenizer(tmp_path)


def of_words(*words):
    vocabulary = {word: i for i, word in enumerate(words)}
    return tokenizers.Tokenizer(
        models.WordPiece(vocabulary, unk_token=words[0])
    )


@pytest.mark.parametrize(
    ("role", "token"),
    [
        ("pad_token", "<pad>"),
        ("mask_token", "<mask>"),
        ("unk_token", "<unk>"),
        ("cls_token", "<s>"),
        ("sep_token", "</s>"),
    ],
)
def test_usual_names(byte_level, role, token):
    assert token_roles.find_role(byte_level, role) == token
    berts = f"[{role[:-6].upper()}]"
    assert token_roles.find_role(of_words("a", berts), role) == berts
    assert token_roles.find_role(of_words("a"), role) is None


@pytest.mark.parametrize("nested", [False, True])
def test_a_stored_name_comes_first(byte_level, nested):
    template = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[
            ("<s>", 0),
            ("</s>", 2),
            {"id": "mask_token", "ids": [9], "tokens": ["ing"]},
            {"id": "pad_token", "ids": [9], "tokens": ["nowhere"]},
        ],
    )
    if nested:
        template = processors.Sequence([processors.ByteLevel(), template])
    byte_level.post_processor = template
    assert token_roles.find_role(byte_level, "mask_token") == "ing"
    # A token that the vocabulary lacks plays no role.
    assert token_roles.find_role(byte_level, "pad_token") == "<pad>"


def test_byte_level_tokens_are_decoded(byte_level):
    spell = token_roles.spell
    assert spell(byte_level, byte_level.token_to_id("\u0120the")) == " the"
    assert spell(byte_level, byte_level.token_to_id("\u010a")) == "\n"
    assert spell(byte_level, 700) == "<mask>"
    assert spell(byte_level, 999) is None
    assert token_roles.is_byte_level(byte_level)


def test_other_tokens_are_as_they_are():
    tokenizer = of_words("[UNK]", "##ing")
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    assert token_roles.spell(tokenizer, 1) == "##ing"
    assert token_roles.spell(tokenizer, 2) is None
    assert not token_roles.is_byte_level(tokenizer)
