"""The tasks of GLUE and their examples."""

import dataclasses
import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil.data.corpus.tfds_text import TfdsText

HIGHEST_SCORE = 5.0
_BATCH_SIZE = 1000
_BYTE_ORDER_MARK = "\ufeff"


@dataclasses.dataclass(frozen=True)
class GLUETask:
    """One of GLUE's nine tasks.

    Attributes:
        name: as in TensorFlow Datasets (TFDS).
        title: as in GLUE.
        labels: the meanings of class ids 0, 1, ...; None for scores. TFDS and
            Hugging Face number them in the same order.
        metrics: names of the task's metrics.
        tsv_texts: columns of the text or texts in GLUE's files.
        tfds_texts: the corresponding features of TFDS.
        label_column: its column in GLUE's files.
        dev: names of the development splits.
        test: names of the test splits.
        id_column: its column in GLUE's files; without it, rows are numbered.
        label_words: bool, whether GLUE's files write labels as words.
        headless_columns: the columns of training and development files, if
            these have no header line; None if they have one.

    Reference:
        Wang et al. 2018, arXiv:1804.07461, section 3. The numbers of labels
        are those of https://github.com/tensorflow/datasets, file
        `tensorflow_datasets/text/glue.py`.
    """

    name: str
    title: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...] = ("accuracy",)
    tsv_texts: tuple[str, ...] = ("sentence1", "sentence2")
    tfds_texts: tuple[str, ...] = ("sentence1", "sentence2")
    label_column: str = "label"
    dev: tuple[str, ...] = ("dev",)
    test: tuple[str, ...] = ("test",)
    id_column: str = "index"
    label_words: bool = False
    headless_columns: tuple[str, ...] | None = None

    @property
    def folder(self) -> str:
        """The task's folder in GLUE's download."""
        return self.title

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits, for training, development and test."""
        return ("train", *self.dev, *self.test)

    @property
    def is_regression(self) -> bool:
        """True if the task predicts a score, not a class."""
        return self.labels is None

    @property
    def is_pair(self) -> bool:
        """True if an example has two texts."""
        return len(self.tsv_texts) == 2

    @property
    def num_outputs(self) -> int:
        """The width of a model's output: 1 for a score."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def written_labels(self) -> tuple[str, ...]:
        """The classes as written in GLUE's files and in submissions."""
        if self.labels is None or self.label_words:
            return self.labels or ()
        return tuple(str(number) for number in range(len(self.labels)))


_ENTAILMENT = ("entailment", "not_entailment")

GLUE_TASKS: dict[str, GLUETask] = {
    task.name: task
    for task in (
        GLUETask(
            name="cola",
            title="CoLA",
            labels=("unacceptable", "acceptable"),
            metrics=("matthews_correlation",),
            tsv_texts=("sentence",),
            tfds_texts=("sentence",),
            headless_columns=("source", "label", "mark", "sentence"),
        ),
        GLUETask(
            name="sst2",
            title="SST-2",
            labels=("negative", "positive"),
            tsv_texts=("sentence",),
            tfds_texts=("sentence",),
        ),
        GLUETask(
            name="mrpc",
            title="MRPC",
            labels=("not_equivalent", "equivalent"),
            metrics=("accuracy", "f1"),
            tsv_texts=("#1 String", "#2 String"),
            label_column="Quality",
        ),
        GLUETask(
            name="stsb",
            title="STS-B",
            labels=None,
            metrics=("pearson", "spearman"),
            label_column="score",
        ),
        GLUETask(
            name="qqp",
            title="QQP",
            labels=("not_duplicate", "duplicate"),
            metrics=("accuracy", "f1"),
            tsv_texts=("question1", "question2"),
            tfds_texts=("question1", "question2"),
            label_column="is_duplicate",
            id_column="id",
        ),
        GLUETask(
            name="mnli",
            title="MNLI",
            labels=("entailment", "neutral", "contradiction"),
            tfds_texts=("premise", "hypothesis"),
            label_column="gold_label",
            dev=("dev_matched", "dev_mismatched"),
            test=("test_matched", "test_mismatched"),
            label_words=True,
        ),
        GLUETask(
            name="qnli",
            title="QNLI",
            labels=_ENTAILMENT,
            tsv_texts=("question", "sentence"),
            tfds_texts=("question", "sentence"),
            label_words=True,
        ),
        GLUETask(name="rte", title="RTE", labels=_ENTAILMENT, label_words=True),
        # The opposite of the order in QNLI and RTE.
        GLUETask(name="wnli", title="WNLI", labels=_ENTAILMENT[::-1]),
    )
}


