"""The tasks of a run, read and encoded."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tokenizers

from keras_distil import config, data, evaluation
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.config.own_task import OwnTask
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.selection import (
    split_examples,
    split_questions,
)
from keras_distil.evaluation import significance, spans, task_metrics
from keras_distil.evaluation.task_files import TaskEvaluator
from keras_distil.runs import score_table
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.own_tasks import load_own_task, read_own_task
from keras_distil.runs.run_folder import Run
from keras_distil.runs.sections import finetune_section
from keras_distil.teachers.store.writing import size_text
from keras_distil.utils import disk

# Folder of a run with the token ids of tasks from files.
FEATURES = "features"
# The part of a task that only its teacher labels.
UNLABELLED = "unlabelled"


@dataclasses.dataclass(frozen=True)
class BuiltTask:
    """A task with its data.

    Attributes:
        name: as in the recipe.
        kind: kind of model, as in `models.task_model`.
        outputs: number of the models' outputs.
        train: the training set.
        evaluator: scores models on the development set.
        selection: scores models on a part of the training set, to choose their
            epoch; None if the development set chooses it.
        metric: score of a row for the table; None for the mean of the
            evaluator's metrics.
        labels: class names; None if the task has no classes.
        unknown: numbers of unknown tokens and of all in the training set.
        unknown_token: the tokenizer's unknown token; None if it has none.
        unlabelled: examples that only the teacher labels; None if there are
            none, or before `more_text.add_unlabelled`.
        keys: by part, what predictions name the rows by; empty for tasks that
            are not one's own.
        remarks: what the user should know of the data, one line each.
    """

    name: str
    kind: str
    outputs: int
    train: data.EncodedExamples
    evaluator: (
        evaluation.GLUEEvaluator | evaluation.SpanEvaluator | TaskEvaluator
    )
    selection: evaluation.GLUEEvaluator | evaluation.SpanEvaluator | None = None
    metric: significance.Metric | None = None
    unknown: tuple[int, int] = (0, 0)
    unknown_token: str | None = "[UNK]"
    labels: tuple[str, ...] | None = None
    unlabelled: data.EncodedExamples | None = None
    keys: Mapping[str, RowKeys] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def chooser(
        self,
    ) -> evaluation.GLUEEvaluator | evaluation.SpanEvaluator | TaskEvaluator:
        """Scores models to choose their epoch."""
        return self.evaluator if self.selection is None else self.selection

    @property
    def counts_errors(self) -> bool:
        """Whether less is better: scores are errors, counted negative."""
        return getattr(self.evaluator, "metric", None) in task_metrics.ERRORS

    def shown(self, score: float) -> str:
        """Formats a score: in percent, or the error itself."""
        if self.counts_errors:
            return score_table.shown_error(100.0 * score)
        return f"{100.0 * score:.1f}"

    def logged(self, name: str, score: float) -> dict[str, float]:
        """Returns a score as logs have it: an error positive, named so."""
        if self.counts_errors:
            return {name.replace("score", "error"): -score}
        return {name: score}

    @property
    def score_name(self) -> str:
        """Name of the chooser's score in results."""
        return "dev_score" if self.selection is None else "selection_score"

    @property
    def logged_name(self) -> str:
        """Name of the chooser's score in logs."""
        return next(iter(self.logged(self.score_name, 0.0)))


def load_tasks(run: Run) -> dict[str, BuiltTask]:
    """Loads all tasks first, so that their errors show before the long work."""
    settings = finetune_section(run.recipe)
    run.progress.say(f"Read tasks: {', '.join(settings.task_names)}")
    tasks: dict[str, BuiltTask] = {}
    for name in settings.task_names:
        folder = run.folder / FEATURES / name if run.writes else None
        task = tasks[name] = load_task(run.recipe, name, folder=folder)
        share = data.describe_share(*task.unknown, task.unknown_token)
        run.progress.say(
            f"{name}: {len(task.train):,} training examples"
            + _describe_selection(task)
            + (f", {share}" if share else "")
        )
        for line in data.unknown_warnings(
            *task.unknown, f"the task {name}", token=task.unknown_token
        ):
            run.progress.warn(line)
        for line in task.remarks:
            run.progress.warn(line)
        if folder is not None and folder.is_dir():
            size = size_text(round(1e6 * disk.file_size_mb(folder)))
            run.progress.say(f"Encoded rows of {name}: {size} in {folder}")
    return tasks


