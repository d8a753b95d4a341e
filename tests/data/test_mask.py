import numpy as np
import pytest
import tensorflow as tf

from keras_distil.data import mask, random_bits
from keras_distil.data.mask import mask_tokens, rare_token_weights
from keras_distil.data.special_tokens import SpecialTokens

VOCABULARY_SIZE = 1000
WRAP = 2**64


@pytest.fixture
def batch(special):
    """400 rows of 40 tokens, with special ones and padding."""
    random = np.random.default_rng(0)
    ordinary = np.setdiff1d(np.arange(VOCABULARY_SIZE), special.ids)
    token_ids = random.choice(ordinary, (400, 40)).astype(np.int32)
    token_ids[:, 0] = special.cls_id
    token_ids[:, 13] = special.unknown_id
    token_ids[:, 20] = special.mask_id
    token_ids[:, 30] = special.sep_id
    token_ids[:200, 31:] = special.pad_id
    return token_ids


def seeds_of(count, first=0):
    return np.stack([np.full(count, 5), np.arange(first, first + count)], 1)


def run(token_ids, special, *, seeds=None, **options):
    if seeds is None:
        seeds = seeds_of(len(token_ids))
    masked, selected = mask_tokens(
        tf.constant(token_ids),
        tf.constant(seeds, tf.int32),
        special=special,
        vocabulary_size=options.pop("vocabulary_size", VOCABULARY_SIZE),
        **options,
    )
    return masked.numpy(), selected.numpy()


def split_mix(state, count):
    """The generator of Steele et al. 2014, in Python's integers."""
    values = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % WRAP
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WRAP
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WRAP
        values.append(z ^ (z >> 31))
    return values


def test_generator_gives_published_values():
    # First outputs of SplitMix64 with state 1234567, as in its test suites.
    assert split_mix(1234567, 3) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("seed", [(0,), (1234567, 3), (-1, 2**31 - 1, 7)])
def test_random_bits_are_split_mix(seed):
    key = 0
    for part in seed:
        (key,) = split_mix(key ^ (part % WRAP), 1)
    bits = random_bits.random_bits(tf.constant(seed, tf.int64), 5)
    assert bits.numpy().tolist() == split_mix(key, 5)


def test_uniform_excludes_both_ends():
    extremes = tf.constant([0, WRAP - 1], tf.uint64)
    low, high = mask._uniform(extremes).numpy()
    assert 0 < low < 1e-7
    assert 1 - 1e-6 < high < 1


def test_masks_are_those_of_the_definition(batch, special):
    """An independent version, one row and token at a time, in float64."""
    masked, selected = run(batch[195:205], special)
    for row, token_ids in enumerate(batch[195:205].tolist()):
        (key,) = split_mix(0 ^ 5, 1)
        (key,) = split_mix(key ^ row, 1)
        bits = split_mix(key, 3 * 40 + 1)
        uniform = [((b >> 41) + 0.5) / 2**23 for b in bits]
        free = [i for i in range(40) if token_ids[i] not in special.ids]
        count = int(0.15 * len(free) + uniform[-1])
        free.sort(key=lambda i: -np.log(uniform[i]))
        expected = list(token_ids)
        for i in free[:count]:
            if uniform[40 + i] < 0.8:
                expected[i] = special.mask_id
            elif uniform[40 + i] >= 0.9:
                token = (bits[80 + i] >> 32) * (VOCABULARY_SIZE - 5) >> 32
                ordinary = set(range(VOCABULARY_SIZE)) - set(special.ids)
                expected[i] = sorted(ordinary)[token]
        assert masked[row].tolist() == expected
        assert np.flatnonzero(selected[row]).tolist() == sorted(free[:count])


def test_types_and_shapes(batch, special):
    masked, selected = run(batch, special)
    assert masked.dtype == np.int32
    assert selected.dtype == np.float32
    assert masked.shape == selected.shape == batch.shape
    assert set(np.unique(selected)) == {0.0, 1.0}


def test_special_tokens_are_never_chosen(batch, special):
    _, selected = run(batch, special, rate=1.0)
    np.testing.assert_array_equal(selected == 1, ~np.isin(batch, special.ids))


def test_other_tokens_stay(batch, special):
    masked, selected = run(batch, special)
    np.testing.assert_array_equal(masked[selected == 0], batch[selected == 0])


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.5])
def test_share_of_chosen_tokens(batch, special, rate):
    _, selected = run(batch, special, rate=rate)
    maskable = (~np.isin(batch, special.ids)).sum(axis=1)
    chosen = selected.sum(axis=1)
    # Each row has floor(expected) or one more, by chance.
    expected = np.maximum(rate * maskable, 1)
    assert (np.abs(chosen - expected) < 1).all()
    # The chance is at most 0.25 in variance per row: 5 standard deviations.
    bound = 5 * np.sqrt(0.25 * len(batch))
    assert abs(chosen.sum() - expected.sum()) < bound


