"""Which layers are framed, and which models have a dot."""

import pytest

from keras_distil import config
from keras_distil.runs.comparison import SideBySide
from keras_distil.runs.report import figures


def compared(teacher=6, student=3):
    return SideBySide(
        sequences=4,
        similarity=[[0.5] * (student + 1)] * (teacher + 1),
        guesses=[],
    )


def recipe(**student):
    return config.make_recipe(
        {
            "name": "toy",
            "teacher": {"source": "embedded"},
            "student": student,
            "data": {"sources": [{"kind": "documentation"}]},
            "distill": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3},
        }
    )


@pytest.mark.parametrize(
    ("student", "layers"),
    [
        ({"num_layers": 3}, [0, 2, 4]),
        ({"num_layers": 3, "layers": "last"}, [3, 4, 5]),
        ({"layers": [0, 4, 5]}, [0, 4, 5]),
        ({"num_layers": 3, "initialization": "random"}, []),
        ({"num_layers": 3, "hidden_dim": 96, "num_heads": 12}, []),
        # Not of this run.
        ({"num_layers": 3, "layers": "paper_code"}, []),
    ],
)
def test_layers_that_the_student_began_as(student, layers):
    assert figures.copied_layers(compared(), recipe(**student)) == layers
    section = figures.similarity(compared(), recipe(**student))
    assert ("Framed" in section.body) == bool(layers)


def test_layers_of_a_run_without_a_recipe():
    assert figures.copied_layers(compared(), None) == []
    assert figures.similarity(None, recipe()) is None


def test_rows_without_a_size_have_no_dot():
    rows = {
        "teacher": {"mlm_accuracy": 0.5, "latency_ms": 2.0, "size_mb": 4.0},
        "student": {"mlm_accuracy": 0.25, "latency_ms": 1.0},
    }
    (score, (dot,)), *others = figures.cost_dots(rows, None).items()
    assert (score, others) == ("masked words right, %", [])
    assert (dot.role, dot.latency_ms, dot.score) == ("teacher", 2.0, 50.0)
    assert figures.costs({}, None) is None
