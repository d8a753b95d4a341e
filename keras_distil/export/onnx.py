"""ONNX: a file that ONNX Runtime runs."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tokenizers

from keras_distil.export import parity, plain_graph
from keras_distil.export.folders import replacing_folder
from keras_distil.export.report import ExportReport, size_mb
from keras_distil.export.student import Student, label_names, make_student
from keras_distil.export.vocabulary import check_vocabulary, write_vocabulary

FORMAT = "onnx"
MODEL_FILE = "model.onnx"
_OPSET = 17


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
        labels: names of the classes, in their order. Defaults to `LABEL_0`
            and so on.
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
        converted = _convert(student, plain_graph.outputs)
        metadata = {"kind": student.kind, "labels": json.dumps(names)}
        for key, value in metadata.items():
            converted.metadata_props.add(key=key, value=value)
        path = scratch / MODEL_FILE
        path.write_bytes(converted.SerializeToString())
        if tokenizer is not None:
            write_vocabulary(tokenizer, scratch)
        comparison = parity.compare(student, examples, load_onnx(path))
        parity.check(
            comparison,
            tolerance,
            what=f"The ONNX model for {folder}",
            origin=lambda: _origin(student, examples, scratch, tolerance),
        )
        operators = sorted({node.op_type for node in converted.graph.node})
        report = ExportReport(
            folder,
            FORMAT,
            "float32",
            comparison,
            tolerance,
            size_mb(path),
            tuple(operators),
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
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Exporting to ONNX needs the extra `onnx`. Install it with: "
            "pip install 'keras-distil[onnx]'."
        ) from error


def _convert(student: Student, graph: Callable[..., dict[str, Any]]) -> Any:
    """The ONNX model of a function of the student's inputs."""
    import tf2onnx

    names = student.input_names

    def run(*tensors: tf.Tensor) -> dict[str, Any]:
        inputs = dict(zip(names, tensors, strict=True))
        return graph(student, inputs, plain_graph.ONNX)

    converted, _ = tf2onnx.convert.from_function(
        tf.function(run, autograph=False),
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, name) for name in names
        ],
        opset=_OPSET,
    )
    _share_table(converted.graph)
    return converted


def _share_table(graph: Any) -> None:
    """Drops transposed copies of constants, as the decoder's of the table.

    A product with a constant that is another one transposed becomes one with
    that other one.
    """
    from onnx import helper, numpy_helper

    matrices = {
        each.name: numpy_helper.to_array(each)
        for each in graph.initializer
        if len(each.dims) == 2
    }
    original = {
        name: other
        for name, matrix in matrices.items()
        for other, table in matrices.items()
        if name != other
        and matrix.shape == table.shape[::-1]
        and table.shape[0] == max(array.shape[0] for array in matrices.values())
        and np.array_equal(matrix, table.T)
    }
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in original:
            node.op_type = "Gemm"
            node.input[1] = original[node.input[1]]
            node.attribute.append(helper.make_attribute("transB", 1))
    kept = [each for each in graph.initializer if each.name not in original]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _origin(
    student: Student,
    examples: parity.Examples,
    folder: Path,
    tolerance: parity.Tolerance,
) -> str:
    """Converts the hidden states, too, and compares them."""
    path = folder / "layers.onnx"
    converted = _convert(student, plain_graph.layers)
    path.write_bytes(converted.SerializeToString())
    return parity.first_difference(
        student, examples, load_onnx(path), tolerance
    )
