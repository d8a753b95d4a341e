"""Answers SQuAD's questions with a span model and scores the answers."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers

from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.tasks.squad import SquadExample
from keras_distil.data.tasks.squad_windows import make_squad_windows
from keras_distil.evaluation.squad_answers import (
    AnswerPrediction,
    AnswerSpan,
    best_answers,
)
from keras_distil.evaluation.squad_metrics import (
    NoAnswerThresholds,
    SquadScores,
    best_no_answer_threshold,
    exact_match,
    f1_score,
    normalize_answer,
    score_questions,
    score_squad,
)
from keras_distil.utils import disk
from keras_distil.utils.checks import check_count

__all__ = [
    "AnswerPrediction",
    "AnswerSpan",
    "NoAnswerThresholds",
    "SQuADEvaluator",
    "SquadScores",
    "best_answers",
    "best_no_answer_threshold",
    "exact_match",
    "f1_score",
    "normalize_answer",
    "score_questions",
    "score_squad",
    "write_predictions",
]

# {"token_ids", "segment_ids", "padding_mask"} -> logits (batch, length, 2).
Predict = Callable[[dict[str, np.ndarray]], np.ndarray]

_MULTIPLE = 16  # batches are padded to multiples, to limit the shapes


def write_predictions(
    filepath: str | os.PathLike, answers: Mapping[str, str]
) -> None:
    """Writes predictions in the official scripts' format, {id: answer}.

    Args:
        filepath: the JSON file; replaced atomically.
        answers: the predicted answers by id.

    Raises:
        OSError: if the disk is full or may not be written.
    """
    path = Path(filepath)
    partial = path.with_name(f"{path.name}.partial")
    with disk.replacing(path, partial):
        partial.write_text(json.dumps(answers, ensure_ascii=False), "utf-8")


class SQuADEvaluator:
    r"""Answers questions with a span model and scores the answers.

    Args:
        examples: the questions, as from `load_squad`.
        tokenizer: the model's tokenizer, as returned by `load_tokenizer`.
        max_length: maximum tokens per window.
        stride: number of context tokens that consecutive windows share.
        max_question: maximum tokens per question.
        batch_size: windows per batch.
        n_best: number of spans to keep per question.
        max_answer_tokens: maximum tokens per answer.
        no_answer_threshold: a question is left without an answer if the
            no-answer score exceeds the best span's by more than this.
            None means 0 if any question is impossible, else all are
            answered.

    Attributes:
        examples: the questions.
        windows: the model's input, a `SquadWindows`.

    Raises:
        ValueError: if there are no questions, or an argument is out of range.

    Example:
        >>> import tempfile
        >>> from keras_distil.data import SquadAnswer, load_tokenizer
        >>> words = "[PAD] [UNK] [CLS] [SEP] [MASK] who sings ? mary".split()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "vocab.txt").write_text("\n".join(words))
        ...     tokenizer = load_tokenizer(folder)
        >>> example = SquadExample(
        ...     "1", "", "Who sings?", "Mary sings.",
        ...     (SquadAnswer("Mary", 0),), False,
        ... )
        >>> evaluator = SQuADEvaluator([example], tokenizer)
        >>> def predict(inputs):
        ...     mary = inputs["token_ids"] == tokenizer.token_to_id("mary")
        ...     return np.stack([mary, mary], -1).astype("float32")
        >>> evaluator.evaluate(predict).exact
        100.0
    """

    def __init__(
        self,
        examples: Sequence[SquadExample],
        tokenizer: tokenizers.Tokenizer,
        *,
        max_length: int = 384,
        stride: int = 128,
        max_question: int = 64,
        batch_size: int = 16,
        n_best: int = 20,
        max_answer_tokens: int = 30,
        no_answer_threshold: float | None = None,
    ) -> None:
        if not examples:
            raise ValueError("`examples` must hold a question. Received none.")
        check_count("batch_size", batch_size)
        check_count("n_best", n_best)
        check_count("max_answer_tokens", max_answer_tokens)
        if no_answer_threshold is None and any(
            example.is_impossible for example in examples
        ):
            no_answer_threshold = 0.0
        self.examples = list(examples)
        self.windows = make_squad_windows(
            self.examples,
            tokenizer,
            max_length=max_length,
            stride=stride,
            max_question=max_question,
        )
        self._pad_id = SpecialTokens.from_tokenizer(tokenizer).pad_id
        self._max_length = max_length
        self._batch_size = batch_size
        self._n_best = n_best
        self._max_answer_tokens = max_answer_tokens
        self._no_answer_threshold = no_answer_threshold

    def evaluate(self, predict: Predict) -> SquadScores:
        """Answers all questions and scores the answers.

        Args:
            predict: as for `predictions`.

        Returns:
            The scores.

        Raises:
            ValueError: as for `predictions` and `score_questions`.
        """
        pairs = zip(self.examples, self.predictions(predict), strict=True)
        return score_squad(self.examples, {e.id: p.text for e, p in pairs})

    def predictions(self, predict: Predict) -> list[AnswerPrediction]:
        """Answers all questions.

        Args:
            predict: function of `token_ids`, `segment_ids` and
                `padding_mask`, each int32, (batch, length), the longest
                windows first. It returns float (batch, length, 2): the logits
                of an answer's first and last token.

        Returns:
            A prediction per question, in the order of the questions.

        Raises:
            ValueError: if the logits have another shape or are not finite.
        """
        starts: list[np.ndarray] = [np.empty(0)] * len(self.windows)
        ends = list(starts)
        for chosen, inputs in self.batches():
            logits = np.asarray(predict(inputs))
            expected = (*inputs["token_ids"].shape, 2)
            if logits.shape != expected:
                raise ValueError(
                    "`predict` must return logits of shape (batch, length, 2)"
                    f", here {expected}. Received: shape={logits.shape}."
                )
            for row, i in enumerate(chosen):
                length = len(self.windows.token_ids[i])
                starts[i] = logits[row, :length, 0].astype(np.float32)
                ends[i] = logits[row, :length, 1].astype(np.float32)
        return best_answers(
            self.examples,
            self.windows,
            starts,
            ends,
            n_best=self._n_best,
            max_answer_tokens=self._max_answer_tokens,
            no_answer_threshold=self._no_answer_threshold,
        )

    def batches(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yields indices of windows, and the padded windows."""
        windows = self.windows
        lengths = np.array([len(ids) for ids in windows.token_ids])
        order = np.argsort(-lengths, kind="stable")
        for first in range(0, len(order), self._batch_size):
            chosen = order[first : first + self._batch_size]
            longest = lengths[chosen[0]]
            length = min(-(-longest // _MULTIPLE) * _MULTIPLE, self._max_length)
            shape = (len(chosen), length)
            token_ids = np.full(shape, self._pad_id, np.int32)
            segment_ids = np.zeros(shape, np.int32)
            padding_mask = np.zeros(shape, np.int32)
            for row, i in enumerate(chosen):
                token_ids[row, : lengths[i]] = windows.token_ids[i]
                segment_ids[row, : lengths[i]] = windows.segment_ids[i]
                padding_mask[row, : lengths[i]] = 1
            yield (
                chosen,
                {
                    "token_ids": token_ids,
                    "segment_ids": segment_ids,
                    "padding_mask": padding_mask,
                },
            )
