"""The libraries as they are; where one has changed, an entry can go.

If a test here fails after an upgrade, the library has mended what the entry of
`utils/private_api.py` works around, or moved what it reads.
"""

import contextlib

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from keras_distil.utils import private_api


class _Holder(keras.Model):
    """A model without layers, and whatever it is given."""

    def __init__(self):
        super().__init__()
        self.built = True

    def call(self, x):
        return x


def test_hidden_from_keras():
    model = _Holder()
    variable = keras.Variable(0.0, trainable=False)
    model.hidden = private_api.hidden_from_keras({"x": variable})
    assert model.variables == []
    model.seen = {"x": variable}
    assert [v is variable for v in model.variables] == [True]


def test_untracked():
    model, layer = _Holder(), keras.layers.Dense(1)
    layer.build((1, 1))
    with private_api.untracked():
        model.hidden = layer
    assert model.variables == []
    model.tracked = layer
    assert len(model.variables) == 2


def test_flatten_layers():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model = keras.Sequential([keras.Input((2,)), inner])
    dense = inner.layers[0]
    assert dense in private_api.flatten_layers(model)
    assert dense not in model.layers


def test_is_functional():
    built = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    assert private_api.is_functional(built)
    assert private_api.is_functional(keras.Model(built.inputs, built.outputs))
    for other in (_Holder(), keras.Sequential([keras.layers.Dense(2)])):
        assert not private_api.is_functional(other)
    assert not hasattr(keras, "Functional")
    assert not hasattr(keras.models, "Functional")


def test_operation_of():
    layer = keras.layers.Dense(2)
    output = layer(keras.Input((2,)))
    assert private_api.operation_of(output) is layer
    assert not hasattr(output, "operation")


def test_mask_of():
    embedding = keras.layers.Embedding(3, 2, mask_zero=True)
    output = embedding(np.array([[1, 0]]))
    np.testing.assert_array_equal(private_api.mask_of(output), [[True, False]])
    assert private_api.mask_of(tf.zeros([1])) is None
    assert not hasattr(output, "keras_mask")


def test_is_distributed():
    plain = keras.Variable(0.0)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        mirrored = keras.Variable(0.0)
    assert private_api.is_distributed(mirrored)
    assert not private_api.is_distributed(plain)


def test_decays():
    kernel = keras.Variable(np.ones(2, "float32"), name="kernel")
    bias = keras.Variable(np.ones(2, "float32"), name="bias")
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build([kernel, bias])
    assert private_api.decays(optimizer, kernel)
    assert not private_api.decays(optimizer, bias)
    # What it excludes is not in what it saves.
    assert "bias" not in str(optimizer.get_config())


def test_variables_built_for():
    variable = keras.Variable(np.ones(2, "float32"))
    optimizer = keras.optimizers.SGD()
    optimizer.build([variable])
    (built_for,) = private_api.variables_built_for(optimizer)
    assert built_for is variable
    assert all(v is not variable for v in optimizer.variables)


def test_mark_as_better_up():
    def of_metric(mark):
        metric = keras.metrics.MeanMetricWrapper(
            lambda y_true, y_pred: y_pred, name="share"
        )
        if mark:
            private_api.mark_as_better_up(metric)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=[metric])
        stopping = keras.callbacks.EarlyStopping(monitor="share")
        rows = np.ones((4, 1))
        model.fit(rows, rows, verbose=0, callbacks=[stopping])
        return stopping.monitor_op

    assert of_metric(mark=True) is keras.ops.greater
    with pytest.raises(ValueError, match="maximized or minimized"):
        of_metric(mark=False)


def test_global_seed_generator():
    keras.utils.set_random_seed(3)
    generator = private_api.global_seed_generator()
    before = generator.state.numpy().tolist()
    keras.random.uniform((2,))
    assert generator.state.numpy().tolist() != before
    assert private_api.global_seed_generator() is generator


class _Steps(keras.Model):
    """Counts its steps."""

    def __init__(self, exact):
        super().__init__()
        self.exact = exact
        self.steps = self.add_weight(shape=(), trainable=False)
        self.built = True

    def train_step(self, data):
        self.steps.assign_add(1.0)
        return {"steps": self.steps}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if self.exact:
            private_api.number_exactly(iterator, self)


