"""Ids of texts by their words, beside those of whole texts."""

import random

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from keras_distil.edge.known_words import KnownWords

PARTS = [
    *("the", "cats", "Sat", "SΟΦΟΣ", "über", "u\u0308ber", "\u0308", "中文字"),
    *("don't", "a-b", "[SEP]", "x[MASK]y", "[CLS]", "x" * 120, "\u200b", "!"),
    *("\t", "\n", "\u3000", "\u00a0", "\x1c", "\x00", "\u2028", "", " "),
    *("a\u2028b", "İ", "ß", "ﬁ", "🙂", "\ud7ff", "c\x85d", "\u00ad"),
]


def make_word_piece(**normalizing):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
    words += ["##s", "uber", "über", "don", "'", "t", "a", "b", "-", "中", "!"]
    words += ["x", "y", "σοφος", "σοφοσ", "##b", "ss", "c", "d", "##d", "i"]
    made = tokenizers.Tokenizer(
        models.WordPiece(
            {word: number for number, word in enumerate(words)},
            unk_token="[UNK]",
        )
    )
    made.normalizer = normalizers.BertNormalizer(**normalizing)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[SEP]", "[MASK]", "[CLS]"])
    made.enable_truncation(20)
    return made


def make_byte_level():
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(["the cat sat on the cats"], trainer)
    made.enable_truncation(20)
    return made


def make_spaced():
    made = make_word_piece()
    made.add_tokens(["the cat"])
    return made


@pytest.mark.parametrize(
    ("make", "by_words"),
    [
        (make_word_piece, True),
        (lambda: make_word_piece(lowercase=False), True),
        (lambda: make_word_piece(strip_accents=False), True),
        (make_byte_level, False),
        (make_spaced, False),
    ],
    ids=["lower", "cased", "accents", "bytes", "spaced"],
)
def test_ids_are_those_of_whole_texts(make, by_words):
    tokenizer = make()
    known = KnownWords(tokenizer, 20)
    assert known._splits_at_spaces is by_words
    chosen = random.Random(0)
    texts = [
        "".join(
            chosen.choice(PARTS) + chosen.choice(["", " ", " ", "  "])
            for _ in range(chosen.randrange(1, 30))
        )
        for _ in range(400)
    ]
    wanted = [
        tokenizer.encode(text, add_special_tokens=False).ids for text in texts
    ]
    assert known.ids(texts) == wanted
    assert known.ids(texts[:9]) == wanted[:9]
    assert max(map(len, wanted)) == 20
