"""Exports of any Keras model to SavedModel and LiteRT.

The steps, the folder and the report are those of every export. Inputs and
outputs have no fixed meaning, so examples must be given, and outputs are
compared by their spread.
"""

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_hub.models import MaskedLM

from keras_distil import edge
from keras_distil.export import parity
from keras_distil.export.base_exporter import BaseExporter
from keras_distil.export.distance import Distance
from keras_distil.export.litert import conversion, converter
from keras_distil.export.report import ExportReport
from keras_distil.export.signatures import (
    SERVING_DEFAULT,
    load_signatures,
    write_module,
)
from keras_distil.models import last_layers
from keras_distil.models.any_model import ModelPass, check_built, input_spec
from keras_distil.models.embedding_model import is_embedder
from keras_distil.models.task_model import kind_of
from keras_distil.models.weights import check_all_not_quantized
from keras_distil.training.distiller import Distiller
from keras_distil.utils import private_api, quiet

Arrays = dict[str, np.ndarray]

PRECISIONS = ("float32", "float16", "dynamic_int8")
_OUTPUT = "output"
# Compared at a time.
_BATCH = 32


def is_any_model(model: Any) -> bool:
    """Checks whether a built model is one that no family here knows."""
    return (
        isinstance(model, keras.Model)
        and model.built
        and not isinstance(model, Distiller | MaskedLM)
        and kind_of(model) is None
        and not is_embedder(model)
    )


@dataclasses.dataclass(frozen=True)
class AnyStudent:
    """Any Keras model to export, in float32.

    Attributes:
        model: the model, with one output.
        examples: examples of its inputs, as the model takes them.
    """

    model: keras.Model
    examples: Any

    @property
    def inputs(self) -> Arrays:
        """The examples by the names of the signature's inputs."""
        if isinstance(self.examples, dict):
            return dict(self.examples)
        if isinstance(self.examples, list | tuple):
            return {f"input_{i}": x for i, x in enumerate(self.examples)}
        return {"input": self.examples}

    def specs(self, batch: int | None) -> list[tf.TensorSpec]:
        """Returns the inputs' specs; free sizes only for a free batch."""
        shapes = [x.shape[1:] for x in self.inputs.values()]
        if batch is None and private_api.is_functional(self.model):
            own = keras.tree.flatten(input_spec(self.model))
            shapes = [tuple(x.shape[1:]) for x in own]
        return [
            tf.TensorSpec([batch, *shape], tf.as_dtype(x.dtype), name)
            for (name, x), shape in zip(
                self.inputs.items(), shapes, strict=True
            )
        ]

    def run(self, *tensors: Any) -> dict[str, Any]:
        """Returns the output by name, from the inputs in order."""
        inputs: Any = tensors[0]
        if isinstance(self.examples, dict):
            inputs = dict(zip(self.examples, tensors, strict=True))
        elif isinstance(self.examples, list | tuple):
            inputs = list(tensors)
        # Its errors are clearer than the model's.
        model = ModelPass(self.model, "model", ())
        return {_OUTPUT: model.call(inputs, training=False)}


def make_student(model: keras.Model, held_out: Any) -> AnyStudent:
    """Checks a model and examples of its inputs.

    Raises:
        TypeError: if `held_out` is missing, or holds anything but arrays.
        ValueError: if the model is not built, has several outputs, was
            quantised by Keras, is not in float32, or does not take the
            examples.
    """
    check_built(model, "model")
    check_all_not_quantized(model)
    for layer in private_api.flatten_layers(model):
        if layer.weights and layer.compute_dtype != "float32":
            raise ValueError(
                "Only a model in float32 can be exported. Build it again with "
                "that dtype and take over the weights, by `set_weights`. "
                f"Received: {model.name!r} with the layer {layer.name!r} of "
                f"compute dtype {layer.compute_dtype}."
            )
    if held_out is None or isinstance(held_out, str | parity.Examples):
        raise TypeError(
            f"`held_out` must hold examples of the inputs of {model.name!r}, "
            "as it takes them: an array, or a list or dict of arrays. The "
            "export is compared on them. Received: held_out of type "
            f"{type(held_out).__name__}."
        )
    examples = keras.tree.map_structure(np.asarray, held_out)
    arrays = keras.tree.flatten(examples)
    counts = {len(x) if x.ndim else 0 for x in arrays}
    if not arrays or len(counts) != 1 or counts == {0}:
        raise ValueError(
            "`held_out` must hold arrays of one number of examples, at least "
            f"1. Received: shapes {[x.shape for x in arrays]}."
        )
    if private_api.is_functional(model):
        expected = keras.tree.flatten(input_spec(model))
        if len(expected) != len(arrays):
            raise ValueError(
                f"`held_out` must hold the {len(expected)} inputs of "
                f"{model.name!r}. Received: {len(arrays)}."
            )
        # The model would convert them, and the export has one type.
        cast = [
            x.astype(spec.dtype)
            for x, spec in zip(arrays, expected, strict=True)
        ]
        examples = keras.tree.pack_sequence_as(examples, cast)
    student = AnyStudent(model, examples)
    _check_output(student)
    return student


