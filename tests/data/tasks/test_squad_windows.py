import random
import string
import unicodedata

import numpy as np
import pytest
import tokenizers
from toy import byte_level_tokenizer

from keras_distil.data import (
    SquadAnswer,
    SquadExample,
    load_tokenizer,
    make_squad_windows,
)

WORDS = "who sings ? mary in oslo the river golden sea cafe 1978"
LETTERS = string.ascii_lowercase + string.digits + ".,-'\"()[]"
JAMO = [chr(i) for i in [*range(0x1100, 0x1113), *range(0x1161, 0x1176)]]
JAMO += [chr(i) for i in range(0x11A8, 0x11C3)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Spells ASCII and Korean; some words are one token."""
    folder = tmp_path_factory.mktemp("tokenizer")
    characters = [*LETTERS, *JAMO, "\u6771", "\u4eac", "\xdf"]
    characters = [c for c in characters if c not in "?"]
    tokens = [*SPECIAL, *WORDS.split(), *characters]
    tokens += [f"##{c}" for c in characters if f"##{c}" not in tokens]
    assert len(set(tokens)) == len(tokens)
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return load_tokenizer(folder)


def example(context, *answers, question="Who sings?", **others):
    spans = tuple(
        SquadAnswer(answer, context.index(answer))
        if isinstance(answer, str)
        else SquadAnswer(context[slice(*answer)], answer[0])
        for answer in answers
    )
    made = {"id": "1", "title": "", "is_impossible": False, **others}
    return SquadExample(
        question=question, context=context, answers=spans, **made
    )


def windows_of(tokenizer, *examples, **sizes):
    sizes = {"max_length": 16, "stride": 4, "max_question": 5, **sizes}
    return make_squad_windows(examples, tokenizer, **sizes)


def tokens(tokenizer, ids):
    return " ".join(map(tokenizer.id_to_token, ids))


def test_one_window(tokenizer):
    made = windows_of(tokenizer, example("Mary sings in Oslo.", "Oslo"))
    assert len(made) == 1
    assert (
        tokens(tokenizer, made.token_ids[0])
        == "[CLS] who sings ? [SEP] mary sings in oslo . [SEP]"
    )
    assert made.segment_ids[0].tolist() == [0] * 5 + [1] * 6
    out = [[-1, -1]]
    assert (
        made.offsets[0].tolist()
        == out * 5
        + [
            [0, 4],
            [5, 10],
            [11, 13],
            [14, 18],
            [18, 19],
        ]
        + out
    )
    assert (made.start.tolist(), made.end.tolist()) == ([8], [8])
    assert (made.example.tolist(), made.first_token.tolist()) == ([0], [0])
    arrays = (made.start, made.end, made.example, made.first_token)
    ragged = (*made.token_ids, *made.segment_ids, *made.offsets)
    assert {a.dtype for a in (*arrays, *ragged)} == {np.dtype(np.int32)}


def test_windows_overlap(tokenizer):
    # 20 context tokens in rooms of 10 that share 4: 0-9, 6-15, 12-19.
    context = " ".join("abcdefghijklmnopqrst")
    made = windows_of(tokenizer, example(context, (26, 31)))
    text = [tokens(tokenizer, ids) for ids in made.token_ids]
    assert text == [
        "[CLS] who sings ? [SEP] a b c d e f g h i j [SEP]",
        "[CLS] who sings ? [SEP] g h i j k l m n o p [SEP]",
        "[CLS] who sings ? [SEP] m n o p q r s t [SEP]",
    ]
    assert made.first_token.tolist() == [0, 6, 12]
    # n o p is token 13 to 15: wholly in the second and the third window.
    assert made.start.tolist() == [0, 12, 6]
    assert made.end.tolist() == [0, 14, 8]


@pytest.mark.parametrize(
    ("count", "starts"),
    [(1, [0]), (10, [0]), (11, [0, 6]), (16, [0, 6]), (17, [0, 6, 12])],
)
def test_number_of_windows(tokenizer, count, starts):
    made = windows_of(tokenizer, example(" ".join("a" * count)))
    assert made.first_token.tolist() == starts
    assert len(made.token_ids[-1]) == 6 + count - starts[-1]


def test_no_overlap(tokenizer):
    made = windows_of(tokenizer, example("a b c d e f"), max_length=9, stride=0)
    assert made.first_token.tolist() == [0, 3]


def test_answer_across_windows_is_in_none(tokenizer):
    context = " ".join("abcdefghijklmnopqrst")
    made = windows_of(tokenizer, example(context, (8, 25)))  # e to m
    assert not made.start.any() and not made.end.any()


def test_answers_at_the_edges_of_windows(tokenizer):
    context = " ".join("abcdefghijklmnopqrst")
    held = [(0, 9), (6, 15), (12, 19)]  # first and last token of the windows
    for first in range(20):
        for last in range(first, 20):
            one = example(context, (2 * first, 2 * last + 1))
            made = windows_of(tokenizer, one)
            found = zip(made.start, made.end, strict=True)
            for (low, high), label in zip(held, found, strict=True):
                inside = low <= first and last <= high
                expected = (first - low + 5, last - low + 5)
                assert label == (expected if inside else (0, 0))


def test_first_answer_in_a_window_is_taken(tokenizer):
    context = " ".join("abcdefghijklmnopqrst")
    two = example(context, "t", "b", "c", "s")
    made = windows_of(tokenizer, two)
    assert made.start.tolist() == [6, 0, 12]


def test_long_question_is_cut(tokenizer):
    one = example("Mary", "Mary", question="Who sings in the sea in Oslo?")
    made = windows_of(tokenizer, one)
    text = "[CLS] who sings in the sea [SEP] mary [SEP]"
    assert tokens(tokenizer, made.token_ids[0]) == text
    assert made.start.tolist() == [7]


@pytest.mark.parametrize("context", ["", " \t", "\u200b"])
def test_context_without_a_token(tokenizer, context):
    made = windows_of(tokenizer, example(context, is_impossible=True))
    text = "[CLS] who sings ? [SEP] [SEP]"
    assert tokens(tokenizer, made.token_ids[0]) == text
    assert (made.offsets[0] == -1).all()
    assert made.start.tolist() == [0]


def test_question_without_a_token(tokenizer):
    made = windows_of(tokenizer, example("Mary", "Mary", question=" "))
    text = "[CLS] [SEP] mary [SEP]"
    assert tokens(tokenizer, made.token_ids[0]) == text
    assert (made.start.tolist(), made.end.tolist()) == ([2], [2])


def test_special_tokens_in_text_get_their_ids(tokenizer):
    one = example("[SEP] a", "a", question="[CLS]?")
    made = windows_of(tokenizer, one, max_length=24)
    text = "[CLS] [CLS] ? [SEP] [SEP] a [SEP]"
    assert tokens(tokenizer, made.token_ids[0]) == text
    assert made.segment_ids[0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert made.start.tolist() == [5]


def test_questions_share_a_context(tokenizer):
    long = " ".join("abcdefghijkl")
    examples = [
        example(long, "b"),
        example("Mary", "Mary"),
        example(long, "l", question="?"),
    ]
    made = windows_of(tokenizer, *examples)
    assert made.example.tolist() == [0, 0, 1, 2]
    assert made.start.tolist() == [6, 0, 5, 14]


def test_no_examples(tokenizer):
    made = windows_of(tokenizer)
    assert len(made) == 0 and made.start.shape == (0,)


@pytest.mark.parametrize(
    ("context", "answer", "found"),
    [
        # Begins, or ends, within a token: the token that holds it.
        ("the golden sea", (4, 8), "golden"),
        ("the sea, 1978.", (11, 12), "1978"),
        ("cafes", (2, 3), "cafe"),
        ("cafes", (2, 5), "cafes"),
        ("cafes", (3, 5), "cafes"),
        ("cafes", (4, 5), "s"),
        ("the sea.", (4, 7), "sea"),
        ("the sea.", (4, 8), "sea."),
        # White space at the answer's edges has no token.
        ("the sea river", (3, 8), "sea"),
        ("the  sea", (3, 5), None),
        ("sea ", (3, 4), None),
        # One character of accents, or two.
        ("in Caf\xe9s, Oslo", (3, 7), "Caf\xe9"),
        ("in Caf\xe9s, Oslo", (3, 8), "Caf\xe9s"),
        ("in Caf\xe9 Oslo", (3, 7), "Caf\xe9"),
        ("in Cafe\u0301 Oslo", (3, 8), "Cafe\u0301"),
        ("in Cafe\u0301", (3, 8), "Cafe\u0301"),
        ("in Cafe\u0301\u0323s.", (3, 10), "Cafe\u0301\u0323s"),
        ("\u0301a sea", (3, 6), "sea"),
        # The dotted capital I becomes two characters, one of them a mark.
        ("the \u0130n sea", (4, 6), "\u0130n"),
        # Chinese, Korean (several tokens per character), the sharp s.
        ("\u6771\u4eac\u6771", (1, 2), "\u4eac"),
        ("\ud55c\uad6d sea", (0, 1), "\ud55c"),
        ("\ud55c\uad6d sea", (1, 2), "\uad6d"),
        ("\ud55c\uad6d sea", (3, 6), "sea"),
        ("stra\xdfe sea", (0, 6), "stra\xdfe"),
        # Outside of the basic plane; joined; with a selector.
        ("\U0001f600 sea", (2, 5), "sea"),
        ("\U0001f600\U0001f600 sea", (0, 1), "\U0001f600\U0001f600"),
        ("\U0001f469\u200d\U0001f467 s", (4, 5), "s"),
        ("\u2764\ufe0f s", (0, 2), "\u2764\ufe0f"),
        # Dropped characters.
        ("se\u200ba x", (0, 4), "se\u200ba"),
        ("\ufeffsea\x00 x", (6, 7), "x"),
        # Longer than WordPiece's limit.
        ("a " + "b" * 120 + " c", (50, 60), "b" * 120),
    ],
)
def test_characters_of_an_answer(tokenizer, context, answer, found):
    made = windows_of(tokenizer, example(context, answer), max_length=64)
    (start,), (end,) = made.start, made.end
    if found is None:
        assert start == end == 0
        return
    first, last = made.offsets[0][start, 0], made.offsets[0][end, 1]
    assert context[first:last] == found


POOL = (
    "aacesab \t\n.,-'[]0123 \xe9\xf1\xdf\u0130\u0301\u0323\u2013\xa0"
    "\ud55c\uad6d\u6771\u4eac\U0001f600\u200d\ufe0f\u200b\x00\ufffd\ufb01"
)


def test_any_answer_is_in_its_tokens(tokenizer):
    chance = random.Random(0)
    found = 0
    for _ in range(1500):
        context = "".join(chance.choices(POOL, k=chance.randint(1, 30)))
        start = chance.randrange(len(context))
        end = chance.randint(start + 1, len(context))
        one = example(context, (start, end))
        made = windows_of(tokenizer, one, max_length=100)
        offsets = made.offsets[0][made.offsets[0][:, 0] >= 0]
        # In order, and none empty.
        assert (np.diff(offsets, axis=0) >= 0).all()
        assert (offsets[:, 0] < offsets[:, 1]).all()
        covered = np.zeros(len(context), bool)
        for first, last in offsets:
            covered[first:last] = True
        wanted = [i for i in range(start, end) if covered[i]]
        if not wanted:
            assert made.start[0] == 0
            continue
        found += 1
        first = made.offsets[0][made.start[0], 0]
        last = made.offsets[0][made.end[0], 1]
        assert first <= wanted[0] and wanted[-1] < last
        # Not one token more than needed.
        assert made.offsets[0][made.start[0], 1] > start
        assert made.offsets[0][made.end[0], 0] < end
        before = offsets[: made.start[0] - 5, 1]
        after = offsets[made.end[0] - 4 :, 0]
        assert (before <= start).all() and (after >= end).all()
        # What no token holds is not seen, or white space.
        for i in np.flatnonzero(~covered):
            kind = unicodedata.category(context[i])
            assert (
                kind[0] in "ZC"
                or context[i] in "\ufffd"
                or (kind == "Mn" and not covered[:i].any())
                or (kind == "Mn" and not covered[i - 1])
            )
    assert found > 1000


def test_windows_give_the_context_back(tokenizer):
    chance = random.Random(1)
    for _ in range(100):
        context = " ".join(chance.choices("abcde", k=chance.randint(1, 60)))
        stride = chance.randrange(8)
        made = windows_of(tokenizer, example(context), stride=stride)
        read = {}
        for ids, first, offsets in zip(
            made.token_ids, made.first_token, made.offsets, strict=True
        ):
            inside = offsets[:, 0] >= 0
            for i, token in enumerate(ids[inside]):
                assert read.setdefault(first + i, token) == token
        whole = tokens(tokenizer, [read[i] for i in range(len(read))])
        assert whole == context
        overlap = made.first_token[:-1] + 10 - made.first_token[1:]
        assert (overlap == stride).all()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"max_length": 8},
            "`max_length` must be at least 9: `max_question` and 3 special "
            "tokens, and 1 of the context. Received: max_length=8, "
            "max_question=5.",
        ),
        (
            {"stride": 8},
            "`stride` must be from 0 to 7, less than the context tokens in a "
            "window. Received: stride=8, max_length=16, max_question=5.",
        ),
        ({"stride": -1}, "must be from 0 to 7, .* Received: stride=-1"),
        (
            {"max_question": 0},
            "`max_question` must be at least 1. Received: max_question=0.",
        ),
    ],
)
def test_wrong_sizes(tokenizer, sizes, message):
    with pytest.raises(ValueError, match=message):
        windows_of(tokenizer, **sizes)


@pytest.mark.parametrize("method", ["enable_truncation", "enable_padding"])
def test_tokenizer_that_truncates_or_pads(tokenizer, method):
    copy = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    getattr(copy, method)(**({"max_length": 4} if "trunc" in method else {}))
    message = "`tokenizer` must neither truncate nor pad. Received one that"
    with pytest.raises(ValueError, match=message):
        windows_of(copy, example("Mary"))


def test_tokenizer_is_left_as_it_was(tokenizer):
    windows_of(tokenizer, example("Mary"))
    assert tokenizer.encode_special_tokens is False


# === Two separators, and spaces that belong to tokens ===


@pytest.mark.parametrize("trim", [True, False])
def test_byte_level_windows_have_four_special_tokens(tmp_path, trim):
    tokenizer = byte_level_tokenizer(tmp_path, trim_offsets=trim)
    context = "The  student learns\tfrom the teacher, who is naïve."
    answer = "the teacher"
    length, question = 24, "who?"
    made = windows_of(
        tokenizer,
        example(context, answer, question=question),
        max_length=length,
        max_question=4,
    )
    whole = tokenizer.encode(context, add_special_tokens=False)
    asked = tokenizer.encode(question, add_special_tokens=False).ids
    room = length - 4 - len(asked)
    for ids, segments, first, offsets in zip(
        made.token_ids,
        made.segment_ids,
        made.first_token,
        made.offsets,
        strict=True,
    ):
        inside = whole.ids[first : first + room]
        assert ids.tolist() == [0, *asked, 2, 2, *inside, 2]
        assert len(ids) <= length
        assert not segments.any()
        before = len(asked) + 3
        assert (offsets[:before] == -1).all() and (offsets[-1] == -1).all()
        for token, (start, end) in zip(inside, offsets[before:-1], strict=True):
            # The text of a token, without the space that belongs to it.
            text = tokenizer.decode([token]).strip()
            if text and "\ufffd" not in text:
                assert context[start:end] == text
    found = [
        (first, start, end)
        for first, start, end in zip(
            made.first_token, made.start, made.end, strict=True
        )
        if start
    ]
    assert found
    for first, start, end in found:
        window = list(made.first_token).index(first)
        begin, stop = (
            made.offsets[window][start][0],
            made.offsets[window][end][1],
        )
        assert context[begin:stop] == answer


def test_four_special_tokens_are_counted_in_messages(tmp_path):
    tokenizer = byte_level_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="at least 10: .* and 4 special"):
        windows_of(tokenizer, example("a b"), max_length=9)
    with pytest.raises(ValueError, match="`stride` must be from 0 to 6, less"):
        windows_of(tokenizer, example("a b"), max_length=16, stride=7)
