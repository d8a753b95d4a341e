"""Opens models in their runtimes, to be measured."""

import inspect
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Inputs = Mapping[str, np.ndarray]
Run = Callable[[Inputs], Any]

# Hugging Face's names for the inputs.
_THEIR_NAMES = {
    "token_ids": "input_ids",
    "padding_mask": "attention_mask",
    "segment_ids": "token_type_ids",
}


class TooLong(Exception):
    """A file supports only shorter sequences."""


def prepare(runtime: str, num_threads: int) -> Callable[[Path], Run]:
    """Imports a runtime and returns its opener.

    Args:
        runtime: one of `RUNTIMES`.
        num_threads: int >= 1, threads per call.

    Returns:
        A function that opens a file or folder, and returns a function from
        "token_ids", "padding_mask" and "segment_ids", int32, (batch, length),
        that returns once its outputs are computed.

    Raises:
        ImportError: if the runtime is not installed.
    """
    return RUNTIMES[runtime](num_threads)


def _keras(num_threads: int) -> Callable[[Path], Run]:
    _limit_tensorflow(num_threads)
    import keras
    import tensorflow as tf
    from keras_hub.models import MaskedLM, Task

    from keras_distil.models import forward
    from keras_distil.models.embedding_model import is_embedder
    from keras_distil.models.keras_archive import load_archive

    def open_(path: Path) -> Run:
        keras.config.set_dtype_policy("float32")
        model = load_archive(path, Task, "task")

        @tf.function
        def run(inputs: dict[str, Any]) -> Any:
            if isinstance(model, MaskedLM):
                return forward.logits(model, inputs)
            if is_embedder(model):
                named = {name: inputs[name] for name in model.backbone.input}
                return model(named, training=False)
            return forward.encode_task(model, inputs, training=False)[1]

        return lambda inputs: run(_tensors(inputs)).numpy()

    return open_


def _saved_model(num_threads: int) -> Callable[[Path], Run]:
    _limit_tensorflow(num_threads)
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    def open_(path: Path) -> Run:
        loaded = tf.saved_model.load(path)
        function = loaded.signatures["token_ids"]
        names = list(function.structured_input_signature[1])

        def run(inputs: Inputs) -> list[np.ndarray]:
            tensors = _tensors(inputs)
            outputs = function(**{name: tensors[name] for name in names})
            return [value.numpy() for value in outputs.values()]

        # The owner of the weights must outlive the functions.
        run.loaded = loaded  # type: ignore[attr-defined]
        return run

    return open_


def _litert(num_threads: int) -> Callable[[Path], Run]:
    from ai_edge_litert import interpreter  # noqa: F401

    from keras_distil import edge

    def open_(path: Path) -> Run:
        student = edge.Student(path, num_threads=num_threads)

        def run(inputs: Inputs) -> Any:
            if inputs["token_ids"].shape[1] > student.max_length:
                raise TooLong
            return student.run(inputs)

        return run

    return open_


def _onnx(num_threads: int) -> Callable[[Path], Run]:
    import onnxruntime

    def open_(path: Path) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        names = [each.name for each in session.get_inputs()]
        return lambda inputs: session.run(
            None, {name: inputs[name] for name in names}
        )

    return open_


def _onnx_int8(num_threads: int) -> Callable[[Path], Run]:
    from onnxruntime import quantization

    open_float = _onnx(num_threads)

    def open_(path: Path) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            quantized = Path(folder) / "model.onnx"
            quantization.quantize_dynamic(path, quantized)
            return open_float(quantized)

    return open_


def _pytorch(num_threads: int) -> Callable[[Path], Run]:
    import torch

    torch.set_num_threads(num_threads)

    def open_(path: Path) -> Run:
        model = _from_hugging_face(path)
        return lambda inputs: _run_pytorch(model, inputs)

    return open_


def _pytorch_int8(num_threads: int) -> Callable[[Path], Run]:
    import torch

    torch.set_num_threads(num_threads)

    def open_(path: Path) -> Run:
        model = torch.ao.quantization.quantize_dynamic(
            _from_hugging_face(path), {torch.nn.Linear}, dtype=torch.qint8
        )
        return lambda inputs: _run_pytorch(model, inputs)

    return open_


def _from_hugging_face(path: Path) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(path)
    [architecture] = config.architectures
    return getattr(transformers, architecture).from_pretrained(path).eval()


def _run_pytorch(model: Any, inputs: Inputs) -> Any:
    import torch

    accepted = inspect.signature(model.forward).parameters
    named = {
        _THEIR_NAMES[name]: torch.from_numpy(values.astype(np.int64))
        for name, values in inputs.items()
        if _THEIR_NAMES[name] in accepted
    }
    with torch.inference_mode():
        return model(**named)


def _limit_tensorflow(num_threads: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _tensors(inputs: Inputs) -> dict[str, Any]:
    import tensorflow as tf

    return {name: tf.constant(values) for name, values in inputs.items()}


RUNTIMES: dict[str, Callable[[int], Callable[[Path], Run]]] = {
    "keras": _keras,
    "saved_model": _saved_model,
    "litert": _litert,
    "onnx": _onnx,
    "onnx_int8": _onnx_int8,
    "pytorch": _pytorch,
    "pytorch_int8": _pytorch_int8,
}
