"""Questions from files that are read again whenever they are used."""

import json

import numpy as np
import pytest

from keras_distil.data.tasks import span_rows
from keras_distil.data.tasks.dev_split import digests_of
from keras_distil.data.tasks.span_rows import read_span_rows, scan_span_files
from keras_distil.data.tasks.tables import open_table


def rows(count, start=0, **more):
    return [
        {
            "id": f"q{number}",
            "question": f"Where is {number}?",
            "context": f"The number {number} is here.",
            "answers": [{"text": "here", "answer_start": 16}],
            **more,
        }
        for number in range(start, start + count)
    ]


def write(path, lines):
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def write_squad(path, lines):
    paragraphs = [
        {"context": row.pop("context"), "qas": [row]} for row in lines
    ]
    data = [{"title": "t", "paragraphs": paragraphs}]
    path.write_text(json.dumps({"version": "1.1", "data": data}))
    return path


@pytest.fixture
def sources(tmp_path, monkeypatch):
    monkeypatch.setattr(span_rows, "_BATCH", 2)
    return [
        open_table(write(tmp_path / "a.jsonl", rows(5))),
        write_squad(tmp_path / "b.json", rows(3, start=5)),
    ]


def test_they_are_those_of_one_reading(sources):
    expected = read_span_rows(sources, {}, is_training=True)
    files = scan_span_files(sources, {})
    assert len(files) == len(expected) == 8
    for _ in range(2):
        assert list(files.examples()) == expected
    chosen = np.arange(8) % 2 == 1
    assert files.chosen(chosen) == expected[1::2]
    ids = digests_of([each.id for each in expected])
    np.testing.assert_array_equal(files.ids, ids)
    assert len(set(files.contexts)) == len(set(files.questions)) == 8


def test_ids_that_are_repeated_anywhere(sources, tmp_path):
    again = open_table(write(tmp_path / "c.jsonl", rows(2, start=6)))
    with pytest.raises(
        ValueError,
        match=r"b.json', '.*c.jsonl': ids are repeated \(2, the first is 'q6'",
    ):
        scan_span_files([*sources, again], {})
    # Rows without ids are numbered, through all files.
    numbered = [
        open_table(
            write(
                tmp_path / name,
                [
                    {k: x for k, x in row.items() if k != "id"}
                    for row in rows(3)
                ],
            )
        )
        for name in ("d.jsonl", "e.jsonl")
    ]
    files = scan_span_files(numbered, {})
    assert [each.id for each in files.examples()] == list("123456")


def test_what_is_wrong_is_one_line(sources, tmp_path):
    bad = rows(1, start=20, answers=[{"text": "here", "answer_start": 3}])
    table = open_table(write(tmp_path / "c.jsonl", bad))
    with pytest.raises(ValueError, match="1 answers in .* are not in the con"):
        scan_span_files([*sources, table], {})
    empty = tmp_path / "empty.json"
    write_squad(empty, [])
    with pytest.raises(ValueError, match="a question or more. Received: none"):
        scan_span_files([empty], {})
