"""Rows of one's own: columns, labels, what is left out, what is held out."""

import hashlib
import json
import random

import numpy as np
import pytest

from keras_distil.data.tasks.dev_split import (
    check_shared,
    choose_dev,
    text_digests,
)
from keras_distil.data.tasks.tables import open_table
from keras_distil.data.tasks.text_rows import RowForm, read_text_rows


def table(folder, rows, name="a.jsonl"):
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(rows)
    return open_table(path)


def read(folder, rows, kind="classification", name="a.jsonl", **options):
    columns = options.pop("columns", {})
    separator = options.pop("separator", "|")
    form = RowForm(kind, columns, separator)
    return read_text_rows([table(folder, rows, name)], form, **options)


def all_texts(rows):
    return [text for first, _ in rows.texts() for text in first]


# === Columns ===


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (("Text", "LABEL"), ["Text"]),
        (("id", "sentence", "category"), ["sentence"]),
        (("label", "premise", "hypothesis"), ["premise", "hypothesis"]),
        (("sentence2", "sentence1", "label"), ["sentence1", "sentence2"]),
        (("text", "text_pair", "target"), ["text", "text_pair"]),
    ],
)
def test_obvious_columns_are_found(tmp_path, columns, found):
    rows = [
        {name: f"{name} {number % 2}" for name in columns}
        for number in range(2)
    ]
    for number, row in enumerate(rows):
        row[columns[0]] = f"{row[columns[0]]} {number}"
    read_rows = read(tmp_path, rows, label_names=None)
    assert read_rows.tables[0][1] == found
    assert read_rows.is_pair == (len(found) == 2)


ROWS = [
    {"body": "one", "topic": "x", "text": "1", "n": 3},
    {"body": "two", "topic": "y", "text": "2", "n": 4},
]
BAD_COLUMNS = {
    "an unknown one": (
        {"text": "bdy"},
        r"`columns.text` must name a column. The nearest is 'body'. Received: "
        r"'bdy'. Columns as read: \['body', 'topic', 'text', 'n'\]. First row "
        r"as read: \['one', 'x', '1', 3\]. Fields of .csv are separated by",
    ),
    "several obvious ones": (
        {},
        "`columns.text` .* text, body could all be me",
    ),
    "numbers": ({"text": "n"}, "line 1: the text in 'n' must be a text. .*: 3"),
}


@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_bad_columns(tmp_path, name):
    columns, said = BAD_COLUMNS[name]
    with pytest.raises(ValueError, match=said):
        read(tmp_path, ROWS, columns=columns)


def test_a_wrong_delimiter_shows_in_the_message(tmp_path):
    text = "text;label\nfine;good\n"
    said = (
        r"no column has an obvious name. Columns as read: \['text;label'\]. "
        r"First row as read: \['fine;good'\]. Fields of .csv are separated"
    )
    with pytest.raises(ValueError, match=said):
        read(tmp_path, text, name="a.csv")


def test_a_column_that_is_there_twice(tmp_path):
    with pytest.raises(ValueError, match="'text'.* is there 2 times"):
        read(
            tmp_path,
            "text,text,label\na,b,c\n",
            name="a.csv",
            columns={"text": "text"},
        )


# === Labels ===


def classes(folder, labels, **options):
    rows = [{"text": f"t{i}", "label": x} for i, x in enumerate(labels)]
    return read(folder, rows, **options)


def test_classes_are_sorted(tmp_path):
    rows = classes(tmp_path, ["b", " c ", "a", "b"])
    assert rows.label_names == ("a", "b", "c")
    assert rows.labels.dtype == np.int32
    assert list(rows.labels) == [1, 2, 0, 1]
    assert classes(tmp_path, [10, 9, 9]).label_names == ("9", "10")
    assert classes(tmp_path, [True, False]).label_names == ("false", "true")
    rows = classes(tmp_path, ["b", "a"], label_names=["b", "z", "a"])
    assert rows.label_names == ("b", "z", "a") and list(rows.labels) == [0, 2]


