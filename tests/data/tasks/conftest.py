"""Fixtures of the tests of tasks' data."""

import numpy as np
import pytest

from keras_distil.data.tasks.batches import EncodedExamples


@pytest.fixture(scope="module")
def examples():
    """101 examples, the i-th of 2 + i % 23 tokens, all of them i."""
    lengths = [2 + i % 23 for i in range(101)]
    return EncodedExamples(
        token_ids=np.repeat(np.arange(101), lengths).astype("int32"),
        starts=np.cumsum([0, *lengths]),
        first_lengths=np.array(
            [1 + length // 2 for length in lengths], "int32"
        ),
        labels=np.arange(101, dtype="int32"),
        pad_id=0,
        max_length=128,
    )
