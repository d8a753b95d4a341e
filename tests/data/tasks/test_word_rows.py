"""Words with tags: files of CoNLL, tables, and word pieces."""

import gzip
import json

import numpy as np
import pytest
import tokenizers
from toy import byte_level_tokenizer

from keras_distil.data.tasks import word_rows
from keras_distil.data.tasks.batches import IGNORED
from keras_distil.data.tasks.tables import open_table
from keras_distil.data.tasks.word_rows import read_word_rows, scan_word_files
from keras_distil.data.tasks.words import encode_words

CONLL = """-DOCSTART- -X- O O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

German JJ B-NP B-MISC
call NN I-NP O
"""
SENTENCES = [
    (("EU", "rejects"), ("B-ORG", "O")),
    (("German", "call"), ("B-MISC", "O")),
]


def as_pairs(rows):
    return [(each.words, each.tags) for each in rows.sentences]


@pytest.mark.parametrize("name", ["a.conll", "a.txt.gz"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_conll(tmp_path, name, separator):
    path = tmp_path / name
    text = CONLL.replace(" ", separator).encode()
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    rows = read_word_rows([path], {})
    assert as_pairs(rows) == SENTENCES
    assert rows.tags() == ("B-MISC", "B-ORG", "O")
    assert rows.sentences[1].where == f"'{path}', line 6"
    chosen = rows.chosen(np.array([False, True]))
    assert as_pairs(chosen) == SENTENCES[1:] and len(chosen.digests) == 1


def test_tables(tmp_path):
    objects = [
        {"tokens": list(words), "ner_tags": list(tags)}
        for words, tags in [*SENTENCES, ((), ())]
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, objects)))
    rows = read_word_rows([open_table(path)], {})
    assert as_pairs(rows) == SENTENCES
    assert rows.remarks() == [
        f"1 of the 3 sentences of '{path}' have no words and is left out."
    ]
    path = tmp_path / "a.csv"
    path.write_text(
        'w,t\nEU rejects,B-ORG O\n"[""German"", ""call""]",B-MISC O\n'
    )
    rows = read_word_rows([open_table(path)], {"tokens": "w", "tags": "t"})
    assert as_pairs(rows) == SENTENCES


