"""Scores of a run's models on held-out text and on its tasks."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from keras_hub.models import MaskedLM, Task

from keras_distil import data, evaluation
from keras_distil.evaluation.calibration import first_choices
from keras_distil.evaluation.task_files import TextTaskEvaluator
from keras_distil.models import load_task_model
from keras_distil.runs import score_table
from keras_distil.runs.corpus import make_held_out_batches
from keras_distil.runs.run_folder import Run
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.task_results import (
    MODEL_FILE,
    find_best_student,
    plan_training,
)
from keras_distil.runs.tasks import BuiltTask

# These batches hold a few thousand masked words.
_CALIBRATION_BATCHES = 10
_OF_TEXTS = (evaluation.GLUEEvaluator, TextTaskEvaluator)


def score_on_text(
    run: Run,
    name: str,
    model: MaskedLM,
    teacher: MaskedLM,
    prepared: data.PreparedCorpus,
) -> dict[str, float]:
    """Scores a model on held-out text, for one row of the table."""
    run.progress.say(f"Score on held-out text: {name}")
    batches = make_held_out_batches(run.recipe, prepared)
    scores = evaluation.score_masked_lm(model, teacher, batches)
    return {
        **dataclasses.asdict(scores),
        "calibration_error": evaluation.masked_lm_calibration(
            model, batches.take(_CALIBRATION_BATCHES)
        ),
    }


def kept_share(
    run: Run,
    rows: dict[str, dict[str, float]],
    prepared: data.PreparedCorpus,
) -> dict[str, float]:
    """The student's share of the teacher's accuracy, and the chance level.

    The share is left out if the teacher is no better than always answering the
    most frequent token.
    """
    chance = evaluation.most_frequent_share(
        make_held_out_batches(run.recipe, prepared)
    )
    kept = evaluation.kept_percent(
        rows["student"]["mlm_accuracy"], rows["teacher"]["mlm_accuracy"], chance
    )
    scores = {"most_frequent_token_accuracy": chance}
    return scores if kept is None else {**scores, "kept_percent": kept}


def measure_calibration(
    run: Run, tasks: Mapping[str, BuiltTask]
) -> dict[str, dict[str, float]]:
    """Measures the calibration error on tasks with classes.

    Args:
        run: a run with finished tasks.
        tasks: from `read_tasks`.

    Returns:
        By task and row, the expected calibration error on the development set,
        of the best student and of the teacher with the same seed.
    """
    settings = finetune_section(run.recipe)
    if score_table.STUDENT not in settings.rows:
        return {}
    errors: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        evaluator = task.evaluator
        if task.kind != "classification" or not isinstance(
            evaluator, _OF_TEXTS
        ):
            continue
        student = find_best_student(run, name)
        seed = int(student.parent.name.removeprefix("seed_"))
        beside = plan_training(run, name, score_table.TEACHER, seed).folder
        errors[name] = {
            row: _calibration(load_task_model(path), evaluator)
            for row, path in (
                (score_table.TEACHER, beside / MODEL_FILE),
                (score_table.STUDENT, student),
            )
            # Of a teacher there may be no more than predictions.
            if path.is_file()
        }
    return errors


def _calibration(
    model: Task, evaluator: evaluation.GLUEEvaluator | TextTaskEvaluator
) -> float:
    labels, outputs = evaluator.classes, evaluator.outputs(model)
    chosen, confidences = first_choices(
        np.concatenate([outputs[split] for split in labels])
    )
    right = chosen == np.concatenate([*labels.values()])
    return evaluation.expected_calibration_error(confidences, right)
