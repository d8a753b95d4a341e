import json
import logging
import multiprocessing
import os
import resource
import signal
import threading
import time

import numpy as np
import pytest
from toy import byte_level_tokenizer

from keras_distil import data
from keras_distil.data.corpus import text_files, tokenized
from keras_distil.data.corpus.preparation import prepare_corpus
from keras_distil.data.corpus.shards import CorpusError
from keras_distil.data.corpus.split import is_held_out
from keras_distil.data.corpus.text_files import FileRange, TextFiles
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
    stream = sequences[:][:, 1:-1].ravel().tolist()
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
    # Numbers are unknown words: make the ids distinguish paragraphs.
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
    ("name", "change"),
    [
        ("train-00000-of-00001.array_record", lambda data: data[:-2] + b"zz"),
        ("held_out-00000-of-00001.array_record", lambda data: data[:100]),
        ("manifest.json", lambda data: data[:-20]),
        ("manifest.json", lambda data: b"{}"),
        ("train-00000-of-00001.array_record", None),
    ],
)
def test_damaged_cache_is_made_again(prepare, tmp_path, caplog, name, change):
    first = prepare().train[:]
    path = cached_file(tmp_path, name)
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = prepare(verify=True)
    assert "Preparing the corpus again" in caplog.text
    np.testing.assert_array_equal(again.train[:], first)
    assert again.report.paragraphs == 400


def fail_at(monkeypatch, unit_number):
    """Makes the reading of a unit fail, like a full disk or a kill."""
    original = FileRange.paragraphs
    read = []

    def failing(self, report):
        if len(read) == unit_number:
            raise OSError("disk on fire")
        read.append(self)
        yield from original(self, report)

    monkeypatch.setattr(FileRange, "paragraphs", failing)
    return read


def test_interrupted_preparation_continues(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "UNIT_BYTES", 1000)
    whole = prepare(cache_dir=tmp_path / "whole")
    with monkeypatch.context() as patch:
        read = fail_at(patch, 5)
        with pytest.raises(OSError, match="disk on fire"):
            prepare()
    assert len(read) == 5
    assert not list((tmp_path / "cache").glob("*/manifest.json"))
    read = fail_at(monkeypatch, -1)
    again = prepare()
    units = TextFiles("*.txt", root=tmp_path / "corpus").units()
    assert [u.start for u in read] == [u.start for u in units[5:]]
    assert again.fingerprint == whole.fingerprint
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == [
        again.folder.name
    ]


def test_half_written_unit_is_read_again(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "UNIT_BYTES", 1000)
    whole = prepare(cache_dir=tmp_path / "whole")
    with monkeypatch.context() as patch:
        fail_at(patch, 5)
        with pytest.raises(OSError):
            prepare()
    (unit,) = (tmp_path / "cache").glob(".*/units/000002.safetensors")
    unit.write_bytes(unit.read_bytes()[:-5])
    assert prepare().fingerprint == whole.fingerprint


@pytest.mark.parametrize("layout", ["packed", "bucketed"])
def test_units_shards_and_workers_leave_no_trace(
    prepare, tmp_path, monkeypatch, layout
):
    def made(name, **options):
        folder = tmp_path / name
        prepare(output=folder, cache_dir=None, layout=layout, **options)
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    once = made("once")
    assert made("workers", workers=2) == once
    monkeypatch.setattr("keras_distil.data.corpus.scratch.DIGESTS_AT_ONCE", 7)
    monkeypatch.setattr(text_files, "UNIT_BYTES", 700)
    cut = made("cut")
    assert {n: d for n, d in cut.items() if "json" not in n} == {
        n: d for n, d in once.items() if "json" not in n
    }


