"""The tolerances of exports, and the check that enforces them."""

import dataclasses
import math
from collections.abc import Callable

# A bound on a share is applied as it stands if it allows so many differences.
# Below, one that is exceeded by chance in more than one of twenty exports of
# exactly the allowed quality is no reason to refuse one.
_ENOUGH = 5
_CHANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an export may differ from the student.

    Absolute bounds apply to logits, which have a fixed scale. Relative bounds
    apply to outputs of every kind.

    Attributes:
        max_difference: largest difference of any single logit.
        mean_difference: mean of the absolute differences of logits.
        top1_agreement: share of decisions that must be the same, 0 to 1.
        score_loss: how much lower its score on a development set may be; the
            score is between 0 and 1.
        spread_share: the root mean square of the differences, as a share of
            the standard deviation of the student's own outputs. Any constant
            output scores 1 or more; inf means no bound.
        cosine: lowest cosine of any embedding with the student's.
    """

    max_difference: float
    mean_difference: float
    top1_agreement: float
    score_loss: float = 0.005
    spread_share: float = 0.75
    cosine: float = 0.5


# By format and precision. `docs/export/gate.md` shows this table with the
# reasons; a test compares the two.
TOLERANCES = {
    ("saved_model", "float32"): Tolerance(
        1e-4, 1e-5, 0.999, spread_share=0.01, cosine=0.9999
    ),
    ("hugging_face", "float32"): Tolerance(
        1e-4, 1e-5, 0.999, spread_share=0.01, cosine=0.9999
    ),
    # KerasHub uses another epsilon in the masked-LM head and, in some
    # families, an approximate GELU.
    ("preset", "float32"): Tolerance(
        1e-2, 1e-3, 0.99, spread_share=0.05, cosine=0.999
    ),
    ("preset_approximate", "float32"): Tolerance(
        2e-1, 2e-2, 0.98, spread_share=0.1, cosine=0.99
    ),
    ("onnx", "float32"): Tolerance(
        1e-4, 1e-5, 0.999, spread_share=0.01, cosine=0.9999
    ),
    ("static_table", "int8"): Tolerance(
        1e-1, 1e-2, 0.999, spread_share=0.05, cosine=0.999
    ),
    ("litert", "float32"): Tolerance(
        1e-3, 1e-4, 0.999, spread_share=0.01, cosine=0.9999
    ),
    ("litert", "float16"): Tolerance(
        1e-1, 1e-2, 0.995, spread_share=0.02, cosine=0.999
    ),
    ("litert", "dynamic_int8"): Tolerance(
        3.0, 0.3, 0.965, 0.01, spread_share=0.3, cosine=0.97
    ),
    ("litert", "full_int8"): Tolerance(
        6.0, 0.6, 0.95, 0.02, spread_share=0.6, cosine=0.8
    ),
    ("litert", "int4"): Tolerance(
        6.0, 0.6, 0.95, 0.02, spread_share=0.6, cosine=0.8
    ),
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How far an export differs from the student.

    Attributes:
        max_difference: largest absolute difference of any output.
        mean_difference: mean absolute difference.
        top1_agreement: share of equal first choices: words at masked
            positions, classes, starts and ends; None if nothing is chosen.
        decisions: the number of choices.
        spread_share: root mean square of the differences, as a share of the
            standard deviation of the student's outputs; the largest one if
            there are several outputs.
        cosine: lowest cosine of an embedding with the student's; None for
            other outputs.
        score: on the development set, 0 to 1, or an error counted negative;
            None without one.
        student_score: the student's score.
        are_logits: whether the outputs have a fixed scale; embeddings and the
            scores of a regression do not.
        scored: number of examples of which the score is a share; None if it is
            no share, or if that is unknown.
        is_error: whether the score is an error, counted negative.
    """

    max_difference: float
    mean_difference: float
    top1_agreement: float | None
    decisions: int
    score: float | None = None
    student_score: float | None = None
    spread_share: float = 0.0
    cosine: float | None = None
    are_logits: bool = True
    scored: int | None = None
    is_error: bool = False

    @property
    def score_loss(self) -> float:
        """How much lower the score is than the student's."""
        if self.score is None or self.student_score is None:
            return 0.0
        return self.student_score - self.score

    def __str__(self) -> str:
        """Returns the figures, for messages."""
        text = (
            f"max difference {self.max_difference:.2g}, "
            f"mean {self.mean_difference:.2g}"
        )
        if self.top1_agreement is not None:
            text += (
                f", top-1 agreement {100 * self.top1_agreement:.2f}% of "
                f"{self.decisions}"
            )
        if not self.are_logits:
            text += f", {_percent(self.spread_share)} of their spread"
        if self.cosine is not None:
            text += f", lowest cosine {self.cosine:.4f}"
        if self.score is not None and self.student_score is not None:
            name = "error" if self.is_error else "score"
            text += (
                f", {name} {self._shown(self.score)} of the student's "
                f"{self._shown(self.student_score)}"
            )
        return text

    def _shown(self, score: float) -> str:
        """Formats a score: in percent, or the error itself."""
        return f"{-score:z.3f}" if self.is_error else f"{100 * score:.1f}"


