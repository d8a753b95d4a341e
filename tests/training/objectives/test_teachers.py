"""Several teachers in the objectives of encoders, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from losses import mixture_reference, reference
from pool import pooled
from reference_step import assert_gradients_close

from keras_distil import Distiller, losses
from keras_distil.models import forward
from keras_distil.training.objectives import MaskedLMObjective, make_objective
from keras_distil.training.objectives.teachers import (
    check_teacher,
    live_teachers,
)

# Weight, temperature, and the divergence, by name of the loss.
SOFT = {
    "soft_target": (3.0, 2.0, mixture_reference.forward),
    "reverse_kl": (0.5, 3.0, mixture_reference.reverse),
    "jensen_shannon": (2.0, 1.5, mixture_reference.mixed),
}
SQUARED = 0.25
LABEL = 0.7
COSINE = 1.5


def soft_losses(**positions):
    kinds = (
        losses.SoftTargetKLDivergence,
        losses.SoftTargetReverseKLDivergence,
        losses.SoftTargetJensenShannonDivergence,
    )
    made = [
        kind(
            weight=weight,
            temperature=temperature,
            positions=positions.get(name, "all"),
        )
        for kind, (name, (weight, temperature, _)) in zip(
            kinds, SOFT.items(), strict=True
        )
    ]
    return [*made, losses.SoftTargetSquaredError(SQUARED, name="output_mse")]


@pytest.fixture(scope="module")
def teachers():
    """Two of different depth, width and heads."""
    wide = toy.make_teacher(hidden_dim=24, num_heads=3)
    return [toy.make_teacher(num_layers=4), toy.randomize(wide, seed=7)]


@pytest.fixture(scope="module")
def student(teachers):
    return make_student(teachers[0])


@pooled
def make_student(teacher, **sizes):
    student = toy.initialize_student(teacher, 2, dropout=0.0, **sizes)
    return toy.randomize(student, seed=5)


def evaluate(objective, batch, *, graph=False, training=True):
    """Logs, and the gradients by path."""

    def run():
        named = objective.batch(batch)
        sizes = objective.denominators(named)
        return sizes, objective.compute_gradients(
            named, sizes, training=training
        )

    found = tf.function(run, autograph=False)() if graph else run()
    sizes, (sums, gradients) = found
    logs = {
        name: float(sums[key]) / float(sizes[size])
        for name, (key, size) in objective.metric_terms.items()
    }
    paths = [v.path for v in objective.variables] if training else []
    return logs, dict(zip(paths, map(np.array, gradients), strict=True))


# === Masked language modelling ===


def masked_lm_losses():
    return [
        losses.MaskedLMCrossentropy(LABEL),
        *soft_losses(reverse_kl="masked"),
        losses.HiddenStateCosineDistance(COSINE, teacher=1),
    ]


def masked_lm_step(teachers, student, batch, project):
    """Logs and gradients from full logits, by Keras's passes and NumPy."""
    x, token_ids, masked = batch
    real = x["padding_mask"].astype("float64")
    theirs = np.stack([toy.full_logits(each, x) for each in teachers])
    states = toy.hidden_states(teachers[1], x).numpy()
    with tf.GradientTape() as tape:
        logits = toy.full_logits(student, x)
        ours = project(toy.hidden_states(student, x))
    logs, slopes = {}, np.zeros(logits.shape)
    logs["mlm_loss"], slope = reference.crossentropy(
        token_ids, logits.numpy(), masked
    )
    slopes += LABEL * slope
    for name, (weight, temperature, divergence) in SOFT.items():
        factors = reference.mean_factors(
            masked if name == "reverse_kl" else real, real.shape
        )
        values, slope = mixture_reference.softened(
            divergence, theirs, logits.numpy(), temperature
        )
        logs[f"{name}_loss"] = (values * factors).sum()
        slopes += weight * slope * factors[..., None]
    values, slope = mixture_reference.squared(None, theirs, logits.numpy())
    factors = reference.mean_factors(real, real.shape)
    logs["output_mse_loss"] = (values * factors).sum()
    slopes += SQUARED * slope * factors[..., None]
    logs["cosine_loss"], cosine_slope = reference.cosine_distance(
        states, ours.numpy(), real
    )
    best = logits.numpy().argmax(axis=-1)
    chosen = mixture_reference.mean_probabilities(theirs, 1.0).argmax(axis=-1)
    logs["mlm_accuracy"] = ((best == token_ids) * masked).sum() / masked.sum()
    logs["teacher_agreement"] = ((best == chosen) * masked).sum() / masked.sum()
    variables = [*student.trainable_variables, *project.trainable_variables]
    gradients = tape.gradient(
        [logits, ours],
        variables,
        output_gradients=[
            tf.cast(slopes, tf.float32),
            tf.cast(COSINE * cosine_slope, tf.float32),
        ],
    )
    return logs, {
        variable.path: tf.convert_to_tensor(gradient).numpy()
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is not None
    }


