"""Byte-level BPE inside a graph gives the library's ids and places."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from toy import byte_level_tokenizer

from keras_distil import data
from keras_distil.export.graph_byte_level import (
    ByteLevelGraphTokenizer,
    find_obstacle,
)
from keras_distil.export.graph_tokenizer import (
    ids_only_note,
    make_graph_tokenizer,
)
from keras_distil.export.saved_model import HARD_TEXTS

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
sys.path.append(str(GOLDEN))

import byte_level_cases as cases  # noqa: E402
import hard_texts  # noqa: E402

EXPECTED = json.loads((GOLDEN / "byte_level.json").read_text("utf-8"))
SURROGATES = range(0xD800, 0xE000)
# Cases that differ in what a graph computes, not only in where settings are.
DIFFERENT = (
    "tokenizer.json",
    "vocab.json and merges.txt",
    "a space before the first word",
    "spaces in offsets",
    "a letter per token",
    "a mask of another name",
)
# The cases without a form in a graph, and what the note says.
WITHOUT = {
    "bytes that the vocabulary lacks": "a vocabulary without some bytes",
    "added words alone": "an added token that must be a whole word",
    "an added token with a space": "an added token with white space in it",
    "tokenizer.json as it is, with an unknown token": "a normalizer",
    "two pre-tokenizers": "another pre-tokenizer than ByteLevel with use_r",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return byte_level_tokenizer(tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def made(tokenizer):
    return ByteLevelGraphTokenizer(tokenizer)


def load(name, folder):
    cases.write(folder, cases.CASES[name])
    return data.load_tokenizer(folder)


def check_same(made, tokenizer, texts):
    """Compares ids, places and beginnings of words."""
    found = made.find_tokens(tf.constant(texts))
    expected = tokenizer.encode_batch(texts, add_special_tokens=False)
    ids, starts, ends, begins = (each.to_list() for each in found)
    for row, encoding in enumerate(expected):
        text = ascii(texts[row])
        assert ids[row] == encoding.ids, text
        places = list(zip(starts[row], ends[row], strict=True))
        assert places == encoding.offsets, text
        words = encoding.word_ids
        first = [
            int(i == 0 or word != words[i - 1]) for i, word in enumerate(words)
        ]
        assert begins[row] == first, text


@pytest.mark.parametrize(
    "name",
    [
        x if x in DIFFERENT else pytest.param(x, marks=pytest.mark.slow)
        for x in cases.CASES
        if x not in WITHOUT
    ],
)
def test_ids_and_places_are_those_of_hugging_face(name, tmp_path):
    tokenizer, expected = load(name, tmp_path), EXPECTED[name]
    found = ByteLevelGraphTokenizer(tokenizer).encode(
        tf.constant(cases.TEXTS), max_length=512
    )
    for row, ids in enumerate(expected["ids"]):
        size = len(ids)
        assert found["token_ids"][row, :size].numpy().tolist() == ids
        assert not found["padding_mask"][row, size:].numpy().any()
        places = np.stack(
            [
                found["starts"][row, 1 : size - 1],
                found["ends"][row, 1:][: size - 2],
            ],
            axis=1,
        )
        assert places.tolist() == expected["offsets"][row]
    hard = expected.get("hard", [])
    texts = hard_texts.HARD_TEXTS[: len(hard)]
    if hard:
        ids = ByteLevelGraphTokenizer(tokenizer).tokenize(tf.constant(texts))
        assert ids.to_list() == [each[1:-1] for each in hard]


@pytest.mark.parametrize("name", WITHOUT)
def test_what_has_no_form_is_told(name, tmp_path):
    tokenizer = load(name, tmp_path)
    assert find_obstacle(tokenizer).startswith(WITHOUT[name])
    assert make_graph_tokenizer(tokenizer) is None
    note = ids_only_note(tokenizer)
    assert note.startswith("This SavedModel takes token ids, not texts: its ")
    assert WITHOUT[name] in note and "\n" not in note


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x["model"].update(ignore_merges=True), "`ignore_merges` of"),
        (lambda x: x["model"].update(dropout=0.1), "`dropout` of its model"),
        (
            lambda x: (
                x["model"].update(
                    merges=[["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]]
                )
                or x["model"]["vocab"].update(ab=900, bc=901, abc=902)
            ),
            "two merges with one result",
        ),
        (
            lambda x: x["added_tokens"].append(
                {**x["added_tokens"][0], "id": 3, "content": "k>x"}
            ),
            "added tokens that overlap, ",
        ),
    ],
)
def test_other_settings_without_a_form(change, said, tokenizer):
    described = json.loads(tokenizer.to_str())
    assert find_obstacle(tokenizer) is None
    described["added_tokens"].append(
        {**described["added_tokens"][0], "id": 4, "content": "<mask>"}
    )
    change(described)
    other = tokenizers.Tokenizer.from_str(json.dumps(described))
    assert find_obstacle(other).startswith(said)


def test_hard_texts(made, tokenizer):
    check_same(made, tokenizer, [*hard_texts.HARD_TEXTS, *HARD_TEXTS])


@pytest.mark.parametrize("space", [False, True], ids=["", "prefix"])
def test_random_texts(space, tmp_path):
    tokenizer = byte_level_tokenizer(tmp_path, add_prefix_space=space)
    made = ByteLevelGraphTokenizer(tokenizer)
    generator = random.Random(3)
    parts = [*"abest rlvmd''' \n\t  12!.", "<mask>", "<s>", "</s>", "\u2019"]
    parts += ["\u00e9", "'re", "'ll", "\u00a0", "\u0660", "\u00bd"]

    def part():
        if generator.random() < 0.9:
            return generator.choice(parts)
        code = generator.randrange(0x110000)
        return " " if code in SURROGATES else chr(code)

    texts = [
        "".join(part() for _ in range(generator.randrange(40)))
        for _ in range(2000)
    ]
    check_same(made, tokenizer, texts)


def test_every_17th_character_beside_others(made, tokenizer):
    codes = [c for c in range(0, 0x110000, 17) if c not in SURROGATES]
    texts = [f"x{chr(c)}x1{chr(c)}1 {chr(c)}!{chr(c)}" for c in codes]
    check_same(made, tokenizer, texts)


@pytest.mark.slow
def test_every_character_beside_others(made, tokenizer):
    codes = [c for c in range(0x110000) if c not in SURROGATES]
    for begin in range(0, len(codes), 2**16):
        some = codes[begin : begin + 2**16]
        texts = [f"x{chr(c)}x1{chr(c)}1 {chr(c)}!{chr(c)}" for c in some]
        check_same(made, tokenizer, texts)


def test_long_words_and_no_text(made, tokenizer):
    generator = random.Random(1)
    long = "".join(generator.choices("aeinrst", k=700))
    check_same(made, tokenizer, [long, "", "a", " ", f"{long[:50]} {long}"])
    found = made.encode(tf.constant([], tf.string), max_length=8)
    assert found["token_ids"].shape[0] == 0


def test_pairs_are_cut_and_framed_as_in_training(made, tokenizer):
    texts = [x for x in hard_texts.HARD_TEXTS if x.strip()][:12]
    first, second = texts[:-1], texts[1:]
    found = made.encode_pairs(
        tf.constant(first), tf.constant(second), max_length=20
    )
    examples = data.encode_examples(tokenizer, first, second, max_length=20)
    for row, (begin, end) in enumerate(
        zip(examples.starts[:-1], examples.starts[1:], strict=True)
    ):
        size = end - begin
        ids = found["token_ids"][row].numpy()
        np.testing.assert_array_equal(ids[:size], examples.token_ids[begin:end])
        assert not found["padding_mask"][row, size:].numpy().any()
    # One segment for both.
    assert not found["segment_ids"].numpy().any()
