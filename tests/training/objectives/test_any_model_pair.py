"""What two Keras models must be like to teach and learn, in clear lines."""

import any_models
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distil import Distiller, losses
from keras_distil.models import last_layers
from keras_distil.models.any_model import ModelPass, input_spec
from keras_distil.teachers import CachedTeacher
from keras_distil.training.objectives import AnyModelObjective, make_objective


def classification(layers=None):
    made = [losses.LabelCrossentropy(), losses.SoftTargetKLDivergence()]
    if layers is not None:
        made.append(losses.HiddenStateMeanSquaredError(layers=layers))
    return made


def numbers():
    return [losses.LabelSquaredError(), losses.SoftTargetSquaredError()]


def mlp(**options):
    return any_models.make_mlp(4, seed=2, **options)


def convnet(name, strides):
    layer = keras.layers.Conv2D(3, 3, strides, padding="same", name="conv")
    return keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layer,
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ],
        name=name,
    )


@keras.saving.register_keras_serializable(package="tests")
class TwoOutputs(keras.Model):
    def __init__(self):
        super().__init__()
        self.last = keras.layers.Dense(3)

    def call(self, x):
        return {"a": self.last(x), "b": self.last(x)}


@keras.saving.register_keras_serializable(package="tests")
class Penalty(keras.layers.Layer):
    def call(self, x):
        self.add_loss(keras.ops.sum(x))
        return x


def masked(mask_zero=True):
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(9, 5, mask_zero=mask_zero, name="words"),
            keras.layers.Dense(3),
        ]
    )


def recurrent():
    inputs = keras.Input((4, 5))
    cell = keras.layers.SimpleRNNCell(4, name="cell")
    return keras.Model(
        inputs, keras.layers.Dense(3)(keras.layers.RNN(cell)(inputs))
    )


def several_inputs():
    inputs = [keras.Input((5,)), keras.Input((5,))]
    return keras.Model(
        inputs, keras.layers.Dense(3)(keras.layers.Add()(inputs))
    )


def called(times):
    return any_models.make_subclassed(4, seed=2, times=times)


def same_names():
    inputs = keras.Input((5,))
    inner = [mlp(), mlp()]
    for number, each in enumerate(inner):
        each.name = f"inner{number}"
    both = keras.layers.Add()([each(inputs) for each in inner])
    return keras.Model(inputs, keras.layers.Dense(3)(both), name="both")


# === Refused when it is made ===

