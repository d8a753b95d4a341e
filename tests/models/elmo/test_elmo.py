import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state

from keras_distil import models
from keras_distil.data import character_ids, character_inputs
from keras_distil.models.elmo.character_encoder import CharacterEncoder
from keras_distil.models.elmo.language_model import MaximumOverWords, ScalarMix

ELMO = {
    "character_dim": 3,
    "filters": [(1, 2), (3, 4)],
    "num_highways": 2,
    "units": 6,
    "projection_units": 5,
}
SENTENCES = [["A", "good", "film", "."], ["Bad"], ["So", "so"]]
SECOND = [["Yes"], ["The", "worst", "!"], ["Not", "at", "all"]]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def randomize(layer, scale=0.5):
    """Gives every weight a value that matters."""
    generator = np.random.default_rng(11)
    for weight in layer.trainable_weights:
        weight.assign(generator.normal(0, scale, weight.shape))
    return layer


def values(weights):
    return [keras.ops.convert_to_numpy(w).astype("float64") for w in weights]


def toy_encoder(**options):
    encoder = models.ElmoEncoder(**{**ELMO, "dropout": 0.0} | options)
    encoder.build((None, None, 50))
    return randomize(encoder)


def toy_classifier(num_outputs=2, **options):
    encoder = models.ElmoEncoder(**ELMO, dropout=0.0, name="elmo")
    options = {"units": 4, "hidden_units": 3, "dropout": 0.0} | options
    return randomize(models.ElmoClassifier(num_outputs, encoder, **options))


def pair_inputs(first, second):
    return character_inputs(first) | {
        f"second_{name}": value
        for name, value in character_inputs(second).items()
    }


