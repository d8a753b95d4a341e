"""A student without TensorFlow: text in, answers out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras_hub
import numpy as np
import pytest
from toy import byte_level_tokenizer, convert_litert_here, randomize

from keras_distil import edge, export, models

LOOSE = export.Tolerance(9.0, 9.0, 0.0)


def outputs_of(model, ids):
    inputs = {
        "token_ids": np.array([ids], np.int32),
        "padding_mask": np.ones((1, len(ids)), np.int32),
    }
    return np.asarray(model(inputs))[0]


def softmax(logits):
    exponentials = np.exp(np.float64(logits) - np.max(logits))
    return exponentials / exponentials.sum()


def test_masked_words(exported, encoder, tokenizer):
    folder, _ = exported("masked_lm")
    student = edge.Student(folder)
    [found, second] = student("the [MASK] sat on [MASK].", top=3)
    assert [len(found), len(second)] == [3, 3]
    assert (found[0].start, found[0].end) == (4, 10)
    assert (second[0].start, second[0].end) == (18, 24)
    ids = [2, 5, 4, 7, 8, 4, 13, 3]
    from keras_distil.models import forward

    logits = np.asarray(
        forward.logits(
            encoder,
            {
                "token_ids": np.array([ids]),
                "padding_mask": np.ones((1, len(ids)), np.int32),
            },
        )
    )[0]
    for answers, place in ((found, 2), (second, 5)):
        probabilities = softmax(logits[place])
        order = np.argsort(probabilities)[::-1][:3]
        words = [tokenizer.id_to_token(i) for i in order]
        assert [each.text for each in answers] == words
        np.testing.assert_allclose(
            [each.score for each in answers], probabilities[order], atol=1e-4
        )


def test_classes(exported):
    labels = ["bad", "good", "neither"]
    folder, model = exported("classification", 3, labels)
    found = edge.Student(folder)("the cat", "a dog")
    expected = softmax(outputs_of(model, [2, 5, 6, 3, 1, 10, 3]))
    assert sorted(each.text for each in found) == labels
    for each in found:
        wanted = expected[labels.index(each.text)]
        assert each.score == pytest.approx(wanted, abs=1e-4)
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    assert len(edge.Student(folder)("the cat", top=1)) == 1


def test_regression(exported):
    folder, model = exported("regression", 1)
    found = edge.Student(folder)("the dogs")
    assert isinstance(found, float)
    assert found == pytest.approx(
        float(outputs_of(model, [2, 5, 10, 12, 3])[0]), abs=1e-4
    )


def test_a_probability(exported, tmp_path):
    folder, _ = exported("regression", 1)
    score = edge.Student(folder)("the dogs")
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / edge.CARD_FILE
    card = json.loads(path.read_text())
    assert card["is_probability"] is False
    path.write_text(json.dumps(card | {"is_probability": True}))
    found = edge.Student(tmp_path / "copy")("the dogs")
    assert found == pytest.approx(1 / (1 + np.exp(-score)), rel=1e-6)


def test_tokens(exported):
    folder, model = exported("token_classification", 2, ["O", "ANIMAL"])
    text = "the dogs sat"
    found = edge.Student(folder)(text)
    pieces = [text[each.start : each.end] for each in found]
    assert pieces == ["the", "dog", "s", "sat"]
    logits = outputs_of(model, [2, 5, 10, 12, 7, 3])[1:-1]
    names = [["O", "ANIMAL"][row.argmax()] for row in logits]
    assert [each.text for each in found] == names


ENTITIES = ["O", "B-CAT", "I-CAT", "B-DOG", "I-DOG"]


def test_entities(exported):
    folder, model = exported("token_classification", 5, ENTITIES)
    student = edge.Student(folder)
    text = "the dogs sat on cat. who dog sat"
    found = student.entities(text)
    ids = [2, 5, 10, 12, 7, 8, 6, 13, 11, 10, 7, 3]
    starts = [0, 4, 9, 13, 16, 19, 21, 25, 29]
    ends = [3, 8, 12, 15, 19, 20, 24, 28, 32]
    # The second piece of "dogs" says nothing.
    rows = np.delete(outputs_of(model, ids)[1:-1], 2, axis=0)
    expected, before = [], "O"
    for row, start, end in zip(rows, starts, ends, strict=True):
        tag, score = ENTITIES[row.argmax()], softmax(row).max()
        if tag[:2] == "I-" and before[1:] == tag[1:]:
            expected[-1][1:3] = [end, [*expected[-1][2], score]]
        elif tag != "O":
            expected.append([start, end, [score], tag[2:]])
        before = tag
    assert 1 < len(expected) < len(rows)
    assert [(x.start, x.end, x.text) for x in found] == [
        (start, end, type_) for start, end, _, type_ in expected
    ]
    np.testing.assert_allclose(
        [x.score for x in found], [np.mean(x[2]) for x in expected], atol=1e-4
    )
    assert student.reads_whole(text) and not student.reads_whole("cat " * 15)
    with pytest.raises(ValueError, match="`entities` is for token classifiers"):
        edge.Student(exported("masked_lm")[0]).entities(text)


def test_labels_that_mark_no_entities(exported):
    folder, _ = exported("token_classification", 2, ["NOUN", "VERB"])
    student = edge.Student(folder)
    found = student.entities("the dogs sat")
    assert [(x.start, x.end) for x in found] == [(0, 3), (4, 8), (9, 12)]
    tags = student("the dogs sat")
    assert [x.text for x in found] == [tags[i].text for i in (0, 1, 3)]


def test_spans(exported):
    folder, model = exported("span", 2)
    context = "The cat sat on the mat."
    found = edge.Student(folder)("who", context, top=4)
    ids = [2, 11, 3, 5, 6, 7, 8, 5, 9, 13, 3]
    logits = outputs_of(model, ids)
    inside = slice(3, 10)
    starts = softmax(logits[inside, 0])
    ends = softmax(logits[inside, 1])
    scores = {
        (i, j): starts[i] * ends[j] for i in range(7) for j in range(i, 7)
    }
    best = sorted(scores.values(), reverse=True)[:4]
    np.testing.assert_allclose([x.score for x in found], best, atol=1e-4)
    edges = [(0, 3), (4, 7), (8, 11), (12, 14), (15, 18), (19, 22), (22, 23)]
    (i, j) = max(scores, key=scores.get)
    assert (found[0].start, found[0].end) == (edges[i][0], edges[j][1])
    assert found[0].text == context[found[0].start : found[0].end]


@pytest.mark.parametrize(
    ("question", "context", "message"),
    [
        # 16 positions, of which [CLS], [SEP], [SEP] and a token are taken.
        ("cat " * 13, "the mat", "13 tokens.*takes 16.*question to 12"),
        ("cat " * 400, "the mat", "400 tokens.*shorten"),
        ("who", "", "context must have a token.* Received: ''"),
        ("who", " \t\n", "context must have a token"),
        # Nothing that the tokenizer keeps.
        ("who", "\u200b\x07", "context must have a token"),
        ("who", None, "reads a question and its context: pass both"),
    ],
)
def test_questions_without_room_or_context(
    exported, question, context, message
):
    student = edge.Student(exported("span", 2)[0])
    with pytest.raises(ValueError, match=message) as refused:
        student(question, context)
    assert "damaged" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_longest_question_that_is_advised_is_answered(exported):
    student = edge.Student(exported("span", 2)[0])
    answers = student("cat " * 12, "the cat sat", top=5)
    assert [answer.text for answer in answers] == ["the"]
    # From the single remaining token, and nothing else.
    assert answers[0].score == pytest.approx(1.0)


def test_the_longer_text_of_a_pair_is_cut(exported):
    """As in training and in the other exports, whichever it is."""
    folder, model = exported("classification", 3, ["bad", "good", "neither"])
    student = edge.Student(folder)
    cat, the = 6, 5
    for texts, ids in (
        (("cat " * 400, "the"), [2, *[cat] * 12, 3, the, 3]),
        (("the", "cat " * 400), [2, the, 3, *[cat] * 12, 3]),
        (("cat " * 40, "the " * 30), [2, *[cat] * 7, 3, *[the] * 6, 3]),
        (("cat", ""), [2, cat, 3, 3]),
    ):
        expected = np.sort(softmax(outputs_of(model, ids)))[::-1]
        found = [answer.score for answer in student(*texts)]
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("top", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)]
)
def test_choices_are_counted(exported, top, error):
    student = edge.Student(exported("span", 2)[0])
    with pytest.raises(error, match=f"`top` must be .*Received: top={top}"):
        student("who", "the cat", top=top)


def test_several_labels(exported):
    folder, model = exported("multi_label", 3, ["cat", "dog", "neither"])
    student = edge.Student(folder)
    answers = student("the cat")
    found = outputs_of(model, [2, 5, 6, 3])
    expected = np.sort(1 / (1 + np.exp(-found)))[::-1]
    scores = [answer.score for answer in answers]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    names = np.array(["cat", "dog", "neither"])[np.argsort(-found)]
    assert [answer.text for answer in answers] == list(names)


def test_embeddings(exported):
    folder, _ = exported("sentence_embedding")
    found = edge.Student(folder / "student.tflite")("the cat")
    assert found.shape == (8,)
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)


def test_long_texts_are_cut(exported):
    folder, _ = exported("classification", 3, ["bad", "good", "neither"])
    student = edge.Student(folder)
    assert student("cat " * 50) == student("cat " * 14)
    with pytest.raises(ValueError, match="takes up to 16 tokens. Received: 17"):
        student.run(
            dict.fromkeys(
                ("token_ids", "padding_mask"), np.ones((1, 17), np.int32)
            )
        )
    with pytest.raises(
        ValueError, match="must hold token_ids, padding_mask. Received: x"
    ):
        student.run({"x": np.ones((1, 4), np.int32)})


def test_without_a_tokenizer(exported, tmp_path):
    folder, _ = exported("classification", 3, ["bad", "good", "neither"])
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "tokenizer.json").unlink()
    student = edge.Student(copy)
    with pytest.raises(FileNotFoundError, match="reads only token ids"):
        student("the cat")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("{", ValueError, "student.json is damaged"),
        ("[]", ValueError, "student.json is damaged"),
        ('{"format_version": 2}', ValueError, "format version 2; this"),
        (
            '{"format_version": 1, "kind": "span", "lengths": []}',
            ValueError,
            "damaged: it lacks precision, labels, max_length, inputs",
        ),
        (None, FileNotFoundError, "student.json is missing: `export"),
        ("[" * 100_000, ValueError, "student.json is damaged: .*recursion"),
        ({"kind": "tree"}, ValueError, "damaged: kind cannot be 'tree'"),
        ({"lengths": [9.5]}, ValueError, r"lengths cannot be \[9.5\]"),
        ({"labels": "bad"}, ValueError, "labels cannot be 'bad'"),
        ({"max_length": True}, ValueError, "max_length cannot be True"),
        ({"max_length": 0}, ValueError, "max_length cannot be 0"),
        (
            {"lengths": [9], "max_length": 9},
            ValueError,
            "no signature length_9 of .*: the two belong to different exports",
        ),
        ({"max_length": 9}, ValueError, "no signature any_length of token_ids"),
        ({"inputs": ["x"]}, ValueError, r"no signature \w+ of x, which"),
    ],
)
def test_damaged_cards(exported, tmp_path, change, error, message):
    folder, _ = exported("classification", 3, ["bad", "good", "neither"])
    copy = shutil.copytree(folder, tmp_path / "copy")
    card = copy / "student.json"
    if change is None:
        card.unlink()
    elif isinstance(change, dict):
        change = json.dumps(json.loads(card.read_text()) | change)
    if change is not None:
        card.write_text(change)
    with pytest.raises(error, match=message):
        edge.Student(copy)


def test_damaged_models(exported, tmp_path):
    folder, _ = exported("classification", 3, ["bad", "good", "neither"])
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "student.tflite").write_bytes(b"nothing that it knows")
    with pytest.raises(
        ValueError, match="is not a LiteRT model, or is damaged"
    ):
        edge.Student(copy)
    (copy / "student.tflite").unlink()
    with pytest.raises(FileNotFoundError, match="student.tflite is missing"):
        edge.Student(copy)


def test_a_card_with_too_few_labels(exported, tmp_path):
    folder, _ = exported("classification", 3, ["bad", "good", "neither"])
    copy = shutil.copytree(folder, tmp_path / "copy")
    card = json.loads((copy / "student.json").read_text()) | {"labels": ["a"]}
    (copy / "student.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="has 1 `labels`, fewer than"):
        edge.Student(copy)("the cat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "tokenizer.json is damaged"),
        # A missing word for unknown words shows when one is read.
        (lambda text: text.replace('"[UNK]": 1', '"[NONE]": 1'), "Missing"),
        (lambda text: text.replace('"the": 5', '"the": 99'), "cannot read"),
    ],
)
def test_damaged_tokenizers(exported, tmp_path, change, message):
    folder, _ = exported("classification", 3, ["bad", "good", "neither"])
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "tokenizer.json"
    text = json.dumps(json.loads(file.read_text()))
    changed = change(text)
    assert changed != text
    file.write_text(changed)
    student = edge.Student(copy)
    with pytest.raises(ValueError, match=message):
        student("the cat 7")


def test_no_text(exported):
    folder, _ = exported("classification", 3, ["bad", "good", "neither"])
    with pytest.raises(TypeError):
        edge.Student(folder)(5)


@pytest.mark.parametrize(
    ("num_threads", "error", "message"),
    [
        (0, ValueError, "at least 1. Received: num_threads=0"),
        (2.0, TypeError, "must be an integer. Received: num_threads=2.0"),
        (True, TypeError, "must be an integer. Received: num_threads=True"),
    ],
)
def test_bad_threads(tmp_path, num_threads, error, message):
    with pytest.raises(error, match=message):
        edge.Student(tmp_path, num_threads=num_threads)


def test_runs_where_neither_tensorflow_nor_keras_is(exported):
    folder, _ = exported("classification", 3, ["bad", "good", "neither"])
    program = f"""
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        allowed = ("ai_edge_litert", "numpy", "tokenizers", "keras_distil",
                   "flatbuffers", "google", "ml_dtypes", "tqdm", "backports",
                   "typing_extensions")
        first = name.partition(".")[0]
        if first not in allowed and first not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from keras_distil import edge