BAD_LABELS = {
    "one class": (["a", "a"], {}, r"two labels or more. Received: \['a'\]"),
    "floats": (
        [0.5, 1.25],
        {},
        "must be classes. Received: numbers such as 0.5. Use the kind regress",
    ),
    "texts": (
        [f"text {i}" for i in range(50)],
        {},
        "must repeat. Received: 50 different ones in 50 rows, such as 'text 0'",
    ),
    "another one": (
        ["good", "bda"],
        {"label_names": ["good", "bad"]},
        r"line 2: the label must be one of \['good', 'bad'\], `labels`. "
        "Received: 'bda'; the nearest is 'bad'",
    ),
    "a list": (["a", ["a"]], {}, "line 2: .* of the kind multi_label"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_labels(tmp_path, name):
    labels, options, said = BAD_LABELS[name]
    with pytest.raises(ValueError, match=said):
        classes(tmp_path, labels, **options)


def test_floats_may_be_names(tmp_path):
    rows = classes(tmp_path, [0.0, 1.0], label_names=["1.0", "0.0"])
    assert list(rows.labels) == [1, 0]


def test_missing_labels_and_empty_texts_are_counted(tmp_path):
    rows = [
        {"text": "a", "label": "x"},
        {"text": "b", "label": None},
        {"text": " ", "label": "y"},
        {"text": None, "label": "y"},
        {"text": "c", "label": float("nan")},
        {"text": "d", "label": "NaN"},
        {"text": "e", "label": "y"},
        {"text": "A ", "label": "x"},
        *({"text": f"f{i}", "label": "x"} for i in range(3)),
    ]
    found = read(tmp_path, rows)
    assert all_texts(found) == ["a", "e", "A ", "f0", "f1", "f2"]
    assert list(found.labels) == [0, 1, 0, 0, 0, 0]
    assert found.remarks() == [
        f"2 of the 11 rows of {found.name} have an empty text and are left "
        "out.",
        f"3 of the 11 rows of {found.name} have no label and are left out.",
        f"1 of the 11 rows of {found.name} repeat the text of another one.",
    ]
    with pytest.raises(ValueError, match="Received: of 6 rows 2 have an empty"):
        read(tmp_path, rows[:6])


def test_several_labels_in_every_form(tmp_path):
    wanted = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    lists = [["a", "c"], [], ["b"]]
    texts = ["t0", "t1", "t2"]
    forms = [
        (lists, {}),
        (["c|a", "", "b"], {}),
        (["a; c", "", "b"], {"separator": ";"}),
        ([json.dumps(x) for x in lists], {}),
    ]
    for values, options in forms:
        rows = [
            {"text": text, "label": value}
            for text, value in zip(texts, values, strict=True)
        ]
        found = read(tmp_path, rows, "multi_label", **options)
        assert found.label_names == ("a", "b", "c")
        np.testing.assert_array_equal(found.labels, wanted)
    flags = [
        dict(zip(("text", "a", "b", "c"), (text, *map(int, row)), strict=True))
        for text, row in zip(texts, wanted, strict=True)
    ]
    found = read(
        tmp_path, flags, "multi_label", columns={"label": ["a", "b", "c"]}
    )
    np.testing.assert_array_equal(found.labels, wanted)
    flags[1]["b"] = 2
    with pytest.raises(
        ValueError, match="line 2: the column 'b' .* 0 or 1.*: 2"
    ):
        read(tmp_path, flags, "multi_label", columns={"label": ["a", "b", "c"]})


def test_numbers(tmp_path):
    rows = classes(tmp_path, ["1.5", 2, "-3e1", None], kind="regression")
    assert rows.labels.dtype == np.float32 and rows.label_names is None
    assert list(rows.labels) == [1.5, 2.0, -30.0]
    with pytest.raises(ValueError, match="line 2: .* a number. Received: 'x'"):
        classes(tmp_path, [1.0, "x"], kind="regression")
    with pytest.raises(ValueError, match="a number. Received: 'inf'"):
        classes(tmp_path, [1.0, "inf"], kind="regression")
    with pytest.raises(ValueError, match="must differ. Received: 1 in every"):
        classes(tmp_path, [1.0, 1], kind="regression")


def test_ids_must_differ(tmp_path):
    rows = [
        {"text": f"t{i}", "label": "ab"[i % 2], "id": x}
        for i, x in enumerate(["A", "a", "b", "b"])
    ]
    assert len(read(tmp_path, rows[:3]).ids) == 3
    with pytest.raises(
        ValueError, match="ids must be different. Received: 'b'"
    ):
        read(tmp_path, rows)
    assert read(tmp_path, rows, columns={"id": False}).ids is None


def test_half_a_character(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "\ud800", "label": "y"}]
    with pytest.raises(ValueError, match="line 2: .*half a surrogate pair"):
        read(tmp_path, rows)


def test_a_file_that_changes(tmp_path):
    rows = classes(tmp_path, ["a", "b", "a"])
    table(tmp_path, [{"text": "t", "label": "a"}])
    with pytest.raises(ValueError, match="must not change while it is read"):
        list(rows.texts())


def test_files_of_a_list_hold_the_same(tmp_path):
    one = table(tmp_path, [{"text": "a", "label": "x"}])
    other = table(tmp_path, [{"text": "b", "label": "y"}], "b.jsonl")
    rows = read_text_rows([one, other], RowForm())
    assert all_texts(rows) == ["a", "b"] and list(rows.labels) == [0, 1]
    pair = table(
        tmp_path, [{"text": "b", "text_pair": "c", "label": "y"}], "c.jsonl"
    )
    with pytest.raises(ValueError, match="must hold the same. Received: "):
        read_text_rows([one, pair], RowForm())


# === The development part ===


def reference(texts, labels, fraction):
    """Of each class the smallest hashes, until there are enough rows."""

    def digest(text):
        raw = hashlib.blake2b(
            text.strip().casefold().encode(), digest_size=8
        ).digest()
        return int.from_bytes(raw, "little")

    groups = {}
    for place, (text, label) in enumerate(zip(texts, labels, strict=True)):
        groups.setdefault(digest(text), []).append((label, place))
    chosen = set()
    for label in set(labels):
        own = sorted(
            key for key, rows in groups.items() if min(rows)[0] == label
        )
        total = sum(len(groups[key]) for key in own)
        taken = 0
        for key in own[:-1]:
            if taken >= max(1, round(fraction * total)):
                break
            chosen |= {place for _, place in groups[key]}
            taken += len(groups[key])
    return chosen


@pytest.mark.parametrize("fraction", [0.1, 0.37])
def test_the_smallest_hashes_of_each_class_are_held_out(fraction):
    generator = random.Random(0)
    texts = [f"text {generator.randint(0, 150)}" for _ in range(300)]
    labels = [generator.choice([0, 0, 0, 1, 2]) for _ in texts]
    found = choose_dev(text_digests(texts), fraction, np.array(labels))
    assert set(np.flatnonzero(found)) == reference(texts, labels, fraction)
    held_out = {text for text, x in zip(texts, found, strict=True) if x}
    kept = {text for text, x in zip(texts, found, strict=True) if not x}
    assert not held_out & kept
    # The order of the rows does not matter.
    order = generator.sample(range(300), 300)
    again = choose_dev(
        text_digests([texts[i] for i in order]),
        fraction,
        np.array([labels[i] for i in order]),
    )
    np.testing.assert_array_equal(again, found[order])


def test_a_class_of_one_text_stays_in_training():
    digests = text_digests(["a", "b", "c", "c"])
    found = choose_dev(digests, 0.5, np.array([0, 0, 1, 1]))
    assert found[:2].sum() == 1 and not found[2:].any()


def test_hashes_are_blind_to_case_and_tell_pairs_apart():
    one = text_digests(["a", "A b ", "x"], ["b", "c", "x"])
    other = text_digests(["A", "ab", "x"], ["B", "c", "x"])
    assert list(one == other) == [True, False, True]


def test_shared_texts_are_counted_and_many_refused():
    train = text_digests([f"t{i}" for i in range(100)])
    names = ("'train.csv'", "'dev.csv'")
    few = text_digests(["T1 ", *(f"d{i}" for i in range(19))])
    assert check_shared(train, few, names) == [
        "1 of the 20 rows of 'dev.csv' have the text of a row of 'train.csv'."
    ]
    assert check_shared(train, few[1:], names) == []
    with pytest.raises(
        ValueError, match="1 of the 19 rows .* At most 5% may be"
    ):
        check_shared(train, few[:19], names)
