"""SQuAD 1.1 and 2.0: questions answered by spans of a paragraph."""

import dataclasses
import json
import os
import reprlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import pydantic

from keras_distil.data.corpus.tfds_text import TfdsText
from keras_distil.data.tasks.text_lines import read_text
from keras_distil.utils import disk

_VERSIONS = ("1.1", "2.0")
# Our names of splits -> those of TFDS.
_SPLITS = {"train": "train", "dev": "validation"}


@dataclasses.dataclass(frozen=True)
class SquadAnswer:
    """A span of the context that answers a question.

    Attributes:
        text: the span, exactly as in the context.
        start: index of its first character in the context.
    """

    text: str
    start: int

    @property
    def end(self) -> int:
        """Index after its last character."""
        return self.start + len(self.text)


@dataclasses.dataclass(frozen=True)
class SquadExample:
    """A question about a paragraph.

    Attributes:
        id: identifies the question in a file of predictions.
        title: title of the paragraph's article, or "".
        question: the question.
        context: the paragraph.
        answers: the answers that annotators marked; empty if the question is
            impossible or its answers are secret.
        is_impossible: whether the context does not answer the question. Only
            SQuAD 2.0 has such questions.
    """

    id: str
    title: str
    question: str
    context: str
    answers: tuple[SquadAnswer, ...]
    is_impossible: bool


def read_squad(
    path: str | os.PathLike,
    *,
    require_answers: bool = False,
    encoding: str = "utf-8",
) -> list[SquadExample]:
    """Reads a file in the JSON format of SQuAD 1.1 or 2.0.

    Keys that are not needed, such as `plausible_answers`, are ignored.

    Args:
        path: the file; one that ends in `.gz` is decompressed.
        require_answers: whether each question must have an answer or be
            marked impossible, as in a training set. Test files leave
            the answers out.
        encoding: name of its encoding.

    Returns:
        The questions, in the order of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not JSON or has another structure, or its
            content contradicts itself: an answer is not in the context at
            its stated place, an id is repeated, an impossible question has
            an answer.

    Reference:
        https://rajpurkar.github.io/SQuAD-explorer/
    """
    path = Path(path)
    if path.is_file():
        disk.check_size(path, disk.DATA_JSON_BYTES)
    try:
        text = read_text(path, encoding, most=disk.DATA_JSON_BYTES)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no SQuAD file '{path}'. Download it from "
            "https://rajpurkar.github.io/SQuAD-explorer/."
        ) from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"The SQuAD file '{path}' is not JSON ({error}). Download it again."
        ) from error
    try:
        articles = _File.model_validate(content).data
    except pydantic.ValidationError as error:
        raise ValueError(
            f"'{path}' does not have the structure of a SQuAD file. "
            f"{_describe(error.errors()[0])}"
        ) from error
    examples = list(_make_examples(articles))
    check_examples(examples, f"'{path}'", require_answers=require_answers)
    return examples


def load_squad(
    split: str,
    *,
    root: str | os.PathLike | None = None,
    version: str = "1.1",
    data_dir: str | os.PathLike | None = None,
) -> list[SquadExample]:
    """Loads the training or the development set of SQuAD.

    Args:
        split: "train" or "dev".
        root: folder with the file under its official name, such as
            `train-v1.1.json`, or else as `train.json`. None reads `squad` of
            TensorFlow Datasets, which downloads it once.
        version: "1.1", or "2.0", which also has impossible questions.
        data_dir: folder of prepared TFDS data sets, if `root` is None.
            Defaults to TFDS's own.

    Returns:
        The questions, in storage order.

    Raises:
        FileNotFoundError: if `root` holds no file for the split.
        ValueError: as for `read_squad`; or if an argument is unknown, a
            training question has no answer, or version 1.1 has an impossible
            question.
        ImportError: if TFDS is needed but not installed.
        ConnectionError: if SQuAD cannot be downloaded.
    """
    if split not in _SPLITS:
        raise ValueError(
            f"`split` must be one of {list(_SPLITS)}. Received: "
            f"split={split!r}."
        )
    if version not in _VERSIONS:
        raise ValueError(
            f"`version` must be one of {list(_VERSIONS)}. Received: "
            f"version={version!r}."
        )
    if root is None:
        place = f"squad/v{version} of TFDS"
        examples = list(_read_tfds(split, version, data_dir))
        check_examples(examples, place, require_answers=split == "train")
    elif data_dir is not None:
        raise ValueError(
            "`data_dir` is for TFDS, which `root` replaces: give one of them. "
            f"Received: root='{root}', data_dir='{data_dir}'."
        )
    else:
        path = _find_file(Path(root), split, version)
        place = f"'{path}'"
        examples = read_squad(path, require_answers=split == "train")
    _check_version(examples, place, version)
    return examples