BAD = {
    "another number of columns": (
        "EU B-ORG\nrejects O O\n",
        "line 2: a word must have 2 columns, as the first line has: the word "
        "first and its tag last. Received: 'rejects O O'",
    ),
    "one column": ("EU\n", "line 1: a word must have two columns or more"),
    "nothing": ("\n\n", "there must be a sentence or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    text, said = BAD[name]
    (tmp_path / "a.conll").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_word_rows([tmp_path / "a.conll"], {})


def test_bad_rows_of_tables(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"tokens": ["a", "b"], "tags": ["O"]}')
    said = "line 1: each word must have one tag. Received: 2 words and 1 tags"
    with pytest.raises(ValueError, match=said):
        read_word_rows([open_table(path)], {})
    path.write_text('{"tokens": 3, "tags": ["O"]}')
    with pytest.raises(ValueError, match="the words must be a list, or texts"):
        read_word_rows([open_table(path)], {})
    (tmp_path / "a.conll").write_text("a O\nb O\n")
    with pytest.raises(
        ValueError, match=r"two tags or more. Received: \['O'\]"
    ):
        read_word_rows([tmp_path / "a.conll"], {}).tags()


def test_files_are_read_again_when_they_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(word_rows, "_BATCH", 1)
    first, second = tmp_path / "a.conll", tmp_path / "b.conll"
    first.write_text("EU B-ORG\nrejects O\n\nGerman B-MISC\ncall O\n")
    second.write_text("a O\n")
    sources = [first, second]
    files = scan_word_files(sources, {})
    rows = read_word_rows(sources, {})
    assert files.name == rows.name and files.tags == rows.tags()
    assert len(files) == 3 and list(files.counts) == [2, 2, 1]
    np.testing.assert_array_equal(files.digests, rows.digests)
    for _ in range(2):
        assert list(files.sentences()) == rows.sentences
    chosen = np.array([False, True, True])
    assert files.chosen(chosen).sentences == rows.sentences[1:]
    with pytest.raises(
        ValueError, match=r"a.conll', line 4: the tag must be one of .*'B-MISC'"
    ):
        scan_word_files(sources, {}, labels=["O", "B-ORG"])
    with pytest.raises(
        ValueError, match=r"two tags or more. Received: \['O'\]"
    ):
        scan_word_files([second], {})
    table = tmp_path / "c.jsonl"
    table.write_text('{"tokens": [], "tags": []}\n{"tokens": "a", "tags": "b"}')
    files = scan_word_files([first, open_table(table)], {})
    assert len(files) == 3 and files.remarks() == [
        f"1 of the 4 sentences of '{first}', '{table}' have no words and is "
        "left out."
    ]


# === Word pieces ===


@pytest.fixture(scope="module")
def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcd", "##x", "."]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {word: i for i, word in enumerate(words)}, unk_token="[UNK]"
        )
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(words[:5])
    return made


# A word of three pieces, one of two words' pieces, one without any.
WORDS = [["axx", "b"], ["C.", "\u200b", "d"]]
LABELS = [[3, 0], [1, 2, 0]]


def test_words_are_labelled_at_their_first_piece(tokenizer):
    found = encode_words(tokenizer, WORDS, LABELS, max_length=12)
    examples = found.examples
    assert list(examples.token_ids) == [2, 5, 9, 9, 6, 3, 2, 7, 10, 8, 3]
    no = IGNORED
    assert list(examples.labels) == [no, 3, no, no, 0, no, no, 1, no, 0, no]
    assert examples.has_token_labels
    assert list(found.counts) == [2, 3]
    # The fourth word has no piece.
    assert list(found.words) == [0, 1, 2, 4]
    assert list(found.windows) == [0, 0, 1, 1]
    assert list(found.positions) == [1, 4, 1, 3]
    assert (found.without_pieces, found.unread, examples.cut) == (1, 0, 0)


def test_long_sentences_are_cut_or_read_in_windows(tokenizer):
    sentence = [list("abcdabcdab")]
    labels = [list(range(10))]
    cut = encode_words(tokenizer, sentence, labels, max_length=8)
    assert list(cut.examples.labels[1:-1]) == list(range(6))
    assert (cut.unread, cut.examples.cut) == (4, 1)
    found = encode_words(tokenizer, sentence, labels, max_length=8, stride=4)
    windows = np.split(found.examples.labels, found.examples.starts[1:-1])
    assert [list(each[1:-1]) for each in windows] == [
        [0, 1, 2, 3, 4, 5],
        [2, 3, 4, 5, 6, 7],
        [4, 5, 6, 7, 8, 9],
    ]
    assert list(found.examples.owners) == [0, 0, 0]
    assert found.unread == 0 and list(found.words) == list(range(10))
    # Each from the window where it is farthest from the ends; from the first
    # of two.
    assert list(found.windows) == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert list(found.positions) == [1, 2, 3, 4, 3, 4, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="`stride` must be from 1 to 5, less"):
        encode_words(tokenizer, sentence, max_length=8, stride=6)


def test_byte_level_words_begin_with_their_space(tmp_path):
    tokenizer = byte_level_tokenizer(tmp_path)
    words = [["Hello", "wörld", "!", "a"]]
    found = encode_words(tokenizer, words, [[0, 1, 2, 3]], max_length=40)
    text = " ".join(words[0])
    encoding = tokenizer.encode(text, add_special_tokens=False)
    ids = found.examples.token_ids[1:-1]
    assert list(ids) == encoding.ids
    begins = np.cumsum([0, 6, 6, 2])
    for word, position in zip(found.words, found.positions, strict=True):
        start, end = encoding.offsets[position - 1]
        assert begins[word] in (start, start + 1) and end > begins[word]
    assert list(found.words) == [0, 1, 2, 3]
