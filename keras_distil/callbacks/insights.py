"""Compares student and teacher on some examples during training."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tokenizers
from matplotlib.figure import Figure

from keras_distil.data.special_tokens import framing_ids
from keras_distil.models import forward
from keras_distil.training.objectives import MaskedLMBatch
from keras_distil.training.objectives.batch_checks import limits_of
from keras_distil.training.objectives.teachers import list_teachers
from keras_distil.utils import token_roles
from keras_distil.utils.markdown import escape

# Words shown per sequence, and tokens shown around each.
_WORDS = 3
_AROUND = 8
SEQUENCES = 8
_TOP = 5


@dataclasses.dataclass(frozen=True)
class MaskedWord:
    """A masked word, and both models' predictions for it.

    Attributes:
        before: the text before it.
        after: the text after it.
        word: the masked word.
        teacher: the teacher's top choices and probabilities, best first.
        student: the student's top choices and probabilities.
    """

    before: str
    after: str
    word: str
    teacher: list[tuple[str, float]]
    student: list[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class Look:
    """The result of one look.

    Attributes:
        cka: linear CKA of each of the student's hidden states, embeddings
            first, with the teacher's at the same relative depth.
        cosine: likewise the mean cosine; None if the widths differ.
        confidence: probability of the teacher's first choice, (masked words,).
        divergence: KL divergence of the student from the teacher at
            temperature 1 in nats, (masked words,).
        words: some masked words with both models' choices.
    """

    cka: list[float]
    cosine: list[float] | None
    confidence: np.ndarray
    divergence: np.ndarray
    words: list[MaskedWord]


class Examples:
    """A batch of masked text on which teacher and student are compared.

    Args:
        teacher: a masked-LM model, or a list of several: their predictions
            are the mean of their probabilities, and the layers are those of
            the first.
        student: a masked-LM model with the same vocabulary.
        triple: inputs, original tokens, and weights that are positive at
            masked positions; (batch, length).
        tokenizer: the tokenizer of their vocabulary.
        samples: int >= 0, number of sequences with words to show.
    """

    def __init__(
        self,
        teacher: keras.Model | Sequence[keras.Model],
        student: keras.Model,
        triple: tuple[dict[str, Any], Any, Any],
        tokenizer: tokenizers.Tokenizer,
        *,
        samples: int = SEQUENCES,
    ) -> None:
        self._samples = samples
        teachers = list_teachers(teacher)
        self._models = {"teacher": teachers, "student": [student]}
        batch = MaskedLMBatch.from_triple(
            triple, limits_of([*teachers, student])
        )
        self._inputs = {k: np.asarray(v) for k, v in batch.inputs.items()}
        self._targets = np.asarray(batch.targets)
        self._masked = np.asarray(batch.mask_weight) > 0
        self._tokenizer = tokenizer
        self._frame = framing_ids(tokenizer)
        self._cut = {
            name: keras.Model(
                first.backbone.input,
                list(forward.states_by_layer(first).values()),
            )
            for name, (first, *_) in self._models.items()
        }
        counts = [len(cut.outputs) - 1 for cut in self._cut.values()]
        self.pairs = matched_layers(*counts)

    def look(self) -> Look:
        """Runs both models, without dropout."""
        states = {name: self._states(name) for name in self._models}
        pairs = [
            (states["teacher"][upper], states["student"][lower])
            for lower, upper in enumerate(self.pairs)
        ]
        places = np.argwhere(self._masked)
        teacher = self._log_probabilities("teacher", places)
        student = self._log_probabilities("student", places)
        shown = self._shown(places)
        return Look(
            cka=[linear_cka(*pair) for pair in pairs],
            cosine=(
                [mean_cosine(*pair) for pair in pairs]
                if pairs[0][0].shape == pairs[0][1].shape
                else None
            ),
            confidence=np.exp(teacher.max(axis=-1)),
            divergence=np.sum(np.exp(teacher) * (teacher - student), axis=-1),
            words=self._words(places[shown], teacher[shown], student[shown]),
        )

    def similarities(self) -> np.ndarray:
        """Returns the linear CKA of all layers, embeddings first.

        Returns:
            float64, (teacher's layers + 1, student's layers + 1).
        """
        return cka_of_all(self._states("teacher"), self._states("student"))

    def masked_words(self) -> list[MaskedWord]:
        """Returns up to three masked words of each of the first sequences."""
        places = np.argwhere(self._masked)
        places = places[self._shown(places)]
        if not len(places):
            return []
        return self._words(
            places,
            self._log_probabilities("teacher", places),
            self._log_probabilities("student", places),
        )

    def _states(self, name: str) -> list[np.ndarray]:
        """Returns the hidden states of real tokens after every layer."""
        inputs = forward.encoder_inputs(self._models[name][0], self._inputs)
        real = self._inputs["padding_mask"] > 0
        return [
            tf.cast(states, tf.float32).numpy()[real]
            for states in self._cut[name](inputs, training=False)
        ]

    def _log_probabilities(self, name: str, places: np.ndarray) -> np.ndarray:
        """Log probabilities at (row, place), float32, (words, vocabulary)."""
        each = [self._predict(model, places) for model in self._models[name]]
        if len(each) == 1:
            return each[0]
        return np.logaddexp.reduce(each, axis=0) - np.float32(np.log(len(each)))

    def _predict(self, model: keras.Model, places: np.ndarray) -> np.ndarray:
        states = forward.encode(model, self._inputs, training=False)
        rows = np.ravel_multi_index(places.T, self._masked.shape)
        projection = forward.project(
            model, forward.gather_rows(states, tf.constant(rows))
        )
        if projection.kernel is not None:
            # Shown to several digits, so half precision would not do.
            projection = projection._replace(
                features=tf.cast(projection.features, tf.float32),
                kernel=tf.cast(projection.kernel, tf.float32),
            )
        products = tf.cast(projection.products(), tf.float32)
        logits = products + projection.bias
        return tf.nn.log_softmax(logits).numpy()

    def _shown(self, places: np.ndarray) -> list[int]:
        """Returns the indices of the masked words to show."""
        counts: dict[int, int] = {}
        shown = []
        for index, (row, _) in enumerate(places):
            if row < self._samples and counts.get(row, 0) < _WORDS:
                counts[row] = counts.get(row, 0) + 1
                shown.append(index)
        return shown

    def _words(
        self, places: np.ndarray, teacher: np.ndarray, student: np.ndarray
    ) -> list[MaskedWord]:
        return [
            MaskedWord(
                *self._context(row, place),
                word=self._word(self._targets[row, place]),
                teacher=self._choices(of_teacher),
                student=self._choices(of_student),
            )
            for (row, place), of_teacher, of_student in zip(
                places, teacher, student, strict=True
            )
        ]

    def _context(self, row: int, place: int) -> tuple[str, str]:
        """Returns the text around a masked word, including other masks."""
        ids = self._inputs["token_ids"][row]
        real = int(self._inputs["padding_mask"][row].sum())
        before = ids[max(place - _AROUND, 0) : place]
        behind = ids[place + 1 : min(place + 1 + _AROUND, real)]
        return self._text(before), self._text(behind)

    def _text(self, token_ids: np.ndarray) -> str:
        words = [i for i in token_ids.tolist() if i not in self._frame]
        return self._tokenizer.decode(words, skip_special_tokens=False)

    def _choices(
        self, log_probabilities: np.ndarray
    ) -> list[tuple[str, float]]:
        best = np.argsort(log_probabilities)[::-1][:_TOP]
        return [
            (self._word(token), float(np.exp(log_probabilities[token])))
            for token in best
        ]

    def _word(self, token_id: int) -> str:
        return token_roles.spell(self._tokenizer, int(token_id)) or "?"


def to_markdown(words: Sequence[MaskedWord]) -> str:
    """Returns a Markdown table, with masked words in bold.

    They have no column of their own, as TensorBoard breaks words in narrow
    ones.
    """
    lines = ["| text | teacher | student |", "| --- | --- | --- |"]
    for each in words:
        before, after = escape(each.before), escape(each.after)
        cells = [f"{before} **{escape(each.word)}** {after}"]
        for choices in (each.teacher, each.student):
            shown = [f"{escape(x)} {100 * p:.0f}%" for x, p in choices]
            cells.append(", ".join(shown))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def matched_layers(teacher: int, student: int) -> list[int]:
    """Pairs the student's hidden states with the teacher's, by depth.

    Args:
        teacher: int, number of the teacher's layers.
        student: int, number of the student's layers.

    Returns:
        The teacher's index for the student's embeddings and each layer.
    """
    return [round(index * teacher / student) for index in range(student + 1)]


def linear_cka(one: np.ndarray, other: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of hidden states.

    It is 1 if one is a rotation of the other at any scale, and 0 if they have
    nothing in common.

    Args:
        one: (tokens, width).
        other: (tokens, width), the same tokens; the width may differ.

    Reference:
        Kornblith et al. 2019, arXiv:1905.00414.
    """
    return float(cka_of_all([one], [other])[0, 0])


