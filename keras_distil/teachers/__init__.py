"""Teachers whose outputs are written once and read in training."""

from keras_distil.teachers.embeddings.cached import CachedEmbeddingTeacher
from keras_distil.teachers.embeddings.writing import cache_embedding_teacher
from keras_distil.teachers.masked_lm.cached import (
    CachedOutputs,
    CachedTeacher,
    cache_error,
)
from keras_distil.teachers.masked_lm.writing import cache_teacher
from keras_distil.teachers.predictions.teacher import (
    PredictedTeacher,
    keep_predictions,
)
from keras_distil.teachers.stored import StoredTeacher
from keras_distil.teachers.tasks.cached import (
    CachedTaskOutputs,
    CachedTaskTeacher,
)
from keras_distil.teachers.tasks.writing import cache_task_teacher

__all__ = [
    "CachedEmbeddingTeacher",
    "CachedOutputs",
    "CachedTaskOutputs",
    "CachedTaskTeacher",
    "CachedTeacher",
    "PredictedTeacher",
    "StoredTeacher",
    "cache_embedding_teacher",
    "cache_error",
    "cache_task_teacher",
    "cache_teacher",
    "keep_predictions",
]