def glue_task(task: str | GLUETask) -> GLUETask:
    """Returns the task with a name; a task is returned unchanged.

    Raises:
        ValueError: if GLUE has no task with this name.

    Example:
        >>> glue_task("cola").labels
        ('unacceptable', 'acceptable')
    """
    if isinstance(task, GLUETask):
        return task
    if task not in GLUE_TASKS:
        # Makes "SST-2" and "sts_b" match their names closely.
        plain = str(task).lower().replace("-", "").replace("_", "")
        nearest = difflib.get_close_matches(plain, GLUE_TASKS, 1, cutoff=0.0)
        raise ValueError(
            f"`task` must be one of {list(GLUE_TASKS)}. "
            f"Received: task={task!r}. Nearest name: {nearest[0]}."
        )
    return GLUE_TASKS[task]


@dataclasses.dataclass(frozen=True, eq=False)
class TaskExamples:
    """The examples of a split, in the order of GLUE's files.

    Attributes:
        first: the texts, or the first texts of pairs; nothing is stripped.
        second: the second texts of pairs, or None.
        labels: int32 class ids or float32 scores; None for a test set, whose
            labels GLUE keeps secret.
        ids: of the examples, as used in submitted predictions.
    """

    first: list[str]
    second: list[str] | None
    labels: np.ndarray | None
    ids: list[int]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.first)


def load_glue(
    task: str | GLUETask,
    split: str,
    *,
    root: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
) -> TaskExamples:
    r"""Reads a split of a task.

    Files are read in the form in which GLUE published them: UTF-8, one
    example per line, columns separated by tabs, no quoting. The whole split
    is held in memory. GLUE's first download of QQP has a few broken lines,
    which are errors here; the later one, `QQP-clean.zip`, and TFDS have none.

    Args:
        task: a name such as "cola", or a task.
        split: "train", or one of the names in the task's `dev` and `test`.
        root: folder of GLUE's files, `root/CoLA/train.tsv` for example. By
            default the examples come from TFDS, which downloads them first
            if they are not on this machine.
        data_dir: folder of prepared TFDS data sets. Defaults to TFDS's own.
            Not allowed together with `root`.

    Returns:
        The examples.

    Raises:
        ValueError: if the task or the split is unknown, both folders are
            given, or a file or data set has an invalid format.
        FileNotFoundError: if the file does not exist.
        ImportError: if TFDS, or a package that it needs, is not installed.
        ConnectionError: if the data set cannot be downloaded.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "SST-2").mkdir()
        >>> text = "sentence\tlabel\na fine film\t1\n"
        >>> _ = (root / "SST-2" / "dev.tsv").write_text(text)
        >>> examples = load_glue("sst2", "dev", root=root)
        >>> examples.first, examples.labels
        (['a fine film'], array([1], dtype=int32))
    """
    task = glue_task(task)
    if split not in task.splits:
        raise ValueError(
            f"`split` must be one of {list(task.splits)} of '{task.name}'. "
            f"Received: split={split!r}."
        )
    if root is None:
        return _load_tfds(task, split, data_dir)
    if data_dir is not None:
        raise ValueError(
            "`data_dir` is the folder of TFDS and must be None if `root`, the "
            f"folder of GLUE's files, is given. Received: data_dir={data_dir!r}"
            f", root={root!r}."
        )
    return _load_tsv(task, split, Path(root).expanduser())


def _load_tsv(task: GLUETask, split: str, root: Path) -> TaskExamples:
    path = _find_tsv_file(task, split, root)
    rows = read_rows(path)
    columns = task.headless_columns
    if columns is None or split in task.test:
        columns = tuple(next(rows, (1, []))[1])
    texts, label_at, id_at = _find_columns(task, split, columns, path)
    ids: list[int] = []
    first, second, labels = [], [], []
    for number, row in rows:
        where = f"'{path}', line {number}"
        if len(row) != len(columns):
            raise ValueError(
                f"{where}: there must be {len(columns)} columns, "
                f"{list(columns)}. Received: {len(row)} columns."
            )
        first.append(row[texts[0]])
        second.append(row[texts[-1]])
        if label_at is not None:
            labels.append(_parse_label(task, row[label_at], where))
        ids.append(len(ids) if id_at is None else _parse_id(row[id_at], where))
    if not first:
        raise ValueError(f"'{path}' holds no examples. Download it again.")
    return TaskExamples(
        first,
        second if task.is_pair else None,
        None if label_at is None else _make_label_array(task, labels),
        ids,
    )


