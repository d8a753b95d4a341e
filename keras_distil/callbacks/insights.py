"""How a student sees some examples beside its teacher, while it learns."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tokenizers
from matplotlib.figure import Figure

from keras_distil.models import forward

# Of a sequence: words that are shown, and tokens around each.
_WORDS = 3
_AROUND = 8
_SEQUENCES = 8
_TOP = 5


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen in one look.

    Attributes:
        cka: by the student's hidden states, embeddings first, their linear
            CKA with the teacher's at the same share of its depth.
        cosine: likewise the mean cosine; None where the widths differ.
        confidence: of the teacher's first choice, (masked words,).
        divergence: KL of the student from the teacher at temperature 1 in
            nats, (masked words,).
        words: masked words with both models' choices, as a Markdown table.
    """

    cka: list[float]
    cosine: list[float] | None
    confidence: np.ndarray
    divergence: np.ndarray
    words: str


class Examples:
    """A batch of masked text through teacher and student.

    Args:
        teacher: a masked-LM model.
        student: one of the same vocabulary.
        triple: inputs, the tokens that were masked, and weights that are
            positive where one was; (batch, length).
        tokenizer: of their vocabulary.
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        triple: tuple[dict[str, Any], Any, Any],
        tokenizer: tokenizers.Tokenizer,
    ) -> None:
        self._models = {"teacher": teacher, "student": student}
        x, y, weight = triple
        names = ("token_ids", "padding_mask")
        self._inputs = {name: np.asarray(x[name]) for name in names}
        self._targets = np.asarray(y)
        self._masked = np.asarray(weight) > 0
        self._tokenizer = tokenizer
        self._cut = {
            name: keras.Model(
                model.backbone.input,
                list(forward.states_by_layer(model).values()),
            )
            for name, model in self._models.items()
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
        logits = {name: self._logits(name) for name in self._models}
        teacher = tf.nn.log_softmax(logits["teacher"]).numpy()
        student = tf.nn.log_softmax(logits["student"]).numpy()
        return Look(
            cka=[linear_cka(*pair) for pair in pairs],
            cosine=(
                [mean_cosine(*pair) for pair in pairs]
                if pairs[0][0].shape == pairs[0][1].shape
                else None
            ),
            confidence=np.exp(teacher.max(axis=-1)),
            divergence=np.sum(np.exp(teacher) * (teacher - student), axis=-1),
            words=self._table(teacher, student),
        )

    def _states(self, name: str) -> list[np.ndarray]:
        """Hidden states of real tokens after every layer."""
        inputs = forward.encoder_inputs(self._models[name], self._inputs)
        real = self._inputs["padding_mask"] > 0
        return [
            tf.cast(states, tf.float32).numpy()[real]
            for states in self._cut[name](inputs, training=False)
        ]

    def _logits(self, name: str) -> tf.Tensor:
        """Of the masked words, float32."""
        model = self._models[name]
        states = forward.encode(model, self._inputs, training=False)
        rows = tf.constant(np.flatnonzero(self._masked))
        projection = forward.project(model, forward.gather_rows(states, rows))
        products = tf.matmul(
            tf.cast(projection.features, tf.float32),
            tf.cast(projection.kernel, tf.float32),
            transpose_b=True,
        )
        return products + tf.cast(projection.bias, tf.float32)

    def _table(self, teacher: np.ndarray, student: np.ndarray) -> str:
        lines = [
            "| text | word | teacher | student |",
            "| --- | --- | --- | --- |",
        ]
        shown: dict[int, int] = {}
        for index, (row, place) in enumerate(np.argwhere(self._masked)):
            if row >= _SEQUENCES or shown.get(row, 0) == _WORDS:
                continue
            shown[row] = shown.get(row, 0) + 1
            cells = [
                self._context(row, place),
                self._word(self._targets[row, place]),
                *(
                    self._choices(scores[index])
                    for scores in (teacher, student)
                ),
            ]
            lines.append("| " + " | ".join(map(_cell, cells)) + " |")
        return "\n".join(lines)

    def _context(self, row: int, place: int) -> str:
        """The words around a masked one, which is three dots in brackets."""
        ids = self._inputs["token_ids"][row]
        real = int(self._inputs["padding_mask"][row].sum())
        before = ids[max(place - _AROUND, 0) : place]
        behind = ids[place + 1 : min(place + 1 + _AROUND, real)]
        texts = [
            self._tokenizer.decode(part.tolist()) for part in (before, behind)
        ]
        return f"{texts[0]} [...] {texts[1]}"

    def _choices(self, log_probabilities: np.ndarray) -> str:
        best = np.argsort(log_probabilities)[::-1][:_TOP]
        return ", ".join(
            f"{self._word(token)} {100 * np.exp(log_probabilities[token]):.0f}%"
            for token in best
        )

    def _word(self, token_id: int) -> str:
        return self._tokenizer.id_to_token(int(token_id)) or "?"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def matched_layers(teacher: int, student: int) -> list[int]:
    """The teacher's hidden states at the depths of the student's.

    Args:
        teacher: int, its layers.
        student: int, its layers.

    Returns:
        An index for the student's embeddings and each of its layers.
    """
    return [round(index * teacher / student) for index in range(student + 1)]


def linear_cka(one: np.ndarray, other: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of hidden states.

    1 if one is a rotation of the other, with any scale; 0 if they have nothing
    in common.

    Args:
        one: (tokens, width).
        other: (tokens, width), the same tokens; the width may differ.

    Reference:
        Kornblith et al. 2019, arXiv:1905.00414.
    """
    x, y = (states - states.mean(axis=0) for states in (one, other))
    common = np.square(np.linalg.norm(x.T @ y))
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(common / own) if own else 0.0


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
    """A heat map of similarities, layers by steps.

    Args:
        steps: updates before each look.
        looks: by the kind of similarity, for each look one value a layer.
        pairs: the teacher's layer of each of the student's.

    Returns:
        uint8, (1, height, width, 4).
    """
    # TensorBoard shows it some 300 pixels wide.
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
    """Writes the first and the last value at the ends of a row."""
    ends = {0: (-0.4, "left"), len(values) - 1: (len(values) - 0.6, "right")}
    for place, (x, side) in ends.items():
        color = "white" if values[place] < 0.6 else "black"
        panel.text(
            x, row, f"{values[place]:.2f}", ha=side, va="center", color=color
        )
