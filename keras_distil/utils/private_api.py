"""All code that depends on a version of Keras, TensorFlow or KerasHub.

Each entry says what it works around. `tests/utils/test_private_api.py` has a
test for each that demonstrates the library's behaviour: once that test fails,
the library has changed, and the entry must be removed or adapted. Overrides of
private methods of `keras.Model` are in `training/replicas.py`, and KerasHub's
private layers are read in the modules of the encoders.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend import compute_output_spec as compute_output_spec
from keras.src.backend.tensorflow import trainer as keras_trainer
from keras.src.trainers.compile_utils import CompileMetrics as CompileMetrics
from keras.src.utils.tracking import DotNotTrackScope

# === Keras: tracking of attributes ===


def hidden_from_keras(values: dict) -> Mapping:
    """Returns a view whose variables Keras does not count as the model's own.

    Keras 3.15 searches plain dicts and lists, and saves what it finds. A model
    that was compiled differently or not at all could not load such a file.
    """
    return MappingProxyType(values)


def untracked() -> contextlib.AbstractContextManager:
    """Returns a context in which attributes are set without being tracked.

    Keras 3.15 has no public way to keep a layer or a metric as an attribute
    without saving it.
    """
    return DotNotTrackScope()


# === Keras: layers, variables, optimizers, metrics ===


def flatten_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and all layers within it, at any depth.

    The public `layers` of Keras 3.15 are only those of the first level.
    """
    return list(model._flatten_layers())


def is_functional(model: keras.Model) -> bool:
    """Checks whether a model is a graph of layers with known inputs.

    Keras 3.15 does not export the class.
    """
    if isinstance(model, keras.Sequential):
        return model.built
    return isinstance(model, keras.src.models.Functional)


def operation_of(tensor: keras.KerasTensor) -> Any:
    """Returns the layer or operation that a symbolic tensor comes from.

    Keras 3.15 keeps it only in a private attribute.
    """
    return tensor._keras_history.operation


def mask_of(tensor: Any) -> Any:
    """Returns the Keras mask of a tensor, or None.

    Keras 3.15 has this only in a private attribute.
    """
    return getattr(tensor, "_keras_mask", None)


def is_distributed(variable: keras.Variable) -> bool:
    """Checks whether a distribution strategy holds a variable.

    Within a step, Keras 3.15's `value` is that of a single replica.
    """
    return isinstance(variable._value, tf.distribute.DistributedValues)


