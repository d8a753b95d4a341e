"""Presets of other families, recognised without a network."""

import keras
import keras_hub
import pytest

from keras_distil import models
from keras_distil.models import presets
from keras_distil.models.architectures import FAMILIES


@pytest.fixture(autouse=True)
def nothing_is_downloaded(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr(keras_hub.models.MaskedLM, "from_preset", fail)


@pytest.mark.parametrize(
    "source, family",
    [
        ("gpt2_base_en", "GPT2"),
        ("xlm_roberta_base_multi", "XLMRoberta"),
        ("albert_base_en_uncased", "Albert"),
        ("electra_small_discriminator_uncased_en", "Electra"),
        ("kaggle://keras/albert/keras/albert_base_en_uncased", "Albert"),
        ("kaggle://keras/albert/keras/albert_base_en_uncased/3", "Albert"),
        ("hf://keras/albert_base_en_uncased", "Albert"),
    ],
)
def test_another_family_is_named(source, family):
    message = f"`{source}` is a KerasHub preset of {family}, a family that is "
    with pytest.raises(ValueError, match=message) as refused:
        models.load_teacher(source)
    assert "Did you mean" not in str(refused.value)


def test_the_families_that_the_message_names_are_known():
    with pytest.raises(ValueError) as refused:
        models.load_teacher("albert_base_en_uncased")
    assert "docs/add_a_family.md" in str(refused.value)
    names = [family.example_preset for family in FAMILIES.values()]
    assert "roberta_base_en" in names
    for name in names:
        assert f"'{name}'" in str(refused.value)
        assert name in presets.known_presets()


@pytest.mark.parametrize(
    "name, guess",
    [
        ("bert_base_en_uncase", "bert_base_en_uncased"),
        ("distil_bert_base", "distil_bert_base_en"),
        ("roberta_base_e", "roberta_base_en"),
        # The nearest belongs to a family that is not supported.
        ("albert_base_en_uncase", None),
        ("/no/such/path", None),
    ],
)
def test_a_guess_is_always_one_that_loads(name, guess):
    found = presets.nearest_preset(name)
    if guess is None:
        assert found == ""
    else:
        assert found == f" Did you mean {guess!r}?"
        presets.check_family(guess)


def test_a_local_preset_of_another_family(tmp_path):
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.ElectraBackbone(
        vocab_size=12,
        num_layers=1,
        num_heads=1,
        hidden_dim=4,
        embedding_dim=4,
        intermediate_dim=4,
        max_sequence_length=8,
    )
    backbone.save_to_preset(str(tmp_path / "preset"))
    for load in (models.load_teacher, models.load_task_model):
        with pytest.raises(ValueError, match="KerasHub preset of Electra, a f"):
            load(tmp_path / "preset")