@pytest.mark.parametrize(
    ("width", "chunk_size", "graph", "jit_compile"),
    [
        (8, 5, False, False),
        (16, 256, False, False),
        pytest.param(8, 5, True, False, marks=pytest.mark.slow),
        pytest.param(8, 5, True, True, marks=pytest.mark.slow),
    ],
)
def test_masked_lm(teachers, width, chunk_size, graph, jit_compile):
    student = make_student(teachers[0], hidden_dim=width)
    objective = make_objective(teachers, student, masked_lm_losses())
    objective.chunk_size = chunk_size
    objective.jit_compile = jit_compile
    # To the second teacher's width.
    assert objective.projection is None
    (project,) = objective.layer_projections
    assert project.kernel.shape == (width, 24)
    batch = toy.make_batch()
    logs, gradients = evaluate(objective, batch, graph=graph)
    expected = masked_lm_step(teachers, student, batch, project)
    check_logs(logs, expected[0])
    assert_gradients_close(gradients, expected[1])
    logs, _ = evaluate(objective, batch, training=False)
    check_logs(logs, expected[0])


def check_logs(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_no_tensor_of_the_batch_s_logits(teachers, student):
    objective = MaskedLMObjective(teachers, student, masked_lm_losses())
    named = objective.batch(toy.make_batch())

    @tf.function(autograph=False)
    def run():
        return objective.compute_gradients(
            named, objective.denominators(named), training=True
        )

    shapes = [
        output.shape.as_list()
        for operation in run.get_concrete_function().graph.get_operations()
        for output in operation.outputs
        if output.shape.rank is not None
    ]
    assert [4, 7, 24] in shapes
    wide = {tuple(s) for s in shapes if s and s[-1] == toy.VOCABULARY}
    assert wide == {(toy.VOCABULARY,)}


# === Tasks ===

KINDS = {
    "classification": 3,
    "regression": 1,
    "token_classification": 4,
    "span": 1,
}


def task_models(teachers, student, kind):
    made = [
        toy.task_model(encoder, kind, KINDS[kind], dropout=0.0, seed=1)
        for encoder in (*teachers, student)
    ]
    for number, model in enumerate(made):
        # The outputs of fresh layers are too small to tell mistakes apart.
        generator = np.random.default_rng(number)
        kernel = model.output_dense.kernel
        values = generator.normal(0.0, 0.8, kernel.shape)
        kernel.assign(values.astype("float32"))
    return made[:-1], made[-1]


def task_batch(kind):
    """A Keras triple; the third example has no weight."""
    x, y, _ = toy.make_batch()
    weight = np.array([1.0, 0.5, 0.0, 2.0], "float32")
    if kind == "classification":
        return x, np.array([2, 0, 1, 1]), weight
    if kind == "regression":
        return x, np.array([0.5, 3.0, 1.0, 2.0], "float32"), weight
    if kind == "token_classification":
        return x, y % 4, np.repeat(weight[:, None], 7, axis=1)
    ends = x["padding_mask"].sum(axis=1) - 1
    return x, {"start": np.zeros(4, "int32"), "end": ends}, weight


def task_losses(kind):
    if kind == "regression":
        return [
            losses.LabelSquaredError(LABEL),
            losses.SoftTargetSquaredError(SQUARED, name="output_mse"),
        ]
    return [losses.LabelCrossentropy(LABEL), *soft_losses()]


def rows_of(outputs, kind):
    """One row for each decision, with choices in the padding."""
    if kind == "span":
        return tf.concat([outputs[..., 0], outputs[..., 1]], axis=0)
    return tf.reshape(outputs, [-1, outputs.shape[-1]])


def task_step(teachers, student, batch, kind):
    """Logs and gradients by Keras's passes and NumPy, row by row."""
    x, y, weight = batch
    real = x["padding_mask"]
    segments = {**x, "segment_ids": np.zeros_like(real)}
    theirs = np.stack([rows_of(each(segments), kind) for each in teachers])
    with tf.GradientTape() as tape:
        ours = rows_of(student(x), kind)
    logits = ours.numpy()
    exists = np.ones(logits.shape, bool)
    targets = y
    if kind == "span":
        exists = np.concatenate([real, real]) > 0
        targets = np.concatenate([y["start"], y["end"]])
        weight = np.concatenate([weight, weight])
    elif kind == "token_classification":
        targets, weight = y.ravel(), (weight * real).ravel()
    factors = reference.mean_factors(weight, weight.shape)
    logs = dict.fromkeys((x.name + "_loss" for x in task_losses(kind)), 0.0)
    hits = {"accuracy": 0.0, "teacher_agreement": 0.0}
    slopes, error = np.zeros(logits.shape), 0.0
    for row, factor in enumerate(factors):
        there = np.flatnonzero(exists[row])
        found = row_losses(
            theirs[:, row, there], logits[row, there], targets[row], kind
        )
        for name, (loss_weight, value, slope) in found.items():
            logs[f"{name}_loss"] += factor * value
            slopes[row, there] += loss_weight * factor * slope
        if kind == "regression":
            error += factor * abs(logits[row, 0] - targets[row])
            continue
        best = logits[row, there].argmax()
        joint = mixture_reference.mean_probabilities(theirs[:, row, there], 1.0)
        hits["accuracy"] += factor * (best == targets[row])
        hits["teacher_agreement"] += factor * (best == joint.argmax())
    logs |= hits if kind != "regression" else {"mean_absolute_error": error}
    variables = student.trainable_variables
    gradients = tape.gradient(
        ours, variables, output_gradients=tf.cast(slopes, tf.float32)
    )
    return logs, {
        variable.path: tf.convert_to_tensor(gradient).numpy()
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is not None
    }


def row_losses(theirs, ours, target, kind):
    """Weight, value and gradient of each loss on one row."""
    squared = mixture_reference.squared(None, theirs, ours)
    if kind == "regression":
        difference = ours - target
        return {
            "label": (LABEL, difference[0] ** 2, 2 * difference),
            "output_mse": (SQUARED, *squared),
        }
    label = reference.crossentropy(np.array(target), ours)
    return {
        "label": (LABEL, *label),
        "output_mse": (SQUARED, *squared),
        **{
            name: (
                weight,
                *mixture_reference.softened(
                    divergence, theirs, ours, temperature
                ),
            )
            for name, (weight, temperature, divergence) in SOFT.items()
        },
    }


@pytest.mark.parametrize("kind", KINDS)
def test_tasks(teachers, student, kind):
    theirs, ours = task_models(teachers, student, kind)
    batch = task_batch(kind)
    objective = make_objective(theirs, ours, task_losses(kind))
    logs, gradients = evaluate(objective, batch)
    expected = task_step(theirs, ours, batch, kind)
    check_logs(logs, expected[0])
    assert_gradients_close(gradients, expected[1])


# === Layers of one of them ===


def layer_losses(number):
    pairs = [(1, 0), (0, 1)]
    return [
        losses.HiddenStateMeanSquaredError(teacher=number),
        losses.HiddenStateCosineDistance(layers=pairs, teacher=number),
        losses.AttentionRelationKLDivergence(
            relation_heads=2, layers=pairs, teacher=number
        ),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_layers_are_those_of_the_teacher_that_is_named(
    teachers, student, number
):
    """Values and gradients are those of this teacher alone, bit for bit."""
    batch = toy.make_batch()
    found = []
    for given, place in ((teachers, number), (teachers[number], 0)):
        mlm = losses.MaskedLMCrossentropy()
        objective = make_objective(given, student, [mlm, *layer_losses(place)])
        projections = [
            x
            for x in (objective.projection, *objective.layer_projections)
            if x is not None
        ]
        assert len(projections) == 3 * (number == 1)
        for seed, projection in enumerate(projections):
            toy.randomize(projection, seed)
        logs, gradients = evaluate(objective, batch)
        logs.pop("teacher_agreement")
        found.append((logs, list(gradients.values())))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_teacher_has_its_projections(teachers):
    student = make_student(teachers[0], hidden_dim=8)
    cosine = losses.HiddenStateCosineDistance
    objective = make_objective(
        teachers,
        student,
        [
            losses.MaskedLMCrossentropy(),
            cosine(),
            cosine(name="other", teacher=1),
            cosine(name="third", teacher=1, layers=[(0, 0)]),
        ],
    )
    assert objective.projection.name == "hidden_state_projection"
    assert objective.projection.kernel.shape == (8, 16)
    assert [x.name for x in objective.layer_projections] == [
        "hidden_state_projection_1_last_last",
        "hidden_state_projection_1_0_0",
    ]
    kernels = [x.kernel.numpy() for x in objective.layer_projections]
    assert kernels[0].shape == kernels[1].shape == (8, 24)
    assert not np.array_equal(*kernels)


# === What is refused ===


def refuse(message, teachers, student, more=(), error=ValueError):
    with pytest.raises(error, match=f"^{message}"):
        make_objective(
            teachers, student, [losses.MaskedLMCrossentropy(), *more]
        )


def test_a_list_of_one_is_the_teacher(teachers):
    assert check_teacher(teachers[:1]) is teachers[0]
    assert check_teacher(teachers[0]) is teachers[0]
    assert check_teacher(None) is None
    assert check_teacher(tuple(teachers)) == teachers
    assert live_teachers(teachers) == teachers
    assert live_teachers(None) == []


def test_lists_that_are_refused(teachers, student):
    refuse(
        "A list of teachers must hold at least one model; without a teacher "
        r"it is None\. Received: teacher=\[\]\.$",
        [],
        student,
    )
    refuse(
        r"A list of teachers must hold Keras models\. Received: "
        r"teacher\[1\]='minilm' \(of type str\)\.$",
        [teachers[0], "minilm"],
        student,
        error=TypeError,
    )
    refuse(
        "Teachers must not share weights, .* give a copy, or leave one out. "
        r"Received: teacher\[1\] with '.*' of teacher\[0\]\.$",
        [teachers[0], teachers[0]],
        student,
    )


def test_models_that_do_not_fit(teachers, student):
    refuse(
        r"teacher\[1\]: Teacher and student must share a vocabulary\. Received:"
        " teacher vocabulary 49, student vocabulary 50.$",
        [teachers[0], toy.make_teacher(vocabulary_size=49)],
        student,
    )
    refuse(
        r"teacher\[1\]: `teacher` must be a keras_hub masked-LM task model",
        [teachers[0], teachers[1].backbone],
        student,
        error=TypeError,
    )
    refuse(
        r"teacher\[1\]: `teacher` and `student` must be two models",
        [teachers[0], student],
        student,
    )


def test_tasks_that_do_not_fit(teachers, student):
    theirs, ours = task_models(teachers, student, "classification")
    label = [losses.LabelCrossentropy()]
    other = toy.task_model(teachers[1], "classification", 2)
    with pytest.raises(
        ValueError,
        match=r"^teacher\[1\]: Teacher and student must have the same classes. "
        "Received: 2 and 3.$",
    ):
        make_objective([theirs[0], other], ours, label)
    other = toy.task_model(teachers[1], "span")
    with pytest.raises(TypeError, match=r"^teacher\[1\]: .* the same kind of"):
        make_objective([theirs[0], other], ours, label)


def test_a_teacher_that_is_not_there(teachers, student):
    cosine = losses.HiddenStateCosineDistance(teacher=2)
    relation = losses.AttentionRelationKLDivergence(teacher=1)
    refuse(
        "The loss 'cosine': `teacher` must be from 0 to 1, as there are 2 "
        r"teachers\. Received: teacher=2\.$",
        teachers,
        student,
        [cosine],
    )
    refuse(
        "The loss 'attention_relation': `teacher` must be 0, as there is one "
        r"teacher\. Received: teacher=1\.$",
        teachers[0],
        student,
        [relation],
    )
    with pytest.raises(ValueError, match="`teacher` must be at least 0. Rec"):
        losses.HiddenStateMeanSquaredError(teacher=-1)
    with pytest.raises(TypeError, match="`teacher` must be an integer. Rec"):
        losses.AttentionTransfer(teacher="first")


def test_a_layer_that_a_teacher_does_not_have(teachers, student):
    """The first has four layers, the second two."""
    layers = [(3, 0)]
    make_objective(
        teachers,
        student,
        [
            losses.MaskedLMCrossentropy(),
            losses.HiddenStateCosineDistance(layers=layers),
        ],
    )
    refuse(
        r"The loss 'cosine' \(teacher=1\): The teacher has 2 layers, 0 to 1\. "
        r"Received: layer 3\.$",
        teachers,
        student,
        [losses.HiddenStateCosineDistance(layers=layers, teacher=1)],
    )
    refuse(
        r"The loss 'attention_transfer' \(teacher=1\): Teacher and student "
        "must have as many attention heads. Received: 3 and 2 heads",
        teachers,
        student,
        [losses.AttentionTransfer(teacher=1)],
    )


def test_a_sentence_embedder_has_one_teacher():
    first, student = toy.make_embedders()
    second, _ = toy.make_embedders()
    made = [losses.VectorCosineDistance()]
    with pytest.raises(
        TypeError,
        match="^A sentence embedder learns from one teacher: the vectors of "
        r"several have no coordinates in common\. Received: a list of 2 teach",
    ):
        make_objective([first, second], student, made)
    make_objective([first], student, made)


class _Own(losses.LogitsLoss):
    reads = frozenset({"teacher_logits", "student_logits"})

    def token_values(self, *, teacher_logits, student_logits):
        return keras.ops.mean((student_logits - teacher_logits) ** 2, axis=-1)


class _Joining(_Own):
    def join_teachers(self, teacher_logits, student_logits):
        return keras.ops.maximum(*teacher_logits)


def test_a_loss_of_one_s_own_says_how_it_joins_them(teachers, student):
    own = _Own(weight=1.0, name="own")
    make_objective(teachers[0], student, [own])
    refuse(
        "The loss 'own' must tell how it joins the logits of several teachers:"
        r" define `_Own.join_teachers`\. Received: 2 teachers\.$",
        teachers,
        student,
        [own],
        error=TypeError,
    )
    joining = _Joining(weight=1.0, name="own")
    batch = toy.make_batch()
    logs, _ = evaluate(make_objective(teachers, student, [joining]), batch)
    x, real = batch[0], batch[0]["padding_mask"]
    largest = np.max([toy.full_logits(x_, x) for x_ in teachers], axis=0)
    values = ((toy.full_logits(student, x) - largest) ** 2).numpy().mean(-1)
    expected = (values * real).sum() / real.sum()
    assert logs["own_loss"] == pytest.approx(expected, rel=1e-5)


def test_labels_that_do_not_exclude_each_other(teachers, student):
    """Each has the mean of the teachers' sigmoids, in the loss and scores."""
    made = [
        toy.task_model(encoder, "multi_label", 3, dropout=0.0, seed=1)
        for encoder in (*teachers, student)
    ]
    for number, model in enumerate(made):
        generator = np.random.default_rng(number)
        kernel = model.output_dense.kernel
        kernel.assign(generator.normal(0.0, 3.0, kernel.shape))
    x, _, _ = toy.make_batch()
    distiller = Distiller(
        made[:-1],
        made[-1],
        [losses.SoftTargetBinaryKLDivergence(temperature=2.0)],
    )
    distiller.compile(keras.optimizers.SGD(0.1))
    logs = distiller.evaluate(
        x, np.zeros((4, 3), "float32"), batch_size=4, return_dict=True
    )
    logits = [
        np.asarray(forward.encode_task(model, x, training=False)[1], np.float64)
        for model in made
    ]
    chosen = [
        np.mean([sigmoid(t) for t in logits[:-1]], 0) > 0.5,
        logits[0] > 0,
    ]
    agreeing = [((logits[-1] > 0) == one).mean() for one in chosen]
    assert logs["teacher_agreement"] == pytest.approx(agreeing[0])
    p = np.mean([sigmoid(t / 2.0) for t in logits[:-1]], 0)
    q = sigmoid(logits[-1] / 2.0)
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert logs["soft_target_loss"] == pytest.approx(4.0 * each.mean(), 1e-5)


def sigmoid(logits):
    return 1.0 / (1.0 + np.exp(-logits))
