"""Finds the best answer spans from a model's logits."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from keras_distil.data.tasks.squad import SquadExample
from keras_distil.data.tasks.squad_windows import SquadWindows
from keras_distil.utils.checks import check_count


@dataclasses.dataclass(frozen=True)
class AnswerSpan:
    """A span of a context.

    Attributes:
        text: the span.
        start: index of its first character.
        end: index after its last character.
        score: logit of its first token as a start plus logit of its last
            token as an end.
    """

    text: str
    start: int
    end: int
    score: float


@dataclasses.dataclass(frozen=True)
class AnswerPrediction:
    """A model's answer to a question.

    Attributes:
        text: the answer, or "" for none.
        start: index of its first character in the context, or -1.
        end: index after its last character, or -1.
        score: score of the best span; minus infinity if there is no span.
        n_best: the best spans, the best one first.
        no_answer_score: sum of both logits of [CLS], the lowest over all
            windows: a question has no answer if no window has one.
    """

    text: str
    start: int
    end: int
    score: float
    n_best: tuple[AnswerSpan, ...]
    no_answer_score: float

    @property
    def no_answer_odds(self) -> float:
        """The score of no answer minus that of the best span."""
        return self.no_answer_score - self.score


def best_answers(
    examples: Sequence[SquadExample],
    windows: SquadWindows,
    start_logits: Sequence[np.ndarray] | np.ndarray,
    end_logits: Sequence[np.ndarray] | np.ndarray,
    *,
    n_best: int = 20,
    max_answer_tokens: int = 30,
    no_answer_threshold: float | None = None,
) -> list[AnswerPrediction]:
    """Finds the best span of each context, over all of its windows.

    A span that lies in several windows counts in one of them: the one in
    which the smaller of the token counts before and after it is largest (if
    equal, the first). There the model sees the most context.

    Args:
        examples: the questions.
        windows: their windows, from `make_squad_windows`.
        start_logits: for each window, float, (length,), or longer if padded.
        end_logits: likewise.
        n_best: maximum spans returned per question.
        max_answer_tokens: maximum tokens per span.
        no_answer_threshold: a question is left without an answer if the
            no-answer score exceeds the best span's by more than this.
            With None, all are answered.

    Returns:
        A prediction per example, in their order.

    Raises:
        ValueError: if the windows are not those of the examples, logits are
            missing or not finite, or a number is below 1.

    Reference:
        Devlin et al. 2018, arXiv:1810.04805, sections 4.2 and 4.3, and its
        code https://github.com/google-research/bert/blob/master/run_squad.py
        Differs: the window is chosen by the whole span, not by its first
        token; all starts and ends are tried, not the best 20 of each.
    """
    check_count("n_best", n_best)
    check_count("max_answer_tokens", max_answer_tokens)
    _check_logits(windows, start_logits, "start_logits")
    _check_logits(windows, end_logits, "end_logits")
    predictions = []
    for example, chosen in zip(
        examples, _group_windows(windows, len(examples)), strict=True
    ):
        stretches = [_Stretch.of(windows, w) for w in chosen]
        spans = []
        for k, w in enumerate(chosen):
            scores = _span_scores(
                stretches[k].cut(start_logits[w]),
                stretches[k].cut(end_logits[w]),
                max_answer_tokens,
            )
            scores[~_is_best_window(stretches, k, scores.shape)] = -np.inf
            offsets = stretches[k].cut(windows.offsets[w])
            spans += _best_spans(scores, offsets, n_best)
        no_answer_score = min(
            float(start_logits[w][0]) + float(end_logits[w][0]) for w in chosen
        )
        predictions.append(
            _make_prediction(
                example.context,
                sorted(spans, key=lambda span: -span[0])[:n_best],
                no_answer_score,
                no_answer_threshold,
            )
        )
    return predictions


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """The tokens of a context that a window holds.

    `first` is the first token's index in the context, `position` its position
    in the window.
    """

    first: int
    tokens: int
    position: int

    @classmethod
    def of(cls, windows: SquadWindows, window: int) -> "_Stretch":
        inside = np.flatnonzero(windows.offsets[window][:, 0] >= 0)
        position = int(inside[0]) if len(inside) else 0
        return cls(int(windows.first_token[window]), len(inside), position)

    def cut(self, values: np.ndarray) -> np.ndarray:
        """Returns the values that belong to the context's tokens."""
        return np.asarray(values)[self.position : self.position + self.tokens]

    def around(self, other: "_Stretch", shape: tuple[int, int]) -> np.ndarray:
        """Returns the smaller token count before or after spans of `other`.

        It is negative for spans not wholly in this stretch.

        Args:
            other: the stretch in whose tokens spans are counted.
            shape: number of starts, maximum tokens per span.

        Returns:
            Integers, `shape`: by first token and by further tokens.
        """
        starts = np.arange(shape[0])[:, None] + (other.first - self.first)
        ends = starts + np.arange(shape[1])
        return np.minimum(starts, self.tokens - 1 - ends)


