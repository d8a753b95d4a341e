"""Random and hostile batches of every kind of task.

Each must train as NumPy says it must, or be refused in one line with nothing
changed. What fits and what it means is decided here a second time, by NumPy.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from harness import Defect, Target
from targets import Toys  # noqa: F401  (TensorFlow is imported there, quietly)

from keras_distil import Distiller, losses, models
from keras_distil.training.keras_methods import NonFiniteLossError
from keras_distil.utils import graph_checks

sys.path.append(str(Path(__file__).parents[1]))
import toy  # noqa: E402
from losses import reference  # noqa: E402

KINDS = {
    "masked_lm": 0,
    "classification": 3,
    "regression": 1,
    "token_classification": 4,
    "span": 1,
}
WORDS, POSITIONS, SEGMENTS, IGNORED = 20, 8, 2, -100
TEMPERATURE = 2.0
# A label loss whose gradient may have no norm in float32.
_HUGE = 1e34
VALUES = (
    *(-1, IGNORED, 0, 1, 2, 3, 4, 7, 8, WORDS, 99, 2**31 - 1, -(2**31)),
    *(2**32 + 1, 2**63 - 1, 0.5, -0.5, 2.0, float("nan"), float("inf"), 1e30),
)
DTYPES = (
    *("int8", "uint8", "int32", "int64", "uint64", "float16", "float32"),
    *("float64", "bool", "str", "complex64"),
)
REPLACED: tuple[Callable[[Any], Any], ...] = (
    lambda a: None,
    lambda a: {},
    lambda a: {"start": a},
    lambda a: a.tolist(),
    lambda a: "text",
    lambda a: 3,
    lambda a: tf.ragged.constant([[1], [1, 2]]),
    lambda a: tf.sparse.from_dense(np.atleast_2d(a)),
    lambda a: [[1, 2], [3]],
)
RESHAPED: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda a: a[..., None],
    lambda a: a[None],
    lambda a: a[0],
    lambda a: a[:1],
    lambda a: a[..., :1],
    lambda a: a[:, :1],
    lambda a: a.T,
    lambda a: a[:0],
    lambda a: np.repeat(a, 2, axis=0),
    lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 2)]),
)


class Unfit(Exception):
    """NumPy finds that a batch does not fit."""


def all_targets() -> list[Target]:
    """One target, which takes turns with all kinds of task."""
    return [Target("batch", Batches().case, (ValueError,), 6, False)]


class Batches:
    """A Distiller of toy models for each kind of task."""

    def __init__(self) -> None:
        sizes = {
            "vocabulary_size": WORDS,
            "max_sequence_length": POSITIONS,
            "num_segments": SEGMENTS,
            "num_layers": 1,
            "hidden_dim": 8,
            "intermediate_dim": 12,
        }
        self._distillers, self._graphs = {}, {}
        for kind, outputs in KINDS.items():
            pair = [
                toy.make_teacher(**sizes),
                toy.make_student(toy.make_teacher(**sizes)),
            ]
            made = losses.triple_loss(temperature=TEMPERATURE)
            if kind != "masked_lm":
                pair = [
                    models.task_model(model, kind, outputs, dropout=0.0)
                    for model in pair
                ]
                for seed, model in enumerate(pair):
                    toy.randomize(model, seed)
                made = losses.task_loss(kind, temperature=TEMPERATURE)
            distiller = Distiller(*pair, made)
            distiller.compile(keras.optimizers.SGD(1e-4), run_eagerly=True)
            self._distillers[kind] = distiller
            self._graphs[kind] = _graph_of(distiller, kind)

    def case(self, rng: random.Random, folder: Path) -> None:
        """One batch, trained on or refused."""
        kind = rng.choice(list(KINDS))
        batch = _fitting(rng, kind)
        for _ in range(rng.choice((0, 1, 1, 2))):
            batch = _changed(rng, batch)
        (folder / "batch.txt").write_text(f"{kind}\n{batch!r}\n")
        distiller = self._distillers[kind]
        try:
            expected = _expected(distiller, kind, batch)
        except Unfit:
            expected = None
        before = [v.numpy() for v in distiller.variables]
        try:
            logs = distiller.train_on_batch(*batch, return_dict=True)
        except ValueError as error:
            if expected is not None:
                raise Defect(
                    f"a batch that fits is refused: {error}"
                ) from error
            if "\n" in str(error):
                raise Defect(f"several lines: {error}") from error
            for old, new in zip(before, distiller.variables, strict=True):
                if not np.array_equal(old, new.numpy()):
                    raise Defect(f"{new.path} was changed") from error
            self._also_in_a_graph(kind, batch, str(error))
            raise
        except NonFiniteLossError:
            if expected is None or expected["label_loss"] < _HUGE:
                raise
            return
        if expected is None:
            raise Defect(f"a batch that does not fit is accepted: {logs}")
        for name, value in expected.items():
            # Sums of float32 through one layer.
            if not np.isclose(logs[name], value, rtol=1e-3, atol=1e-4):
                raise Defect(f"{name} is {logs[name]}, should be {value}")
        # Each case begins with the same models.
        for old, new in zip(before, distiller.variables, strict=True):
            new.assign(old)
        self._also_in_a_graph(kind, batch, None)

    def _also_in_a_graph(
        self, kind: str, batch: Any, refusal: str | None
    ) -> None:
        """The same verdict where nothing is known when it is traced."""
        graph, spec = self._graphs[kind]
        try:
            tf.nest.assert_same_structure(batch, spec)
            tensors = tf.nest.map_structure(_as_specified, batch, spec)
        except (TypeError, ValueError):
            return
        try:
            graph(tensors)
            found = None
        except tf.errors.OpError as error:
            failed = graph_checks.failed_check(error)
            if failed is None:
                raise Defect(f"not by a check: {error}") from error
            found = str(failed)
        # Of several faults, a graph may find another one first.
        if (found is None) != (refusal is None):
            raise Defect(f"eager: {refusal!r}; in a graph: {found!r}")


def _graph_of(distiller: Distiller, kind: str) -> tuple[Any, Any]:
    """The checks of a batch as a graph, and the types of its parts."""

    def spec(value: Any) -> tf.TensorSpec:
        return tf.TensorSpec([None] * value.ndim, value.dtype)

    batch = _plain(random.Random(0), kind)
    batch[0].pop("segment_ids", None)
    specs = tf.nest.map_structure(spec, batch)

    def checked(data: Any) -> Any:
        named = distiller._objective.batch(data)
        sizes = distiller._objective.denominators(named)
        return graph_checks.after(named.checks, sizes)

    return tf.function(checked, [specs], autograph=False), specs


def _as_specified(value: Any, spec: tf.TensorSpec) -> tf.Tensor:
    if not isinstance(value, np.ndarray) or value.dtype != spec.dtype:
        raise TypeError
    if value.ndim != spec.shape.rank:
        raise TypeError
    return tf.constant(value)


# === Batches ===


def _plain(rng: random.Random, kind: str) -> tuple[dict, Any, Any]:
    """A batch that fits: at least the first token of each row is one."""
    generator = np.random.default_rng(rng.randrange(2**32))
    rows, length = rng.randint(1, 4), rng.randint(1, POSITIONS)
    shape = rows, length
    mask = generator.random(shape) < 0.8
    mask[:, 0] = True
    x = {
        "token_ids": generator.integers(0, WORDS, shape).astype("int32"),
        "padding_mask": mask.astype("int32"),
    }
    if rng.random() < 0.5:
        segments = generator.integers(0, SEGMENTS, shape)
        x["segment_ids"] = segments.astype("int32")
    weight = generator.choice([0.0, 1.0, 1.0, 0.5], rows).astype("float32")
    tokens = generator.choice([0.0, 1.0], shape).astype("float32")
    if kind == "masked_lm":
        return x, generator.integers(0, WORDS, shape).astype("int32"), tokens
    if kind == "classification":
        return x, generator.integers(0, 3, rows).astype("int32"), weight
    if kind == "regression":
        return x, generator.normal(size=rows).astype("float32"), weight
    if kind == "token_classification":
        return x, generator.integers(0, 4, shape).astype("int32"), tokens
    places = [generator.choice(np.flatnonzero(row), 2) for row in mask]
    start, end = np.array(places, "int32").T.copy()
    return x, {"start": start, "end": end}, weight


def _fitting(rng: random.Random, kind: str) -> tuple[Any, Any, Any]:
    """A batch that fits, in one of the forms that are allowed."""
    x, y, weight = _plain(rng, kind)
    generator = np.random.default_rng(rng.randrange(2**32))
    form = rng.randrange(6)
    if kind == "classification" and form == 0:
        y = generator.dirichlet(np.ones(3), len(y)).astype("float32")
    elif kind == "classification" and form == 1:
        y = np.eye(3, dtype="float32")[y]
    elif kind in ("masked_lm", "token_classification") and form == 0:
        y = np.where(weight > 0, y, IGNORED)
    elif kind == "masked_lm" and form == 1:
        length = y.shape[1]
        count = rng.randint(1, length)
        order = generator.permuted(
            np.tile(np.arange(length), (len(y), 1)), axis=1
        )
        places = order[:, :count]
        weight = np.take_along_axis(weight, places, axis=1)
        y = np.take_along_axis(y, places, axis=1)
        x = {**x, "mask_positions": np.where(weight > 0, places, 0)}
    elif kind != "masked_lm" and form == 2:
        weight = None
    elif kind == "span" and form == 3:
        weight = {"start": weight, "end": weight}
    elif kind != "masked_lm" and form == 4:
        factors = generator.choice([0.0, 1.0, 0.5], len(x["token_ids"]))
        x = {**x, "label_weight": factors.astype("float32")}
    return x, y, weight


def _changed(rng: random.Random, batch: Any) -> Any:
    """The batch with one part, value, shape, type or key changed."""
    x, y, weight = batch
    if isinstance(x, dict) and rng.random() < 0.05:
        name = rng.choice([*x, "attention_mask"])
        if rng.random() < 0.5:
            return {k: v for k, v in x.items() if k != name}, y, weight
        return {**x, f"{name}s": np.ones((2, 2), "int32")}, y, weight
    flat = tf.nest.flatten(batch)
    places = [
        i for i, value in enumerate(flat) if isinstance(value, np.ndarray)
    ]
    if not places:
        return batch
    place = rng.choice(places)
    flat[place] = _changed_part(rng, flat[place])
    return tf.nest.pack_sequence_as(batch, flat)


def _changed_part(rng: random.Random, array: np.ndarray) -> Any:
    kind = rng.randrange(10)
    if kind < 5:
        return _with_value(rng, array)
    if kind < 7:
        with np.errstate(all="ignore"):
            return array.astype(rng.choice(DTYPES))
    if kind < 9:
        try:
            return rng.choice(RESHAPED)(array)
        except (IndexError, ValueError):
            return array
    return rng.choice(REPLACED)(array)


def _with_value(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """One value changed, in a type that can hold it."""
    value = rng.choice(VALUES)
    if array.dtype.kind not in "if" or not array.size:
        return array
    dtype = array.dtype
    if dtype.kind == "i" and isinstance(value, float):
        dtype = np.dtype("float64")
    elif dtype.kind == "i" and not abs(value) < 2 ** (8 * dtype.itemsize - 1):
        dtype = np.dtype("int64")
    changed = array.astype(dtype)
    with np.errstate(over="ignore"):
        changed.flat[rng.randrange(array.size)] = value
    return changed


# === What NumPy says ===


def _array(value: Any) -> np.ndarray:
    if value is None or isinstance(
        value, tf.RaggedTensor | tf.SparseTensor | dict
    ):
        raise Unfit
    try:
        array = np.asarray(value)
    except ValueError:
        raise Unfit from None
    if array.dtype.kind not in "iufb":
        raise Unfit
    return array


def _shaped(value: Any, shape: tuple, squeezed: bool = True) -> np.ndarray:
    array = _array(value)
    if squeezed and array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.shape != shape:
        raise Unfit
    return array


def _whole(array: np.ndarray, limit: int, ignored: bool = False) -> np.ndarray:
    numbers = []
    for value in array.ravel().tolist():
        if isinstance(value, float) and not value.is_integer():
            raise Unfit
        number = int(value)
        if not (0 <= number < limit or (ignored and number == IGNORED)):
            raise Unfit
        numbers.append(number)
    return np.array(numbers, "int64").reshape(array.shape)


def _weights(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        array = array.astype("float32").astype("float64")
    if not (np.isfinite(array) & (array >= 0)).all():
        raise Unfit
    return array


def _inputs(x: Any, masked_lm: bool) -> dict[str, np.ndarray]:
    allowed = {"token_ids", "padding_mask", "segment_ids"}
    allowed |= {"mask_positions"} if masked_lm else {"label_weight"}
    if not isinstance(x, dict) or not (
        {"token_ids", "padding_mask"} <= set(x) <= allowed
    ):
        raise Unfit
    ids = _array(x["token_ids"])
    if ids.ndim != 2 or not 1 <= ids.shape[1] <= POSITIONS:
        raise Unfit
    limits = {"token_ids": WORDS, "padding_mask": 2, "segment_ids": SEGMENTS}
    return {
        name: _whole(_shaped(x[name], ids.shape, squeezed=False), limit)
        for name, limit in limits.items()
        if name in x
    }


def _states(distiller: Distiller, inputs: dict[str, np.ndarray]) -> list:
    """Last hidden states of teacher and student, by Keras's own pass."""
    found = []
    for model in (distiller.teacher, distiller.student):
        given = {k: v.astype("int32") for k, v in inputs.items()}
        if "segment_ids" in model.backbone.input:
            given.setdefault("segment_ids", 0 * given["token_ids"])
        else:
            given.pop("segment_ids", None)
        output = model.backbone(given)
        if isinstance(output, dict):
            output = output["sequence_output"]
        found.append(np.array(output))
    return found