# Teacher, student, losses, other arguments; the message.
REFUSED = {
    "no model": (mlp, lambda: "x", {}, "`student` must be a `keras.Model`."),
    "no teacher's model": (
        lambda: np.ones(3),
        mlp,
        {},
        "`teacher` must be a `keras.Model`.",
    ),
    "not built": (
        mlp,
        lambda: keras.Sequential([keras.layers.Dense(3)]),
        {},
        "`student` has no weights yet. Call it on a batch once",
    ),
    "a subclass that is not built": (
        mlp,
        lambda: any_models.Subclassed(4),
        {"from_logits": True},
        "`student` has no weights yet",
    ),
    "other outputs": (
        lambda: mlp(outputs=4),
        mlp,
        {},
        "outputs of the same shape. Received: (None, 4) of 'mlp_4', (None, 3)",
    ),
    "other inputs": (
        lambda: mlp(shape=(7,)),
        mlp,
        {},
        "`teacher` 'mlp_4' cannot be called on inputs of shape (None, 5): ",
    ),
    "other axes of the inputs": (
        lambda: convnet("images", 1),
        mlp,
        {},
        "`teacher` 'images' cannot be called on inputs of shape (None, 5): ",
    ),
    "a sigmoid": (
        mlp,
        lambda: mlp(last="sigmoid"),
        {},
        "logits of classes that exclude each other",
    ),
    "one class": (
        lambda: mlp(outputs=1),
        lambda: mlp(outputs=1),
        {},
        "Classes need at least 2 outputs",
    ),
    "unknown outputs": (
        mlp,
        lambda: called(1),
        {},
        "cannot be read off it: it is a subclass with its own `call`. Say",
    ),
    "an unknown last layer": (
        lambda: keras.Sequential([mlp(), keras.layers.Dropout(0.1, name="d")]),
        mlp,
        {},
        "`teacher` are logits cannot be read off it: its last layer is 'd' (Dr",
    ),
    "what is known": (
        mlp,
        mlp,
        {"from_logits": True},
        "both tell it here. Leave it out. Received: from_logits=True.",
    ),
    "logits of numbers": (
        mlp,
        mlp,
        {"losses": numbers, "from_logits": False},
        "the losses are for numbers. Leave it out.",
    ),
    "a word": (mlp, mlp, {"from_logits": "yes"}, "must be True, False or None"),
    "both kinds": (
        mlp,
        mlp,
        {
            "losses": lambda: [
                *classification(),
                losses.LabelSquaredError(name="squares"),
            ]
        },
        "['label', 'soft_target'] for classes, ['squares'] for numbers.",
    ),
    "masked positions": (
        mlp,
        mlp,
        {"losses": losses.triple_loss},
        "counts masked positions, which only masked language modelling has",
    ),
    "the last layers": (
        mlp,
        mlp,
        {"losses": lambda: classification("last")},
        "needs pairs (teacher, student) of layers' names",
    ),
    "numbers of layers": (
        mlp,
        mlp,
        {"losses": lambda: classification([(1, 0)])},
        "are for encoders of text. Received: layers=[(1, 0)].",
    ),
    "no such layer": (
        mlp,
        mlp,
        {"losses": lambda: classification([("hidden", "hiden")])},
        "`student` 'mlp_4' has no layer 'hiden'. Its layers: hidden, last.",
    ),
    "two layers of a name": (
        mlp,
        same_names,
        {"losses": lambda: classification([("hidden", "hidden")])},
        "Received: student='both' with 2 layers of this name.",
    ),
    "other positions": (
        lambda: convnet("teacher", 1),
        lambda: convnet("student", 2),
        {"losses": lambda: classification([("conv", "conv")])},
        "'conv' of shape (None, 4, 4, 3), the student's 'conv' of shape "
        "(None, 2, 2, 3).",
    ),
    "a layer called twice": (
        mlp,
        lambda: called(2),
        {
            "losses": lambda: classification([("hidden", "hidden")]),
            "from_logits": True,
        },
        "the layer 'hidden' exactly once in a forward pass. Received: ",
    ),
    "a layer called never": (
        mlp,
        lambda: called(1),
        {
            "losses": lambda: classification([("hidden", "unused")]),
            "from_logits": True,
        },
        "where it is called 0 times.",
    ),
    "a layer in a loop": (
        recurrent,
        recurrent,
        {"losses": lambda: classification([("cell", "cell")])},
        "the layer 'cell' exactly once in a forward pass.",
    ),
    "a layer of words": (
        lambda: masked(False),
        lambda: masked(True),
        {"losses": lambda: classification([("words", "words")])},
        "has a Keras mask",
    ),
    "several outputs": (
        mlp,
        lambda: keras.Model(mlp().inputs, mlp()(mlp().inputs), name="x"),
        None,
        None,
    ),
    "a missing teacher": (lambda: None, mlp, {}, "'soft_target' needs a teach"),
    "a regulariser": (
        mlp,
        lambda: keras.Sequential(
            [
                keras.Input((5,)),
                keras.layers.Dense(3, kernel_regularizer="l2"),
            ]
        ),
        {},
        "own losses (regularisers, `add_loss`) are not part",
    ),
    "an added loss": (
        mlp,
        lambda: keras.Sequential(
            [keras.Input((5,)), Penalty(), keras.layers.Dense(3)]
        ),
        {},
        "own losses (regularisers, `add_loss`) are not part",
    ),
    "half precision": (
        mlp,
        lambda: mlp(dtype="mixed_float16"),
        {},
        "`mixed_float16` is not supported for a student",
    ),
}
del REFUSED["several outputs"]