def _check_characters(text: str) -> str:
    # JSON can encode half a character, which no tokenizer accepts.
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(
            "must hold whole characters, not half a surrogate pair"
        )
    return text


_WHOLE = pydantic.AfterValidator(_check_characters)
_Text: TypeAlias = Annotated[str, _WHOLE]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)


class _Answer(_Section):
    text: Annotated[str, pydantic.Field(min_length=1), _WHOLE]
    answer_start: Annotated[int, pydantic.Field(ge=0)]


class _Question(_Section):
    id: _Text
    question: _Text
    answers: list[_Answer] = []
    is_impossible: bool = False


class _Paragraph(_Section):
    context: _Text
    qas: list[_Question]


class _Article(_Section):
    title: _Text = ""
    paragraphs: list[_Paragraph]


class _File(_Section):
    data: list[_Article]


def _describe(details: Any) -> str:
    """Formats one of pydantic's errors as `path: problem`."""
    place = ".".join(map(str, details["loc"])) or "the file"
    if details["type"] == "missing":
        return f"{place}: required key is missing."
    if details["type"] == "value_error":
        problem = str(details["ctx"]["error"])
    elif details["type"] == "model_type":
        problem = "must be an object"
    else:
        problem = details["msg"].replace("Input should", "must")
        problem = problem.replace("String should", "must")
    return f"{place}: {problem}. Received: {reprlib.repr(details['input'])}."


def _make_examples(articles: list[_Article]) -> Iterator[SquadExample]:
    for article in articles:
        for paragraph in article.paragraphs:
            for entry in paragraph.qas:
                yield SquadExample(
                    entry.id,
                    article.title,
                    entry.question,
                    paragraph.context,
                    tuple(
                        SquadAnswer(answer.text, answer.answer_start)
                        for answer in entry.answers
                    ),
                    entry.is_impossible,
                )


def _find_file(root: Path, split: str, version: str) -> Path:
    names = (f"{split}-v{version}.json", f"{split}.json")
    for name in names:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f"`root` must hold {' or '.join(names)}. Received: root='{root}'."
    )


def _read_tfds(
    split: str, version: str, data_dir: str | os.PathLike | None
) -> Iterator[SquadExample]:
    name, part = f"squad/v{version}", _SPLITS[split]
    # Prepares the data set, and turns failures into clear errors.
    TfdsText(name, split=part, field="context", data_dir=data_dir).describe()
    # Imported late because it imports TensorFlow.
    import tensorflow_datasets as tfds

    stored = tfds.builder(name, data_dir=data_dir).as_dataset(
        split=part,
        shuffle_files=False,
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    for entry in tfds.as_numpy(stored):
        id_, title, question, context = (
            entry[key].decode("utf-8")
            for key in ("id", "title", "question", "context")
        )
        answers = zip(
            entry["answers"]["text"],
            entry["answers"]["answer_start"],
            strict=True,
        )
        yield SquadExample(
            id_,
            title,
            question,
            context,
            tuple(SquadAnswer(t.decode("utf-8"), int(s)) for t, s in answers),
            bool(entry.get("is_impossible", False)),
        )


def check_examples(
    examples: list[SquadExample], place: str, *, require_answers: bool
) -> None:
    """Raises a `ValueError` for content that contradicts itself.

    Args:
        examples: the questions.
        place: where they are from, for messages.
        require_answers: as for `read_squad`.
    """
    counted = Counter(example.id for example in examples)
    misplaced = [
        (example, answer)
        for example in examples
        for answer in example.answers
        if not example.context.startswith(answer.text, answer.start)
    ]
    if misplaced:
        example, answer = misplaced[0]
        text = example.context[answer.start : answer.end]
        raise ValueError(
            f"{len(misplaced)} answers in {place} are not in the context at "
            f"their `answer_start`. The first is of question '{example.id}': "
            f"{answer.text!r} at {answer.start}, where {text!r} stands."
        )
    refuse_ids(
        [id_ for id_, count in counted.items() if count > 1],
        f"{place}: ids are repeated",
    )
    refuse_ids(
        [e.id for e in examples if e.is_impossible and e.answers],
        f"{place}: questions are marked impossible but have answers",
    )
    if require_answers:
        refuse_ids(
            [e.id for e in examples if not (e.is_impossible or e.answers)],
            f"{place}: questions have no answer and are not marked impossible",
        )


def _check_version(
    examples: list[SquadExample], place: str, version: str
) -> None:
    if version == "1.1":
        refuse_ids(
            [example.id for example in examples if example.is_impossible],
            f"{place}: questions are marked impossible, which version='1.1' "
            "does not allow; use version='2.0'",
        )


def refuse_ids(ids: list[str], problem: str) -> None:
    """Raises a `ValueError` if there are ids, which have a problem."""
    if ids:
        raise ValueError(f"{problem} ({len(ids)}, the first is '{ids[0]}').")
