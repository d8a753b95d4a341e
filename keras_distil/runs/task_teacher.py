"""The fine-tuned teacher of a task's student: live, or its outputs on disk."""

import gc
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from keras_hub.models import MaskedLM, Task

from keras_distil import data, teachers
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.losses import registry
from keras_distil.losses.settings import LossSettings
from keras_distil.models import forward, load_task_model
from keras_distil.runs import score_table
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.given_predictions import open_predictions
from keras_distil.runs.run_folder import Run
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.task_results import (
    TaskTraining,
    plan_teachers,
    plan_training,
)
from keras_distil.runs.tasks import BuiltTask
from keras_distil.teachers.store.writing import size_text
from keras_distil.teachers.tasks.settings import SPAN_OUTPUTS, record_layout
from keras_distil.teachers.tasks.writing import planned_bytes

# The folder of a teacher's outputs, in that of its training.
CACHE = "cache"


def open_teacher(
    run: Run,
    planned: TaskTraining,
    source: Path,
    examples: data.EncodedExamples | data.Mixture,
    student: Task,
) -> Task | teachers.CachedTaskTeacher:
    """Loads a teacher of a student, or its outputs if the recipe says so.

    The outputs are written unless they exist; the teacher then leaves memory.

    Args:
        run: the run.
        planned: the teacher's training.
        source: the teacher's file.
        examples: the student's examples.
        student: the model that learns.

    Returns:
        The teacher, or what stands for it.
    """
    if run.recipe.teacher.predictions is not None:
        return open_predictions(run, planned.task)
    teacher = load_task_model(source)
    settings = finetune_section(run.recipe)
    if not settings.teacher_cache:
        return teacher
    states, attention = registry.read_teacher_layers(
        _losses_of(settings.of_task(planned.task)),
        forward.layer_count(teacher),
        forward.layer_count(student),
    )
    with run.progress.bar(f"Cache {planned.name} (examples)") as bar:
        cached = teachers.cache_task_teacher(
            teacher,
            examples,
            source.parent / CACHE,
            hidden_states=states,
            attention=attention,
            task=planned.task,
            tokenizer=load_tokenizer(run.recipe),
            say=run.progress.say,
            progress=bar.update_of,
        )
    del teacher
    # Keras models contain reference cycles.
    gc.collect()
    return cached


def _losses_of(settings: FineTuneSection) -> list[LossSettings]:
    """Returns the losses of all stages, which may read a teacher's layers.

    Those of other teachers, too: a teacher is one student's first and another
    one's second, and all students read the same cache.
    """
    return [
        each
        for stage in settings.split_stages()
        for each in stage.losses.by_name.values()
    ]


def report_caches(
    run: Run,
    tasks: Mapping[str, BuiltTask],
    encoders: Mapping[str, MaskedLM],
) -> None:
    """Says how large the outputs of all teachers will be, if they are kept.

    Said before the teachers are trained, which may take hours.

    Args:
        run: the run.
        tasks: its tasks.
        encoders: by row, the models that the tasks start from.
    """
    settings = finetune_section(run.recipe)
    if not settings.teacher_cache:
        return
    teacher = encoders[score_table.TEACHER]
    size = count = 0
    for name, task in tasks.items():
        states, attention = registry.read_teacher_layers(
            _losses_of(settings.of_task(name)),
            forward.layer_count(teacher),
            forward.layer_count(encoders[score_table.STUDENT]),
        )
        layout = record_layout(
            task.kind,
            SPAN_OUTPUTS if task.kind == "span" else task.outputs,
            hidden_dim=teacher.backbone.hidden_dim,
            hidden_states=states,
            attention=attention,
            attention_shape=(1, teacher.backbone.hidden_dim),
        )
        left = _caches_left(run, name)
        # Copies have the lengths of their originals.
        sets = [np.tile(task.train.lengths, 1 + settings.augment_copies)]
        if task.unlabelled is not None:
            sets.append(task.unlabelled.lengths)
        size += left * sum(planned_bytes(layout, each) for each in sets)
        count += left
    if not count:
        return
    free = shutil.disk_usage(run.folder).free
    run.progress.say(
        f"Teacher caches: {size_text(size)} for {count} fine-tuned "
        f"teacher{'s' if count > 1 else ''}, in {run.folder / 'tasks'}; "
        f"{size_text(free)} free"
    )
    if size > free:
        run.progress.warn(
            "the disk is too small for all of these caches: free some space, "
            "or leave out losses on hidden states and attention."
        )


def _caches_left(run: Run, task: str) -> int:
    """Counts a task's caches that are still to be written."""
    students = [
        plan_training(run, task, score_table.STUDENT, seed)
        for seed in finetune_section(run.recipe).of_task(task).seeds
    ]
    folders = {
        teacher.folder / CACHE
        for student in students
        if not student.is_finished
        for teacher in plan_teachers(run, student)
    }
    return sum(not folder.is_dir() for folder in folders)
