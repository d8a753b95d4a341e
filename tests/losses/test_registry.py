"""The table of losses that recipes name."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_distil import losses
from keras_distil.losses import registry
from keras_distil.losses.settings import (
    LossSettings,
    MaskedLMSoftTargetSettings,
    SoftTargetSettings,
)

ROOT = Path(__file__).parents[2]


def made(settings, kind):
    return [
        (loss.name, type(loss).__name__, float(loss.weight))
        for loss in losses.make_losses(settings, kind)
    ]


def test_it_needs_no_tensorflow():
    code = (
        "import sys, keras_distil.losses.registry as registry;"
        "registry.rows_for(registry.KINDS);"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("row", registry.ROWS, ids=str)
def test_every_loss_can_be_made_and_is_named_as_in_the_table(row):
    for kind in row.kinds:
        (loss,) = losses.make_losses({row.name: row.settings()}, kind)
        assert loss.name == row.name
        assert type(loss) is getattr(losses, row.class_name)
        settings = row.settings
        on_layers = settings.is_on_states or settings.is_on_attention
        assert settings.is_on_vectors == isinstance(loss, losses.VectorLoss)
        assert loss.is_on_logits != (on_layers or settings.is_on_vectors)
        config = loss.get_config()
        # The defaults of a recipe are those of the class.
        # The first teacher is not written down.
        config.setdefault("teacher", 0)
        assert row.settings().model_dump() == {
            key: value
            for key, value in config.items()
            if key in row.settings.model_fields
        }


@pytest.mark.parametrize("row", registry.ROWS, ids=str)
def test_what_may_be_scheduled_is_a_variable(row):
    loss = losses.make_losses({row.name: row.settings()}, row.kinds[0])[0]
    assert "weight" in row.settings.scheduled
    for name in row.settings.scheduled:
        assert isinstance(getattr(loss, name), keras.Variable)


def test_losses_come_in_the_order_of_the_table():
    settings = {
        "cosine": LossSettings(weight=0.5),
        "mlm": LossSettings(),
    }
    assert made(settings, "masked_lm") == [
        ("mlm", "MaskedLMCrossentropy", 1.0),
        ("cosine", "HiddenStateCosineDistance", 0.5),
    ]


def test_settings_reach_the_loss():
    settings = MaskedLMSoftTargetSettings(
        weight=3.0, temperature=4.0, confidence_slope=0.5, positions="masked"
    )
    (loss,) = losses.make_losses({"soft_target": settings}, "masked_lm")
    config = loss.get_config()
    assert settings.model_dump().items() <= config.items()


def test_a_regression_has_no_temperature():
    settings = SoftTargetSettings(weight=3.0, temperature=4.0)
    assert made({"soft_target": settings}, "regression") == [
        ("soft_target", "SoftTargetSquaredError", 3.0)
    ]


def test_a_loss_for_other_tasks_is_refused():
    with pytest.raises(
        ValueError,
        match="The loss 'mlm' is not for span tasks. Losses for them: label, ",
    ):
        losses.make_losses({"mlm": LossSettings()}, "span")


def test_who_reads_hidden_states():
    assert registry.read_hidden_states(["mlm", "cosine"], "masked_lm")
    assert not registry.read_hidden_states(["mlm", "soft_target"], "masked_lm")


def test_who_reads_attention():
    assert registry.read_attention(["mlm", "attention_relation"], "masked_lm")
    assert not registry.read_attention(["label", "cosine"], "span")
    assert not registry.read_hidden_states(["attention_relation"], "span")


@pytest.mark.slow
def test_keras_finds_the_classes_of_a_saved_model():
    """Whichever loss the model has, and though none has been used."""
    config = keras.saving.serialize_keras_object(
        losses.HiddenStateCosineDistance(weight=0.5)
    )
    code = (
        "import keras, keras_distil; keras_distil.Distiller;"
        f"keras.saving.deserialize_keras_object({config!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
