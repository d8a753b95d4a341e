"""Exports to SavedModel, which TensorFlow serves without Keras."""

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tokenizers

from keras_distil import data
from keras_distil.export import parity
from keras_distil.export.export_as import export_as
from keras_distil.export.exporter import Exporter
from keras_distil.export.graph_tokenizer import (
    ids_only_note,
    make_graph_tokenizer,
)
from keras_distil.export.report import ExportReport
from keras_distil.export.signatures import (
    Signature,
    load_signatures,
    write_module,
)
from keras_distil.export.student import (
    SENTENCE_EMBEDDING,
    Student,
    label_names,
    write_labels,
)
from keras_distil.export.text_signatures import (
    BY_TEXT,
    text_signatures,
)
from keras_distil.models.embedding_model import prompts_by_use

_LOGGER = logging.getLogger("keras_distil")
_BY_ID = "token_ids"
_LAYERS = "layers"
# Small, because the logits of all positions take much memory.
_TEXT_BATCH = 4

# Texts that other implementations tokenize incorrectly.
HARD_TEXTS = (
    "",
    "Crème brûlée à la façon de Zoë, naïve café",
    "Straße ½ ﬁne 𝒜𝔅𝕔 ⅷ ①",
    "日本語のテキスト mixed 한국어 和 中文",
    "İstanbul ΣΊΣΥΦΟΣ ǅ",
    "हिन्दी में लिखा",
    "👍🏽 family 👨\u200d👩\u200d👧 ❤\ufe0f",
    "zero\u200bwidth \ufeffmark soft\u00adhyphen",
    "control\x00 \x07char\tand\u2028line\u00a0space",
    "https://example.org/a?b=c&d=%20#e user@example.org",
    "l" * 100 + " " + "l" * 101,
    "[CLS] spelt [MASK]out[SEP] [mask]",
)


def export_saved_model(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    overwrite: bool = False,
    max_length: int | None = None,
    labels: Sequence[str] | None = None,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
) -> ExportReport:
    """Writes a SavedModel, and compares its outputs with the student's.

    The signature "token_ids" (also "serving_default") takes "token_ids" and
    "padding_mask", int32, (batch, length), and "segment_ids" if the encoder
    reads them. Given a tokenizer, the signature "texts" takes "texts",
    strings, (batch,), and "text_pairs" takes "first" and "second"; both also
    return the "token_ids" and the "padding_mask" they computed, and what the
    outputs mean: labels with probabilities, entities and parts of a context
    with their places, see `docs/export/saved_model.md`. Batch size and length
    are free, up to the position table. `labels.json` holds the names of a
    model's classes.

    The outputs, float32, are "logits" for masked-LM models and classifiers,
    "score" for a regression, "start_logits" and "end_logits" for spans, or
    "embedding".

    Args:
        model: a `keras_hub` masked-LM model of a supported family, or a model
            of `models.task_model`.
        folder: the output folder.
        tokenizer: the student's, as from `data.load_tokenizer`. Defaults to
            that of the folder which the model, or its teacher, was loaded
            from; without one, or with settings of byte-level BPE that have no
            form inside a graph, only token ids are taken, and the report has a
            note of the latter.
        overwrite: bool, whether an earlier export may be replaced.
        max_length: int, number of tokens to which texts are cut. Defaults to
            the number of rows of the position table.
        labels: names of the classes, in the order of the outputs. Defaults
            to the model's own, or `LABEL_0` and so on if it has none.
        held_out: texts or `parity.Examples` for the comparison with the
            student. Some English sentences if None.
        tolerance: largest allowed difference. Defaults to that of
            `TOLERANCES`.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError: if the model is of the wrong kind.
        ValueError: if the model, the tokenizer, a length or the labels are
            invalid.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if its outputs differ from the student's.
    """
    return export_as(
        SavedModelExporter,
        model,
        folder,
        tokenizer,
        overwrite=overwrite,
        max_length=max_length,
        labels=labels,
        held_out=held_out,
        tolerance=tolerance,
    )