def _describe_selection(task: BuiltTask) -> str:
    if task.selection is None:
        return ""
    count = sum(map(len, task.selection.labels.values()))
    return (
        f", and {count:,} more that choose the epoch: the development set is "
        "read once, at the end"
    )


def load_task(
    recipe: config.Recipe,
    name: str,
    *,
    tokenizer: tokenizers.Tokenizer | None = None,
    folder: Path | None = None,
) -> BuiltTask:
    """Reads and encodes one task of the recipe.

    Args:
        recipe: the recipe.
        name: name of the task.
        tokenizer: tokenizer of the models that read the task. Defaults to the
            teacher's.
        folder: where a large training set of one's own is kept while it is
            read; None for memory.

    Raises:
        ValueError: if its files are missing or invalid, or half of their tokens
            are unknown.
    """
    if tokenizer is None:
        tokenizer = load_tokenizer(recipe)
    entry = finetune_section(recipe).own_task(name)
    if entry is not None:
        built = _own_task(recipe, entry, tokenizer, folder)
    elif name.startswith("squad"):
        built = _squad_task(recipe, name, tokenizer)
    else:
        built = _glue_task(recipe, name, tokenizer)
    unknown, total = count_unknown(built.train.token_ids, tokenizer)
    token = data.unknown_token(tokenizer)
    data.check_unknown(unknown, total, f"the task {name}", token=token)
    return dataclasses.replace(
        built, unknown=(unknown, total), unknown_token=token
    )


def count_unknown(
    token_ids: np.ndarray, tokenizer: tokenizers.Tokenizer
) -> tuple[int, int]:
    """Counts the unknown tokens, and all but those that frame a text."""
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    unknown, total = 0, 0
    # A part at a time, because there may be many.
    for begin in range(0, len(token_ids), 2**22):
        ids = token_ids[begin : begin + 2**22]
        frame = (ids == special.cls_id) | (ids == special.sep_id)
        total += int(np.count_nonzero(~frame))
        if special.unknown_id is not None:
            is_unknown = (ids == special.unknown_id) & ~frame
            unknown += int(np.count_nonzero(is_unknown))
    return unknown, total


def read_task(recipe: config.Recipe, name: str) -> list[str]:
    """Reads a task's files only to check them.

    Returns:
        What the user should know of them, one line each.

    Raises:
        ValueError: if they are invalid.
        FileNotFoundError: if one is missing.
    """
    entry = finetune_section(recipe).own_task(name)
    if entry is not None:
        return read_own_task(recipe, entry)
    root = task_root(recipe)
    if name.startswith("squad"):
        _read_questions(recipe, name)
        data.load_squad("dev", root=root, version=_squad_version(name))
        return []
    _read_examples(recipe, name)
    for split in data.glue_task(name).dev:
        data.load_glue(name, split, root=root)
    return []


def task_root(recipe: config.Recipe) -> str | None:
    """The folder of the tasks' files, or None for TensorFlow Datasets.

    Raises:
        ValueError: if the tasks are read from files and there is no folder.
    """
    if finetune_section(recipe).source == "tfds":
        return None
    if recipe.data.root is None:
        raise ValueError(
            "`finetune.source: files` needs `data.root`, the folder of the "
            "tasks: --set data.root=FOLDER."
        )
    return recipe.data.root


