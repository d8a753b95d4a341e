"""The text that a task's student learns from besides the training set."""

import dataclasses
from collections.abc import Mapping

import tokenizers
from keras_hub.models import MaskedLM

from keras_distil import config, data
from keras_distil.data.tasks import mixing
from keras_distil.data.tasks.dev_split import text_digests
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.unlabelled import (
    TextColumns,
    UnlabelledTexts,
    read_unlabelled,
    read_unlabelled_questions,
)
from keras_distil.models import augmentation
from keras_distil.runs import prose, score_table
from keras_distil.runs.augmented import write_copies
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.run_folder import Run
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.tasks import (
    UNLABELLED,
    BuiltTask,
    count_unknown,
    squad_lengths,
)
from keras_distil.utils.machine import cache_folder

# The columns of an own task's texts, as its entry calls them.
_TEXTS = ("text", "text_pair")


def add_unlabelled(run: Run, task: BuiltTask) -> BuiltTask:
    """Adds the task's unlabelled examples, if the recipe names any.

    Also checks what is to be augmented, because that is done much later.

    Raises:
        ValueError: if a file is invalid or has labels, half of its tokens are
            unknown, or an example has no text to augment.
        FileNotFoundError: if there is no file.
    """
    tokenizer = load_tokenizer(run.recipe)
    settings = finetune_section(run.recipe)
    if settings.augment_copies and score_table.STUDENT in settings.rows:
        try:
            augmentation.check_text(task.train, tokenizer)
        except ValueError as error:
            raise ValueError(f"The task {task.name}: {error}") from None
    texts = read_unlabelled_files(run.recipe, task.name)
    if texts is None:
        return task
    examples = _encode(run.recipe, texts, tokenizer)
    run.progress.say(
        f"{task.name}: {len(texts):,} unlabelled examples"
        + (
            f", {texts.skipped:,} more without any text"
            if isinstance(texts, UnlabelledTexts) and texts.skipped
            else ""
        )
    )
    where = f"the unlabelled text of {task.name}"
    unknown, total = count_unknown(examples.token_ids, tokenizer)
    token = data.unknown_token(tokenizer)
    data.check_unknown(unknown, total, where, token=token)
    for line in data.unknown_warnings(unknown, total, where, token=token):
        run.progress.warn(line)
    keys = dict(task.keys)
    if isinstance(texts, UnlabelledTexts):
        hashes = text_digests(texts.first, texts.second)
        keys[UNLABELLED] = RowKeys(UNLABELLED, hashes)
    return dataclasses.replace(task, unlabelled=examples, keys=keys)


def read_unlabelled_files(
    recipe: config.Recipe, name: str
) -> UnlabelledTexts | list[data.SquadExample] | None:
    """Reads a task's unlabelled text; None if the recipe names none.

    Raises:
        ValueError: if a file is invalid or has labels.
        FileNotFoundError: if there is no file.
    """
    pattern = finetune_section(recipe).unlabelled_of(name)
    if pattern is None:
        return None
    try:
        paths = data.find_files(
            pattern,
            recipe.data.root,
            allow_outside_root=recipe.data.allow_outside_root,
        )
    except (FileNotFoundError, ValueError) as error:
        text = f"`finetune.by_task.{name}.unlabelled`: {error}"
        if isinstance(error, FileNotFoundError) and pattern in prose.FILES:
            text = _missing_prose(name, pattern, recipe.data.root)
        raise type(error)(text) from error
    own = finetune_section(recipe).own_task(name)
    if own is not None:
        texts = [own.columns[x] for x in _TEXTS if x in own.columns]
        label = own.columns.get("label", ())
        labels = (label,) if isinstance(label, str) else tuple(label)
        return read_unlabelled(paths, TextColumns((tuple(texts),), labels))
    if name.startswith("squad"):
        return read_unlabelled_questions(paths)
    task = data.glue_task(name)
    columns = TextColumns(
        tuple(dict.fromkeys((task.tsv_texts, task.tfds_texts))),
        labels=(task.label_column,),
    )
    return read_unlabelled(paths, columns)


def _missing_prose(name: str, pattern: str, root: str | None) -> str:
    return (
        f"{name}: {pattern} is missing in "
        f"{'the current folder' if root is None else f'`{root}`'}. "
        f"`keras-distil prose TEXTS {root or 'FOLDER'}` makes it of the "
        "*.txt in TEXTS"
        + (", and `data.root` names FOLDER" if root is None else "")
        + "; to do without, set `unlabelled` and `unlabelled_share` to null."
    )


def _encode(
    recipe: config.Recipe,
    texts: UnlabelledTexts | list[data.SquadExample],
    tokenizer: tokenizers.Tokenizer,
) -> data.EncodedExamples:
    settings = finetune_section(recipe)
    if isinstance(texts, UnlabelledTexts):
        return data.encode_examples(
            tokenizer,
            texts.first,
            texts.second,
            max_length=settings.max_length,
        )
    windows = data.encode_windows(
        data.make_squad_windows(texts, tokenizer, **squad_lengths(settings)),
        pad_id=data.SpecialTokens.from_tokenizer(tokenizer).pad_id,
        max_length=settings.max_length,
    )
    return dataclasses.replace(windows, labels=None)


def count_epoch_steps(
    recipe: config.Recipe, task: BuiltTask, row: str, batch_size: int
) -> int:
    """Counts the updates of an epoch of a row on a task.

    An epoch is one pass over the labelled examples. If the student reads more
    than these, its epochs have more updates, and the baseline's have as many,
    in which it passes over the labelled examples more than once.

    Args:
        recipe: the recipe.
        task: the task, with its unlabelled examples.
        row: a row that is trained.
        batch_size: int >= 1, examples per batch.
    """
    settings = finetune_section(recipe)
    counts = [len(task.train)]
    given: list[float | None] = [None]
    if score_table.STUDENT in settings.rows and row in (
        score_table.STUDENT,
        score_table.BASELINE,
    ):
        copies = settings.augment_copies * len(task.train)
        unlabelled = 0 if task.unlabelled is None else len(task.unlabelled)
        for count, share in (
            (copies, settings.augmented_share),
            (unlabelled, settings.unlabelled_share),
        ):
            if count:
                counts.append(count)
                given.append(share)
    return mixing.count_steps(counts, given, batch_size)


def student_examples(
    run: Run, task: BuiltTask, encoders: Mapping[str, MaskedLM]
) -> data.EncodedExamples | data.Mixture:
    """Returns what a task's student learns from.

    Args:
        run: the run.
        task: the task, with its unlabelled examples.
        encoders: by row, the models that the tasks start from; of these, the
            untuned teacher replaces words.
    """
    settings = finetune_section(run.recipe)
    augmented = None
    if settings.augment_copies:
        with run.progress.bar(f"Augment {task.name} (words)") as bar:
            augmented = write_copies(
                task.train,
                encoders[score_table.TEACHER],
                load_tokenizer(run.recipe),
                cache_dir=cache_folder() / "augmented",
                name=task.name,
                copies=settings.augment_copies,
                seed=run.recipe.seed,
                say=run.progress.say,
                progress=bar.update_of,
            )
    if augmented is None and task.unlabelled is None:
        return task.train
    return data.Mixture(
        task.train,
        augmented,
        task.unlabelled,
        augmented_share=settings.augmented_share,
        unlabelled_share=settings.unlabelled_share,
    )
