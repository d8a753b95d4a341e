import json
import random

import pytest
import tensorflow as tf
import tokenizers

from keras_distil.export.graph_tokenizer import GraphTokenizer

SURROGATES = range(0xD800, 0xE000)


@pytest.fixture(scope="module")
def graph_tokenizer(golden_tokenizer):
    return GraphTokenizer(golden_tokenizer)


@pytest.mark.slow
@pytest.mark.essential
def test_hard_texts(graph_tokenizer, golden_ids):
    found = graph_tokenizer.encode(
        tf.constant(golden_ids["texts"]), max_length=10_000
    )
    lengths = found["padding_mask"].numpy().sum(axis=1)
    for text, ids, length, expected in zip(
        golden_ids["texts"],
        found["token_ids"].numpy().tolist(),
        lengths,
        golden_ids["ids"],
        strict=True,
    ):
        assert ids[:length] == expected, text
        assert not any(ids[length:])


def test_pairs_are_cut_as_by_hugging_face(graph_tokenizer, golden_ids):
    texts = golden_ids["texts"]
    found = graph_tokenizer.encode_pairs(
        tf.constant(texts[:-1]), tf.constant(texts[1:]), max_length=20
    )
    lengths = found["padding_mask"].numpy().sum(axis=1)
    ids = found["token_ids"].numpy().tolist()
    assert [
        row[:length] for row, length in zip(ids, lengths, strict=True)
    ] == golden_ids["pairs_cut_to_20"]


@pytest.mark.slow
def test_segments_of_a_pair(tokenizer):
    made = GraphTokenizer(tokenizer)
    found = made.encode_pairs(
        tf.constant(["a b", "a"]), tf.constant(["c", "c d e"]), max_length=9
    )
    assert found["segment_ids"].numpy().tolist() == [
        [0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 1, 1],
    ]


def test_long_texts_are_cut_before_the_last_token(tokenizer):
    made = GraphTokenizer(tokenizer)
    found = made.encode(tf.constant(["a b c d e f", "a"]), max_length=4)
    a, b = (tokenizer.token_to_id(word) for word in "ab")
    special = made.special
    assert found["token_ids"].numpy().tolist() == [
        [special.cls_id, a, b, special.sep_id],
        [special.cls_id, a, special.sep_id, special.pad_id],
    ]


def test_no_text_at_all(tokenizer):
    found = GraphTokenizer(tokenizer).encode(
        tf.constant([], tf.string), max_length=8
    )
    assert found["token_ids"].shape[0] == 0


def reference_words(tokenizer, text):
    normal = tokenizer.normalizer.normalize_str(text)
    pieces = tokenizer.pre_tokenizer.pre_tokenize_str(normal)
    return [piece for piece, _ in pieces]


def check_words(graph_tokenizer, tokenizer, texts):
    found = graph_tokenizer.words(tf.constant(texts)).to_list()
    for text, words in zip(texts, found, strict=True):
        expected = reference_words(tokenizer, text)
        assert [word.decode() for word in words] == expected, ascii(text)


def test_every_17th_character_between_letters(
    graph_tokenizer, golden_tokenizer
):
    codes = [c for c in range(0, 0x110000, 17) if c not in SURROGATES]
    texts = [f"A{chr(code)}b" for code in codes]
    check_words(graph_tokenizer, golden_tokenizer, texts)


@pytest.mark.slow
def test_every_character_between_letters(graph_tokenizer, golden_tokenizer):
    codes = [c for c in range(0x110000) if c not in SURROGATES]
    texts = [f"A{chr(code)}b" for code in codes]
    check_words(graph_tokenizer, golden_tokenizer, texts)


def test_random_texts(graph_tokenizer, golden_tokenizer):
    generator = random.Random(3)
    used = sorted(set("".join(golden_tokenizer.get_vocab())))

    def character():
        if generator.random() < 0.8:
            return generator.choice(used)
        code = generator.randrange(0x110000)
        return " " if code in SURROGATES else chr(code)

    texts = [
        "".join(character() for _ in range(generator.randrange(40)))
        for _ in range(3000)
    ]
    found = graph_tokenizer.tokenize(tf.constant(texts)).to_list()
    expected = golden_tokenizer.encode_batch(texts, add_special_tokens=False)
    assert found == [encoding.ids for encoding in expected]


def test_a_vocabulary_with_a_gap(tokenizer):
    described = json.loads(tokenizer.to_str())
    described["model"]["vocab"]["last"] = 2000
    gapped = tokenizers.Tokenizer.from_str(json.dumps(described))
    made = GraphTokenizer(gapped)
    found = made.tokenize(tf.constant(["a last cafe"]))
    assert found.to_list() == [
        gapped.encode("a last cafe", add_special_tokens=False).ids
    ]


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", None, "BERT's tokenizers have a form.*Received: None"),
        ("pre_tokenizer", {"type": "Whitespace"}, "Received: .*, Whitespace,"),
    ],
)
def test_other_kinds_are_refused(tokenizer, part, value, message):
    described = json.loads(tokenizer.to_str())
    described[part] = value
    other = tokenizers.Tokenizer.from_str(json.dumps(described))
    with pytest.raises(ValueError, match=message):
        GraphTokenizer(other)


