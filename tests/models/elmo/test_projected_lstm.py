import keras
import numpy as np
import pytest

from keras_distil.models.elmo.projected_lstm import (
    ProjectedLSTM,
    ProjectedLSTMCell,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(weights, x, mask, limits, backwards):
    """The outputs in float64, one sentence and one step at a time."""
    kernel, bias, recurrent, projection = (w.astype("float64") for w in weights)
    cell_clip, projection_clip = limits
    outputs = np.zeros((*x.shape[:2], projection.shape[1]))
    for row in range(len(x)):
        words = np.flatnonzero(mask[row])
        h, c = np.zeros(projection.shape[1]), np.zeros(len(projection))
        for step in words[::-1] if backwards else words:
            gates = x[row, step] @ kernel + bias + h @ recurrent
            i, f, g, o = gates.reshape(4, -1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            c = np.minimum(np.maximum(c, -cell_clip), cell_clip)
            h = (sigmoid(o) * np.tanh(c)) @ projection
            h = np.minimum(np.maximum(h, -projection_clip), projection_clip)
            outputs[row, step] = h
    return outputs


def random_weights(layer, scale=1.0):
    generator = np.random.default_rng(7)
    layer.set_weights(
        [generator.normal(0, scale, w.shape) for w in layer.get_weights()]
    )


@pytest.mark.parametrize(
    ("limits", "h", "c"),
    [
        # By hand: i = f = o = sigmoid(0) = 0.5 and g = tanh(0.75 + 0.25) =
        # 0.761594, so c = 0.5 * 2 + 0.5 * 0.761594 = 1.380797; tanh(c) =
        # 0.881130, halved and projected by 4: h = 1.762259.
        ((None, None), 1.762259, 1.380797),
        # c is cut to 1: h = 4 * 0.5 * tanh(1) = 2 * 0.761594.
        ((1.0, None), 1.523188, 1.0),
        ((None, 1.5), 1.5, 1.380797),
        ((1.0, 1.5), 1.5, 1.0),
    ],
)
def test_step_by_hand(limits, h, c):
    cell = ProjectedLSTMCell(1, 1, *limits)
    cell.build((1, 4))
    cell.recurrent_kernel.assign([[0.0, 0.0, 1.0, 0.0]])
    cell.projection_kernel.assign([[4.0]])
    # g's input 0.75 and a quarter of the state that comes in, 1 * 0.25.
    inputs, state = np.array([[0.0, 0.0, 0.75, 0.0]]), np.array([[0.25]])
    output, (new_h, new_c) = cell(inputs, [state, np.array([[2.0]])])
    np.testing.assert_allclose(output, [[h]], rtol=1e-5)
    np.testing.assert_allclose(new_h, [[h]], rtol=1e-5)
    np.testing.assert_allclose(new_c, [[c]], rtol=1e-5)


def test_negative_values_are_clipped_as_well():
    cell = ProjectedLSTMCell(1, 1, 0.5, 0.25)
    cell.build((1, 4))
    cell.recurrent_kernel.assign(np.zeros((1, 4)))
    cell.projection_kernel.assign([[3.0]])
    inputs = np.array([[9.0, 9.0, -9.0, 9.0]])
    output, (_, c) = cell(inputs, [np.zeros((1, 1)), np.array([[-2.0]])])
    assert float(output[0, 0]) == -0.25
    assert float(c[0, 0]) == -0.5


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("limits", [(3.0, 3.0), (0.4, 0.3)])
def test_sequence_against_numpy(backwards, limits):
    layer = ProjectedLSTM(5, 3, *limits, go_backwards=backwards)
    x = np.random.default_rng(1).normal(0, 1, (3, 6, 4))
    mask = np.arange(6) < np.array([[6], [4], [0]])
    layer.build(x.shape)
    random_weights(layer)
    weights = [layer.input_gates.kernel, layer.input_gates.bias]
    weights += [layer.cell.recurrent_kernel, layer.cell.projection_kernel]
    weights = [keras.ops.convert_to_numpy(w) for w in weights]
    expected = reference(weights, x, mask, limits, backwards)
    outputs = layer(x.astype("float32"), mask=mask)
    # 1e-6: float32 against float64, values up to 3.
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=2e-6)
    if limits[0] < 1:
        assert np.isclose(np.abs(expected).max(), limits[1])


@pytest.mark.parametrize("backwards", [False, True])
def test_without_projection_it_is_the_lstm_of_keras(backwards):
    x = np.random.default_rng(2).normal(0, 1, (2, 5, 3)).astype("float32")
    mask = np.arange(5) < np.array([[5], [2]])
    layer = ProjectedLSTM(4, go_backwards=backwards)
    stock = keras.layers.LSTM(
        4,
        return_sequences=True,
        go_backwards=backwards,
        zero_output_for_mask=True,
    )
    layer.build(x.shape)
    stock.build(x.shape)
    np.testing.assert_array_equal(layer.input_gates.bias, stock.cell.bias)
    random_weights(stock)
    layer.input_gates.kernel.assign(stock.cell.kernel)
    layer.input_gates.bias.assign(stock.cell.bias)
    layer.cell.recurrent_kernel.assign(stock.cell.recurrent_kernel)
    expected = keras.ops.convert_to_numpy(stock(x, mask=mask))
    expected = expected[:, ::-1] if backwards else expected
    # 1e-6: the products are summed in another order.
    np.testing.assert_allclose(layer(x, mask=mask), expected, atol=1e-6)


def test_no_mask_is_a_mask_of_words_alone():
    x = np.random.default_rng(2).normal(0, 1, (2, 5, 3)).astype("float32")
    layer = ProjectedLSTM(4, 2, go_backwards=True)
    np.testing.assert_allclose(
        layer(x), layer(x, mask=np.ones((2, 5), bool)), atol=1e-6
    )


def test_parameters_by_hand():
    layer = ProjectedLSTM(5, 3)
    layer.build((None, None, 4))
    # Input 4 * 20 + 20, state 3 * 20, projection 5 * 3.
    assert layer.count_params() == 175
    layer = ProjectedLSTM(5)
    layer.build((None, None, 4))
    # Input 4 * 20 + 20, state 5 * 20.
    assert layer.count_params() == 200


@pytest.mark.parametrize(
    "layer",
    [
        ProjectedLSTM(5, 3, 2.0, 1.0, go_backwards=True, name="projected"),
        ProjectedLSTM(5),
        ProjectedLSTMCell(5, 3, 2.0, 1.0),
        ProjectedLSTMCell(5),
    ],
)
def test_config(layer):
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config
    assert config["units"] == 5
    wrapped = keras.saving.serialize_keras_object(layer)
    assert wrapped["registered_name"].startswith("keras_distil>Projected")


def test_cell_works_in_an_rnn_of_keras():
    rnn = keras.layers.RNN(ProjectedLSTMCell(4, 2), return_sequences=True)
    x = np.random.default_rng(2).normal(0, 1, (2, 5, 16)).astype("float32")
    copy = keras.layers.RNN.from_config(rnn.get_config())
    outputs = rnn(x)
    assert outputs.shape == (2, 5, 2)
    copy.build(x.shape)
    copy.set_weights(rnn.get_weights())
    np.testing.assert_array_equal(copy(x), outputs)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("units", 0),
        ("projection_units", -1),
        ("cell_clip", 0.0),
        ("projection_clip", -3.0),
    ],
)
@pytest.mark.parametrize("make", [ProjectedLSTM, ProjectedLSTMCell])
def test_sizes_must_be_positive(make, argument, value):
    message = f"^`{argument}` must be positive. Received: {argument}={value}.$"
    with pytest.raises(ValueError, match=message):
        make(**{"units": 4, "projection_units": 2, argument: value})
