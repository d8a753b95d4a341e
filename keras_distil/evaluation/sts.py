"""How well cosines of sentences follow human scores of their similarity."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from keras_hub.models import TextEmbedder

from keras_distil.evaluation.glue_metrics import pearson, spearman
from keras_distil.evaluation.vectors import VectorFunction, encode, unit_rows
from keras_distil.utils import disk
from keras_distil.utils.checks import check_count

Column = str | int
_BYTE_ORDER_MARK = "\ufeff"


class STSEvaluator:
    """Scores embedding models on pairs of sentences with a similarity.

    Args:
        path: a TSV file, one pair per line, without quoting, such as STS-B's
            `dev.tsv`.
        first: column of the first sentences: its name in the header line, or
            its number from 0 in a file without a header.
        second: column of the second sentences, likewise.
        score: column of the scores, likewise; of any scale.
        batch_size: int >= 1, texts per batch.

    Attributes:
        first: the first sentences.
        second: the second sentences.
        scores: float64, (pairs,).

    Raises:
        TypeError: if columns are neither all names nor all numbers.
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing, a sentence is empty, a score is
            not a number, or there are fewer than two pairs.

    Example:
        >>> evaluator = STSEvaluator("STS-B/dev.tsv")       # doctest: +SKIP
        >>> evaluator.evaluate(model)                       # doctest: +SKIP
        {'spearman': 0.867, 'pearson': 0.871}

    Reference:
        Cer et al. 2017, arXiv:1708.00055. Reimers and Gurevych 2019,
        arXiv:1908.10084, section 4.1.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        first: Column = "sentence1",
        second: Column = "sentence2",
        score: Column = "score",
        batch_size: int = 64,
    ) -> None:
        self.batch_size = check_count("batch_size", batch_size)
        self.first: list[str] = []
        self.second: list[str] = []
        scores = []
        for where, texts, value in _read(Path(path), (first, second), score):
            for text in texts:
                if not text.strip():
                    raise ValueError(
                        f"{where}: a sentence is empty. Remove the line."
                    )
            self.first.append(texts[0])
            self.second.append(texts[1])
            scores.append(_number(value, where))
        if len(scores) < 2:
            raise ValueError(
                f"'{path}' must hold at least two pairs, or there is no "
                f"correlation. Received: {len(scores)}."
            )
        self.scores = np.array(scores)

    def similarities(self, model: TextEmbedder | VectorFunction) -> np.ndarray:
        """Returns the cosine of each pair, float64, (pairs,).

        Args:
            model: an embedding model, or a function from a list of texts to
                vectors, (texts, dimension), for example of an exported model.
        """
        # Each sentence once, of all that are repeated.
        texts = list(dict.fromkeys([*self.first, *self.second]))
        place = {text: number for number, text in enumerate(texts)}
        vectors = unit_rows(
            encode(model, texts, role="text", batch_size=self.batch_size)
        ).astype(np.float64)
        ours, theirs = (
            vectors[[place[text] for text in side]]
            for side in (self.first, self.second)
        )
        return np.einsum("ij,ij->i", ours, theirs)

    def evaluate(
        self, model: TextEmbedder | VectorFunction
    ) -> dict[str, float]:
        """Returns the correlations of cosines and scores, -1 to 1.

        Args:
            model: as for `similarities`.

        Returns:
            "spearman" and "pearson".
        """
        found = self.similarities(model)
        return {
            "spearman": float(spearman(self.scores, found)),
            "pearson": float(pearson(self.scores, found)),
        }


def _read(
    path: Path, texts: tuple[Column, Column], score: Column
) -> Iterator[tuple[str, tuple[str, str], str]]:
    """Yields where a line is, its two sentences and its score, as text."""
    columns = [*texts, score]
    numbers = [x for x in columns if isinstance(x, int) and x >= 0]
    names = [x for x in columns if isinstance(x, str)]
    if len(columns) not in (len(numbers), len(names)):
        raise TypeError(
            "`first`, `second` and `score` must be three names of columns, or "
            f"three numbers from 0. Received: {columns}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    lines = _lines(path)
    places = numbers or _find_columns(path, lines, names)
    for number, line in enumerate(lines, 1):
        if number == 1 and names:
            continue
        fields = line.split("\t")
        where = f"'{path}', line {number}"
        if len(fields) <= max(places):
            raise ValueError(
                f"{where} must have {max(places) + 1} columns or more. "
                f"Received: {len(fields)}."
            )
        one, other, value = (fields[place] for place in places)
        yield where, (one, other), value


def _find_columns(path: Path, lines: list[str], names: list[str]) -> list[int]:
    header = lines[0].split("\t") if lines else []
    if not set(names) <= set(header):
        raise ValueError(
            f"'{path}' must have the columns {names} in its first line. "
            f"Received: {header!r:.200}. Name its columns by `first`, "
            "`second` and `score`; numbers from 0 if it has no such line."
        )
    return [header.index(name) for name in names]


def _lines(path: Path) -> list[str]:
    disk.check_size(path, disk.DATA_JSON_BYTES)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{path}' is not UTF-8: {error.reason} at byte {error.start}."
        ) from None
    # Not `splitlines`, which also cuts at characters within sentences.
    lines = text.removeprefix(_BYTE_ORDER_MARK).split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    return lines[:-1] if lines and not lines[-1] else lines


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"{where}: the score must be a number. Received: {text!r:.60}."
        )
    return number
