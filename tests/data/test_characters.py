import subprocess
import sys

import numpy as np
import pytest

from keras_distil.data import character_ids, character_inputs, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, sat.", ["The", "cat", ",", "sat", "."]),
        ("  two\tspaces\nhere ", ["two", "spaces", "here"]),
        ("na\xefve caf\xe9s", ["na\xefve", "caf\xe9s"]),
        ("snake_case 3.14", ["snake_case", "3", ".", "14"]),
        ("wait...", ["wait", ".", ".", "."]),
        ("<S>", ["<", "S", ">"]),
        ("\u4f60\u597d\uff0c", ["\u4f60\u597d", "\uff0c"]),
        ("", []),
        (" \n", []),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


def test_ids_by_hand():
    ids = character_ids(["cat", "\xe9", ""])
    assert ids.dtype == np.int32
    assert ids.shape == (3, 50)
    # Bytes c, a, t are 99, 97, 116; e with acute is 195, 169. Begin and end
    # of a word are 258 and 259, padding is 260; all plus 1.
    assert ids[0].tolist() == [259, 100, 98, 117, 260] + 45 * [261]
    assert ids[1].tolist() == [259, 196, 170, 260] + 46 * [261]
    assert ids[2].tolist() == [259, 260] + 48 * [261]


def test_marks_of_a_sentence():
    ids = character_ids(["<S>", "</S>", "<s>"])
    assert ids[0].tolist() == [259, 257, 260] + 47 * [261]
    assert ids[1].tolist() == [259, 258, 260] + 47 * [261]
    assert ids[2, :5].tolist() == [259, 61, 116, 63, 260]


def test_long_words_are_cut_at_48_bytes():
    exact, longer, inside = character_ids(
        ["a" * 48, "a" * 49, "a" * 47 + "\xe9"]
    )
    assert exact.tolist() == [259] + 48 * [98] + [260]
    np.testing.assert_array_equal(exact, longer)
    # 195 is the first byte of the last character alone.
    assert inside.tolist() == [259] + 47 * [98] + [196, 260]


def test_what_utf8_can_not_encode_is_left_out():
    ids = character_ids(["a\ud800b", "ab"])
    np.testing.assert_array_equal(ids[0], ids[1])


def test_byte_of_every_value_has_an_id():
    # The null byte and the highest bytes differ from the marks.
    ids = character_ids(["\x00", "\U0010ffff"])
    assert ids[0, :3].tolist() == [259, 1, 260]
    assert ids[1, :6].tolist() == [259, 245, 144, 192, 192, 260]


def test_no_words():
    assert character_ids([]).shape == (0, 50)


@pytest.mark.parametrize("words", ["cat", ["cat", 3], [b"cat"]])
def test_words_must_be_strings(words):
    message = "^`words` must be a sequence of strings; `split_words` makes"
    with pytest.raises(TypeError, match=message) as raised:
        character_ids(words)
    assert str(raised.value).endswith(f"Received: words={words!r}.")


def test_batch_is_padded_with_0():
    inputs = character_inputs([["a", "b", "c"], ["d"], []])
    ids, padding_mask = inputs["character_ids"], inputs["padding_mask"]
    assert ids.shape == (3, 3, 50)
    assert ids.dtype == padding_mask.dtype == np.int32
    np.testing.assert_array_equal(ids[0], character_ids(["a", "b", "c"]))
    np.testing.assert_array_equal(ids[1, :1], character_ids(["d"]))
    assert not ids[1, 1:].any()
    assert not ids[2].any()
    assert padding_mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_batch_of_a_fixed_width():
    sentences = [["a", "b", "c"], ["d"]]
    wide = character_inputs(sentences, num_words=5)
    assert wide["character_ids"].shape == (2, 5, 50)
    assert wide["padding_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    narrow = character_inputs(sentences, num_words=2)
    assert narrow["padding_mask"].tolist() == [[1, 1], [1, 0]]
    np.testing.assert_array_equal(
        narrow["character_ids"][0], character_ids(["a", "b"])
    )


def test_sentences_without_words_have_one_position():
    inputs = character_inputs([[], []])
    assert inputs["character_ids"].shape == (2, 1, 50)
    assert inputs["padding_mask"].tolist() == [[0], [0]]


def test_width_must_be_positive():
    message = "^`num_words` must be at least 1. Received: num_words=0.$"
    with pytest.raises(ValueError, match=message):
        character_inputs([["a"]], num_words=0)


def test_it_imports_no_tensorflow():
    code = (
        "import sys; from keras_distil.data import character_inputs;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
