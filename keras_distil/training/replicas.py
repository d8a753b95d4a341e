"""Training on replicas, and overrides of Keras's private methods.

`ReplicatedModel` is the base of a Distiller. It holds every override of a
private method of `keras.Model`, with the problem in Keras that it fixes.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil.data import first_step_of, stream_of
from keras_distil.training import executions
from keras_distil.utils import private_api

Tensor = Any


class ReplicatedModel(keras.Model):
    """A model whose steps account for the whole batch of all replicas."""

    # Set by the subclass.
    student: keras.Model
    clip_norm: float | None
    _objective: Any
    _compile_arguments: dict[str, Any]

    @property
    def is_distributed(self) -> bool:
        """Whether a distribution strategy holds the student's weights."""
        return private_api.is_distributed(self.student.variables[0])

    def distributed(self, dataset: Any, first_step: int | None = None) -> Any:
        """Returns the dataset as this strategy's replicas read it.

        For a keras_distil dataset, every replica computes its own share of
        each batch. Any other dataset is returned as it is.

        Args:
            dataset: the dataset given to `fit`.
            first_step: the step of its stream to begin with; None for the
                dataset's own first step.

        Returns:
            A dataset that Keras's `fit` takes.
        """
        stream = stream_of(dataset)
        if stream is None:
            return dataset
        if first_step is None:
            first_step = first_step_of(dataset)
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            return stream.dataset(first_step)

        def shares(context: tf.distribute.InputContext) -> tf.data.Dataset:
            count = context.num_replicas_in_sync
            here = count // context.num_input_pipelines
            first = context.input_pipeline_id * here
            return stream.dataset(
                first_step,
                replicas=range(first, first + here),
                replica_count=count,
            )

        return strategy.distribute_datasets_from_function(shares)

    def _update(self, gradients: list[Tensor], norm: Tensor) -> None:
        """Clips and applies gradients that are summed over all replicas."""
        # The optimizer sums over the replicas, but these are sums already.
        factor = 1.0 / replica_count()
        if self.clip_norm is not None:
            factor *= self.clip_norm / tf.maximum(norm, self.clip_norm)

        def apply(gradients: list[Tensor], factor: Tensor) -> None:
            if self.clip_norm is not None or replica_count() > 1:
                gradients = [gradient * factor for gradient in gradients]
            self.optimizer.apply(gradients, self._objective.variables)

        compiled = self._compile_arguments["jit_compile"]
        if compiled and replica_count() == 1 and not tf.executing_eagerly():
            # Compiled, it passes over each variable once; otherwise ten times.
            apply = tf.function(apply, jit_compile=True, autograph=False)
        apply(gradients, tf.convert_to_tensor(factor))

    # === Overrides of private methods of Keras ===

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        """Returns the logs of an epoch, after its last step.

        Within a step, a replica knows only its part of the compiled metrics.
        """
        return {**logs, **self._compiled_results()} if logs else logs

    def _flatten_metrics_in_order(self, logs: dict[str, Any]) -> list[Any]:
        return [logs[name] for name in self.metrics_names if name in logs]

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        """Builds nothing: a Distiller and its optimizer are already built.

        Keras 3.15 reduces a per-replica batch here eagerly, over all workers,
        which fails under `MultiWorkerMirroredStrategy`. `fit` and `evaluate`
        also pass the iterator here that they are about to use.
        """
        if iterator is None:
            return
        self._check_spec(private_api.batch_spec(iterator))
        if self.steps_per_execution > 1:
            private_api.number_exactly(iterator, self)

    def _check_spec(self, spec: Any) -> None:
        """Raises BatchError if batches cannot match, whatever their values.

        When a step that was traced for batches of any size is called with
        known sizes, TensorFlow would raise an error in some operation of the
        step before the checks of the batch run.
        """
        specs = tf.nest.flatten(spec)
        # Eager steps check their batches before they use them.
        if (
            self.run_eagerly
            or not all(isinstance(each, tf.TensorSpec) for each in specs)
            or not _may_clash([each.shape for each in specs])
        ):
            return

        def check(data: Any) -> None:
            self._objective.batch(data)

        tf.function(check, autograph=False).get_concrete_function(spec)

    def _make_function(self, step_function: Callable) -> Callable:
        """Returns Keras's function around a step, also for several workers.

        Keras 3.15 takes the mean of logs over axis 0 there, which scalars
        lack. The logs already are those of the global batch.
        """
        strategy = self.distribute_strategy

        def with_axis(data: Any) -> dict[str, Tensor]:
            logs = step_function(data)
            return {name: value[tf.newaxis] for name, value in logs.items()}

        step = step_function
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            step = with_axis
        if self.steps_per_execution > 1:
            return executions.make_function(self, step)
        return super()._make_function(step)

    def _compiled_results(self) -> dict[str, Tensor]:
        """Returns the results of the metrics of `compile`."""
        raise NotImplementedError


def _may_clash(shapes: Sequence[tf.TensorShape]) -> bool:
    """Checks whether known sizes differ along an axis; a cheap first look."""
    if any(shape.rank is None for shape in shapes):
        return True
    axes = itertools.zip_longest(*(shape.as_list() for shape in shapes))
    return any(len(set(sizes) - {None}) > 1 for sizes in axes)


def replica_count() -> int:
    """Returns the number of replicas that the current step runs on."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context is not None else 1


def all_reduce(values: Any) -> Any:
    """Sums a structure of tensors over all replicas."""
    if replica_count() == 1:
        return values
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


class GatheredRows(NamedTuple):
    """The rows of all replicas, one replica after the other.

    Attributes:
        values: the tensors of all replicas, concatenated.
        first: int32 scalar, where this replica's rows begin.
    """

    values: list[Tensor]
    first: Tensor


def gather_rows(values: Sequence[Tensor]) -> GatheredRows:
    """Concatenates tensors over all replicas, which may have unequal rows.

    Args:
        values: float32, equally many rows each.
    """
    if replica_count() == 1:
        return GatheredRows(list(values), tf.constant(0))
    context = tf.distribute.get_replica_context()
    number, count = context.replica_id_in_sync_group, replica_count()
    rows = tf.shape(values[0])[0]
    # Every sum has a single term that is not 0, so it is exact.
    sizes = tf.cast(
        all_reduce(tf.one_hot(number, count) * tf.cast(rows, tf.float32)),
        tf.int32,
    )
    first = tf.reduce_sum(sizes[:number])
    rest = tf.reduce_sum(sizes) - first - rows
    placed = [
        tf.pad(x, [[first, rest], *([[0, 0]] * (x.shape.rank - 1))])
        for x in values
    ]
    return GatheredRows(all_reduce(placed), first)


def check_scope(
    strategy: tf.distribute.Strategy,
    variables: dict[str, list[keras.Variable]],
) -> None:
    """Raises ValueError unless all variables belong to the strategy."""
    is_variable_of = strategy.extended.variable_created_in_scope
    for owner, owned in variables.items():
        strange = [v.path for v in owned if not is_variable_of(v.value)]
        if strange:
            raise ValueError(
                f"The {owner} and the Distiller must be made in the scope of "
                "one distribution strategy: build teacher, student, optimizer "
                "and Distiller under `with strategy.scope():`. Received: "
                f"{strange[0]!r} of another scope than the Distiller's "
                f"{type(strategy).__name__}."
            )
