"""A Distiller refuses batches that do not fit before anything is changed."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, losses
from keras_distil.training.objectives.batch_checks import BatchChecks
from keras_distil.utils.graph_checks import BatchError


def make_distiller(teacher, **options):
    student = toy.make_student(teacher)
    distiller = Distiller(teacher, student, losses.triple_loss())
    distiller.compile(keras.optimizers.Adam(0.1), **options)
    return distiller


def state_of(distiller):
    variables = [
        *distiller.variables,
        *distiller.optimizer.variables,
        *(v for metric in distiller.metrics for v in metric.variables),
    ]
    return [
        np.array(variable.numpy())
        for variable in variables
        # Dropout may draw before a batch is refused.
        if "seed_generator" not in variable.path
    ]


@pytest.fixture(scope="module")
def distillers(teacher):
    """Trains on a batch, in a graph whose sizes are not known."""
    made = {
        "graph": make_distiller(
            teacher, micro_batches=2, steps_per_execution=2
        ),
        "eager": make_distiller(teacher, run_eagerly=True),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchChecks, "require", late(BatchChecks.require))
        for distiller in made.values():
            batches = toy.dataset(*[toy.make_batch()] * 2)
            distiller.fit(batches, verbose=0)
            distiller.evaluate(batches, verbose=0)
    return made


def late(require):
    """Makes checks end long after everything that does not wait for them."""

    def wait(condition):
        time.sleep(0.1)
        return condition

    def waiting(self, condition, message, values):
        if not tf.executing_eagerly():
            condition = tf.numpy_function(wait, [condition], tf.bool)
            condition = tf.ensure_shape(condition, [])
        require(self, condition, message, values)

    return waiting


UNFIT = {
    "shifted": (
        lambda x, y, w: (x, np.pad(y, ((0, 0), (0, 2))), w),
        "`y` must have the shape of `token_ids`. Received: `y` of shape (4, 9),"
        " `token_ids` of shape (4, 7).",
    ),
    "one weight per row": (
        lambda x, y, w: (x, y, w[:, :1]),
        "`sample_weight` must have the shape of `token_ids`. Received: "
        "`sample_weight` of shape (4, 1), `token_ids` of shape (4, 7).",
    ),
    "too long": (
        lambda x, y, w: tf.nest.map_structure(
            lambda v: np.tile(v, (1, 2)), (x, y, w)
        ),
        "`token_ids` must have at least 1 token per example and at most 12, "
        "the positions. Received: shape (4, 14).",
    ),
    "id": (
        lambda x, y, w: (
            {**x, "token_ids": toy.set_at(x["token_ids"], (0, 0), 51)},
            y,
            w,
        ),
        "`token_ids` must be from 0 to 49 (rows of the vocabulary). Received: "
        "values from 0 to 51.",
    ),
    "target": (
        lambda x, y, w: (x, toy.set_at(y, (0, 0), -7), w),
        "`y` must be from 0 to 49 (rows of the vocabulary), or -100 to leave "
        "one out. Received: values from -7 to 44.",
    ),
    "weight": (
        lambda x, y, w: (x, y, toy.set_at(w, (1, 1), -0.5)),
        "`sample_weight` must be finite and at least 0; 0 leaves one out. "
        "Received: -0.5.",
    ),
    "nan": (
        lambda x, y, w: (x, y, toy.set_at(w, (1, 1), np.nan)),
        "`sample_weight` must be finite and at least 0; 0 leaves one out. "
        "Received: nan.",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", UNFIT)
@pytest.mark.parametrize(
    ("how", "mode"),
    [
        # Tracing a step takes ten seconds.
        pytest.param("fit", "graph", marks=pytest.mark.slow),
        ("fit", "eager"),
        ("evaluate", "graph"),
        ("evaluate", "eager"),
    ],
)
def test_an_unfit_batch_changes_nothing(distillers, mode, case, how):
    distiller = distillers[mode]
    change, message = UNFIT[case]
    batch = toy.dataset(change(*toy.make_batch()))
    # Both begin by resetting the metrics.
    distiller.reset_metrics()
    before = state_of(distiller)
    with pytest.raises(BatchError) as caught:
        getattr(distiller, how)(batch, verbose=0)
    assert str(caught.value) == message
    for old, new in zip(before, state_of(distiller), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.slow
def test_sizes_that_are_known_are_refused_when_the_step_is_traced(distillers):
    x, y, weight = toy.make_batch()
    batch = tf.data.Dataset.from_tensors((x, y[:, :5], weight))
    with pytest.raises(ValueError) as caught:
        distillers["graph"].fit(batch, verbose=0)
    assert str(caught.value) == (
        "`y` must have the shape of `token_ids`. Received: `y` of shape (4, 5),"
        " `token_ids` of shape (4, 7)."
    )


@pytest.mark.slow
def test_single_batches_are_checked(distillers):
    distiller = distillers["eager"]
    x, y, weight = toy.make_batch()
    for call in (distiller.train_on_batch, distiller.test_on_batch):
        with pytest.raises(ValueError, match="^`sample_weight` must be finit"):
            call(x, y, -weight)
    with pytest.raises(ValueError, match="^`sample_weight` must be finite"):
        distiller.gradient_norms((x, y, -weight))


@pytest.mark.parametrize(
    "mode", [pytest.param("graph", marks=pytest.mark.slow), "eager"]
)
@pytest.mark.parametrize("how", ["predict", "predict_on_batch", "__call__"])
def test_inputs_of_calls_are_checked(distillers, mode, how):
    call = getattr(distillers[mode], how)
    options = {"verbose": 0} if how == "predict" else {}
    x, _, _ = toy.make_batch()
    for inputs, message in (
        ({**x, "token_ids": x["token_ids"] + 50}, "`token_ids` must be from 0"),
        ({"token_ids": x["token_ids"]}, "The inputs must be .'token_ids', 'pa"),
        (
            {**x, "mask_positions": np.full((4, 2), 7)},
            "`mask_positions` must be from 0 to 6",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{message}") as caught:
            call(inputs, **options)
        assert "\n" not in str(caught.value)


def test_tensors_of_unknown_rank_are_refused(distillers):
    spec = (
        dict.fromkeys(("token_ids", "padding_mask"), tf.TensorSpec(None)),
        tf.TensorSpec(None),
        tf.TensorSpec(None),
    )
    data = tf.data.Dataset.from_generator(
        lambda: iter([toy.make_batch()]), output_signature=spec
    )
    with pytest.raises(ValueError, match="unknown shape; use `tf.ensure_shape"):
        distillers["graph"].fit(data, verbose=0)
