import hashlib

import pytest

from keras_distil.data.corpus.split import content_digest, is_held_out


def test_digest_is_blake2b_of_the_normalised_text():
    expected = hashlib.blake2b(b"strasse 1/2", digest_size=8).hexdigest()
    # NFKC writes "½" with the fraction slash, U+2044.
    assert f"{content_digest(' STRASSE  1/2 '):016x}" == expected


@pytest.mark.parametrize(
    "variant",
    [
        "A Plain Text",
        "a\tplain\u00a0text",
        " ａ plain\n\ntext ",
        "a PLAIN text",
    ],
)
def test_digest_ignores_case_width_and_spacing(variant):
    assert content_digest(variant) == content_digest("a plain text")


def test_digest_tells_texts_apart():
    assert content_digest("a plain text") != content_digest("a plain test")


def test_digest_accepts_lone_surrogates():
    assert content_digest("\ud800") != content_digest("\ud801")


def test_share_of_held_out_texts():
    held_out = sum(is_held_out(f"text {i}", 0.2) for i in range(5000))
    # Binomial: mean 1000, standard deviation 28.
    assert 860 < held_out < 1140


def test_a_larger_fraction_holds_out_a_superset():
    texts = [f"text {i}" for i in range(500)]
    small = {text for text in texts if is_held_out(text, 0.1)}
    large = {text for text in texts if is_held_out(text, 0.3)}
    assert small < large


def test_zero_holds_out_nothing():
    assert not any(is_held_out(f"text {i}", 0.0) for i in range(500))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="`held_out_fraction` must be at lea"):
        is_held_out("text", fraction)
