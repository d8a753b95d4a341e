"""What is exported, as `transformers` loads and runs it."""

import json
import logging
import warnings
from pathlib import Path

import keras_hub
import numpy as np
import pytest
from toy import byte_level_tokenizer

from keras_distil import data, export, models
from keras_distil.edge import answers

pytestmark = pytest.mark.peer

GOLDEN = Path(__file__).parent / "golden"
CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "multi_label": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
}
TEXTS = ["a naïve café", "a b c [MASK] d", "日本語 fine"]


@pytest.fixture
def transformers(caplog, monkeypatch):
    """The library, whose warnings are errors, however it gives them."""
    module = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Keras, of NumPy 2; see pyproject.toml.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't")
        yield module
    told = [r.getMessage() for r in caplog.records if r.levelno >= 30]
    assert told == []


def run(transformers, class_name, folder, encoded):
    import torch

    model = getattr(transformers, class_name).from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**encoded)


def inputs_of(encoded, model):
    arrays = {
        "token_ids": encoded["input_ids"].numpy().astype("int32"),
        "padding_mask": encoded["attention_mask"].numpy().astype("int32"),
    }
    if "segment_ids" in model.backbone.input:
        arrays["segment_ids"] = np.zeros_like(arrays["token_ids"])
    return arrays


def encode(transformers, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer(TEXTS, padding=True, return_tensors="pt")


@pytest.mark.parametrize("name", ["student", "bert"])
def test_masked_lm(transformers, name, tokenizer, tmp_path, request):
    model = request.getfixturevalue(name)
    made = export.export_hugging_face(model, tmp_path / "made", tokenizer)
    encoded = encode(transformers, made.path)
    arrays = inputs_of(encoded, model)
    rows, length = arrays["token_ids"].shape
    positions = np.tile(np.arange(length, dtype="int32"), (rows, 1))
    expected = model(arrays | {"mask_positions": positions}, training=False)
    outputs = run(transformers, "AutoModelForMaskedLM", made.path, encoded)
    real = arrays["padding_mask"] > 0
    np.testing.assert_allclose(
        outputs.logits.numpy()[real], np.asarray(expected)[real], atol=1e-4
    )
    back = models.load_teacher(made.path)
    np.testing.assert_array_equal(
        back(arrays | {"mask_positions": positions}, training=False), expected
    )


@pytest.mark.parametrize("name", ["student"])
def test_encoder(transformers, name, tokenizer, tmp_path, request):
    model = request.getfixturevalue(name)
    made = export.export_hugging_face(model, tmp_path / "made", tokenizer)
    encoded = encode(transformers, made.path)
    outputs = run(transformers, "AutoModel", made.path, encoded)
    arrays = inputs_of(encoded, model)
    real = arrays["padding_mask"] > 0
    np.testing.assert_allclose(
        outputs.last_hidden_state.numpy()[real],
        np.asarray(model.backbone(arrays, training=False))[real],
        atol=1e-4,
    )


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", ["student", "bert"])
def test_tasks(
    transformers, name, kind, task_student, tokenizer, tmp_path, request
):
    outputs = 1 if kind in ("regression", "span") else 3
    model = task_student(kind, outputs, request.getfixturevalue(name))
    made = export.export_hugging_face(model, tmp_path / "made", tokenizer)
    encoded = encode(transformers, made.path)
    found = run(transformers, CLASSES[kind], made.path, encoded)
    arrays = inputs_of(encoded, model)
    expected = np.asarray(model(arrays, training=False))
    if kind == "span":
        theirs = np.stack(
            [found.start_logits.numpy(), found.end_logits.numpy()], axis=-1
        )
    else:
        theirs = found.logits.numpy()
    real = np.s_[:]
    if kind in ("span", "token_classification"):
        real = arrays["padding_mask"] > 0
    np.testing.assert_allclose(theirs[real], expected[real], atol=1e-4)


@pytest.mark.parametrize("without", ["", "tokenizer.json", "vocab.txt"])
def test_ids(transformers, student, tokenizer, tmp_path, without):
    made = export.export_hugging_face(student, tmp_path / "made", tokenizer)
    if without:
        (made.path / without).unlink()
    loaded = transformers.AutoTokenizer.from_pretrained(made.path)
    content = json.loads((GOLDEN / "ids_uncased.json").read_text("utf-8"))
    found = [loaded(text).input_ids for text in content["texts"]]
    assert found == content["ids"]
    assert loaded.model_max_length == 24
    assert "token_type_ids" not in loaded("a")
    assert loaded.mask_token_id == tokenizer.token_to_id("[MASK]")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"add_prefix_space": True, "trim_offsets": False},
        {"mask_token": "ing"},
    ],
)
def test_a_byte_level_tokenizer(settings, tmp_path, transformers):
    tokenizer = byte_level_tokenizer(tmp_path / "source", **settings)
    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=701,
        num_layers=1,
        num_heads=1,
        hidden_dim=4,
        intermediate_dim=4,
        max_sequence_length=64,
    )
    model = models.ExactDistilBertMaskedLM(backbone)
    folder = export.export_hugging_face(
        model, tmp_path / "made", tokenizer
    ).path
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__ == "RobertaTokenizer"
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    assert theirs.mask_token_id == special.mask_id
    assert theirs.pad_token_id == special.pad_id
    assert len(theirs) == 701
    for text in (*TEXTS, " it's  <mask> ing", ""):
        encoded = theirs(text, "b", return_offsets_mapping=True)
        ours = tokenizer.encode(text, "b")
        assert encoded["input_ids"] == ours.ids
        assert encoded["offset_mapping"] == ours.offsets