def cka_of_all(
    ones: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> np.ndarray:
    """Linear CKA between all pairs from two lists of hidden states.

    Args:
        ones: hidden states, (tokens, width) each.
        others: hidden states of the same tokens.

    Returns:
        float64, (ones, others), from 0 to 1.
    """
    centred = [
        [states - states.mean(axis=0) for states in sets]
        for sets in (ones, others)
    ]
    own = [[np.linalg.norm(x.T @ x) for x in sets] for sets in centred]
    found = np.zeros((len(ones), len(others)))
    for row, x in enumerate(centred[0]):
        for column, y in enumerate(centred[1]):
            product = own[0][row] * own[1][column]
            if product:
                common = np.square(np.linalg.norm(x.T @ y))
                # Rounding may take it beyond 1.
                found[row, column] = min(common / product, 1.0)
    return found


def mean_cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Mean cosine of the angle between hidden states of the same tokens."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(
        np.mean(np.sum(one * other, axis=1) / np.maximum(norms, 1e-12))
    )


def draw_layers(
    steps: Sequence[int],
    looks: Mapping[str, Sequence[Sequence[float]]],
    pairs: Sequence[int],
) -> np.ndarray:
    """Draws a heat map of similarities, layers by steps.

    Args:
        steps: number of updates before each look.
        looks: by kind of similarity, one value per layer for each look.
        pairs: the teacher's layer for each of the student's.

    Returns:
        uint8, (1, height, width, 4).
    """
    # TensorBoard shows it about 300 pixels wide.
    size = 5, 0.6 + (0.5 + 0.3 * len(pairs)) * len(looks)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(looks), 1, squeeze=False)[:, 0]
    names = [
        f"{lower} : teacher's {upper}" if lower else "embeddings"
        for lower, upper in enumerate(pairs)
    ]
    for panel, (title, values) in zip(panels, looks.items(), strict=True):
        grid = np.transpose(np.array(values, np.float64))
        drawn = panel.imshow(grid, vmin=0.0, vmax=1.0, aspect="auto")
        panel.set_title(title, loc="left")
        panel.set_yticks(range(len(names)), names)
        every = -(-len(steps) // 4)
        places = list(range(0, len(steps), every))
        panel.set_xticks(places, [f"{steps[place]:,}" for place in places])
        panel.invert_yaxis()
        for row, values_of_layer in enumerate(grid):
            _annotate(panel, row, values_of_layer)
        figure.colorbar(drawn, ax=panel)
    panels[-1].set_xlabel("updates")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return tf.io.decode_png(content.getvalue(), channels=4)[None].numpy()


def _annotate(panel: Any, row: int, values: np.ndarray) -> None:
    """Writes the first and the last value of a row at its ends."""
    ends = {0: (-0.4, "left"), len(values) - 1: (len(values) - 0.6, "right")}
    for place, (x, side) in ends.items():
        color = "white" if values[place] < 0.6 else "black"
        panel.text(
            x, row, f"{values[place]:.2f}", ha=side, va="center", color=color
        )
