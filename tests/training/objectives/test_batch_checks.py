"""Batches that do not fit are refused in one line; others are unambiguous."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import losses
from keras_distil.training.objectives import make_objective
from keras_distil.utils import graph_checks

CLASSES = {
    "classification": 3,
    "multi_label": 3,
    "regression": 1,
    "token_classification": 4,
    "span": 1,
}
KINDS = ["masked_lm", *CLASSES]
SEGMENT_1 = np.array([[0, 0, 1, 1, 1, 1, 1]] * 4, "int32")


@pytest.fixture(scope="module")
def objectives(teacher):
    """With a loss on labels, soft targets and hidden states, by kind."""
    made = {
        "masked_lm": make_objective(
            teacher, toy.make_student(teacher), losses.triple_loss()
        )
    }
    for kind, outputs in CLASSES.items():
        pair = [
            toy.randomize(
                toy.task_model(encoder, kind, outputs, dropout=0.0), seed
            )
            for seed, encoder in enumerate(
                (teacher, toy.make_student(teacher)), 1
            )
        ]
        made[kind] = make_objective(*pair, losses.task_loss(kind))
    return made


def good(kind):
    """A Keras triple that fits: 4 examples of up to 7 tokens."""
    x, y, weight = toy.make_batch()
    ones = np.ones(4, "float32")
    if kind == "classification":
        return x, np.array([0, 2, 1, 2]), ones
    if kind == "multi_label":
        return x, np.eye(4, 3, dtype="float32"), ones
    if kind == "regression":
        return x, np.array([0.5, 2.0, -1.0, 4.0], "float32"), ones
    if kind == "token_classification":
        return x, y % 4, weight
    if kind == "span":
        last = x["padding_mask"].sum(axis=1) - 1
        return x, {"start": np.zeros(4, "int32"), "end": last}, ones
    return x, y, weight


def logs_of(objective, batch, training=False):
    """Logs, and the norm of the gradient."""
    named = objective.batch(batch)
    sizes = objective.denominators(named)
    sums, gradients = objective.compute_gradients(
        named, sizes, training=training
    )
    logs = {
        name: float(tf.math.divide_no_nan(sums[key], sizes[size]))
        for name, (key, size) in objective.metric_terms.items()
    }
    if training:
        logs["gradient_norm"] = float(tf.linalg.global_norm(gradients))
    return logs


def assert_same(objective, batch, expected, training=False):
    found = logs_of(objective, batch, training)
    wanted = logs_of(objective, expected, training)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


# === Refused, whatever the task ===

INPUTS = {
    "not a dict": (lambda x: x["token_ids"], "Received: x=ndarray"),
    "no mask": (
        lambda x: {"token_ids": x["token_ids"]},
        r"Received: x=\['token_ids'\]",
    ),
    "extra key": (
        lambda x: {**x, "attention_mask": x["token_ids"]},
        r"x=\['attention_mask', 'padding_mask', 'token_ids'\]",
    ),
    "unbatched": (
        lambda x: {k: v[0] for k, v in x.items()},
        r"`token_ids` must have shape \(batch, length\). Received: shape "
        r"\(7,\). Batch the data first.",
    ),
    "scalar": (lambda x: dict.fromkeys(x, 1), r"Received: shape \(\)"),
    "rank 3": (
        lambda x: {k: v[..., None] for k, v in x.items()},
        r"`token_ids` must have shape .*Received: shape \(4, 7, 1\)",
    ),
    "no tokens": (
        lambda x: {k: v[:, :0] for k, v in x.items()},
        r"at least 1 token per example.*Received: shape \(4, 0\)",
    ),
    "too long": (
        lambda x: {k: np.tile(v, (1, 2)) for k, v in x.items()},
        r"at most 12, the positions. Received: shape \(4, 14\)",
    ),
    "id too high": (
        lambda x: {**x, "token_ids": toy.set_at(x["token_ids"], (3, 6), 50)},
        "`token_ids` must be from 0 to 49 .*Received: values from .* to 50",
    ),
    "id below 0": (
        lambda x: {**x, "token_ids": toy.set_at(x["token_ids"], (1, 1), -1)},
        "`token_ids` must be from 0 .*Received: values from -1 to",
    ),
    "-100 is not an id": (
        lambda x: {**x, "token_ids": toy.set_at(x["token_ids"], (1, 1), -100)},
        "`token_ids` must be from 0 to 49 .*Received: values from -100",
    ),
    # As int32 it would be 5.
    "wraps": (
        lambda x: {
            **x,
            "token_ids": toy.set_at(x["token_ids"], (0, 0), 2**32 + 5, "int64"),
        },
        "Received: values from 0 to 4294967301",
    ),
    "wraps unsigned": (
        lambda x: {
            **x,
            "token_ids": toy.set_at(
                x["token_ids"], (0, 0), 2**64 - 3, "uint64"
            ),
        },
        "`token_ids` must be from 0 .*values from 0 to 9223372",
    ),
    "fraction": (
        lambda x: {**x, "token_ids": x["token_ids"] + 0.25},
        r"`token_ids` must hold whole numbers. Received: \d+.25",
    ),
    "nan id": (
        lambda x: {**x, "token_ids": x["token_ids"] * np.nan},
        "`token_ids` must hold whole numbers. Received: nan",
    ),
    "strings": (
        lambda x: {**x, "token_ids": x["token_ids"].astype(str)},
        "`token_ids` must hold numbers. Received: dtype string",
    ),
    "complex": (
        lambda x: {**x, "token_ids": x["token_ids"].astype("complex64")},
        "`token_ids` must hold numbers. Received: dtype complex64",
    ),
    "ragged": (
        lambda x: {**x, "token_ids": tf.ragged.constant([[1], [2, 3]])},
        "`token_ids` must be a dense tensor.*Received: a RaggedTensor",
    ),
    "sparse": (
        lambda x: {**x, "padding_mask": tf.sparse.from_dense([[1, 0]])},
        "`padding_mask` must be a dense tensor.*Received: a SparseTensor",
    ),
    "uneven lists": (
        lambda x: {**x, "token_ids": [[1, 2], [3]]},
        "`token_ids` must be one array of numbers",
    ),
    "mask too short": (
        lambda x: {**x, "padding_mask": x["padding_mask"][:, :5]},
        r"`padding_mask` of shape \(4, 5\), `token_ids` of shape \(4, 7\)",
    ),
    "mask of other rows": (
        lambda x: {**x, "padding_mask": x["padding_mask"][:1]},
        r"`padding_mask` of shape \(1, 7\), `token_ids` of shape \(4, 7\)",
    ),
    "mask of attention": (
        lambda x: {**x, "padding_mask": np.ones((4, 1, 7))},
        r"`padding_mask` must have shape \(batch, length\). Received: shape "
        r"\(4, 1, 7\)",
    ),
    "mask 2": (
        lambda x: {**x, "padding_mask": 2 * x["padding_mask"]},
        "`padding_mask` must be from 0 to 1 .*Received: values from 0 to 2",
    ),
    "mask below 0": (
        lambda x: {**x, "padding_mask": x["padding_mask"] - 1},
        "`padding_mask` must be .*Received: values from -1 to 0",
    ),
    "soft mask": (
        lambda x: {**x, "padding_mask": 0.5 * x["padding_mask"]},
        "`padding_mask` must hold whole numbers. Received: 0.5",
    ),
    "segment 2": (
        lambda x: {**x, "segment_ids": 2 * SEGMENT_1},
        "`segment_ids` must be from 0 to 1 .*Received: values from 0 to 2",
    ),
    "segments too short": (
        lambda x: {**x, "segment_ids": SEGMENT_1[:, :3]},
        r"`segment_ids` of shape \(4, 3\), `token_ids` of shape \(4, 7\)",
    ),
}


@pytest.mark.parametrize("kind", ["masked_lm", "classification"])
@pytest.mark.parametrize("case", INPUTS)
def test_inputs_that_are_refused(objectives, kind, case):
    change, message = INPUTS[case]
    x, y, weight = good(kind)
    with pytest.raises(ValueError, match=message) as caught:
        objectives[kind].batch((change(x), y, weight))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: -w, "`sample_weight` must be finite .*Received: -1"),
        (lambda w: w * np.nan, "`sample_weight` must be .*Received: nan"),
        (lambda w: w + np.inf, "`sample_weight` must be .*Received: inf"),
        (lambda w: w.astype(str), "`sample_weight` must hold numbers"),
        (lambda w: w[:2], r"`sample_weight` of shape \(2,? ?7?\), `token_ids`"),
        (lambda w: w[0], r"`sample_weight` must .*shape \((7,)?\)"),
        (lambda w: w[..., None, None], r"`sample_weight` must have shape \(ba"),
        (lambda w: {"a": w}, "Received: .*a"),
    ],
)
def test_weights_that_are_refused(objectives, kind, change, message):
    x, y, weight = good(kind)
    with pytest.raises(ValueError, match=message) as caught:
        objectives[kind].batch((x, y, change(weight)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x, y, w: (x, y, w, w), "Received: 4 parts"),
        (lambda x, y, w: (), "Received: 0 parts"),
        (lambda x, y, w: x, "Received: y=None"),
        (lambda x, y, w: (x, None, w), "Received: y=None"),
    ],
)
def test_parts_that_are_missing(objectives, kind, data, message):
    with pytest.raises(ValueError, match=message):
        objectives[kind].batch(data(*good(kind)))


# === Masked language modelling ===


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # Two tokens longer: everything would be shifted by two.
        (
            lambda y, w: (np.pad(y, ((0, 0), (0, 2))), w),
            r"`y` of shape \(4, 9\), `token_ids` of shape \(4, 7\)",
        ),
        (lambda y, w: (y[:, 1:], w), r"`y` of shape \(4, 6\)"),
        (lambda y, w: (y[:3], w), r"`y` of shape \(3, 7\)"),
        (lambda y, w: (y[:, 0], w), r"`y` must have shape \(batch, length\)"),
        (lambda y, w: (y, w[:, :1]), r"`sample_weight` of shape \(4, 1\), `to"),
        (lambda y, w: (y, w[:, 0]), r"shape \(batch, length\).*shape \(4,\)"),
        (lambda y, w: (y + 45, w), "`y` must be from 0 to 49 .*to 89"),
        (lambda y, w: (y - 1, w), "`y` must be from 0 to 49 .*from -1 to"),
        (lambda y, w: (y + 0.5, w), "`y` must hold whole numbers"),
        (lambda y, w: (y.astype(str), w), "`y` must hold numbers"),
        (lambda y, w: ({"start": y}, w), r"`y` must be one array.*\['start'\]"),
        (lambda y, w: (None, w), "Received: y=None"),
        (lambda y, w: (y, None), "Received: sample_weight=None"),
    ],
)
def test_masked_lm_batches_that_are_refused(objectives, change, message):
    x, y, weight = good("masked_lm")
    with pytest.raises(ValueError, match=message) as caught:
        objectives["masked_lm"].batch((x, *change(y, weight)))
    assert "\n" not in str(caught.value)


def test_weights_of_a_square_batch_are_not_spread_over_the_wrong_axis(
    objectives,
):
    x, y, weight = toy.make_batch((3, 2, 3))
    assert y.shape == (3, 3)
    with pytest.raises(ValueError, match=r"shape \(batch, length\).*\(3,\)"):
        objectives["masked_lm"].batch((x, y, weight[:, 0]))


SAME_MASKED_LM = {
    "int64": lambda x, y, w: (
        {k: v.astype("int64") for k, v in x.items()},
        y.astype("uint8"),
        w.astype("int64"),
    ),
    "bools": lambda x, y, w: (
        {**x, "padding_mask": x["padding_mask"] > 0},
        y,
        w > 0,
    ),
    "floats": lambda x, y, w: (
        {k: v.astype("float64") for k, v in x.items()},
        y.astype("float16"),
        w.astype("float64"),
    ),
    "one more axis": lambda x, y, w: (x, y[..., None], w[..., None]),
    "lists": lambda x, y, w: (
        {k: v.tolist() for k, v in x.items()},
        y.tolist(),
        w.tolist(),
    ),
    "-100 where nothing is masked": lambda x, y, w: (
        x,
        np.where(w > 0, y, -100),
        w,
    ),
    "-100 is the mask": lambda x, y, w: (
        x,
        np.where(w > 0, y, -100),
        np.ones_like(w),
    ),
    "segments of zeros": lambda x, y, w: (
        {**x, "segment_ids": 0 * x["token_ids"]},
        y,
        w,
    ),
    "a weight in the padding": lambda x, y, w: (
        x,
        y,
        np.where(x["padding_mask"] > 0, w, 1.0),
    ),
}


@pytest.mark.parametrize("case", SAME_MASKED_LM)
def test_masked_lm_batches_that_mean_the_same(objectives, case):
    batch = good("masked_lm")
    assert_same(objectives["masked_lm"], SAME_MASKED_LM[case](*batch), batch)


def test_a_loss_that_reads_all_targets_sees_the_tokens_themselves(objectives):
    x, y, weight = good("masked_lm")
    ignoring = np.where(weight > 0, y, -100)
    batch = objectives["masked_lm"].batch((x, ignoring, weight))
    np.testing.assert_array_equal(batch.targets, y)


def test_one_example_as_long_as_the_batch(objectives):
    batch = toy.make_batch((1,))
    assert batch[1].shape == (1, 1)
    logs = logs_of(objectives["masked_lm"], batch)
    assert all(np.isfinite(value) for value in logs.values())


# === What KerasHub's preprocessors make ===


def in_our_form(x, y, weight):
    """The same, written out position by position."""
    token_ids = np.array(x["token_ids"])
    targets, masked = token_ids.copy(), np.zeros(token_ids.shape, "float32")
    places = np.array(x["mask_positions"])
    for row, column in np.argwhere(np.array(weight) > 0):
        place = row, places[row, column]
        targets[place] = y[row, column]
        masked[place] = weight[row, column]
    rest = {k: np.array(x[k]) for k in ("token_ids", "padding_mask")}
    if "segment_ids" in x:
        rest["segment_ids"] = np.array(x["segment_ids"])
    return rest, targets, masked


def hub_batch(kind="masked_lm"):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{number}" for number in range(toy.VOCABULARY - len(words))]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
    keras.utils.set_random_seed(3)
    texts = (
        ["w1 w2 w3", "w4 w5 w6 w7"],
        ["w8 w9", "w30"],
    )
    if kind == "classification":
        made = keras_hub.models.BertTextClassifierPreprocessor(
            tokenizer, sequence_length=10
        )
        return made(x=texts, y=[2, 0], sample_weight=[1.0, 0.5])
    made = keras_hub.models.BertMaskedLMPreprocessor(
        tokenizer,
        sequence_length=10,
        mask_selection_length=4,
        mask_selection_rate=0.5,
    )
    # A tuple alone would be read as `x` and `y`.
    return made(x=texts)


def test_batches_of_kerashub_s_masked_lm_preprocessors(objectives):
    x, y, weight = hub_batch()
    count = np.array(weight).sum()
    # Positions are padded with zeros of weight 0.
    assert 2 <= count < np.array(weight).size
    assert np.array(x["segment_ids"]).any()
    objective = objectives["masked_lm"]
    assert_same(objective, (x, y, weight), in_our_form(x, y, weight), True)
    assert (
        float(objective.denominators(objective.batch((x, y, weight)))["masked"])
        == count
    )
    # DistilBERT's have no segments.
    x = {k: v for k, v in x.items() if k != "segment_ids"}
    assert_same(objective, (x, y, weight), in_our_form(x, y, weight))


def test_batches_of_kerashub_s_classifier_preprocessors(objectives):
    x, y, weight = hub_batch("classification")
    plain = {k: np.array(v).astype("int32") for k, v in x.items()}
    plain = plain, np.array([2, 0]), np.array([1.0, 0.5], "float32")
    assert_same(objectives["classification"], (x, y, weight), plain, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y, w: (p + 9, y, w), "`mask_positions` must be from 0 to 6"),
        (lambda p, y, w: (p - 1, y, w), "`mask_positions` .* values from -1"),
        (
            lambda p, y, w: (p[:2], y, w),
            "`mask_positions` must have the number",
        ),
        (lambda p, y, w: (p, y[:, :1], w), r"`y` of shape \(4, 1\), `mask_pos"),
        (lambda p, y, w: (p, y, w[:, 0]), r"shape \(batch, masks\).*\(4,\)"),
        (lambda p, y, w: (0 * p, y, w), "name a position once.* named 2 times"),
        (lambda p, y, w: (p[:, 0], y, w), "`mask_positions` must have shape"),
        (lambda p, y, w: (p, y + 50, w), "`y` must be from 0 to 49"),
    ],
)
def test_mask_positions_that_are_refused(objectives, change, message):
    x, y, _ = good("masked_lm")
    places = np.array([[0, 1]] * 4)
    places, y, weight = change(places, y[:, :2], np.ones((4, 2)))
    x = {**x, "mask_positions": places}
    with pytest.raises(ValueError, match=message):
        objectives["masked_lm"].batch((x, y, weight))


def test_a_fractional_weight_is_a_weight(objectives):
    x, y, weight = good("masked_lm")
    objective = objectives["masked_lm"]
    one, other = np.argwhere(weight > 0)[:2]
    values = []
    for share in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.25]):
        chosen = np.zeros_like(weight)
        chosen[tuple(one)], chosen[tuple(other)] = share
        values.append(logs_of(objective, (x, y, chosen))["mlm_loss"])
    # (0.5 a + 0.25 b) / 0.75
    assert values[2] == pytest.approx((2 * values[0] + values[1]) / 3, rel=1e-5)


# === Labels of tasks ===


@pytest.mark.parametrize(
    ("kind", "y", "message"),
    [
        ("classification", [0, 1, 2, 3], "from 0 to 2 .*values from 0 to 3"),
        ("classification", [0, -1, 2, 1], "from 0 to 2 .*values from -1"),
        (
            "classification",
            [0.0, 0.7, 1.0, 2.0],
            "whole numbers. Received: 0.7",
        ),
        ("classification", [0.0, np.nan, 1, 2], "whole numbers. Received: nan"),
        ("classification", [0, 1, 2], r"`y` of shape \(3,\), `token_ids` of s"),
        ("classification", 1, r"`y` must have shape \(batch,\).*shape \(\)"),
        ("classification", list("abcd"), "`y` must hold numbers.*string"),
        ("classification", np.eye(4, 3, dtype="int32"), "dtype int32"),
        (
            "classification",
            np.ones((4, 2)) / 2,
            r"\(batch, 3\).*shape \(4, 2\)",
        ),
        ("classification", np.ones((4, 3)), "with a sum of 1 .*a sum of 3"),
        ("classification", [[2.0, -1.0, 0.0]] * 4, "least value of -1"),
        ("classification", [[np.nan, 1.0, 0.0]] * 4, "must hold probabilities"),
        ("classification", np.ones((3, 3)) / 3, r"`y` of shape \(3, 3\)"),
        ("classification", np.ones((4, 1, 1), "int32"), "`y` must have shape"),
        ("classification", {"start": [0]}, r"one array. Received: y=\['start'"),
        ("classification", 4 * [2**32], "values from 4294967296"),
        # As int64 it would be -100, a weight of 0.
        (
            "classification",
            np.full(4, 2**64 - 100, "uint64"),
            "from 0 to 2 .*Received: values from 9223372036854775807",
        ),
        ("multi_label", np.ones(4), r"shape \(batch, labels\).*shape \(4,\)"),
        (
            "multi_label",
            np.ones((4, 2)),
            r"numbers from 0 to 1 of shape \(batch, 3\).*shape \(4, 2\)",
        ),
        ("multi_label", np.ones((3, 3)), r"`y` of shape \(3, 3\)"),
        ("multi_label", [[0.0, 1.0, 2.0]] * 4, "for each label. Received: 2"),
        ("multi_label", [[0.0, np.nan, 1.0]] * 4, "Received: nan"),
        ("regression", [0.0, 1.0, np.nan, 2.0], "finite .*Received: nan"),
        ("regression", [0.0, 1.0, -np.inf, 2.0], "finite .*Received: -inf"),
        ("regression", [0.0, 1e39, 0.0, 2.0], "finite .*Received: inf"),
        ("regression", np.ones((4, 2)), r"shape \(batch,\).*shape \(4, 2\)"),
        ("regression", np.ones(7), r"`y` of shape \(7,\)"),
        ("regression", list("abcd"), "`y` must hold numbers"),
        (
            "token_classification",
            np.ones((4, 9), int),
            r"`y` of shape \(4, 9\)",
        ),
        ("token_classification", np.ones(4, int), r"\(batch, length\).*\(4,\)"),
        ("token_classification", np.ones((4, 1), int), r"shape \(4, 1\), `tok"),
        ("token_classification", np.full((4, 7), 4), "from 0 to 3 .*to 4"),
        ("token_classification", np.full((4, 7), 0.5), "hold whole numbers"),
        ("token_classification", np.full((4, 7), -1), "from -1 to -1"),
    ],
)
def test_labels_that_are_refused(objectives, kind, y, message):
    x, _, weight = good(kind)
    y = y if isinstance(y, dict) else np.array(y)
    with pytest.raises(ValueError, match=message) as caught:
        objectives[kind].batch((x, y, weight))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: 3, r"\{'start', 'end'\}.*Received: y=int"),
        (lambda y: {"start": y["start"]}, r"Received: y=\['start'\]"),
        (lambda y: {**y, "end": y["end"][:2]}, r"`end` of shape \(2,\)"),
        (lambda y: {**y, "end": y["end"] + 5}, "`end` must be from 0 to 6"),
        (lambda y: {**y, "start": y["start"] - 1}, "`start` must .*from -1"),
        # In the padding: the loss was 125 million.
        (
            lambda y: {**y, "end": np.array([6, 3, 5, 5])},
            "`end` must be the position of a token, not of padding.* position "
            "5 in row 2",
        ),
        (
            lambda y: {**y, "start": np.array([0, 4, 0, 0])},
            "`start` must be the position of a token.* position 4 in row 1",
        ),
    ],
)
def test_spans_that_are_refused(objectives, change, message):
    x, y, weight = good("span")
    with pytest.raises(ValueError, match=message):
        objectives["span"].batch((x, change(y), weight))


def test_weights_of_tokens_are_not_those_of_examples(objectives):
    x, y, _ = toy.make_batch((4, 2, 3, 1))
    assert y.shape == (4, 4)
    with pytest.raises(ValueError, match=r"shape \(batch, length\).*\(4,\)"):
        objectives["token_classification"].batch((x, y % 4, np.ones(4)))


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_text_without_its_first_token_is_refused(objectives, kind):
    x, y, weight = good(kind)
    mask = toy.set_at(x["padding_mask"], (2, slice(None)), 0)
    batch = {**x, "padding_mask": mask}, y, weight
    with pytest.raises(ValueError, match="1 at position 0.* 0 in row 2"):
        objectives[kind].batch(batch)
    on_the_left = {k: v[:, ::-1] for k, v in x.items()}
    with pytest.raises(ValueError, match="pad on the right"):
        objectives[kind].batch((on_the_left, y, weight))
    weight = toy.set_at(weight, 2, 0.0)
    without = [0, 1, 3]
    assert_same(
        objectives[kind],
        (batch[0], y, weight),
        ({k: v[without] for k, v in x.items()}, y[without], weight[without]),
        True,
    )


SAME_LABELS = [
    ("classification", lambda y, w: (y[:, None], w[:, None])),
    ("classification", lambda y, w: (y.astype("float32"), w > 0)),
    ("classification", lambda y, w: (y.astype("float64")[:, None], w)),
    ("classification", lambda y, w: (y.astype("uint8"), None)),
    ("classification", lambda y, w: (y.tolist(), w.tolist())),
    ("classification", lambda y, w: (np.eye(3, dtype="float32")[y], w)),
    ("regression", lambda y, w: (y[:, None], w[:, None])),
    ("regression", lambda y, w: (y.astype("float64"), w.astype("int64"))),
    ("token_classification", lambda y, w: (y[..., None], w[..., None])),
    ("token_classification", lambda y, w: (y.astype("float32"), w > 0)),
    ("token_classification", lambda y, w: (np.where(w > 0, y, -100), w)),
    ("token_classification", lambda y, w: (np.where(w > 0, y, -100), None)),
    ("span", lambda y, w: ({k: v[:, None] for k, v in y.items()}, w[:, None])),
    ("span", lambda y, w: ({k: v.astype("float32") for k, v in y.items()}, w)),
    # Keras's `fit` passes the weights to each of the labels.
    ("span", lambda y, w: (y, {"start": w, "end": w})),
]


@pytest.mark.parametrize(("kind", "change"), SAME_LABELS)
def test_labels_that_mean_the_same(objectives, kind, change):
    x, y, weight = good(kind)
    assert_same(objectives[kind], (x, *change(y, weight)), (x, y, weight))


def test_weights_of_start_and_end_must_be_the_same(objectives):
    x, y, weight = good("span")
    with pytest.raises(ValueError, match="same for the start.* up to 1"):
        objectives["span"].batch((x, y, {"start": weight, "end": weight * 2}))
    with pytest.raises(ValueError, match=r"sample_weight=\['start'\]"):
        objectives["span"].batch((x, y, {"start": weight}))


def test_soft_labels_are_compared_with_their_distribution(objectives):
    objective = objectives["classification"]
    x, _, _ = good("classification")
    named = objective.batch((x, np.zeros(4, "int32")))
    logits = np.array(
        objective.outputs(named.inputs, training=False), "float64"
    )
    soft = np.array(
        [[0.2, 0.5, 0.3], [1, 0, 0], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]
    )
    # Within the tolerance: rounded to half precision.
    y = soft.astype("float16")
    logits -= logits.max(-1, keepdims=True)
    log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    logs = logs_of(objective, (x, y))
    expected = -(y.astype("float64") * log_q).sum(-1).mean()
    # The labels' sum is 1 to 3 digits.
    assert logs["label_loss"] == pytest.approx(expected, rel=2e-3)
    right = np.mean(log_q.argmax(-1) == [1, 0, 2, 2])
    assert logs["accuracy"] == pytest.approx(right)


# === Weight 0 ===


def without_example(batch, left_out):
    kept = np.arange(4) != left_out
    return tf.nest.map_structure(lambda value: value[kept], batch)


@pytest.mark.parametrize(
    "kind", ["classification", "multi_label", "regression", "span"]
)
def test_an_example_of_weight_0_counts_nowhere(objectives, kind):
    batch = x, y, weight = good(kind)
    weight = toy.set_at(weight, 1, 0.0)
    expected = without_example(batch, 1)
    assert_same(objectives[kind], (x, y, weight), expected, training=True)
    # Whatever its label is.
    if kind in ("multi_label", "regression"):
        y = toy.set_at(y, 1, np.nan)
    elif kind == "classification":
        y = toy.set_at(y, 1, -100)
    else:
        y = {**y, "end": toy.set_at(y["end"], 1, 6)}
    assert_same(objectives[kind], (x, y, weight), expected, training=True)


@pytest.mark.parametrize("kind", ["classification", "span"])
def test_the_label_of_minus_100_is_a_weight_of_0(objectives, kind):
    batch = x, y, weight = good(kind)
    if kind == "span":
        y = {**y, "start": toy.set_at(y["start"], 3, -100)}
    else:
        y = toy.set_at(y, 3, -100)
    expected = without_example(batch, 3)
    for weights in (weight, None):
        assert_same(objectives[kind], (x, y, weights), expected, True)


@pytest.mark.parametrize(
    "kind", ["classification", "multi_label", "regression", "span"]
)
def test_a_weight_of_2_is_the_example_twice(objectives, kind):
    batch = x, y, weight = good(kind)
    twice = tf.nest.map_structure(lambda v: v[[0, 1, 1, 2, 3]], batch)
    weighted = x, y, toy.set_at(weight, 1, 2.0)
    assert_same(objectives[kind], weighted, twice, training=True)


@pytest.mark.parametrize("kind", CLASSES)
def test_weights_of_0_alone_give_no_gradient(objectives, kind):
    x, y, weight = good(kind)
    logs = logs_of(objectives[kind], (x, y, 0 * weight), training=True)
    assert set(logs.values()) == {0.0}


def test_hidden_states_count_the_tokens_of_labelled_examples(objectives):
    x, y, _ = good("token_classification")
    weight = np.zeros((4, 7), "float32")
    weight[0, 2], weight[3, 0] = 0.5, 2.0
    objective = objectives["token_classification"]
    logs = logs_of(objective, (x, y, weight))
    kept = [0, 3]
    two = {k: v[kept] for k, v in x.items()}, y[kept], np.ones((2, 7))
    assert logs["cosine_loss"] == pytest.approx(
        logs_of(objective, two)["cosine_loss"], rel=1e-5
    )
    # (0.5 a + 2 b) / 2.5, of the token's own weight.
    alone = [
        logs_of(objective, (x, y, np.where(weight == value, 1.0, 0.0)))
        for value in (0.5, 2.0)
    ]
    for name in ("label_loss", "soft_target_loss"):
        expected = 0.2 * alone[0][name] + 0.8 * alone[1][name]
        assert logs[name] == pytest.approx(expected, rel=1e-5)


def test_masked_lm_counts_all_tokens_whatever_is_masked(objectives):
    x, y, weight = good("masked_lm")
    objective = objectives["masked_lm"]
    logs = [logs_of(objective, (x, y, given)) for given in (weight, 0 * weight)]
    for name in ("soft_target_loss", "cosine_loss"):
        # Some processors round products of fewer rows in another way.
        assert logs[0][name] == pytest.approx(logs[1][name], rel=1e-6)
        assert logs[0][name] > 0.0


# === One token type ===


def test_segments_of_a_model_with_one_token_type():
    teacher = toy.make_teacher(num_segments=1)
    student = toy.make_student(teacher)
    objective = make_objective(teacher, student, losses.triple_loss())
    x, y, weight = good("masked_lm")
    x = {**x, "segment_ids": SEGMENT_1}
    with pytest.raises(ValueError, match="`segment_ids` must be from 0 to 0"):
        objective.batch((x, y, weight))
    # Nothing reads them here.
    alone = make_objective(None, student, losses.triple_loss()[:1])
    assert alone.batch((x, y, weight)).checks == []


# === In a graph ===


@pytest.mark.parametrize("kind", CLASSES)
def test_task_batches_are_checked_in_a_graph(objectives, kind):
    """Values and sizes, none of which is known when it is traced."""
    objective = objectives[kind]
    x, y, weight = good(kind)

    def spec(value):
        value = np.asarray(value)
        return tf.TensorSpec([None] * value.ndim, value.dtype)

    @tf.function(
        input_signature=[tf.nest.map_structure(spec, (x, y, weight))],
        autograph=False,
    )
    def checked(batch):
        named = objective.batch(batch)
        return graph_checks.after(named.checks, (named.targets, named.weight))

    def run(batch):
        return checked(tf.nest.map_structure(tf.constant, batch))

    expected = objective.batch((x, y, weight))
    for ours, wanted in zip(run((x, y, weight)), expected[1:3], strict=True):
        np.testing.assert_array_equal(ours, wanted)
    wrong = np.float32(np.inf) if kind == "regression" else 99
    for batch in (
        (x, tf.nest.map_structure(lambda v: v[:3], y), weight),
        (x, tf.nest.map_structure(lambda v: v * 0 + wrong, y), weight),
        (x, y, -weight),
        (x, y, weight[:2]),
        ({**x, "token_ids": x["token_ids"] - 9}, y, weight),
        ({**x, "padding_mask": x["padding_mask"][:, :2]}, y, weight),
    ):
        with pytest.raises(ValueError) as expected:
            objective.batch(batch)
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            run(batch)
        assert str(graph_checks.failed_check(caught.value)) == str(
            expected.value
        )
