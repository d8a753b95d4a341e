"""A toy teacher, its tokenizer and corpora to cache it for."""

import numpy as np
import pytest
from toy import make_teacher

from keras_distil import data, teachers
from keras_distil.data.corpus.text_files import CorpusReport

VOCABULARY, LENGTH, ROWS = 64, 12, 23


@pytest.fixture
def tokenizer(toy_teacher):
    return data.load_tokenizer(toy_teacher)


@pytest.fixture(scope="session")
def teacher():
    return make_teacher(vocabulary_size=VOCABULARY)


def rows_of(count, length, special, *, padded=False):
    generator = np.random.default_rng(length)
    rows = generator.integers(5, VOCABULARY, (count, length))
    rows[:, 0], rows[:, -1] = special.cls_id, special.sep_id
    if padded:
        for number, row in enumerate(rows):
            end = length - number % 4
            row[end - 1] = special.sep_id
            row[end:] = special.pad_id
    return rows.astype(np.uint16)


@pytest.fixture
def make_corpus(tokenizer, tmp_path):
    """Returns a function to a corpus in memory, packed or bucketed."""
    special = data.SpecialTokens.from_tokenizer(tokenizer)

    def make(*, bucketed=False, rows=ROWS, fingerprint="f" * 64):
        train = rows_of(rows, LENGTH, special)
        if bucketed:
            train = [
                rows_of(rows, length, special, padded=True)
                for length in (8, LENGTH)
            ]
        parts = train if bucketed else [train]
        counts = sum(
            np.bincount(part.ravel(), minlength=VOCABULARY) for part in parts
        )
        held_out = rows_of(5, LENGTH, special)
        return data.PreparedCorpus(
            train, held_out, counts, fingerprint, CorpusReport(), tmp_path
        )

    return make


@pytest.fixture
def cache(teacher, tokenizer, make_corpus, tmp_path):
    """Returns `cache_teacher` with toy arguments, which may be replaced."""

    def cache_(corpus=None, **replaced):
        arguments = {
            "top_k": 8,
            "maskings": 2,
            "batch_size": 4,
            "seed": 3,
            "say": None,
            **replaced,
        }
        if "output" not in replaced:
            arguments.setdefault("cache_dir", tmp_path / "caches")
        return teachers.cache_teacher(
            arguments.pop("teacher", teacher),
            corpus or make_corpus(),
            arguments.pop("tokenizer", tokenizer),
            **arguments,
        )

    return cache_
