"""A teacher whose outputs are written once and read in training."""

from keras_distil.teachers.cached import (
    CachedOutputs,
    CachedTeacher,
    cache_error,
)
from keras_distil.teachers.writing import cache_teacher

__all__ = ["CachedOutputs", "CachedTeacher", "cache_error", "cache_teacher"]
