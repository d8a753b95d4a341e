"""The settings of losses in recipes."""

from keras_distil.losses.settings import (
    AttentionRelationSettings,
    SoftTargetSettings,
)


def test_layers_of_attention_need_the_teacher_itself():
    settings = AttentionRelationSettings
    assert settings().needs_live_teacher is None
    assert settings(layers=[[1, 0]]).needs_live_teacher == "layers"


def test_a_confidence_needs_the_teacher_itself():
    settings = SoftTargetSettings
    assert settings().needs_live_teacher is None
    needed = settings(confidence_slope=0.1).needs_live_teacher
    assert needed == "confidence_slope"
