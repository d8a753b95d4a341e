"""Exports to ONNX, for ONNX Runtime."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tokenizers

from keras_distil.export import parity
from keras_distil.export.export_as import export_as
from keras_distil.export.exporter import Exporter
from keras_distil.export.report import ExportReport
from keras_distil.export.student import Student, label_names
from keras_distil.export.vocabulary import write_vocabulary
from keras_distil.utils.extras import names_package

MODEL_FILE = "model.onnx"


def export_onnx(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
) -> ExportReport:
    """Writes an ONNX model, and compares it with the student in ONNX Runtime.

    The folder holds `model.onnx`, in float32, with the model's kind and
    labels in its metadata, and, given a tokenizer, `tokenizer.json` and
    `vocab.txt`. Batch size and length are free. Inputs and outputs are those
    of the signature `token_ids` of `export_saved_model`.

    Needs the extra `onnx`.

    Args:
        model: a `keras_hub` masked-LM model of a supported family, or a model
            of `models.task_model`.
        folder: the output folder.
        tokenizer: the student's, as from `data.load_tokenizer`. Defaults to
            that of the folder which the model, or its teacher, was loaded
            from; without one, only token ids are taken.
        labels: names of the classes, in the order of the outputs. Defaults
            to the model's own, or `LABEL_0` and so on if it has none.
        overwrite: bool, whether an earlier export may be replaced.
        held_out: texts or `parity.Examples` for the comparison with the
            student. Some English sentences if None.
        tolerance: largest allowed difference. Defaults to that of
            `TOLERANCES`.

    Returns:
        An `ExportReport`, with the names of the operators.

    Raises:
        ImportError: if the extra is not installed.
        TypeError: if the model or the tokenizer is of the wrong kind.
        ValueError: if the model or the labels are invalid.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if its outputs differ from the student's.
    """
    return export_as(
        OnnxExporter,
        model,
        folder,
        tokenizer,
        labels=labels,
        overwrite=overwrite,
        held_out=held_out,
        tolerance=tolerance,
    )


class OnnxExporter(Exporter):
    """Writes ONNX models; see `export_onnx`.

    Args:
        student: the model to export.
        tokenizer: its tokenizer, or None.
        folder: the final folder of the export.
        labels: names of the classes; None for the model's own.
    """

    format = "onnx"
    title = "The ONNX model"
    mark = MODEL_FILE

    def __init__(
        self,
        student: Student,
        tokenizer: tokenizers.Tokenizer | None,
        folder: Path,
        *,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(student, tokenizer, folder)
        self.labels = label_names(student, labels)

    @classmethod
    def check_installed(cls) -> None:
        """Raises ImportError if the extra `onnx` is not installed."""
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
        except ImportError as error:
            if not names_package(error, "onnx", "onnxruntime"):
                raise
            raise ImportError(
                "Exporting to ONNX needs the extra `onnx`. Install it with: "
                "pip install 'keras-distil[onnx]'."
            ) from error

    def write(self, scratch: Path) -> None:
        """Writes the model, and the vocabulary beside it."""
        from keras_distil.export import onnx_graph

        model = onnx_graph.outputs_model(self.student)
        metadata = {
            "kind": self.student.kind,
            "labels": json.dumps(self.labels),
            "is_probability": json.dumps(self.student.is_probability),
        }
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=value)
        (scratch / MODEL_FILE).write_bytes(model.SerializeToString())
        self.operators = sorted({node.op_type for node in model.graph.node})
        if self.tokenizer is not None:
            write_vocabulary(self.tokenizer, scratch)

    def read_back(self, scratch: Path) -> parity.Runner:
        """Opens the model in ONNX Runtime."""
        return load_onnx(scratch / MODEL_FILE)

    def read_layers(self, scratch: Path) -> parity.Runner:
        """Converts the hidden states as well."""
        from keras_distil.export import onnx_graph

        path = scratch / "layers.onnx"
        model = onnx_graph.layers_model(self.student)
        path.write_bytes(model.SerializeToString())
        return load_onnx(path)

    def shipped(self, scratch: Path) -> Path:
        """Returns the model's file."""
        return scratch / MODEL_FILE


def load_onnx(path: Path, *, num_threads: int = 0) -> parity.Runner:
    """Opens a model in ONNX Runtime.

    Args:
        path: the file.
        num_threads: int, 0 for one per core.

    Returns:
        A function from inputs to outputs by name.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, dict(inputs)), strict=True))

    return run
