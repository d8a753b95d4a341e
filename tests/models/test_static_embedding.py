"""Static tables of token vectors, from a teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

import keras_distil
from keras_distil import data, losses, models
from keras_distil.models.embedding_model import vector_width
from keras_distil.models.static_embedding import with_words

TEXTS = ["ab cd ab", "hello there, you", "ab x", "you there"]


@pytest.fixture
def teacher(toy_teacher):
    encoder = models.load_teacher(toy_teacher)
    return models.embedding_model(encoder, prompts={"query": "q "})


def test_the_table_is_that_of_numpy(teacher):
    model = models.static_embedding_model(teacher, TEXTS, 16)
    tokenizer = teacher.preprocessor.tokenizer
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    rows, counts = [], np.zeros(64)
    for number in range(64):
        x = np.array([[special.cls_id, number, special.sep_id]], "int32")
        inputs = {"token_ids": x, "padding_mask": np.ones_like(x)}
        rows.append(np.array(teacher(inputs)[0], "float64"))
    for text in TEXTS:
        for token in tokenizer.encode(text, add_special_tokens=False).ids:
            counts[token] += 1
    rows = np.stack(rows)
    rows[list(special.ids)] = np.delete(rows, special.ids, 0).mean(0)
    rows -= rows.mean(0)
    share = counts / counts.sum()
    kept = rows * (1e-3 / (1e-3 + share))[:, None]
    table = model.backbone.token_embedding.embeddings.numpy()
    ordinary = np.setdiff1d(np.arange(64), special.ids)
    # At full size, the coordinates are the teacher's.
    np.testing.assert_allclose(table[ordinary], kept[ordinary], atol=1e-5)
    fewer = models.static_embedding_model(teacher, TEXTS, 6)
    table = fewer.backbone.token_embedding.embeddings.numpy()
    # The first coordinates have the largest share.
    moments = ((table / (1e-3 / (1e-3 + share))[:, None]) ** 2).sum(0)
    assert (np.diff(moments) < 1e-6).all()
    largest = np.linalg.eigvalsh(rows.T @ rows)[::-1][:6]
    np.testing.assert_allclose(moments, largest, rtol=1e-4)


def test_a_vector_is_the_mean_of_its_tokens(teacher):
    model = models.static_embedding_model(teacher, TEXTS, 6)
    tokenizer = model.preprocessor.tokenizer
    rows = model.backbone.token_embedding.embeddings
    table = rows.numpy()
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    table[list(special.ids)] = 9.0
    rows.assign(table)
    ids = tokenizer.encode("cd xy", add_special_tokens=False).ids
    expected = table[ids].sum(0)
    expected /= np.linalg.norm(expected)
    # Neither frame nor padding has a part in it.
    found = model.encode_text(["cd xy", "a much longer text, you"])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert model.prompts == {"query": "q "}


def test_it_is_saved_and_learns(teacher, tmp_path):
    model = models.static_embedding_model(teacher, TEXTS, 6)
    x = teacher.preprocessor(TEXTS)
    distiller = keras_distil.Distiller(
        teacher,
        model,
        [
            losses.VectorCosineDistance(projection="learned"),
            losses.SimilarityMeanSquaredError(),
        ],
    )
    distiller.compile(keras.optimizers.Adam(0.05), micro_batches=2)
    batches = tf.data.Dataset.from_tensors(x)
    before = distiller.evaluate(batches, return_dict=True, verbose=0)
    distiller.fit(batches.repeat(20), verbose=0)
    after = distiller.evaluate(batches, return_dict=True, verbose=0)
    assert after["loss"] < 0.5 * before["loss"]
    model.save(tmp_path / "static.keras")
    again = models.load_embedding_model(tmp_path / "static.keras")
    np.testing.assert_array_equal(
        again.encode_query(TEXTS), model.encode_query(TEXTS)
    )


def test_words_of_the_texts_are_added(teacher):
    model = models.static_embedding_model(teacher, TEXTS, 6, added_words=3)
    tokenizer = model.preprocessor.tokenizer
    # "ab" occurs three times, "there" and "you" twice.
    assert [tokenizer.id_to_token(n) for n in (64, 65, 66)] == [
        "ab",
        "there",
        "you",
    ]
    assert tokenizer.get_vocab_size() == 67
    assert tokenizer.encode("you abc", add_special_tokens=False).tokens == [
        "you",
        "ab",
        "##c",
    ]
    assert vector_width(model) == 6
    assert model.backbone.token_embedding.embeddings.shape[0] == 67
    assert teacher.preprocessor.tokenizer.get_vocab_size() == 64
    # As many as there are.
    assert with_words(tokenizer, TEXTS, 99).get_vocab_size() == 69


def test_another_vocabulary_needs_the_teachers_vectors(teacher):
    model = models.static_embedding_model(teacher, TEXTS, 6, added_words=3)
    made = [losses.SimilarityMeanSquaredError()]
    distiller = keras_distil.Distiller(teacher, model, made)
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    x = model.preprocessor(TEXTS)
    with pytest.raises(ValueError, match="must hold the teacher's vectors"):
        distiller.train_on_batch(x)
    vectors = teacher.encode_text(TEXTS)
    batches = tf.data.Dataset.from_tensors((x, vectors))
    logs = distiller.fit(batches, epochs=2, verbose=0).history
    assert logs["similarity_mse_loss"][1] < logs["similarity_mse_loss"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 17}, "at most 16, the size of the teacher's vectors"),
        ({"dimension": 0}, "`dimension` must be at least 1"),
        ({"texts": [" "]}, "`texts` must hold tokens of the vocabulary"),
    ],
)
def test_what_cannot_be(teacher, options, message):
    options = {"texts": TEXTS, "dimension": 4, **options}
    with pytest.raises(ValueError, match=message):
        models.static_embedding_model(teacher, **options)


def test_teachers_that_cannot_be(teacher):
    with pytest.raises(TypeError, match="`teacher` must be an embedding model"):
        models.static_embedding_model(toy.make_teacher(), TEXTS, 4)
    mute = models.embedding_model(toy.make_teacher())
    with pytest.raises(TypeError, match="`teacher` must have a tokenizer, as"):
        models.static_embedding_model(mute, TEXTS, 4)
