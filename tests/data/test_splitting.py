"""Texts are cut where it changes no token."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from toy import byte_level_tokenizer

from keras_distil.data.splitting import find_divider, find_splitter
from keras_distil.data.tokenize import Encoder

sys.path.append(str(Path(__file__).parent / "golden"))

from hard_texts import HARD_TEXTS  # noqa: E402

# White space of all kinds, and what some count as such.
SPACES = [
    *map(chr, (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, 0x180E)),
    *map(chr, (*range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F)),
    *"\u3000\ufeff",
]


@pytest.fixture(scope="module", params=["as is", "space first", "strips"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("byte_level")
    made = byte_level_tokenizer(
        folder, add_prefix_space=request.param == "space first"
    )
    if request.param == "strips":
        made.add_tokens(
            [
                tokenizers.AddedToken("right", rstrip=True),
                tokenizers.AddedToken("whole", single_word=True),
            ]
        )
    return made


def check(tokenizer, texts):
    expected = tokenizer.encode_batch(texts, add_special_tokens=False)
    found = list(Encoder(tokenizer).encode(texts))
    assert [ids.tolist() for ids in found] == [e.ids for e in expected]


def test_random_texts(tokenizer):
    generator = np.random.default_rng(0)
    pieces = [
        *(
            "a",
            "the",
            "'s",
            "'",
            "12",
            ".",
            "é",
            "中",
            "👍",
            "\u0301",
            "wholes",
        ),
        *("<mask>", "<s>", "right", "whole", " ", " ", " ", " ", *SPACES),
    ]
    texts = [
        "".join(generator.choice(pieces, generator.integers(0, 12)))
        for _ in range(5000)
    ]
    check(tokenizer, [*texts, *HARD_TEXTS])


def test_every_space_and_its_neighbours(tokenizer):
    check(tokenizer, [f"a {c}b  {c} {c}{c} c{c} d" for c in SPACES])


def test_prose_is_cut_before_words(tokenizer):
    split = find_splitter(tokenizer)
    assert split("The cat  sat on\tit. ") == ["The", " cat  sat", " on\tit. "]
    assert split("a <mask> b c") == ["a <mask> b c"]
    assert split("") == [""]


@pytest.mark.parametrize("change", ["token", "normalizer", "words", "model"])
def test_others_are_not_cut(change, tmp_path):
    tokenizer = byte_level_tokenizer(tmp_path)
    if change == "token":
        tokenizer.add_tokens(["two words"])
    elif change == "normalizer":
        tokenizer.normalizer = tokenizers.normalizers.Replace("e s", "es")
    elif change == "words":
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
            use_regex=False
        )
    else:
        tokenizer.model = tokenizers.models.WordLevel({"a": 0}, unk_token="a")
    assert find_splitter(tokenizer) is None


# === WordPiece ===


@pytest.fixture(scope="module")
def word_piece():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[E1]"]
    words = [*special, *"abx19.-'_~", "ab", "##a", "##b", "##9", "é", "中"]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {word: i for i, word in enumerate(words)}, unk_token="[UNK]"
        )
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(special)
    return made


def test_words_are_cut_at_the_marks_of_ascii(word_piece):
    divide = find_divider(word_piece)
    assert divide("ab's_x.") == ["ab", "'", "s", "_", "x", "."]
    for whole in ("ab", "[E1]-a", "é.a", "a\x07.b"):
        assert divide(whole) == [whole]
    generator = np.random.default_rng(1)
    pieces = [
        *map(chr, range(0x80)),
        *"ab.-'_ " * 9,
        "[E1]",
        "é",
        "中",
        "l" * 99,
    ]
    check(
        word_piece,
        [
            "".join(generator.choice(pieces, generator.integers(30)))
            for _ in range(2000)
        ],
    )
    # It may stand anywhere in a word, of which the parts do not tell.
    other = tokenizers.Tokenizer.from_str(word_piece.to_str())
    other.add_tokens(["a-b"])
    assert find_divider(other) is None
    check(other, ["xa-bx a-b", "a-", "b"])