def _expected(distiller: Distiller, kind: str, batch: Any) -> dict[str, float]:
    """The logs that a batch must give."""
    x, y, weight = batch
    inputs = _inputs(x, kind == "masked_lm")
    real = inputs["padding_mask"]
    find = _masked_lm if kind == "masked_lm" else _task
    targets, weight, counted = find(kind, x, y, weight, inputs)
    labelled = _labelled(x, weight)
    teacher, student = _states(distiller, inputs)
    logs = {
        "cosine_loss": reference.cosine_distance(teacher, student, counted)[0]
    }
    pair = [
        _logits(model, kind, states, real)
        for model, states in (
            (distiller.teacher, teacher),
            (distiller.student, student),
        )
    ]
    if kind == "regression":
        error = (pair[1][:, 0] - np.where(labelled > 0, targets, 0.0)) ** 2
        logs["label_loss"] = _mean(error, labelled)
        soft = (pair[1][:, 0] - pair[0][:, 0]) ** 2
        return logs | {"soft_target_loss": _mean(soft, weight)}
    if kind == "span":
        weight = np.concatenate([weight, weight])
        labelled = np.concatenate([labelled, labelled])
    log_q = reference.log_softmax(pair[1])
    if targets.ndim < log_q.ndim:
        targets = np.eye(log_q.shape[-1])[targets]
    value = _mean(-(targets * log_q).sum(-1), labelled)
    soft = reference.kl_divergence(
        *pair, TEMPERATURE, counted if kind == "masked_lm" else weight
    )[0]
    name = "mlm_loss" if kind == "masked_lm" else "label_loss"
    return logs | {name: value, "soft_target_loss": soft}


