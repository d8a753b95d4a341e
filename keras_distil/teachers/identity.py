"""Which teacher the outputs in a store are of."""

import keras
import numpy as np
from keras_hub.models import Task

from keras_distil.teachers.store.manifest import TeacherSettings
from keras_distil.utils import disk


def identify(teacher: Task) -> TeacherSettings:
    """Returns a teacher's weights, as a hash, with its precision and sizes."""
    return TeacherSettings(
        weights=weights_digest(teacher),
        precision=teacher.backbone.dtype_policy.name,
        vocabulary_size=teacher.backbone.vocabulary_size,
        hidden_dim=teacher.backbone.hidden_dim,
    )


def weights_digest(model: keras.Model) -> str:
    """Returns a hash of a model's weights, in their order.

    Names are left out: their numbers depend on what the process created before.
    """
    parts = []
    for variable in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        parts.append(f"{array.dtype}{array.shape}")
        parts.append(disk.sha256(array.tobytes()))
    return disk.sha256(disk.canonical(parts))
