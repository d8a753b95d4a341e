"""Keras models that are called on the same inputs, and their layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import HiddenStateLoss
from keras_distil.models import last_layers
from keras_distil.models.any_model import ModelPass, Outputs, input_spec
from keras_distil.training.objectives.any_batch import CLASSIFICATION
from keras_distil.training.objectives.batch_checks import check_fit
from keras_distil.training.objectives.hidden_states import (
    Link,
    list_links,
    make_projection,
    projection_name,
)
from keras_distil.utils import private_api

Tensor = Any


class ModelPair:
    """A student, perhaps teachers, and pairs of their layers.

    Args:
        teachers: Keras models.
        student: a Keras model.
        links: by name of the loss, the teacher and the layers' names.
        kind: "classification" or "regression".
        from_logits: see `AnyModelObjective`.

    Attributes:
        student: the student's forward pass.
        teachers: the teachers' forward passes.
        passes: all of them, the student's first.
        inputs: the inputs that the models take, as `keras.KerasTensor`s.
        shape: shape of the outputs, (batch, ..., outputs), None if unknown.
        links: the given links.
        projections: learned projections by pair of layers.

    Raises:
        ValueError: if inputs, outputs or layers do not fit each other.
    """

    def __init__(
        self,
        teachers: Sequence[keras.Model],
        student: keras.Model,
        *,
        links: Mapping[str, Sequence[Link]],
        kind: str,
        from_logits: bool | None,
    ) -> None:
        roles = teacher_roles(len(teachers))
        models = {"student": student, **dict(zip(roles, teachers, strict=True))}
        _check_from_logits(models, kind, from_logits)
        self.links = links
        every = list_links(links)
        layers: dict[str, set[str]] = {role: set() for role in models}
        for number, of_teacher, of_student in every:
            layers[roles[number]].add(str(of_teacher))
            layers["student"].add(str(of_student))
        passes = {
            role: _make_pass(model, role, layers[role], kind, from_logits)
            for role, model in models.items()
        }
        self.student = passes["student"]
        self.teachers = [passes[role] for role in roles]
        self.passes = list(passes.values())
        self._traced = _find_inputs(models)
        self.inputs = _accepted_inputs(models, self._traced)
        specs = {
            role: each.spec(self._traced, training=role == "student")
            for role, each in passes.items()
        }
        self.shape = tuple(specs["student"].logits.shape)
        _check_outputs(models, specs, kind)
        self.projections = _make_projections(passes, specs, every, roles)

    def updated(self) -> list[keras.Variable]:
        """Returns the variables that the student's forward pass changes."""
        found = self.student.spec(self._traced, training=True)
        return [variable for variable, _ in found.updates]

    def states(
        self, teachers: Sequence[Outputs], student: Outputs
    ) -> tuple[list[dict[Any, Tensor]], dict[Any, Tensor]]:
        """Returns the layers' outputs, (batch, positions, channels), by name.

        Args:
            teachers: what the teachers' forward passes returned.
            student: what the student's forward pass returned.
        """
        theirs, ours = [dict(each.states) for each in teachers], student.states
        for number, of_teacher, of_student in list_links(self.links):
            state = ours[of_student]
            if state.shape.rank > 2:
                theirs[number][of_teacher] = check_fit(
                    f"the teacher's layer {of_teacher!r}",
                    theirs[number][of_teacher],
                    f"the student's layer {of_student!r}",
                    state,
                    state.shape.rank - 1,
                )
        return (
            [
                {name: _flat(state) for name, state in each.items()}
                for each in theirs
            ],
            {name: _flat(state) for name, state in ours.items()},
        )


def teacher_roles(count: int) -> list[str]:
    """Returns the names of teachers in messages."""
    if count == 1:
        return ["teacher"]
    return [f"teacher[{number}]" for number in range(count)]


def named_links(loss: HiddenStateLoss) -> tuple[Link, ...]:
    """Returns the teacher and the pairs of names of a loss.

    Raises:
        ValueError: if it has numbers, "last" or "uniform" instead.
    """
    layers = loss.layers
    if not isinstance(layers, str) and all(
        isinstance(name, str) for pair in layers for name in pair
    ):
        return tuple((loss.teacher, *pair) for pair in layers)
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
    for role in [each for each in specs if each != "student"]:
        theirs = tuple(specs[role].logits.shape)
        if not tf.TensorShape(shape).is_compatible_with(theirs):
            raise ValueError(
                "Teacher and student must have outputs of the same shape. "
                f"Received: {theirs} of {models[role].name!r}, {shape} of "
                f"{models['student'].name!r}."
            )


def _make_projections(
    passes: Mapping[str, ModelPass],
    specs: Mapping[str, Outputs],
    links: Sequence[Link],
    roles: Sequence[str],
) -> dict[Link, keras.layers.Layer]:
    """Makes a projection per pair of layers with different last axes."""
    projections: dict[Link, keras.layers.Layer] = {}
    for seed, link in enumerate(links, start=1):
        of_teacher, of_student = str(link[1]), str(link[2])
        theirs = tf.TensorShape(specs[roles[link[0]]].states[of_teacher].shape)
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
            projections[link] = make_projection(
                projection_name(link),
                student_width=ours[-1],
                teacher_width=theirs[-1],
                seed=seed,
                dtype="mixed_bfloat16" if half else "float32",
            )
    return projections
