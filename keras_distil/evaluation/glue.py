"""Scores and predictions of a model on a task of GLUE."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tokenizers
from keras_hub.models import Task

from keras_distil.data.tasks.batches import (
    EncodedExamples,
    encode_examples,
    padded_batches,
)
from keras_distil.data.tasks.glue import (
    GLUETask,
    TaskExamples,
    glue_task,
    load_glue,
)
from keras_distil.evaluation.glue_metrics import (
    class_predictions,
    main_score,
    score_glue,
    write_submission,
)
from keras_distil.evaluation.labels import class_columns
from keras_distil.evaluation.outputs import (
    Inputs,
    OutputFunction,
    output_function,
)
from keras_distil.models.labels import labels_of


class GLUEEvaluator:
    """Scores models on the development sets of a GLUE task.

    A model's classes are matched with the task's by their names, where it has
    names, as models of Hugging Face have; else they are in the task's order.

    Args:
        task: the task, or its name, such as "cola".
        tokenizer: the tokenizer of the models.
        root: folder of GLUE's official files, or None for TensorFlow Datasets.
        examples: labelled examples by the name of their split, in place of the
            development sets, such as a part of the training set.
        max_length: int, maximum tokens per example.
        batch_size: int, examples per batch.

    Attributes:
        task: the task.
        examples: the examples of each development split, by name.
        encoded: their token ids, by name.

    Raises:
        ValueError: if the task is unknown, or its files do not have GLUE's
            format.

    Example:
        >>> evaluator = GLUEEvaluator(
        ...     "cola", tokenizer, root="glue"
        ... )                                               # doctest: +SKIP
        >>> evaluator.evaluate(model)                       # doctest: +SKIP
        {'dev': {'matthews_correlation': 0.52}}

    Reference:
        Wang et al. 2018, arXiv:1804.07461.
    """

    def __init__(
        self,
        task: str | GLUETask,
        tokenizer: tokenizers.Tokenizer,
        *,
        root: str | Path | None = None,
        examples: Mapping[str, TaskExamples] | None = None,
        max_length: int = 128,
        batch_size: int = 64,
    ) -> None:
        self.task = glue_task(task)
        self.batch_size = batch_size
        self._tokenizer = tokenizer
        self._root = root
        self._max_length = max_length
        if examples is None:
            examples = {
                split: load_glue(self.task, split, root=root)
                for split in self.task.dev
            }
        self.examples = dict(examples)
        self.encoded = {
            split: self._encode(examples)
            for split, examples in self.examples.items()
        }

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The labels of each development split, by name."""
        return {
            split: np.asarray(examples.labels)
            for split, examples in self.examples.items()
        }

    @property
    def classes(self) -> dict[str, np.ndarray]:
        """The class ids of each development split, by name."""
        return self.labels

    def inputs(self) -> Iterator[Inputs]:
        """Yields all development examples in batches, without labels."""
        for encoded in self.encoded.values():
            for _, inputs in padded_batches(
                encoded, batch_size=self.batch_size
            ):
                yield inputs

    def predictions(
        self, model: Task | OutputFunction
    ) -> dict[str, np.ndarray]:
        """Returns a model's predictions for each development split.

        Args:
            model: a model from `models.task_model`, fine-tuned on the task,
                or a function as from `output_function`.

        Returns:
            Class ids, int, or scores from 0 to 5, float32, by split.
        """
        return {
            split: class_predictions(self.task, outputs)
            for split, outputs in self.outputs(model).items()
        }

    def outputs(self, model: Task | OutputFunction) -> dict[str, np.ndarray]:
        """Returns the outputs, float32, (examples, outputs), by split."""
        return {
            split: self._outputs(model, encoded)
            for split, encoded in self.encoded.items()
        }

    def metrics(
        self, predictions: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, float]]:
        """Returns the metrics of each split, 0 to 1, from predictions."""
        return {
            split: score_glue(self.task, examples.labels, predictions[split])
            for split, examples in self.examples.items()
        }

    def evaluate(
        self, model: Task | OutputFunction
    ) -> dict[str, dict[str, float]]:
        """Returns the task's metrics of each development split, 0 to 1."""
        return self.metrics(self.predictions(model))

    def score(self, model: Task | OutputFunction) -> float:
        """Returns the mean of all metrics of all development splits, 0 to 1."""
        return self.main_score(self.evaluate(model))

    def main_score(self, metrics: Mapping[str, Mapping[str, float]]) -> float:
        """Returns the score of a model from its metrics, 0 to 1."""
        return main_score(*metrics.values())

    def write_submission(self, model: Task, folder: str | Path) -> list[Path]:
        """Writes predictions of the test splits for GLUE's server.

        Args:
            model: as for `predictions`.
            folder: folder for the files; created if missing.

        Returns:
            The files.
        """
        written = []
        for split in self.task.test:
            examples = load_glue(self.task, split, root=self._root)
            outputs = self._outputs(model, self._encode(examples))
            written.append(
                write_submission(
                    self.task,
                    split,
                    examples.ids,
                    class_predictions(self.task, outputs),
                    folder,
                )
            )
        return written

    def _encode(self, examples: TaskExamples) -> EncodedExamples:
        return encode_examples(
            self._tokenizer,
            examples.first,
            examples.second,
            max_length=self._max_length,
        )

    def _outputs(
        self, model: Task | OutputFunction, encoded: EncodedExamples
    ) -> np.ndarray:
        """Returns float32, (examples, outputs), both in the task's order."""
        columns = None
        if self.task.labels is not None:
            columns = class_columns(
                labels_of(model), self.task.labels, self.task.name
            )
        outputs_of = output_function(model)
        batches = padded_batches(encoded, batch_size=self.batch_size)
        outputs_by_batch = [
            (rows, outputs_of(inputs)) for rows, inputs in batches
        ]
        outputs = np.concatenate([each for _, each in outputs_by_batch])
        in_order = np.empty_like(outputs, np.float32)
        in_order[np.concatenate([rows for rows, _ in outputs_by_batch])] = (
            outputs
        )
        return in_order if columns is None else in_order[:, columns]
