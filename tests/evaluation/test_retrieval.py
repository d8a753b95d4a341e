"""Scores of retrieval, by hand and against a plain computation."""

import numpy as np
import pytest
import toy

from keras_distil import data, evaluation, models
from keras_distil.evaluation import retrieval
from keras_distil.evaluation.retrieval import score_query

ANGLES = {
    "east": 0,
    "north-east": 45,
    "north": 90,
    "west": 180,
    "rather east": 10,
    "rather north": 80,
}


def vectors(texts):
    angles = np.deg2rad([ANGLES[text] for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def make_set(relevant):
    return data.RetrievalSet(
        documents={
            "e": "east",
            "ne": "north-east",
            "n": "north",
            "w": "west",
        },
        queries={"qe": "rather east", "qn": "rather north"},
        relevant=relevant,
    )


def test_by_hand():
    # The order for "rather east" is e, ne, n, w; for "rather north" n, ne,
    # e, w.
    evaluator = evaluation.RetrievalEvaluator(
        make_set({"qe": {"ne": 1.0}, "qn": {"n": 2.0, "w": 1.0}})
    )
    found = evaluator.find(vectors, 3)
    np.testing.assert_array_equal(found.documents, [[0, 1, 2], [2, 1, 0]])
    scores = evaluator.evaluate(vectors)
    of_north = (2 + 1 / np.log2(5)) / (2 + 1 / np.log2(3))
    assert scores == pytest.approx(
        {
            "ndcg@10": (1 / np.log2(3) + of_north) / 2,
            "recall@1": (0 + 1 / 2) / 2,
            "recall@10": 1.0,
            "recall@100": 1.0,
            "mrr@10": (1 / 2 + 1) / 2,
        }
    )


def test_ranks_beyond_the_tenth():
    found = [str(number) for number in range(100)]
    late = score_query({"10": 1.0}, found)
    assert late == {
        "ndcg@10": 0.0,
        "recall@1": 0.0,
        "recall@10": 0.0,
        "recall@100": 1.0,
        "mrr@10": 0.0,
    }
    assert score_query({"9": 1.0}, found)["mrr@10"] == 0.1
    # More relevant documents than ranks: the best order fills all ten.
    many = {str(number): 1.0 for number in range(20)}
    scores = score_query(many, found)
    assert scores["ndcg@10"] == pytest.approx(1.0)
    assert scores["recall@10"] == 0.5


def test_blocks_change_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    names = [f"text {number}" for number in range(40)]
    table = dict(zip(names, generator.normal(size=(40, 4)), strict=True))
    texts = data.RetrievalSet(
        documents={f"d{n}": name for n, name in enumerate(names[:30])},
        queries={f"q{n}": name for n, name in enumerate(names[30:])},
        relevant={f"q{n}": {f"d{n}": 1.0, f"d{n + 9}": 3.0} for n in range(10)},
    )
    evaluator = evaluation.RetrievalEvaluator(texts)
    model = lambda texts: np.stack([table[text] for text in texts])  # noqa: E731
    whole = evaluator.evaluate(model)
    monkeypatch.setattr(retrieval, "BLOCK_DOCUMENTS", 7)
    assert evaluator.evaluate(model) == whole


def test_a_model_with_prompts(tmp_path, toy_teacher):
    encoder = models.load_teacher(toy_teacher)
    model = models.embedding_model(encoder, prompts={"query": "q: "})
    texts = data.RetrievalSet(
        documents={"a": "abc de", "b": "xyz", "c": "hello you"},
        queries={"q": "abd"},
        relevant={"q": {"b": 1.0}},
    )
    found = evaluation.RetrievalEvaluator(texts).find(model)
    cosines = model.encode_query("abd") @ (
        model.encode_documents(list(texts.documents.values())).T
    )
    np.testing.assert_allclose(
        found.scores, np.sort(cosines)[:, ::-1], atol=1e-6
    )


def test_from_files(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "one"}')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "two"}')
    (tmp_path / "test.tsv").write_text("q\td\t1")
    evaluator = evaluation.RetrievalEvaluator(tmp_path, qrels="test.tsv")
    assert evaluator.texts.relevant == {"q": {"d": 1.0}}
    path = toy.squad_file(tmp_path / "dev.json", [("one two", ["a", "b"])])
    evaluator = evaluation.RetrievalEvaluator.from_squad(path, batch_size=2)
    assert evaluator.texts.documents == {"0": "one two"}
    assert evaluator.batch_size == 2