class ParityError(RuntimeError):
    """An export differs from the student more than its tolerance allows.

    Attributes:
        comparison: the measured differences.
    """

    def __init__(self, message: str, comparison: Comparison) -> None:
        super().__init__(message)
        self.comparison = comparison


def check(
    comparison: Comparison,
    tolerance: Tolerance,
    *,
    what: str,
    origin: Callable[[], str],
) -> None:
    """Raises ParityError unless an export is close enough.

    Args:
        comparison: as from `compare`.
        tolerance: largest allowed difference.
        what: the export's name, for the message.
        origin: called to find where the difference starts; see
            `first_difference`.

    Raises:
        ParityError: with the differences and where they start.
    """
    if _is_within(comparison, tolerance):
        return
    spread = ""
    if comparison.are_logits:
        spread = f", {_percent(comparison.spread_share)} of their spread"
    raise ParityError(
        f"{what} is not the student: {comparison}{spread} "
        f"(allowed: {_allowed(comparison, tolerance)}). "
        f"{origin()} It is not kept; what was there before is.",
        comparison,
    )


def _is_within(comparison: Comparison, tolerance: Tolerance) -> bool:
    cosine = comparison.cosine
    largest, mean = math.inf, math.inf
    # Without a fixed scale, an absolute bound would pass everything or nothing.
    if comparison.are_logits:
        largest, mean = tolerance.max_difference, tolerance.mean_difference
    # Written so that NaN fails.
    return (
        comparison.max_difference <= largest
        and comparison.mean_difference <= mean
        and (cosine is None or cosine >= tolerance.cosine)
        and comparison.spread_share <= tolerance.spread_share
        and not any(each.is_refused for each in _shares(comparison, tolerance))
    )


@dataclasses.dataclass(frozen=True)
class _Share:
    """A share of examples that an export may change.

    Attributes:
        found: the share that changed.
        allowed: the largest one.
        count: the number of examples; None if it is unknown.
        what: what is counted, for messages.
    """

    found: float
    allowed: float
    count: int | None
    what: str

    @property
    def is_refused(self) -> bool:
        """Whether it is above the bound, and not by chance."""
        # Written so that NaN is refused.
        return not self.found <= self.allowed and not self.is_chance

    @property
    def is_chance(self) -> bool:
        """Whether so few examples exceed the bound too easily to judge."""
        if self.count is None or not self.found > self.allowed:
            return False
        if self.count * self.allowed >= _ENOUGH:
            return False
        changed = math.ceil(self.found * self.count - 1e-6)
        return _chance_of(changed, self.count, self.allowed) >= _CHANCE


def _chance_of(changed: int, count: int, share: float) -> float:
    """Probability that so many or more of some examples change.

    Args:
        changed: how many.
        count: the number of examples.
        share: the probability that one changes, by itself.
    """
    return 1.0 - sum(
        math.comb(count, few) * share**few * (1.0 - share) ** (count - few)
        for few in range(changed)
    )


def _shares(comparison: Comparison, tolerance: Tolerance) -> list[_Share]:
    """The shares that a comparison has found."""
    shares = [
        _Share(
            comparison.score_loss,
            tolerance.score_loss,
            comparison.scored,
            "examples of the development set",
        )
    ]
    if comparison.top1_agreement is not None:
        shares.append(
            _Share(
                1.0 - comparison.top1_agreement,
                1.0 - tolerance.top1_agreement,
                comparison.decisions,
                "choices",
            )
        )
    return shares


def find_unjudged(comparison: Comparison, tolerance: Tolerance) -> str | None:
    """Says which bounds could not be judged, on too few examples.

    Args:
        comparison: as from `compare`, and within the tolerance.
        tolerance: largest allowed difference.

    Returns:
        A sentence; None if all bounds were judged.
    """
    few = [
        f"{_percent(each.found)} of {each.count} {each.what} "
        f"(allowed: {_percent(each.allowed)})"
        for each in _shares(comparison, tolerance)
        if each.is_chance
    ]
    if not few:
        return None
    return (
        f"Too few examples to judge the export by: it changes "
        f"{' and '.join(few)}, which may be chance. Compare it on more."
    )


def _allowed(comparison: Comparison, tolerance: Tolerance) -> str:
    """The bounds that apply to a comparison, for messages."""
    bounds = []
    if comparison.are_logits:
        bounds += [
            f"at most {tolerance.max_difference:g}",
            f"mean {tolerance.mean_difference:g}",
        ]
    if comparison.top1_agreement is not None:
        bounds.append(f"at least {100 * tolerance.top1_agreement:g}%")
    if comparison.cosine is not None:
        bounds.append(f"cosine at least {tolerance.cosine:g}")
    bounds.append(f"{_percent(tolerance.spread_share)} of their spread")
    if comparison.score is not None:
        bounds.append(
            f"an error larger by {tolerance.score_loss:g}"
            if comparison.is_error
            else f"{100 * tolerance.score_loss:g} points less"
        )
    return ", ".join(bounds)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"
