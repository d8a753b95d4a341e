"""Writes functions as the signatures of a SavedModel, and loads them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_distil.export import parity

# A signature: a function and the specs of its inputs.
Signature = tuple[Callable[..., dict[str, Any]], list[tf.TensorSpec]]

SERVING_DEFAULT = "serving_default"


def write_module(
    weights: Sequence[keras.Variable],
    signatures: Mapping[str, Signature],
    folder: Path,
    *,
    default: str | None = None,
    variables: Sequence[tf.Variable] = (),
    tokenizer: tf.Module | None = None,
) -> None:
    """Writes functions of a model's variables as a SavedModel's signatures.

    Args:
        weights: the model's variables.
        signatures: the signatures by name.
        folder: the output folder.
        default: name of the signature that is "serving_default" as well.
        variables: further variables that the functions read.
        tokenizer: the tokenizer that the functions read texts with.
    """
    # Keras's `ExportArchive` would trace every function once more, and write
    # tracked variables twice.
    module = tf.Module()
    # Keras's variables wrap TensorFlow's, and only those are written.
    module.weights = [variable.value for variable in weights]
    module.variables_of_others = list(variables)
    module.tokenizer = tokenizer
    functions = {
        name: tf.function(function, autograph=False, input_signature=specs)
        for name, (function, specs) in signatures.items()
    }
    if default is not None:
        functions[SERVING_DEFAULT] = functions[default]
    tf.saved_model.save(module, folder, signatures=functions)


def load_signatures(folder: Path) -> dict[str, parity.Runner]:
    """Loads the signatures with TensorFlow alone."""
    loaded = tf.saved_model.load(folder)

    def runner(name: str) -> parity.Runner:
        function = loaded.signatures[name]
        return lambda inputs: function(
            **{key: tf.constant(value) for key, value in inputs.items()}
        )

    return {name: runner(name) for name in loaded.signatures}