def test_at_least_one_token_if_there_is_any(special):
    token_ids = np.full((64, 6), special.pad_id, np.int32)
    token_ids[1:, 2] = 50
    _, selected = run(token_ids, special, rate=0.01)
    assert selected[0].sum() == 0
    assert (selected[1:].sum(axis=1) == 1).all()
    assert (selected[1:, 2] == 1).all()


def test_shares_of_actions(special):
    token_ids = np.full((500, 64), 50, np.int32)
    masked, selected = run(token_ids, special, rate=1.0)
    count = selected.sum()
    for share, found in (
        (0.8, (masked == special.mask_id).sum()),
        # One random token in 995 happens to be the original one.
        (0.1 + 0.1 / 995, (masked == 50).sum()),
    ):
        deviation = np.sqrt(count * share * (1 - share))
        assert abs(found - count * share) < 5 * deviation


def test_random_tokens_are_ordinary_and_even(special):
    token_ids = np.full((500, 64), 15, np.int32)
    masked, _ = run(token_ids, special, rate=1.0, vocabulary_size=16)
    replaced = masked[(masked != 15) & (masked != special.mask_id)]
    counts = np.bincount(replaced, minlength=16)
    assert (counts[list(special.ids)] == 0).all()
    ordinary = np.delete(counts, [*special.ids, 15])
    mean = 500 * 64 * 0.1 / 11
    assert (np.abs(ordinary - mean) < 5 * np.sqrt(mean)).all()


def test_positions_are_chosen_evenly(special):
    token_ids = np.full((4000, 20), 50, np.int32)
    _, selected = run(token_ids, special)
    mean = 4000 * 0.15
    deviation = np.sqrt(mean * 0.85)
    assert (np.abs(selected.sum(axis=0) - mean) < 5 * deviation).all()


def test_rows_depend_on_their_own_seed_only(batch, special):
    together = run(batch, special)
    for row in (0, 199, 200, 399):
        alone = run(batch[row], special, seeds=seeds_of(400)[row])
        np.testing.assert_array_equal(alone[0], together[0][row])
        np.testing.assert_array_equal(alone[1], together[1][row])


def test_any_part_of_the_seed_redraws(special):
    token_ids = np.full((3, 200), 50, np.int32)
    seeds = [[1, 1], [1, 2], [2, 1]]
    _, selected = run(token_ids, special, seeds=seeds)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (selected[one] != selected[other]).any()


def test_graph_equals_eager(batch, special):
    eager = run(batch, special)
    with_graph = tf.function(
        lambda ids, seed: mask_tokens(
            ids, seed, special=special, vocabulary_size=VOCABULARY_SIZE
        )
    )(tf.constant(batch), tf.constant(seeds_of(400), tf.int32))
    np.testing.assert_array_equal(with_graph[0], eager[0])
    np.testing.assert_array_equal(with_graph[1], eager[1])


def test_ties_leave_the_number_exact(special):
    maskable = tf.constant([[True, True, False, True]])
    first = mask._select_first(tf.ones((1, 4)), maskable, tf.constant([2]))
    assert first.numpy().tolist() == [[True, True, False, False]]


def test_weights_favour_rare_tokens(special):
    token_ids = np.tile(np.repeat([50, 60], 10), (4000, 1)).astype(np.int32)
    counts = np.zeros(VOCABULARY_SIZE)
    counts[50], counts[60] = 1000, 10
    weights = rare_token_weights(counts)
    # One token per row, so the odds are exactly those of the weights.
    _, selected = run(token_ids, special, rate=0.05, token_weights=weights)
    assert (selected.sum(axis=1) == 1).all()
    share = 100**0.7 / (1 + 100**0.7)
    deviation = np.sqrt(4000 * share * (1 - share))
    rare = (selected * (token_ids == 60)).sum()
    assert abs(rare - 4000 * share) < 5 * deviation


def test_equal_weights_change_nothing(batch, special):
    weights = np.full(VOCABULARY_SIZE, 1.0, np.float32)
    plain = run(batch, special)
    weighted = run(batch, special, token_weights=weights)
    np.testing.assert_array_equal(plain[0], weighted[0])


def test_rare_token_weights():
    weights = rare_token_weights(np.array([0, 1, 100]), exponent=0.5)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [1.0, 1.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(
        rare_token_weights(np.array([1000])), [1000**-0.7], rtol=1e-6
    )


def test_negative_exponent():
    with pytest.raises(ValueError, match="`exponent` must not be negative"):
        rare_token_weights(np.ones(3), exponent=-0.1)


@pytest.mark.parametrize("rate", [0.0, 1.1, float("nan")])
def test_rate_out_of_range(batch, special, rate):
    with pytest.raises(ValueError, match="`rate` must be above 0 and at most"):
        run(batch, special, rate=rate)


@pytest.mark.parametrize(
    ("vocabulary_size", "ids"), [(14, (1, 6, 7, 12, 14)), (5, range(5))]
)
def test_vocabulary_too_small(batch, vocabulary_size, ids):
    with pytest.raises(ValueError, match="`vocabulary_size` must exceed"):
        run(batch, SpecialTokens(*ids), vocabulary_size=vocabulary_size)
