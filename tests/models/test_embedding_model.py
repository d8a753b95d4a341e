"""Sentence embedders of encoders: what they compute, and that they are kept."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import data, models
from keras_distil.models.architectures.sentence_embedding import (
    SentenceEmbedding,
)
from keras_distil.models.architectures.text_embedder import ExactTextEmbedder
from keras_distil.models.embedding_model import (
    check_embedder,
    vector_width,
    vectors_of,
)
from keras_distil.models.forward import encode

FAMILIES = {
    "bert": models.ExactBertBackbone,
    "distil_bert": keras_hub.models.DistilBertBackbone,
    "roberta": models.ExactRobertaBackbone,
}


def make_encoder(family, **options):
    sizes = {**toy.SIZES, **options}
    return toy.randomize(FAMILIES[family](**sizes), seed=1)


def last_states(backbone, x):
    inputs = {
        name: x.get(name, np.zeros_like(x["token_ids"]))
        for name in backbone.input
    }
    states = backbone(inputs)
    return np.array(
        states["sequence_output"] if isinstance(states, dict) else states,
        "float64",
    )


def pooled(states, mask, mode):
    """The pooling of Reimers and Gurevych, text by text."""
    rows = [row[real > 0] for row, real in zip(states, mask, strict=True)]
    reduce = {
        "mean": lambda row: row.mean(0),
        "max": lambda row: row.max(0),
        "cls": lambda row: row[0],
    }
    return np.stack([reduce[mode](row) for row in rows])


@pytest.mark.parametrize(
    ("mode", "normalize"), [("mean", True), ("cls", False), ("max", True)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_numpy(family, mode, normalize):
    encoder = make_encoder(family)
    model = models.embedding_model(encoder, mode, normalize)
    assert isinstance(model, keras_hub.models.TextEmbedder)
    is_bert = isinstance(model, keras_hub.models.BertTextEmbedder)
    assert is_bert == (family == "bert")
    x = toy.make_texts()
    expected = pooled(last_states(encoder, x), x["padding_mask"], mode)
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    # Our own pass, with padding left out.
    states = encode(model, x, training=False)
    np.testing.assert_allclose(
        vectors_of(model, states, x["padding_mask"]),
        expected,
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_dense_layer_by_hand():
    layer = SentenceEmbedding("mean", True, 2, "tanh")
    states = np.array([[[1.0, 3.0], [3.0, 5.0], [9.0, 9.0]]], "float32")
    layer(states, np.array([[1, 1, 0]]))
    layer.kernel.assign([[1.0, 0.0], [0.5, 0.25]])
    layer.bias.assign([0.0, -2.0])
    # The mean is (2, 4), the product (4, 1), less 2 in the second place.
    expected = np.tanh([4.0, -1.0])
    expected /= np.linalg.norm(expected)
    found = layer(states, np.array([[1, 1, 0]]))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_padding_alone_is_zero_with_a_zero_gradient(mode):
    layer = SentenceEmbedding(mode)
    states = tf.constant(np.full((1, 2, 3), np.nan, "float32"))
    with tf.GradientTape() as tape:
        tape.watch(states)
        vectors = layer(states, np.zeros((1, 2), "int32"))
    np.testing.assert_array_equal(vectors, np.zeros((1, 3)))
    np.testing.assert_array_equal(
        tape.gradient(vectors, states), np.zeros((1, 2, 3))
    )


def test_the_encoder_that_was_given_is_not_changed():
    encoder = make_encoder("bert", dropout=0.3)
    before = toy.weights_of(encoder)
    model = models.embedding_model(encoder)
    for variable in model.weights:
        variable.assign(tf.zeros_like(variable))
    for path, value in before.items():
        np.testing.assert_array_equal(toy.weights_of(encoder)[path], value)
    assert model.backbone.dropout == 0.3


def test_a_seed_makes_the_dense_layer():
    encoder = make_encoder("bert")
    kernels = [
        models.embedding_model(
            encoder, dimension=4, seed=seed
        ).sentence_embedding.kernel.numpy()
        for seed in (1, 1, 2)
    ]
    assert kernels[0].shape == (16, 4)
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels[0] - kernels[2]).max() > 0.01


def test_vectors_are_float32_in_mixed_precision():
    encoder = make_encoder("bert")
    model = models.embedding_model(encoder, dimension=4, dtype="mixed_bfloat16")
    assert model.backbone.compute_dtype == "bfloat16"
    assert model(toy.make_texts()).dtype == tf.float32
    kernel = model.sentence_embedding.kernel
    assert kernel.dtype == "float32"
    exact = models.embedding_model(encoder, dimension=4)
    # Eight bits of a mantissa, through two layers.
    np.testing.assert_allclose(
        model(toy.make_texts()), exact(toy.make_texts()), atol=0.05
    )
    halved = models.with_dtype(exact, "bfloat16")
    assert halved(toy.make_texts()).dtype == tf.float32


@pytest.fixture
def reader(toy_teacher):
    """An embedder that reads texts of letters."""
    encoder = models.load_teacher(toy_teacher)
    return models.embedding_model(
        encoder,
        dimension=4,
        prompts={"query": "q: ", "passage": "p: ", "other": "o "},
        default_prompt_name="other",
    )


TEXTS = ["ab cd", "hello there, you", "x", "  ab cd  ", "a b c d e f"]


def test_texts_become_their_vectors_in_order(reader, toy_teacher):
    tokenizer = data.load_tokenizer(toy_teacher)
    found = reader.encode_text(TEXTS, batch_size=2)
    for text, vector in zip(TEXTS, found, strict=True):
        inputs = data.encode_texts(tokenizer, [f"o {text.strip()}"], 12)
        np.testing.assert_allclose(
            reader(inputs)[0], vector, rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(found[0], found[3], atol=1e-6)
    assert found.dtype == np.float32


def test_vectors_follow_a_model_that_changes(reader):
    before = reader.encode_text(TEXTS)
    dense = reader.backbone.transformer_layers[0]._feedforward_output_dense
    dense.enable_lora(2)
    np.testing.assert_allclose(reader.encode_text(TEXTS), before, atol=1e-6)
    # Not equal in all outputs, which the normalisation would take back.
    toy.randomize(dense, seed=5)
    after = reader.encode_text(TEXTS, verbose=0)
    assert np.abs(after - before).max() > 1e-3
    prompted = [f"o {text}" for text in TEXTS]
    np.testing.assert_allclose(
        after, reader.predict(prompted, verbose=0), atol=1e-5
    )


def test_prompts_are_put_before_texts(reader):
    def plain(text):
        return reader.predict([text], verbose=0)

    for found, prompted in (
        (reader.encode_query("ab"), "q: ab"),
        (reader.encode_documents(["ab"]), "p: ab"),
        (reader.encode_text("ab"), "o ab"),
        (reader.encode_text("ab", "query"), "q: ab"),
        (reader.encode_query("ab", prompt_name="passage"), "p: ab"),
    ):
        np.testing.assert_allclose(found, plain(prompted), atol=1e-6)
    with pytest.raises(ValueError, match=r"`prompt_name` must be one of \['ot"):
        reader.encode_text("ab", "none")


def test_queries_without_a_prompt_do_not_get_the_default(reader):
    model = models.embedding_model(
        reader, prompts={"other": "o "}, default_prompt_name="other"
    )
    plain = model.predict(["ab"], verbose=0)
    for encode_as in (model.encode_query, model.encode_documents):
        np.testing.assert_allclose(encode_as("ab"), plain, atol=1e-6)
        with pytest.raises(ValueError, match="`prompt_name` must be one of"):
            encode_as("ab", prompt_name="query")
    assert np.abs(model.encode_text("ab") - plain).max() > 1e-3


def test_an_embedder_of_an_embedder_takes_over_what_is_not_given(reader):
    model = models.embedding_model(
        models.embedding_model(reader, "max", sequence_length=9), "cls"
    )
    assert model.prompts == reader.prompts
    assert model.default_prompt_name == "other"
    assert model.preprocessor.sequence_length == 9
    assert model.dimension is None


def test_predict_takes_texts_and_ids(reader):
    texts = reader.predict(["ab cd", "x"], verbose=0)
    ids = reader.predict(
        {k: v.numpy() for k, v in reader.preprocessor(["ab cd", "x"]).items()},
        verbose=0,
    )
    np.testing.assert_allclose(texts, ids, atol=1e-6)


def test_similarity_is_the_cosine(reader):
    vectors = reader.encode_text(["ab", "cd", "xyz"])
    similarity = np.array(reader.similarity(vectors[:1], vectors))
    assert similarity.shape == (1, 3)
    np.testing.assert_allclose(similarity[0, 0], 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["ab", " \t"], ValueError, r"not white space. Received: ' \\t' as te"),
        ([], ValueError, "at least one example"),
        ([3], TypeError, "Texts must be strings. Received: int as text 0"),
    ],
)
def test_what_is_not_a_text_is_refused(reader, texts, error, message):
    with pytest.raises(error, match=message):
        reader.encode_text(texts)


def test_without_a_tokenizer_texts_are_refused():
    model = models.embedding_model(make_encoder("bert"))
    assert model.preprocessor is None
    with pytest.raises(ValueError, match="no tokenizer to read texts with. Gi"):
        model.encode_text("ab")


def test_a_tokenizer_may_be_given_as_the_message_says(toy_teacher):
    encoder = make_encoder("bert", vocabulary_size=64)
    model = models.embedding_model(
        encoder, tokenizer=data.load_tokenizer(toy_teacher)
    )
    assert model.encode_text("ab").shape == (1, 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_embedder_is_the_same(family, tmp_path, reader):
    model = models.embedding_model(
        make_encoder(family),
        "max",
        normalize=False,
        dimension=4,
        tokenizer=None
        if family == "roberta"
        else reader.preprocessor.tokenizer,
        sequence_length=None if family == "roberta" else 9,
        prompts={"query": "q "},
    )
    toy.randomize(model.sentence_embedding, seed=2)
    if family != "roberta":
        # What encoding keeps must not be saved.
        model.encode_text("a")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    x = toy.make_texts()
    np.testing.assert_array_equal(again(x), model(x))
    assert again.get_config()["prompts"] == {"query": "q "}
    if family != "roberta":
        np.testing.assert_array_equal(
            again.encode_query(["a", "b c d e f g h i j k"]),
            model.encode_query(["a", "b c d e f g h i j k"]),
        )
        assert again.preprocessor.sequence_length == 9


def test_another_precision_keeps_the_tokenizer(reader):
    again = models.with_dtype(reader, "float32")
    np.testing.assert_array_equal(
        again.encode_text("ab"), reader.encode_text("ab")
    )


def test_a_student_is_an_embedder_like_its_teacher(reader):
    whole = models.initialize_student(reader, 2, dropout=0.0)
    assert isinstance(whole, ExactTextEmbedder)
    assert isinstance(whole.backbone, keras_hub.models.DistilBertBackbone)
    # With all layers it computes what its teacher does.
    np.testing.assert_allclose(
        whole.encode_query(TEXTS), reader.encode_query(TEXTS), atol=1e-5
    )
    student = models.initialize_student(reader, 1)
    assert student.backbone.num_layers == 1
    assert vector_width(student) == 4


def test_keras_hubs_own_embedder_has_a_student():
    encoder = make_encoder("bert")
    stock = keras_hub.models.BertTextEmbedder(encoder, pooling_mode="max")
    check_embedder(stock, "model")
    x = toy.make_texts()
    segments = np.zeros_like(x["token_ids"])
    states = encode(stock, x, training=False)
    np.testing.assert_allclose(
        vectors_of(stock, states, x["padding_mask"]),
        stock({**x, "segment_ids": segments}),
        rtol=1e-5,
        atol=1e-6,
    )
    student = models.initialize_student(stock, 2, dropout=0.0)
    assert student.pooling_mode == "max" and student.normalize
    np.testing.assert_allclose(
        student(x), stock({**x, "segment_ids": segments}), atol=1e-5
    )


# === Principal components ===


def test_principal_components_keep_dot_products_best(reader):
    texts = [f"{a} {b}" for a in "abcdef" for b in "uvwxyz"]
    vectors = reader.encode_text(texts).astype("float64")
    rotated = models.with_principal_components(reader, vectors, 4)
    found = rotated.encode_text(texts)
    np.testing.assert_allclose(found @ found.T, vectors @ vectors.T, atol=1e-5)
    moments = found.T.astype("float64") @ found
    np.testing.assert_allclose(moments, np.diag(np.diag(moments)), atol=1e-4)
    assert (np.diff(np.diag(moments)) < 0).all()
    reduced = models.with_principal_components(reader, vectors, 2)
    # The best approximation of rank 2, of rows scaled to length 1.
    left, sizes, _ = np.linalg.svd(vectors)
    best = left[:, :2] * sizes[:2]
    best /= np.linalg.norm(best, axis=1, keepdims=True)
    kept = reduced.encode_text(texts)
    np.testing.assert_allclose(kept @ kept.T, best @ best.T, atol=1e-4)
    assert vector_width(reduced) == 2 and vector_width(reader) == 4


def test_components_of_an_encoder_without_a_dense_layer():
    model = models.embedding_model(make_encoder("bert"))
    vectors = np.random.default_rng(0).normal(size=(20, 16))
    rotated = models.with_principal_components(model, vectors, 16)
    x = toy.make_texts()
    old, new = np.array(model(x)), np.array(rotated(x))
    np.testing.assert_allclose(new @ new.T, old @ old.T, atol=1e-5)


@pytest.mark.parametrize(
    ("vectors", "dimension", "message"),
    [
        (np.ones((9, 3)), 2, r"the model's, \(texts, 16\). Received: shape"),
        (np.ones((9, 16)), 10, "at most 9, the number and the width of"),
        (np.full((20, 16), np.nan), 3, "`vectors` must be finite"),
    ],
)
def test_components_that_cannot_be(vectors, dimension, message):
    model = models.embedding_model(make_encoder("bert"))
    with pytest.raises(ValueError, match=message):
        models.with_principal_components(model, vectors, dimension)


def test_components_of_a_tanh_are_refused():
    encoder = make_encoder("bert")
    model = type(models.embedding_model(encoder))(
        encoder, dimension=3, activation="tanh"
    )
    with pytest.raises(ValueError, match="must be linear. Received: activatio"):
        models.with_principal_components(model, np.ones((9, 3)), 2)


# === What is refused ===


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pooling_mode": "sum"}, ValueError, "`pooling_mode` must be one of"),
        ({"dimension": 0}, ValueError, "`dimension` must be at least 1"),
        ({"dimension": 2.0}, TypeError, "`dimension` must be an integer"),
        ({"sequence_length": 13}, ValueError, "at most 12, the encoder's"),
        ({"prompts": {"query": 3}}, TypeError, "`prompts` must be strings by"),
        (
            {"default_prompt_name": "query"},
            ValueError,
            r"`default_prompt_name` must be one of \[\]",
        ),
    ],
)
def test_settings_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        models.embedding_model(make_encoder("bert"), **options)


def test_an_activation_that_is_unknown():
    with pytest.raises(ValueError, match="`activation` must be one of"):
        SentenceEmbedding(dimension=2, activation="relu")


@pytest.mark.parametrize("encoder", [3, "embedded"])
def test_what_is_not_an_encoder(encoder):
    with pytest.raises(TypeError, match="`encoder` must be a KerasHub encode"):
        models.embedding_model(encoder)


def test_a_model_without_vectors_is_refused():
    with pytest.raises(TypeError, match="`teacher` must be an embedding mode"):
        check_embedder(toy.make_teacher(), "teacher")


def test_a_replaced_method_is_refused():
    model = models.embedding_model(make_encoder("bert"))
    model.call = lambda *args, **kwargs: None
    with pytest.raises(TypeError, match="only by its encoder and its embedd"):
        check_embedder(model, "student")


def test_a_further_argument_is_refused():
    encoder = make_encoder("bert")
    kind = type(models.embedding_model(encoder))
    with pytest.raises(TypeError, match="takes further arguments by keyword"):
        kind(encoder, None, "mean", True, 4)
