"""The settings of outputs in `config.json` are read, or refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_distil import models
from keras_distil.models.checkpoints import HuggingFaceCheckpoint, read_config
from keras_distil.models.task_model import kind_of

GOLDEN = Path(__file__).parents[2] / "export" / "golden"


@pytest.fixture
def make_folder(tmp_path):
    """A golden folder with settings changed; None removes one."""

    def make(name="BertForSequenceClassification", **settings):
        config = json.loads((GOLDEN / name / "config.json").read_text())
        config = {**config, **settings}
        config = {k: v for k, v in config.items() if v is not None}
        (tmp_path / "config.json").write_text(json.dumps(config))
        weights = (GOLDEN / name / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(weights)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"is_decoder": True}, "`is_decoder` .*must be False.*True"),
        ({"add_cross_attention": True}, "`add_cross_attention` .*False.*True"),
        ({"is_encoder_decoder": True}, "`is_encoder_decoder` .*False.*True"),
        ({"pruned_heads": {"0": [1]}}, "`pruned_heads` .*must be {}.*0"),
        (
            {"quantization_config": {"load_in_8bit": True}},
            "`quantization_config` .*must be None.*load_in_8bit",
        ),
        ({"auto_map": {"AutoModel": "a.B"}}, "`auto_map` .*None.*AutoModel"),
        ({"hidden_act": 7}, "`hidden_act` .*'gelu'.*7"),
        ({"layer_norm_eps": 2}, "`layer_norm_eps` .*between 0 and 1.*2"),
        (
            {"position_embedding_type": "relative_key_query"},
            "`position_embedding_type` .*'absolute'.*'relative_key_query'",
        ),
        (
            {"architectures": ["RobertaForSequenceClassification"]},
            "`architectures` .*must name a class of 'bert'.*Received: 'Roberta",
        ),
        (
            {"architectures": ["BertGenerationEncoder"]},
            "`architectures` .*Received: 'BertGenerationEncoder'",
        ),
        ({"architectures": [3]}, "`architectures` .*Received: 3"),
        (
            {"problem_type": "multi_task"},
            "`problem_type` .*must be one of .*'multi_task'",
        ),
        ({"problem_type": ["regression"]}, r"`problem_type` .*\['regression'"),
        ({"id2label": {"0": "a", "2": "b"}}, "`id2label` .*without gaps"),
        ({"id2label": {"0": "a", "1": "a"}}, "`id2label` .*different name"),
        ({"id2label": {"0": 1}}, "`id2label` .*different name"),
        ({"id2label": ["a", "b"]}, "`id2label` .*different name"),
        ({"label2id": {"a": 0, "b": 0}}, "`label2id` .*different name"),
        ({"label2id": {"a": [], "b": 0}}, "`label2id` .*different name"),
        (
            {
                "id2label": {"0": "a", "1": "b", "2": "c"},
                "label2id": {"b": 0, "a": 1, "c": 2},
            },
            r"contradict each other: \['a', 'b', 'c'\] and \['b', 'a', 'c'\]",
        ),
        (
            {"num_labels": 2, "id2label": {"0": "a", "1": "b", "2": "c"}},
            "`num_labels` .* is 2, but `id2label` names 3",
        ),
        ({"num_labels": True}, "`num_labels` .*positive integer.*True"),
    ],
)
def test_unsupported_settings_are_refused_by_name(
    make_folder, settings, message
):
    folder = make_folder(**settings)
    with pytest.raises(ValueError, match=message) as raised:
        models.load_task_model(folder)
    assert str(folder / "config.json") in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"torch_dtype": "float16"},
        {"dtype": "bfloat16"},
        {"chunk_size_feed_forward": 4},
        {"use_cache": False},
        {"gradient_checkpointing": True},
        {"finetuning_task": "mnli"},
        {"pruned_heads": {}},
        {"is_decoder": False, "add_cross_attention": False},
        {"transformers_version": "9.9", "unheard_of": 3},
        {"attention_probs_dropout_prob": 0.3, "initializer_range": 1.0},
    ],
)
def test_settings_without_effect_are_let_through(make_folder, settings):
    folder = make_folder(**settings)
    assert read_config(folder).backbone["num_layers"] >= 1


def test_positions_of_sines_are_those_stored(make_folder):
    folder = make_folder(
        "DistilBertForSequenceClassification", sinusoidal_pos_embds=True
    )
    model = models.load_task_model(folder)
    stored = load_file(folder / "model.safetensors")
    table = model.backbone.embeddings.position_embedding.position_embeddings
    np.testing.assert_array_equal(
        table, stored["distilbert.embeddings.position_embeddings.weight"]
    )


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"id2label": None, "label2id": None}, None),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, None),
        (
            {"id2label": {"2": "c", "0": "a", "1": "b"}, "label2id": None},
            ("a", "b", "c"),
        ),
        (
            {"id2label": None, "label2id": {"b": 1, "a": "0", "c": 2}},
            ("a", "b", "c"),
        ),
        # One of the two is still the default.
        (
            {
                "id2label": {"0": "a", "1": "b", "2": "c"},
                "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
            },
            ("a", "b", "c"),
        ),
    ],
)
def test_names_of_classes(make_folder, settings, labels):
    assert read_config(make_folder(**settings)).head.labels == labels


def test_other_labels_than_outputs(make_folder):
    two = {"id2label": {"0": "a", "1": "b"}, "label2id": None}
    checkpoint = HuggingFaceCheckpoint(make_folder(**two))
    rows = load_file(checkpoint.directory / "model.safetensors")[
        "classifier.bias"
    ]
    with pytest.raises(
        ValueError, match=f"has 2 labels, but .* have {len(rows)} outputs"
    ):
        _ = checkpoint.num_outputs


def one_output(folder):
    """Leaves one output in a golden folder."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][:1]
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


