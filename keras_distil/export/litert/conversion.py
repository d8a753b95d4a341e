"""The plan of a LiteRT conversion, and the process that runs it."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from safetensors.numpy import save_file

from keras_distil import edge
from keras_distil.export import parity, plain_weights
from keras_distil.export.litert import converter, graph
from keras_distil.export.signatures import Signature, write_module
from keras_distil.export.student import Student
from keras_distil.utils import disk

FULL_INT8 = "full_int8"
# Moderate, because the scores of padding and of words share 8 bits.
_MASKED_SCORE_INT8 = -30.0

Graph = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The model to convert and its signatures.

    Attributes:
        student: the model.
        precision: one of `PRECISIONS`.
        lengths: ascending, then None if any length is accepted.
        weights: the weights of the graph; None for the student's own.
    """

    student: Student
    precision: str
    lengths: list[int | None]
    weights: plain_weights.Weights | None = None

    @property
    def fixed_lengths(self) -> list[int]:
        """The lengths without None."""
        return [length for length in self.lengths if length is not None]

    @property
    def max_length(self) -> int:
        """Length of the longest sequence that is accepted."""
        if None in self.lengths:
            return self.student.max_length
        return max(self.fixed_lengths)

    @property
    def masked_score(self) -> float:
        """The number added to the attention scores of padding."""
        if self.precision == FULL_INT8:
            return _MASKED_SCORE_INT8
        return graph.MASKED_SCORE

    @property
    def variables(self) -> list[tf.Variable]:
        """Variables that the graph reads besides the student's."""
        return plain_weights.variables(self.weights) if self.weights else []

    def graph(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The student's outputs, computed with LiteRT's operators."""
        return graph.outputs(
            self.student, inputs, self.masked_score, self.weights
        )

    def layers(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The student's hidden states, computed with LiteRT's operators."""
        return graph.layers(
            self.student, inputs, self.masked_score, self.weights
        )


def signature_name(length: int | None) -> str:
    """Returns the name of the signature that takes a length."""
    return edge.ANY_LENGTH if length is None else f"length_{length}"


def convert(
    plan: Plan,
    graph: Graph,
    fitted_to: parity.Examples | None,
    target: Path,
    folder: Path,
) -> list[str]:
    """Converts in a separate process.

    Args:
        plan: the model and its signatures.
        graph: function from inputs to outputs.
        fitted_to: examples that "full_int8" derives its scales from.
        target: the file to write.
        folder: the final folder, for messages.

    Returns:
        The names of the operators.
    """
    signatures = {
        signature_name(length): _signature(plan, graph, length)
        for length in plan.lengths
    }
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        source = Path(temporary)
        write_module(
            plan.student.model.weights,
            signatures,
            source / "saved_model",
            variables=plan.variables,
        )
        if fitted_to is not None and plan.precision == FULL_INT8:
            _write_inputs(plan, fitted_to, source)
        conversion = converter.Conversion(
            saved_model=str(source / "saved_model"),
            signatures=list(signatures),
            precision=plan.precision,
            target=str(target),
            inputs=str(source),
        )
        spec = source / "conversion.json"
        spec.write_text(json.dumps(dataclasses.asdict(conversion)), "utf-8")
        return run_converter(spec, folder)


def _signature(plan: Plan, graph: Graph, length: int | None) -> Signature:
    names = plan.student.input_names

    def run(*tensors: tf.Tensor) -> dict[str, Any]:
        return graph(dict(zip(names, tensors, strict=True)))

    shape = [1, length]
    return run, [tf.TensorSpec(shape, tf.int32, name) for name in names]


def run_converter(spec: Path, folder: Path) -> list[str]:
    """Runs the converter; returns the names of the operators."""
    module = converter.__name__
    # The caller's path, since this package may not be installed.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # The conversion needs no GPU.
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    done = subprocess.run(
        [sys.executable, "-m", module, str(spec)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    lines = done.stdout.strip().splitlines() or ["{}"]
    try:
        said = json.loads(lines[-1])
    except ValueError:
        said = {}
    if "operators" in said:
        return said["operators"]
    if "unwritten" in said:
        raise disk.unwritten(folder, said["unwritten"])
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    reason = said.get("error") or (
        f"failed in the converter (status {done.returncode}): {last:.300}"
    )
    raise RuntimeError(
        f"The LiteRT model for {folder} {reason}. It is not kept; what was "
        "there before is."
    )


def _write_inputs(plan: Plan, examples: parity.Examples, folder: Path) -> None:
    """Writes padded inputs for every signature."""
    for length in plan.lengths:
        name = signature_name(length)
        for index, inputs in enumerate(_calls(plan, examples, length)):
            save_file(inputs, folder / f"{name}_{index:06d}.safetensors")


def _calls(
    plan: Plan, examples: parity.Examples, length: int | None
) -> Iterator[parity.Arrays]:
    """Inputs to call a signature with, from all examples that fit it."""
    for batch, _ in examples.batches:
        inputs = parity.full_inputs(plan.student, batch)
        longest = inputs["token_ids"].shape[1]
        padded = longest if length is None else length
        if longest > padded:
            inputs = {key: value[:, :padded] for key, value in inputs.items()}
        for row in range(len(inputs["token_ids"])):
            yield {
                key: edge.padded(value[row], padded)
                for key, value in inputs.items()
            }