@pytest.mark.parametrize("unit_bytes", [500, 10**6])
def test_several_shards_hold_the_same_sequences(
    prepare, tmp_path, monkeypatch, unit_bytes
):
    whole = prepare()
    monkeypatch.setattr(text_files, "UNIT_BYTES", unit_bytes)
    monkeypatch.setattr(tokenized, "SHARD_TOKENS", 7 * 16)
    cut = prepare(cache_dir=tmp_path / "other")
    assert len(list(cut.folder.glob("train-*"))) == -(-len(whole.train) // 7)
    np.testing.assert_array_equal(cut.train[:], whole.train[:])
    np.testing.assert_array_equal(cut.held_out[:], whole.held_out[:])
    np.testing.assert_array_equal(cut.token_counts, whole.token_counts)


def test_buckets_hold_every_paragraph_once(
    prepare, corpus_dir, tokenizer, special
):
    made = prepare(layout="bucketed", sequence_length=8)
    assert [bucket.shape[1] for bucket in made.train] == [8]
    made = prepare(layout="bucketed", sequence_length=16)
    assert [bucket.shape[1] for bucket in made.train] == [8, 16]
    texts = set()
    for path in corpus_dir.iterdir():
        texts.update(path.read_text().split("\n"))
    expected = [t for t in texts if not is_held_out(t, 0.25)]
    ids = [tuple(i.tolist()) for i in encode_paragraphs(tokenizer, expected)]
    found = []
    for bucket in made.train:
        for row in bucket[:].tolist():
            row = [t for t in row if t != special.pad_id]
            assert (row[0], row[-1]) == (special.cls_id, special.sep_id)
            found.append(tuple(row[1:-1]))
            # In no bucket longer than it needs.
            assert bucket.shape[1] == 8 or len(row) > 8
    assert sorted(found) == sorted(ids)
    assert made.train_sequences == len(ids)
    packed = prepare()
    np.testing.assert_array_equal(made.held_out[:], packed.held_out[:])
    np.testing.assert_array_equal(made.token_counts, packed.token_counts)


def test_paragraph_longer_than_a_bucket_is_cut(
    prepare, corpus_dir, special, tokenizer
):
    for path in corpus_dir.iterdir():
        path.write_text("the sun shines over the sea of star light rain")
    made = prepare(layout="bucketed", sequence_length=8, held_out_fraction=0.0)
    ids = tokenizer.encode(
        "the sun shines over the sea of star light rain",
        add_special_tokens=False,
    ).ids
    frame = [special.cls_id], [special.sep_id]
    assert made.train[0][:].tolist() == [
        [*frame[0], *ids[:6], *frame[1]],
        [*frame[0], *ids[6:], *frame[1], *[special.pad_id] * 2],
    ]


def test_output_is_found_and_kept(prepare, corpus_dir, tmp_path):
    folder = tmp_path / "made"
    first = prepare(output=folder, cache_dir=None)
    again = prepare(output=folder, cache_dir=None)
    assert again.fingerprint == first.fingerprint
    with pytest.raises(
        CorpusError, match="prepared with sequence_length=16, but"
    ):
        prepare(output=folder, cache_dir=None, sequence_length=32)
    (corpus_dir / "c.txt").write_text("the moon over the river hill")
    with pytest.raises(CorpusError, match="corpus of other sources, or the so"):
        prepare(output=folder, cache_dir=None)
    assert prepare(cache_dir=None, output=tmp_path / "b").report.files == 3


def test_output_with_other_files(prepare, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "thesis.txt").touch()
    with pytest.raises(CorpusError, match="holds files but no prepared corp"):
        prepare(output=tmp_path / "made", cache_dir=None)
    (tmp_path / "empty").mkdir()
    assert prepare(output=tmp_path / "empty", cache_dir=None).train_sequences


def test_two_processes_make_one_corpus(prepare, tmp_path, caplog):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(prepare()))
        for _ in range(3)
    ]
    with caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({corpus.folder for corpus in made}) == 1
    assert "Waiting for another process" in caplog.text
    assert "again" not in caplog.text


class EndlessUnit:
    def describe(self):
        return {}

    def units(self):
        return [self] * 5

    def paragraphs(self, report):
        time.sleep(600)


