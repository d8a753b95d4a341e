import numpy as np
import pytest

from keras_distil import data

LINES = [f"the sun of hill {'star ' * n}shines ." for n in range(40)]
LENGTH = 8


@pytest.fixture
def prepare(tokenizer, tmp_path):
    """Prepares a corpus of some lines."""

    def make(lines, **arguments):
        (tmp_path / "notes.txt").write_text("\n".join(lines) + "\n", "utf-8")
        return data.prepare_corpus(
            [data.TextFiles("notes.txt", root=tmp_path)],
            tokenizer,
            sequence_length=LENGTH,
            cache_dir=tmp_path / "corpora",
            **arguments,
        )

    return make


def rows(batches, count):
    return [
        (x["token_ids"], x["padding_mask"], y, weight)
        for x, y, weight in batches.take(count).as_numpy_iterator()
    ]


@pytest.mark.parametrize("held_out", [False, True])
def test_they_are_those_of_the_functions_with_more_options(
    prepare, tokenizer, special, held_out
):
    corpus = prepare(LINES, held_out_fraction=0.3)
    options = {
        "special": special,
        "vocabulary_size": data.vocabulary_size(tokenizer),
        "batch_size": 3,
        "seed": 5,
    }
    if held_out:
        expected = data.held_out_dataset(corpus.held_out, **options)
        found = data.held_out_batches(corpus, tokenizer, batch_size=3, seed=5)
    else:
        expected = data.masked_lm_dataset(corpus.train, **options)
        found = data.training_batches(corpus, tokenizer, batch_size=3, seed=5)
    assert found.cardinality() == expected.cardinality()
    for one, other in zip(rows(found, 4), rows(expected, 4), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_twentieth_is_held_out_by_default(prepare):
    corpus = prepare(LINES)
    held_out = [data.is_held_out(line, 0.05) for line in LINES]
    assert corpus.report.held_out_paragraphs == sum(held_out)


def test_five_lines_are_enough_or_the_message_says_what_to_do(
    prepare, tokenizer
):
    corpus = prepare(LINES[:5])
    count = corpus.train_sequences
    batches = data.training_batches(corpus, tokenizer, batch_size=count)
    assert rows(batches, 1)[0][0].shape == (count, LENGTH)
    with pytest.raises(
        ValueError,
        match=rf"has {count} sequences, fewer than one batch of {count + 1}\. "
        "Lower `batch_size` or `sequence_length`, or add text",
    ):
        data.training_batches(corpus, tokenizer, batch_size=count + 1)
    assert not corpus.report.held_out_paragraphs
    with pytest.raises(
        ValueError, match="no held-out sequences. Raise `held_out_fraction`"
    ):
        data.held_out_batches(corpus, tokenizer, batch_size=2)


@pytest.mark.parametrize("make", [data.training_batches, data.held_out_batches])
def test_another_tokenizer_is_refused(prepare, tokenizer, make):
    corpus = prepare(LINES)
    tokenizer.add_tokens(["[E1]"])
    with pytest.raises(
        ValueError, match="which has 25 tokens. Received: one of 26 tokens"
    ):
        make(corpus, tokenizer, batch_size=2)


@pytest.mark.parametrize("make", [data.training_batches, data.held_out_batches])
def test_sequences_are_no_corpus(prepare, tokenizer, make):
    with pytest.raises(TypeError, match="`corpus` must be .* ShardedSequences"):
        make(prepare(LINES).train, tokenizer, batch_size=2)


@pytest.mark.parametrize(
    "sources", [data.TextFiles("notes.txt"), "notes.txt", ["notes.txt"]]
)
def test_sources_are_a_list_of_sources(tokenizer, tmp_path, sources):
    with pytest.raises(TypeError, match=r"such as \[data.TextFiles\('notes"):
        data.prepare_corpus(
            sources, tokenizer, sequence_length=8, cache_dir=tmp_path
        )
