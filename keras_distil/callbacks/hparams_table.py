"""TensorBoard's table of hyperparameters and final scores."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams_api

from keras_distil.callbacks.event_files import writing_events
from keras_distil.training.metrics import find_metric

# Names of a training's hyperparameters, for the table that its scores complete.
_FILE = "hparams.json"
# TensorBoard ticks the first five.
_FIRST = (
    "temperature",
    "loss_weights",
    "student_layers",
    "learning_rate",
    "seed",
)


def write_hparams(
    log_dir: Path, distiller: keras.Model, given: Mapping[str, Any]
) -> None:
    """Writes a training's hyperparameters, into the current event file too.

    Args:
        log_dir: the folder of the training's logs.
        distiller: the Distiller, before the first update.
        given: more hyperparameters by name.
    """
    hparams = {**_hparams_of(distiller), **given}
    if "seed" in hparams:
        # A number would be rounded to five digits.
        hparams["seed"] = str(hparams["seed"])
    hparams_api.hparams(hparams)
    # Without the values, which may be NumPy's.
    (log_dir / _FILE).write_text(json.dumps([*hparams]), "utf-8")


def write_scores(
    log_dir: str | os.PathLike, scores: Mapping[str, float], step: int
) -> None:
    """Adds the scores of a finished training, as `final/NAME`.

    The page of hyperparameters shows them beside those of the training.

    Args:
        log_dir: the `log_dir` of the training's `TensorBoard`.
        scores: the scores by name.
        step: int, number of updates made.

    Raises:
        OSError: if they cannot be written.
    """
    folder = Path(log_dir) / "train"
    with writing_events(folder):
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default():
            for name, value in scores.items():
                tf.summary.scalar(f"final/{name}", value, step=step)
            _write_table(Path(log_dir) / _FILE, scores)
        writer.close()


def _write_table(path: Path, scores: Mapping[str, float]) -> None:
    """Writes which hyperparameters and scores are shown, in their order."""
    known = json.loads(path.read_text("utf-8")) if path.is_file() else []
    others = [name for name in known if name not in _FIRST]
    hparams_api.hparams_config(
        hparams=[
            *(hparams_api.HParam(name, _StandsFirst()) for name in _FIRST),
            *map(hparams_api.HParam, others),
        ],
        metrics=[
            hparams_api.Metric(
                f"final/{name}", display_name=find_metric(name).title
            )
            for name in scores
        ],
    )


class _StandsFirst(hparams_api.Domain):
    """Any values, in a column that stands before others.

    TensorBoard sorts by name, but the columns whose values differ come first.
    """

    # The base class demands these two, which nothing calls here.
    dtype = None
    sample_uniform = None

    def update_hparam_info(self, hparam_info: Any) -> None:
        """Marks a column, an `HParamInfo`."""
        hparam_info.differs = True


def _hparams_of(distiller: keras.Model) -> dict[str, float | str]:
    """Hyperparameters of every Distiller, with their initial values."""
    found: dict[str, float | str] = {}
    backbone = getattr(distiller.student, "backbone", None)
    layers = getattr(backbone, "transformer_layers", None)
    if layers is not None:
        found["student_layers"] = len(layers)
    weights = []
    for loss in distiller.distillation_losses:
        weights.append(f"{loss.name} {float(loss.weight.numpy()):g}")
        if hasattr(loss, "temperature"):
            found["temperature"] = float(
                tf.convert_to_tensor(loss.temperature).numpy()
            )
    found["loss_weights"] = ", ".join(weights)
    return found