print(edge.Student({str(folder)!r})("the cat", top=1)[0].text)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("bad", "good", "neither")
    assert json.loads((folder / "student.json").read_text())["labels"] == [
        "bad",
        "good",
        "neither",
    ]


# === Byte-level tokenizers ===


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return byte_level_tokenizer(tmp_path_factory.mktemp("byte_level"))


@pytest.fixture(scope="module")
def byte_level_student(byte_level, tmp_path_factory):
    """A function of a kind of model to a student that reads bytes."""
    root = tmp_path_factory.mktemp("byte_level_students")
    made = {}
    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=701,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=32,
    )
    encoder = randomize(models.ExactDistilBertMaskedLM(backbone), seed=1)

    def make(kind):
        if kind in made:
            return made[kind]
        model = encoder
        if kind != "masked_lm":
            model = randomize(models.task_model(encoder, kind, 2), seed=5)
        folder = root / kind
        with pytest.MonkeyPatch.context() as patch:
            convert_litert_here(patch)
            export.export_litert(
                model,
                folder,
                byte_level,
                precision="float32",
                lengths=[32],
                tolerance=LOOSE,
            )
        made[kind] = edge.Student(folder)
        return made[kind]

    return make


def test_masked_words_of_a_byte_level_tokenizer(byte_level, byte_level_student):
    student = byte_level_student("masked_lm")
    text = "the  student <mask> from it"
    [found] = student(text, top=701)
    assert text[found[0].start : found[0].end] == "<mask>"
    # Words carry the space before them.
    texts = {each.text for each in found}
    assert {" the", "ing", "<mask>", "\n"} <= texts
    assert not any("Ġ" in each for each in texts)
    fresh = edge.Student(student.folder).tokenizer
    assert fresh.to_str() == byte_level.to_str()
    ids = byte_level.encode(text).ids
    assert ids.count(700) == 1 and ids[0] == 0 and ids[-1] == 2


