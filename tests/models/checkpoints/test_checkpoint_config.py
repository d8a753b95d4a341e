import json

import pytest

from keras_distil.models.checkpoints import read_config


def test_sizes_in_keras_words(golden_bert, golden_distil_bert):
    config = read_config(golden_bert)
    sizes = {
        "vocabulary_size": 64,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 16,
        "intermediate_dim": 32,
        "max_sequence_length": 12,
        "dropout": 0.1,
    }
    assert config.family.name == "bert"
    assert config.backbone == {**sizes, "num_segments": 2}
    config = read_config(golden_distil_bert)
    assert config.family.name == "distilbert"
    assert config.backbone == sizes


def test_settings_may_be_left_out(golden_bert, edit_checkpoint):
    directory = edit_checkpoint(
        golden_bert,
        config={"hidden_act": None, "hidden_dropout_prob": None},
    )
    assert read_config(directory) == read_config(golden_bert)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"model_type": "albert"},
            r"`model_type` .* one of \['bert', 'distilbert', 'roberta'\], the "
            "supported families. Received: 'albert'. docs/add_a_family.md",
        ),
        ({"model_type": None}, "`model_type` .* Received: None"),
        ({"hidden_act": "gelu_10"}, "`hidden_act` .*'gelu'.*'gelu_10'"),
        ({"hidden_act": ["relu"]}, r"`hidden_act` .*'gelu'.*\['relu'\]"),
        (
            {"position_embedding_type": "relative_key"},
            "`position_embedding_type` .*'absolute'.*'relative_key'",
        ),
        ({"layer_norm_eps": 0}, "`layer_norm_eps` .*between 0 and 1.*0"),
        ({"layer_norm_eps": "1e-5"}, "`layer_norm_eps` .*number.*'1e-5'"),
        ({"layer_norm_eps": True}, "`layer_norm_eps` .*number.*True"),
        ({"is_decoder": True}, "`is_decoder` .*False.*True"),
        ({"hidden_size": None}, "`hidden_size` .*positive integer.*None"),
        ({"vocab_size": 0}, "`vocab_size` .*positive integer.*0"),
        ({"num_hidden_layers": True}, "`num_hidden_layers` .*integer.*True"),
        ({"num_attention_heads": 3}, "width 16 is not divisible .*heads 3"),
    ],
)
def test_unsupported_settings(golden_bert, edit_checkpoint, settings, message):
    directory = edit_checkpoint(golden_bert, config=settings)
    with pytest.raises(ValueError, match=message):
        read_config(directory)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"activation": "relu2"}, "`activation` .*'gelu'.*'relu2'"),
        # Hugging Face's has no such setting and computes with 1e-12.
        ({"layer_norm_eps": 1e-5}, "`layer_norm_eps` .*1e-12.*1e-05"),
    ],
)
def test_unsupported_settings_of_distil_bert(
    golden_distil_bert, edit_checkpoint, setting, message
):
    directory = edit_checkpoint(golden_distil_bert, config=setting)
    with pytest.raises(ValueError, match=message):
        read_config(directory)


def test_settings_that_are_the_family_s_own_are_left_out(
    golden_bert, edit_checkpoint
):
    directory = edit_checkpoint(
        golden_bert, config={"hidden_act": "gelu", "layer_norm_eps": 1e-12}
    )
    assert read_config(directory) == read_config(golden_bert)


def test_missing_directory(tmp_path):
    with pytest.raises(ValueError, match="no directory .*absent"):
        read_config(tmp_path / "absent")


def test_missing_config(tmp_path):
    with pytest.raises(ValueError, match="has no `config.json`"):
        read_config(tmp_path)


def test_broken_config(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json` is not valid JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object.*list"):
        read_config(tmp_path)


@pytest.mark.parametrize("rate", [None, "0.1", -0.1, 1.0, True, float("nan")])
def test_a_dropout_must_be_a_rate(golden_bert, edit_checkpoint, rate):
    directory = edit_checkpoint(golden_bert)
    path = directory / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "hidden_dropout_prob": rate}))
    with pytest.raises(ValueError, match="number from 0 to below 1. Received"):
        read_config(directory)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000])
def test_json_of_any_kind_is_reported(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json` is not valid JSON"):
        read_config(tmp_path)
