"""LiteRT: a file for phones and other small machines."""

import dataclasses
import difflib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tokenizers
from safetensors.numpy import save_file

from keras_distil import edge
from keras_distil.export import parity, plain_graph, plain_weights
from keras_distil.export.embedding_note import embedding_note
from keras_distil.export.folders import replacing_folder
from keras_distil.export.litert import converter, int8_weights
from keras_distil.export.report import ExportReport, size_mb
from keras_distil.export.saved_model import Signature, write_module
from keras_distil.export.student import Student, label_names, make_student
from keras_distil.export.vocabulary import check_vocabulary, write_vocabulary
from keras_distil.utils import disk, quiet

FORMAT = "litert"
PRECISIONS = converter.PRECISIONS
_FULL_INT8 = "full_int8"
# What representative texts are of use for.
_CALIBRATED = ("dynamic_int8", _FULL_INT8)
# Padding's scores share 8 bits with those of words.
_MASKED_SCORE_INT8 = -30.0

Representative = Sequence[str] | parity.Examples
_Graph = Callable[[Mapping[str, Any]], dict[str, Any]]


def export_litert(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    precision: str = "dynamic_int8",
    lengths: Sequence[int | None] = (128,),
    representative: Representative | None = None,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
    sentence_embedding: bool = False,
    normalize: bool = False,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
) -> ExportReport:
    """Writes a LiteRT model, and compares what it computes with the student.

    The folder holds `student.tflite`, with built-in operators only and a
    signature `length_N` for each length; `student.json`, with the labels;
    and, with a tokenizer, `tokenizer.json` and `vocab.txt`.
    `keras_distil.edge.Student` runs it. Inputs and outputs are those of
    `export_saved_model`'s signature of token ids.

    "float16" stores weights in 16 bits and computes in 32, "dynamic_int8"
    stores weights in 8 bits, with a scale for each row, and scales the
    activations as they come; "full_int8" scales them as the representative
    texts did; "int4" stores weights in 4 bits, in blocks of 32. With
    representative texts, weights in 8 bits are smoothed (SmoothQuant, Xiao et
    al., 2023) and rounded (GPTQ, Frantar et al., 2022) to fit them.

    Args:
        model: a `keras_hub` BERT or DistilBERT, for masked language modelling
            or of `models.task_model`.
        folder: where it goes.
        tokenizer: the vocabulary's, as from `data.load_tokenizer`; None for a
            model that takes token ids alone.
        precision: one of `PRECISIONS`.
        lengths: ints, tokens of the sequences that the file takes; a shorter
            one is padded. None among them is a signature `any_length`, which
            is slower.
        representative: texts of the kind that it will read, a hundred or more,
            or `parity.Examples`. "full_int8" needs them, "dynamic_int8" is
            better with them.
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
        TypeError: if the model, the tokenizer or the representative texts are
            of another kind.
        ValueError: if the model, the precision, a length or the labels are
            not possible.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if it does not compute what the student does.
        RuntimeError: if it cannot be converted to built-in operators.
    """
    student = make_student(
        model, sentence_embedding=sentence_embedding, normalize=normalize
    )
    folder = Path(folder)
    _check_precision(precision, tokenizer, representative)
    tolerance = tolerance or parity.TOLERANCES[FORMAT, precision]
    plan = _Plan(student, precision, _check_lengths(student, lengths))
    if tokenizer is not None:
        check_vocabulary(student, tokenizer)
    names = label_names(student, labels)
    examples = parity.cut(
        parity.make_examples(student, tokenizer, held_out), plan.max_length
    )
    calibration = _representative(plan, tokenizer, representative)
    if calibration is not None:
        plan = dataclasses.replace(
            plan, weights=int8_weights.prepare(student, calibration)
        )
    with replacing_folder(
        folder, overwrite=overwrite, mark=edge.MODEL_FILE
    ) as scratch:
        operators = _convert(
            plan, plan.graph, calibration, scratch / edge.MODEL_FILE, folder
        )
        note = embedding_note(student)
        _write_card(plan, names, operators, scratch, note=note)
        if tokenizer is not None:
            write_vocabulary(tokenizer, scratch)
        comparison = parity.compare(
            student, examples, _cutting(plan, _read_back(plan, scratch).run)
        )
        parity.check(
            comparison,
            tolerance,
            what=f"The LiteRT model for {folder} in {precision}",
            origin=functools.partial(
                _origin, plan, examples, calibration, scratch, tolerance
            ),
        )
        report = ExportReport(
            folder,
            FORMAT,
            precision,
            comparison,
            tolerance,
            size_mb(scratch / edge.MODEL_FILE),
            tuple(operators),
            note=note,
        )
        report.write(scratch)
    return report


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is converted.

    Attributes:
        student: the model.
        precision: one of `PRECISIONS`.
        lengths: ascending, then None if any length is taken.
        weights: what the graph multiplies by; None for the student's own.
    """

    student: Student
    precision: str
    lengths: list[int | None]
    weights: plain_weights.Weights | None = None

    @property
    def fixed_lengths(self) -> list[int]:
        """The lengths but None."""
        return [length for length in self.lengths if length is not None]

    @property
    def max_length(self) -> int:
        """The longest sequence that is taken."""
        if None in self.lengths:
            return self.student.max_length
        return max(self.fixed_lengths)

    @property
    def masked_score(self) -> float:
        """What is added to the scores of padding."""
        if self.precision == _FULL_INT8:
            return _MASKED_SCORE_INT8
        return plain_graph.MASKED_SCORE

    @property
    def variables(self) -> list[tf.Variable]:
        """Those that the graph reads besides the student's."""
        return plain_weights.variables(self.weights) if self.weights else []

    def graph(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The student's outputs in LiteRT's operators."""
        return plain_graph.outputs(
            self.student, inputs, self.masked_score, self.weights
        )

    def layers(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Its hidden states."""
        return plain_graph.layers(
            self.student, inputs, self.masked_score, self.weights
        )


def _check_precision(
    precision: str,
    tokenizer: tokenizers.Tokenizer | None,
    representative: Representative | None,
) -> None:
    if precision not in PRECISIONS:
        near = difflib.get_close_matches(str(precision), PRECISIONS, 1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"`precision` must be one of {', '.join(PRECISIONS)}.{guess} "
            f"Received: precision={precision!r}."
        )
    if precision == _FULL_INT8 and representative is None:
        raise ValueError(
            f"precision={_FULL_INT8!r} needs `representative`: some hundred "
            "texts of the kind that the model will read. Received: None."
        )
    if representative is None:
        return
    if precision not in _CALIBRATED:
        raise ValueError(
            f"`representative` is for precision={' or '.join(_CALIBRATED)}. "
            f"Received: precision={precision!r} with `representative`."
        )
    if isinstance(representative, parity.Examples):
        if not representative.batches:
            raise ValueError(
                "`representative` must hold sequences. Received: none."
            )
        return
    if isinstance(representative, str) or not (
        isinstance(representative, Sequence)
        and all(isinstance(text, str) for text in representative)
    ):
        raise TypeError(
            "`representative` must be a list of texts or `export.Examples`. "
            f"Received: {type(representative).__name__}."
        )
    if tokenizer is None or not representative:
        raise ValueError(
            "`representative` must hold texts, and needs a `tokenizer`. "
            f"Received: {len(representative)} texts, tokenizer={tokenizer}."
        )


def _check_lengths(
    student: Student, lengths: Sequence[int | None]
) -> list[int | None]:
    """Returns the lengths in order, each once, None behind the others."""
    positions = student.max_length
    given = list(lengths)
    if not given:
        raise ValueError("`lengths` must name one or more. Received: none.")
    for length in given:
        if length is None:
            continue
        if isinstance(length, bool) or not isinstance(length, int):
            raise TypeError(
                "`lengths` must be integers or None. Received: "
                f"{length!r} (of type {type(length).__name__})."
            )
        if not 4 <= length <= positions:
            raise ValueError(
                "`lengths` must be from 4 to the position table's "
                f"{positions} rows. Received: {length}."
            )
    fixed = sorted({length for length in given if length is not None})
    return [*fixed, None] if None in given else [*fixed]


def _representative(
    plan: _Plan,
    tokenizer: tokenizers.Tokenizer | None,
    given: Representative | None,
) -> parity.Examples | None:
    """The sequences that scales are made with, cut to what the file takes."""
    if given is None:
        return None
    if not isinstance(given, parity.Examples):
        # `_check_precision` has seen that texts come with a tokenizer.
        given = parity.text_examples(plan.student, tokenizer, given)  # type: ignore[arg-type]
    return parity.cut(given, plan.max_length)


def _signature_name(length: int | None) -> str:
    return edge.ANY_LENGTH if length is None else f"length_{length}"


def _convert(
    plan: _Plan,
    graph: _Graph,
    calibration: parity.Examples | None,
    target: Path,
    folder: Path,
) -> list[str]:
    """Converts in a process of its own.

    Args:
        plan: what to convert.
        graph: from inputs to outputs.
        calibration: of "full_int8".
        target: the file to write.
        folder: the final one, for messages.

    Returns:
        The names of the operators.
    """
    signatures = {
        _signature_name(length): _signature(plan, graph, length)
        for length in plan.lengths
    }
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        source = Path(temporary)
        write_module(
            plan.student,
            signatures,
            None,
            source / "saved_model",
            plan.variables,
        )
        if calibration is not None and plan.precision == _FULL_INT8:
            _write_calibration(plan, calibration, source)
        conversion = converter.Conversion(
            saved_model=str(source / "saved_model"),
            signatures=list(signatures),
            precision=plan.precision,
            target=str(target),
            calibration=str(source),
        )
        spec = source / "conversion.json"
        spec.write_text(json.dumps(dataclasses.asdict(conversion)), "utf-8")
        return _run_converter(spec, folder)


def _signature(plan: _Plan, graph: _Graph, length: int | None) -> Signature:
    names = plan.student.input_names

    def run(*tensors: tf.Tensor) -> dict[str, Any]:
        return graph(dict(zip(names, tensors, strict=True)))

    shape = [1, length]
    return run, [tf.TensorSpec(shape, tf.int32, name) for name in names]


def _run_converter(spec: Path, folder: Path) -> list[str]:
    module = converter.__name__
    # The caller's path: this package may be no installed one.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # It neither trains nor needs a GPU.
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


def _write_calibration(
    plan: _Plan, examples: parity.Examples, folder: Path
) -> None:
    """Writes padded inputs for every signature."""
    for length in plan.lengths:
        name = _signature_name(length)
        for index, inputs in enumerate(_calls(plan, examples, length)):
            save_file(inputs, folder / f"{name}_{index:06d}.safetensors")


def _calls(
    plan: _Plan, examples: parity.Examples, length: int | None
) -> Iterator[parity.Arrays]:
    """What a signature is called with, for all examples that fit in it."""
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


def _read_back(plan: _Plan, folder: Path) -> edge.Student:
    nothing = np.zeros((1, plan.fixed_lengths[0] if plan.fixed_lengths else 4))
    # The runtime notes as an error that it has a delegate, at the first call.
    with quiet.held_back_stderr():
        student = edge.Student(folder)
        student.run(dict.fromkeys(plan.student.input_names, nothing))
        return student


def _cutting(plan: _Plan, run: parity.Runner) -> parity.Runner:
    """Cuts longer inputs, as of a development set, to what the file takes."""

    def cut(inputs: parity.Arrays) -> Mapping[str, Any]:
        over = inputs["token_ids"].shape[1] - plan.max_length
        if over <= 0:
            return run(inputs)
        kept = np.s_[:, : plan.max_length]
        outputs = run({name: values[kept] for name, values in inputs.items()})
        if plan.student.kind not in edge.BY_TOKEN:
            return outputs
        # What was not read is never chosen.
        return {
            name: np.pad(
                values,
                [(0, 0), (0, over), (0, 0)][: values.ndim],
                constant_values=plain_graph.MASKED_SCORE,
            )
            for name, values in outputs.items()
        }

    return cut


def _write_card(
    plan: _Plan,
    labels: Sequence[str],
    operators: Sequence[str],
    folder: Path,
    *,
    kind: str | None = None,
    note: str | None = None,
) -> None:
    """Writes what `edge.Student` must know of the file."""
    card: dict[str, Any] = {
        "format_version": edge.FORMAT_VERSION,
        "kind": kind or plan.student.kind,
        "precision": plan.precision,
        "labels": list(labels),
        "is_probability": plan.student.is_probability,
        "lengths": plan.fixed_lengths,
        "max_length": plan.max_length,
        "inputs": list(plan.student.input_names),
        "operators": list(operators),
    }
    if note is not None:
        card["note"] = note
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (folder / edge.CARD_FILE).write_text(text, "utf-8")


def _origin(
    plan: _Plan,
    examples: parity.Examples,
    calibration: parity.Examples | None,
    folder: Path,
    tolerance: parity.Tolerance,
) -> str:
    """Converts the hidden states, too, and compares them."""
    inner = folder / "layers"
    inner.mkdir()
    _convert(plan, plan.layers, calibration, inner / edge.MODEL_FILE, folder)
    # Hidden states have the length of the inputs, whatever the kind.
    _write_card(plan, [], [], inner, kind=edge.BY_TOKEN[0])
    return parity.first_difference(
        plan.student, examples, _read_back(plan, inner).run, tolerance
    )
