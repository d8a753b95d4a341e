"""Compares an export with the student, for the gate of every export."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tokenizers

from keras_distil import data
from keras_distil.export.distance import Distance
from keras_distil.export.gate import TOLERANCES as TOLERANCES
from keras_distil.export.gate import Comparison as Comparison
from keras_distil.export.gate import ParityError as ParityError
from keras_distil.export.gate import Tolerance as Tolerance
from keras_distil.export.gate import check as check
from keras_distil.export.gate import find_unjudged as find_unjudged
from keras_distil.export.student import MASKED_LM, SENTENCE_EMBEDDING, Student

Arrays: TypeAlias = dict[str, np.ndarray]
Runner: TypeAlias = Callable[[Arrays], Mapping[str, Any]]
# A function from inputs to outputs, shaped as `forward.encode_task` does.
OutputFunction: TypeAlias = Callable[[Arrays], np.ndarray]


# Texts for the comparison if the caller gives none.
_TEXTS = (
    "The library was closed on Monday, so we read the book at home.",
    "Water boils at a lower temperature in the mountains.",
    "Returns a tensor with the same shape as its input.",
    "She asked whether the train to the city had already left.",
    "In 1969, two people walked on the moon for the first time.",
    "If the file does not exist, an error is raised.",
    "The old bridge was built of stone and carries one lane of traffic.",
    "Most birds of the northern forests fly south before winter comes.",
    "No.",
    "The price of bread, milk and other food rose again last year, and the "
    "government announced that it would lower the tax on what people need "
    "every day, from the first of January on.",
)
_BATCH = 8
_RATE = 0.15
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Examples:
    """Batches on which an export is compared with the student.

    Attributes:
        batches: pairs of inputs, int32 arrays "token_ids" and "padding_mask",
            (batch, length), and the positions whose first choices are
            compared, bool, (batch, length).
        texts: texts to compare string signatures on.
        score: a function that takes a function from "token_ids",
            "padding_mask" and "segment_ids" to the outputs of
            `models.task_model`, or to the vectors of an embedder, and returns
            its score on a development set, 0 to 1; None without a task.
        scored: number of examples of which that score is a share; None if it
            is no share, such as a correlation.
        is_error: whether it is an error, counted negative.
    """

    batches: Sequence[tuple[Arrays, np.ndarray]]
    texts: Sequence[str] = _TEXTS
    score: Callable[[OutputFunction], float] | None = None
    scored: int | None = None
    is_error: bool = False

    @classmethod
    def from_dataset(
        cls, dataset: Iterable[tuple[Any, Any, Any]], sequences: int
    ) -> "Examples":
        """Takes the first sequences of Keras triples, such as held-out text.

        Args:
            dataset: masked-LM batches.
            sequences: int, the most to take.
        """
        return cls._first(
            ((x, np.asarray(weight) > 0) for x, _, weight in dataset), sequences
        )

    @classmethod
    def from_inputs(
        cls, inputs: Iterable[Arrays], sequences: int
    ) -> "Examples":
        """Takes the first sequences of batches of a task.

        Args:
            inputs: "token_ids", "padding_mask" and "segment_ids".
            sequences: int, the most to take.
        """
        return cls._first(
            ((x, x["padding_mask"] > 0) for x in inputs), sequences
        )

    @classmethod
    def _first(
        cls, pairs: Iterable[tuple[Mapping[str, Any], np.ndarray]], left: int
    ) -> "Examples":
        found: list[tuple[Arrays, np.ndarray]] = []
        for x, places in pairs:
            for start in range(0, min(len(places), left), _BATCH):
                rows = np.s_[start : min(start + _BATCH, left)]
                inputs = {k: np.asarray(v)[rows] for k, v in x.items()}
                found.append((inputs, places[rows]))
            left -= len(places)
            if left <= 0:
                break
        return cls(found)


def make_examples(
    student: Student,
    tokenizer: tokenizers.Tokenizer | None,
    held_out: Examples | Sequence[str] | None,
) -> Examples:
    """Makes the examples that an export is compared on.

    Texts become token ids, with masked words for a masked-LM student. Without
    a tokenizer the token ids are random. Two more batches hold one sequence
    each, of the shortest and of the greatest length.

    Args:
        student: the model to export.
        tokenizer: its tokenizer; None if the student has none.
        held_out: texts; None for some English sentences; or `Examples`, which
            are returned.

    Raises:
        ValueError: if texts are given without a tokenizer, or are empty.
    """
    if isinstance(held_out, Examples):
        return held_out
    if held_out is not None and (tokenizer is None or not len(held_out)):
        raise ValueError(
            "`held_out` must hold texts, and needs a `tokenizer`. Received: "
            f"{len(held_out)} texts, tokenizer={tokenizer}."
        )
    generator = np.random.default_rng(_SEED)
    words = student.model.backbone.vocabulary_size
    texts = list(_TEXTS if held_out is None else held_out)
    if tokenizer is None:
        length = min(16, student.max_length)
        batches = [_random_batch(generator, words, (_BATCH, length))]
    else:
        batches = _text_batches(student, tokenizer, texts)
    # The shortest sequence is [CLS] and [SEP].
    for length in (2, student.max_length):
        batches.append(_random_batch(generator, words, (1, length)))
    return Examples(
        [_with_places(student, tokenizer, batch) for batch in batches], texts
    )


def text_examples(
    student: Student, tokenizer: tokenizers.Tokenizer, texts: Sequence[str]
) -> Examples:
    """Makes examples of texts alone, with masked words for a masked-LM."""
    batches = _text_batches(student, tokenizer, list(texts))
    return Examples(
        [_with_places(student, tokenizer, batch) for batch in batches], texts
    )


def cut(examples: Examples, length: int) -> Examples:
    """Shortens all sequences to a length that an export takes.

    Args:
        examples: as from `make_examples`.
        length: int, tokens to keep of each sequence.
    """
    kept = np.s_[:, :length]
    return dataclasses.replace(
        examples,
        batches=[
            (
                {name: values[kept] for name, values in batch.items()},
                places[kept],
            )
            for batch, places in examples.batches
        ],
    )


def _text_batches(
    student: Student, tokenizer: tokenizers.Tokenizer, texts: list[str]
) -> list[Arrays]:
    return [
        data.encode_texts(
            tokenizer, texts[start : start + _BATCH], student.max_length
        )
        for start in range(0, len(texts), _BATCH)
    ]


def _random_batch(
    generator: np.random.Generator, words: int, shape: tuple[int, int]
) -> Arrays:
    return {
        "token_ids": generator.integers(0, words, shape, np.int32),
        "padding_mask": np.ones(shape, np.int32),
    }


def _with_places(
    student: Student, tokenizer: tokenizers.Tokenizer | None, batch: Arrays
) -> tuple[Arrays, np.ndarray]:
    """Masks some words if the student is a masked-LM."""
    if student.kind != MASKED_LM or tokenizer is None:
        return batch, batch["padding_mask"] > 0
    count = len(batch["token_ids"])
    seeds = np.stack([np.full(count, _SEED), np.arange(count)], axis=1)
    token_ids, chosen = data.mask_tokens(
        tf.constant(batch["token_ids"]),
        tf.constant(seeds),
        special=data.SpecialTokens.from_tokenizer(tokenizer),
        vocabulary_size=data.vocabulary_size(tokenizer),
        rate=_RATE,
    )
    return {**batch, "token_ids": token_ids.numpy()}, chosen.numpy() > 0


def compare(
    student: Student, examples: Examples, artifact: Runner
) -> Comparison:
    """Runs the student and the export on all examples.

    Args:
        student: the Keras model.
        examples: the examples to run them on.
        artifact: the export as read back by its own runtime: a function from
            the student's inputs to outputs by name, arrays or tensors.

    Raises:
        ValueError: if the student's own outputs are not finite.
    """
    distances: dict[str, Distance] = {}
    agreed, decisions = 0, 0
    for batch, places in examples.batches:
        inputs = full_inputs(student, batch)
        expected = _arrays(student.outputs(inputs))
        found = _arrays(artifact(inputs))
        for name, ours in expected.items():
            real = _real(ours, batch["padding_mask"])
            if not np.isfinite(ours[real]).all():
                raise ValueError(
                    f"The student's own {name} are not finite: it can not be "
                    "exported. Look for the step at which it diverged."
                )
            distance = distances.setdefault(name, Distance())
            distance.add(_rows(ours[real]), _rows(found[name][real]))
        for ours, theirs in zip(
            _decisions(student, expected, batch, places),
            _decisions(student, found, batch, places),
            strict=True,
        ):
            agreed += int((ours == theirs).sum())
            decisions += ours.size
    measured = list(distances.values())
    values = sum(distance.values for distance in measured)
    total = sum(distance.total for distance in measured)
    score, student_score = None, None
    if examples.score is not None:
        score = examples.score(_task_outputs(student, artifact))
        student_score = examples.score(_task_outputs(student, student.outputs))
    return Comparison(
        # Unlike Python's `max`, NumPy's keeps NaN.
        max_difference=float(np.max([d.largest for d in measured])),
        mean_difference=total / max(values, 1),
        top1_agreement=agreed / decisions if decisions else None,
        decisions=decisions,
        spread_share=float(np.max([d.spread_share for d in measured])),
        cosine=(
            measured[0].lowest_cosine
            if student.kind == SENTENCE_EMBEDDING
            else None
        ),
        score=score,
        student_score=student_score,
        scored=None if examples.score is None else examples.scored,
        is_error=examples.score is not None and examples.is_error,
        are_logits=student.kind not in (SENTENCE_EMBEDDING, "regression"),
    )


def _rows(output: np.ndarray) -> np.ndarray:
    """Reshapes outputs to one row per text or token, (rows, columns)."""
    return output.reshape(len(output), -1)


def _task_outputs(student: Student, runner: Runner) -> OutputFunction:
    """Wraps a runner to return one array, as evaluators expect."""

    def run(inputs: Arrays) -> np.ndarray:
        found = _arrays(runner(full_inputs(student, inputs)))
        if student.kind == "regression":
            return found["score"][:, np.newaxis]
        if student.kind == SENTENCE_EMBEDDING:
            return found["embedding"]
        if student.kind == "span":
            ends = found["start_logits"], found["end_logits"]
            return np.stack(ends, axis=-1)
        return found["logits"]

    return run


def full_inputs(student: Student, batch: Arrays) -> Arrays:
    """Adds segment ids of zeros if the encoder reads segments."""
    zeros = np.zeros_like(batch["token_ids"])
    return {name: batch.get(name, zeros) for name in student.input_names}


def _arrays(outputs: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(value) for name, value in outputs.items()}


def _real(output: np.ndarray, padding_mask: np.ndarray) -> Any:
    """Returns the outputs at non-padding positions."""
    by_token = output.shape[:2] == padding_mask.shape
    return padding_mask > 0 if by_token else np.s_[:]


def _decisions(
    student: Student, outputs: Arrays, batch: Arrays, places: np.ndarray
) -> Iterator[np.ndarray]:
    """First choices, int; empty for outputs that choose nothing."""
    if student.kind in (MASKED_LM, "token_classification"):
        yield outputs["logits"][places].argmax(axis=-1)
    elif student.kind == "classification":
        yield outputs["logits"].argmax(axis=-1)
    elif student.kind == "multi_label":
        yield outputs["logits"] > 0.0
    elif student.kind == "span":
        for name in ("start_logits", "end_logits"):
            real = batch["padding_mask"] > 0
            yield np.where(real, outputs[name], -np.inf).argmax(axis=-1)


def first_difference(
    student: Student,
    examples: Examples,
    artifact_layers: Runner,
    tolerance: Tolerance,
) -> str:
    """Describes the layer at which an export starts to differ.

    Args:
        student: the Keras model.
        examples: the examples, of which the first batch is run.
        artifact_layers: the export's counterpart of `Student.layers`.
        tolerance: the smallest difference that counts.
    """
    batch, _ = examples.batches[0]
    inputs = full_inputs(student, batch)
    real = batch["padding_mask"] > 0
    ours = _arrays(student.layers(inputs))
    theirs = _arrays(artifact_layers(inputs))
    before = 0.0
    for name, states in ours.items():
        difference = np.abs(states[real] - theirs[name][real]).max()
        if not difference <= tolerance.max_difference:
            return (
                f"It starts at `{name}`, whose output is off by "
                f"{difference:.2g}; before, by at most {before:.2g}."
            )
        before = max(before, float(difference))
    return (
        "It starts in the head, after the last layer: the hidden states are "
        f"off by at most {before:.2g}."
    )
