"""The row `ngrams`: a linear model on words, to compare transformers with."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import tokenizers
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression, Ridge

from keras_distil import data
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.evaluation.outputs import Inputs, OutputFunction
from keras_distil.runs import score_table
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.run_folder import Run
from keras_distil.runs.task_results import plan_training, write_result
from keras_distil.runs.tasks import BuiltTask
from keras_distil.utils import disk

# Columns of the features: n-grams share one with a probability of about their
# number divided by this.
_FEATURES = 2**18
# Examples that are read at a time, and that are fitted at most: a linear model
# learns little from more.
_BATCH = 4096
_MOST_EXAMPLES = 200_000
# The logit of a class that no training example has.
_NEVER = -100.0
_WORD = re.compile(r"\w+")

# The token ids of an example.
_Ids: TypeAlias = np.ndarray


def score_ngrams(run: Run, task: BuiltTask) -> None:
    """Fits and scores the linear model of a task, unless that is done.

    Answers that are parts of a text have none, and a line says so.

    Args:
        run: the run.
        task: the task.
    """
    if task.kind not in _FITS:
        run.progress.say(
            f"{task.name}: no row ngrams, since answers are parts of the text"
        )
        return
    planned = plan_training(run, task.name, score_table.NGRAMS, seed=0)
    if planned.is_finished:
        return
    started = time.perf_counter()
    examples = task.train
    said = ""
    if len(examples) > _MOST_EXAMPLES:
        said = f", from {_MOST_EXAMPLES:,} of {len(examples):,} examples"
    model = fit_ngrams(
        examples, load_tokenizer(run.recipe), task.kind, task.outputs
    )
    predictions = task.evaluator.predictions(model)
    metrics = task.evaluator.metrics(predictions)
    score = task.evaluator.main_score(metrics)
    result = {
        "metrics": metrics,
        f"{task.score_name}s": [task.chooser.score(model)],
        "duration_s": round(time.perf_counter() - started, 1),
    }
    with disk.writing(planned.folder):
        planned.folder.mkdir(parents=True, exist_ok=True)
    write_result(run, planned, predictions, result)
    run.progress.say(f"{task.name}/ngrams: {task.shown(score)}{said}")


def fit_ngrams(
    examples: EncodedExamples,
    tokenizer: tokenizers.Tokenizer,
    kind: str,
    outputs: int,
) -> OutputFunction:
    """Fits a linear model on n-grams of words.

    The features are words and pairs of neighbouring words, weighted by TF-IDF;
    those of the second text of a pair are features of their own. The model
    sees the words of the token ids, and so as much of a text as a transformer
    does. Its settings are scikit-learn's defaults.

    Args:
        examples: the training set, with labels.
        tokenizer: the tokenizer of the examples.
        kind: "classification", "multi_label" or "regression".
        outputs: number of outputs.

    Returns:
        A function from token ids to outputs as those of a task's model: logits
        or a number, float32, (batch, outputs).
    """
    rows = np.arange(len(examples))
    if len(rows) > _MOST_EXAMPLES:
        rows = np.linspace(0, len(rows) - 1, _MOST_EXAMPLES).astype(np.int64)
    reader = _Reader(tokenizer)
    counts = reader.counts(
        examples.token_ids[examples.starts[i] : examples.starts[i + 1]]
        for i in rows
    )
    # Weights of n-grams that no training example has would stay 0.
    columns = np.flatnonzero(counts.getnnz(axis=0))
    counts = counts[:, columns]
    weighting = TfidfTransformer(sublinear_tf=True).fit(counts)
    labels = np.asarray(examples.labels)[rows]
    weights = None if examples.weights is None else examples.weights[rows]
    fit = _FITS[kind]
    linear = fit(weighting.transform(counts), labels, weights, outputs)

    def run(inputs: Inputs) -> np.ndarray:
        lengths = inputs["padding_mask"].sum(axis=1)
        found = reader.counts(
            ids[:length]
            for ids, length in zip(inputs["token_ids"], lengths, strict=True)
        )
        features = weighting.transform(found[:, columns])
        return linear(features).astype(np.float32)

    return run


class _Reader:
    """Counts the n-grams of examples."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._sep = data.SpecialTokens.from_tokenizer(tokenizer).sep_id
        self._vectorizer = HashingVectorizer(
            analyzer=_ngrams,
            n_features=_FEATURES,
            alternate_sign=False,
            norm=None,
            dtype=np.float32,
        )

    def counts(self, examples: Iterable[_Ids]) -> sparse.csr_matrix:
        """Returns how often each n-gram is in each example."""
        parts, batch = [], []
        for ids in examples:
            batch.append(ids)
            if len(batch) == _BATCH:
                parts.append(self._vectorizer.transform(self._texts(batch)))
                batch = []
        if batch:
            parts.append(self._vectorizer.transform(self._texts(batch)))
        return sparse.vstack(parts, format="csr")

    def _texts(self, batch: Sequence[_Ids]) -> list[list[str]]:
        """Returns the one or two texts of each example."""
        pieces, counts = [], []
        for ids in batch:
            ends = np.flatnonzero(ids == self._sep)
            own = [x.tolist() for x in np.split(ids, ends) if len(x) > 1]
            pieces += own
            counts.append(len(own))
        texts = iter(self._tokenizer.decode_batch(pieces))
        return [[next(texts) for _ in range(count)] for count in counts]


def _ngrams(texts: Sequence[str]) -> Iterator[str]:
    """Yields the words and the pairs of words of each text."""
    for number, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        for word in words:
            yield f"{number} {word}"
        for pair in zip(words, words[1:], strict=False):
            yield f"{number} {' '.join(pair)}"


def _fit_classes(
    features: Any, labels: np.ndarray, weights: Any, outputs: int
) -> Any:
    present = np.unique(labels)
    if len(present) == 1:
        alone = np.full(outputs, _NEVER)
        alone[present] = 0.0
        return lambda found: np.tile(alone, (found.shape[0], 1))
    model = LogisticRegression(max_iter=1000)
    model.fit(features, labels, sample_weight=weights)

    def logits(found: Any) -> np.ndarray:
        scores = model.decision_function(found)
        if scores.ndim == 1:
            # Of two classes, the log odds of the second.
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        made = np.full((len(scores), outputs), _NEVER)
        made[:, model.classes_] = scores
        return made

    return logits


def _fit_labels(
    features: Any, labels: np.ndarray, weights: Any, outputs: int
) -> Any:
    """Fits a model of two classes for each label."""
    models = [
        _fit_classes(features, column.astype(np.int32), weights, 2)
        for column in labels.T
    ]

    def logits(found: Any) -> np.ndarray:
        pairs = [model(found) for model in models]
        return np.stack([pair[:, 1] - pair[:, 0] for pair in pairs], axis=1)

    return logits


def _fit_numbers(
    features: Any, labels: np.ndarray, weights: Any, outputs: int
) -> Any:
    model = Ridge(solver="sparse_cg")
    model.fit(features, labels, sample_weight=weights)
    return lambda found: model.predict(found)[:, np.newaxis]


_FITS = {
    "classification": _fit_classes,
    "multi_label": _fit_labels,
    "regression": _fit_numbers,
}