class _Numbers(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.last = -1

    def on_train_batch_end(self, batch, logs=None):
        self.last = batch


@pytest.mark.parametrize(("exact", "last"), [(True, 9), (False, 11)])
def test_number_exactly(exact, last):
    model, numbers = _Steps(exact), _Numbers()
    model.compile(optimizer="sgd", steps_per_execution=4, jit_compile=False)
    endless = tf.data.Dataset.counter(dtype="int64").batch(1)
    model.fit(endless, steps_per_epoch=10, verbose=0, callbacks=[numbers])
    assert numbers.last == last


def test_the_step_of_keras_s_loop():
    model = _Steps(exact=False)
    strategy = tf.distribute.get_strategy()
    logs = private_api.reduce_per_replica({"a": tf.ones([])}, strategy)
    assert float(logs["a"]) == 1.0
    step = private_api.convert_optionals(model, lambda data: data)
    absent = tf.experimental.Optional.empty(tf.TensorSpec([]))
    assert step((tf.constant(3), absent))[1] is None


def test_compiled_metrics():
    metrics = private_api.CompileMetrics(["mae"], None)
    labels = tf.constant([[1.0]])
    metrics.update_state(labels, labels + 0.5)
    assert float(metrics.result()["mae"]) == 0.5
    spec = private_api.compute_output_spec(
        lambda x: x + 1.0, keras.KerasTensor((None, 2))
    )
    assert spec.shape == (None, 2)


def test_gradient_registry():
    @tf.custom_gradient
    def same(x):
        return x, lambda upstream: upstream

    before = set(private_api.gradient_registry())
    tf.function(same).get_concrete_function(tf.TensorSpec([]))
    new = set(private_api.gradient_registry()) - before
    assert any(name.startswith("CustomGradient-") for name in new)


def test_variant_tensor():
    dataset = tf.data.Dataset.range(3)
    assert private_api.variant_tensor(dataset).dtype == tf.variant


def test_dataset_inputs():
    numbers = tf.data.Dataset.range(3)
    (found,) = private_api.dataset_inputs(numbers.batch(2))
    assert found is numbers
    both = private_api.dataset_inputs(numbers.concatenate(numbers))
    assert both == [numbers, numbers]


def test_dataset_operations():
    numbers = tf.data.Dataset.range(3)

    def operations(dataset):
        return {node.op for node in private_api.dataset_operations(dataset)}

    assert "Cos" in operations(numbers.map(lambda x: tf.cos(float(x))))
    assert "Cos" not in operations(numbers.batch(2))
    nested = numbers.flat_map(lambda x: numbers.shuffle(3, seed=x))
    assert "ShuffleDatasetV3" in operations(nested)


def test_is_unordered():
    numbers = tf.data.Dataset.range(3)
    for deterministic in (None, True, False):
        made = numbers.map(
            lambda x: x, num_parallel_calls=2, deterministic=deterministic
        )
        found = private_api.is_unordered(made)
        assert found is (deterministic is False)


def test_shuffling_of():
    # Another test sets the global seed, which counts as one.
    tf.random.set_seed(None)
    numbers = tf.data.Dataset.range(3)
    assert private_api.shuffling_of(numbers) is None
    for arguments, expected in (
        ({}, (True, False)),
        ({"seed": 0}, (True, True)),
        ({"seed": 1, "reshuffle_each_iteration": False}, (False, True)),
        ({"reshuffle_each_iteration": False}, (False, False)),
    ):
        made = numbers.shuffle(3, **arguments)
        assert private_api.shuffling_of(made) == expected
    made = tf.data.Dataset.random(seed=1, rerandomize_each_iteration=True)
    assert private_api.shuffling_of(made) == (True, True)


def test_expand_slurm_nodes():
    hosts, tasks = private_api.expand_slurm_nodes("n[2,10],m1", "2(x2),1")
    assert hosts == ["n2", "n10", "m1"]
    assert tasks == [2, 2, 1]


def test_preset_files():
    files = private_api.preset_files()
    for name in (
        *("get_file", "check_file_exists", "load_json"),
        *("check_config_class", "CONFIG_FILE", "MODEL_WEIGHTS_FILE"),
    ):
        assert hasattr(files, name)
        assert not hasattr(keras_hub.utils, name)


def test_batch_spec():
    seen = []

    class Shown(_Holder):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            seen.append(iterator)

    x = np.zeros((4, 2), "float32")
    for scope in (
        contextlib.nullcontext(),
        tf.distribute.MirroredStrategy(["CPU:0"]).scope(),
    ):
        with scope:
            model = Shown()
            model.compile(loss="mse")
            model.evaluate(x, x, batch_size=2, verbose=0)
    for iterator in seen:
        spec = tf.TensorSpec((2, 2), tf.float32)
        assert private_api.batch_spec(iterator) == (spec, spec)
    assert len(seen) == 2