def _span_scores(
    start: np.ndarray, end: np.ndarray, max_tokens: int
) -> np.ndarray:
    """Returns scores by first token and further tokens; -inf past the end."""
    if not len(start):
        return np.empty((0, max_tokens))
    padded = np.full(len(end) + max_tokens - 1, -np.inf)
    padded[: len(end)] = end
    ends = np.lib.stride_tricks.sliding_window_view(padded, max_tokens)
    return start.astype(np.float64)[:, None] + ends


def _is_best_window(
    stretches: list[_Stretch], chosen: int, shape: tuple[int, int]
) -> np.ndarray:
    """Checks which spans have the most context in the chosen window.

    From window to window, the smaller of the counts before and after a span
    rises, then falls: comparing with the neighbouring windows is enough.
    """
    stretch = stretches[chosen]
    around = stretch.around(stretch, shape)
    best = around >= 0
    if chosen > 0:
        best &= around > stretches[chosen - 1].around(stretch, shape)
    if chosen + 1 < len(stretches):
        best &= around >= stretches[chosen + 1].around(stretch, shape)
    return best


# Score, first character, index after the last character.
_Span = tuple[float, int, int]


def _best_spans(
    scores: np.ndarray, offsets: np.ndarray, n_best: int
) -> list[_Span]:
    """Returns the best spans of a window, the best one first."""
    flat = scores.ravel()
    selected = np.flatnonzero(flat > -np.inf)
    if len(selected) > n_best:
        least = np.partition(flat[selected], -n_best)[-n_best]
        selected = selected[flat[selected] >= least]
    # Of equal scores, the first in the text.
    selected = selected[np.argsort(-flat[selected], kind="stable")][:n_best]
    first, further = np.divmod(selected, scores.shape[1])
    starts = offsets[first, 0].tolist()
    ends = offsets[first + further, 1].tolist()
    return list(zip(flat[selected].tolist(), starts, ends, strict=True))


def _make_prediction(
    context: str,
    spans: list[_Span],
    no_answer_score: float,
    no_answer_threshold: float | None,
) -> AnswerPrediction:
    n_best = tuple(
        AnswerSpan(context[start:end], start, end, score)
        for score, start, end in spans
    )
    score = n_best[0].score if n_best else -math.inf
    if not n_best or (
        no_answer_threshold is not None
        and no_answer_score - score > no_answer_threshold
    ):
        return AnswerPrediction("", -1, -1, score, n_best, no_answer_score)
    best = n_best[0]
    return AnswerPrediction(
        best.text, best.start, best.end, score, n_best, no_answer_score
    )


def _group_windows(windows: SquadWindows, examples: int) -> list[range]:
    """Returns the windows of each example."""
    bounds = np.searchsorted(windows.example, np.arange(examples + 1))
    if bounds[-1] != len(windows) or (np.diff(bounds) < 1).any():
        raise ValueError(
            "`windows` must be those of `examples`. Received: windows of "
            f"{len(np.unique(windows.example))} examples for {examples}."
        )
    return [range(*pair) for pair in itertools.pairwise(bounds.tolist())]


def _check_logits(
    windows: SquadWindows,
    logits: Sequence[np.ndarray] | np.ndarray,
    name: str,
) -> None:
    if len(logits) != len(windows):
        raise ValueError(
            f"`{name}` must be given for each of {len(windows)} windows. "
            f"Received: {len(logits)}."
        )
    for w, ids in enumerate(windows.token_ids):
        shape = np.shape(logits[w])
        if len(shape) != 1 or shape[0] < len(ids):
            raise ValueError(
                f"`{name}` must have a logit for each token of a window, "
                f"here ({len(ids)},). Received: shape={shape} for window {w}."
            )
        if not np.isfinite(logits[w][: len(ids)]).all():
            raise ValueError(
                f"`{name}` must be finite. Received one of window {w} that "
                "is not."
            )
