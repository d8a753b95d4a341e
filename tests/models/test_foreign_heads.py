"""Folders with the head of another task, and folders of a task as teachers."""

import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from keras_distil import models

TASK_FOLDERS = Path(__file__).parents[1] / "export" / "golden"


def with_heads(names):
    """Adds weights of other heads to a checkpoint's."""

    def change(tensors):
        more = {
            f"{name}.{part}": np.ones((2, 16)[: 2 - i], "float32")
            for name in names
            for i, part in enumerate(("weight", "bias"))
        }
        return tensors | more

    return change


@pytest.mark.parametrize(
    "name, heads, shown",
    [
        ("golden_bert", ["classifier"], "classifier.*"),
        ("golden_bert", ["qa_outputs"], "qa_outputs.*"),
        (
            "golden_bert",
            ["classifier", "cls.seq_relationship"],
            "classifier.*, cls.seq_relationship.*",
        ),
        (
            "golden_distil_bert",
            ["pre_classifier", "classifier"],
            "classifier.*, pre_classifier.*",
        ),
    ],
)
def test_a_foreign_head_is_dropped_with_one_line(
    name, heads, shown, request, edit_checkpoint, caplog, all_logits
):
    golden = request.getfixturevalue(name)
    folder = edit_checkpoint(golden, tensors=with_heads(heads))
    with caplog.at_level(logging.INFO, "keras_distil"):
        teacher = models.load_teacher(folder)
    [message] = [m for m in caplog.messages if "another task's head" in m]
    assert f"its weights {shown} belong to another task's head" in message
    assert "\n" not in message
    inputs = {
        key: np.ones((1, 4), "int32")
        for key in teacher.backbone.input
        if key != "segment_ids"
    }
    if "segment_ids" in teacher.backbone.input:
        inputs["segment_ids"] = np.zeros((1, 4), "int32")
    np.testing.assert_array_equal(
        all_logits(teacher, inputs),
        all_logits(models.load_teacher(golden), inputs),
    )


@pytest.mark.parametrize(
    "name",
    [
        f"{stem}For{head}"
        for stem in ("Bert", "DistilBert")
        for head in (
            "SequenceClassification",
            "TokenClassification",
            "QuestionAnswering",
        )
    ],
)
def test_the_encoder_of_a_task_becomes_a_teacher(name, caplog):
    folder = TASK_FOLDERS / name
    with pytest.raises(ValueError, match="allow_new_head=True.*load_task_mod"):
        models.load_teacher(folder)
    teacher = models.load_teacher(folder, allow_new_head=True)
    [message] = [m for m in caplog.messages if "another task's head" in m]
    head = "qa_outputs.*" if "Question" in name else "classifier.*"
    assert head in message
    stored = load_file(folder / "model.safetensors")
    [words] = [v for k, v in stored.items() if "word_embeddings" in k]
    np.testing.assert_array_equal(
        teacher.backbone.token_embedding.embeddings.numpy(), words
    )
    # The other advice of the message.
    assert models.load_task_model(folder).backbone.num_layers == 1


def test_a_masked_lm_head_in_a_folder_of_a_task_is_dropped(
    golden_bert, edit_checkpoint, caplog
):
    more = {
        "bert.pooler.dense.weight": np.eye(16, dtype="float32"),
        "bert.pooler.dense.bias": np.zeros(16, "float32"),
        # An untied output layer, which nobody reads.
        "cls.predictions.decoder.weight": np.ones((64, 16), "float32"),
    }
    folder = edit_checkpoint(
        golden_bert,
        tensors=lambda tensors: with_heads(["classifier"])(tensors) | more,
        config={"architectures": ["BertForSequenceClassification"]},
    )
    model = models.load_task_model(folder)
    [message] = [m for m in caplog.messages if "another task's head" in m]
    assert "cls.predictions.*" in message and "classification model" in message
    np.testing.assert_array_equal(
        model.output_dense.kernel.numpy(), np.ones((16, 2))
    )


def test_weights_that_are_not_a_head_are_still_refused(
    golden_bert, edit_checkpoint
):
    folder = edit_checkpoint(golden_bert, tensors=with_heads(["adapter"]))
    with pytest.raises(ValueError, match="`adapter.*belongs to no layer"):
        models.load_teacher(folder)


def test_advice_for_a_folder_of_no_task_works(golden_bert):
    with pytest.raises(ValueError, match="`models.task_model`"):
        models.load_task_model(golden_bert)
    teacher = models.load_teacher(golden_bert, allow_new_head=True)
    assert models.task_model(teacher, "classification", 3).num_classes == 3
