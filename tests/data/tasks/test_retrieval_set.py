"""Sets for retrieval from BEIR's layout and from SQuAD."""

import json

import pytest
import toy

from keras_distil import data

DOCUMENTS = [
    {"_id": "d1", "title": "Mars", "text": "is red."},
    {"_id": "d2", "title": "", "text": "Venus shines."},
    {"_id": "d3", "text": " The moon. ", "metadata": {}},
]
QUERIES = [
    {"_id": "q1", "text": "the red one"},
    {"_id": "q2", "text": "the bright one"},
    {"_id": "q3", "text": "none"},
]
QRELS = ["query-id\tcorpus-id\tscore", "q2\td2\t2", "q1\td1\t1", "q3\td3\t0"]


def write_beir(folder, documents=DOCUMENTS, queries=QUERIES, qrels=QRELS):
    folder.mkdir(exist_ok=True)
    for name, entries in (("corpus", documents), ("queries", queries)):
        lines = [
            entry if isinstance(entry, str) else json.dumps(entry)
            for entry in entries
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "qrels.tsv").write_text("\n".join(qrels) + "\n")
    return folder


@pytest.mark.parametrize("qrels", [QRELS, QRELS[1:]])
def test_beir(tmp_path, qrels):
    found = data.load_retrieval(write_beir(tmp_path / "beir", qrels=qrels))
    assert found.documents == {
        "d1": "Mars is red.",
        "d2": "Venus shines.",
        "d3": "The moon.",
    }
    assert found.queries == {"q2": "the bright one", "q1": "the red one"}
    assert found.relevant == {"q2": {"d2": 2.0}, "q1": {"d1": 1.0}}


def test_another_file_of_relevances(tmp_path):
    folder = write_beir(tmp_path / "beir")
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    found = data.load_retrieval(folder, qrels="qrels/test.tsv")
    assert len(found.queries) == 2
    with pytest.raises(FileNotFoundError, match=r"qrels.tsv'. A folder of re"):
        data.load_retrieval(folder)


def test_squad(tmp_path):
    dev = toy.squad_file(
        tmp_path / "dev.json", [("one two", ["a", "b"]), ("three", ["c"])]
    )
    train = toy.squad_file(
        tmp_path / "train.json", [("three", ["d"]), ("four", ["e"])]
    )
    found = data.squad_retrieval(dev, [train])
    assert list(found.documents.values()) == ["one two", "three", "four"]
    assert found.queries == {k: f"what is {k}?" for k in "abc"}
    assert found.relevant == {
        "a": {"0": 1.0},
        "b": {"0": 1.0},
        "c": {"1": 1.0},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"qrels": [*QRELS, "q1\td9\t1"]},
            "line 5 names a document that does not exist: 'd9'",
        ),
        (
            {"qrels": [*QRELS, "q9\td1\t1"]},
            "line 5 names a query that does not exist: 'q9'",
        ),
        (
            {"qrels": [*QRELS, "q1\td1\tgood"]},
            "line 5: the score must be a number. Received: 'good'",
        ),
        (
            {"qrels": [*QRELS, "q1 0 d1 1"]},
            "line 5 must have 3 columns: query, document and score. Rec",
        ),
        ({"qrels": QRELS[:1]}, "There must be a query with a relevant docu"),
        (
            {"documents": [*DOCUMENTS, DOCUMENTS[0]]},
            "line 4 repeats the id 'd1'",
        ),
        ({"documents": [*DOCUMENTS, "{"]}, "line 4 is not JSON"),
        (
            {"documents": [*DOCUMENTS, {"_id": 4, "text": "a"}]},
            'line 4 must have the strings "_id" and "text"',
        ),
        ({"queries": [*QUERIES, "[1]"]}, 'must have the strings "_id" and'),
        (
            {"documents": [*DOCUMENTS, {"_id": "d4", "text": " "}]},
            "The document 'd4' has no text. Remove it",
        ),
    ],
)
def test_folders_that_are_damaged(tmp_path, changes, message):
    folder = write_beir(tmp_path / "beir", **changes)
    with pytest.raises(ValueError, match=message):
        data.load_retrieval(folder)


def test_a_file_that_is_not_text(tmp_path):
    folder = write_beir(tmp_path / "beir")
    (folder / "corpus.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match="line 1 is not UTF-8"):
        data.load_retrieval(folder)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (({"d": "a"}, {}, {}), "There must be a query with a relevant docu"),
        (
            ({"d": "a"}, {"q": "b"}, {"q": {"e": 1.0}}),
            "names a document that does not exist: 'e'",
        ),
        (({"d": "a"}, {"q": "b"}, {}), "must have the same keys. Received: 1"),
    ],
)
def test_sets_that_do_not_fit(parts, message):
    with pytest.raises(ValueError, match=message):
        data.RetrievalSet(*parts)


def test_a_set_is_written_and_read_back(tmp_path):
    path = toy.squad_file(
        tmp_path / "dev.json",
        [("some text \u2603", ["1", "2"]), ("x\ty", ["3"])],
    )
    texts = data.squad_retrieval(path)
    data.save_retrieval(texts, tmp_path / "set")
    assert data.load_retrieval(tmp_path / "set") == texts
    with pytest.raises(FileExistsError, match="must be an empty folder"):
        data.save_retrieval(texts, tmp_path / "set")