def _own_task(
    recipe: config.Recipe,
    entry: OwnTask,
    tokenizer: tokenizers.Tokenizer,
    folder: Path | None,
) -> BuiltTask:
    made = load_own_task(recipe, entry, tokenizer, folder=folder)
    return BuiltTask(
        name=entry.name,
        kind=entry.kind,
        outputs=1 if made.labels is None else len(made.labels),
        train=made.train,
        evaluator=made.evaluator,
        metric=made.evaluator.counted_metric,
        labels=made.labels,
        keys=made.keys,
        remarks=made.remarks,
    )


def _glue_task(
    recipe: config.Recipe, name: str, tokenizer: tokenizers.Tokenizer
) -> BuiltTask:
    root, length = task_root(recipe), finetune_section(recipe).max_length
    examples, taken = _read_examples(recipe, name)
    evaluator = evaluation.GLUEEvaluator(
        name, tokenizer, root=root, max_length=length
    )
    labels = evaluator.task.labels
    # MNLI's two development sets have nearly the same size.
    pooled = significance.ACCURACY if name == "mnli" else None
    built = BuiltTask(
        name=name,
        kind="regression" if labels is None else "classification",
        outputs=1 if labels is None else len(labels),
        train=data.encode_examples(
            tokenizer,
            examples.first,
            examples.second,
            examples.labels,
            max_length=length,
        ),
        evaluator=evaluator,
        metric=pooled,
        labels=labels,
    )
    if taken is None:
        return built
    selection = evaluation.GLUEEvaluator(
        name, tokenizer, examples={"selection": taken}, max_length=length
    )
    return dataclasses.replace(built, selection=selection)


def _read_examples(
    recipe: config.Recipe, name: str
) -> tuple[data.TaskExamples, data.TaskExamples | None]:
    """The examples to train on, and those that choose the epoch, if any do."""
    examples = data.load_glue(name, "train", root=task_root(recipe))
    if finetune_section(recipe).selection == "dev":
        return examples, None
    rest, taken = split_examples(examples)
    # Equal labels give every epoch the same correlation.
    if not len(taken) or len(set(np.asarray(taken.labels))) < 2:
        raise _too_small(name, f"{len(examples)} examples")
    return rest, taken


def _squad_task(
    recipe: config.Recipe, name: str, tokenizer: tokenizers.Tokenizer
) -> BuiltTask:
    settings, root = finetune_section(recipe), task_root(recipe)
    lengths = squad_lengths(settings)
    train, taken = _read_questions(recipe, name)
    dev = data.load_squad("dev", root=root, version=_squad_version(name))
    built = BuiltTask(
        name=name,
        kind="span",
        outputs=1,
        train=data.encode_windows(
            data.make_squad_windows(train, tokenizer, **lengths),
            pad_id=data.SpecialTokens.from_tokenizer(tokenizer).pad_id,
            max_length=settings.max_length,
        ),
        evaluator=evaluation.SpanEvaluator(dev, tokenizer, **lengths),
        metric=spans.mean_f1,
    )
    if taken is None:
        return built
    return dataclasses.replace(
        built, selection=evaluation.SpanEvaluator(taken, tokenizer, **lengths)
    )


def _read_questions(
    recipe: config.Recipe, name: str
) -> tuple[list[data.SquadExample], list[data.SquadExample] | None]:
    """The questions to train on, and those that choose the epoch, if any do."""
    questions = data.load_squad(
        "train", root=task_root(recipe), version=_squad_version(name)
    )
    if finetune_section(recipe).selection == "dev":
        return questions, None
    rest, taken = split_questions(questions)
    if not taken:
        raise _too_small(name, f"{len(questions)} questions on one paragraph")
    return rest, taken


def _too_small(name: str, received: str) -> ValueError:
    return ValueError(
        "`finetune.selection: train` takes a tenth out of the training set of "
        f"{name}, with more than one text and label. Received: {received}. Add "
        "some, or use `selection: dev`."
    )


def squad_lengths(settings: FineTuneSection) -> dict[str, int]:
    """The lengths of SQuAD's windows."""
    names = ("max_length", "stride", "max_question")
    return {name: getattr(settings, name) for name in names}


def _squad_version(name: str) -> str:
    return "2.0" if name == "squad_v2" else "1.1"
