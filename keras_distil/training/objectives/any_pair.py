"""Two Keras models that are called on the same inputs, and their layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import HiddenStateLoss
from keras_distil.losses.layers import Pair
from keras_distil.models import last_layers
from keras_distil.models.any_model import ModelPass, Outputs, input_spec
from keras_distil.training.objectives.any_batch import CLASSIFICATION
from keras_distil.training.objectives.batch_checks import check_fit
from keras_distil.training.objectives.hidden_states import (
    list_pairs,
    make_projection,
)
from keras_distil.utils import private_api

Tensor = Any


class ModelPair:
    """A student, perhaps a teacher, and pairs of their layers.

    Args:
        teacher: a Keras model, or None.
        student: a Keras model.
        pairs: by name of the loss, pairs of layers' names.
        kind: "classification" or "regression".
        from_logits: see `AnyModelObjective`.

    Attributes:
        student: the student's forward pass.
        teacher: the teacher's forward pass, or None.
        passes: both, the student's first.
        inputs: the inputs that the models take, as `keras.KerasTensor`s.
        shape: shape of the outputs, (batch, ..., outputs), None if unknown.
        pairs: the given pairs.
        projections: learned projections by pair of layers.

    Raises:
        ValueError: if inputs, outputs or layers do not fit each other.
    """

    def __init__(
        self,
        teacher: keras.Model | None,
        student: keras.Model,
        *,
        pairs: Mapping[str, Sequence[Pair]],
        kind: str,
        from_logits: bool | None,
    ) -> None:
        models = {"student": student}
        if teacher is not None:
            models["teacher"] = teacher
        _check_from_logits(models, kind, from_logits)
        self.pairs = pairs
        every = list_pairs(pairs)
        passes = {
            role: _make_pass(
                model,
                role,
                {str(pair[role == "student"]) for pair in every},
                kind,
                from_logits,
            )
            for role, model in models.items()
        }
        self.student = passes["student"]
        self.teacher = passes.get("teacher")
        self.passes = list(passes.values())
        self._traced = _find_inputs(models)
        self.inputs = _accepted_inputs(models, self._traced)
        specs = {
            role: each.spec(self._traced, training=role == "student")
            for role, each in passes.items()
        }
        self.shape = tuple(specs["student"].logits.shape)
        _check_outputs(models, specs, kind)
        self.projections = _make_projections(passes, specs, every)

    def updated(self) -> list[keras.Variable]:
        """Returns the variables that the student's forward pass changes."""
        found = self.student.spec(self._traced, training=True)
        return [variable for variable, _ in found.updates]

    def states(
        self, teacher: Outputs | None, student: Outputs
    ) -> tuple[dict[Any, Tensor], dict[Any, Tensor]]:
        """Returns the layers' outputs, (batch, positions, channels), by name.

        Args:
            teacher: what the teacher's forward pass returned.
            student: what the student's forward pass returned.
        """
        if teacher is None:
            return {}, {}
        theirs, ours = dict(teacher.states), student.states
        for of_teacher, of_student in list_pairs(self.pairs):
            state = ours[of_student]
            if state.shape.rank > 2:
                theirs[of_teacher] = check_fit(
                    f"the teacher's layer {of_teacher!r}",
                    theirs[of_teacher],
                    f"the student's layer {of_student!r}",
                    state,
                    state.shape.rank - 1,
                )
        return (
            {name: _flat(state) for name, state in theirs.items()},
            {name: _flat(state) for name, state in ours.items()},
        )


def named_pairs(loss: HiddenStateLoss) -> tuple[Pair, ...]:
    """Returns the pairs of names of a loss.

    Raises:
        ValueError: if it has numbers, "last" or "uniform" instead.
    """
    layers = loss.layers
    if not isinstance(layers, str) and all(
        isinstance(name, str) for pair in layers for name in pair
    ):
        return layers
    raise ValueError(
        f"The loss {loss.name!r} needs pairs (teacher, student) of layers' "
        "names, such as layers=[('conv3', 'conv1')]; numbers, 'last' and "
        "'uniform' are for encoders of text. Received: "
        f"layers={layers if isinstance(layers, str) else list(layers)!r}."
    )


def _flat(state: Tensor) -> Tensor:
    size = tf.shape(state)[0]
    return tf.reshape(state, [size, -1, state.shape[-1]])


