"""WordPiece: hard texts, and special tokens of other names."""

import json
import sys
from pathlib import Path

import pytest

from keras_distil import data
from keras_distil.data.tokenize import Encoder, load_tokenizer

GOLDEN = Path(__file__).parent / "golden"
sys.path.append(str(GOLDEN))

import tokenizer_cases as cases  # noqa: E402
from hard_texts import HARD_TEXTS  # noqa: E402


def test_hard_texts():
    expected = json.loads((GOLDEN / "word_piece.json").read_text("utf-8"))
    tokenizer = load_tokenizer(GOLDEN / "word_piece")
    found = [tokenizer.encode(text).ids for text in HARD_TEXTS]
    assert found == expected["hard"]
    trained = [ids.tolist() for ids in Encoder(tokenizer).encode(HARD_TEXTS)]
    assert trained == [ids[1:-1] for ids in found]


@pytest.mark.parametrize(
    ("name", "roles", "stored"),
    [
        (
            "vocab.txt alone",
            ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
            False,
        ),
        # The vocabulary has BERT's names, too.
        ("other names", ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), True),
        (
            "a mask of another name",
            ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "sea"),
            True,
        ),
        (
            "another mask in tokenizer.json as it is",
            ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "york"),
            True,
        ),
    ],
)
def test_roles(name, roles, stored, tmp_path):
    tokenizer = load_tokenizer(cases.write(tmp_path, cases.CASES[name]))
    ids = [tokenizer.token_to_id(token) for token in roles]
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    assert special == data.SpecialTokens(*ids)
    assert data.unknown_token(tokenizer) == roles[1]
    # What travels as text, to other processes and into exports, says it too.
    copy = type(tokenizer).from_str(tokenizer.to_str())
    assert data.SpecialTokens.from_tokenizer(copy) == special
    assert ('"mask_token"' in tokenizer.to_str()) is stored


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"unk_token": "zzz"},
            "`unk_token` in .* must be '\\[UNK\\]', or another token that the "
            "vocabulary has. Received: 'zzz'",
        ),
        (
            {"unk_token": "the", **cases.PLAIN, "cls_token": "sea"},
            r"must turn two texts into `\[CLS\] A \[SEP\] B \[SEP\]`.*"
            r"Received: \[CLS\] \[SEP\] \[SEP\] around",
        ),
        (
            {"unk_token": "the"},
            "`model.unk_token` in .* must be 'the': .*BertTokenizer",
        ),
    ],
)
def test_roles_that_the_file_contradicts(settings, message, tmp_path):
    files = {"tokenizer.json": cases.whole(), "tokenizer_config.json": settings}
    with pytest.raises(ValueError, match=message):
        load_tokenizer(cases.write(tmp_path, files))


def test_a_vocabulary_without_some_roles(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(
        ValueError,
        match=r"lacks \[PAD\], \[MASK\]. It must have `pad_token`, which fills "
        "a batch, `mask_token`, which hides a token. Name tokens of the voc",
    ):
        load_tokenizer(tmp_path)


def test_the_unknown_token_of_a_file_that_is_used_as_it_is(tmp_path):
    whole = cases.whole()
    words = whole["model"]["vocab"]
    words["odd"] = words.pop("[UNK]")
    whole["model"]["unk_token"] = "odd"
    whole["added_tokens"] = [
        t for t in whole["added_tokens"] if t["content"] != "[UNK]"
    ]
    files = {"tokenizer.json": whole, "tokenizer_config.json": cases.PLAIN}
    tokenizer = load_tokenizer(cases.write(tmp_path, files))
    assert tokenizer.encode("zzz").ids == [2, 1, 3]
    assert data.unknown_token(tokenizer) == "odd"
