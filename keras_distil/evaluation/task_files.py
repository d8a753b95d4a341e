"""Evaluators of tasks from files: texts, words and spans."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from keras_hub.models import Task

from keras_distil.data.tasks.batches import EncodedExamples, padded_batches
from keras_distil.data.tasks.words import EncodedWords
from keras_distil.evaluation import task_metrics
from keras_distil.evaluation.calibration import first_choices
from keras_distil.evaluation.entities import check_entity_tags, count_entities
from keras_distil.evaluation.labels import class_columns
from keras_distil.evaluation.outputs import (
    Inputs,
    OutputFunction,
    output_function,
)
from keras_distil.evaluation.significance import CountedMetric
from keras_distil.evaluation.spans import SpanEvaluator
from keras_distil.models.labels import labels_of

DEV = "dev"
# The tag of a word that a model has not read.
_UNREAD = "O"


class TaskEvaluator(abc.ABC):
    """Scores models on the development set of a task from files.

    If there is a test set with labels, it is scored as well; its scores are
    kept beside the others and decide nothing.

    Args:
        name: name of the task.
        metric: name of its metric, as in a recipe.

    Attributes:
        metric: name of its metric.
        batch_size: examples per batch.
    """

    batch_size = 64

    def __init__(self, name: str, metric: str) -> None:
        self.name = name
        self.metric = metric

    @property
    def counted_metric(self) -> CountedMetric:
        """The score of the table, from `labels` and `predictions`."""
        return task_metrics.COUNTED[self.metric]

    @property
    @abc.abstractmethod
    def labels(self) -> dict[str, np.ndarray]:
        """Labels of the development set, (examples, ...), by split."""

    @abc.abstractmethod
    def inputs(self) -> Iterator[Inputs]:
        """Yields the development examples in batches, without labels."""

    @abc.abstractmethod
    def predictions(
        self, model: Task | OutputFunction
    ) -> dict[str, np.ndarray]:
        """Returns what the metric needs of a model's answers, by split."""

    @abc.abstractmethod
    def metrics(
        self, predictions: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, float]]:
        """Returns the metric of each split, from predictions."""

    def evaluate(
        self, model: Task | OutputFunction
    ) -> dict[str, dict[str, float]]:
        """Returns the metric of each split."""
        return self.metrics(self.predictions(model))

    def score(self, model: Task | OutputFunction) -> float:
        """Returns the metric on the development set; negative for errors."""
        return self.main_score(self.evaluate(model))

    def main_score(self, metrics: Mapping[str, Mapping[str, float]]) -> float:
        """Returns the score of a model from its metrics."""
        found = metrics[DEV][self.metric]
        return -found if self.metric in task_metrics.ERRORS else found


@dataclasses.dataclass(frozen=True, eq=False)
class TextSplit:
    """A part of a data set of texts.

    Attributes:
        examples: the texts, or windows of them, without labels.
        labels: int classes or float numbers, (texts,), or 0 and 1, (texts,
            labels).
    """

    examples: EncodedExamples
    labels: np.ndarray


