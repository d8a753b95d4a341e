"""Unreadable text is counted, located, reported, and refused if too much."""

import gzip
import json
import logging

import pytest

from keras_distil.data import prepare_corpus
from keras_distil.data.corpus import text_files
from keras_distil.data.corpus.lost_text import LostText, Place
from keras_distil.data.corpus.text_files import CorpusReport, TextFiles

SENTENCE = "the sun shines over the sea"


def read(root, pattern="*.txt", **options):
    report = CorpusReport()
    source = TextFiles(pattern, root=root, **options)
    return list(source.paragraphs(report)), report.lost


def prepare(root, tokenizer, pattern="*.txt", encoding="utf-8", **options):
    return prepare_corpus(
        [TextFiles(pattern, root=root, encoding=encoding)],
        tokenizer,
        sequence_length=16,
        held_out_fraction=0.05,
        cache_dir=root / "cache",
        **options,
    )


def write_lines(path, good, bad, text=SENTENCE):
    lines = [f"{text} {number}".encode() for number in range(good)]
    lines += [b"caf\xe9 " + line[: len(line) - 5] for line in lines[:bad]]
    path.write_bytes(b"\n".join(lines))


def test_latin_1_is_refused_with_file_line_and_option(tmp_path, tokenizer):
    lines = [f"caf\xe9 {number} {SENTENCE}" for number in range(199)]
    text = "\n".join([SENTENCE, *lines])
    (tmp_path / "a.txt").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError) as info:
        prepare(tmp_path, tokenizer)
    message = str(info.value)
    assert message.startswith("99.")
    assert "(199 of 200 lines" in message
    assert f"First, line 2 of '{tmp_path / 'a.txt'}': not UTF-8" in message
    assert "byte 0xe9 at 4" in message
    assert "`encoding`" in message
    assert "raise `max_skipped_fraction`, now 0.2" in message
    # Following the advice gives all 200 paragraphs.
    made = prepare(tmp_path, tokenizer, encoding="latin-1")
    assert made.report.paragraphs == 200
    # And following the other advice gives the readable one.
    made = prepare(tmp_path, tokenizer, max_skipped_fraction=1.0)
    assert made.report.paragraphs == 1


@pytest.mark.parametrize(
    ("good", "bad", "warned"), [(995, 5, False), (990, 10, True)]
)
def test_a_warning_from_one_percent(
    tmp_path, tokenizer, good, bad, warned, caplog
):
    write_lines(tmp_path / "a.txt", good, bad)
    with caplog.at_level(logging.WARNING):
        made = prepare(tmp_path, tokenizer)
    assert ("of the text was skipped" in caplog.text) is warned
    assert made.report.lost.lost_lines == bad
    if warned:
        assert f"line {good + 1} of " in caplog.text
        # From the cache, the warning is repeated.
        said = []
        prepare(tmp_path, tokenizer, warn=said.append)
        skipped = [line for line in said if "of the text was skipped" in line]
        assert len(skipped) == 1 and "1.0% of the text" in skipped[0]


@pytest.mark.parametrize(("good", "bad", "refused"), [(81, 19, 0), (80, 20, 1)])
def test_an_error_from_twenty_percent(tmp_path, tokenizer, good, bad, refused):
    write_lines(tmp_path / "a.txt", good, bad)
    if not refused:
        prepare(tmp_path, tokenizer)
        # From the cache, it is measured by the current fraction.
        with pytest.raises(ValueError, match="now 0.1"):
            prepare(tmp_path, tokenizer, max_skipped_fraction=0.1)
        return
    with pytest.raises(ValueError, match=r"20.0% of the text was skipped"):
        prepare(tmp_path, tokenizer)


def test_a_share_is_of_lines_or_bytes_the_larger():
    lost = LostText()
    for size in (10, 10, 10, 970):
        lost.read(size)
    lost.lose(970, Place("a", 0, "line", 4, "line too long"))
    assert lost.share == pytest.approx(0.97)
    lost.lose(10, Place("a", 0, "line", 1, "line too long"))
    lost.lose(10, Place("a", 0, "line", 2, "line too long"))
    assert lost.share == pytest.approx(0.99)
    assert lost.first.number == 1


