"""From a recipe's values to objects; nothing else reads both."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tokenizers
from keras_hub.models import MaskedLM, Task

from keras_distil import (
    callbacks,
    config,
    data,
    evaluation,
    losses,
    models,
    schedules,
    teachers,
)
from keras_distil.config import data_section
from keras_distil.config import schedules as schedule_settings
from keras_distil.config.distill_section import LOSS_NAMES, DistillSection
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.evaluation import significance, spans
from keras_distil.models import augmentation
from keras_distil.models.hub import HUB_SCHEME
from keras_distil.runs import trainers
from keras_distil.training import distribution
from keras_distil.training.distiller import Distiller

# Sequences that the gradients of losses are compared on.
_BALANCED_ON = 16


def strategy(recipe: config.Recipe) -> tf.distribute.Strategy:
    """The distribution strategy whose scope the run is made in."""
    settings = recipe.distill
    return distribution.make_strategy(
        settings.strategy if settings is not None else "auto"
    )


def teacher(recipe: config.Recipe, *, dtype: str | None = None) -> MaskedLM:
    """The teacher, as it comes from its source.

    Args:
        recipe: the recipe.
        dtype: precision instead of the recipe's.

    Returns:
        A masked-LM task model.
    """
    return models.load_teacher(
        recipe.teacher.source,
        allow_new_head=recipe.teacher.allow_new_head,
        dtype=dtype or recipe.precision,
        seed=recipe.seed,
    )


def hub_commits(recipe: config.Recipe) -> dict[str, str]:
    """The commits of what the recipe takes from the Hugging Face Hub.

    Returns:
        By source; those that are not known are left out.
    """
    sources = [recipe.teacher.source]
    if recipe.student is not None:
        sources += [
            recipe.student.source or "",
            recipe.student.undistilled_source or "",
        ]
    commits = {}
    for source in sources:
        if source.startswith(HUB_SCHEME):
            directory = models.checkpoint_directory(source)
            commit = models.commit_of(directory) if directory else None
            if commit is not None:
                commits[source] = commit
    return commits


def frozen_teacher(recipe: config.Recipe, its_teacher: MaskedLM) -> MaskedLM:
    """The teacher as the steps run it, which train nothing of it.

    Under a mixed precision it needs no float32 weights, of which every step
    would make a copy. In float32 it is returned as it is.
    """
    policy = keras.dtype_policies.get(recipe.precision)
    if policy.compute_dtype == policy.variable_dtype:
        return its_teacher
    return models.with_dtype(its_teacher, policy.compute_dtype)


def tokenizer(
    recipe: config.Recipe, *, model: Path | None = None
) -> tokenizers.Tokenizer:
    """The tokenizer of a model: the teacher's, unless it brings its own.

    Args:
        recipe: names the teacher.
        model: a file or a directory; None for the teacher itself.

    Raises:
        ValueError: if the teacher's source has no vocabulary beside it.
    """
    directory = models.checkpoint_directory(recipe.teacher.source)
    if model is not None and any(
        (model / name).is_file() for name in data.TOKENIZER_FILES
    ):
        directory = model
    if directory is None:
        raise ValueError(
            f"The teacher {recipe.teacher.source!r} brings no vocabulary to "
            "prepare text with. Use a directory in Hugging Face's layout."
        )
    try:
        return data.load_tokenizer(directory)
    except FileNotFoundError:
        raise
    # Files that are no UTF-8, no JSON, or JSON of other types; the library
    # itself raises bare Exception.
    except Exception as error:
        problem = " ".join(str(error).split())[:300].rstrip(".")
        raise ValueError(
            f"The tokenizer in {directory} cannot be used: {problem}."
        ) from error


def sources(recipe: config.Recipe) -> list[data.Source]:
    """The sources of text, in the recipe's order."""
    made: list[data.Source] = []
    for source in recipe.data.sources:
        if isinstance(source, data_section.DocumentationSource):
            made.append(data.InstalledDocumentation(tuple(source.packages)))
        elif isinstance(source, data_section.FilesSource):
            made.append(
                data.TextFiles(
                    source.pattern,
                    root=recipe.data.root,
                    field=source.field,
                    encoding=source.encoding,
                    allow_outside_root=recipe.data.allow_outside_root,
                )
            )
        else:
            made.append(data.TfdsText(source.name, source.split, source.field))
    return made