def _find_tsv_file(task: GLUETask, split: str, root: Path) -> Path:
    path = root / task.folder / f"{split}.tsv"
    for part in (root, path.parent, path):
        # A folder in the file's place is an error too.
        if not (part.is_file() if part == path else part.is_dir()):
            raise FileNotFoundError(
                f"There is no {'file' if part == path else 'folder'} '{part}': "
                "`root` must be the folder of GLUE's files, with "
                f"'{task.folder}/{split}.tsv' in it. "
                f"Received: root={str(root)!r}."
            )
    return path


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, columns) of a file with tabs between columns.

    Windows line endings are accepted, too.

    Raises:
        ValueError: if the file is not UTF-8.
    """
    with path.open("rb") as file:
        # Bytes are split only at line feeds; text would be split elsewhere.
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"'{path}', line {number}: the text must be UTF-8. "
                    f"Received: byte {raw[error.start]:#04x} at position "
                    f"{error.start} of the line."
                ) from error
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            line = line.removesuffix("\n").removesuffix("\r")
            yield number, line.split("\t")


def _find_columns(
    task: GLUETask, split: str, columns: tuple[str, ...], path: Path
) -> tuple[list[int], int | None, int | None]:
    """Returns the columns' indices of the texts, the label and the id."""
    if not columns:
        raise ValueError(f"'{path}' is empty. Download it again.")
    expected = [*task.tsv_texts]
    if split not in task.test:
        expected.append(task.label_column)
    if not set(expected) <= set(columns):
        raise ValueError(
            f"'{path}', line 1: the columns must include {expected}. "
            f"Found: {list(columns)!r:.300}."
        )
    at = {column: place for place, column in enumerate(columns)}
    texts = [at[column] for column in task.tsv_texts]
    return texts, at.get(task.label_column), at.get(task.id_column)


def _parse_label(task: GLUETask, text: str, where: str) -> float:
    if task.is_regression:
        try:
            score = float(text)
        except ValueError:
            score = float("nan")
        return _check_score(score, where, text)
    allowed = task.written_labels
    if text not in allowed:
        raise ValueError(
            f"{where}: the label must be one of {list(allowed)}. "
            f"Received: {text!r:.60}."
        )
    return allowed.index(text)


def _check_score(score: float, where: str, received: Any) -> float:
    # Also refuses NaN.
    if not 0.0 <= score <= HIGHEST_SCORE:
        raise ValueError(
            f"{where}: the score must be a number from 0 to "
            f"{HIGHEST_SCORE:.0f}. Received: {received!r:.60}."
        )
    return score


def _parse_id(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(
            f"{where}: the example's number must be a whole number. "
            f"Received: {text!r:.60}."
        )
    return int(text)


def _make_label_array(task: GLUETask, labels: Any) -> np.ndarray:
    return np.array(labels, np.float32 if task.is_regression else np.int32)


def _load_tfds(
    task: GLUETask, split: str, data_dir: str | os.PathLike | None
) -> TaskExamples:
    name = f"glue/{task.name}"
    tfds_split = split.replace("dev", "validation", 1)
    # Downloads the data set if needed, and explains what is wrong with it.
    for feature in task.tfds_texts:
        TfdsText(name, tfds_split, feature, data_dir).describe()
    arrays = _read_tfds_arrays(task, name, tfds_split, data_dir)
    # TFDS stores examples in a different order.
    order = np.argsort(arrays["idx"], kind="stable")
    ids = arrays["idx"][order].tolist()
    texts = [
        _decode(arrays[feature][order], ids, f"'{name}', split '{tfds_split}'")
        for feature in task.tfds_texts
    ]
    labels = arrays["label"][order]
    # TFDS stores -1 for labels that GLUE keeps secret.
    hidden = split in task.test and bool((labels == -1).all())
    if not hidden:
        _check_tfds_labels(task, labels, ids, f"'{name}', split '{tfds_split}'")
    return TaskExamples(
        texts[0],
        texts[1] if task.is_pair else None,
        None if hidden else _make_label_array(task, labels),
        ids,
    )


def _read_tfds_arrays(
    task: GLUETask, name: str, split: str, data_dir: str | os.PathLike | None
) -> dict[str, np.ndarray]:
    """Returns the features of all examples, texts as bytes."""
    # Imported late because it imports TensorFlow.
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.info.splits[split].num_examples:
        raise ValueError(f"Split '{split}' of '{name}' holds no examples.")
    batches = list(
        tfds.as_numpy(
            builder.as_dataset(
                split=split,
                batch_size=_BATCH_SIZE,
                shuffle_files=False,
                read_config=tfds.ReadConfig(try_autocache=False),
            )
        )
    )
    names = ("idx", "label", *task.tfds_texts)
    return {
        name: np.concatenate([batch[name] for batch in batches])
        for name in names
    }


def _check_tfds_labels(
    task: GLUETask, labels: np.ndarray, ids: list[int], where: str
) -> None:
    for number, label in zip(ids, labels.tolist(), strict=True):
        at = f"{where}, example {number}"
        if task.is_regression:
            _check_score(label, at, label)
        elif not 0 <= label < task.num_outputs:
            raise ValueError(
                f"{at}: the label must be 0 to {task.num_outputs - 1}. "
                f"Received: {label}."
            )


def _decode(texts: np.ndarray, ids: list[int], where: str) -> list[str]:
    decoded = []
    for number, text in zip(ids, texts, strict=True):
        try:
            decoded.append(text.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}, example {number}: the text must be UTF-8."
            ) from error
    return decoded
