"""What a SavedModel makes of its outputs, as `edge` does by other code."""

import types

import numpy as np
import pytest
import tensorflow as tf
from toy import byte_level_tokenizer

from keras_distil import data, export
from keras_distil.edge import answers
from keras_distil.export.graph_answers import meaning_of_pair, meaning_of_text
from keras_distil.export.graph_tokenizer import make_graph_tokenizer

TEXTS = ["a b cafe d", "", "naïve cafes [MASK] fine a", "\u65e5\u672ca  b"]
TEXTS += [" the <mask> \n\n it's\xa0a", "\n\n"]
TAGS = ["O", "B-X", "I-X", "S-Y", "I-Y", "E-Y"]


@pytest.fixture(scope="module", params=["word pieces", "bytes", "untrimmed"])
def reads(request, tokenizer, tmp_path_factory):
    """A tokenizer of each kind."""
    if request.param == "word pieces":
        return tokenizer
    # Of the last, tokens begin with the space before them.
    return byte_level_tokenizer(
        tmp_path_factory.mktemp("bytes"),
        trim_offsets=request.param == "bytes",
        add_prefix_space=True,
    )


@pytest.fixture(scope="module")
def made(reads):
    return make_graph_tokenizer(reads)


def student_of(kind, **settings):
    return types.SimpleNamespace(kind=kind, is_probability=False, **settings)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 2, shape).astype("float32")


@pytest.mark.parametrize("labels", [TAGS, ["O", "DAY", "NIGHT"], ["NO", "VE"]])
def test_entities(made, reads, labels):
    texts = TEXTS * 8
    encoded = made.encode(tf.constant(texts), max_length=48)
    rows, length = encoded["token_ids"].shape
    logits = draw(rows, length, len(labels))
    mean = meaning_of_text(student_of("token_classification"), labels)
    found = mean({"logits": tf.constant(logits)}, encoded, tf.constant(texts))
    found = {name: value.numpy() for name, value in found.items()}
    for row, text in enumerate(texts):
        encoding = reads.encode(text)
        own = logits[row, : len(encoding.ids)]
        tokens = answers.tag_tokens(own, encoding, labels)
        inside = found["starts"][row] >= 0
        check_same(found, "labels", "", row, inside, tokens)
        entities = answers.tag_entities(own, encoding, text, labels)
        inside = found["entity_starts"][row] >= 0
        assert not found["entities"][row][~inside].any()
        check_same(found, "entities", "entity_", row, inside, entities)
    assert (found["entity_starts"] >= 0).sum() > 20


def check_same(found, names, prefix, row, inside, expected):
    texts = [each.decode() for each in found[names][row][inside]]
    assert texts == [each.text for each in expected]
    for name, attribute in (("starts", "start"), ("ends", "end")):
        places = found[f"{prefix}{name}"][row][inside].tolist()
        assert places == [getattr(each, attribute) for each in expected]
    np.testing.assert_allclose(
        found[f"{prefix}probabilities"][row][inside],
        [each.score for each in expected],
        rtol=1e-5,
    )


def test_parts_of_a_context(made, reads):
    contexts = [*TEXTS, " ".join("abcde" * 3)]
    questions = ["a b"] * len(contexts)
    encoded = made.encode_pairs(
        tf.constant(questions), tf.constant(contexts), max_length=48
    )
    rows, length = encoded["token_ids"].shape
    outputs = {
        "start_logits": draw(rows, length),
        "end_logits": draw(rows, length, seed=1),
    }
    mean = meaning_of_pair(student_of("span"), [])
    found = mean(
        {name: tf.constant(value) for name, value in outputs.items()},
        encoded,
        tf.constant(contexts),
    )
    for row, context in enumerate(contexts):
        encoding = reads.encode("a b", context)
        own = {name: value[row] for name, value in outputs.items()}
        place = [int(found[name][row]) for name in ("starts", "ends")]
        text = found["answers"][row].numpy().decode()
        if not reads.encode(context, add_special_tokens=False).ids:
            assert place == [-1, -1] and not text
            assert found["probabilities"][row] == 0.0
            continue
        [best] = answers.find_spans(own, encoding, context, 1)
        assert place == [best.start, best.end]
        assert text == best.text
        np.testing.assert_allclose(
            found["probabilities"][row], best.score, rtol=1e-5
        )


@pytest.mark.parametrize(
    "kind", ["classification", "multi_label", "regression"]
)
def test_classes(kind):
    names = ["no", "yes", "perhaps"]
    logits = draw(4, 3)
    probabilities = 1 / (1 + np.exp(-logits))
    student = student_of(kind)
    outputs = {"logits": tf.constant(logits)}
    if kind == "classification":
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    elif kind == "regression":
        assert meaning_of_text(student, ["x"]) is None
        student.is_probability = True
        names, probabilities = ["yes"], probabilities[:, :1]
        outputs = {"score": tf.constant(logits[:, 0])}
    for meaning in (meaning_of_text, meaning_of_pair):
        found = meaning(student, names)(outputs, {}, None)
        order = np.argsort(-probabilities)
        said = np.char.decode(found["labels"].numpy().astype("S"))
        assert said.tolist() == np.array(names)[order].tolist()
        np.testing.assert_allclose(
            found["probabilities"],
            np.take_along_axis(probabilities, order, 1),
            rtol=1e-5,
        )


@pytest.mark.slow
def test_a_saved_model_of_entities(task_student, tokenizer, tmp_path):
    model = task_student("token_classification", len(TAGS))
    report = export.export_saved_model(
        model, tmp_path / "made", tokenizer, labels=TAGS
    )
    served = tf.saved_model.load(report.path).signatures["texts"]
    found = served(texts=tf.constant(TEXTS))
    batch = data.encode_texts(tokenizer, TEXTS, 24)
    logits = np.asarray(model(batch, training=False))
    for row, text in enumerate(TEXTS):
        encoding = tokenizer.encode(text)
        own = logits[row, : len(encoding.ids)]
        expected = answers.tag_entities(own, encoding, text, TAGS)
        inside = found["entity_starts"][row].numpy() >= 0
        said = found["entities"][row].numpy()[inside]
        assert [x.decode() for x in said] == [x.text for x in expected]
    assert (report.path / "labels.json").exists()


@pytest.mark.slow
@pytest.mark.essential
def test_a_saved_model_of_spans(task_student, tokenizer, tmp_path):
    model = task_student("span")
    report = export.export_saved_model(model, tmp_path / "made", tokenizer)
    served = tf.saved_model.load(report.path).signatures["text_pairs"]
    context = "a naïve b"
    found = served(first=tf.constant(["a b"]), second=tf.constant([context]))
    encoding = tokenizer.encode("a b", context)
    ids = np.array([encoding.ids], np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    logits = np.asarray(model(inputs, training=False))[0]
    outputs = {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}
    [best] = answers.find_spans(outputs, encoding, context, 1)
    assert found["answers"][0].numpy().decode() == best.text
    assert int(found["starts"][0]) == best.start


def test_too_few_labels_are_refused(task_student, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="must name the model's 6 outputs"):
        export.export_saved_model(
            task_student("token_classification", 6),
            tmp_path / "made",
            tokenizer,
            labels=["O"],
        )
