"""The states of other callbacks that `TrainingState` keeps."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from keras_distil.training.objectives import live_teachers
from keras_distil.utils import disk

_log = logging.getLogger(__name__)

# Keras has no types, so this is any callback.
_Callback: TypeAlias = Any

# Attributes that Keras's callbacks carry from one update or epoch to the next.
ATTRIBUTES: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: (
        "wait",
        "stopped_epoch",
        "best",
        "best_epoch",
        "best_weights",
    ),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: (
        "best",
        "_batches_seen_since_last_saving",
        "_last_batch_seen",
    ),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.TensorBoard: ("_global_train_batch", "_global_test_batch"),
    keras.callbacks.History: ("epoch", "history"),
    keras.callbacks.CSVLogger: ("keys",),
}
# Callbacks without a state, or with functions of the user.
STATELESS = (
    keras.callbacks.LambdaCallback,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TerminateOnNaN,
)
# KerasTuner's callbacks belong to a trial, which keeps its best epoch.
_STATELESS_MODULE = "keras_tuner."
# Attributes that Keras sets on a callback.
_OF_KERAS = {"params", "_model", "_params"}
_ARRAY = "__array__"
_PLAIN = (bool, int, float, str, type(None), np.generic)


class Kept(NamedTuple):
    """The states of callbacks, ready to be written.

    Attributes:
        values: JSON data; an array is replaced by its name in `arrays`.
        arrays: the arrays, by name.
    """

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]


class KeptStates:
    """The states of the callbacks of one training.

    A callback has a state if it is one of Keras's in `ATTRIBUTES`, or has the
    methods `get_training_state` and `set_training_state`. It is identified by
    its class and its place among those of that class.

    Args:
        callbacks: all callbacks except `TrainingState`.

    Raises:
        ValueError: if they include one of Keras's callbacks whose state
            cannot be kept.
    """

    def __init__(self, callbacks: Sequence[_Callback]) -> None:
        self._callbacks: dict[str, _Callback] = {}
        counts: dict[str, int] = {}
        for callback in callbacks:
            _check_known(callback)
            kind = type(callback).__name__
            counts[kind] = counts.get(kind, -1) + 1
            self._callbacks[f"{counts[kind]}.{kind}"] = callback
        self._before: dict[str, dict[str, Any]] = {}

    def begin(self) -> None:
        """Records the attributes of callbacks without a state at the start.

        Raises:
            TypeError: if a state is not made of JSON data and arrays.
        """
        self.get()
        self._before = {
            name: _list_attributes(callback)
            for name, callback in self._callbacks.items()
            if _is_own(callback)
        }

    def get(self) -> Kept:
        """Returns the current states."""
        arrays: dict[str, np.ndarray] = {}
        states = {
            name: _encode(_get_state(callback), name, arrays)
            for name, callback in self._callbacks.items()
            if _has_state(callback)
        }
        return Kept(
            {"callbacks": states, "not_kept": self._list_changes()}, arrays
        )

    def read(
        self, values: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        """Decodes the states that `get` returned, by callback.

        Args:
            values: the values that were written.
            arrays: the arrays, and possibly others.

        Raises:
            ValueError: if a callback cannot continue because its numbers were
                not kept.
            LookupError, TypeError: if the values have another form.
        """
        self._check_kept(values.get("not_kept", {}))
        states = _key_by_place(values["callbacks"])
        for name, callback in self._callbacks.items():
            # Older states have no history.
            expected = _has_state(callback) and not isinstance(
                callback, keras.callbacks.History
            )
            if expected and name not in states:
                _log.warning(
                    "The training state has no state of %s: it starts from "
                    "scratch.",
                    _describe(name),
                )
        for name in states:
            if name not in self._callbacks and not name.endswith(".History"):
                _log.warning(
                    "The training state has a state of %s, which is not among "
                    "the callbacks: it is ignored.",
                    _describe(name),
                )
        restored = {
            name: _decode(states[name], arrays)
            for name, callback in self._callbacks.items()
            if name in states and _has_state(callback)
        }
        for name, state in restored.items():
            _check_form(self._callbacks[name], state)
        return restored

    def put_back(
        self, states: dict[str, Any], *, keras_too: bool = True
    ) -> None:
        """Restores the states that `read` returned.

        Args:
            states: the states, by callback.
            keras_too: whether to include Keras's callbacks, which reset
                themselves in `on_train_begin`.
        """
        for name, state in states.items():
            callback = self._callbacks[name]
            if hasattr(callback, "set_training_state"):
                callback.set_training_state(state)
            elif keras_too:
                _restore_state(callback, state)

    def _list_changes(self) -> dict[str, dict[str, list[str]]]:
        """Lists attributes of callbacks that changed but are not kept."""
        changes = {}
        for name, before in self._before.items():
            now = _list_attributes(self._callbacks[name])
            changed = [x for x in now if now[x] != before.get(x, _MISSING)]
            if changed:
                changes[name] = {
                    "numbers": [x for x in changed if now[x][0] == "number"],
                    "others": [x for x in changed if now[x][0] != "number"],
                }
        return changes

    def _check_kept(self, not_kept: dict[str, Any]) -> None:
        for name, changed in _key_by_place(not_kept).items():
            callback = self._callbacks.get(name)
            if callback is None or not _is_own(callback):
                continue
            if changed["numbers"]:
                raise ValueError(
                    f"Training cannot continue exactly with {_describe(name)}: "
                    f"it had changed {changed['numbers']}, which the training "
                    "state does not keep. Give it `get_training_state` and "
                    "`set_training_state`, or, if nothing depends on these, "
                    "the attribute `has_training_state = False`."
                )
            _log.warning(
                "%s had changed %s, which the training state does not keep: "
                "it starts from scratch.",
                _describe(name),
                changed["others"],
            )


_MISSING = object()


def _describe(name: str) -> str:
    place, _, kind = name.partition(".")
    return kind if place == "0" else f"{kind} number {int(place) + 1}"


def _key_by_place(states: dict[str, Any]) -> dict[str, Any]:
    """Keys states by class and place among those of that class.

    Older states counted the places of all callbacks.
    """
    counts: dict[str, int] = {}
    ordered = {}
    for name in sorted(states, key=_parse_place):
        kind = name.partition(".")[2]
        counts[kind] = counts.get(kind, -1) + 1
        ordered[f"{counts[kind]}.{kind}"] = states[name]
    return ordered


def _parse_place(name: str) -> int:
    place = name.partition(".")[0]
    if not place.isdecimal():
        raise LookupError(name)
    return int(place)


def _check_known(callback: _Callback) -> None:
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        raise ValueError(
            "`BackupAndRestore` and `TrainingState` would both restore the "
            "training. Received: both. Leave out `BackupAndRestore`."
        )
    of_keras = type(callback).__module__.startswith("keras.")
    known = isinstance(callback, (*ATTRIBUTES, *STATELESS))
    if of_keras and not known:
        raise ValueError(
            f"`TrainingState` cannot keep the state of Keras's "
            f"{type(callback).__name__}. Leave one of both out."
        )


def _has_state(callback: _Callback) -> bool:
    return (
        hasattr(callback, "get_training_state")
        or _get_attributes(callback) is not None
    )


def _is_own(callback: _Callback) -> bool:
    """Checks whether a callback is a user's, with an unknown state."""
    module = type(callback).__module__
    return (
        not hasattr(callback, "get_training_state")
        and getattr(callback, "has_training_state", True)
        and not module.startswith(("keras.", _STATELESS_MODULE))
    )