class SavedModelExporter(Exporter):
    """Writes SavedModels; see `export_saved_model`.

    Args:
        student: the model to export.
        tokenizer: its tokenizer, or None.
        folder: the final folder of the export.
        max_length: number of tokens to which texts are cut; None for all
            positions.
        labels: names of the classes; None for the model's own.
    """

    format = "saved_model"
    title = "The SavedModel"
    mark = "saved_model.pb"
    takes_tables = True

    def __init__(
        self,
        student: Student,
        tokenizer: tokenizers.Tokenizer | None,
        folder: Path,
        *,
        max_length: int | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.max_length = _check_length(student, max_length)
        super().__init__(student, tokenizer, folder)
        self.labels = label_names(student, labels)
        self._given_labels = labels
        self.graph_tokenizer = make_graph_tokenizer(tokenizer)
        note = ids_only_note(tokenizer)
        if note is not None:
            _LOGGER.warning(note)
        self._runners: dict[str, parity.Runner] = {}

    @property
    def note(self) -> str | None:
        """A caveat for users of the export, or None."""
        return ids_only_note(self.tokenizer)

    def write(self, scratch: Path) -> None:
        """Writes the signatures and the class names."""
        signatures = {_BY_ID: _token_id_signature(self.student)}
        if self.graph_tokenizer is not None:
            signatures |= text_signatures(
                self.student, self.graph_tokenizer, self.max_length, self.labels
            )
        write_module(
            self.student.model.weights,
            signatures,
            scratch,
            default=_BY_ID,
            tokenizer=self.graph_tokenizer,
        )
        write_labels(self.student, scratch, self._given_labels)

    def read_back(self, scratch: Path) -> parity.Runner:
        """Loads the signatures and returns the one of token ids."""
        self._runners = load_signatures(scratch)
        return self._runners[_BY_ID]

    def read_layers(self, scratch: Path) -> parity.Runner:
        """Writes the hidden states as another SavedModel."""

        def layers(*tensors: tf.Tensor) -> dict[str, Any]:
            names = self.student.input_names
            return self.student.layers(dict(zip(names, tensors, strict=True)))

        inner = scratch / _LAYERS
        signature = layers, _specs(self.student)
        write_module(self.student.model.weights, {_LAYERS: signature}, inner)
        return load_signatures(inner)[_LAYERS]

    def check_more(
        self,
        scratch: Path,
        examples: parity.Examples,
        tolerance: parity.Tolerance,
    ) -> None:
        """Checks that strings give the tokenizer's ids."""
        if self.tokenizer is None or self.graph_tokenizer is None:
            return
        texts = [*HARD_TEXTS, *examples.texts]
        prompts = {BY_TEXT: ""}
        if self.student.kind == SENTENCE_EMBEDDING:
            texts = [text for text in texts if text.strip()]
            prompts = prompts_by_use(self.student.model)
        for name, prompt in prompts.items():
            _check_texts(
                self.student,
                self.tokenizer,
                self._runners[name],
                texts,
                prompt=prompt,
                max_length=self.max_length,
                tolerance=tolerance,
            )


def _check_length(student: Student, max_length: int | None) -> int:
    longest = student.max_length
    if max_length is None:
        return longest
    # The shortest pair is [CLS], [SEP], [SEP] and one token.
    if not 4 <= max_length <= longest:
        raise ValueError(
            f"`max_length` must be from 4 to {longest}, the tokens that the "
            f"model takes. Received: max_length={max_length}."
        )
    return max_length


def _token_id_signature(student: Student) -> Signature:
    def run(*tensors: tf.Tensor) -> dict[str, Any]:
        inputs = dict(zip(student.input_names, tensors, strict=True))
        if student.positions is None:
            return student.outputs(inputs)
        length = tf.shape(inputs["token_ids"])[1]
        checked = tf.debugging.assert_less_equal(
            length,
            student.positions,
            f"The model has {student.positions} positions: cut the sequence.",
        )
        with tf.control_dependencies([checked]):
            inputs = {k: tf.identity(v) for k, v in inputs.items()}
        return student.outputs(inputs)

    return run, _specs(student)


def _specs(student: Student) -> list[tf.TensorSpec]:
    return [
        tf.TensorSpec([None, None], tf.int32, name)
        for name in student.input_names
    ]


def _check_texts(
    student: Student,
    tokenizer: tokenizers.Tokenizer,
    runner: Callable[..., Any],
    texts: Sequence[str],
    *,
    prompt: str = "",
    max_length: int,
    tolerance: parity.Tolerance,
) -> None:
    """Raises RuntimeError unless strings give the tokenizer's ids."""
    for start in range(0, len(texts), _TEXT_BATCH):
        batch = texts[start : start + _TEXT_BATCH]
        found = runner({BY_TEXT: list(batch)})
        ids = found["token_ids"].numpy()
        expected = data.encode_texts(
            tokenizer, [prompt + text for text in batch], max_length
        )
        _check_ids(batch, ids, expected["token_ids"])
        if "starts" in found:
            _check_places(tokenizer, batch, found)
        comparison = parity.compare(
            student,
            parity.Examples([(expected, expected["padding_mask"] > 0)]),
            functools.partial(_already, found),
        )
        parity.check(
            comparison,
            tolerance,
            what="What the SavedModel makes of texts",
            origin=lambda: "It starts in the signature of texts.",
        )


def _already(outputs: Mapping[str, Any], inputs: Any) -> Mapping[str, Any]:
    """Returns outputs that were computed before."""
    return outputs


def _check_ids(
    texts: Sequence[str], found: np.ndarray, expected: np.ndarray
) -> None:
    for text, theirs, ours in zip(texts, found, expected, strict=True):
        if theirs.tolist() != ours.tolist():
            raise RuntimeError(
                f"The SavedModel's tokenizer reads {text!r:.60} as "
                f"{theirs.tolist()!r:.80}, the student's as "
                f"{ours.tolist()!r:.80}. It is not kept; what was there before "
                "is."
            )


def _check_places(
    tokenizer: tokenizers.Tokenizer,
    texts: Sequence[str],
    found: Mapping[str, Any],
) -> None:
    """Raises RuntimeError unless tokens are where the tokenizer finds them."""
    for text, starts, ends in zip(
        texts, found["starts"].numpy(), found["ends"].numpy(), strict=True
    ):
        theirs = [
            (int(start), int(end))
            for start, end in zip(starts, ends, strict=True)
            if start >= 0
        ]
        ours = tokenizer.encode(text, add_special_tokens=False).offsets
        if theirs != ours[: len(theirs)]:
            raise RuntimeError(
                f"The SavedModel finds the tokens of {text!r:.60} at "
                f"{theirs!r:.80}, the student's tokenizer at {ours!r:.80}. It "
                "is not kept; what was there before is."
            )
