"""Words that may be replaced, found by looking at the tokens one by one."""

import numpy as np
import pytest
from toy import byte_level_tokenizer

from keras_distil import data
from keras_distil.models.replaceable_words import WordFinder


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "like", "7"]
    words += ["##like", "##ly", "##7", "##s", "a", ".", "naïve", "-", "odd"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return data.load_tokenizer(folder)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return byte_level_tokenizer(tmp_path_factory.mktemp("byte_level"))


def words_of(tokenizer, texts, seconds=None):
    """The words of some texts, each as the list of its tokens."""
    examples = data.encode_examples(tokenizer, texts, seconds)
    found = WordFinder(tokenizer).find(examples)
    words = [[] for _ in texts]
    for first, size, example in zip(*found, strict=True):
        ids = examples.token_ids[first : first + size]
        words[example].append([tokenizer.id_to_token(int(i)) for i in ids])
    return words


def test_words_of_one_and_of_several_tokens(word_piece):
    assert words_of(
        word_piece, ["a unlikely like.", "naive-odds", "", "unlikes"]
    ) == [
        [["a"], ["un", "##like", "##ly"], ["like"]],
        [["odd", "##s"]],
        [],
        [["un", "##like", "##s"]],
    ]


def test_numbers_signs_and_what_is_unknown_are_kept(word_piece):
    # 7s and un7 have letters, but not letters alone; "zz" is unknown.
    assert words_of(word_piece, ["7 7s un7 . - zz [MASK] [SEP] a"]) == [[["a"]]]


def test_both_texts_of_a_pair_have_words(word_piece):
    assert words_of(word_piece, ["a", "7"], ["like", "un"]) == [
        [["a"], ["like"]],
        [["un"]],
    ]


def test_a_word_ends_where_its_example_ends(word_piece):
    examples = data.encode_examples(
        word_piece, ["a a a a a a unlikely", "unlikely"], max_length=9
    )
    found = WordFinder(word_piece).find(examples)
    assert found.sizes.tolist() == [1] * 6 + [1, 3]
    assert found.example.tolist() == [0] * 7 + [1]


def test_whole_words_are_tokens_without_a_continuation(word_piece):
    whole = WordFinder(word_piece).whole
    found = [word_piece.id_to_token(int(i)) for i in np.flatnonzero(whole)]
    assert found == ["un", "like", "a", "naïve", "odd"]


def test_words_of_a_byte_level_tokenizer(byte_level):
    text = "the students' way: naïve, x2 2x teacher's 12 <mask>teach"
    examples = data.encode_examples(byte_level, [text])
    found = WordFinder(byte_level).find(examples)
    words = [
        byte_level.decode(examples.token_ids[first : first + size].tolist())
        for first, size in zip(found.first, found.sizes, strict=True)
    ]
    # The first has no space before it; the last neither, after the mask.
    assert words == [" students", " way", " naïve", " teacher"]
    assert max(found.sizes) > 1


def test_whole_words_of_a_byte_level_tokenizer_have_a_space(byte_level):
    whole = np.flatnonzero(WordFinder(byte_level).whole)
    texts = [byte_level.decode([int(i)]) for i in whole]
    assert " is" in texts and len(texts) > 50
    assert all(x[0] == " " and x[1:].isalpha() for x in texts)


def test_special_tokens_of_letters_are_no_words(tmp_path):
    words = ["pad", "odd", "[CLS]", "[SEP]", "mask", "a", "##b"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"pad_token": "pad", "unk_token": "odd", "mask_token": "mask"}'
    )
    tokenizer = data.load_tokenizer(tmp_path)
    assert words_of(tokenizer, ["ab mask zz a"]) == [[["a", "##b"], ["a"]]]