def with_added(tokenizer, *added):
    other = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    other.add_tokens(list(added))
    return other


def check_same_ids(made, tokenizer, texts):
    found = made.tokenize(tf.constant(texts)).to_list()
    expected = tokenizer.encode_batch(texts, add_special_tokens=False)
    for text, ids, encoding in zip(texts, found, expected, strict=True):
        assert ids == encoding.ids, ascii(text)


Added = tokenizers.AddedToken
# Written, normalized, whole words, overlapping, of marks and of spaces.
ADDED = [
    Added("[E1]", special=True),
    Added("[E1][E", special=True),
    Added("[e2]", normalized=True),
    Added("CAFE", normalized=False),
    Added("Café", normalized=True),
    Added("caf\u00e9s", single_word=True),
    Added("b", single_word=True, normalized=False),
    Added("ab", normalized=False, lstrip=True, rstrip=True),
    Added("bc d", normalized=True),
    Added("cd-", normalized=True),
    Added("d-e", normalized=True, single_word=True),
    Added("\u65e5a", normalized=True),
    Added("_x_", normalized=True),
]


def test_added_tokens_of_every_kind(tokenizer):
    other = with_added(tokenizer, *ADDED)
    generator = random.Random(4)
    parts = [token.content for token in ADDED]
    parts += [p.upper() for p in parts] + [p.lower() for p in parts]
    parts += [*"abcde [](){}-_\u65e5\u00e9\u0301x\u2167\u24b6\u203f"]
    parts += [" ", " ", "[MASK]", "[mask]", "[E1", "E1]", "\u200d", "\n"]
    texts = [
        "".join(generator.choice(parts) for _ in range(generator.randrange(9)))
        for _ in range(4000)
    ]
    check_same_ids(GraphTokenizer(other), other, texts)


@pytest.mark.parametrize(
    ("content", "flags"),
    [(" x", {}), ("x ", {}), ("\u0301", {"normalized": True})],
)
def test_added_tokens_without_a_form_are_refused(tokenizer, content, flags):
    other = with_added(tokenizer, Added(content, **flags))
    with pytest.raises(ValueError, match="begin or end with white space"):
        GraphTokenizer(other)


def test_too_many_added_tokens_are_refused(tokenizer):
    other = with_added(tokenizer, *(f"word{i}" for i in range(1000)))
    with pytest.raises(ValueError, match="can hold 1,000 added tokens"):
        GraphTokenizer(other)


def test_the_words_of_a_removed_private_character(tokenizer):
    # Those that stand for added tokens in the graph.
    made = GraphTokenizer(tokenizer)
    texts = ["a\U0010f000b \U0010f001", "\U0010f3e8 a"]
    check_same_ids(made, tokenizer, texts)


def test_marks_whose_order_matters_are_refused(tokenizer):
    described = json.loads(tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    vocabulary["##\u302e"] = len(vocabulary)
    other = tokenizers.Tokenizer.from_str(json.dumps(described))
    with pytest.raises(ValueError, match=r"combining mark U\+302E, whose"):
        GraphTokenizer(other)


# === Places in the text ===


def check_same_places(made, tokenizer, texts):
    found = made.find_tokens(tf.constant(texts))
    starts, ends, begins = (
        each.to_list() for each in (found.starts, found.ends, found.begins)
    )
    expected = tokenizer.encode_batch(texts, add_special_tokens=False)
    for number, encoding in enumerate(expected):
        text = texts[number]
        places = list(zip(starts[number], ends[number], strict=True))
        assert places == encoding.offsets, ascii(text)
        words = encoding.word_ids
        first = [int(i == 0 or w != words[i - 1]) for i, w in enumerate(words)]
        assert begins[number] == first, ascii(text)


def test_places_of_hard_texts(graph_tokenizer, golden_tokenizer, golden_ids):
    texts = [
        *golden_ids["texts"],
        "l" * 101 + " e\u0301a\u00e9 \u00ad a\u00adb",
    ]
    check_same_places(graph_tokenizer, golden_tokenizer, texts)


def test_places_of_added_tokens(tokenizer):
    written = [token for token in ADDED if not token.lstrip]
    other = with_added(tokenizer, *written)
    generator = random.Random(5)
    parts = [token.content for token in written]
    parts += [*"abcde [](){}-_\u65e5\u00e9\u0301x", " ", "[MASK]", "\n"]
    texts = [
        "".join(generator.choice(parts) for _ in range(generator.randrange(9)))
        for _ in range(1000)
    ]
    check_same_places(GraphTokenizer(other), other, texts)


def test_places_are_padded_and_cut(tokenizer):
    made = GraphTokenizer(tokenizer)
    found = made.encode(tf.constant(["a b c d e f", "a"]), max_length=4)
    assert found["starts"].numpy().tolist() == [[-1, 0, 2, -1], [-1, 0, -1, -1]]
    found = made.encode_pairs(
        tf.constant(["a b"]), tf.constant([" c d"]), max_length=24
    )
    assert found["ends"].numpy().tolist() == [[-1, -1, -1, -1, 2, 4, -1]]