def _get_attributes(callback: _Callback) -> tuple[str, ...] | None:
    for kind, names in ATTRIBUTES.items():
        if isinstance(callback, kind):
            return names
    return None


def _list_attributes(callback: _Callback) -> dict[str, tuple[str, Any]]:
    """Returns enough of a callback's attributes to see changes."""
    found: dict[str, tuple[str, Any]] = {}
    left_out = {*_OF_KERAS, *(_get_attributes(callback) or ())}
    for name, value in vars(callback).items():
        if name in left_out:
            continue
        if isinstance(value, _PLAIN):
            # As text, because NaN equals NaN there.
            found[name] = ("number", repr(value))
        elif isinstance(value, (list, dict, set)):
            found[name] = (type(value).__name__, len(value))
        elif isinstance(value, np.ndarray):
            found[name] = ("array", disk.sha256(value.tobytes()))
    return found


# === Keras's callbacks ===


def _get_state(callback: _Callback) -> Any:
    if hasattr(callback, "get_training_state"):
        return callback.get_training_state()
    names = _get_attributes(callback) or ()
    state = {name: getattr(callback, name) for name in names}
    if isinstance(callback, keras.callbacks.EarlyStopping):
        state["best_weights"] = _remove_teacher(
            callback.model, state["best_weights"]
        )
    if isinstance(callback, keras.callbacks.CSVLogger):
        state["text"] = _read(Path(callback.filename))
    return state