def test_lines_are_numbered_through_the_pieces_of_a_file(
    tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr(text_files, "UNIT_BYTES", 1000)
    write_lines(tmp_path / "a.txt", 400, 100)
    assert len(TextFiles("a.txt", root=tmp_path).units()) > 10
    with pytest.raises(ValueError, match=r"First, line 401 of .*a.txt"):
        prepare(tmp_path, tokenizer)
    with pytest.raises(ValueError, match=r"\(100 of 500 lines"):
        prepare(tmp_path, tokenizer)


def test_compressed_files_are_counted_too(tmp_path):
    with gzip.open(tmp_path / "a.txt.gz", "wb") as file:
        file.write(b"one\ntwo \xff\n")
    paragraphs, lost = read(tmp_path, "*.gz")
    assert paragraphs == ["one"]
    assert (lost.lines, lost.lost_lines, lost.lost_bytes) == (2, 1, 6)


@pytest.mark.parametrize(
    ("record", "problem", "remedy"),
    [
        ({"body": "x"}, "lacks the text field", "Name the key"),
        ([1], "is not an object", "Name the key"),
    ],
)
def test_json_lines_that_are_lost(tmp_path, record, problem, remedy):
    good = json.dumps({"text": SENTENCE})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{json.dumps(record)}\n{{\n")
    _, lost = read(tmp_path, "*.jsonl", field="text")
    assert (lost.lines, lost.lost_lines) == (3, 2)
    with pytest.raises(ValueError, match=f"line 2 .*{problem}. {remedy}"):
        lost.check(0.2)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8-sig"])
def test_encodings_are_read(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("caf\xe9\nna\xefve\n", encoding=encoding)
    paragraphs, lost = read(tmp_path, encoding=encoding)
    assert paragraphs == ["caf\xe9", "na\xefve"]
    assert lost.share == 0


def test_the_encoding_is_part_of_what_a_corpus_depends_on(tmp_path):
    (tmp_path / "a.txt").write_text("one\n")

    def described(encoding):
        return TextFiles("*.txt", tmp_path, encoding=encoding).describe()

    # Corpora made before the key existed are found again.
    assert "encoding" not in described("UTF8")
    assert described("latin-1")["encoding"] == "iso8859-1"


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin-7x", "`encoding` must be the name of a text encoding"),
        ("base64", "`encoding` must be the name of a text encoding"),
        ("utf-16", "cannot be read line by line. Convert them first: iconv"),
        ("cp037", "cannot be read line by line"),
    ],
)
def test_encodings_that_are_refused(encoding, message):
    with pytest.raises(ValueError, match=message):
        TextFiles("*.txt", encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_wide_characters_are_named(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding=encoding)
    with pytest.raises(ValueError, match=f"a.txt' is in {encoding.upper()},"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("{0},a comment of some kind,{0}.5", "3 columns, separated by commas"),
        ('{0},"one, two, three",1', "3 columns, separated by commas"),
        ("{0}\tan entry", "2 columns, separated by tabs"),
        ("{0};x;y;z", "4 columns, separated by semicolons"),
        ('{{"text": "number {0}"}}', "JSON records"),
    ],
)
def test_what_looks_like_a_table_is_reported(tmp_path, line, form):
    text = "\n".join(line.format(number) for number in range(60))
    (tmp_path / "a.txt").write_text(text)
    _, lost = read(tmp_path)
    assert lost.tables == 1
    (said,) = lost.warnings()
    assert f"'{tmp_path / 'a.txt'}' looks like " in said
    assert form in said


def test_prose_does_not_look_like_a_table(tmp_path):
    lines = [
        "It rained, and rained, and rained.",
        "Nobody came that day.",
        "The sea was grey, the sky was not.",
        "A dog; a cat; and a line of birds.",
        "Then, in the evening, the lights went out, one by one.",
        "She said nothing.",
    ]
    (tmp_path / "a.txt").write_text("\n".join(lines * 10))
    assert read(tmp_path)[1].warnings() == []


def test_a_paragraph_that_is_held_out_is_not_called_unusable(
    tmp_path, tokenizer
):
    (tmp_path / "a.txt").write_text(SENTENCE)
    with pytest.raises(
        ValueError, match="The only paragraph of the corpus is held out"
    ):
        prepare_corpus(
            [TextFiles("*.txt", root=tmp_path)],
            tokenizer,
            sequence_length=16,
            held_out_fraction=0.999999,
            cache_dir=tmp_path / "cache",
        )


def test_the_beginnings_of_files_are_read(tmp_path, monkeypatch):
    write_lines(tmp_path / "a.txt", 10, 10)
    source = TextFiles("*.txt", root=tmp_path)
    report = CorpusReport()
    assert source.read_beginnings(report)
    assert (report.lost.lines, report.lost.lost_lines) == (20, 10)
    monkeypatch.setattr(text_files, "_BEGINNING_BYTES", 100)
    report = CorpusReport()
    assert not source.read_beginnings(report)
    assert 0 < report.lost.lines < 10