@pytest.mark.parametrize("case", REFUSED)
def test_pairs_that_are_refused(case):
    teacher, student, options, message = REFUSED[case]
    options = {"losses": classification, **options}
    options["losses"] = options["losses"]()
    with pytest.raises((TypeError, ValueError)) as error:
        Distiller(teacher(), student(), **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_one_model_is_refused_as_both():
    model = mlp()
    with pytest.raises(ValueError, match="must be two models"):
        Distiller(model, model, classification())
    wrapped = keras.Sequential([keras.Input((5,)), model])
    with pytest.raises(ValueError, match="must not share weights"):
        Distiller(model, wrapped, classification())


def test_several_outputs_are_refused():
    model = mlp()
    twice = keras.Model(model.inputs, [model.outputs[0], model.outputs[0]])
    subclassed = TwoOutputs()
    subclassed(np.ones((1, 5)))
    for student in (twice, subclassed):
        with pytest.raises(ValueError, match="must have one output.* with 2"):
            Distiller(
                None, student, [losses.LabelCrossentropy()], from_logits=True
            )


def test_a_mask_is_refused_and_none_is_taken():
    with pytest.raises(ValueError, match="has a Keras mask.*mask_zero=False"):
        AnyModelObjective(masked(), masked(), classification())
    made = classification([("words", "words")])
    AnyModelObjective(masked(False), masked(False), made)
    # Of classes of whole texts, as the mask ends where words are summed up.
    whole = [
        keras.Sequential([masked(), keras.layers.GlobalAveragePooling1D()])
        for _ in range(2)
    ]
    AnyModelObjective(*whole, classification(), from_logits=True)


def test_losses_must_tell_the_kind_of_outputs():
    class Own(losses.LogitsLoss):
        def token_values(self, *, targets, teacher_logits, student_logits):
            return student_logits[:, 0]

    message = "add LabelCrossentropy or LabelSquaredError, with weight=0.0"
    with pytest.raises(TypeError, match=message):
        AnyModelObjective(mlp(), mlp(), [Own(weight=1.0, name="own")])
    objective = AnyModelObjective(
        mlp(),
        mlp(),
        [Own(weight=1.0, name="own"), losses.LabelCrossentropy(weight=0.0)],
    )
    assert objective.kind == "classification"


def test_cached_teachers_and_known_families_are_told_apart():
    import toy

    class Cached(CachedTeacher):
        name = "cache"

        def __init__(self):
            pass

    cached = Cached()
    with pytest.raises(TypeError, match="is for masked language modelling"):
        make_objective(cached, mlp(), classification())
    teacher = toy.make_teacher()
    with pytest.raises(ValueError, match="outputs of this student are known"):
        Distiller(
            teacher,
            toy.make_student(teacher),
            losses.triple_loss(),
            from_logits=True,
        )
    with pytest.raises(ValueError, match="is an encoder, whose layers have"):
        Distiller(
            teacher,
            toy.make_student(teacher),
            [
                losses.MaskedLMCrossentropy(),
                losses.HiddenStateCosineDistance(layers=[("conv", "conv")]),
            ],
        )


def test_a_model_of_a_family_learns_from_any_other_as_a_plain_model():
    import toy

    task = toy.task_model(toy.make_teacher(), "classification", 3)
    student = keras.Model(task.input, task.output)
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in task.input
    }
    embedding = keras.layers.Embedding(toy.VOCABULARY, 4)
    mean = keras.layers.GlobalAveragePooling1D()
    outputs = keras.layers.Dense(3)(mean(embedding(inputs["token_ids"])))
    teacher = keras.Model(inputs, outputs)
    with pytest.raises(TypeError, match="for the same kind of task"):
        Distiller(teacher, task, losses.task_loss("classification"))
    distiller = Distiller(teacher, student, classification())
    distiller.compile("sgd", run_eagerly=True)
    x, _, _ = toy.make_batch()
    x["segment_ids"] = np.zeros_like(x["token_ids"])
    before = task.output_dense.kernel.numpy().copy()
    distiller.train_on_batch(x, np.array([0, 1, 2, 0]))
    assert not np.array_equal(task.output_dense.kernel.numpy(), before)


# === Batches ===

