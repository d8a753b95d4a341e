import gzip
import json
from collections import Counter

import pytest

from keras_distil.data.corpus import text_files
from keras_distil.data.corpus.text_files import CorpusReport, TextFiles


def read(root, pattern, **options):
    report = CorpusReport()
    source = TextFiles(pattern, root=root, **options)
    return list(source.paragraphs(report)), report


def records(*objects):
    return "".join(json.dumps(o) + "\n" for o in objects)


def test_text_file(tmp_path):
    (tmp_path / "a.txt").write_bytes("Ünï ©\r\n\n  two  \nlast".encode())
    paragraphs, report = read(tmp_path, "a.txt")
    assert paragraphs == ["Ünï ©", "two", "last"]
    assert report.skipped == {"empty line": 1}
    assert report.files == 1


def test_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\n")
    assert read(tmp_path, "a.txt")[0] == ["one"]


def test_line_separators_of_unicode_do_not_end_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("one\u2028two\x0bthree\n")
    assert read(tmp_path, "a.txt")[0] == ["one\u2028two\x0bthree"]


def test_patterns_are_recursive_and_sorted(tmp_path):
    for name in ("b/deep/2.txt", "b/1.txt", "a.txt", "b/3.text"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert read(tmp_path, "**/*.txt")[0] == (
        ["a.txt", "b/1.txt", "b/deep/2.txt"]
    )


def test_absolute_pattern_needs_no_root(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    assert read(None, str(tmp_path / "*.txt"))[0] == ["one"]


def test_compressed_files(tmp_path):
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("one\ntwo\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(records({"text": "three"}))
    assert read(tmp_path, "*.gz", field="text")[0] == ["one", "two", "three"]


def test_lines_that_are_not_utf_8_are_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\n\xff\xfe\ntwo\n\xc3\n")
    paragraphs, report = read(tmp_path, "a.txt")
    assert paragraphs == ["one", "two"]
    assert report.skipped == {"line not UTF-8": 2}


def test_lines_too_long_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_LINE_CHARACTERS", 10)
    monkeypatch.setattr(text_files, "_MAX_LINE_BYTES", 40)
    lines = ["é" * 10, "a" * 11, "b" * 40, "c" * 4000, "last", "d" * 41]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    paragraphs, report = read(tmp_path, "a.txt")
    assert paragraphs == ["é" * 10, "last"]
    assert report.skipped == {"line too long": 4}


def test_long_lines_are_read_in_bounded_pieces(monkeypatch):
    monkeypatch.setattr(text_files, "_MAX_LINE_BYTES", 40)
    sizes = []

    class File:
        pieces = [b"x" * 41, b"x" * 40, b"x" * 39 + b"\n", b"end\n", b""]

        def readline(self, size):
            sizes.append(size)
            return self.pieces.pop(0)

    lines = list(text_files._read_bounded_lines(File()))
    assert lines == [(0, 121, None), (121, 4, b"end\n")]
    assert max(sizes) == 41


def test_empty_file_is_counted(tmp_path):
    (tmp_path / "a.txt").touch()
    paragraphs, report = read(tmp_path, "a.txt")
    assert paragraphs == []
    assert report.skipped == {"empty file": 1}


def test_nothing_matches(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(FileNotFoundError, match=r"'\*\.txt' under root '/"):
        read(tmp_path, "*.txt")


@pytest.mark.parametrize("name", ["a.csv", "a.gz", "a", "a.txt.zip"])
def test_unsupported_extension(tmp_path, name):
    (tmp_path / name).write_text("one")
    with pytest.raises(ValueError, match=r"extension. Supported: \.txt, \.t"):
        read(tmp_path, "*")


@pytest.mark.parametrize("keep", [5, 40])
def test_truncated_gzip(tmp_path, keep):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"some words to compress\n" * 50)[:keep])
    with pytest.raises(ValueError, match="a.txt.gz' is truncated or damaged"):
        read(tmp_path, "a.txt.gz")


@pytest.mark.parametrize("damage", [0, 12])
def test_damaged_gzip(tmp_path, damage):
    data = bytearray(gzip.compress(b"some words to compress\n" * 50))
    data[damage] ^= 0xFF
    (tmp_path / "a.txt.gz").write_bytes(data)
    with pytest.raises(ValueError, match="a.txt.gz' is truncated or damaged"):
        read(tmp_path, "a.txt.gz")


def test_json_lines(tmp_path):
    text = records(
        {"text": " one "}, {"body": "x"}, ["text"], {"text": 3}, {"text": " "}
    )
    (tmp_path / "a.jsonl").write_text(text + "{broken\n")
    paragraphs, report = read(tmp_path, "a.jsonl", field="text")
    assert paragraphs == ["one"]
    assert report.skipped == {
        "JSON record lacks the text field": 2,
        "JSON record is not an object": 1,
        "empty line": 1,
        "invalid JSON": 1,
    }


def test_deeply_nested_json_is_invalid(tmp_path):
    nested = "[" * 200_000
    (tmp_path / "a.jsonl").write_text(nested + "\n" + records({"t": "one"}))
    paragraphs, report = read(tmp_path, "a.jsonl", field="t")
    assert paragraphs == ["one"]
    assert report.skipped == {"invalid JSON": 1}


def test_json_lines_without_field(tmp_path):
    (tmp_path / "a.jsonl").write_text(records({"text": "one"}))
    with pytest.raises(ValueError, match="`field` must name the key"):
        read(tmp_path, "a.jsonl")


def test_json_lines_without_a_usable_record(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n" + records({"b": "x", "a": 1}) * 2)
    with pytest.raises(ValueError) as error:
        read(tmp_path, "a.jsonl", field="text")
    message = str(error.value)
    assert "a.jsonl' has no usable record. First, line 2:" in message
    assert "lacks the text field (field='text')" in message
    assert "Keys found: ['a', 'b']" in message


def test_invalid_json_only(tmp_path):
    (tmp_path / "a.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match="line 1: invalid JSON .*none"):
        read(tmp_path, "a.jsonl", field="text")


def test_description_follows_size_and_time(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    source = TextFiles("*.txt", root=tmp_path)
    before = source.describe()
    assert json.loads(json.dumps(before)) == before
    assert source.describe() == before
    path.write_text("three")
    assert source.describe() != before


def test_description_does_not_name_the_root(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    described = TextFiles("*.txt", root=tmp_path).describe()
    assert str(tmp_path) not in json.dumps(described)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 19, 1000])
def test_units_hold_every_line_once(tmp_path, monkeypatch, size):
    text = "one\n\ntwo words\nthree\r\n\xe9t\xe9\na longer line\nlast"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text("other\n")
    whole, report = read(tmp_path, "*.txt")
    assert len(whole) == 7
    monkeypatch.setattr(text_files, "UNIT_BYTES", size)
    source = TextFiles("*.txt", root=tmp_path)
    assert len(source.units()) >= len(text) // size
    parts = CorpusReport()
    found = [p for unit in source.units() for p in unit.paragraphs(parts)]
    assert found == whole
    assert vars(parts) == vars(report)


def test_lines_too_long_across_units(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_LINE_CHARACTERS", 10)
    monkeypatch.setattr(text_files, "_MAX_LINE_BYTES", 40)
    monkeypatch.setattr(text_files, "UNIT_BYTES", 16)
    (tmp_path / "a.txt").write_text(f"one\n{'x' * 200}\ntwo\n{'y' * 90}")
    paragraphs, report = read(tmp_path, "a.txt")
    assert paragraphs == ["one", "two"]
    assert report.skipped == {"line too long": 2}


def test_compressed_file_is_one_unit(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "UNIT_BYTES", 4)
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("one\ntwo\n" * 9)
    (unit,) = TextFiles("a.txt.gz", root=tmp_path).units()
    assert len(list(unit.paragraphs(CorpusReport()))) == 18


def test_report_in_a_line():
    report = CorpusReport(2, 1234, 56789, skipped=Counter({"empty line": 3}))
    assert str(report) == (
        "1,234 paragraphs, 56,789 characters from 2 files; "
        "0.0% of the tokens are [UNK]; skipped: empty line: 3"
    )
    assert str(CorpusReport()).endswith("skipped: nothing")