def decays(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> bool:
    """Checks whether an optimizer applies its weight decay to a variable.

    Keras 3.15 has `exclude_from_weight_decay`, but no way to read it.
    """
    return optimizer._use_weight_decay(variable)


def variables_built_for(
    optimizer: keras.optimizers.Optimizer,
) -> list[keras.Variable]:
    """Returns the variables that an optimizer was built for.

    Keras 3.15 keeps them only in a private attribute.
    """
    return optimizer._trainable_variables


def mark_as_better_up(metric: keras.metrics.Metric) -> None:
    """Declares that a higher value of a metric is better.

    Keras 3.15 infers the direction of its own metrics from a private
    attribute; a wrapped function has none, and `EarlyStopping` rejects it.
    """
    metric._direction = "up"


def global_seed_generator() -> keras.random.SeedGenerator:
    """Returns the state of random operations without their own seed.

    Keras 3.15 does not save it, so a resumed training would draw differently.
    """
    return keras.src.random.seed_generator.global_seed_generator()


# === Keras: the loop of `fit` ===

# The attribute of a model that holds the steps of the next execution.
STEPS_OF_EXECUTION = "_steps_of_execution"


def reduce_per_replica(
    logs: Any, strategy: tf.distribute.Strategy
) -> dict[str, Any]:
    """Returns the logs of a step as Keras's own function around it does."""
    return keras_trainer.reduce_per_replica(logs, strategy, reduction="auto")


def convert_optionals(model: keras.Model, function: Callable) -> Callable:
    """Wraps a step so that parts a batch lacks are None, as in Keras's loop.

    Keras 3.15 has this only in a private method.
    """
    return model._autoconvert_optionals(function)


def batch_spec(epoch_iterator: Any) -> Any:
    """Returns the spec of an iterator's batches, as a dataset's `element_spec`.

    Keras 3.15 exposes the iterator, but not its dataset.

    Args:
        epoch_iterator: a `TFEpochIterator` of Keras.

    Returns:
        The specs of a replica's part of a batch.
    """
    return tf.nest.map_structure(
        # With several replicas, each has its own spec.
        lambda spec: getattr(spec, "_value_specs", [spec])[0],
        epoch_iterator._distributed_dataset.element_spec,
    )


def number_exactly(epoch_iterator: Any, model: keras.Model) -> None:
    """Makes a Keras iterator end epochs at exactly their last step.

    Keras 3.15 rounds the steps of an epoch up to whole executions: ten steps
    with `steps_per_execution=4` become twelve.

    Args:
        epoch_iterator: a `TFEpochIterator` of Keras, about to be used.
        model: the model whose function of `make_function` is called with it.
    """
    epoch_iterator._enumerate_iterator = functools.partial(
        _executions, epoch_iterator, model
    )


def _executions(source: Any, model: keras.Model) -> Iterator[tuple]:
    """Like Keras's `EpochIterator._enumerate_iterator`, but exact."""
    source.data_adapter.on_epoch_begin()
    steps = source.steps_per_epoch or source._num_batches
    goes_on = source.steps_per_epoch is not None
    if source._current_iterator is None or not goes_on:
        source._current_iterator = iter(source._get_iterator())
        source._steps_seen = 0
    begin = 0
    while steps is None or begin < steps:
        left = _left(source._num_batches, source._steps_seen)
        if left == 0:
            if goes_on:
                source._interrupted_warning()
            break
        count = min(
            bound
            for bound in (model.steps_per_execution, _left(steps, begin), left)
            if bound is not None
        )
        setattr(model, STEPS_OF_EXECUTION, count)
        source._steps_seen += count
        yield begin, begin + count - 1, source._current_iterator
        begin += count
    if _left(source._num_batches, source._steps_seen) == 0:
        source._current_iterator = iter(source._get_iterator())
        source._steps_seen = 0
    source.data_adapter.on_epoch_end()


def _left(steps: int | None, done: int) -> int | None:
    return max(steps - done, 0) if steps else None


# === TensorFlow ===


def gradient_registry() -> dict[str, Any]:
    """Returns the gradients that TensorFlow 2.21 registers permanently.

    Each holds the graph it was made in, and the graph holds its variables.
    """
    from tensorflow.python.framework import ops

    return ops.gradient_registry._registry


def variant_tensor(dataset: tf.data.Dataset) -> Any:
    """Returns the tensor that a `tf.data.Dataset` subclass is built from.

    TensorFlow 2.21 has no public way to wrap a dataset.
    """
    return dataset._variant_tensor


def dataset_inputs(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """Returns the datasets that a dataset was made from.

    TensorFlow 2.21 has no public way to look into a dataset, except a graph
    with a copy of all its data.
    """
    return dataset._inputs()


def dataset_operations(dataset: tf.data.Dataset) -> Iterator[Any]:
    """Yields the nodes of the graphs of a dataset's functions.

    Not those of the datasets it was made from; see `dataset_inputs`.
    """
    for wrapper in dataset._functions():
        graph = wrapper.function.graph.as_graph_def()
        yield from graph.node
        for function in graph.library.function:
            yield from function.node_def


def is_unordered(dataset: tf.data.Dataset) -> bool:
    """Checks whether a parallel `map` and the like may change the order.

    See `dataset_inputs` for why.
    """
    return getattr(dataset, "_deterministic", None) == "false"


def shuffling_of(dataset: tf.data.Dataset) -> tuple[bool, bool] | None:
    """Returns how a dataset shuffles; None if it does not.

    Returns:
        Whether every pass has another order, and whether there is a seed,
        its own or the global one. See `dataset_inputs` for why.
    """
    if type(dataset).__name__ == "_ShuffleDataset":
        # None means True.
        anew = dataset._reshuffle_each_iteration is not False
    elif type(dataset).__name__ == "_RandomDataset":
        anew = bool(dataset._rerandomize)
    else:
        return None
    return anew, any(int(x) for x in (dataset._seed, dataset._seed2))


def expand_slurm_nodes(nodes: str, tasks: str) -> tuple[list[str], list[int]]:
    """Expands Slurm's short forms of hosts and of tasks per host.

    TensorFlow 2.21's public `SlurmClusterResolver` needs GPUs, sorts "n10"
    before "n2", which Slurm does not, and assumes that ranks follow the hosts.
    """
    from tensorflow.python.distribute.cluster_resolver import (
        slurm_cluster_resolver as slurm,
    )

    return slurm.expand_hostlist(nodes), slurm.expand_tasks_per_node(tasks)


def configure_coordination(
    *, register_timeout_ms: int, heartbeat_timeout_ms: int
) -> None:
    """Configures TensorFlow's coordination of the workers of TF_CONFIG.

    TensorFlow 2.21's strategy configures it if that has not been done, but
    with a limit of no less than an hour and without waiting for all workers,
    so the first sum over workers would wait for one that never comes.
    """
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.distribute import multi_worker_util
    from tensorflow.python.eager import context

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    cluster = multi_worker_util.normalize_cluster_spec(resolver.cluster_spec())
    service = context.context()
    service.configure_coordination_service(
        service_type="standalone",
        service_leader=multi_worker_util.coordination_leader(cluster),
        cluster_register_timeout_in_ms=register_timeout_ms,
        heartbeat_timeout_in_ms=heartbeat_timeout_ms,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(
                name=job, num_tasks=cluster.num_tasks(job)
            )
            for job in ("chief", "worker")
            if job in cluster.jobs
        ],
    )
    service.coordination_service.cluster_register_with_barrier = True


# === KerasHub ===


def preset_files() -> Any:
    """Returns KerasHub's functions for the files of a preset.

    KerasHub 0.32 has no public way to look at a preset that may be remote.
    """
    from keras_hub.src.utils import preset_utils

    return preset_utils
