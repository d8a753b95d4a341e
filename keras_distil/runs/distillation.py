"""Training of the student, and of the baseline, on text."""

import time
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf
from keras_hub.models import MaskedLM, Task

from keras_distil import callbacks, config, data, losses, teachers
from keras_distil.config.distill_section import DistillSection
from keras_distil.losses.settings import LossSettings
from keras_distil.runs import comparison, time_plan, trainers
from keras_distil.runs.corpus import (
    load_tokenizer,
    make_training_batches,
    take_examples,
    take_held_out,
)
from keras_distil.runs.exports import rehearse_export
from keras_distil.runs.fit import fit_on_text, settle_jit_compile
from keras_distil.runs.run_folder import BASELINE_FILE, LOGS, STUDENT_FILE, Run
from keras_distil.runs.schedules import make_schedulers
from keras_distil.runs.scores import score_on_text
from keras_distil.runs.sections import distill_section
from keras_distil.runs.settled import counts_minutes, read_settled
from keras_distil.runs.student import make_student
from keras_distil.runs.teacher import TeacherInMemory, cache_teacher
from keras_distil.training.distiller import Distiller

# Number of sequences on which the gradients of the losses are compared.
_BALANCED_ON = 16
# Number of sequences shown in TensorBoard; each look costs about as much as
# half an update on 32 sequences.
_LOOKED_AT = 16
# Number of sequences compared for the report: enough for more tokens than the
# hidden states are wide.
_COMPARED = 32


def distill(
    run: Run, prepared: data.PreparedCorpus, teacher: TeacherInMemory
) -> dict[str, dict[str, float]]:
    """Distils the student and trains the baseline; returns all scores."""
    recipe = run.recipe
    settings = distill_section(recipe)
    in_minutes = counts_minutes(recipe)
    # Each stage sets its own seeds, so they do not depend on whether an earlier
    # stage was already done.
    keras.utils.set_random_seed(recipe.seed)
    student = make_student(recipe, teacher.model)
    rows = {
        "teacher": score_on_text(
            run, "teacher", teacher.model, teacher.model, prepared
        )
    }
    began = time.monotonic()
    rows["student before"] = score_on_text(
        run, "student before", student, teacher.model, prepared
    )
    score_s = time.monotonic() - began
    cached = cache_teacher(
        run,
        teacher,
        prepared,
        None if in_minutes else count_steps(settings, prepared),
    )
    batches = make_training_batches(
        recipe,
        prepared,
        batch_size=settings.batch_size,
        maskings=None if cached is None else cached.settings.maskings,
    )
    if in_minutes:
        rest_s = _rehearse(run, teacher.model, student, prepared)
        rest_s += score_s * (2 if settings.baseline else 1)
        _settle_steps(run, prepared, teacher, cached, batches, rest_s)
        # The updates that were timed must leave no trace.
        keras.utils.set_random_seed(recipe.seed)
        student = make_student(recipe, teacher.model)
        settings = distill_section(run.recipe)
    steps = count_steps(settings, prepared)
    train_student(run, prepared, teacher, cached, student, batches)
    rows["student"] = score_on_text(
        run, "student", student, teacher.model, prepared
    )
    _keep_comparison(run, teacher.model, student, prepared)
    _tell_board(run, "distill", rows["student"], steps)
    if settings.baseline:
        baseline = train_baseline(run, prepared, teacher.model, batches)
        rows["baseline"] = score_on_text(
            run, "baseline", baseline, teacher.model, prepared
        )
        _tell_board(run, "baseline", rows["baseline"], steps)
    return rows