# === Pipelines ===


def logits_of(model, encoding):
    """The outputs for one text or pair."""
    inputs = {
        "token_ids": np.array([encoding.ids], "int32"),
        "padding_mask": np.ones((1, len(encoding.ids)), "int32"),
        "segment_ids": np.array([encoding.type_ids], "int32"),
    }
    inputs = {name: inputs[name] for name in model.backbone.input}
    return np.asarray(model(inputs, training=False))[0]


LABELS = ["bad", "good", "neither"]
TAGS = ["O", "B-X", "I-X", "B-Y", "I-Y"]


@pytest.mark.parametrize("name", ["student", "bert"])
@pytest.mark.parametrize(
    "kind", ["classification", "multi_label", "regression"]
)
def test_text_classification(
    transformers, name, kind, task_student, tokenizer, tmp_path, request
):
    labels = LABELS if kind != "regression" else ["score"]
    model = task_student(kind, len(labels), request.getfixturevalue(name))
    made = export.export_hugging_face(
        model, tmp_path / "made", tokenizer, labels=labels
    )
    classify = transformers.pipeline("text-classification", model=made.path)
    for text, pair in (("a naïve café", None), ("a b", "c d e")):
        given = text if pair is None else {"text": text, "text_pair": pair}
        found = classify(given, top_k=None)
        encoding = tokenizer.encode(text, pair)
        logits = logits_of(model, encoding)
        expected = {
            "classification": np.exp(logits) / np.exp(logits).sum(),
            "multi_label": 1 / (1 + np.exp(-logits)),
            "regression": logits,
        }[kind]
        scores = {each["label"]: each["score"] for each in found}
        assert set(scores) == set(labels)
        np.testing.assert_allclose(
            [scores[label] for label in labels], expected, atol=1e-4
        )


@pytest.mark.parametrize("name", ["student", "bert"])
def test_token_classification(
    transformers, name, task_student, tokenizer, tmp_path, request
):
    model = task_student(
        "token_classification", len(TAGS), request.getfixturevalue(name)
    )
    made = export.export_hugging_face(
        model, tmp_path / "made", tokenizer, labels=TAGS
    )
    tag = transformers.pipeline(
        "token-classification", model=made.path, aggregation_strategy="first"
    )
    count = 0
    for text in (*TEXTS, "cafes, a b c d e", "fine a-b (c) cafes"):
        encoding = tokenizer.encode(text)
        logits = logits_of(model, encoding)
        ours = answers.tag_entities(logits, encoding, text, TAGS)
        theirs = tag(text)
        assert [(x["entity_group"], x["start"], x["end"]) for x in theirs] == [
            (x.text, x.start, x.end) for x in ours
        ]
        np.testing.assert_allclose(
            [x["score"] for x in theirs], [x.score for x in ours], atol=1e-4
        )
        count += len(ours)
    assert count > 2


@pytest.mark.parametrize("name", ["student", "bert"])
def test_questions_with_contexts(
    transformers, name, task_student, tokenizer, tmp_path, request
):
    model = task_student("span", 1, request.getfixturevalue(name))
    made = export.export_hugging_face(model, tmp_path / "made", tokenizer)
    reader = transformers.AutoTokenizer.from_pretrained(made.path)
    encoded = reader("a b", "c d cafe e", return_tensors="pt")
    found = run(transformers, CLASSES["span"], made.path, encoded)
    encoding = tokenizer.encode("a b", "c d cafe e")
    assert encoded["input_ids"][0].tolist() == encoding.ids
    logits = logits_of(model, encoding)
    bound = export.TOLERANCES["hugging_face", "float32"].max_difference
    for column, theirs in enumerate((found.start_logits, found.end_logits)):
        np.testing.assert_allclose(
            theirs[0].numpy(), logits[:, column], atol=bound
        )
