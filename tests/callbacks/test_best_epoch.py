import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distil import callbacks


def train(distiller, triple, path, scores, *, epochs, patience=None, more=()):
    """Trains with given scores; returns the callback."""
    left = iter(scores)
    best = callbacks.BestEpoch(
        path, lambda student: next(left), patience=patience
    )
    distiller.fit(
        tf.data.Dataset.from_tensors(triple).repeat(),
        steps_per_epoch=1,
        epochs=epochs,
        verbose=0,
        callbacks=[best, *more],
    )
    return best


def embeddings(student):
    return student.backbone.token_embedding.embeddings.numpy()


def test_the_student_of_the_best_epoch_is_kept(
    make_distiller, triple, tmp_path
):
    distiller = make_distiller()
    after = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: after.append(
            (embeddings(distiller.student), logs["dev_score"])
        )
    )
    path = tmp_path / "best.keras"
    best = train(
        distiller, triple, path, [0.1, 0.5, 0.5, 0.2], epochs=4, more=[record]
    )
    assert best.best_epoch == 1
    assert [score for _, score in after] == [0.1, 0.5, 0.5, 0.2]
    kept = embeddings(keras.saving.load_model(path))
    equal = [np.array_equal(kept, weights) for weights, _ in after]
    assert equal == [False, True, False, False]
    assert list(tmp_path.iterdir()) == [path]


def test_errors_are_logged_as_they_are(make_distiller, triple, tmp_path):
    """Scores of errors are negative, so that less is better."""
    logged = []
    left = iter([-0.75, -0.5])
    best = callbacks.BestEpoch(
        tmp_path / "best.keras",
        lambda student: next(left),
        log_name="dev_error",
        is_error=True,
    )
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logged.append(logs["dev_error"])
    )
    make_distiller().fit(
        tf.data.Dataset.from_tensors(triple).repeat(),
        steps_per_epoch=1,
        epochs=2,
        verbose=0,
        callbacks=[best, record],
    )
    assert logged == [0.75, 0.5]
    assert best.best_epoch == 1 and best.scores == [-0.75, -0.5]


def test_patience_ends_the_training(make_distiller, triple, tmp_path):
    distiller = make_distiller()
    best = train(
        distiller,
        triple,
        tmp_path / "best.keras",
        [0.3, 0.2, 0.3, 0.9],
        epochs=9,
        patience=2,
    )
    assert best.scores == [0.3, 0.2, 0.3]
    assert int(distiller.optimizer.iterations.numpy()) == 3


def test_a_training_continues_and_ends_where_it_had_ended(
    make_distiller, triple, tmp_path
):
    path = tmp_path / "best.keras"
    batches = tf.data.Dataset.from_tensors(triple).repeat()

    def fit(scores, epochs):
        left = iter(scores)
        best = callbacks.BestEpoch(path, lambda s: next(left), patience=2)
        state = callbacks.TrainingState(tmp_path / "states", every_steps=1)
        make_distiller().fit(
            batches,
            steps_per_epoch=1,
            epochs=epochs,
            verbose=0,
            callbacks=[best, state],
        )
        return best

    fit([0.3, 0.2], epochs=2)
    kept = path.read_bytes()
    assert fit([0.1, 0.9, 0.9], epochs=9).scores == [0.3, 0.2, 0.1]
    # It is out of patience: nothing is scored or kept any more.
    assert fit([0.9], epochs=9).scores == [0.3, 0.2, 0.1]
    assert path.read_bytes() == kept


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="must end in `.keras`.*'x.h5'"):
        callbacks.BestEpoch("x.h5", float)
    with pytest.raises(ValueError, match="patience=0"):
        callbacks.BestEpoch("x.keras", float, patience=0)
    with pytest.raises(TypeError, match="must be floats"):
        callbacks.BestEpoch("x.keras", float).set_training_state(
            {"scores": ["1"]}
        )
