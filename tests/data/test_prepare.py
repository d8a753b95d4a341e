import json
import logging

import numpy as np
import pytest

from keras_distil.data.corpus import TextFiles
from keras_distil.data.prepare import prepare_corpus
from keras_distil.data.split import is_held_out
from keras_distil.data.tokenize import encode_paragraphs, load_tokenizer

WORDS = "the of sun moon shines over sea river hill star wind rain".split()


@pytest.fixture
def corpus_dir(tmp_path):
    """Two files of 400 distinct paragraphs, 50 of them in both."""
    random = np.random.default_rng(0)
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = [
        f"{' '.join(random.choice(WORDS, random.integers(4, 9)))} {i:b}"
        for i in range(400)
    ]
    (folder / "a.txt").write_text("\n".join(texts[:225]))
    (folder / "b.txt").write_text("\n".join(texts[175:]))
    return folder


@pytest.fixture
def prepare(corpus_dir, tokenizer, tmp_path):
    """Returns `prepare_corpus` with toy arguments, which may be replaced."""

    def prepare_(**replaced):
        arguments = {
            "sources": [TextFiles("*.txt", root=corpus_dir)],
            "tokenizer": tokenizer,
            "sequence_length": 16,
            "held_out_fraction": 0.25,
            "cache_dir": tmp_path / "cache",
            **replaced,
        }
        sources = arguments.pop("sources")
        tokenizer_ = arguments.pop("tokenizer")
        return prepare_corpus(sources, tokenizer_, **arguments)

    return prepare_


def paragraphs_of(sequences, special):
    """Undoes the packing; a set of paragraphs as tuples of ids."""
    stream = sequences[:, 1:-1].ravel().tolist()
    while stream and stream[-1] == special.pad_id:
        stream.pop()
    if stream and stream[-1] == special.sep_id:
        stream.pop()
    paragraphs, current = [], []
    for token_id in [*stream, special.sep_id]:
        if token_id == special.sep_id:
            paragraphs.append(tuple(current))
            current = []
        else:
            current.append(token_id)
    return paragraphs


def cached_file(tmp_path, name):
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    return path


def test_parts_hold_every_paragraph_once(
    prepare, corpus_dir, tokenizer, special
):
    corpus = prepare()
    texts = set()
    for path in corpus_dir.iterdir():
        texts.update(path.read_text().split("\n"))
    for part, held_out in ((corpus.train, False), (corpus.held_out, True)):
        expected = [t for t in texts if is_held_out(t, 0.25) == held_out]
        ids = [
            tuple(i.tolist()) for i in encode_paragraphs(tokenizer, expected)
        ]
        assert sorted(paragraphs_of(part, special)) == sorted(ids)
        assert part.shape[1] == 16
        assert part.dtype == np.uint16
    report = corpus.report
    assert report.paragraphs == 400
    assert 60 < report.held_out_paragraphs < 140
    assert report.skipped == {"repeated paragraph": 50}
    assert report.files == 2


def test_held_out_texts_do_not_depend_on_order_or_neighbours(
    prepare, corpus_dir, tokenizer_dir, special
):
    # Numbers are unknown words: make the ids tell paragraphs apart.
    with open(tokenizer_dir / "vocab.txt", "a") as file:
        file.writelines(f"{i:b}\n" for i in range(400))
    tokenizer = load_tokenizer(tokenizer_dir)
    both = prepare(tokenizer=tokenizer)
    alone = prepare(
        tokenizer=tokenizer, sources=[TextFiles("b.txt", root=corpus_dir)]
    )
    held_out = set(paragraphs_of(both.held_out, special))
    assert not held_out & set(paragraphs_of(both.train, special))
    assert set(paragraphs_of(alone.held_out, special)) < held_out


def test_counts_and_tokens(prepare, special):
    corpus = prepare()
    expected = np.zeros(len(corpus.token_counts), np.int64)
    for paragraph in paragraphs_of(corpus.train, special):
        np.add.at(expected, list(paragraph), 1)
    np.testing.assert_array_equal(corpus.token_counts, expected)
    assert corpus.report.train_tokens == expected.sum()
    held_out = paragraphs_of(corpus.held_out, special)
    assert corpus.report.held_out_tokens == sum(map(len, held_out))


def test_found_again_without_reading(prepare, monkeypatch):
    first = prepare()
    monkeypatch.setattr(
        TextFiles, "paragraphs", lambda *_: pytest.fail("read again")
    )
    again = prepare()
    np.testing.assert_array_equal(again.train, first.train)
    np.testing.assert_array_equal(again.held_out, first.held_out)
    np.testing.assert_array_equal(again.token_counts, first.token_counts)
    assert again.fingerprint == first.fingerprint
    assert again.report == first.report


