"""Exports to LiteRT, for phones and other small devices."""

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tokenizers

from keras_distil import edge
from keras_distil.export import parity
from keras_distil.export.export_as import export_as
from keras_distil.export.exporter import Exporter
from keras_distil.export.litert import converter, graph, int8_weights
from keras_distil.export.litert.conversion import FULL_INT8, Plan, convert
from keras_distil.export.report import ExportReport
from keras_distil.export.student import (
    SENTENCE_EMBEDDING,
    Student,
    label_names,
)
from keras_distil.export.vocabulary import write_vocabulary
from keras_distil.models.embedding_model import embedding_settings
from keras_distil.utils import quiet

PRECISIONS = converter.PRECISIONS
# Precisions whose weights or activations are fitted to representative texts.
FITTED = ("dynamic_int8", FULL_INT8)

# Points of 100 that vectors may lose in 8 bits, as a share of 1.
_VECTOR_SCORE = 0.003

Representative = Sequence[str] | parity.Examples


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
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
) -> ExportReport:
    """Writes a LiteRT model, and compares its outputs with the student's.

    The folder holds `student.tflite`, with only built-in operators and a
    signature `length_N` for each length; `student.json`, with the labels;
    and, given a tokenizer, `tokenizer.json` and `vocab.txt`.
    `keras_distil.edge.Student` runs it. Inputs and outputs are those of the
    signature `token_ids` of `export_saved_model`.

    "float16" stores weights in 16 bits and computes in 32. "dynamic_int8"
    stores weights in 8 bits, with one scale per row, and scales the
    activations at run time; "full_int8" uses fixed scales from the
    representative texts. "int4" stores weights in 4 bits, in blocks of 32.
    With representative texts, weights in 8 bits are smoothed (SmoothQuant,
    Xiao et al., 2023) and rounded (GPTQ, Frantar et al., 2022) to fit them.

    Args:
        model: a `keras_hub` masked-LM model of a supported family, or a model
            of `models.task_model`.
        folder: the output folder.
        tokenizer: the student's, as from `data.load_tokenizer`. Defaults to
            that of the folder which the model, or its teacher, was loaded
            from; without one, only token ids are taken.
        precision: one of `PRECISIONS`.
        lengths: ints, lengths in tokens of the sequences that the file takes;
            shorter ones are padded. None among them adds a signature
            `any_length`, which is slower.
        representative: a hundred or more texts of the kind that the model
            will read, or `parity.Examples`. Required by "full_int8";
            "dynamic_int8" is better with them.
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
        TypeError: if the model, the tokenizer or the representative texts are
            of the wrong kind.
        ValueError: if the model, the precision, a length or the labels are
            invalid.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if its outputs differ from the student's.
        RuntimeError: if it cannot be converted to built-in operators.
    """
    return export_as(
        LiteRTExporter,
        model,
        folder,
        tokenizer,
        precision=precision,
        lengths=lengths,
        representative=representative,
        labels=labels,
        overwrite=overwrite,
        held_out=held_out,
        tolerance=tolerance,
    )


