"""Distillation of one batch by any Keras models of equal outputs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import (
    AttentionLoss,
    DistillationLoss,
    HiddenStateLoss,
    LabelSquaredError,
    SoftTargetSquaredError,
    functional,
)
from keras_distil.losses.mixtures import one_or_several
from keras_distil.models.any_model import Outputs, check_built
from keras_distil.training.objectives import shared
from keras_distil.training.objectives.any_batch import (
    CLASSIFICATION,
    REGRESSION,
    AnyBatch,
    check_inputs,
    make_batch,
)
from keras_distil.training.objectives.any_pair import ModelPair, named_links
from keras_distil.training.objectives.base import Objective, dense_gradients
from keras_distil.training.objectives.batch_checks import check_fit
from keras_distil.training.objectives.hidden_states import HiddenStateLosses
from keras_distil.training.objectives.teachers import (
    Teacher,
    check_each,
    list_teachers,
)
from keras_distil.training.replicas import replica_count
from keras_distil.utils import graph_checks

Tensor = Any

_OF_CLASSES = shared.OF_CLASSES


class AnyModelObjective(Objective):
    """The losses of one batch of any models, and their gradients.

    An example is one row of the batch. If outputs or hidden states have more
    axes before the last (pixels, time steps), the value of an example is the
    mean over its positions. All losses divide by the weight of the examples;
    an example of weight 0 counts nowhere.

    Args:
        teacher: a Keras model with the student's inputs and outputs, a list of
            them, or None.
        student: a Keras model with one output, classes or numbers.
        losses: the losses to add up. They tell whether outputs are classes or
            numbers.
        from_logits: whether outputs are logits (True) or probabilities
            (False), for a model whose last layer does not tell.
        trains: whether the student is trained, not only scored.

    Raises:
        TypeError: if a model is not a Keras model, the losses do not tell the
            kind of outputs, or as `Objective`.
        ValueError: if inputs or outputs differ, if it is not known whether
            they are logits, if a layer does not exist or does not fit, or as
            `Objective`.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        *,
        from_logits: bool | None = None,
        trains: bool = True,
    ) -> None:
        check_built(student, "student")
        teachers = list_teachers(teacher)
        check_each(teachers, lambda each: check_built(each, "teacher"))
        shared.check_losses(losses, teachers)
        self._outputs_are = _kind_of_outputs(losses)
        self._from_logits = from_logits
        super().__init__(teacher, student, losses, trains=trains)

    @property
    def kind(self) -> str:
        """The kind of task, for messages and `class_weight`."""
        if self._outputs_are == CLASSIFICATION and len(self._pair.shape) > 2:
            return "classification of positions"
        return self._outputs_are

    def denominator_of(self, loss: DistillationLoss) -> str:
        """Returns the key of the denominator of a loss's mean."""
        if isinstance(loss, AttentionLoss):
            raise TypeError(
                f"The loss {loss.name!r} reads the attention of encoders of "
                "text, which other Keras models do not show. Use losses on "
                "hidden states."
            )
        if loss.counts == "masked":
            raise TypeError(
                f"The loss {loss.name!r} counts masked positions, which only "
                "masked language modelling has. Use losses that count "
                "examples, such as LabelCrossentropy."
            )
        return "examples"

    @property
    def score_terms(self) -> dict[str, tuple[str, str]]:
        """Accuracy and, with a teacher, agreement; errors for numbers."""
        if self._outputs_are == REGRESSION:
            return {"mean_absolute_error": ("error", "examples")}
        terms = {"accuracy": ("correct", "examples")}
        if self.teacher is not None:
            terms["teacher_agreement"] = ("agreeing", "examples")
        return terms

    @property
    def metric_outputs(self) -> dict[str, Any]:
        """The inputs of the metrics of `compile`: the model's own outputs."""
        shape = (None, *self._pair.shape[1:])
        wide = keras.KerasTensor(shape, "float32")
        classes = self._outputs_are == CLASSIFICATION
        targets = [keras.KerasTensor(shape[:-1], "int32")] if classes else []
        return {
            "targets": [*targets, wide],
            "predictions": wide,
            "weight": keras.KerasTensor((None,), "float32"),
            "names": None,
            "classes": classes,
            "described": f"labels and outputs of shape {shape}",
        }

    def batch(self, data: Any) -> AnyBatch:
        """Returns the parts of a Keras pair or triple, checked and named.

        Raises:
            ValueError: if they do not match each other or the outputs.
        """
        return make_batch(
            data,
            self._outputs_are,
            inputs=self._pair.inputs,
            outputs=self._pair.shape,
        )

    def outputs(self, inputs: Any, *, training: bool) -> Tensor:
        """Returns the student's outputs as it returns them, float32."""
        inputs = check_inputs(inputs, self._pair.inputs)
        found = self._pair.student.call(inputs, training=training)
        return tf.cast(found, tf.float32)

    def denominators(self, batch: AnyBatch) -> dict[str, Tensor]:
        """Returns the denominators of this batch's means, float32 scalars.

        "tokens" counts all examples that are read, whatever their weight.
        """
        size = tf.shape(batch.weight)[0]
        return {
            "examples": tf.reduce_sum(batch.weight),
            "tokens": tf.cast(size, tf.float32),
        }

    def compute_gradients(
        self,
        batch: AnyBatch,
        denominators: dict[str, Tensor],
        *,
        training: bool,
        observe: shared.Observer | None = None,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Returns sums and gradients; `observe` gets labels and outputs."""
        updated: list[keras.Variable] = []
        run: Callable = functools.partial(
            self._evaluate, updated, training=training
        )
        compiled = training and self.jit_compile and replica_count() == 1
        if compiled and not tf.executing_eagerly():
            run = tf.function(run, jit_compile=True, autograph=False)
        sums, gradients, outputs, values, offs = run(
            batch.inputs,
            batch.targets,
            batch.weight,
            self._scales(denominators),
        )
        for each, off in zip(self._pair.passes, offs, strict=True):
            sums = graph_checks.after(each.check(off), sums)
        if observe is not None:
            observe(batch.targets, outputs, batch.weight)
        if training:
            self._keep_updates(batch, list(zip(updated, values, strict=True)))
        return sums, gradients

    def _evaluate(
        self,
        updated: list[keras.Variable],
        inputs: Any,
        targets: Tensor,
        weight: Tensor,
        scales: dict[str, Tensor],
        *,
        training: bool,
    ) -> tuple[Any, ...]:
        """Runs all models and the losses, without any side effect.

        Returns:
            Sums, gradients, the student's own outputs, the new values of
            variables, which are added to `updated`, and `Outputs.off` of each
            model.
        """
        teachers = [
            teacher(inputs, training=False) for teacher in self._pair.teachers
        ]
        with tf.GradientTape() as tape:
            student = self._pair.student(inputs, training=training)
            row_weight, rows = _rows(targets, weight, teachers, student)
            total, sums = self._add_up_states(scales, weight, teachers, student)
            added = self._logits_sums(row_weight, **rows)
            for loss in self._logits_losses:
                total += scales[loss.name] * added[f"{loss.name}_sum"]
        sums |= added | self._scores(row_weight, **rows)
        outputs = tf.cast(student.own, tf.float32)
        offs = [each.off for each in (student, *teachers)]
        if not training:
            return sums, [], outputs, [], offs
        variables = self.variables
        gradients = tape.gradient(total, variables)
        updated.extend(variable for variable, _ in student.updates)
        return (
            sums,
            dense_gradients(variables, gradients),
            outputs,
            [value for _, value in student.updates],
            offs,
        )

    # === States of the student besides its weights ===

    def _keep_updates(
        self, batch: AnyBatch, updates: list[tuple[keras.Variable, Tensor]]
    ) -> None:
        if batch.updates is not None:
            batch.updates.extend(updates)
            return
        self._check_parts([variable for variable, _ in updates])
        for variable, value in updates:
            variable.assign(value)

    def commit(self, batch: AnyBatch) -> None:
        """Assigns what the student's forward pass changes, after the checks."""
        for variable, value in batch.updates or ():
            variable.assign(value)

    def check_micro_batches(self, parts: int) -> None:
        """Raises ValueError if parts of a batch do not add up to the whole."""
        if parts > 1:
            self._check_parts(self._pair.updated())

    def _check_parts(self, updated: Sequence[keras.Variable]) -> None:
        # Not the states of dropout.
        weights = {id(variable) for variable in self.student.weights}
        found = [v.path for v in updated if id(v) in weights]
        if found:
            raise ValueError(
                "`micro_batches` must be 1 for a student with layers that "
                "keep statistics of a batch, such as BatchNormalization: "
                "those of a part are not those of the whole. Use smaller "
                "batches, another normalisation, or set the layer's "
                f"`trainable` to False. Received: {self.student.name!r}, "
                f"which updates {found[0]!r}."
            )

    # === The forward passes ===

    def _make_hidden_losses(
        self, losses: Sequence[HiddenStateLoss]
    ) -> HiddenStateLosses:
        """Finds the layers; traces all models once without running them."""
        self._pair = ModelPair(
            self.teachers,
            self.student,
            links={loss.name: named_links(loss) for loss in losses},
            kind=self._outputs_are,
            from_logits=self._from_logits,
        )
        return HiddenStateLosses(
            losses, self._pair.links, self._pair.projections
        )

    def _add_up_states(
        self,
        scales: dict[str, Tensor],
        weight: Tensor,
        teachers: Sequence[Outputs],
        student: Outputs,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the scaled total and the sums of losses on hidden states."""
        theirs, ours = self._pair.states(teachers, student)
        return self._hidden_losses.add_up(
            scales,
            weight_of=lambda loss, states: _spread(weight, tf.shape(states)[1]),
            teacher_states=theirs,
            student_states=ours,
        )

    def _scores(self, weight: Tensor, **rows: Any) -> dict[str, Tensor]:
        """Returns the sums of the scores in `score_terms`."""
        if self._outputs_are == CLASSIFICATION:
            return self._choices(weight, **rows)
        error = tf.abs(rows["student_logits"] - rows["targets"])
        error = tf.reduce_mean(error, axis=-1)
        return {"error": functional.weighted_sum(error, weight)}


def _rows(
    targets: Tensor,
    weight: Tensor,
    teachers: Sequence[Outputs],
    student: Outputs,
) -> tuple[Tensor, dict[str, Any]]:
    """Returns the weight of every position, and what losses read there."""
    logits = student.logits
    theirs = [each.logits for each in teachers]
    if logits.shape.rank > 2:
        axes = logits.shape.rank - 1
        targets = check_fit("y", targets, "the outputs", logits, axes)
        theirs = [
            check_fit("the teacher's outputs", each, "the student's", logits)
            for each in theirs
        ]
        count = tf.reduce_prod(tf.shape(logits)[1:-1])
        weight = tf.reshape(_spread(weight, count), [-1])
    last = logits.shape[-1]
    wide = targets.shape.rank == logits.shape.rank
    return weight, {
        "targets": tf.reshape(targets, [-1, last] if wide else [-1]),
        "teacher_logits": one_or_several(
            [tf.reshape(each, [-1, last]) for each in theirs]
        ),
        "student_logits": tf.reshape(logits, [-1, last]),
    }


def _spread(weight: Tensor, count: Tensor) -> Tensor:
    """Spreads the weight of each example over its positions.

    Returns:
        float32, (batch, count), with equal sums.
    """
    share = weight / tf.cast(count, tf.float32)
    return tf.repeat(share[:, tf.newaxis], count, axis=1)


def _kind_of_outputs(losses: Sequence[DistillationLoss]) -> str:
    """Returns what the losses say of the outputs, classes or numbers."""
    several = [
        x.name for x in losses if isinstance(x, shared.OF_SEVERAL_LABELS)
    ]
    if several:
        raise TypeError(
            f"The loss {several[0]!r} is for labels that do not exclude each "
            "other, which only task models of encoders have. Received: "
            f"{several}. Use LabelCrossentropy or LabelSquaredError."
        )
    of_classes = [x.name for x in losses if isinstance(x, _OF_CLASSES)]
    of_numbers = [x.name for x in losses if isinstance(x, LabelSquaredError)]
    if not of_classes:
        # The squared error of outputs is for classes, too.
        of_numbers += [
            x.name for x in losses if isinstance(x, SoftTargetSquaredError)
        ]
    if bool(of_classes) != bool(of_numbers):
        return CLASSIFICATION if of_classes else REGRESSION
    if of_classes:
        raise TypeError(
            "`losses` must be for classes (crossentropy, KL divergence) or "
            "for numbers (squared errors). Received: "
            f"{of_classes} for classes, {of_numbers} for numbers."
        )
    raise TypeError(
        "`losses` must tell whether the outputs are classes or numbers: add "
        "LabelCrossentropy or LabelSquaredError, with weight=0.0 if it shall "
        f"only be logged. Received: names {[x.name for x in losses]}."
    )