def _restore_state(callback: _Callback, state: dict[str, Any]) -> None:
    state = dict(state)
    if isinstance(callback, keras.callbacks.EarlyStopping):
        state["best_weights"] = _insert_teacher(
            callback.model, state["best_weights"]
        )
        if state["stopped_epoch"]:
            callback.model.stop_training = True
    if isinstance(callback, keras.callbacks.CSVLogger):
        _rewrite(callback, state.pop("text"))
    for name, value in state.items():
        # Lists and dicts keep growing, so each gets a copy.
        setattr(callback, name, _copy(value))


def _remove_teacher(
    model: keras.Model, weights: list[Any] | None
) -> list[Any] | None:
    """Selects the weights that training changes from all of a Distiller's."""
    if weights is None:
        return None
    frozen = _list_frozen(model)
    return [
        np.asarray(value)  # Keras turns scalars into numbers.
        for variable, value in zip(model.weights, weights, strict=True)
        if id(variable) not in frozen
    ]


def _insert_teacher(
    model: keras.Model, weights: list[Any] | None
) -> list[Any] | None:
    if weights is None:
        return None
    frozen, kept = _list_frozen(model), iter(weights)
    return [
        variable.numpy() if id(variable) in frozen else next(kept)
        for variable in model.weights
    ]


def _list_frozen(model: keras.Model) -> set[int]:
    return {
        id(variable)
        for teacher in live_teachers(model.teacher)
        for variable in teacher.weights
    }


def _read(path: Path) -> str:
    # Keeps line endings.
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _rewrite(logger: keras.callbacks.CSVLogger, text: str) -> None:
    """Rewrites the log, without lines of epochs that will be repeated."""
    path = Path(logger.filename)
    if logger.csv_file is not None:
        logger.csv_file.close()
    with disk.writing(path), path.open("w", encoding="utf-8", newline="") as f:
        f.write(text)
    logger.csv_file = path.open("a")
    logger.append_header = not text
    logger.writer = None


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_copy(part) for part in value]
    return value


def _check_form(callback: _Callback, state: Any) -> None:
    """Raises TypeError for a state that this version did not write."""
    if hasattr(callback, "get_training_state"):
        return
    containers = {"best_weights", "epoch", "history", "keys", "text"}
    for name in _get_attributes(callback) or ():
        value = state[name]
        is_number = value is None or isinstance(value, (bool, int, float))
        if name not in containers and not is_number:
            raise TypeError(f"{name} must be a number. Received: {value!r:.60}")


# === JSON with arrays ===


def _encode(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Encodes a value as JSON, moving its arrays to `arrays`."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_encode(part, name, arrays) for part in value]
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {k: _encode(part, name, arrays) for k, part in value.items()}
    if isinstance(value, np.ndarray) or keras.ops.is_tensor(value):
        key = f"callbacks/{name}/{len(arrays):05d}"
        arrays[key] = np.array(value, order="C")
        return {_ARRAY: key}
    raise TypeError(
        f"The training state of {_describe(name)} must be made of numbers, "
        "text, None, lists, dicts with text as keys, and NumPy arrays. "
        "Received: "
        f"{value!r:.60} of type {type(value).__name__}."
    )


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(part, arrays) for part in value]
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {name: _decode(part, arrays) for name, part in value.items()}
    return value