X, Y, WEIGHT = any_models.make_batch()
# A batch, and the message.
UNFIT = {
    "no labels": ((X,), "with the labels as `y`. Received: y=None."),
    "labels too high": ((X, Y + 9), "`y` must be from 0 to 2 (classes)"),
    "labels below 0": ((X, Y - 9), "`y` must be from 0 to 2 (classes)"),
    "labels that are ignored elsewhere": (
        (X, np.where(Y == 0, -100, Y)),
        "`y` must be from 0 to 2 (classes)",
    ),
    "whole numbers for each class": (
        (X, np.eye(3, dtype="int32")[Y]),
        "the classes, or float probabilities of shape (batch, 3).",
    ),
    "no probabilities": ((X, np.ones((6, 3), "float32")), "a sum of 3"),
    "other axes": ((X, np.zeros((6, 2, 3), "float32")), "(batch, 3)"),
    "labels by name": ((X, {"a": Y}), "must be one array. Received: ['a']."),
    "labels in a list": ((X, [Y, Y]), "must be one array. Received: 2 arrays"),
    "another number": ((X, Y[:4]), "`y` must have the number of examples of"),
    "no fractions": ((X, Y + 0.5), "`y` must hold whole numbers"),
    "weights of positions": (
        (X, Y, np.ones((6, 3), "float32")),
        "`sample_weight` must have shape (batch,). Received: shape (6, 3).",
    ),
    "negative weights": ((X, Y, -WEIGHT), "must be finite and at least 0"),
    "a weight too few": (
        (X, Y, WEIGHT[:5]),
        "`y` must have the number of examples of `sample_weight`. Received: ",
    ),
    "other features": (
        (X[:, :4], Y),
        "`x` must have shape (batch, 5), as the models take it. Received: ",
    ),
    "features by name": (
        ({"a": X}, Y),
        "cannot be called on inputs of shape {",
    ),
    "several inputs": (((X, X), Y), "inputs in `x` must be 1, .* Received: 2"),
    "no batch": ((np.float32(1.0), Y), "`x` must have a batch axis"),
    "ragged inputs": (
        (tf.ragged.constant([[1.0]] * 6), Y),
        "`x` must be a dense tensor",
    ),
}


@pytest.fixture(scope="module")
def objective():
    return AnyModelObjective(mlp(), mlp(), classification())


@pytest.mark.parametrize("case", UNFIT)
def test_unfit_batches(objective, case):
    data, message = UNFIT[case]
    with pytest.raises(ValueError) as error:
        batch = objective.batch(data)
        denominators = objective.denominators(batch)
        objective.compute_gradients(batch, denominators, training=True)
    assert "\n" not in str(error.value)
    parts = message.split(".*")
    assert all(part.strip() in str(error.value) for part in parts)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full((6, 3), np.nan), "`y` must be finite .* Received: nan"),
        (np.zeros(6), r"`y` must hold numbers of shape \(batch, 3\)\. Rec"),
        (
            np.zeros((6, 2)),
            r"`y` must hold numbers of shape \(batch, 3\)\. Rec",
        ),
    ],
)
def test_unfit_numbers(y, message):
    objective = AnyModelObjective(mlp(), mlp(), numbers())
    with pytest.raises(ValueError, match=message):
        objective.batch((X, y.astype("float32")))


def test_unfit_batches_in_a_graph():
    distiller = Distiller(mlp(), mlp(), classification())
    distiller.compile("sgd")
    data = tf.data.Dataset.from_tensors((X, Y)).repeat()
    distiller.fit(data, steps_per_epoch=1, verbose=0)
    before = [v.numpy() for v in distiller.student.variables]
    for x, y, message in (
        (X, Y + 9, "^`y` must be from 0 to 2"),
        (X[:, :4], Y, r"^`x` must have shape \(batch, 5\).*shape \(6, 4\)\.$"),
    ):
        for call in (distiller.fit, distiller.evaluate):
            with pytest.raises(ValueError, match=message):
                call(x, y, verbose=0)
    with pytest.raises(ValueError, match="^`x` must have shape"):
        distiller.predict(X[:, :4], verbose=0)
    for variable, value in zip(
        distiller.student.variables, before, strict=True
    ):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize("kind", ["classes", "probabilities", "numbers"])
