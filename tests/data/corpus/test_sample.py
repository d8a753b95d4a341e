"""Texts drawn from more than fit into memory."""

import hashlib
import random

import pytest

from keras_distil.data.corpus.sample import Sample

TEXTS = [f"text {number}" for number in range(500)]


def drawn(texts, count, seed=0):
    sample = Sample(count, seed=seed)
    for text in texts:
        sample.add(text)
    return sample.texts()


def by_hash(text, seed=0):
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=b"%d" % seed)
    return int.from_bytes(digest.digest(), "little")


@pytest.mark.parametrize("count", [0, 1, 20, 500, 501])
def test_the_smallest_hashes_are_kept(count):
    again = TEXTS * 2
    random.Random(0).shuffle(again)
    assert drawn(again, count) == sorted(TEXTS, key=by_hash)[:count]


def test_a_seed_draws_others():
    assert (
        drawn(TEXTS, 20, 1) == sorted(TEXTS, key=lambda x: by_hash(x, 1))[:20]
    )
    assert len({*drawn(TEXTS, 20), *drawn(TEXTS, 20, 1)}) > 30


def test_what_is_wanted_would_be_kept():
    sample = Sample(20, seed=0)
    for number, text in enumerate(TEXTS):
        before = set(sample.texts())
        wanted = sample.wants(text)
        sample.add(text)
        assert wanted == (set(sample.texts()) != before)
        assert not sample.wants(text)
        assert len(sample) == min(number + 1, 20)