class LiteRTExporter(Exporter):
    """Writes LiteRT models; see `export_litert`.

    Args:
        student: the model to export.
        tokenizer: its tokenizer, or None.
        folder: the final folder of the export.
        precision: one of `PRECISIONS`.
        lengths: lengths in tokens of the sequences that the file takes.
        representative: examples that weights are fitted to, or None.
        labels: names of the classes; None for the model's own.
    """

    format = "litert"
    title = "The LiteRT model"
    mark = edge.MODEL_FILE

    def __init__(
        self,
        student: Student,
        tokenizer: tokenizers.Tokenizer | None,
        folder: Path,
        *,
        precision: str = "dynamic_int8",
        lengths: Sequence[int | None] = (128,),
        representative: Representative | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        _check_precision(precision, tokenizer, representative)
        self.precision = precision
        self._plan = Plan(student, precision, _check_lengths(student, lengths))
        super().__init__(student, tokenizer, folder)
        self.labels = label_names(student, labels)
        self._fitted_to = self._representative(representative)

    @property
    def what(self) -> str:
        """The name of this export in messages."""
        return f"{super().what} in {self.precision}"

    @property
    def tolerance(self) -> parity.Tolerance:
        """The tolerance, with a closer score for vectors in 8 bits."""
        tolerance = super().tolerance
        if (
            self.student.kind == SENTENCE_EMBEDDING
            and self.precision == "dynamic_int8"
        ):
            return dataclasses.replace(tolerance, score_loss=_VECTOR_SCORE)
        return tolerance

    def cut(self, examples: parity.Examples) -> parity.Examples:
        """Cuts examples to the longest sequence that the file takes."""
        return parity.cut(examples, self._plan.max_length)

    def write(self, scratch: Path) -> None:
        """Fits the weights, converts, and writes the card for `edge`."""
        if self._fitted_to is not None:
            fitted = int8_weights.fit(self.student, self._fitted_to)
            self._plan = dataclasses.replace(self._plan, weights=fitted)
        self.operators = convert(
            self._plan,
            self._plan.graph,
            self._fitted_to,
            scratch / edge.MODEL_FILE,
            self.folder,
        )
        _write_card(self._plan, self.labels, self.operators, scratch)
        if self.tokenizer is not None:
            write_vocabulary(self.tokenizer, scratch)

    def read_back(self, scratch: Path) -> parity.Runner:
        """Loads the file as `edge.Student` does."""
        return _cutting(self._plan, _load(self._plan, scratch).run)

    def read_layers(self, scratch: Path) -> parity.Runner:
        """Converts the hidden states as well."""
        inner = scratch / "layers"
        inner.mkdir()
        convert(
            self._plan,
            self._plan.layers,
            self._fitted_to,
            inner / edge.MODEL_FILE,
            self.folder,
        )
        # Hidden states are as long as the inputs, whatever the kind.
        _write_card(self._plan, [], [], inner, kind=edge.BY_TOKEN[0])
        return _load(self._plan, inner).run

    def shipped(self, scratch: Path) -> Path:
        """Returns the model's file."""
        return scratch / edge.MODEL_FILE

    def _representative(
        self, given: Representative | None
    ) -> parity.Examples | None:
        """The sequences that weights are fitted to, cut like the inputs."""
        if given is None:
            return None
        if not isinstance(given, parity.Examples):
            # `_check_precision` has checked that texts come with a tokenizer.
            given = parity.text_examples(self.student, self.tokenizer, given)  # type: ignore[arg-type]
        return self.cut(given)


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
    if precision == FULL_INT8 and representative is None:
        raise ValueError(
            f"precision={FULL_INT8!r} needs `representative`: some hundred "
            "texts of the kind that the model will read. Received: None."
        )
    if representative is None:
        return
    if precision not in FITTED:
        raise ValueError(
            f"`representative` is for precision={' or '.join(FITTED)}. "
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
    """Returns the lengths in order, each once, with None last."""
    longest = student.max_length
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
        if not 4 <= length <= longest:
            raise ValueError(
                f"`lengths` must be from 4 to {longest}, the tokens that the "
                f"model takes. Received: {length}."
            )
    fixed = sorted({length for length in given if length is not None})
    return [*fixed, None] if None in given else [*fixed]


def _load(plan: Plan, folder: Path) -> edge.Student:
    nothing = np.zeros((1, plan.fixed_lengths[0] if plan.fixed_lengths else 4))
    # On the first call the runtime logs its delegate as an error.
    with quiet.held_back_stderr():
        student = edge.Student(folder)
        student.run(dict.fromkeys(plan.student.input_names, nothing))
        return student


def _cutting(plan: Plan, run: parity.Runner) -> parity.Runner:
    """Wraps a runner to cut longer inputs, as of a development set."""

    def cut(inputs: parity.Arrays) -> Mapping[str, Any]:
        over = inputs["token_ids"].shape[1] - plan.max_length
        if over <= 0:
            return run(inputs)
        kept = np.s_[:, : plan.max_length]
        outputs = run({name: values[kept] for name, values in inputs.items()})
        if plan.student.kind not in edge.BY_TOKEN:
            return outputs
        # Positions that were cut off are never chosen.
        return {
            name: np.pad(
                values,
                [(0, 0), (0, over), (0, 0)][: values.ndim],
                constant_values=graph.MASKED_SCORE,
            )
            for name, values in outputs.items()
        }

    return cut


def _write_card(
    plan: Plan,
    labels: Sequence[str],
    operators: Sequence[str],
    folder: Path,
    *,
    kind: str | None = None,
) -> None:
    """Writes the description of the file that `edge.Student` reads."""
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
    if plan.student.kind == SENTENCE_EMBEDDING:
        settings = embedding_settings(plan.student.model)
        card["prompts"] = dict(settings["prompts"] or {})
        card["default_prompt"] = settings["default_prompt_name"]
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (folder / edge.CARD_FILE).write_text(text, "utf-8")
