"""The score of an answer that does not depend on the text."""

from typing import Any, TypeAlias

import numpy as np

from keras_distil.evaluation.glue import GLUEEvaluator
from keras_distil.evaluation.outputs import Inputs
from keras_distil.evaluation.spans import SpanEvaluator
from keras_distil.evaluation.task_files import (
    DEV,
    TaskEvaluator,
    WordTaskEvaluator,
)

Evaluator: TypeAlias = GLUEEvaluator | SpanEvaluator | TaskEvaluator

# By kind of task, the constant answer.
NAMES = {
    "classification": "the majority class",
    "multi_label": "the majority of each label",
    "regression": "the mean",
    "token_classification": "the most frequent tag",
    "span": "the same place in every text",
}
# Shares of 0 and 1 have no logit.
_LEAST = 1e-6


def constant_score(evaluator: Evaluator, kind: str, outputs: int) -> float:
    """Returns the main score of a constant answer, see `NAMES`.

    It is the most frequent answer of the development set itself, so a model
    that scores no more has learned nothing of the task.

    Args:
        evaluator: scores models on the task.
        kind: kind of the task.
        outputs: number of its outputs.
    """
    if kind == "span":
        return evaluator.score(_first_token)
    row = _frequent(evaluator, kind, outputs)

    def answer(inputs: Inputs) -> np.ndarray:
        shape = inputs["token_ids"].shape
        if kind != "token_classification":
            shape = shape[:1]
        return np.broadcast_to(row, (*shape, len(row)))

    return evaluator.score(answer)


def _first_token(inputs: Inputs) -> np.ndarray:
    """Returns logits of start and end that are largest before the text."""
    logits = np.zeros((*inputs["token_ids"].shape, 2), np.float32)
    logits[:, 0] = 1.0
    return logits


def _frequent(evaluator: Any, kind: str, outputs: int) -> np.ndarray:
    """Returns the outputs for any text, float32, (outputs,)."""
    if isinstance(evaluator, WordTaskEvaluator):
        place = {name: i for i, name in enumerate(evaluator.label_names)}
        rows = evaluator.splits[DEV].tags
        labels = np.array([place[tag] for tags in rows for tag in tags])
    else:
        labels = np.concatenate([*evaluator.classes.values()])
    if kind == "regression":
        return labels.mean(keepdims=True, dtype=np.float64).astype(np.float32)
    if kind == "multi_label":
        share = labels.mean(axis=0, dtype=np.float64).clip(_LEAST, 1 - _LEAST)
        return np.log(share / (1 - share)).astype(np.float32)
    share = np.bincount(labels, minlength=outputs) / len(labels)
    return np.log(share.clip(_LEAST)).astype(np.float32)