def test_an_interrupted_pool_ends_at_once(prepare):
    before = multiprocessing.active_children()
    main = threading.main_thread().ident
    timer = threading.Timer(2.0, signal.pthread_kill, [main, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        prepare(workers=2, sources=[EndlessUnit()])
    assert multiprocessing.active_children() == before


class DeadlyUnit:
    """Mimics text that needs so much memory that its reader is killed."""

    def describe(self):
        return {}

    def units(self):
        return [self]

    def paragraphs(self, report):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_killed_worker(prepare):
    with pytest.raises(RuntimeError, match="was killed or ran out of memory"):
        prepare(workers=2, sources=[DeadlyUnit()])


def test_full_disk(prepare, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written: File too l"):
            prepare()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert prepare().report.paragraphs == 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "`workers` must be at least 1"),
        ({"output": "x"}, "exactly one of `cache_dir` and `output`"),
        ({"layout": "loose"}, "`layout` must be 'packed' or 'bucketed'"),
    ],
)
def test_wrong_options(prepare, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(**options)


def test_nothing_held_out(prepare):
    corpus = prepare(held_out_fraction=0.0)
    assert corpus.held_out.shape == (0, 16)
    assert prepare(held_out_fraction=0.0).held_out.shape == (0, 16)


def test_progress(prepare, monkeypatch):
    monkeypatch.setattr(text_files, "UNIT_BYTES", 2000)
    done = []
    prepare(progress=lambda *numbers: done.append(numbers))
    counts, totals = zip(*done, strict=True)
    assert set(totals) == {2 * (len(done) - 2)}
    assert list(counts) == sorted(counts)
    assert counts[-1] == totals[-1]


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


# === Words that the vocabulary does not have ===


def write_corpus(folder, known, unknown):
    """Paragraphs of known and of unknown words."""
    for path in folder.iterdir():
        path.unlink()
    words = ["sun"] * known + ["zzz"] * unknown
    (folder / "a.txt").write_text(" ".join(words) + "\nthe moon\n")


@pytest.mark.parametrize(("unknown", "warned"), [(0, 0), (5, 0), (6, 1)])
def test_the_share_of_unknown_tokens_is_reported(
    prepare, corpus_dir, caplog, unknown, warned
):
    # Of 100 or more tokens; two more are "the moon".
    write_corpus(corpus_dir, 98, unknown)
    caplog.set_level(logging.WARNING)
    corpus = prepare(held_out_fraction=0.0)
    assert corpus.report.unknown_tokens == unknown
    share = unknown / (100 + unknown)
    assert corpus.report.unknown_share == pytest.approx(share)
    assert f"; {share:.1%} of the tokens are [UNK];" in str(corpus.report)
    assert len(caplog.messages) == warned
    if warned:
        assert caplog.messages[0].startswith(
            "5.7% of the tokens of the corpus (6 of 106) are [UNK]"
        )
        assert "`do_lower_case`" in caplog.messages[0]
    # A finished corpus says the same.
    assert prepare(held_out_fraction=0.0).report == corpus.report


def test_a_corpus_that_is_half_unknown_is_refused(
    prepare, corpus_dir, tmp_path
):
    write_corpus(corpus_dir, 6, 8)
    with pytest.raises(ValueError, match="50.0% of the tokens of the corpus"):
        prepare(held_out_fraction=0.0)
    write_corpus(corpus_dir, 7, 8)
    assert prepare(held_out_fraction=0.0).report.unknown_tokens == 8


def test_a_vocabulary_of_the_wrong_case_is_refused(
    prepare, corpus_dir, tokenizer_dir
):
    # Cased words, and a tokenizer that lower-cases them.
    path = tokenizer_dir / "vocab.txt"
    words = path.read_text().split("\n")
    path.write_text("\n".join(w.upper() for w in words))
    tokenizer = load_tokenizer(tokenizer_dir)
    with pytest.raises(ValueError, match="Check `do_lower_case` in the teach"):
        prepare(tokenizer=tokenizer)
    settings = {"do_lower_case": False}
    (tokenizer_dir / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="Check `do_lower_case` in the teach"):
        prepare(tokenizer=load_tokenizer(tokenizer_dir))


def test_repeated_paragraphs_count_once_as_unknown(prepare, corpus_dir):
    write_corpus(corpus_dir, 6, 1)
    text = (corpus_dir / "a.txt").read_text()
    (corpus_dir / "b.txt").write_text(text * 3)
    assert prepare(held_out_fraction=0.0).report.unknown_tokens == 1


# === Added tokens in a text ===


def test_added_tokens_of_a_text_are_trained_on(
    prepare, corpus_dir, tokenizer_dir, special
):
    settings = {"additional_special_tokens": ["[E1]"]}
    (tokenizer_dir / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tokenizer_dir)
    write_corpus(corpus_dir, 0, 0)
    text = "[E1]sun[E1] over [PAD] [MASK]"
    (corpus_dir / "a.txt").write_text(text)
    corpus = prepare(tokenizer=tokenizer, held_out_fraction=0.0)
    added = tokenizer.token_to_id("[E1]")
    expected = [added, 3, added, 8, special.pad_id, special.mask_id]
    assert corpus.train[:][0, 1:7].tolist() == expected
    batches = data.masked_lm_dataset(
        corpus.train,
        special=special,
        vocabulary_size=data.vocabulary_size(tokenizer),
        batch_size=1,
        seed=0,
        rate=1.0,
    )
    x, y, weights = next(iter(batches.as_numpy_iterator()))
    # [CLS], six tokens and [SEP]; the [PAD] of the text is read.
    assert x["padding_mask"][0].tolist() == [1] * 8 + [0] * 8
    assert weights[0].tolist() == [0, 1, 1, 1, 1, 0, 0, 0, *[0] * 8]
    assert len(corpus.token_counts) == added + 1


def test_a_vocabulary_with_gaps(prepare, corpus_dir, tokenizer_dir):
    with (tokenizer_dir / "vocab.txt").open("a") as file:
        file.write("the\nlast\n")
    tokenizer = load_tokenizer(tokenizer_dir)
    write_corpus(corpus_dir, 9, 0)
    (corpus_dir / "b.txt").write_text("the last\n")
    corpus = prepare(tokenizer=tokenizer, held_out_fraction=0.0)
    counts = corpus.token_counts
    # 25 lines, then "the" again and "last".
    assert len(counts) == 27
    assert (counts[0], counts[25], counts[26], counts[3]) == (0, 2, 1, 9)


# === Tokenizers of another kind ===


@pytest.mark.parametrize("layout", ["packed", "bucketed"])
def test_a_byte_level_corpus(corpus_dir, tmp_path, layout):
    tokenizer = byte_level_tokenizer(tmp_path / "byte_level")
    for path in corpus_dir.iterdir():
        path.unlink()
    lines = ["The student learns.", " it's  <mask> 12", "naïve 日本"]
    (corpus_dir / "a.txt").write_text("\n".join(lines) + "\n", "utf-8")
    corpus = prepare_corpus(
        [TextFiles("*.txt", root=corpus_dir)],
        tokenizer,
        sequence_length=64,
        held_out_fraction=0.0,
        cache_dir=tmp_path / "cache",
        layout=layout,
    )
    ids = [
        tokenizer.encode(line.strip(), add_special_tokens=False).ids
        for line in lines
    ]
    parts = [corpus.train] if layout == "packed" else corpus.train
    rows = [
        [token for token in row if token != 1]
        for part in parts
        for row in part[:].tolist()
    ]
    expected = [[0, *ids[0], 2, *ids[1], 2, *ids[2], 2]]
    if layout == "bucketed":
        expected = [[0, *of_line, 2] for of_line in ids]
    assert sorted(rows) == sorted(expected)
    # Bytes need no unknown token; the vocabulary has one all the same.
    assert "0.0% of the tokens are <unk>; " in str(corpus.report)
    opened = data.open_corpus(corpus.folder)
    assert opened.report == corpus.report


def test_a_tokenizer_without_an_unknown_token_says_nothing_of_it(
    corpus_dir, tmp_path
):
    tokenizer = byte_level_tokenizer(tmp_path / "byte_level")
    described = json.loads(tokenizer.to_str())
    words = described["model"]["vocab"]
    words["odd"] = words.pop("<unk>")
    described["added_tokens"] = [
        t for t in described["added_tokens"] if t["content"] != "<unk>"
    ]
    tokenizer = type(tokenizer).from_str(json.dumps(described))
    corpus = prepare_corpus(
        [TextFiles("*.txt", root=corpus_dir)],
        tokenizer,
        sequence_length=64,
        held_out_fraction=0.0,
        cache_dir=tmp_path / "cache",
    )
    assert corpus.report.unknown_token is None
    assert " files; skipped: " in str(corpus.report)
    assert data.open_corpus(corpus.folder).report == corpus.report