def _labelled(x: dict, weight: np.ndarray) -> np.ndarray:
    """The weight of the labels, in the shape of the weight."""
    if "label_weight" not in x:
        return weight
    factors = _weights(_shaped(x["label_weight"], (len(weight),)))
    if weight.ndim == 2:
        factors = factors[:, None]
    with np.errstate(over="ignore"):
        product = weight.astype("float32") * factors.astype("float32")
    return product.astype("float64")


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    total = weight.sum()
    return float((values * weight).sum() / total) if total else 0.0


def _logits(
    model: Any, kind: str, states: np.ndarray, real: np.ndarray
) -> np.ndarray:
    """By NumPy from the hidden states, float64."""
    if kind == "masked_lm":
        head = model.masked_lm_head
        features = head._intermediate_layer_norm(
            head._intermediate_dense(states)
        )
        embeddings = head.token_embedding.embeddings.numpy()
        return np.array(features) @ embeddings.T + head._bias.numpy()
    if kind in ("token_classification", "span"):
        logits = np.array(model.output_dense(states), "float64")
        if kind == "span":
            logits = np.where(real[..., None] > 0, logits, -1e9)
            logits = np.concatenate([logits[..., 0], logits[..., 1]])
        return logits
    pooler = getattr(model, "pooled_dense", None)
    pooler = pooler or model.backbone.pooled_dense
    return np.array(model.output_dense(pooler(states[:, 0])), "float64")


