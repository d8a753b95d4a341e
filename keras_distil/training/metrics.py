"""The names, captions and units of all values that are logged or reported.

Captions of scores and costs are here; those of losses are in their classes.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Literal

from keras_distil.losses import registry

if TYPE_CHECKING:
    from keras_distil.losses import DistillationLoss


def _decimals(digits: int, factor: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{factor * value:.{digits}f}"


def _capitalized(text: str) -> str:
    # Names such as nDCG keep their form.
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def format_count(number: float) -> str:
    """Formats a number of parameters, in millions or thousands."""
    if number >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.1f} k" if number >= 1e3 else f"{number:.0f}"


def format_amount(number: float) -> str:
    """Formats megabytes, milliseconds and ratios: 3 digits or one decimal."""
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A value that is logged or reported.

    Attributes:
        name: name of the log, and the key in files.
        caption: name for readers.
        unit: unit of the formatted value; empty for none.
        better: whether more or less is better; None if neither.
        format: function that formats a value, without the unit.
    """

    name: str
    caption: str
    unit: str = ""
    better: Literal["up", "down"] | None = None
    format: Callable[[float], str] = _decimals(3)

    @property
    def title(self) -> str:
        """The caption with the unit, for a column or a chart."""
        title = _capitalized(self.caption)
        return f"{title}, {self.unit}" if self.unit else title

    @property
    def chart_title(self) -> str:
        """The title of a chart of the logged values."""
        return _capitalized(self.caption) if self.unit == "%" else self.title


_PERCENT = _decimals(1, 100.0)
_PERCENT_2 = _decimals(2, 100.0)
_METRICS = {
    metric.name: metric
    for metric in (
        Metric("loss", "weighted sum of the losses", better="down"),
        Metric("mlm_accuracy", "masked-word accuracy", "%", "up", _PERCENT),
        Metric("accuracy", "accuracy", "%", "up", _PERCENT),
        Metric(
            "teacher_agreement",
            "agreement with the teacher",
            "%",
            "up",
            _PERCENT,
        ),
        Metric("sts_spearman", "STS, Spearman", "%", "up", _PERCENT_2),
        Metric("sts_pearson", "STS, Pearson", "%", "up", _PERCENT_2),
        Metric("ndcg@10", "nDCG@10", "%", "up", _PERCENT_2),
        Metric("recall@1", "recall@1", "%", "up", _PERCENT_2),
        Metric("recall@10", "recall@10", "%", "up", _PERCENT_2),
        Metric("recall@100", "recall@100", "%", "up", _PERCENT_2),
        Metric("mrr@10", "MRR@10", "%", "up", _PERCENT_2),
        Metric("mean_absolute_error", "mean absolute error", better="down"),
        Metric("gradient_norm", "norm of the gradient"),
        Metric("learning_rate", "learning rate", format="{:.3g}".format),
        Metric("temperature", "temperature"),
        Metric(
            "texts_per_second", "texts per second", "", "up", "{:,.0f}".format
        ),
        Metric("tokens_per_second", "tokens per second", "", "up"),
        Metric("parameters", "parameters", "", "down", format_count),
        Metric("size_mb", "size", "MB", "down", format_amount),
        Metric("latency_ms", "CPU latency", "ms", "down", format_amount),
    )
}
# Scores on held-out text and costs of a model, in the order of tables.
TABLE = (
    "mlm_accuracy",
    "mlm_loss",
    "sts_spearman",
    "sts_pearson",
    "ndcg@10",
    "recall@1",
    "recall@10",
    "recall@100",
    "mrr@10",
    "teacher_agreement",
    "parameters",
    "latency_ms",
    "texts_per_second",
    "size_mb",
)


def find_metric(
    name: str,
    losses: "Iterable[DistillationLoss]" = (),
    kinds: Collection[str] = registry.KINDS,
) -> Metric:
    """Returns the metric of a log.

    Args:
        name: name of the log, without "val_".
        losses: losses of a Distiller, including custom ones; the logs of a
            recipe's losses are known without them.
        kinds: kinds of tasks that the log may belong to.

    Returns:
        The metric; an unknown name serves as its own caption.

    Example:
        >>> find_metric("mlm_loss").title
        'Masked-LM loss, nats'
    """
    if name in _METRICS:
        return _METRICS[name]
    own = {f"{loss.name}_loss": type(loss) for loss in losses}
    if name in own:
        return _of_loss(name, [own[name]])
    known = [
        registry.loss_class(row.name, row.kinds[0])
        for row in registry.ROWS
        if name == f"{row.name}_loss" and set(row.kinds) & set(kinds)
    ]
    if known:
        return _of_loss(name, known)
    return Metric(name, name.replace("_", " "))


def _of_loss(name: str, classes: "list[type[DistillationLoss]]") -> Metric:
    """Returns the metric of a loss, with a unit if its classes agree."""
    caption = classes[0].caption or name.replace("_", " ")
    units = {each.unit for each in classes}
    unit = units.pop() if len(units) == 1 else ""
    return Metric(name, caption, unit, "down")
