"""The parts of a saved Distiller."""

from typing import Any

import keras

from keras_distil.losses import DistillationLoss
from keras_distil.teachers import StoredTeacher
from keras_distil.training.objectives import Teacher


def serialize_model(
    model: keras.Model | StoredTeacher | None,
) -> dict[str, Any] | None:
    """Returns the configuration of a teacher or a student."""
    if model is None:
        return None
    config = keras.saving.serialize_keras_object(model)
    # The Distiller trains the models, so how a KerasHub task compiles itself
    # does not matter (and loading that warns).
    config.pop("compile_config", None)
    return config


def serialize_teacher(teacher: Teacher) -> Any:
    """Returns the configuration of a teacher, or a list of several."""
    if isinstance(teacher, list):
        return [serialize_model(each) for each in teacher]
    return serialize_model(teacher)


def deserialize_teacher(config: Any) -> Any:
    """Creates the teacher or teachers that a configuration describes."""
    deserialize = keras.saving.deserialize_keras_object
    if isinstance(config, list):
        return [deserialize(each) for each in config]
    return deserialize(config)


def deserialize_loss(config: dict[str, Any]) -> DistillationLoss:
    """Creates the loss that its configuration describes.

    Raises:
        ValueError: if Keras does not know its class.
    """
    name = config["registered_name"]
    if keras.saving.get_registered_object(name) is None:
        short, module = config["class_name"], config["module"]
        # None for a class of the script itself.
        of_module = f" of the module {module!r}" if module else ""
        raise ValueError(
            f"The saved Distiller has a loss of the class `{short}`, which "
            "Keras does not know. Decorate the class with "
            "`@keras.saving.register_keras_serializable()` and import its "
            "module before loading, or give `load_model` "
            f"custom_objects={{{name!r}: {short}}}. "
            f"Received: {name!r}{of_module}."
        )
    return keras.saving.deserialize_keras_object(config)