class TextTaskEvaluator(TaskEvaluator):
    """Scores models of whole texts.

    The output for a text that is read in windows is the mean of the windows'
    outputs: logits, as everywhere, so the mean of two opinions is as unsure as
    they differ.

    Args:
        name: name of the task.
        kind: "classification", "multi_label" or "regression".
        metric: name of its metric.
        splits: the development set, "dev", and others, by name.
        label_names: the classes in the order of `labels`; None for numbers.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        metric: str,
        splits: Mapping[str, TextSplit],
        label_names: Sequence[str] | None,
    ) -> None:
        super().__init__(name, metric)
        self.kind = kind
        self.splits = dict(splits)
        self.label_names = label_names

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Labels of the development set; zeros if predictions are errors."""
        labels = self.splits[DEV].labels
        if self.metric == "log_loss":
            labels = np.zeros(len(labels), np.float32)
        return {DEV: labels}

    @property
    def classes(self) -> dict[str, np.ndarray]:
        """The classes of the development set, by split."""
        return {DEV: self.splits[DEV].labels}

    def inputs(self) -> Iterator[Inputs]:
        """Yields the development examples in batches, without labels."""
        for _, inputs in padded_batches(
            self.splits[DEV].examples, batch_size=self.batch_size
        ):
            yield inputs

    def outputs(self, model: Task | OutputFunction) -> dict[str, np.ndarray]:
        """Returns the outputs, float32, (texts, outputs), by split."""
        return {
            name: self._outputs(model, split.examples)
            for name, split in self.splits.items()
        }

    def _outputs(
        self, model: Task | OutputFunction, examples: EncodedExamples
    ) -> np.ndarray:
        columns = None
        if self.label_names is not None:
            columns = class_columns(
                labels_of(model), self.label_names, self.name
            )
        run = output_function(model)
        parts = [
            (rows, run(inputs))
            for rows, inputs in padded_batches(
                examples, batch_size=self.batch_size
            )
        ]
        joined = np.concatenate([part for _, part in parts])
        outputs = np.empty_like(joined, np.float32)
        outputs[np.concatenate([rows for rows, _ in parts])] = joined
        outputs = pool_windows(outputs, examples.owners)
        return outputs if columns is None else outputs[:, columns]

    def predictions(
        self, model: Task | OutputFunction
    ) -> dict[str, np.ndarray]:
        """Returns classes, numbers, 0 and 1 per label, or losses, by split."""
        return {
            name: self._decide(outputs, self.splits[name].labels)
            for name, outputs in self.outputs(model).items()
        }

    def _decide(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if self.kind == "regression":
            return outputs[:, 0]
        if self.kind == "multi_label":
            # A sigmoid above a half.
            return (outputs > 0.0).astype(np.int8)
        if self.metric == "log_loss":
            return task_metrics.log_losses(labels, outputs)
        return outputs.argmax(axis=1).astype(np.int32)

    def metrics(
        self, predictions: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, float]]:
        """Returns the metric of each split, from predictions."""
        return {
            name: {self.metric: self._metric(split.labels, predictions[name])}
            for name, split in self.splits.items()
        }

    def _metric(self, labels: np.ndarray, predictions: np.ndarray) -> float:
        if self.metric == "log_loss":
            return float(predictions.mean(dtype=np.float64))
        return task_metrics.score(self.metric, labels, predictions)


def pool_windows(outputs: np.ndarray, owners: np.ndarray | None) -> np.ndarray:
    """Returns the mean output of each text's windows.

    Args:
        outputs: float32, (windows, outputs).
        owners: int, (windows,), ascending, the text of each; None if every
            window is a text.

    Returns:
        float32, (texts, outputs).
    """
    if owners is None:
        return outputs
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    counts = np.diff(np.append(starts, len(owners)))
    sums = np.add.reduceat(outputs.astype(np.float64), starts, axis=0)
    return (sums / counts[:, np.newaxis]).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class WordSplit:
    """A part of a data set of sentences.

    Attributes:
        encoded: the sentences, without labels.
        tags: the tags of each sentence's words.
    """

    encoded: EncodedWords
    tags: Sequence[Sequence[str]]


