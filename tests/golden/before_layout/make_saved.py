"""Makes what Distillers of an earlier commit saved, on toy models.

Run in a worktree of the commit, with its package and tests on the path:

    PYTHONPATH=.:tests python .../make_saved.py FOLDER

For a Distiller of text and one of a task there are the archive after two
updates, a training state within the second epoch, and the weights at the end
of that epoch.
"""

import pathlib
import shutil
import sys
import zipfile

import keras
import numpy as np
import tensorflow as tf
import toy

from keras_distil import Distiller, callbacks, losses, models

SMALL = {"num_layers": 1, "intermediate_dim": 8, "hidden_dim": 8}


def make_distiller(kind: str) -> Distiller:
    """A compiled Distiller whose student is narrower than its teacher."""
    teacher = toy.make_teacher(**SMALL)
    student = toy.make_student(teacher, hidden_dim=4, num_heads=2)
    added = losses.triple_loss()
    if kind == "task":
        teacher, student = (
            models.task_model(x, "classification", 3, dropout=0.0, seed=1)
            for x in (teacher, student)
        )
        added = losses.task_loss("classification")
    distiller = Distiller(teacher, student, added)
    distiller.compile(keras.optimizers.AdamW(1e-2), clip_norm=1.0)
    return distiller


def make_batches(kind: str) -> tf.data.Dataset:
    """An endless dataset of two examples per batch."""
    x, y, weight = toy.make_batch()
    triple = (x, y, weight)
    if kind == "task":
        triple = (x, np.array([0, 1, 2, 0]), np.ones(4, "float32"))
    return tf.data.Dataset.from_tensor_slices(triple).repeat().batch(2)


def compress(path: pathlib.Path) -> None:
    """Writes an archive again, as Keras stores its members as they are."""
    with zipfile.ZipFile(path) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as smaller:
        for name, content in members.items():
            smaller.writestr(name, content)


def main(folder: pathlib.Path) -> None:
    """Writes the files of both kinds."""
    for kind in ("text", "task"):
        made = make_distiller(kind)
        made.fit(make_batches(kind), steps_per_epoch=2, verbose=0)
        made.save(folder / f"{kind}.keras")
        compress(folder / f"{kind}.keras")
        made = make_distiller(kind)
        state = callbacks.TrainingState(
            folder / f"{kind}_states", every_steps=3, keep=9
        )
        made.fit(
            make_batches(kind),
            epochs=2,
            steps_per_epoch=4,
            verbose=0,
            callbacks=[state],
        )
        for path in (folder / f"{kind}_states").iterdir():
            if path.name != "step-000000007":
                shutil.rmtree(path)
        np.savez_compressed(
            folder / f"{kind}_end.npz",
            *[v.numpy() for v in made.trainable_variables],
        )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
