"""Latency and size of models: what a student gains."""

from keras_distil.benchmark.latency import elmo_call as elmo_call
from keras_distil.benchmark.latency import (
    masked_lm_encoder_call as masked_lm_encoder_call,
)
from keras_distil.benchmark.latency import (
    measure_latency_ms as measure_latency_ms,
)
from keras_distil.benchmark.size import parameter_count as parameter_count
from keras_distil.benchmark.size import size_mb as size_mb
