"""A saved Distiller with a loss of one's own."""

import keras
import pytest
from toy import make_student, make_teacher

from keras_distil import Distiller, losses


class Unregistered(losses.LogitsLoss):
    """A loss whose class was not decorated."""

    reads = frozenset({"student_logits"})

    def __init__(self, weight=1.0, name="own"):
        super().__init__(weight=weight, name=name)

    def token_values(self, *, student_logits):
        return keras.ops.mean(student_logits**2, axis=-1)


def save(path, loss):
    teacher = make_teacher()
    Distiller(teacher, make_student(teacher), [loss]).save(path)


def test_an_unknown_loss_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "distiller.keras"
    save(path, Unregistered())
    name = Unregistered.__name__
    with pytest.raises(
        ValueError,
        match=rf"a loss of the class `{name}`, .* Decorate the class with "
        r"`@keras.saving.register_keras_serializable\(\)` and import its "
        rf"module before loading, or .* custom_objects={{'{name}': {name}}}\. "
        rf"Received: '{name}' of the module '{__name__}'\.$",
    ) as caught:
        keras.models.load_model(path)
    assert "\n" not in str(caught.value)
    loaded = keras.models.load_model(path, custom_objects={name: Unregistered})
    assert type(loaded.get_loss("own")) is Unregistered


def test_a_decorated_loss_that_was_not_imported_is_named(tmp_path):
    registered = keras.saving.register_keras_serializable(package="own")
    kind = registered(type("Forgotten", (Unregistered,), {}))
    path = tmp_path / "distiller.keras"
    save(path, kind())
    keras.saving.get_custom_objects().pop("own>Forgotten")
    with pytest.raises(
        ValueError, match=r"custom_objects={'own>Forgotten': Forgotten}"
    ):
        keras.models.load_model(path)
    loaded = keras.models.load_model(
        path, custom_objects={"own>Forgotten": kind}
    )
    assert type(loaded.get_loss("own")) is kind


def test_losses_of_the_package_need_nothing(tmp_path):
    path = tmp_path / "distiller.keras"
    save(path, losses.MaskedLMCrossentropy())
    loaded = keras.models.load_model(path)
    assert type(loaded.get_loss("mlm")) is losses.MaskedLMCrossentropy