class WordTaskEvaluator(TaskEvaluator):
    """Scores models of words: entities, or all words.

    A word has the class of its first piece; one that the model does not read,
    because it is beyond the longest input, is no entity.

    Args:
        name: name of the task.
        metric: "entity_f1" or "accuracy".
        splits: the development set, "dev", and others, by name.
        label_names: all tags in the order of the outputs.

    Raises:
        ValueError: if entities are counted and a tag marks none.
    """

    def __init__(
        self,
        name: str,
        metric: str,
        splits: Mapping[str, WordSplit],
        label_names: Sequence[str],
    ) -> None:
        super().__init__(name, metric)
        if metric == "entity_f1":
            check_entity_tags(label_names, name)
        self.splits = dict(splits)
        self.label_names = tuple(label_names)

    @property
    def counted_metric(self) -> CountedMetric:
        """The score of the table, from `predictions`."""
        name = "word_accuracy" if self.metric == "accuracy" else self.metric
        return task_metrics.COUNTED[name]

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Zeros, (sentences, 1): scores need no other label."""
        count = len(self.splits[DEV].tags)
        return {DEV: np.zeros((count, 1), np.float32)}

    def inputs(self) -> Iterator[Inputs]:
        """Yields the development sentences in batches, without labels."""
        for _, inputs in padded_batches(
            self.splits[DEV].encoded.examples, batch_size=self.batch_size
        ):
            yield inputs

    def tags(
        self, model: Task | OutputFunction, split: str = DEV
    ) -> list[list[str]]:
        """Returns a model's tag for each word of each sentence."""
        return self.answers(model, split)[0]

    def answers(
        self, model: Task | OutputFunction, split: str = DEV
    ) -> tuple[list[list[str]], np.ndarray]:
        """Returns a model's tags, and how sure it is of them.

        Returns:
            A tag for each word of each sentence, and their probabilities,
            float64, (words,), counted through all sentences; 0 for words that
            the model does not read.
        """
        encoded = self.splits[split].encoded
        columns = class_columns(labels_of(model), self.label_names, self.name)
        classes, sure = _classes_of_tokens(
            model, encoded.examples, columns, batch_size=self.batch_size
        )
        words = np.full(int(encoded.counts.sum()), -1)
        starts = encoded.examples.starts
        places = starts[encoded.windows] + encoded.positions
        words[encoded.words] = classes[places]
        confidences = np.zeros(len(words))
        confidences[encoded.words] = sure[places]
        names = np.array([*self.label_names, _UNREAD], object)
        ends = np.cumsum(encoded.counts)[:-1]
        tags = [list(names[each]) for each in np.split(words, ends)]
        return tags, confidences

    def predictions(
        self, model: Task | OutputFunction
    ) -> dict[str, np.ndarray]:
        """Returns counts per sentence, by split.

        Those of entities are int64, (sentences, 3), see `count_entities`; those
        of words, (sentences, 2), how many are right and how many there are.
        """
        return {
            name: np.stack(
                [
                    self._count(true, said)
                    for true, said in zip(
                        split.tags, self.tags(model, name), strict=True
                    )
                ]
            )
            for name, split in self.splits.items()
        }

    def _count(self, tags: Sequence[str], said: Sequence[str]) -> np.ndarray:
        if self.metric == "entity_f1":
            return count_entities(tags, said)
        right = sum(one == other for one, other in zip(tags, said, strict=True))
        return np.array([right, len(tags)])

    def metrics(
        self, predictions: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, float]]:
        """Returns the metric of each split, from predictions."""
        found = {}
        for name in self.splits:
            counts = predictions[name]
            if self.metric == "entity_f1":
                value = task_metrics.entity_f1(counts)
            else:
                right, words = counts.sum(axis=0)
                value = float(right / words)
            found[name] = {self.metric: value}
        return found


def _classes_of_tokens(
    model: Task | OutputFunction,
    examples: EncodedExamples,
    columns: np.ndarray | None,
    *,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the class of each token, and its probability.

    Returns:
        int32 and float64, (tokens,), as `token_ids`.
    """
    run = output_function(model)
    classes = np.zeros(len(examples.token_ids), np.int32)
    confidences = np.zeros(len(classes))
    for rows, inputs in padded_batches(examples, batch_size=batch_size):
        outputs = run(inputs)
        if columns is not None:
            outputs = outputs[:, :, columns]
        chosen, sure = first_choices(outputs)
        for row, example in enumerate(rows):
            begin, end = examples.starts[example : example + 2]
            classes[begin:end] = chosen[row, : end - begin]
            confidences[begin:end] = sure[row, : end - begin]
    return classes, confidences


class SpanTaskEvaluator(TaskEvaluator):
    """Scores span models; see `SpanEvaluator`.

    Args:
        name: name of the task.
        metric: "f1" or "exact_match".
        splits: the development set, "dev", and others, by name.
    """

    def __init__(
        self, name: str, metric: str, splits: Mapping[str, SpanEvaluator]
    ) -> None:
        super().__init__(name, metric)
        self.splits = dict(splits)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Zeros, (questions, 2): scores need no other label."""
        return self.splits[DEV].labels

    def inputs(self) -> Iterator[Inputs]:
        """Yields the development windows in batches."""
        return self.splits[DEV].inputs()

    def predictions(
        self, model: Task | OutputFunction
    ) -> dict[str, np.ndarray]:
        """Returns exact match and F1 per question, float32, (questions, 2)."""
        return {
            name: split.predictions(model)[DEV]
            for name, split in self.splits.items()
        }

    def metrics(
        self, predictions: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, float]]:
        """Returns exact match and F1, 0 to 1, from predictions."""
        return {
            name: split.metrics({DEV: predictions[name]})[DEV]
            for name, split in self.splits.items()
        }