def test_spans_of_a_byte_level_tokenizer(byte_level, byte_level_student):
    student = byte_level_student("span")
    context = "The student learns from the teacher."
    found = student("who learns", context, top=50)
    for each in found:
        assert each.text == context[each.start : each.end] == each.text.strip()
    # Two separators stand between the question and the context.
    special = byte_level.num_special_tokens_to_add(True)
    assert special == 4
    with pytest.raises(ValueError, match="takes 32, of which 4 are special"):
        student("who " * 40, context)


def test_a_mask_is_found_by_its_role(byte_level_student, byte_level, tmp_path):
    student = byte_level_student("masked_lm")
    shutil.copytree(student.folder, tmp_path / "copy")
    other = byte_level_tokenizer(tmp_path / "other", mask_token="ing")
    path = tmp_path / "copy" / edge.TOKENIZER_FILE
    path.write_text(other.to_str())
    [found] = edge.Student(tmp_path / "copy")("a ing b <mask>", top=1)
    assert (found[0].start, found[0].end) == (2, 5)
    described = json.loads(byte_level.to_str())
    named = described["added_tokens"]
    words = described["model"]["vocab"]
    words["<hidden>"] = words.pop("<mask>")
    described["added_tokens"] = [t for t in named if t["content"] != "<mask>"]
    path.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="tokenizer.json has no mask token"):
        edge.Student(tmp_path / "copy")("a b")
