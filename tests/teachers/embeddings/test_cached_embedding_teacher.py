"""A sentence embedder's vectors on disk."""

import keras
import numpy as np
import pytest
import toy

import keras_distil
from keras_distil import data, losses, models, teachers
from keras_distil.teachers.embeddings import writing

TEXTS = [f"it {one}, {other}{one}" for one in "abcdef" for other in "uvwxyz"]


@pytest.fixture(scope="module")
def teacher(_shared_toy_folder):
    encoder = models.load_teacher(_shared_toy_folder / "teacher")
    return models.embedding_model(encoder)


@pytest.fixture(scope="module")
def examples(teacher):
    return data.encode_examples(
        teacher.preprocessor.tokenizer, TEXTS, max_length=12
    )


def cut(examples, count):
    return examples.part(0, count)


@pytest.fixture(scope="module")
def cached(teacher, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors") / "cache"
    return teachers.cache_embedding_teacher(
        teacher, examples, folder, say=None, batch_size=5
    )


def by_texts(dataset, examples, steps):
    """The vectors of a dataset by the tokens of their texts."""
    found = {}
    for x, y, _ in dataset.take(steps).as_numpy_iterator():
        for ids, mask, vector in zip(
            x["token_ids"], x["padding_mask"], y, strict=True
        ):
            found[tuple(ids[mask > 0].tolist())] = vector
    rows = [
        tuple(examples.token_ids[begin:end].tolist())
        for begin, end in zip(
            examples.starts[:-1], examples.starts[1:], strict=True
        )
    ]
    return np.stack([found[row] for row in rows])


def test_encoded_texts_are_taken(teacher, tmp_path):
    texts = TEXTS[:3]
    with pytest.raises(TypeError, match="`data.encode_examples` returns"):
        teachers.cache_embedding_teacher(teacher, texts, tmp_path / "cache")
    teachers.cache_embedding_teacher(
        teacher,
        data.encode_examples(teacher.preprocessor.tokenizer, texts),
        tmp_path / "cache",
        say=None,
    )


def test_it_has_the_teachers_vectors_in_16_bits(teacher, cached, examples):
    assert len(cached) == 36
    wanted = teacher.encode_text(TEXTS)
    batches = cached.dataset(examples, batch_size=9, seed=3)
    found = by_texts(batches, examples, 4)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted.astype("float16"))
    np.testing.assert_array_equal(cached.sample(), wanted.astype("float16"))
    np.testing.assert_array_equal(
        cached.sample(4), wanted.astype("float16")[[0, 12, 23, 35]]
    )


@pytest.mark.parametrize("cuts", [(), (2, 3)])
def test_components_are_those_of_a_reduced_teacher(
    teacher, cached, examples, cuts
):
    reduced = models.with_principal_components(
        teacher, cached.sample(), 5, cuts
    )
    read = teachers.CachedEmbeddingTeacher(cached.folder, 5, cuts)
    batches = read.dataset(examples, batch_size=9, seed=3)
    found = by_texts(batches, examples, 4)
    # Half precision has 11 bits.
    np.testing.assert_allclose(found, reduced.encode_text(TEXTS), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)
    again = teachers.CachedEmbeddingTeacher.from_config(read.get_config())
    assert again.dimension == 5
    np.testing.assert_array_equal(again.directions, read.directions)
    with pytest.raises(ValueError, match="`dimension` must be at most 16"):
        teachers.CachedEmbeddingTeacher(cached.folder, 17)


def test_a_student_learns_from_it_as_from_given_vectors(
    teacher, cached, examples
):
    """The teacher itself is not needed, and gives the same weights."""
    ends = []
    for source in (cached, teacher):
        student = toy.initialize_student(teacher, 1, dropout=0.0)
        distiller = keras_distil.Distiller(
            source,
            student,
            [losses.VectorCosineDistance(), losses.SimilarityKLDivergence()],
        )
        distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        batches = cached.dataset(examples, batch_size=9, seed=3)
        distiller.fit(batches, steps_per_epoch=2, verbose=0)
        ends.append(toy.weights_of(student))
    for one, other in zip(*(x.values() for x in ends), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_texts_for_another_tokenizer(teacher, cached, examples):
    student = models.static_embedding_model(teacher, TEXTS, 6, added_words=3)
    own = data.encode_examples(
        student.preprocessor.tokenizer, TEXTS, max_length=12
    )
    batches = cached.dataset(examples, batch_size=9, seed=3, read_as=own)
    found = by_texts(batches, own, 4)
    np.testing.assert_array_equal(found, cached.sample())
    with pytest.raises(ValueError, match="must hold the same texts"):
        cached.dataset(examples, batch_size=9, seed=3, read_as=cut(own, 5))


def test_an_interrupted_pass_goes_on(
    teacher, examples, cached, tmp_path, monkeypatch
):
    monkeypatch.setattr(writing, "_SHARD_TEXTS", 10)
    encode, calls = type(teacher).encode_tokens, []

    def encode_some(self, some, **options):
        calls.append(len(some))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return encode(self, some, **options)

    monkeypatch.setattr(type(teacher), "encode_tokens", encode_some)
    said = []
    for _ in range(2):
        try:
            made = teachers.cache_embedding_teacher(
                teacher, examples, tmp_path / "cache", say=said.append
            )
        except KeyboardInterrupt:
            assert len(calls) == 5
    # Two passes to time it, and those of the shards; then what was left.
    assert calls == [36, 36, 10, 10, 10, 36, 36, 10, 6]
    assert "the vectors of 36 texts" in said[0]
    np.testing.assert_array_equal(made.sample(), cached.sample())


def test_what_it_is_not_for_is_refused(teacher, cached, examples):
    student = toy.initialize_student(teacher, 1)
    with pytest.raises(data.CorpusError, match="was made of other texts"):
        cached.dataset(cut(examples, 7), batch_size=2, seed=0)
    with pytest.raises(ValueError, match="has its vectors alone: leave the"):
        keras_distil.Distiller(
            cached,
            student,
            [losses.VectorCosineDistance(), losses.HiddenStateCosineDistance()],
        )
    with pytest.raises(TypeError, match="is for sentence embedders and no"):
        keras_distil.Distiller(
            cached, toy.make_teacher(), [losses.SoftTargetKLDivergence()]
        )
    distiller = keras_distil.Distiller(
        cached, student, [losses.VectorCosineDistance()]
    )
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    with pytest.raises(ValueError, match="which have the teacher's vectors"):
        distiller.train_on_batch(toy.make_texts())
    with pytest.raises(data.CorpusError, match="for another purpose, 'embed"):
        teachers.CachedTaskTeacher(cached.folder)


def test_examples_that_do_not_fit(teacher, examples, tmp_path):
    long = data.encode_examples(
        teacher.preprocessor.tokenizer, ["a b c d e f g h i j k l m n"]
    )
    with pytest.raises(ValueError, match="at most 12 tokens each"):
        teachers.cache_embedding_teacher(teacher, long, tmp_path / "cache")
    with pytest.raises(TypeError, match="`teacher` must be an embedding model"):
        teachers.cache_embedding_teacher(
            toy.make_teacher(), examples, tmp_path / "cache"
        )
