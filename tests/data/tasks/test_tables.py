"""Tables of files, against what other programs read."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from keras_distil.data.tasks import tables, text_lines
from keras_distil.data.tasks.tables import open_table, suffix_of
from keras_distil.data.tasks.text_lines import read_lines

ODD = (
    ["text", "label"],
    ["plain", "a"],
    ['with "quotes", and a comma', "b"],
    ["two\nlines", "a"],
    ["a tab\tand a \u2028 separator", "b"],
    ["", "a"],
    [" spaces ", "b"],
    ["half \x1c a file separator", "a"],
)


def write(path, text, encoding="utf-8"):
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(encoding)))
    else:
        path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_fields_are_those_that_were_written(tmp_path, suffix, ending, mark):
    path = tmp_path / f"rows{suffix}"
    plain = tmp_path / "plain"
    with plain.open("w", newline="", encoding="utf-8") as file:
        csv.writer(
            file,
            delimiter="\t" if "tsv" in suffix else ",",
            lineterminator=ending,
        ).writerows(ODD)
    write(path, mark + plain.read_bytes().decode())
    table = open_table(path)
    assert table.columns == tuple(ODD[0])
    assert [row for _, row in table.rows()] == list(ODD[1:])
    # A row's place is its first line; the third one has two.
    assert [place for place, _ in table.rows()] == [2, 3, 4, 6, 7, 8, 9]


def test_a_file_without_a_last_line_feed_and_with_blank_lines(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\n\na,1\n\n\nb,2")
    assert list(open_table(path).rows()) == [(3, ["a", "1"]), (6, ["b", "2"])]


def test_objects_may_lack_keys_and_have_more(tmp_path):
    rows = [{"text": "a", "label": 1}, {"label": None, "more": 2, "text": "b"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    table = open_table(path)
    assert table.columns == ("text", "label")
    assert list(table.rows()) == [(1, ["a", 1]), (2, ["b", None])]
    (batch,) = table.batches(["label", "text"])
    assert batch == ([1, 2], [[1, None], ["a", "b"]])


@pytest.mark.parametrize(
    "encoding", ["latin-1", "utf-16", "utf-16-le", "cp1252"]
)
def test_other_encodings(tmp_path, encoding):
    path = write(tmp_path / "a.csv", "text,label\nÄpfel é,ja\n", encoding)
    assert list(open_table(path, encoding).rows()) == [(2, ["Äpfel é", "ja"])]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 2**20])
def test_lines_do_not_depend_on_the_pieces_read(tmp_path, monkeypatch, piece):
    text = "\ufeffä line\r\nanother\u2028one\n\nlast"
    path = write(tmp_path / "a.txt", text)
    monkeypatch.setattr(text_lines, "_CHUNK_BYTES", piece)
    assert list(read_lines(path)) == [
        "ä line\r\n",
        "another\u2028one\n",
        "\n",
        "last",
    ]


@pytest.mark.parametrize("piece", [1, 4, 2**20])
def test_a_byte_of_another_encoding_is_named(tmp_path, monkeypatch, piece):
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\nä,1\nné,2\n".encode()[:-5] + b"\xe9,2\n")
    monkeypatch.setattr(text_lines, "_CHUNK_BYTES", piece)
    said = (
        r"line 3: the text must be utf-8. Received: byte 0xe9 at offset 17 of "
        r"the file. Name the file's own encoding in the task's `encoding`, such"
    )
    with pytest.raises(ValueError, match=said):
        list(open_table(path).rows())
    assert list(open_table(path, "latin-1").rows())[1] == (3, ["n\u00e9", "2"])


def test_utf_16_without_a_byte_order_mark_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\nfine,1\n", "utf-16-be")
    said = (
        r"a.csv': the text must be utf-16. Received: bytes that are not "
        r"\(UTF-16 stream does not start with BOM\). Name the file's own "
    )
    with pytest.raises(ValueError, match=said):
        list(open_table(path, "utf-16").rows())


BAD = {
    "a row with three fields": (
        "a.csv",
        "text,label\nfine,1\na, b,2\n",
        r"line 3: a row must have 2 fields, as the first line has. Received: 3 "
        r"fields, \['a', ' b', '2'\]. A field with a comma must be in double",
    ),
    "a row with one": (
        "a.tsv",
        "text\tlabel\nfine\t1\nshort\n",
        r"line 3: a row must have 2 fields.*Received: 1 fields, \['short'\]",
    ),
    "a quote that is never closed": (
        "a.csv",
        'text,label\n"open,1\nmore,2\n',
        "line 2: a quoted field must end. Received: a double quote that is",
    ),
    "another quote that is never closed": (
        "a.csv",
        'text,label\nfine,1\n"open,1\nmore,2',
        "line 3: a quoted field must end.",
    ),
    "no rows": ("a.csv", "text,label\n", "has no rows. Give a file with some"),
    "nothing": ("a.csv", "", "has no rows"),
    "no objects": ("a.jsonl", "\n", "has no rows"),
    "no JSON": (
        "a.jsonl",
        '{"text": 1}\n{"te',
        "line 2: must be JSON .*per line",
    ),
    "no object": (
        "a.jsonl",
        '{"text": 1}\n[1]\n',
        "line 2: must be a JSON obj",
    ),
    "another ending": (
        "a.xlsx",
        "x",
        r"must end in .csv, .tsv, .jsonl, .ndjson",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables(tmp_path, name):
    file, text, said = BAD[name]
    path = write(tmp_path / file, text)
    with pytest.raises(ValueError, match=said):
        list(open_table(path).rows())


def test_a_long_quoted_field_is_a_quote_that_is_never_closed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tables, "LONGEST_LINE", 100)
    text = 'text,label\n"open,1\n' + "more,2\n" * 40 + '"\n'
    with pytest.raises(ValueError, match="line 2: a quoted field must end"):
        list(open_table(write(tmp_path / "a.csv", text)).rows())


def test_a_file_that_is_no_text(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "LONGEST_LINE", 100)
    path = write(tmp_path / "a.csv", "a\n" + "x" * 101)
    with pytest.raises(
        ValueError, match="line 2: a line must have at most 100"
    ):
        list(read_lines(path))


def test_damaged_and_missing_files(tmp_path):
    path = write(tmp_path / "a.csv.gz", "text,label\na,1\n")
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(ValueError, match="is not a whole file of gzip"):
        list(open_table(path).rows())
    path.write_text("text,label\na,1\n")
    with pytest.raises(ValueError, match="or give it a name without .gz"):
        open_table(path)
    with pytest.raises(
        FileNotFoundError, match="There is no file '.*none.csv'"
    ):
        open_table(tmp_path / "none.csv")


def test_the_ending_of_a_compressed_file(tmp_path):
    assert suffix_of(tmp_path / "a.TSV.gz") == ".tsv"
    assert suffix_of(tmp_path / "a.b.jsonl") == ".jsonl"


def test_a_file_is_read_as_it_is_used(tmp_path, monkeypatch):
    """A large file is not held in memory."""
    path = write(tmp_path / "a.csv", "text,label\n" + "a,1\n" * 20_000)
    monkeypatch.setattr(text_lines, "_CHUNK_BYTES", 100)
    read = []
    chunks = text_lines._chunks

    def counted(path):
        for chunk in chunks(path):
            read.append(len(chunk))
            yield chunk

    monkeypatch.setattr(text_lines, "_chunks", counted)
    rows = open_table(path).rows()
    read.clear()
    assert next(rows) == (2, ["a", "1"])
    assert sum(read) <= 200


GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "tables.json").read_text("utf-8")
)


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_fields_are_those_of_pandas(tmp_path, case):
    path = write(tmp_path / f"a{case['suffix']}", case["text"])
    table = open_table(path)
    assert table.columns == ("one", "two", "three")
    assert [row for _, row in table.rows()] == case["rows"]