NO_LABELS = {"id2label": None, "label2id": None}


def test_one_output_is_a_score_or_a_probability(make_folder):
    folder = one_output(make_folder(problem_type="regression", **NO_LABELS))
    model = models.load_task_model(folder)
    assert models.task_model(model, "regression").num_classes == 1
    assert model.is_probability is False
    folder = one_output(make_folder(problem_type=None, **NO_LABELS))
    assert models.load_task_model(folder).is_probability is True
    folder = one_output(
        make_folder(problem_type="single_label_classification", **NO_LABELS)
    )
    with pytest.raises(ValueError, match="not supported for 1 output[.]"):
        models.load_task_model(folder)


def test_several_labels_are_a_kind(make_folder):
    folder = make_folder(problem_type="multi_label_classification")
    model = models.load_task_model(folder)
    assert kind_of(model) == "multi_label" and model.num_classes == 3
    folder = one_output(folder)
    with pytest.raises(ValueError, match="3 labels, but the classifier"):
        models.load_task_model(folder)


def test_a_regression_of_several_outputs_is_refused(make_folder):
    folder = make_folder(problem_type="regression")
    with pytest.raises(ValueError, match="'regression', which is not supp"):
        models.load_task_model(folder)


@pytest.mark.parametrize(
    ("name", "settings", "rate"),
    [
        ("BertForSequenceClassification", {"classifier_dropout": 0.3}, 0.3),
        ("BertForSequenceClassification", {"hidden_dropout_prob": 0.4}, 0.4),
        ("BertForTokenClassification", {"classifier_dropout": 0.3}, 0.3),
        ("BertForQuestionAnswering", {}, 0.0),
        ("DistilBertForSequenceClassification", {}, 0.2),
        (
            "DistilBertForSequenceClassification",
            {"seq_classif_dropout": 0.3},
            0.3,
        ),
        ("DistilBertForQuestionAnswering", {"qa_dropout": 0.3}, 0.3),
    ],
)
def test_dropout_before_the_output(make_folder, name, settings, rate):
    plain = {"classifier_dropout": None, "seq_classif_dropout": None}
    plain["qa_dropout"] = None
    model = models.load_task_model(make_folder(name, **{**plain, **settings}))
    assert model.dropout == rate


def test_a_classifier_without_its_pooler_is_refused(make_folder):
    folder = make_folder()
    path = folder / "model.safetensors"
    kept = {k: v for k, v in load_file(path).items() if ".pooler." not in k}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks the tensor `bert.pooler"):
        models.load_task_model(folder)


def test_an_adapter_in_the_folder_is_refused(make_folder):
    folder = make_folder()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="adapter_config.json` adds an adap"):
        models.load_task_model(folder)


def test_an_untied_output_layer_may_not_be_missing(
    golden_bert, edit_checkpoint
):
    directory = edit_checkpoint(
        golden_bert,
        tensors=lambda tensors: {
            k: v for k, v in tensors.items() if "decoder" not in k
        },
    )
    models.load_teacher(directory)
    path = directory / "config.json"
    settings = json.loads(path.read_text()) | {"tie_word_embeddings": False}
    path.write_text(json.dumps(settings))
    with pytest.raises(
        ValueError, match="lacks .*`tie_word_embeddings` is fal"
    ):
        models.load_teacher(directory)
