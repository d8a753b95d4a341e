"""ONNX: a file that ONNX Runtime runs."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tokenizers

from keras_distil.export import parity
from keras_distil.export.embedding_note import embedding_note
from keras_distil.export.folders import replacing_folder
from keras_distil.export.report import ExportReport, size_mb
from keras_distil.export.student import Student, label_names, make_student
from keras_distil.export.vocabulary import check_vocabulary, write_vocabulary
from keras_distil.utils.extras import names_package

FORMAT = "onnx"
MODEL_FILE = "model.onnx"


def export_onnx(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
    sentence_embedding: bool = False,
    normalize: bool = False,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
) -> ExportReport:
    """Writes an ONNX model, and compares it in ONNX Runtime.

    The folder holds `model.onnx`, in float32, with the kind of the model and
    the labels in its metadata, and, with a tokenizer, `tokenizer.json` and
    `vocab.txt`. Batch and length are free. Inputs and outputs are those of
    `export_saved_model`'s signature of token ids.

    Needs the extra `onnx`.

    Args:
        model: a `keras_hub` BERT or DistilBERT, for masked language modelling
            or of `models.task_model`.
        folder: where it goes.
        tokenizer: the vocabulary's, as from `data.load_tokenizer`; None for a
            model that takes token ids alone.
        labels: names of the classes, in the order of the outputs. Defaults
            to the model's own, or `LABEL_0` and so on if it has none.
        overwrite: bool, whether an earlier export may be replaced.
        sentence_embedding: bool, whether the mean of the last hidden states
            is put out in place of what the head computes.
        normalize: bool, whether embeddings are scaled to length 1.
        held_out: what it is compared on: texts, or `parity.Examples`. Some
            lines of English if None.
        tolerance: how far it may be off. Defaults to that of `TOLERANCES`.

    Returns:
        An `ExportReport`, with the names of the operators.

    Raises:
        ImportError: if the extra is not installed.
        TypeError: if the model or the tokenizer is of another kind.
        ValueError: if the model or the labels are not possible.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if it does not compute what the student does.
    """
    _check_installed()
    from keras_distil.export import onnx_graph

    student = make_student(
        model, sentence_embedding=sentence_embedding, normalize=normalize
    )
    folder = Path(folder)
    tolerance = tolerance or parity.TOLERANCES[FORMAT, "float32"]
    if tokenizer is not None:
        check_vocabulary(student, tokenizer)
    names = label_names(student, labels)
    examples = parity.make_examples(student, tokenizer, held_out)
    with replacing_folder(
        folder, overwrite=overwrite, mark=MODEL_FILE
    ) as scratch:
        made = onnx_graph.outputs_model(student)
        note = embedding_note(student)
        metadata = {"kind": student.kind, "labels": json.dumps(names)}
        if note is not None:
            metadata["note"] = note
        for key, value in metadata.items():
            made.metadata_props.add(key=key, value=value)
        path = scratch / MODEL_FILE
        path.write_bytes(made.SerializeToString())
        if tokenizer is not None:
            write_vocabulary(tokenizer, scratch)
        comparison = parity.compare(student, examples, load_onnx(path))
        parity.check(
            comparison,
            tolerance,
            what=f"The ONNX model for {folder}",
            origin=lambda: _origin(student, examples, scratch, tolerance),
        )
        operators = sorted({node.op_type for node in made.graph.node})
        report = ExportReport(
            folder,
            FORMAT,
            "float32",
            comparison,
            tolerance,
            size_mb(path),
            tuple(operators),
            note=note,
        )
        report.write(scratch)
    return report


def load_onnx(path: Path, *, num_threads: int = 0) -> parity.Runner:
    """Opens a model in ONNX Runtime.

    Args:
        path: the file.
        num_threads: int, 0 for as many as there are cores.

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


def _check_installed() -> None:
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


def _origin(
    student: Student,
    examples: parity.Examples,
    folder: Path,
    tolerance: parity.Tolerance,
) -> str:
    """Converts the hidden states, too, and compares them."""
    from keras_distil.export import onnx_graph

    path = folder / "layers.onnx"
    made = onnx_graph.layers_model(student)
    path.write_bytes(made.SerializeToString())
    return parity.first_difference(
        student, examples, load_onnx(path), tolerance
    )