@pytest.fixture
def without_values():
    """Variables created in this scope have only shapes, and take no memory."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    # Keras would make their values at the end of the next such scope.
    global_state.set_global_attribute("uninitialized_variables", [])


def parameters(layer):
    return sum(int(np.prod(weight.shape)) for weight in layer.weights)


def test_published_parameters_of_elmo(without_values):
    encoder = models.ElmoEncoder()
    encoder.build((None, None, 50))
    # 262 embeddings of width 16.
    embeddings = 4_192
    # Widths 1 to 7: 17 * 32, 33 * 32, 49 * 64, 65 * 128, 81 * 256, 97 * 512,
    # 113 * 1024; the odd one is the bias.
    convolutions = 544 + 1_056 + 3_136 + 8_320 + 20_736 + 49_664 + 115_712
    # Two of 2048 by 4096, with 4096 biases.
    highways = 2 * (8_388_608 + 4_096)
    # 2048 by 512, with 512 biases.
    projection = 1_048_576 + 512
    words = embeddings + convolutions + highways + projection
    assert words == 18_037_856
    assert parameters(encoder.characters) == words
    # 512 by 16384 twice, 16384 biases, 4096 by 512.
    lstm = 8_388_608 + 8_388_608 + 16_384 + 2_097_152
    assert lstm == 18_890_752
    lstms = [*encoder.forward_layers, *encoder.backward_layers]
    assert [parameters(layer) for layer in lstms] == 4 * [lstm]
    assert parameters(encoder.mix) == 4
    assert parameters(encoder) == words + 4 * lstm + 4 == 93_600_868
    # The authors' table: 93.6 million.
    assert round(parameters(encoder) / 1e6, 1) == 93.6


@pytest.mark.parametrize(
    ("pair", "classes", "total"),
    [
        # u is 3000 wide: 3000 * 512 + 512 = 1,536,512; 512 * 2 + 2 = 1,026.
        (False, 2, 179_450_406),
        # [u, v, |u - v|, u * v]: 12000 * 512 + 512 = 6,144,512.
        (True, 2, 184_058_406),
        # 512 * 3 + 3 = 1,539 instead of 1,026.
        (True, 3, 184_058_919),
    ],
)
def test_published_parameters_of_the_baseline(
    without_values, pair, classes, total
):
    model = models.ElmoClassifier(classes, pair=pair)
    # A direction: 6000 gates times 1024 inputs, 1500 states and a bias.
    first = 2 * (6_144_000 + 9_000_000 + 6_000)
    # The same with both directions of the first layer, 3000, as inputs.
    second = 2 * (18_000_000 + 9_000_000 + 6_000)
    assert (first, second) == (30_300_000, 54_012_000)
    counted = [
        sum(parameters(layer) for layer in directions)
        for directions in model.sentence_layers
    ]
    assert counted == [first, second]
    classifier = parameters(model.hidden) + parameters(model.logits)
    assert parameters(model) == 93_600_868 + first + second + classifier
    assert parameters(model) == total
    if not pair:
        # The paper of DistilBERT: 180 million.
        assert round(total / 1e7) == 18


def test_words_against_numpy():
    layer = CharacterEncoder(3, [(1, 2), (3, 4)], 2, 5)
    ids = character_inputs(SENTENCES)["character_ids"]
    layer.build(ids.shape)
    randomize(layer)
    embedding, *rest = values(layer.weights)
    kernels, biases = rest[0:4:2], rest[1:4:2]
    highways, projection = [rest[4:6], rest[6:8]], rest[8:]
    expected = np.zeros((*ids.shape[:2], 5))
    for place in np.ndindex(ids.shape[:2]):
        letters = embedding[ids[place]]
        x = []
        for kernel, bias in zip(kernels, biases, strict=True):
            width = len(kernel)
            windows = [
                np.einsum("wd,wdf->f", letters[i : i + width], kernel) + bias
                for i in range(50 - width + 1)
            ]
            x += list(np.maximum(windows, 0).max(axis=0))
        x = np.array(x)
        for kernel, bias in highways:
            both = x @ kernel + bias
            gate = sigmoid(both[6:])
            x = gate * x + (1 - gate) * np.maximum(both[:6], 0)
        expected[place] = x @ projection[0] + projection[1]
    # 1e-5: float32 against float64, sums over a few dozen products.
    np.testing.assert_allclose(layer(ids), expected, rtol=1e-5, atol=1e-5)


def test_highways_start_open():
    layer = CharacterEncoder(3, [(1, 2)], 1, 5)
    layer.build((None, None, 50))
    np.testing.assert_array_equal(layer.highways[0].bias, [0, 0, 1, 1])


def test_mix_by_hand():
    mix = ScalarMix()
    layers = [np.array([[1.0, 2.0]]), np.array([[4.0, 0.0]])]
    # New weights give the mean.
    np.testing.assert_allclose(mix(layers), [[2.5, 1.0]], rtol=1e-6)
    # softmax(log 3, 0) = 3/4 and 1/4, doubled.
    mix.logits.assign([np.log(3.0), 0.0])
    mix.scale.assign(2.0)
    np.testing.assert_allclose(mix(layers), [[3.5, 3.0]], rtol=1e-6)


def test_maximum_by_hand():
    x = np.array([[[1.0, -5.0], [-2.0, -4.0], [9.0, 9.0]]] * 2)
    mask = np.array([[1, 1, 0], [0, 0, 0]], "int32")
    np.testing.assert_array_equal(
        MaximumOverWords()(x, mask), [[1.0, -4.0], [0.0, 0.0]]
    )


def test_encoder_from_its_parts():
    """Each sentence by itself, its marks written out, layer by layer."""
    encoder = toy_encoder()
    outputs = encoder(**character_inputs(SENTENCES))
    assert outputs.shape == (3, 4, 10)
    scale = float(encoder.mix.scale)
    weights = np.exp(values([encoder.mix.logits])[0])
    weights *= scale / weights.sum()
    for row, sentence in enumerate(SENTENCES):
        ids = character_ids(["<S>", *sentence, "</S>"])[np.newaxis]
        x = encoder.characters(ids)
        forward = encoder.forward_layers[0](x)
        backward = encoder.backward_layers[0](x)
        layers = [np.concatenate([x, x], -1)]
        layers.append(np.concatenate([forward, backward], -1))
        forward = encoder.forward_layers[1](forward) + forward
        backward = encoder.backward_layers[1](backward) + backward
        layers.append(np.concatenate([forward, backward], -1))
        mixed = np.tensordot(weights, layers, 1)[0]
        # 1e-5: other shapes, other orders of the sums.
        np.testing.assert_allclose(
            outputs[row, : len(sentence)], mixed[1:-1], rtol=1e-5, atol=1e-5
        )


def test_first_word_sees_the_last_and_the_other_way_round():
    encoder = toy_encoder()
    outputs = encoder(**character_inputs([["a", "b", "c"], ["a", "b", "d"]]))
    other = encoder(**character_inputs([["a", "b", "c"], ["e", "b", "c"]]))
    # The forward half of the first word knows no later word. 1e-6: rows of a
    # product may be summed in different orders.
    np.testing.assert_allclose(outputs[0, 0, :5], outputs[1, 0, :5], atol=1e-6)
    assert np.abs(outputs[0, 0, 5:] - outputs[1, 0, 5:]).min() > 1e-5
    np.testing.assert_allclose(other[0, 2, 5:], other[1, 2, 5:], atol=1e-6)
    assert np.abs(other[0, 2, :5] - other[1, 2, :5]).min() > 1e-5


def test_padding_changes_nothing():
    encoder, model = toy_encoder(), toy_classifier()
    wide = character_inputs(SENTENCES, num_words=9)
    # Not even what the padding holds.
    padding = wide["padding_mask"] == 0
    generator = np.random.default_rng(1)
    wide["character_ids"][padding] = generator.integers(
        0, 262, wide["character_ids"][padding].shape
    )
    vectors, logits = encoder(**wide), model(wide)
    for row, sentence in enumerate(SENTENCES):
        alone = character_inputs([sentence])
        # 1e-5: other shapes, other orders of the sums.
        np.testing.assert_allclose(
            vectors[row, : len(sentence)],
            encoder(**alone)[0],
            rtol=1e-5,
            atol=1e-5,
        )
        np.testing.assert_allclose(
            logits[row], model(alone)[0], rtol=1e-5, atol=1e-5
        )


def test_mask_may_be_boolean():
    encoder = toy_encoder()
    inputs = character_inputs(SENTENCES)
    outputs = encoder(**inputs)
    inputs["padding_mask"] = inputs["padding_mask"].astype(bool)
    np.testing.assert_array_equal(encoder(**inputs), outputs)


def sentence_vector(model, sentence):
    x = model.encoder(**character_inputs([sentence]))
    for forward, backward in model.sentence_layers:
        x = np.concatenate([forward(x), backward(x)], -1)
    return keras.ops.convert_to_numpy(x).max(axis=1)[0]


def test_classifier_from_its_parts():
    single, pair = toy_classifier(), toy_classifier(3, pair=True)
    logits = single(character_inputs(SENTENCES))
    pair_logits = pair(pair_inputs(SENTENCES, SECOND))
    assert pair_logits.dtype == logits.dtype == "float32"
    assert (logits.shape, pair_logits.shape) == ((3, 2), (3, 3))
    for row in range(3):
        x = sentence_vector(single, SENTENCES[row])
        for model, result in ((single, logits), (pair, pair_logits)):
            if model is pair:
                u = sentence_vector(pair, SENTENCES[row])
                v = sentence_vector(pair, SECOND[row])
                x = np.concatenate([u, v, np.abs(u - v), u * v])
            hidden, bias, kernel, offset = values(
                model.hidden.weights + model.logits.weights
            )
            expected = np.tanh(x @ hidden + bias) @ kernel + offset
            # 1e-5: float32, other shapes, other orders of the sums.
            np.testing.assert_allclose(
                result[row], expected, rtol=1e-5, atol=1e-5
            )


@pytest.mark.slow
def test_graph_equals_eager():
    model = toy_classifier(pair=True)
    inputs = pair_inputs(SENTENCES, SECOND)
    signature = {
        name: tf.TensorSpec((None, None, *value.shape[2:]), "int32")
        for name, value in inputs.items()
    }
    graph = tf.function(model, input_signature=[signature])
    # 1e-6: the graph fuses some sums.
    np.testing.assert_allclose(graph(inputs), model(inputs), atol=1e-6)
    # Another number of sentences and of words, in the same graph.
    other = pair_inputs(SENTENCES[1:], SECOND[1:])
    np.testing.assert_allclose(graph(other), model(other), atol=1e-6)


@pytest.mark.parametrize("pair", [False, True])
def test_save_and_load(tmp_path, pair):
    model = toy_classifier(pair=pair)
    inputs = pair_inputs(SENTENCES, SECOND)
    inputs = {name: inputs[name] for name in model.input}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(loaded) is models.ElmoClassifier
    # JSON, since shapes come back as lists.
    assert json.dumps(loaded.get_config()) == json.dumps(model.get_config())
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


def test_config():
    sizes = {"num_layers": 3, "units": 4, "hidden_units": 3}
    model = toy_classifier(3, pair=True, dropout=0.3, **sizes)
    clone = models.ElmoClassifier.from_config(model.get_config())
    clone.set_weights(model.get_weights())
    inputs = pair_inputs(SENTENCES, SECOND)
    np.testing.assert_array_equal(clone(inputs), model(inputs))
    assert (clone.num_layers, clone.dropout.rate) == (3, 0.3)
    encoder = models.ElmoEncoder(**ELMO, num_layers=1, clip=None, dropout=0.1)
    config = encoder.get_config()
    assert config["clip"] is None
    assert models.ElmoEncoder.from_config(config).get_config() == config


@pytest.fixture
def toy_task():
    """A small new model, its inputs and its labels."""
    keras.utils.set_random_seed(3)
    encoder = models.ElmoEncoder(**ELMO, num_layers=1, dropout=0.0, name="elmo")
    model = models.ElmoClassifier(
        2, encoder, num_layers=1, units=8, hidden_units=8, dropout=0.0
    )
    sentences = [[word, "film"] for word in ("good", "fine", "bad", "poor")]
    return model, character_inputs(sentences), np.array([1, 1, 0, 0])


def compile_for_classes(model, **options):
    model.compile(
        optimizer=keras.optimizers.Adam(0.03),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # XLA would take longer than the training.
        jit_compile=False,
        **options,
    )


def changed(before, weights):
    after = values(weights)
    pairs = zip(before, after, strict=True)
    return [not np.array_equal(*pair) for pair in pairs]


@pytest.mark.slow
def test_it_learns_a_task(toy_task):
    model, inputs, labels = toy_task
    before = values(model.weights)
    compile_for_classes(model)
    # log 2 = 0.69 without having learned anything.
    assert float(model.loss(labels, model(inputs))) > 0.6
    # The same batch 20 times; an epoch each would take longer.
    repeated = {k: np.concatenate([x] * 20) for k, x in inputs.items()}
    model.fit(
        repeated, np.tile(labels, 20), batch_size=4, shuffle=False, verbose=0
    )
    assert float(model.loss(labels, model(inputs))) < 0.3
    assert all(changed(before, model.weights))


def test_elmo_can_be_frozen(toy_task):
    model, inputs, labels = toy_task
    model.encoder.trainable = False
    frozen = values(model.encoder.weights)
    free = values(model.trainable_weights)
    compile_for_classes(model, run_eagerly=True)
    model.train_on_batch(inputs, labels)
    assert not any(changed(frozen, model.encoder.weights))
    assert all(changed(free, model.trainable_weights))


def test_dropout_is_for_training_alone():
    model = toy_classifier(dropout=0.5)
    inputs = character_inputs(SENTENCES)
    np.testing.assert_array_equal(model(inputs), model(inputs, training=False))
    assert np.abs(model(inputs, training=True) - model(inputs)).max() > 1e-3
    encoder = toy_encoder(dropout=0.9)
    dropped = encoder(**character_inputs(SENTENCES), training=True)
    assert np.mean(keras.ops.convert_to_numpy(dropped) == 0) > 0.5


def test_logits_are_float32_in_mixed_precision():
    policy = keras.dtype_policies.get("mixed_bfloat16")
    encoder = models.ElmoEncoder(**ELMO, dtype=policy)
    inputs = character_inputs(SENTENCES)
    assert encoder(**inputs).dtype == "bfloat16"
    model = models.ElmoClassifier(2, encoder, units=4, hidden_units=3)
    assert model(inputs).dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}


@pytest.mark.parametrize(
    ("make", "argument", "value"),
    [
        (models.ElmoEncoder, "num_layers", 0),
        (models.ElmoEncoder, "projection_units", 0),
        (models.ElmoEncoder, "character_dim", 0),
        (models.ElmoEncoder, "units", -1),
        (models.ElmoClassifier, "num_outputs", 0),
        (models.ElmoClassifier, "num_layers", 0),
        (models.ElmoClassifier, "units", 0),
        (models.ElmoClassifier, "hidden_units", -2),
        (CharacterEncoder, "units", 0),
    ],
)
def test_sizes_must_be_positive(make, argument, value):
    required = {"num_outputs": 2} if make is models.ElmoClassifier else {}
    message = f"^`{argument}` must be positive. Received: {argument}={value}.$"
    with pytest.raises(ValueError, match=message):
        make(**required | {argument: value})


@pytest.mark.parametrize("filters", [[], [(0, 4)], [(51, 4)], [(2, 4), (3, 0)]])
def test_unusable_filters(filters):
    message = "^`filters` must be pairs .width, number., with a width from 1 to"
    with pytest.raises(ValueError, match=message) as raised:
        models.ElmoEncoder(filters=filters)
    assert str(raised.value).endswith(f"Received: filters={filters}.")