def _check_output(student: AnyStudent) -> None:
    one = [x[:1] for x in student.inputs.values()]
    output = student.run(*map(tf.constant, one))[_OUTPUT]
    if not tf.is_tensor(output) or not output.dtype.is_floating:
        raise ValueError(
            "Only a model with one output, a float tensor, can be exported. "
            "Make a `keras.Model` of one of its outputs. Received: "
            f"{student.model.name!r}."
        )


class _AnyExporter(BaseExporter):
    """An exporter of any Keras model.

    Args:
        student: the model with its examples.
        folder: the final folder.
        precision: precision of the written weights.
    """

    def __init__(
        self, student: AnyStudent, folder: Path, precision: str = "float32"
    ) -> None:
        super().__init__(folder)
        self.student = student
        self.precision = precision
        # Whether the largest output is a choice, as far as the model tells.
        layer = last_layers.last_layer(student.model)
        self.chooses = (
            isinstance(layer, keras.layers.Softmax)
            or getattr(layer, "activation", None) is keras.activations.softmax
        )

    def compare_on(
        self, examples: Any, artifact: parity.Runner
    ) -> parity.Comparison:
        """Compares the outputs for all examples."""
        inputs = self.student.inputs
        count = len(next(iter(inputs.values())))
        distance, agreed = Distance(), 0
        for start in range(0, count, _BATCH):
            part = {k: v[start : start + _BATCH] for k, v in inputs.items()}
            ours = self.student.run(*map(tf.constant, part.values()))
            mine = _rows(np.asarray(ours[_OUTPUT]))
            if not np.isfinite(mine).all():
                raise ValueError(
                    "The model's own outputs for `held_out` are not finite: it "
                    "cannot be exported. Received: "
                    f"{self.student.model.name!r}."
                )
            theirs = _rows(np.asarray(artifact(part)[_OUTPUT]))
            distance.add(mine, theirs)
            agreed += int((mine.argmax(-1) == theirs.argmax(-1)).sum())
        return parity.Comparison(
            distance.largest,
            distance.total / max(distance.values, 1),
            agreed / count if self.chooses else None,
            count if self.chooses else 0,
            spread_share=distance.spread_share,
            are_logits=False,
        )

    def make_examples(self, held_out: Any) -> Any:
        """Returns the student's examples."""
        return self.student.examples

    def find_origin(
        self, scratch: Path, examples: Any, bound: parity.Tolerance
    ) -> str:
        """Says that layers of any model are not compared."""
        return "The layers of such a model are not compared."

    def write_module(self, folder: Path, batch: int | None) -> None:
        """Writes a SavedModel with one signature."""
        signature = self.student.run, self.student.specs(batch)
        write_module(
            self.student.model.variables, {SERVING_DEFAULT: signature}, folder
        )


def _rows(output: np.ndarray) -> np.ndarray:
    return output.reshape(len(output), -1).astype("float32")