def test_large_arrays_are_memory_mapped(prepare):
    corpus = prepare()
    assert isinstance(corpus.train, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        corpus.train[0, 0] = 1


@pytest.mark.parametrize(
    "change", [{"sequence_length": 17}, {"held_out_fraction": 0.2}]
)
def test_other_settings_have_another_fingerprint(prepare, change):
    assert prepare(**change).fingerprint != prepare().fingerprint


def test_changed_sources_are_read_again(prepare, corpus_dir):
    first = prepare()
    with open(corpus_dir / "b.txt", "a") as file:
        file.write("\nthe wind over the hill shines")
    assert prepare().report.paragraphs == first.report.paragraphs + 1


def test_other_tokenizer_with_the_same_vocabulary(prepare, tokenizer_dir):
    first = prepare()
    config = tokenizer_dir / "tokenizer_config.json"
    config.write_text(json.dumps({"do_lower_case": False}))
    cased = load_tokenizer(tokenizer_dir)
    assert prepare(tokenizer=cased).fingerprint != first.fingerprint


def test_fingerprint_follows_contents_not_places(prepare, corpus_dir, tmp_path):
    first = prepare()
    moved = corpus_dir.rename(tmp_path / "moved")
    for path in moved.iterdir():
        path.touch()
    again = prepare(
        sources=[TextFiles("*.txt", root=moved)],
        cache_dir=tmp_path / "other_cache",
    )
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "damage",
    [
        ("train.npy", lambda data: data[:-2] + b"zz"),
        ("held_out.npy", lambda data: data[:100]),
        ("manifest.json", lambda data: data[:-20]),
        ("manifest.json", lambda data: b"{}"),
        ("token_counts.npy", None),
    ],
)
def test_damaged_cache_is_made_anew(prepare, tmp_path, caplog, damage):
    first = np.array(prepare().train)
    name, change = damage
    path = cached_file(tmp_path, name)
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = prepare()
    assert "Preparing the corpus again" in caplog.text
    np.testing.assert_array_equal(again.train, first)
    assert again.report.paragraphs == 400


def test_failure_leaves_nothing_behind(prepare, tmp_path, monkeypatch):
    def fail(self, report):
        yield "the sun over the sea"
        raise OSError("disk on fire")

    monkeypatch.setattr(TextFiles, "paragraphs", fail)
    with pytest.raises(OSError, match="disk on fire"):
        prepare()
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_process_may_finish_first(prepare, tmp_path, monkeypatch):
    first = prepare()
    folder = cached_file(tmp_path, "manifest.json").parent
    aside = folder.rename(tmp_path / "aside")
    original = TextFiles.paragraphs

    def meanwhile(self, report):
        yield from original(self, report)
        aside.rename(folder)

    monkeypatch.setattr(TextFiles, "paragraphs", meanwhile)
    assert prepare().fingerprint == first.fingerprint
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_failure_to_publish_is_raised(prepare, tmp_path, monkeypatch):
    original = TextFiles.paragraphs

    def meanwhile(self, report):
        yield from original(self, report)
        (scratch,) = (tmp_path / "cache").iterdir()
        monkeypatch.setattr(type(scratch), "rename", refuse)

    def refuse(self, target):
        raise PermissionError("no renaming here")

    monkeypatch.setattr(TextFiles, "paragraphs", meanwhile)
    with pytest.raises(PermissionError, match="no renaming here"):
        prepare()


def test_nothing_held_out(prepare):
    corpus = prepare(held_out_fraction=0.0)
    assert corpus.held_out.shape == (0, 16)
    assert prepare(held_out_fraction=0.0).held_out.shape == (0, 16)


def test_progress(prepare, monkeypatch):
    monkeypatch.setattr("keras_distil.data.prepare._PROGRESS_EVERY", 150)
    done = []
    prepare(progress=done.append)
    assert done == [150, 300, 400]


def test_no_usable_paragraph(prepare, corpus_dir):
    for path in corpus_dir.iterdir():
        path.write_bytes(b"\n\xff\n")
    with pytest.raises(
        ValueError, match="no usable training paragraph .*empty line: 2, line"
    ):
        prepare()


def test_paragraphs_without_tokens_are_counted(prepare, corpus_dir):
    (corpus_dir / "c.txt").write_text("\u200b\n\u200d\nthe sun over sea\n")
    skipped = prepare().report.skipped
    assert skipped["paragraph without tokens"] == 2


def test_sequence_length_too_short(prepare):
    with pytest.raises(ValueError, match="`sequence_length` must be at least"):
        prepare(sequence_length=2)


def test_fraction_out_of_range(prepare):
    with pytest.raises(ValueError, match="`held_out_fraction` must be at lea"):
        prepare(held_out_fraction=1.0)


def test_no_file(prepare, tmp_path):
    with pytest.raises(FileNotFoundError, match="No file matches"):
        prepare(sources=[TextFiles("*.none", root=tmp_path)])
