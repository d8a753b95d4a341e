"""Records of named arrays, of one length and of several."""

import hashlib

import numpy as np
import pytest

from keras_distil.teachers.masked_lm import settings as masked_lm
from keras_distil.teachers.store.records import (
    Field,
    RecordLayout,
    shard_bytes,
)

EARLIER_RECORDS = [
    "a34c782ac450120b0ed9f3297a08e4930e6de6908feb22f6dc73a0415ff04bec",
    "e59d82526045cc1b69ae258ac2a713732005414bc0c7c0994e4218df5d5c56ff",
]
LAYOUT = RecordLayout(
    (
        Field("outputs", "float32", (3,)),
        Field("nothing", "float32", (2, 0)),
        Field("states", "float16", (2,), per_token=True),
    )
)


def arrays_of(lengths, longest):
    generator = np.random.default_rng(0)
    states = generator.normal(size=(len(lengths), longest, 2))
    states[np.arange(longest) >= np.array(lengths)[:, None]] = 0
    return {
        "outputs": generator.normal(size=(len(lengths), 3)).astype("float32"),
        "nothing": np.zeros((len(lengths), 2, 0), "float32"),
        "states": states.astype("float16"),
    }


def test_records_take_no_more_than_their_tokens():
    lengths = [4, 1, 3]
    arrays = arrays_of(lengths, 4)
    records = LAYOUT.encode(arrays, lengths)
    assert [len(x) for x in records] == [12 + 16, 12 + 4, 12 + 12]
    assert [LAYOUT.record_bytes(x) for x in lengths] == [28, 16, 24]
    assert LAYOUT.record_bytes(np.array(lengths)).tolist() == [28, 16, 24]
    # By hand: little-endian, one array after the other.
    by_hand = arrays["outputs"][2].astype("<f4").tobytes()
    by_hand += arrays["states"][2, :3].astype("<f2").tobytes()
    assert records[2] == by_hand
    for longest in (4, 6):
        found = LAYOUT.decode(records, lengths, longest)
        assert set(found) == set(arrays)
        for name, values in arrays.items():
            assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found["outputs"], arrays["outputs"])
        np.testing.assert_array_equal(found["states"][:, :4], arrays["states"])
        assert found["states"].shape == (3, longest, 2)
        assert not found["states"][:, 4:].any()


@pytest.mark.parametrize(
    ("name", "value", "bits"),
    [("states", 1e5, 16), ("outputs", np.nan, 32)],
)
def test_values_that_cannot_be_stored(name, value, bits):
    arrays = {k: np.array(v, "float32") for k, v in arrays_of([2], 2).items()}
    arrays[name][0, 0] = value
    with pytest.raises(
        ValueError,
        match=rf"outputs .{name}. are not finite, or too large for {bits} bit",
    ):
        LAYOUT.encode(arrays, [2])


@pytest.mark.parametrize(
    ("records", "content", "blocks"),
    [(0, 0, 0), (1, 8, 2), (900, 900 * 8, 2), (1000, 1000 * 2, 3)],
)
def test_sizes_of_shards(records, content, blocks):
    assert shard_bytes(records, content) == blocks * 2**16


# === Caches from before there were several kinds ===


def test_records_for_masked_text_have_the_bytes_they_had():
    """The hashes are those of the version before the store had kinds."""
    generator = np.random.default_rng(7)
    layout = masked_lm.record_layout(
        slots=3,
        top_k=4,
        temperatures=2,
        vocabulary_size=64,
        hidden_dim=6,
        attention=(2, 3),
    )
    arrays = {
        "token_ids": generator.integers(0, 64, (2, 3, 4)),
        "logits": generator.normal(size=(2, 3, 4)),
        "tails": generator.normal(size=(2, 3, 2)),
        "states": generator.normal(size=(2, 5, 6)),
        "attention": generator.normal(size=(2, 5, 3, 2, 3)),
    }
    found = [
        hashlib.sha256(record).hexdigest()
        for record in layout.encode(arrays, [5, 5])
    ]
    assert found == EARLIER_RECORDS


@pytest.mark.parametrize(
    ("heads", "digest"),
    [
        (
            {},
            "ddacdd3cd21c48a0863a35baa0e04b324e8dc5099890a34e5f1542166a493dba",
        ),
        (
            {"attention_heads": 2},
            "8915b2e9b07645175b2dc7431845214c743725a422500b754cb7a80bca80d518",
        ),
    ],
)
def test_caches_for_masked_text_have_the_names_they_had(heads, digest):
    settings = {
        "teacher": {
            "weights": "91463a2d0e5e546168b2c7afd50797a7"
            "f95d40c5b689697b9c8e07e01d760c84",
            "precision": "float32",
            "vocabulary_size": 64,
            "hidden_dim": 16,
        },
        "corpus": "f" * 64,
        "masking": {
            "seed": 3,
            "rate": 0.15,
            "rare_token_exponent": 0.0,
            "special": {
                "pad_id": 0,
                "unknown_id": 1,
                "cls_id": 2,
                "sep_id": 3,
                "mask_id": 4,
            },
            "vocabulary_size": 64,
            "first_masks": "5f4c0428bc80e5b608dbed8592230355"
            "2443738feb34e577c416ecff05127c62",
        },
        "maskings": 2,
        "top_k": 8,
        "positions": "all",
        "temperatures": [2.0],
        "hidden_states": True,
        **heads,
    }
    read = masked_lm.CacheSettings.model_validate(settings)
    assert read.digest == digest
    assert read.model_dump() == settings