def _check_from_logits(
    models: Mapping[str, keras.Model], kind: str, from_logits: bool | None
) -> None:
    if from_logits is None:
        return
    if not isinstance(from_logits, bool):
        raise TypeError(
            "`from_logits` must be True, False or None. "
            f"Received: from_logits={from_logits!r}."
        )
    if kind != CLASSIFICATION:
        raise ValueError(
            "`from_logits` is for outputs that are classes, and the losses "
            "are for numbers. Leave it out. "
            f"Received: from_logits={from_logits}."
        )
    if all(map(last_layers.tells_logits, models.values())):
        raise ValueError(
            "`from_logits` is for models whose last layer does not tell "
            "whether outputs are logits, and both tell it here. Leave it out. "
            f"Received: from_logits={from_logits}."
        )


def _make_pass(
    model: keras.Model,
    role: str,
    layers: set[str],
    kind: str,
    from_logits: bool | None,
) -> ModelPass:
    if kind != CLASSIFICATION:
        return ModelPass(model, role, layers)
    return ModelPass(
        model,
        role,
        layers,
        logits=last_layers.logits_tap(model, role, from_logits),
        are_probabilities=(
            from_logits is False and not last_layers.tells_logits(model)
        ),
    )


def _find_inputs(models: Mapping[str, keras.Model]) -> Any:
    """Returns the inputs of the first model that tells them."""
    for model in models.values():
        inputs = input_spec(model)
        if inputs is not None:
            return inputs
    raise ValueError(
        "The shape of the inputs is not known. Call `student` on a batch once. "
        f"Received: student={models['student'].name!r}."
    )


def _accepted_inputs(models: Mapping[str, keras.Model], inputs: Any) -> Any:
    """Returns the inputs with the sizes that a model requires.

    The sizes that a subclassed model was built with are those of a batch, and
    it may take others.
    """
    shapes = [
        tf.TensorShape([None] * len(x.shape))
        for x in keras.tree.flatten(inputs)
    ]
    for model in models.values():
        if private_api.is_functional(model):
            own = keras.tree.flatten(input_spec(model))
            for place, (shape, x) in enumerate(zip(shapes, own, strict=False)):
                if shape.is_compatible_with(x.shape):
                    shapes[place] = shape.merge_with(x.shape)
    return keras.tree.pack_sequence_as(
        inputs, [keras.KerasTensor(shape.as_list()) for shape in shapes]
    )


def _check_outputs(
    models: Mapping[str, keras.Model], specs: Mapping[str, Outputs], kind: str
) -> None:
    shape = tuple(specs["student"].logits.shape)
    if kind == CLASSIFICATION and shape[-1] == 1:
        raise ValueError(
            "Classes need at least 2 outputs, one for each. For two classes "
            "use 2 outputs; for numbers use the squared errors of labels and "
            "soft targets. Received: student="
            f"{models['student'].name!r} with outputs of shape {shape}."
        )
    if "teacher" not in specs:
        return
    theirs = tuple(specs["teacher"].logits.shape)
    if not tf.TensorShape(shape).is_compatible_with(theirs):
        raise ValueError(
            "Teacher and student must have outputs of the same shape. "
            f"Received: {theirs} of {models['teacher'].name!r}, {shape} of "
            f"{models['student'].name!r}."
        )


def _make_projections(
    passes: Mapping[str, ModelPass],
    specs: Mapping[str, Outputs],
    pairs: Sequence[Pair],
) -> dict[Pair, keras.layers.Layer]:
    """Makes a projection per pair of layers with different last axes."""
    projections: dict[Pair, keras.layers.Layer] = {}
    for seed, pair in enumerate(pairs, start=1):
        of_teacher, of_student = str(pair[0]), str(pair[1])
        theirs = tf.TensorShape(specs["teacher"].states[of_teacher].shape)
        ours = tf.TensorShape(specs["student"].states[of_student].shape)
        if not ours[:-1].is_compatible_with(theirs[:-1]):
            raise ValueError(
                "Paired layers must have equal sizes before the last axis, "
                "which alone is projected. Received: the teacher's "
                f"{of_teacher!r} of shape {theirs}, the student's "
                f"{of_student!r} of shape {ours}."
            )
        if ours[-1] != theirs[-1]:
            layer = passes["student"].layers[of_student]
            half = layer.compute_dtype == "bfloat16"
            projections[pair] = make_projection(
                f"hidden_state_projection_{of_teacher}_{of_student}",
                student_width=ours[-1],
                teacher_width=theirs[-1],
                seed=seed,
                dtype="mixed_bfloat16" if half else "float32",
            )
    return projections