class AnySavedModelExporter(_AnyExporter):
    """Writes SavedModels of any Keras model."""

    format = "saved_model"
    title = "The SavedModel"
    mark = "saved_model.pb"

    def write(self, scratch: Path) -> None:
        """Writes the signature "serving_default"."""
        self.write_module(scratch, None)

    def read_back(self, scratch: Path) -> parity.Runner:
        """Loads the signature with TensorFlow alone."""
        return load_signatures(scratch)[SERVING_DEFAULT]


class AnyLiteRTExporter(_AnyExporter):
    """Writes LiteRT models of any Keras model, one example per call."""

    format = "litert"
    title = "The LiteRT model"
    mark = edge.MODEL_FILE

    @property
    def what(self) -> str:
        """The name of this export in messages."""
        return f"{super().what} in {self.precision}"

    def write(self, scratch: Path) -> None:
        """Converts in a separate process, by TensorFlow's converter."""
        with tempfile.TemporaryDirectory(dir=scratch) as temporary:
            source = Path(temporary)
            self.write_module(source / "saved_model", 1)
            spec = source / "conversion.json"
            wanted = converter.Conversion(
                saved_model=str(source / "saved_model"),
                signatures=[SERVING_DEFAULT],
                precision=self.precision,
                target=str(scratch / edge.MODEL_FILE),
                by_tensorflow=True,
            )
            spec.write_text(json.dumps(dataclasses.asdict(wanted)), "utf-8")
            self.operators = conversion.run_converter(spec, self.folder)

    def read_back(self, scratch: Path) -> parity.Runner:
        """Loads the file by the interpreter."""
        from ai_edge_litert.interpreter import Interpreter

        with quiet.held_back_stderr():
            interpreter = Interpreter(str(scratch / edge.MODEL_FILE))
            run = interpreter.get_signature_runner(SERVING_DEFAULT)

        def run_all(inputs: Arrays) -> Mapping[str, Any]:
            count = len(next(iter(inputs.values())))
            outputs = [
                run(**{name: x[i : i + 1] for name, x in inputs.items()})
                for i in range(count)
            ]
            return {_OUTPUT: np.concatenate([x[_OUTPUT] for x in outputs])}

        return run_all

    def shipped(self, scratch: Path) -> Path:
        """Returns the model's file."""
        return scratch / edge.MODEL_FILE


_EXPORTERS = {"saved_model": AnySavedModelExporter, "litert": AnyLiteRTExporter}


def export_any_model(
    format: str,
    model: keras.Model,
    folder: Path,
    tokenizer: Any,
    *,
    overwrite: bool,
    held_out: Any,
    tolerance: parity.Tolerance | None,
    options: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> ExportReport:
    """Exports any Keras model.

    Args:
        format: name of the format.
        model: the model.
        folder: the output folder.
        tokenizer: must be None.
        overwrite: whether an earlier export may be replaced.
        held_out: examples of the model's inputs.
        tolerance: largest allowed difference; None for the format's own.
        options: options of the export. Only `precision` means something for
            any model: one of `PRECISIONS`, for LiteRT.
        defaults: the options' defaults.

    Raises:
        TypeError: as `make_student`.
        ValueError: if the format or an option is for encoders of text only,
            or as `make_student`.
    """
    if format not in _EXPORTERS:
        raise ValueError(
            f"format={format!r} is for encoders of text. Other Keras models "
            f"are exported as {' or '.join(_EXPORTERS)}. Received: "
            f"{model.name!r} (of type {type(model).__name__})."
        )
    given = {"tokenizer": tokenizer, **options}
    wrong = [
        name
        for name, value in given.items()
        if name != "precision" and value != defaults.get(name)
    ]
    if wrong:
        raise ValueError(
            f"`{wrong[0]}` is for encoders of text. Leave it out. Received: "
            f"{model.name!r} (of type {type(model).__name__})."
        )
    precision = options.get("precision", "float32")
    _check_precision(precision)
    exporter = _EXPORTERS[format](
        make_student(model, held_out), folder, precision
    )
    return exporter.export(
        overwrite=overwrite, held_out=held_out, tolerance=tolerance
    )


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        known: Sequence[str] = PRECISIONS
        raise ValueError(
            f"`precision` must be one of {', '.join(known)} for a model that "
            f"is not an encoder of text. Received: precision={precision!r}."
        )
