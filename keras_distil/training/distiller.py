"""The Distiller: one forward of each model, the losses, one update."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import tensorflow as tf
from keras.src.utils.tracking import DotNotTrackScope

from keras_distil.data import first_step_of, stream_of
from keras_distil.losses import DistillationLoss, chunked
from keras_distil.models import supported
from keras_distil.models.labels import share_labels
from keras_distil.teachers import CachedTeacher
from keras_distil.training import compiled_metrics, executions
from keras_distil.training.keras_methods import (
    OTHER_LOGS,
    KerasMethods,
    explained,
)
from keras_distil.training.objectives import GradientNorms, make_objective
from keras_distil.training.optimizer_checks import (
    check_known_variables,
    check_optimizer,
)
from keras_distil.utils import graph_checks

Tensor = Any

_NON_FINITE = "keras_distil: the loss or its gradient is not finite"


class NonFiniteLossError(RuntimeError):
    """A loss or its gradient is not finite; the update was not made."""


@keras.saving.register_keras_serializable(package="keras_distil")
class Distiller(KerasMethods):
    """Trains a student on a teacher's outputs.

    The teacher is never changed, not even its `trainable`: its weights are
    not among the Distiller's trainable ones. It runs once a step, in inference
    mode and outside the gradient tape; the student runs once a step (once a
    micro-batch). All means divide by counts over the whole global batch, and
    vocabulary logits exist only a chunk at a time.

    Args:
        teacher: a KerasHub masked-LM task model, or one of
            `models.task_model`; a `teachers.CachedTeacher`; None if no loss
            needs a teacher (plain training with the same step).
        student: a model for the same task over the same vocabulary.
        losses: the losses to add up; see `losses.triple_loss` and
            `losses.task_loss`.
        name: string, the model's name.

    Call arguments:
        inputs: "token_ids" and "padding_mask", int32, (batch, length), and
            optionally "mask_positions" or, for a task, "segment_ids". Returns
            the student's outputs.

    Raises:
        TypeError: if the models are not for the same task, or a loss is none
            for it.
        ValueError: if the vocabularies or classes differ, if loss names
            repeat, if a loss needs a teacher and there is none, if the
            student cannot be trained exactly (quantised, in half precision or
            float64, with regularisers, with nothing trainable, with weights
            that are the teacher's), or a model was not made in the scope of
            the distribution strategy.

    Example:
        >>> distiller = Distiller(
        ...     teacher, student, losses.triple_loss()
        ... )                                               # doctest: +SKIP
        >>> distiller.compile(
        ...     keras.optimizers.AdamW(5e-4), clip_norm=1.0
        ... )                                               # doctest: +SKIP
        >>> distiller.fit(batches, steps_per_epoch=100)     # doctest: +SKIP

    Reference:
        Sanh et al. 2019, arXiv:1910.01108.
        Differs: means are over tokens of the global batch, never means of
        per-device or per-micro-batch means.
    """

    # Keras's, None until it is first needed.
    train_function: Any
    test_function: Any
    predict_function: Any
    # A subclass that only evaluates takes models that cannot be trained.
    _trains = True

    def __init__(
        self,
        teacher: keras.Model | CachedTeacher | None,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        name: str = "distiller",
    ) -> None:
        # In float32 whatever Keras's global policy is: it only adds up.
        super().__init__(name=name, dtype="float32")
        _check_floatx()
        objective = make_objective(
            teacher, student, losses, trains=self._trains
        )
        self._check_student(student, objective)
        _check_scope(self.distribute_strategy, _variables_by_role(objective))
        self.teacher = teacher
        self.student = student
        self.distillation_losses = list(losses)
        self.projection = objective.projection
        self.layer_projections = objective.layer_projections
        self._objective = objective
        if isinstance(teacher, keras.Model):
            share_labels(teacher, student)
        self.tokens_seen = self.add_weight(
            name="tokens_seen",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )
        self._schedules = _hidden_from_keras({})
        self.built = True

    def loss_named(self, name: str) -> DistillationLoss:
        """The loss called `name`.

        Args:
            name: string, such as "soft_target".

        Returns:
            The loss.

        Raises:
            ValueError: if there is none, naming those there are.
        """
        for loss in self.distillation_losses:
            if loss.name == name:
                return loss
        raise ValueError(
            f"The Distiller has no loss named {name!r}. Its losses: "
            f"{[loss.name for loss in self.distillation_losses]}."
        )

    def schedule(
        self, variable: keras.Variable, schedule: Callable | None
    ) -> None:
        """Drives `variable` by `schedule`, evaluated in the graph.

        The value is set from the optimizer's step counter at the start of
        every update, so it is exact inside `steps_per_execution` too.

        Args:
            variable: a loss's weight or temperature.
            schedule: a callable from step to value, or None to stop.

        Raises:
            ValueError: if a cached teacher lacks one of the temperatures.
        """
        if schedule is not None and isinstance(self.teacher, CachedTeacher):
            for loss in self.distillation_losses:
                if getattr(loss, "temperature", None) is variable:
                    self.teacher.check_schedule(schedule)
        schedules = dict(self._schedules)
        schedules.pop(id(variable), None)
        if schedule is not None:
            schedules[id(variable)] = (variable, schedule)
        self._schedules = _hidden_from_keras(schedules)
        if self.train_function is not None:
            # The next step is traced anew, with the schedules there are now.
            self.make_train_function(force=True)

    @property
    def is_distributed(self) -> bool:
        """Whether a distribution strategy holds the student's weights."""
        first = self.student.variables[0]
        return isinstance(first._value, tf.distribute.DistributedValues)

    def is_scheduled(self, variable: keras.Variable) -> bool:
        """Whether `schedule` drives the variable."""
        return id(variable) in self._schedules

    def gradient_norms(self, data: Any) -> GradientNorms:
        """What measures how hard each loss alone pulls at the student.

        Args:
            data: a batch as `fit` takes it.

        Returns:
            A `GradientNorms`; its `measure()` gives, by loss, the norm of the
            gradient at weight 1 with the weights of that moment.
        """
        return GradientNorms(self._objective, data)

    # === Keras protocol ===

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """What training changes: the teacher is no part of it."""
        return self._without_teacher(super().trainable_variables)

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The same, among the weights."""
        return self._without_teacher(super().trainable_weights)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All other variables, the teacher's among them."""
        return _difference(self.variables, self.trainable_variables)

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """All other weights, the teacher's among them."""
        return _difference(self.weights, self.trainable_weights)

    def _without_teacher(
        self, variables: list[keras.Variable]
    ) -> list[keras.Variable]:
        teacher = getattr(self, "teacher", None)
        if not isinstance(teacher, keras.Model):
            return variables
        return _difference(variables, teacher.variables)

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        """The student's outputs, float32."""
        return self._objective.outputs(inputs, training=training)

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adamw",
        loss: None = None,
        loss_weights: None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = False,
        auto_scale_loss: bool = True,
        *,
        micro_batches: int = 1,
        clip_norm: float | None = None,
        chunk_size: int = chunked.DEFAULT_CHUNK_SIZE,
    ) -> None:
        """Configures training; the first nine arguments are Keras's, in order.

        Metrics get what Keras's own trainer would give them: labels, the
        student's outputs and, those of `weighted_metrics`, the sample
        weights. Differs: in masked language modelling they get the targets,
        the logits and the weights of the masked positions, (rows,), (rows,
        vocabulary) and (rows,), and never those of another position; in token
        classification they get those of non-padding tokens, likewise as rows.
        No metric gets what the label -100 leaves out.
        A span has the outputs "start" and "end", so its metrics are a dict,
        such as `{"start": ["accuracy"]}`; positions in the padding have the
        logit -1e9. A metric named "accuracy" or "mean_absolute_error" takes
        the place of the Distiller's own of that name.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: not used: the losses are those given to the Distiller.
            loss_weights: not used: losses have weights of their own.
            metrics: as for `keras.Model`; unweighted.
            weighted_metrics: as for `keras.Model`; weighted by the samples'
                weights.
            micro_batches: int >= 1. The batch goes through the models in so
                many parts, one after the other; the update is that of the
                whole batch.
            jit_compile: whether XLA compiles the optimizer's update, without
                replicas, and what the losses do with logits between the matrix
                products. The step as a whole drops padding, so its shapes
                depend on the data, and is never compiled. "auto" is False.
            auto_scale_loss: without effect, as in Keras for every dtype
                policy but `mixed_float16`, which a Distiller refuses.
            clip_norm: float > 0 or None. Bound on the global norm of the
                gradient of the whole batch.
            chunk_size: int >= 1, tokens that go through the vocabulary at a
                time.
            run_eagerly: run without a graph, to debug.
            steps_per_execution: int >= 1, updates per call into the graph.
                The last call of an epoch makes fewer if they do not divide
                its steps.

        Raises:
            TypeError: if a count is not an integer, a loss is given, or the
                optimizer replaces Keras's `apply`.
            ValueError: if a value is out of range, the optimizer clips,
                accumulates, scales or averages by itself, was built for
                other variables, or outside of the strategy's scope, or a
                metric has the name of another log or does not fit the outputs.
        """
        _check_no_losses(loss, loss_weights)
        jit_compile = _without_auto(jit_compile)
        _check_at_least_one("steps_per_execution", steps_per_execution)
        _check_at_least_one("micro_batches", micro_batches)
        _check_at_least_one("chunk_size", chunk_size)
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(
                "`clip_norm` must be positive, or None for no clipping. "
                f"Received: clip_norm={clip_norm}."
            )
        _check_floatx()
        self._check_student(self.student, self._objective)
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
        check_optimizer(optimizer)
        check_known_variables(optimizer, self._objective.variables)
        _check_scope(
            self.distribute_strategy, {"optimizer": optimizer.variables}
        )
        with self.distribute_strategy.scope():
            compiled = compiled_metrics.make(
                metrics,
                weighted_metrics,
                self._objective.metric_outputs,
                ["loss", *self._objective.metric_terms, *OTHER_LOGS],
            )
        self._compile_arguments = {
            "micro_batches": micro_batches,
            "jit_compile": jit_compile,
            "clip_norm": clip_norm,
            "chunk_size": chunk_size,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
        }
        self._given_metrics = _hidden_from_keras(
            {"metrics": metrics, "weighted_metrics": weighted_metrics}
        )
        self.micro_batches = micro_batches
        self.clip_norm = clip_norm
        self._objective.chunk_size = chunk_size
        self._objective.jit_compile = jit_compile
        super().compile(
            optimizer=optimizer,
            jit_compile=False,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            auto_scale_loss=False,
        )
        with self.distribute_strategy.scope():
            optimizer.build(self._objective.variables)
            self._make_metrics()
        with DotNotTrackScope():
            self._compile_metrics = compiled

    def _check_student(self, student: keras.Model, objective: Any) -> None:
        """Checks what may have changed since the objective was made."""
        if self._trains:
            supported.check_student(student)
            supported.check_trainable(student, objective.variables)

    def _make_metrics(self) -> None:
        names = [*self._objective.metric_terms, "gradient_norm"]
        self._means = {name: keras.metrics.Mean(name=name) for name in names}
        # Values of the latest update, for callbacks that draw every step.
        self.step_values = _hidden_from_keras(
            {
                name: keras.Variable(
                    0.0,
                    trainable=False,
                    autocast=False,
                    name=f"step_{name}",
                    aggregation="only_first_replica",
                )
                for name in ["loss", *names]
            }
        )
        losses = self.distillation_losses
        has_temperature = any(hasattr(loss, "temperature") for loss in losses)
        self.update_record = executions.UpdateRecord(
            [
                *self.step_values,
                *(f"{loss.name}_weight" for loss in losses),
                *(["temperature"] if has_temperature else []),
                "learning_rate",
            ],
            self.steps_per_execution,
        )

    def distributed(self, dataset: Any, first_step: int | None = None) -> Any:
        """The dataset as this strategy's replicas read it.

        Every replica computes its own share of each batch of a keras_distil
        dataset. Any other dataset is returned as it is.

        Args:
            dataset: what `fit` was given.
            first_step: the step of its stream to begin with; None for the
                dataset's own.

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

    # === One step ===

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """One update of the student. Returns the logs."""
        self._check_student(self.student, self._objective)
        check_known_variables(self.optimizer, self._objective.variables)
        batch = self._objective.batch(data)
        earlier = tf.convert_to_tensor(self.optimizer.iterations)
        learning_rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        for variable, schedule in self._schedules.values():
            variable.assign(schedule(self.optimizer.iterations))
        denominators = _all_reduce(self._objective.denominators(batch))
        sums, gradients = graph_checks.after(
            batch.checks, self._accumulate(batch, denominators)
        )
        supported.check_added_losses(self.student)
        sums, gradients = _all_reduce(sums), _all_reduce(gradients)
        norm = tf.linalg.global_norm(gradients)
        values = {**self._values(sums, denominators), "gradient_norm": norm}
        with tf.control_dependencies(self._check_finite(values)):
            self._update(gradients, norm)
        for loss in self.distillation_losses:
            if loss.statistic is not None:
                loss.observe(values[f"{loss.name}_{loss.statistic}"])
        # Not before the batches of all replicas passed their checks.
        with tf.control_dependencies([values["loss"]]):
            self._update_metrics(values, denominators)
            self.tokens_seen.assign_add(
                tf.cast(denominators["tokens"], tf.int64)
            )
        settings = {
            **self._temperature_log(),
            "learning_rate": learning_rate,
        }
        weights = {
            f"{loss.name}_weight": tf.convert_to_tensor(loss.weight)
            for loss in self.distillation_losses
        }
        self.update_record.write(earlier, {**values, **weights, **settings})
        return {
            **self._logs(),
            **settings,
            "gradient_norm": self._means["gradient_norm"].result(),
        }

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """Losses and metrics of one batch, without an update."""
        batch = self._objective.batch(data)
        denominators = _all_reduce(self._objective.denominators(batch))
        sums, _ = self._objective.compute_gradients(
            batch, denominators, training=False, observe=self._observer(batch)
        )
        sums = graph_checks.after(batch.checks, sums)
        values = self._values(_all_reduce(sums), denominators)
        with tf.control_dependencies([values["loss"]]):
            self._update_metrics(values, denominators)
        return self._logs()

    def _accumulate(
        self, batch: Any, denominators: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Sums and gradients of this replica's batch, by micro-batches."""
        evaluate = functools.partial(
            self._objective.compute_gradients, observe=self._observer(batch)
        )
        parts = self.micro_batches
        if parts == 1:
            return evaluate(batch, denominators, training=True)

        def body(index: Tensor, totals: Any) -> tuple[Tensor, Any]:
            found = evaluate(
                batch.part(index, parts), denominators, training=True
            )
            return index + 1, tf.nest.map_structure(tf.add, totals, found)

        keys = {key for key, _ in self._objective.metric_terms.values()}
        zeros = (
            {key: tf.zeros([]) for key in keys},
            [tf.zeros(v.shape, v.dtype) for v in self._objective.variables],
        )
        _, totals = tf.while_loop(
            lambda index, _: index < parts,
            body,
            (tf.constant(0), zeros),
            parallel_iterations=1,
        )
        return totals

    def _observer(self, batch: Any) -> Callable | None:
        """Gives the metrics of `compile` what they are computed from."""
        metrics = self._compile_metrics
        if metrics is None:
            return None

        def observe(*values: Any) -> None:
            # An op of a metric may fail on what a check of the batch names.
            metrics.update_state(*graph_checks.after(batch.checks, values))

        return observe

    def _values(
        self, sums: dict[str, Tensor], denominators: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The batch's losses and metrics, means over its tokens."""
        values = {
            name: tf.math.divide_no_nan(sums[key], denominators[denominator])
            for name, (key, denominator) in self._objective.metric_terms.items()
        }
        return {"loss": self._weighted_total(values), **values}

    def _weighted_total(self, values: dict[str, Tensor]) -> Tensor:
        return tf.add_n(
            [
                tf.convert_to_tensor(loss.weight) * values[f"{loss.name}_loss"]
                for loss in self.distillation_losses
            ]
        )

    def _check_finite(self, values: dict[str, Tensor]) -> list[Any]:
        """Keeps the step's values, then asserts that they are finite."""
        kept = [
            self.step_values[name].assign(value)
            for name, value in values.items()
        ]
        if tf.executing_eagerly():
            kept = []
        finite = tf.math.is_finite(values["loss"] + values["gradient_norm"])
        with tf.control_dependencies(kept):
            # Eager execution raises here and returns None.
            check = tf.debugging.Assert(finite, [_NON_FINITE])
        return [] if check is None else [check]

    def _update(self, gradients: list[Tensor], norm: Tensor) -> None:
        """Clips and applies gradients that are summed over all replicas."""
        # The optimizer sums over the replicas what is already the sum.
        factor = 1.0 / _replica_count()
        if self.clip_norm is not None:
            factor *= self.clip_norm / tf.maximum(norm, self.clip_norm)

        def apply(gradients: list[Tensor], factor: Tensor) -> None:
            if self.clip_norm is not None or _replica_count() > 1:
                gradients = [gradient * factor for gradient in gradients]
            self.optimizer.apply(gradients, self._objective.variables)

        compiled = self._compile_arguments["jit_compile"]
        if compiled and _replica_count() == 1 and not tf.executing_eagerly():
            # One pass over each variable; op by op it takes ten.
            apply = tf.function(apply, jit_compile=True, autograph=False)
        apply(gradients, tf.convert_to_tensor(factor))

    def _update_metrics(
        self, values: dict[str, Tensor], denominators: dict[str, Tensor]
    ) -> None:
        for name, (_, denominator) in self._objective.metric_terms.items():
            self._means[name].update_state(
                values[name], sample_weight=denominators[denominator]
            )
        if "gradient_norm" in values:
            self._means["gradient_norm"].update_state(values["gradient_norm"])

    def _logs(self) -> dict[str, Tensor]:
        """Means over the epoch so far; `loss` is their weighted sum."""
        means = {
            name: self._means[name].result()
            for name in self._objective.metric_terms
        }
        return {
            "loss": self._weighted_total(means),
            **means,
            **self._compiled_results(),
        }

    def _temperature_log(self) -> dict[str, Tensor]:
        for loss in self.distillation_losses:
            if hasattr(loss, "temperature"):
                # Read here, after the schedules have set it for this step.
                return {"temperature": tf.convert_to_tensor(loss.temperature)}
        return {}

    def make_train_function(self, force: bool = False) -> Callable:
        """Wraps Keras's step so that a non-finite loss ends with a reason."""
        if self.train_function is not None and not force:
            return self.train_function
        super().make_train_function(force=True)
        run = self.train_function

        def checked(iterator: Any) -> dict[str, Tensor]:
            try:
                return run(iterator)
            except tf.errors.OpError as error:
                if _NON_FINITE in str(error):
                    raise NonFiniteLossError(
                        self._non_finite_message()
                    ) from None
                raise explained(error) from None

        self.train_function = checked
        return checked

    def make_test_function(self, force: bool = False) -> Callable:
        """Wraps Keras's step so that an unfit batch ends with a reason."""
        if self.test_function is None or force:
            super().make_test_function(force=True)
            self.test_function = _with_reasons(self.test_function)
        return self.test_function

    def make_predict_function(self, force: bool = False) -> Callable:
        """Wraps Keras's step so that an unfit batch ends with a reason."""
        if self.predict_function is None or force:
            super().make_predict_function(force=True)
            self.predict_function = _with_reasons(self.predict_function)
        return self.predict_function

    def _non_finite_message(self) -> str:
        culprits = [
            name
            for name, variable in self.step_values.items()
            if name != "loss"
            and not bool(tf.math.is_finite(tf.convert_to_tensor(variable)))
        ]
        # `int` of a Keras variable fails where replicas mirror it.
        step = int(self.optimizer.iterations.numpy()) + 1
        return (
            f"Training stopped at step {step}: not finite: "
            f"{', '.join(culprits) or 'loss'}. The weights are those of the "
            "step before. Try a lower learning rate, a higher temperature or "
            "`clip_norm`."
        )

    # === Saving ===

    def get_config(self) -> dict[str, Any]:
        """Returns both models and the losses, serialised."""
        serialize = keras.saving.serialize_keras_object
        return {
            "teacher": _serialize_model(self.teacher),
            "student": _serialize_model(self.student),
            "losses": [serialize(loss) for loss in self.distillation_losses],
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Distiller":
        """Makes the Distiller that `get_config` described."""
        deserialize = keras.saving.deserialize_keras_object
        return cls(
            teacher=deserialize(config["teacher"]),
            student=deserialize(config["student"]),
            losses=[deserialize(loss) for loss in config["losses"]],
            name=config["name"],
        )

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the arguments of `compile`, serialised."""
        if not self.compiled:
            return {}
        serialize = keras.saving.serialize_keras_object
        given = {k: v for k, v in self._given_metrics.items() if v is not None}
        return {
            "optimizer": serialize(self.optimizer),
            # Keras does not write this down with the optimizer.
            "without_weight_decay": self._without_weight_decay(),
            **self._compile_arguments,
            **{name: serialize(value) for name, value in given.items()},
        }

    def _without_weight_decay(self) -> list[int]:
        """Places, among the trained variables, of those that do not decay."""
        optimizer = self.optimizer
        return [
            place
            for place, variable in enumerate(self._objective.variables)
            if not optimizer._use_weight_decay(variable)
        ]

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles with what `get_compile_config` described."""
        config = dict(config)
        for name in ("optimizer", "metrics", "weighted_metrics"):
            if name in config:
                config[name] = keras.saving.deserialize_keras_object(
                    config[name]
                )
        places = config.pop("without_weight_decay", [])
        if places:
            variables = self._objective.variables
            config["optimizer"].exclude_from_weight_decay(
                var_list=[variables[place] for place in places]
            )
        self.compile(**config)


def _difference(
    variables: list[keras.Variable], left_out: list[keras.Variable]
) -> list[keras.Variable]:
    known = {id(variable) for variable in left_out}
    return [v for v in variables if id(v) not in known]


def _hidden_from_keras(values: dict) -> Mapping:
    """A view whose variables Keras does not take for the model's own.

    Keras searches plain dicts and lists. What it finds it saves, and a model
    that was compiled again, or not at all, could not be loaded from it.
    """
    return MappingProxyType(values)


def _serialize_model(
    model: keras.Model | CachedTeacher | None,
) -> dict[str, Any] | None:
    if model is None:
        return None
    config = keras.saving.serialize_keras_object(model)
    # The Distiller trains the models; how a KerasHub task would have compiled
    # itself is not part of it (and loading it back warns).
    config.pop("compile_config", None)
    return config


def _with_reasons(run: Callable) -> Callable:
    """A function of Keras's that raises errors with their reason."""

    def checked(data: Any) -> Any:
        try:
            return run(data)
        except tf.errors.OpError as error:
            raise explained(error) from None

    return checked


def _replica_count() -> int:
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context is not None else 1


def _all_reduce(values: Any) -> Any:
    """Sums a structure of tensors over all replicas."""
    if _replica_count() == 1:
        return values
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def _check_floatx() -> None:
    if keras.config.floatx() != "float32":
        raise ValueError(
            "Keras's `floatx` must be 'float32': losses, metrics and the "
            "learning rate are variables of that type. Call "
            "`keras.config.set_floatx('float32')` first. Received: "
            f"floatx={keras.config.floatx()!r}."
        )


def _variables_by_role(objective: Any) -> dict[str, list[keras.Variable]]:
    models = {"teacher": objective.teacher, "student": objective.student}
    return {
        f"{role} {model.name!r}": model.variables
        for role, model in models.items()
        if isinstance(model, keras.Model)
    }


def _check_scope(
    strategy: tf.distribute.Strategy,
    variables: dict[str, list[keras.Variable]],
) -> None:
    """Raises ValueError unless all variables are the strategy's."""
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


def _check_no_losses(loss: Any, loss_weights: Any) -> None:
    given = {"loss": loss, "loss_weights": loss_weights}
    for name, value in given.items():
        if value is not None:
            raise TypeError(
                f"`compile` takes no `{name}`: losses and their weights are "
                "given to the Distiller, as "
                "`Distiller(teacher, student, losses)`. "
                f"Received: {name}={value!r}."
            )


def _without_auto(jit_compile: Any) -> bool:
    if jit_compile == "auto":
        return False
    if not isinstance(jit_compile, bool):
        raise TypeError(
            "`jit_compile` must be True, False or 'auto'. "
            f"Received: jit_compile={jit_compile!r}."
        )
    return jit_compile


def _check_at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"`{name}` must be an integer. Received: {name}={value!r}."
        )
    if value < 1:
        raise ValueError(
            f"`{name}` must be at least 1. Received: {name}={value}."
        )