def corpus(
    recipe: config.Recipe,
    *,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> data.PreparedCorpus:
    """The tokens of the recipe's corpus: opened, found in the cache or made.

    Args:
        recipe: the recipe.
        progress: called with the steps done and their number.
        warn: called with one line for each thing that is odd about the text.
    """
    if recipe.data.prepared is not None:
        folder = Path(recipe.data.root or ".") / recipe.data.prepared
        opened = data.open_corpus(folder, expected=corpus_settings(recipe))
        opened.report.lost.check(recipe.data.max_skipped_fraction)
        for line in opened.report.warnings():
            warn(line)
        return opened
    return data.prepare_corpus(
        sources(recipe),
        tokenizer(recipe),
        **_sequence_settings(recipe),
        max_skipped_fraction=recipe.data.max_skipped_fraction,
        cache_dir=cache_folder() / "corpora",
        workers=os.cpu_count() or 1,
        progress=progress,
        warn=warn,
    )


def prepare(
    recipe: config.Recipe,
    *,
    output: Path | None,
    workers: int | None,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> data.PreparedCorpus:
    """Makes the recipe's corpus, or verifies all of it.

    Args:
        recipe: the recipe.
        output: its folder; None for the cache.
        workers: processes; None for one a core.
        progress: called with the steps done and their number.
        warn: called with one line for each thing that is odd about the text.
    """
    return data.prepare_corpus(
        sources(recipe),
        tokenizer(recipe),
        **_sequence_settings(recipe),
        max_skipped_fraction=recipe.data.max_skipped_fraction,
        cache_dir=None if output else cache_folder() / "corpora",
        output=output,
        workers=workers or os.cpu_count() or 1,
        progress=progress,
        warn=warn,
        verify=True,
    )


def prepare_with_beam(
    recipe: config.Recipe, *, output: str, options: Sequence[str]
) -> data.CorpusReport:
    """Makes the recipe's corpus as a pipeline of Apache Beam.

    Args:
        recipe: the recipe.
        output: its folder, one that all workers see.
        options: Beam's pipeline options, as on a command line.

    Returns:
        What was read and skipped.
    """
    from keras_distil.data.corpus import beam

    return beam.prepare_with_beam(
        sources(recipe),
        tokenizer(recipe),
        corpus_settings(recipe),
        output=output,
        max_skipped_fraction=recipe.data.max_skipped_fraction,
        options=options,
    )


def corpus_settings(recipe: config.Recipe) -> dict[str, Any]:
    """What the manifest of the recipe's corpus has to say."""
    return data.corpus_settings(tokenizer(recipe), **_sequence_settings(recipe))


def _sequence_settings(recipe: config.Recipe) -> dict[str, Any]:
    return {
        "sequence_length": recipe.data.sequence_length,
        "held_out_fraction": recipe.data.held_out_fraction,
        "layout": recipe.data.layout,
    }


def cache_folder() -> Path:
    """Where prepared corpora and trained teachers are kept between runs."""
    named = os.environ.get("KERAS_DISTIL_CACHE") or "~/.cache/keras_distil"
    folder = Path(named).expanduser()
    # What is in there is loaded again: nobody else may write to it.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def training_batches(
    recipe: config.Recipe,
    prepared: data.PreparedCorpus,
    *,
    batch_size: int,
    maskings: int | None = None,
) -> tf.data.Dataset:
    """An endless stream of training batches.

    Args:
        recipe: the recipe.
        prepared: its corpus.
        batch_size: sequences a batch.
        maskings: masks of a sequence; None masks anew every epoch.
    """
    made = tokenizer(recipe)
    exponent = recipe.data.masking.rare_token_exponent
    weights: np.ndarray | None = None
    if exponent:
        weights = data.rare_token_weights(
            prepared.token_counts, exponent=exponent
        )
    return data.masked_lm_dataset(
        prepared.train,
        special=data.SpecialTokens.from_tokenizer(made),
        vocabulary_size=data.vocabulary_size(made),
        batch_size=batch_size,
        seed=recipe.seed,
        rate=recipe.data.masking.rate,
        token_weights=weights,
        maskings=maskings,
    )


def held_out_batches(
    recipe: config.Recipe, prepared: data.PreparedCorpus
) -> tf.data.Dataset:
    """The held-out sequences with masks that never change.

    They are masked uniformly and at BERT's rate whatever the recipe does in
    training, so that the scores of recipes can be compared.
    """
    made = tokenizer(recipe)
    count = recipe.evaluate.sequences
    held_out = prepared.held_out
    return data.held_out_dataset(
        held_out if count is None else held_out[:count],
        special=data.SpecialTokens.from_tokenizer(made),
        vocabulary_size=data.vocabulary_size(made),
        batch_size=recipe.evaluate.batch_size,
        seed=0,
        rate=0.15,
    )


def student(
    recipe: config.Recipe, made_from: MaskedLM, *, dtype: str | None = None
) -> MaskedLM:
    """The student before training, the same at every call.

    Raises:
        ValueError: if the recipe has no student.
    """
    settings = recipe.student
    if settings is None:
        raise ValueError(f"The recipe {recipe.name!r} has no student.")
    return models.initialize_student(
        made_from,
        **settings.shape(),
        initialization=settings.initialization,
        dropout=settings.dropout,
        dtype=dtype or recipe.precision,
        seed=recipe.seed,
    )


def task_encoder(
    recipe: config.Recipe, source: str, its_teacher: MaskedLM
) -> MaskedLM:
    """A student that was distilled already, checked against the teacher.

    Args:
        recipe: the recipe.
        source: its file.
        its_teacher: of the same vocabulary.

    Raises:
        ValueError: if it cannot be loaded or has another vocabulary.
    """
    loaded = models.load_teacher(source, dtype=recipe.precision)
    check_vocabulary(
        source,
        loaded.backbone.vocabulary_size,
        its_teacher.backbone.vocabulary_size,
    )
    return loaded


def check_vocabulary(source: str, students: int, teachers: int) -> None:
    """Raises ValueError if a student's vocabulary is not its teacher's.

    Args:
        source: where the student comes from.
        students: entries of its vocabulary.
        teachers: entries of its teacher's.
    """
    if students != teachers:
        raise ValueError(
            f"The student in {source} has a vocabulary of {students} entries, "
            f"its teacher one of {teachers}. They do not belong together."
        )


def elmo() -> models.ElmoClassifier:
    """The ELMo baseline of the paper's table, for single texts."""
    return models.ElmoClassifier(num_outputs=2)


def finetune_section(recipe: config.Recipe) -> FineTuneSection:
    """The recipe's `finetune` section.

    Raises:
        ValueError: if there is none.
    """
    if recipe.finetune is None:
        raise ValueError(f"The recipe {recipe.name!r} has no tasks.")
    return recipe.finetune


def task_root(recipe: config.Recipe) -> str | None:
    """Folder of the tasks' files, or None for TensorFlow Datasets.

    Raises:
        ValueError: if files are wanted and there is no folder.
    """
    if finetune_section(recipe).source == "tfds":
        return None
    if recipe.data.root is None:
        raise ValueError(
            "`finetune.source: files` needs `data.root`, the folder of the "
            "tasks: --set data.root=FOLDER."
        )
    return recipe.data.root


@dataclasses.dataclass(frozen=True)
class BuiltTask:
    """A task with its data.

    Attributes:
        name: as in the recipe.
        kind: of `models.task_model`.
        outputs: of its models.
        train: the training set.
        evaluator: what scores models on the development set.
        metric: score of a row for the table; None for the mean of the
            evaluator's metrics.
        labels: names of the classes; None if it has none.
        unknown: in the training set, tokens that are [UNK], and all tokens.
    """

    name: str
    kind: str
    outputs: int
    train: data.EncodedExamples
    evaluator: evaluation.GLUEEvaluator | evaluation.SpanEvaluator
    metric: significance.Metric | None = None
    unknown: tuple[int, int] = (0, 0)
    labels: tuple[str, ...] | None = None


def task(
    recipe: config.Recipe,
    name: str,
    *,
    its_tokenizer: tokenizers.Tokenizer | None = None,
) -> BuiltTask:
    """Reads and encodes one task of the recipe.

    Args:
        recipe: the recipe.
        name: of the task.
        its_tokenizer: of the models that read it. Defaults to the teacher's.

    Raises:
        ValueError: if its files are missing or not as they should be, or
            half of their tokens are [UNK].
    """
    made = tokenizer(recipe) if its_tokenizer is None else its_tokenizer
    if name.startswith("squad"):
        built = _squad_task(recipe, name, made)
    else:
        built = _glue_task(recipe, name, made)
    special = data.SpecialTokens.from_tokenizer(made)
    ids = built.train.token_ids
    frame = np.isin(ids, [special.cls_id, special.sep_id])
    unknown = int(np.count_nonzero(ids == special.unknown_id))
    total = int(len(ids) - np.count_nonzero(frame))
    data.check_unknown(unknown, total, f"the task {name}")
    return dataclasses.replace(built, unknown=(unknown, total))


def read_task(recipe: config.Recipe, name: str) -> None:
    """Reads the files of a task, and makes nothing of them.

    Raises:
        ValueError: if they are not as they should be.
        FileNotFoundError: if one is missing.
    """
    root = task_root(recipe)
    if name.startswith("squad"):
        for split in ("train", "dev"):
            data.load_squad(split, root=root, version=_squad_version(name))
        return
    for split in ("train", *data.glue_task(name).dev):
        data.load_glue(name, split, root=root)


def _glue_task(
    recipe: config.Recipe, name: str, made: tokenizers.Tokenizer
) -> BuiltTask:
    root, length = task_root(recipe), finetune_section(recipe).max_length
    found = data.load_glue(name, "train", root=root)
    evaluator = evaluation.GLUEEvaluator(
        name, made, root=root, max_length=length
    )
    labels = evaluator.task.labels
    # The two development sets of MNLI are of nearly one size.
    pooled = significance.ACCURACY if name == "mnli" else None
    return BuiltTask(
        name=name,
        kind="regression" if labels is None else "classification",
        outputs=1 if labels is None else len(labels),
        train=data.encode_examples(
            made,
            found.first,
            found.second,
            found.labels,
            max_length=length,
        ),
        evaluator=evaluator,
        metric=pooled,
        labels=labels,
    )


def _squad_task(
    recipe: config.Recipe, name: str, made: tokenizers.Tokenizer
) -> BuiltTask:
    settings, root = finetune_section(recipe), task_root(recipe)
    version = _squad_version(name)
    lengths = {
        name: getattr(settings, name)
        for name in ("max_length", "stride", "max_question")
    }
    train, dev = (
        data.load_squad(split, root=root, version=version)
        for split in ("train", "dev")
    )
    return BuiltTask(
        name=name,
        kind="span",
        outputs=1,
        train=data.encode_windows(
            data.make_squad_windows(train, made, **lengths),
            pad_id=data.SpecialTokens.from_tokenizer(made).pad_id,
            max_length=settings.max_length,
        ),
        evaluator=evaluation.SpanEvaluator(dev, made, **lengths),
        metric=spans.mean_f1,
    )


def _squad_version(name: str) -> str:
    return "2.0" if name == "squad_v2" else "1.1"


def augmented(
    recipe: config.Recipe,
    examples: data.EncodedExamples,
    masked_lm: MaskedLM,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> data.EncodedExamples:
    """The examples, and copies of them with words replaced."""
    return augmentation.augment_examples(
        examples,
        masked_lm,
        tokenizer(recipe),
        copies=finetune_section(recipe).augment_copies,
        seed=recipe.seed,
        progress=progress,
    )


def task_settings(
    recipe: config.Recipe, task: str, *, examples: int, width: int
) -> trainers.TaskDefaults:
    """Epochs, batch size and the like: the recipe's, else the defaults."""
    settings = finetune_section(recipe).of_task(task)
    made = trainers.task_defaults(examples, width)
    given = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(made)
        if getattr(settings, field.name) is not None
    }
    return dataclasses.replace(made, **given)


def task_trainer(
    recipe: config.Recipe,
    student: Task,
    kind: str,
    *,
    teacher: Task | None,
    learning_rate: float,
    steps: int,
) -> Distiller:
    """The compiled Distiller that trains a model on a task."""
    settings = finetune_section(recipe)
    weights = settings.losses.model_dump()
    if teacher is None:
        weights = {"soft_target_weight": 0.0, "cosine_weight": 0.0}
    return trainers.task_trainer(
        student,
        trainers.make_optimizer(
            learning_rate=learning_rate,
            steps=steps,
            warmup_steps=round(settings.warmup_fraction * steps),
            weight_decay=settings.weight_decay,
        ),
        losses.task_loss(kind, **weights),
        teacher=teacher,
        clip_norm=settings.clip_norm,
        jit_compile=settings.jit_compile,
    )


def distill_section(recipe: config.Recipe) -> DistillSection:
    """The recipe's `distill` section.

    Raises:
        ValueError: if there is none.
    """
    if recipe.distill is None:
        raise ValueError(f"The recipe {recipe.name!r} distils nothing.")
    return recipe.distill


def search_settings(recipe: config.Recipe) -> config.SearchSection:
    """The recipe's `search` section.

    Raises:
        ValueError: if there is none.
    """
    if recipe.search is None:
        raise ValueError(f"The recipe {recipe.name!r} searches nothing.")
    return recipe.search


def distill_steps(recipe: config.Recipe, prepared: data.PreparedCorpus) -> int:
    """Updates of the student: the recipe's, or those of its epochs."""
    settings = distill_section(recipe)
    if settings.steps is not None:
        return settings.steps
    sequences = prepared.train_sequences * (settings.epochs or 0.0)
    return max(1, round(sequences / settings.batch_size))


def student_optimizer(
    recipe: config.Recipe, steps: int
) -> keras.optimizers.Optimizer:
    """The optimizer of the distillation and of the twin."""
    settings = distill_section(recipe)
    return trainers.make_optimizer(
        learning_rate=settings.learning_rate,
        steps=steps,
        warmup_steps=settings.warmup_steps,
        decay=settings.decay,
        weight_decay=settings.weight_decay,
        beta_2=settings.beta_2,
    )


def cached_teacher(
    recipe: config.Recipe,
    its_teacher: MaskedLM,
    prepared: data.PreparedCorpus,
    *,
    steps: int,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> teachers.CachedTeacher | None:
    """The teacher's outputs on disk: found, or written now.

    Args:
        recipe: the recipe.
        its_teacher: the teacher.
        prepared: the corpus.
        steps: updates of the student. More maskings than it will see are not
            written.
        say: called with one line that tells the size.
        progress: called with the sequences done and their number.

    Returns:
        The cached teacher; None if the recipe wants a live one.
    """
    settings = recipe.teacher.cache
    if settings is None:
        return None
    wanted = distill_section(recipe)
    passes = math.ceil(steps * wanted.batch_size / prepared.train_sequences)
    return teachers.cache_teacher(
        its_teacher,
        prepared,
        tokenizer(recipe),
        cache_dir=cache_folder() / "teacher_outputs",
        top_k=settings.top_k,
        maskings=min(settings.maskings, passes),
        positions=wanted.losses.soft_target_positions,
        temperature=wanted.temperature_range,
        hidden_states=wanted.reads_hidden_states,
        seed=recipe.seed,
        rate=recipe.data.masking.rate,
        rare_token_exponent=recipe.data.masking.rare_token_exponent,
        say=say,
        progress=progress,
    )


def distiller(
    recipe: config.Recipe,
    its_teacher: MaskedLM | teachers.CachedTeacher,
    its_student: MaskedLM,
    *,
    steps: int,
    kind: type[Distiller] = Distiller,
) -> Distiller:
    """The compiled Distiller of the recipe's `distill` section.

    Args:
        recipe: the recipe.
        its_teacher: the teacher, or its outputs on disk.
        its_student: the student.
        steps: int >= 1, updates in all.
        kind: what to make.
    """
    settings = distill_section(recipe)
    made_losses = losses.triple_loss(
        mlm_weight=settings.losses.mlm_weight,
        soft_target_weight=settings.losses.soft_target_weight,
        cosine_weight=settings.losses.cosine_weight,
        temperature=settings.losses.temperature,
        positions=settings.losses.soft_target_positions,
        confidence_slope=settings.losses.confidence_slope,
    )
    if recipe.teacher.cache is not None and not settings.reads_hidden_states:
        # There is nothing on disk that it could be computed from.
        made_losses = [x for x in made_losses if x.name != "cosine"]
    made = kind(its_teacher, its_student, made_losses)
    made.compile(
        student_optimizer(recipe, steps),
        micro_batches=settings.micro_batches,
        jit_compile=settings.jit_compile,
        clip_norm=settings.clip_norm,
    )
    return made


def schedule_callbacks(
    recipe: config.Recipe,
) -> list[keras.callbacks.Callback]:
    """The schedulers of the recipe's `distill.schedules`."""
    settings = distill_section(recipe).schedules
    made: list[keras.callbacks.Callback] = []
    if settings.temperature is not None:
        made.append(
            callbacks.TemperatureScheduler(schedule(settings.temperature))
        )
    for name in ("mlm", "soft_target", "cosine"):
        found = getattr(settings, f"{name}_weight")
        if found is not None:
            made.append(callbacks.LossWeightScheduler(name, schedule(found)))
    return made


def balancer(
    recipe: config.Recipe, batches: tf.data.Dataset
) -> list[keras.callbacks.Callback]:
    """What balances the losses on the first examples, if the recipe wants it.

    Args:
        recipe: the recipe.
        batches: those of the training.
    """
    settings = distill_section(recipe)
    if settings.balance is None:
        return []
    ratios = {
        name: getattr(settings.balance, name)
        for name in LOSS_NAMES
        if getattr(settings.losses, f"{name}_weight") > 0
    }
    return [
        callbacks.GradientBalancer(
            first_examples(batches, _BALANCED_ON),
            ratios,
            every_steps=settings.balance.every_steps,
        )
    ]


def first_examples(batches: tf.data.Dataset, count: int) -> Any:
    """The first examples of the first batch, as NumPy arrays."""
    batch = next(iter(batches.take(1).as_numpy_iterator()))
    return tf.nest.map_structure(lambda rows: rows[:count], batch)


def schedule(settings: schedule_settings.Schedule) -> Callable:
    """A schedule from its values in a recipe."""
    if isinstance(settings, schedule_settings.ConstantSchedule):
        return schedules.Constant(settings.value)
    if isinstance(settings, schedule_settings.PiecewiseSchedule):
        return schedules.Piecewise(settings.boundaries, settings.values)
    ramp = {
        "linear": schedules.Linear,
        "cosine": schedules.Cosine,
        "exponential": schedules.Exponential,
    }[settings.kind]
    return ramp(settings.start, settings.end, steps=settings.steps)
