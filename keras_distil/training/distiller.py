"""The Distiller: a forward pass of each model, the losses, one update."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_distil.losses import DistillationLoss, chunked
from keras_distil.losses.chunked import JitCompile
from keras_distil.models import supported
from keras_distil.models.labels import share_labels
from keras_distil.teachers import (
    CachedTeacher,
)
from keras_distil.training import compilation, compiled_metrics
from keras_distil.training.compile_arguments import (
    check_floatx,
    check_jit_compile,
    check_no_losses,
)
from keras_distil.training.keras_methods import KerasMethods
from keras_distil.training.micro_batches import accumulate
from keras_distil.training.objectives import (
    GradientNorms,
    Teacher,
    check_teacher,
    list_teachers,
    live_teachers,
    make_objective,
)
from keras_distil.training.optimizer_checks import (
    check_known_variables,
    check_optimizer,
)
from keras_distil.training.replicas import all_reduce, check_scope
from keras_distil.training.running_metrics import OTHER_LOGS
from keras_distil.utils import graph_checks
from keras_distil.utils.checks import check_count
from keras_distil.utils.private_api import hidden_from_keras, untracked

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_distil")
class Distiller(KerasMethods):
    """Trains a student on a teacher's outputs.

    A teacher is never changed, not even its `trainable`: its weights are not
    among the Distiller's trainable ones. It runs once per step, in inference
    mode and outside the gradient tape; the student runs once per step (or per
    micro-batch). All means divide by counts over the whole global batch, and
    vocabulary logits exist only one chunk at a time.

    Args:
        teacher: a KerasHub masked-LM task model, a model of
            `models.task_model`, an embedding model, or any Keras model with
            the inputs and outputs of the student; a list of such models
            (without vectors), whose mean probabilities (or outputs, for
            squared errors) the student learns; a `teachers.CachedTeacher`
            or, for a task, a `teachers.CachedTaskTeacher`;
            None if no loss needs a teacher (plain training with the same
            step).
        student: a model for the same task over the same vocabulary, or any
            other Keras model.
        losses: the losses to add up; see `losses.triple_loss` and
            `losses.task_loss`.
        name: string, the model's name.
        from_logits: bool or None. Whether the outputs are logits (True) or
            probabilities (False) of classes, for a Keras model whose last
            layer does not tell, such as a subclassed one. None if it does.

    Call arguments:
        inputs: "token_ids" and "padding_mask", int32, (batch, length), and
            optionally "mask_positions" or, for a task, "segment_ids"; for any
            other Keras model, its inputs. Returns the student's outputs.

    Raises:
        TypeError: if the models are not for the same task, or a loss does not
            apply to it.
        ValueError: if the vocabularies, classes, labels or shapes differ, if
            loss names repeat, if a loss needs a teacher that there is not, if
            the student cannot be trained exactly (quantised, in half
            precision or float64, with regularisers, without trainable
            weights, or with weights of the teacher), or a model was not
            created in the scope of the distribution strategy.

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

    # False in a subclass that only evaluates, and so may take models that
    # cannot be trained.
    _trains = True

    def __init__(
        self,
        teacher: Teacher,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        name: str = "distiller",
        *,
        from_logits: bool | None = None,
    ) -> None:
        # In float32 whatever Keras's global policy, because it only adds up.
        super().__init__(name=name, dtype="float32")
        check_floatx()
        teacher = check_teacher(teacher)
        objective = make_objective(
            teacher,
            student,
            losses,
            from_logits=from_logits,
            trains=self._trains,
        )
        self._check_student(student, objective)
        check_scope(self.distribute_strategy, _variables_by_role(objective))
        self.teacher = teacher
        self.student = student
        self.from_logits = from_logits
        self.distillation_losses = list(losses)
        self.projection = objective.projection
        self.layer_projections = objective.layer_projections
        self._objective = objective
        share_labels(list_teachers(teacher), student)
        self.tokens_seen = self.add_weight(
            name="tokens_seen",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )
        self._schedules = hidden_from_keras({})
        self.built = True

    def get_loss(self, name: str) -> DistillationLoss:
        """Returns the loss called `name`.

        Args:
            name: string, such as "soft_target".

        Returns:
            The loss.

        Raises:
            ValueError: if there is no such loss, listing those there are.
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
        every update, so it is exact with `steps_per_execution` as well.

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
        self._schedules = hidden_from_keras(schedules)
        if self.train_function is not None:
            # Traces the step again, with the current schedules.
            self.make_train_function(force=True)

    def is_scheduled(self, variable: keras.Variable) -> bool:
        """Whether `schedule` drives the variable."""
        return id(variable) in self._schedules

    def gradient_norms(self, data: Any) -> GradientNorms:
        """Returns an object that measures the gradient of each single loss.

        Args:
            data: a batch as `fit` takes it.

        Returns:
            A `GradientNorms`; its `measure()` returns, by loss, the norm of
            the gradient at weight 1 for the current model weights.
        """
        return GradientNorms(self._objective, data)

    # === Keras protocol ===

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        """Returns the student's outputs, float32."""
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
        jit_compile: JitCompile | Literal["auto"] = "auto",
        auto_scale_loss: bool = True,
        *,
        micro_batches: int = 1,
        clip_norm: float | None = None,
        chunk_size: int | Literal["auto"] = "auto",
    ) -> None:
        """Configures training; the first nine arguments are Keras's, in order.

        Metrics receive what Keras's own trainer would pass: labels, the
        student's outputs and, for `weighted_metrics`, the sample weights.
        Differs: in masked language modelling they receive the targets, the
        logits and the weights of the masked positions only, (rows,), (rows,
        vocabulary) and (rows,); in token classification they receive those of
        non-padding tokens, likewise as rows. Items with the label -100 are
        never passed to a metric.
        A span has the outputs "start" and "end", so its metrics are a dict,
        such as `{"start": ["accuracy"]}`; positions in the padding have the
        logit -1e9. A metric named "accuracy" or "mean_absolute_error" replaces
        the Distiller's metric of that name.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: not used, because the Distiller was given its losses.
            loss_weights: not used, because losses have their own weights.
            metrics: as for `keras.Model`; unweighted.
            weighted_metrics: as for `keras.Model`; weighted by the samples'
                weights.
            micro_batches: int >= 1. The batch goes through the models in this
                many parts, one after the other; the update is that of the
                whole batch.
            jit_compile: whether XLA compiles the optimizer's update, if there
                are no replicas, and the losses' operations on logits between
                the matrix products; with "products", those with the
                vocabulary as well. For models other than encoders of text
                it compiles both models, the losses and the gradients as well.
                The step of an encoder is never compiled as a whole, because
                it drops padding and so its shapes depend on the data. "auto"
                is False for these other models and for students of less than
                a million weights, else True, or "products" where this is
                measured to be faster: once for a processor, in some seconds.
                `jit_compiled` says what was chosen, and a training that is
                continued keeps it.
            auto_scale_loss: no effect, as in Keras for every dtype policy
                except `mixed_float16`, which a Distiller rejects.
            clip_norm: float > 0 or None. Bound on the global norm of the
                gradient of the whole batch.
            chunk_size: int >= 1, tokens per chunk of vocabulary logits. "auto"
                is 256: larger chunks take more memory and hardly less time.
            run_eagerly: run without a graph, for debugging.
            steps_per_execution: int >= 1, updates per call into the graph.
                The last call of an epoch makes fewer if this does not divide
                its steps.

        Raises:
            TypeError: if a count is not an integer, a loss is given, or the
                optimizer replaces Keras's `apply`.
            ValueError: if a value is out of range, if the optimizer clips,
                accumulates, scales or averages by itself, was built for
                other variables or outside the strategy's scope, or if a
                metric has the name of another log or does not fit the outputs.
        """
        check_no_losses(loss, loss_weights)
        check_jit_compile(jit_compile)
        steps_per_execution = check_count(
            "steps_per_execution", steps_per_execution
        )
        micro_batches = check_count("micro_batches", micro_batches)
        if chunk_size == "auto":
            chunk_size = chunked.DEFAULT_CHUNK_SIZE
        chunk_size = check_count("chunk_size", chunk_size)
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(
                "`clip_norm` must be positive, or None for no clipping. "
                f"Received: clip_norm={clip_norm}."
            )
        check_floatx()
        self._check_student(self.student, self._objective)
        self._objective.check_micro_batches(micro_batches)
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
        check_optimizer(optimizer)
        check_known_variables(optimizer, self._objective.variables)
        check_scope(
            self.distribute_strategy, {"optimizer": optimizer.variables}
        )
        with self.distribute_strategy.scope():
            compiled = compiled_metrics.make(
                metrics,
                weighted_metrics,
                self._objective.metric_outputs,
                ["loss", *self._objective.metric_terms, *OTHER_LOGS],
            )
        self._chooses_jit_compile = jit_compile == "auto"
        if jit_compile == "auto":
            with self.distribute_strategy.scope():
                jit_compile = compilation.choose(
                    self._objective, run_eagerly=run_eagerly
                )
        self._compile_arguments = {
            "micro_batches": micro_batches,
            "jit_compile": jit_compile,
            "clip_norm": clip_norm,
            "chunk_size": chunk_size,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
        }
        self._given_metrics = hidden_from_keras(
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
        with untracked():
            self._compile_metrics = compiled

    @property
    def jit_compiled(self) -> JitCompile:
        """What XLA compiles: False, True, or "products"; see `compile`."""
        return self._compile_arguments["jit_compile"]

    def keep_jit_compile(self, jit_compile: JitCompile) -> None:
        """Takes over what XLA compiled earlier in the same training.

        Equal bits need equal steps. Changes nothing if `compile` was told what
        XLA is to compile.

        Args:
            jit_compile: as `jit_compiled` was.
        """
        chooses, self._chooses_jit_compile = self._chooses_jit_compile, False
        if not chooses or jit_compile == self.jit_compiled:
            return
        self._compile_arguments["jit_compile"] = jit_compile
        self._objective.jit_compile = jit_compile
        self.train_function = self.test_function = None

    def _check_student(self, student: keras.Model, objective: Any) -> None:
        """Checks the student, which may have changed since construction."""
        if self._trains:
            supported.check_student(student)
            supported.check_trainable(student, objective.variables)

    # === One step ===

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """Makes one update of the student and returns the logs."""
        self._check_student(self.student, self._objective)
        check_known_variables(self.optimizer, self._objective.variables)
        batch = self._objective.batch(data)
        earlier = tf.convert_to_tensor(self.optimizer.iterations)
        learning_rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        for variable, schedule in self._schedules.values():
            variable.assign(schedule(self.optimizer.iterations))
        denominators = all_reduce(self._objective.denominators(batch))
        sums, gradients = graph_checks.after(
            batch.checks,
            accumulate(
                self._objective,
                batch,
                denominators,
                parts=self.micro_batches,
                observe=self._observer(batch),
            ),
        )
        supported.check_added_losses(self.student)
        sums, gradients = all_reduce(sums), all_reduce(gradients)
        norm = tf.linalg.global_norm(gradients)
        values = {**self._values(sums, denominators), "gradient_norm": norm}
        with tf.control_dependencies(self._check_finite(values)):
            self._update(gradients, norm)
            self._objective.commit(batch)
        for loss in self.distillation_losses:
            if loss.statistic is not None:
                loss.observe(values[f"{loss.name}_{loss.statistic}"])
        # Waits until the batches of all replicas have passed their checks.
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
        """Returns losses and metrics of one batch, without an update."""
        batch = self._objective.batch(data)
        denominators = all_reduce(self._objective.denominators(batch))
        sums, _ = self._objective.compute_gradients(
            batch, denominators, training=False, observe=self._observer(batch)
        )
        sums = graph_checks.after(batch.checks, sums)
        values = self._values(all_reduce(sums), denominators)
        with tf.control_dependencies([values["loss"]]):
            self._update_metrics(values, denominators)
        return self._logs()


def _variables_by_role(objective: Any) -> dict[str, list[keras.Variable]]:
    models = [("teacher", x) for x in live_teachers(objective.teacher)]
    models.append(("student", objective.student))
    found: dict[str, list[keras.Variable]] = {}
    for role, model in models:
        # Teachers may have the same name.
        found.setdefault(f"{role} {model.name!r}", []).extend(model.variables)
    return found
