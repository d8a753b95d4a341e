"""An evaluator that scores span models on SQuAD."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from keras_hub.models import Task

from keras_distil.data.tasks.squad import SquadExample
from keras_distil.data.tasks.squad_windows import SquadWindows
from keras_distil.evaluation.outputs import (
    Inputs,
    OutputFunction,
    output_function,
)
from keras_distil.evaluation.squad import SQuADEvaluator
from keras_distil.evaluation.squad_answers import AnswerPrediction
from keras_distil.evaluation.squad_metrics import score_questions

_SPLIT = "dev"


class SpanEvaluator:
    """Scores span models on the questions of a development set.

    For each question, its exact match and its F1, 0 to 1, are kept, from
    which intervals are drawn.

    Args:
        examples: the questions, as from `data.load_squad`.
        tokenizer: the tokenizer of the models.
        **settings: settings of `SQuADEvaluator`.

    Attributes:
        labels: zeros, (questions, 2), by split: scores need no other label.

    Raises:
        ValueError: as for `SQuADEvaluator`.
    """

    def __init__(
        self,
        examples: Sequence[SquadExample],
        tokenizer: tokenizers.Tokenizer,
        **settings: Any,
    ) -> None:
        self._evaluator = SQuADEvaluator(examples, tokenizer, **settings)
        self.labels = {_SPLIT: np.zeros((len(examples), 2), np.float32)}

    @property
    def examples(self) -> Sequence[SquadExample]:
        """The questions."""
        return self._evaluator.examples

    @property
    def windows(self) -> SquadWindows:
        """All windows of the questions."""
        return self._evaluator.windows

    def inputs(self) -> Iterator[Inputs]:
        """Yields all windows in batches."""
        for _, inputs in self._evaluator.batches():
            yield inputs

    def answers(self, model: Task | OutputFunction) -> list[AnswerPrediction]:
        """Returns the model's answer to each question."""
        return self._evaluator.predictions(output_function(model))

    def predictions(
        self, model: Task | OutputFunction
    ) -> dict[str, np.ndarray]:
        """Returns exact match and F1 per question, float32, (questions, 2)."""
        examples = self._evaluator.examples
        answers = {
            example.id: answer.text
            for example, answer in zip(
                examples, self.answers(model), strict=True
            )
        }
        scores = np.stack(score_questions(examples, answers), axis=1)
        return {_SPLIT: scores.astype(np.float32)}

    def metrics(
        self, predictions: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, float]]:
        """Returns exact match and F1, 0 to 1, from predictions."""
        exact, f1 = predictions[_SPLIT].mean(axis=0, dtype=np.float64)
        return {_SPLIT: {"exact_match": float(exact), "f1": float(f1)}}

    def evaluate(
        self, model: Task | OutputFunction
    ) -> dict[str, dict[str, float]]:
        """Returns exact match and F1 of a model, 0 to 1."""
        return self.metrics(self.predictions(model))

    def score(self, model: Task | OutputFunction) -> float:
        """Returns the F1 of a model, 0 to 1."""
        return self.main_score(self.evaluate(model))

    def main_score(self, metrics: Mapping[str, Mapping[str, float]]) -> float:
        """Returns the F1 of a model from its metrics, 0 to 1."""
        return metrics[_SPLIT]["f1"]


def mean_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Returns the mean F1 of what `predictions` returned."""
    del labels
    return float(predictions[:, 1].mean(dtype=np.float64))
