"""TensorBoard's view of examples, against NumPy and the models."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tensorboard.util import tensor_util
from toy import byte_level_tokenizer, full_logits, hidden_states, randomize

from keras_distil import Distiller, callbacks, data, losses
from keras_distil.callbacks import insights
from keras_distil.utils.markdown import escape


@pytest.fixture
def tokenizer(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "|"]
    words += [f"w{number}" for number in range(26)]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    return data.load_tokenizer(tmp_path)


def test_cka_by_hand():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 6))
    rotation, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    assert insights.linear_cka(x, 3.0 * x @ rotation + 1.0) == pytest.approx(1)
    y = generator.normal(size=(40, 4))
    # By kernels, as the paper defines it.
    centre = np.eye(40) - 1 / 40
    k, m = (centre @ (z @ z.T) @ centre for z in (x, y))
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    assert insights.linear_cka(x, y) == pytest.approx(expected)
    assert insights.linear_cka(x, np.ones((40, 4))) == 0.0


def test_cosine_by_hand():
    one = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    other = np.array([[1.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    expected = (np.sqrt(0.5) - 1.0 + 0.0) / 3
    assert insights.mean_cosine(one, other) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (12, 6, [0, 2, 4, 6, 8, 10, 12]),
        (6, 4, [0, 2, 3, 4, 6]),
        (2, 2, [0, 1, 2]),
    ],
)
def test_layers_are_matched_by_depth(teacher, student, expected):
    assert insights.matched_layers(teacher, student) == expected


def test_a_look(make_distiller, triple, tokenizer):
    distiller = make_distiller()
    x, y, weight = triple
    x = {**x, "padding_mask": x["padding_mask"].copy()}
    x["padding_mask"][3, 5:] = 0
    weight = weight * x["padding_mask"]
    teacher, student = distiller.teacher, distiller.student
    found = insights.Examples(teacher, student, (x, y, weight), tokenizer)
    look = found.look()
    assert found.pairs == [0, 2]
    masked = weight > 0
    logits = [
        np.float64(full_logits(model, x))[masked]
        for model in (teacher, student)
    ]
    p, q = (np.exp(z - z.max(-1, keepdims=True)) for z in logits)
    p, q = (z / z.sum(-1, keepdims=True) for z in (p, q))
    np.testing.assert_allclose(look.confidence, p.max(-1), rtol=1e-4)
    expected = np.sum(p * np.log(p / q), axis=-1)
    np.testing.assert_allclose(look.divergence, expected, rtol=1e-3, atol=1e-6)
    real = x["padding_mask"] > 0
    last = [
        np.asarray(hidden_states(model, x))[real]
        for model in (teacher, student)
    ]
    assert look.cosine[-1] == pytest.approx(
        insights.mean_cosine(*last), abs=1e-5
    )
    assert look.cka[-1] == pytest.approx(insights.linear_cka(*last), abs=1e-5)
    # The student's embeddings are the teacher's.
    assert look.cka[0] == pytest.approx(1.0) == look.cosine[0]
    head, _, *rows = insights.to_markdown(look.words).splitlines()
    assert head == "| text | teacher | student |"
    row, place = np.argwhere(masked)[0]
    cells = rows[0].replace("\\|", "/").split("|")[1:-1]
    word = tokenizer.id_to_token(int(y[row, place]))
    assert f"**{escape(word)}**".replace("\\|", "/") in cells[0]
    best = int(p[0].argmax())
    shown = f"{escape(tokenizer.id_to_token(best))} {100 * p[0].max():.0f}%"
    assert cells[1].strip().startswith(shown.replace("\\|", "/"))
    # Three words of a sequence.
    assert len(rows) == sum(min(3, n) for n in masked.sum(axis=1))
    # By themselves they are the same.
    for one, other in zip(found.masked_words(), look.words, strict=True):
        assert (one.before, one.word) == (other.before, other.word)
        for mine, its in (
            (one.teacher, other.teacher),
            (one.student, other.student),
        ):
            assert [x for x, _ in mine] == [x for x, _ in its]
            # The products have other shapes.
            np.testing.assert_allclose(
                [p for _, p in mine], [p for _, p in its], rtol=1e-4
            )
    every = found.similarities()
    assert every.shape == (3, 2)
    np.testing.assert_allclose(
        [every[upper, lower] for lower, upper in enumerate(found.pairs)],
        look.cka,
        rtol=1e-6,
    )


def tags(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [event.step for event in events.Tensors(tag)]
        for plugin in ("images", "histograms", "text", "scalars")
        for tag in events.PluginTagToContent(plugin)
    }, events


@pytest.fixture
def batches(triple):
    return tf.data.Dataset.from_tensor_slices(triple).repeat().batch(2)


def fit(distiller, batches, epochs, *more):
    distiller.fit(
        batches, epochs=epochs, steps_per_epoch=4, verbose=0, callbacks=more
    )


@pytest.mark.slow
def test_looks_are_written(
    make_distiller, batches, triple, tokenizer, tmp_path
):
    board = callbacks.TensorBoard(
        tmp_path, examples=triple, tokenizer=tokenizer, examples_every=3
    )
    distiller = make_distiller()
    distiller.get_loss("mlm").weight.assign(2.0)
    fit(distiller, batches, 2, board)
    found, events = tags(tmp_path / "train")
    norms = distiller.gradient_norms(triple).measure()
    for name, weight in (("mlm", 2.0), ("soft_target", 1.0), ("cosine", 1.0)):
        tag = "by_loss/gradient_norm"
        own = EventAccumulator(str(tmp_path / "losses" / name))
        own.Reload()
        assert [event.step for event in own.Tensors(tag)] == [0, 3, 6, 8]
        last = own.Tensors(tag)[-1].tensor_proto
        value = float(tensor_util.make_ndarray(last))
        assert value == pytest.approx(weight * norms[name], rel=1e-5)
    for name in ("layers", "teacher_confidence", "divergence", "words"):
        assert found[f"examples/{name}"] == [0, 3, 6, 8]
    last = events.Tensors("examples/layers")[-1].tensor_proto
    width, height, png = tensor_util.make_ndarray(last)
    assert int(width) > int(height) > 100 and png[:4] == b"\x89PNG"


@pytest.mark.slow
def test_heat_maps_continue(
    make_distiller, batches, triple, tokenizer, tmp_path
):
    boards = []
    for epochs in (1, 2):
        boards.append(
            callbacks.TensorBoard(
                tmp_path / "logs",
                examples=triple,
                tokenizer=tokenizer,
                examples_every=2,
            )
        )
        state = callbacks.TrainingState(tmp_path / "states")
        fit(make_distiller(), batches, epochs, boards[-1], state)
    assert boards[1]._seen["steps"] == [0, 2, 4, 6, 8]
    assert len(boards[1]._seen["cka"]) == len(boards[1]._seen["cosine"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples_every": 0}, "`examples_every` must be at least 1"),
        ({"examples": ({}, 0, 0)}, "`examples` and `tokenizer` need each"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        callbacks.TensorBoard(tmp_path, **arguments)


def test_words_of_a_byte_level_tokenizer(make_distiller, tmp_path):
    distiller = make_distiller()
    tokenizer = byte_level_tokenizer(tmp_path)
    # The toy models know 32 ids: single letters and signs.
    ids = np.array([[0, 20, 4, 21, 2, 2, 22, 2]], np.int32)
    weight = np.zeros(ids.shape, np.float32)
    weight[0, 2] = 1.0
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    found = insights.Examples(
        distiller.teacher, distiller.student, (x, ids, weight), tokenizer
    )
    [word] = found.masked_words()
    spelt = [tokenizer.decode([i]) for i in (20, 4, 21, 22)]
    assert (word.before, word.word) == (spelt[0], spelt[1])
    # What frames the texts is left out.
    assert word.after == spelt[2] + spelt[3]
    assert len(word.teacher) == 5


def test_several_teachers_choose_words_together(
    make_distiller, triple, tokenizer
):
    """By the mean of their probabilities; layers are those of the first."""
    distiller = make_distiller()
    other = randomize(make_distiller().teacher, seed=3, scale=0.5)
    teachers, student = [distiller.teacher, other], distiller.student
    found = insights.Examples(teachers, student, triple, tokenizer)
    masked = triple[2] > 0
    p, q = [], []
    for made, model in ((p, teachers[0]), (p, other), (q, student)):
        z = np.float64(full_logits(model, triple[0]))[masked]
        z = np.exp(z - z.max(-1, keepdims=True))
        made.append(z / z.sum(-1, keepdims=True))
    p, q = np.mean(p, axis=0), q[0]
    look = found.look()
    np.testing.assert_allclose(look.confidence, p.max(-1), rtol=1e-4)
    expected = np.sum(p * np.log(p / q), axis=-1)
    np.testing.assert_allclose(look.divergence, expected, rtol=1e-3, atol=1e-6)
    alone = insights.Examples(teachers[0], student, triple, tokenizer).look()
    assert (look.cka, look.cosine) == (alone.cka, alone.cosine)
    assert not np.allclose(look.confidence, alone.confidence)


def test_each_teacher_has_its_summary(make_distiller, triple, tmp_path):
    distiller = make_distiller()
    teachers = [distiller.teacher, make_distiller().teacher]
    several = Distiller(
        teachers, distiller.student, [losses.SoftTargetKLDivergence()]
    )
    for each, names in (
        (distiller, {"teacher", "student"}),
        (several, {"teacher 0", "teacher 1", "student"}),
    ):
        board = callbacks.TensorBoard(tmp_path / str(len(names)))
        board.set_model(each)
        assert board._model_texts().keys() == names