def train_student(
    run: Run,
    prepared: data.PreparedCorpus,
    teacher: TeacherInMemory,
    cached: teachers.CachedTeacher | None,
    student: MaskedLM,
    batches: tf.data.Dataset,
    *,
    watch: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Distils the student, in place.

    Args:
        run: the run.
        prepared: the corpus.
        teacher: the teacher.
        cached: the teacher's outputs on disk, if the recipe asks for them.
        student: the untrained student.
        batches: batches of the corpus, without the teacher's outputs.
        watch: callbacks that only watch.
    """
    recipe = run.recipe
    settings = distill_section(recipe)
    steps = count_steps(settings, prepared)
    distiller = make_distiller(
        recipe,
        cached or teacher.in_compute_precision(recipe),
        student,
        steps=steps,
    )
    settle_jit_compile(run, distiller)
    first = [
        *make_schedulers(settings),
        *make_balancer(settings, batches),
        callbacks.StudentCheckpoint(run.folder / STUDENT_FILE),
        *watch,
    ]
    examples = None
    if cached is None:
        # With a cached teacher, no teacher is loaded that could run on them.
        examples = take_held_out(recipe, prepared, _LOOKED_AT)
    else:
        batches = cached.dataset(prepared, batch_size=settings.batch_size)
    fit_on_text(
        run,
        "distill",
        distiller,
        batches,
        settings,
        steps,
        first,
        examples=examples,
        after=(steps, "the baseline") if settings.baseline else None,
    )


def train_baseline(
    run: Run,
    prepared: data.PreparedCorpus,
    teacher: MaskedLM,
    batches: tf.data.Dataset,
    *,
    watch: Sequence[keras.callbacks.Callback] = (),
) -> MaskedLM:
    """Trains a student on the same batches without the teacher.

    Args:
        run: the run.
        prepared: the corpus.
        teacher: source of the student's initial weights.
        batches: the student's batches. The stream depends only on the recipe's
            seed.
        watch: callbacks that only watch.
    """
    settings = distill_section(run.recipe)
    steps = count_steps(settings, prepared)
    keras.utils.set_random_seed(run.recipe.seed)
    baseline = make_student(run.recipe, teacher)
    trainer = trainers.masked_lm_trainer(
        baseline,
        make_student_optimizer(settings, steps),
        clip_norm=settings.clip_norm,
        micro_batches=settings.micro_batches,
        jit_compile="auto" if settings.jit_compile else False,
    )
    settle_jit_compile(run, trainer)
    first = [callbacks.StudentCheckpoint(run.folder / BASELINE_FILE), *watch]
    fit_on_text(run, "baseline", trainer, batches, settings, steps, first)
    return baseline


def _rehearse(
    run: Run,
    teacher: MaskedLM,
    student: MaskedLM,
    prepared: data.PreparedCorpus,
) -> float:
    """Returns the seconds that comparing and exporting a student take.

    Both are done on the untrained student, for a recipe whose `minutes` are
    those of the whole run.
    """
    settled = read_settled(run.folder).steps
    if run.recipe.minutes is None or settled is not None or not run.writes:
        return 0.0
    run.progress.say("Rehearse what follows the training, to know its time")
    began = time.monotonic()
    _compare(run, teacher, student, prepared)
    rehearse_export(run, student)
    return time.monotonic() - began


def _settle_steps(
    run: Run,
    prepared: data.PreparedCorpus,
    teacher: TeacherInMemory,
    cached: teachers.CachedTeacher | None,
    batches: tf.data.Dataset,
    rest_s: float,
) -> None:
    """Finds how many updates the recipe's minutes are enough for.

    Args:
        run: the run; its recipe is replaced.
        prepared: the corpus.
        teacher: the teacher.
        cached: the teacher's outputs on disk, if the recipe asks for them.
        batches: batches of the corpus, without the teacher's outputs.
        rest_s: seconds that the stages after the training take.
    """
    began = time.monotonic()
    recipe = run.recipe

    def train(scratch: Run, clock: keras.callbacks.Callback) -> None:
        student = make_student(recipe, teacher.model)
        train_student(
            *(scratch, prepared, teacher, cached, student, batches),
            watch=[clock],
        )

    def train_alone(scratch: Run, clock: keras.callbacks.Callback) -> None:
        train_baseline(scratch, prepared, teacher.model, batches, watch=[clock])

    trainings = [train]
    if distill_section(recipe).baseline:
        trainings.append(train_alone)
    time_plan.settle_steps(run, trainings, began=began, rest_s=rest_s)


def count_steps(settings: DistillSection, prepared: data.PreparedCorpus) -> int:
    """Counts the student's updates, given directly or as epochs."""
    if settings.steps is not None:
        return settings.steps
    sequences = prepared.train_sequences * (settings.epochs or 0.0)
    return max(1, round(sequences / settings.batch_size))


def make_student_optimizer(
    settings: DistillSection, steps: int
) -> keras.optimizers.Optimizer:
    """Makes the optimizer for the distillation and the baseline."""
    return trainers.make_optimizer(
        learning_rate=settings.learning_rate,
        steps=steps,
        warmup_steps=settings.warmup_steps,
        decay=settings.decay,
        weight_decay=settings.weight_decay,
        beta_2=settings.beta_2,
    )


def make_distiller(
    recipe: config.Recipe,
    teacher: Task | teachers.StoredTeacher,
    student: Task,
    *,
    steps: int,
    kind: type[Distiller] = Distiller,
) -> Distiller:
    """Makes the compiled Distiller for the recipe's `distill` section.

    Args:
        recipe: the recipe.
        teacher: the teacher, or its outputs on disk.
        student: the student.
        steps: int >= 1, updates in total.
        kind: class to instantiate.
    """
    settings = distill_section(recipe)
    named = settings.losses.by_name
    if recipe.teacher.cache is not None:
        named = _without_uncached(settings, named)
    distiller = kind(teacher, student, losses.make_losses(named, settings.task))
    distiller.compile(
        make_student_optimizer(settings, steps),
        micro_batches=settings.micro_batches,
        jit_compile="auto" if settings.jit_compile else False,
        clip_norm=settings.clip_norm,
    )
    return distiller


def _without_uncached(
    settings: DistillSection, named: Mapping[str, LossSettings]
) -> dict[str, LossSettings]:
    """Drops losses whose inputs are not in the cache.

    Hidden states and attention are not cached for losses whose weight is
    always 0.
    """
    weighted = settings.weighted_losses
    return {
        name: each
        for name, each in named.items()
        if name in weighted or not (each.is_on_states or each.is_on_attention)
    }


def make_balancer(
    settings: DistillSection, batches: tf.data.Dataset
) -> list[keras.callbacks.Callback]:
    """Makes the callback that balances the losses, if the recipe asks for it.

    Args:
        settings: the recipe's section.
        batches: the training batches; some examples of them are used.
    """
    if settings.balance is None:
        return []
    return [
        callbacks.GradientBalancer(
            take_examples(batches, _BALANCED_ON),
            settings.balance.ratios(settings.losses),
            every_steps=settings.balance.every_steps,
        )
    ]


def _tell_board(
    run: Run, stage: str, row: dict[str, float], steps: int
) -> None:
    if run.writes:
        callbacks.write_scores(run.folder / LOGS / stage, row, steps)


def _keep_comparison(
    run: Run,
    teacher: MaskedLM,
    student: MaskedLM,
    prepared: data.PreparedCorpus,
) -> None:
    """Writes both models' results on some sequences, for the report."""
    if not run.writes:
        return
    run.progress.say("Compare the layers of teacher and student")
    compared = _compare(run, teacher, student, prepared)
    run.write_json(
        run.folder / comparison.SIDE_BY_SIDE_FILE, compared.model_dump()
    )


def _compare(
    run: Run,
    teacher: MaskedLM,
    student: MaskedLM,
    prepared: data.PreparedCorpus,
) -> comparison.SideBySide:
    return comparison.compare(
        teacher,
        student,
        take_held_out(run.recipe, prepared, _COMPARED),
        load_tokenizer(run.recipe),
        samples=run.recipe.evaluate.samples,
    )
