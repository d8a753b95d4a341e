import numpy as np
import pytest

from keras_distil.data.corpus.pack import pack, pack_stream, packed_count


def naive(paragraphs, length, special):
    """Follows the definition, one token at a time."""
    stream = []
    for paragraph in paragraphs:
        if stream and len(paragraph):
            stream.append(special.sep_id)
        stream.extend(paragraph)
    rows = []
    while stream:
        body, stream = stream[: length - 2], stream[length - 2 :]
        row = [special.cls_id, *body, special.sep_id]
        rows.append(row + [special.pad_id] * (length - len(row)))
    return rows


@pytest.mark.parametrize("length", [3, 4, 7, 16, 200])
@pytest.mark.parametrize("seed", range(5))
def test_packs_like_the_definition(special, length, seed):
    random = np.random.default_rng(seed)
    sizes = random.integers(0, 12, size=random.integers(1, 12))
    paragraphs = [
        random.integers(20, 60_000, size).astype(np.uint16) for size in sizes
    ]
    packed = pack(iter(paragraphs), length, special)
    assert packed.dtype == np.int32
    assert packed.tolist() == naive(
        [p.tolist() for p in paragraphs], length, special
    )


def test_literal(special):
    packed = pack([np.array([2, 3]), np.array([]), [4]], 5, special)
    assert packed.tolist() == [[7, 2, 3, 12, 12], [7, 4, 12, 1, 1]]


def test_full_last_sequence_has_no_padding(special):
    packed = pack([[2, 3, 4]], 5, special)
    assert packed.tolist() == [[7, 2, 3, 4, 12]]


@pytest.mark.parametrize("paragraphs", [[], [np.array([])]])
def test_no_tokens_give_no_sequence(special, paragraphs):
    assert pack(paragraphs, 8, special).shape == (0, 8)


def test_long_streams_are_packed_in_blocks(special):
    # Blocks hold 2**22 tokens; this stream takes two.
    stream = (np.arange(2**22 + 70_001) % 50_000).astype(np.uint16)
    out = np.empty((packed_count(len(stream), 1000), 1000), np.uint16)
    pack_stream(stream, special, out=out)
    body = out[:, 1:-1].ravel()
    np.testing.assert_array_equal(body[: len(stream)], stream)
    assert body[len(stream)] == special.sep_id
    assert (body[len(stream) + 1 :] == special.pad_id).all()


def test_too_short(special):
    with pytest.raises(ValueError, match="`sequence_length` must be at lea"):
        pack([[2]], 2, special)