def _masked_lm(
    kind: str, x: Any, y: Any, weight: Any, inputs: dict
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids, real = inputs["token_ids"], inputs["padding_mask"]
    shape = ids.shape
    places = None
    if "mask_positions" in x:
        places = _array(x["mask_positions"])
        if places.ndim != 2 or len(places) != len(ids):
            raise Unfit
        shape = places.shape
    y = _whole(_shaped(y, shape), WORDS, ignored=True)
    weight = _weights(_shaped(weight, shape)) * (y != IGNORED)
    if places is not None:
        places = _whole(places, ids.shape[1])
        targets, spread = ids.copy(), np.zeros(ids.shape)
        for row, column in np.argwhere(weight > 0):
            place = row, places[row, column]
            if spread[place]:
                raise Unfit
            targets[place], spread[place] = y[row, column], weight[row, column]
        y, weight = targets, spread
    return np.where(y == IGNORED, ids, y), weight * real, real


def _task(
    kind: str, x: Any, y: Any, weight: Any, inputs: dict
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    real = inputs["padding_mask"]
    rows, length = real.shape
    shape = real.shape if kind == "token_classification" else (rows,)
    if kind == "span" and isinstance(weight, dict):
        if set(weight) != {"start", "end"}:
            raise Unfit
        both = [_weights(_shaped(weight[k], shape)) for k in weight]
        if not np.array_equal(*both):
            raise Unfit
        weight = both[0]
    weight = (
        np.ones(shape) if weight is None else _weights(_shaped(weight, shape))
    )
    if kind == "span":
        if not isinstance(y, dict) or set(y) != {"start", "end"}:
            raise Unfit
        pair = [
            _whole(_shaped(y[k], shape), length, ignored=True)
            for k in ("start", "end")
        ]
        weight = weight * (pair[0] != IGNORED) * (pair[1] != IGNORED)
        pair = [np.where(p == IGNORED, 0, p) for p in pair]
        counts = _labelled(x, weight) > 0
        if any(counts[~(real[np.arange(rows), p] > 0)].any() for p in pair):
            raise Unfit
        return np.concatenate(pair), weight, weight[:, None] * real
    if kind == "token_classification":
        y = _whole(_shaped(y, shape), 4, ignored=True)
        weight = weight * (y != IGNORED) * real
        counted = (weight > 0).any(1)[:, None] * real
        return np.where(y == IGNORED, 0, y), weight, counted
    y = _array(y)
    if kind == "regression":
        with np.errstate(over="ignore"):
            y = _shaped(y, shape).astype("float32")
        if not np.isfinite(y[_labelled(x, weight) > 0]).all():
            raise Unfit
    elif y.ndim == 2 and y.shape[1] != 1:
        if y.dtype.kind != "f" or y.shape != (rows, 3):
            raise Unfit
        counts = _labelled(x, weight) > 0
        chosen = y[counts].astype("float64")
        if not (
            (chosen >= 0).all()
            and np.allclose(chosen.sum(1), 1.0, rtol=0, atol=1e-3)
        ):
            raise Unfit
        y = np.where(counts[:, None], y, 0.0)
    else:
        y = _whole(_shaped(y, shape), 3, ignored=True)
        weight = weight * (y != IGNORED)
        y = np.where(y == IGNORED, 0, y)
    if ((real[:, 0] == 0) & (weight > 0)).any():
        raise Unfit
    return y, weight, weight[:, None] * real
