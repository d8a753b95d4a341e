"""Correlations of cosines with human scores."""

import numpy as np
import pytest
import toy

from keras_distil import evaluation, models

HEADER = "index\tsentence1\tsentence2\tscore"
ROWS = [
    "0\ta cat\ta cat\t5.000",
    "1\ta cat\ta dog\t2.5",
    '2\t"quoted\ta tax\t0',
    "3\ta dog\ta tax\t1",
]


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


VECTORS = {
    "a cat": [1.0, 0.0],
    "a dog": [1.0, 1.0],
    '"quoted': [0.0, 3.0],
    "a tax": [-1.0, 0.0],
}


def vectors(texts):
    return np.array([VECTORS[text] for text in texts])


def test_by_hand(tmp_path):
    evaluator = evaluation.STSEvaluator(write(tmp_path / "x", HEADER, *ROWS))
    np.testing.assert_array_equal(evaluator.scores, [5.0, 2.5, 0.0, 1.0])
    root = 0.5**0.5
    np.testing.assert_allclose(
        evaluator.similarities(vectors), [1.0, root, 0.0, -root], atol=1e-7
    )
    found = evaluator.evaluate(vectors)
    # Ranks 4, 3, 1, 2 and 4, 3, 2, 1: 1 - 6 * 2 / (4 * 15).
    assert found["spearman"] == pytest.approx(0.8)
    x, y = np.array([5.0, 2.5, 0.0, 1.0]), np.array([1.0, root, 0.0, -root])
    assert found["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_columns_by_number_and_name(tmp_path):
    lines = [row.split("\t", 1)[1] for row in ROWS]
    by_number = evaluation.STSEvaluator(
        write(tmp_path / "x", *lines), first=0, second=1, score=2
    )
    renamed = write(tmp_path / "y", "\ufeffone\ttwo\tgold", *lines)
    by_name = evaluation.STSEvaluator(
        renamed, first="one", second="two", score="gold"
    )
    for evaluator in (by_number, by_name):
        assert evaluator.first[2] == '"quoted'
        assert evaluator.evaluate(vectors)["spearman"] == pytest.approx(0.8)


def test_an_embedding_model(tmp_path, toy_teacher):
    model = models.embedding_model(models.load_teacher(toy_teacher))
    path = write(tmp_path / "x", HEADER, *ROWS)
    evaluator = evaluation.STSEvaluator(path, batch_size=2)
    first, second = (
        model.encode_text(side) for side in (evaluator.first, evaluator.second)
    )
    np.testing.assert_allclose(
        evaluator.similarities(model), (first * second).sum(1), atol=1e-6
    )
    assert evaluator.similarities(model)[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("lines", "options", "error", "message"),
    [
        (
            [HEADER, *ROWS, "4\ta\tb\thigh"],
            {},
            ValueError,
            "line 6: the score must be a number. Received: 'high'",
        ),
        ([HEADER, *ROWS, "4\ta\tb\tnan"], {}, ValueError, "must be a number"),
        (
            [HEADER, *ROWS, "4\t \tb\t1"],
            {},
            ValueError,
            "line 6: a sentence is empty",
        ),
        (
            [HEADER, "0\ta"],
            {},
            ValueError,
            "line 2 must have 4 columns or more. Received: 2",
        ),
        ([HEADER, ROWS[0]], {}, ValueError, "at least two pairs"),
        (ROWS, {}, ValueError, "must have the columns .* in its first line"),
        (
            [HEADER, *ROWS],
            {"first": 1},
            TypeError,
            "three names of columns, or three numbers from 0",
        ),
        ([HEADER, *ROWS], {"batch_size": 0}, ValueError, "`batch_size` must"),
    ],
)
def test_files_that_are_not_of_pairs(tmp_path, lines, options, error, message):
    path = write(tmp_path / "x", *lines)
    with pytest.raises(error, match=message):
        evaluation.STSEvaluator(path, **options)


def test_a_file_that_is_missing_or_not_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        evaluation.STSEvaluator(tmp_path / "none.tsv")
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8: .* at byte 0"):
        evaluation.STSEvaluator(tmp_path / "x")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (3, TypeError, "`model` must be an embedding model or a function"),
        (
            lambda texts: np.ones(len(texts)),
            ValueError,
            r"one vector per text, \(4, dimension\). Received: shape \(4,\)",
        ),
        (
            lambda texts: vectors(texts) / [[1.0, 0.0]],
            ValueError,
            "must return finite vectors",
        ),
    ],
)
def test_models_that_make_no_vectors(tmp_path, model, error, message):
    evaluator = evaluation.STSEvaluator(write(tmp_path / "x", HEADER, *ROWS))
    with np.errstate(all="ignore"), pytest.raises(error, match=message):
        evaluator.evaluate(model)


def test_a_model_without_vectors(tmp_path):
    evaluator = evaluation.STSEvaluator(write(tmp_path / "x", HEADER, *ROWS))
    with pytest.raises(TypeError, match="Received: ExactBertMaskedLM"):
        evaluator.evaluate(toy.make_teacher())