def test_numbers_of_examples_that_only_a_step_knows(kind):
    """They are checked before any operation could fail on them."""
    made = numbers() if kind == "numbers" else classification()
    distiller = Distiller(mlp(), mlp(), made)
    distiller.compile("sgd")
    y = np.eye(3, dtype="float32")[Y] if kind != "classes" else Y
    whole = (X, y, WEIGHT)
    spec = tf.nest.map_structure(
        lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), whole
    )
    for place, name in ((0, "x"), (2, "sample_weight")):
        parts = [*whole]
        parts[place] = parts[place][:4]
        data = tf.data.Dataset.from_generator(
            lambda parts=parts: iter([tuple(parts)]), output_signature=spec
        )
        with pytest.raises(ValueError, match=f"^`y` must .* of `{name}`. Rec"):
            distiller.fit(data, verbose=0)


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}])
def test_probabilities_are_said_in_vain(options):
    """XLA leaves assertions out of what it compiles."""
    distiller = Distiller(
        called(1), called(1), classification(), from_logits=False
    )
    distiller.compile("sgd", **options)
    before = [v.numpy() for v in distiller.student.variables]
    for call in (distiller.train_on_batch, distiller.test_on_batch):
        with pytest.raises(
            ValueError, match="^`from_logits=False` says .* off"
        ):
            call(X, Y)
    for variable, value in zip(
        distiller.student.variables, before, strict=True
    ):
        np.testing.assert_array_equal(variable.numpy(), value)


# === Reading models ===


def test_last_layers():
    plain = mlp(last="softmax")
    last = plain.get_layer("last")
    inputs = keras.Input((5,))
    assert last_layers.last_layer(plain) is last
    nested = keras.Sequential([keras.Input((5,)), plain])
    assert last_layers.last_layer(nested) is last
    assert last_layers.last_layer(keras.Model(inputs, plain(inputs))) is last
    assert last_layers.last_layer(called(1)) is None
    operation = keras.Model(inputs, keras.ops.softmax(plain(inputs)))
    assert last_layers.last_layer(operation) is None
    columns = keras.Sequential(
        [keras.Input((2, 3)), keras.layers.Softmax(axis=1)]
    )
    assert not last_layers.tells_logits(columns)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_convolutions_and_products_tell_logits(number):
    layer, shape = [
        (keras.layers.Conv2D(3, 1, activation="softmax"), (2, 2, 5)),
        (
            keras.layers.EinsumDense(
                "bi,io->bo", 3, activation="softmax", bias_axes="o"
            ),
            (5,),
        ),
        (keras.layers.Conv1DTranspose(3, 2, activation="softmax"), (4, 5)),
    ][number]
    model = keras.Sequential([keras.Input(shape), layer])
    passed = ModelPass(
        model,
        "student",
        [],
        logits=last_layers.logits_tap(model, "student", None),
    )
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    found = passed(tf.constant(x), training=False)
    np.testing.assert_allclose(
        tf.nn.softmax(found.logits), found.own, rtol=1e-5, atol=1e-7
    )
    assert np.abs(found.logits - found.own).max() > 0.01
    assert layer.activation is keras.activations.softmax
    assert "call" not in vars(layer)


def test_inputs_of_models():
    spec = input_spec(mlp())
    assert (spec.shape, spec.dtype) == ((None, 5), "float32")
    assert [x.shape for x in input_spec(several_inputs())] == [(None, 5)] * 2
    assert input_spec(masked()).dtype == "int32"
    # A subclassed model knows what it was built with.
    assert input_spec(called(1)).shape == (None, 5)

    @keras.saving.register_keras_serializable(package="tests")
    class OfSeveral(keras.Model):
        def __init__(self):
            super().__init__()
            self.last = keras.layers.Dense(3)

        def call(self, x):
            return self.last(x["a"] + x["b"])

    model = OfSeveral()
    model({"a": X, "b": X})
    assert input_spec(model)["b"].shape == (None, 5)


def test_an_error_within_a_model_names_its_cause():
    @keras.saving.register_keras_serializable(package="tests")
    class Broken(any_models.Subclassed):
        def call(self, x):
            if self.width < 0:
                raise ValueError("No such width.")
            return super().call(x)

    model = Broken(4)
    model.build((None, 5))
    objective = AnyModelObjective(
        None, model, [losses.LabelCrossentropy()], from_logits=True
    )
    model.width = -1
    batch = objective.batch((X, Y))
    with pytest.raises(ValueError, match="(6, 5).: No such width.$") as error:
        objective.compute_gradients(
            batch, objective.denominators(batch), training=True
        )
    assert "No such width" in str(error.value.__cause__)
