"""Finds out what a run's models get right and wrong on its tasks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from keras_distil import evaluation
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.evaluation import significance
from keras_distil.evaluation.class_figures import (
    class_figures,
    entity_figures,
    most_confused,
)
from keras_distil.evaluation.task_files import (
    DEV,
    SpanTaskEvaluator,
    TextTaskEvaluator,
    WordTaskEvaluator,
)
from keras_distil.models import load_task_model
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.details import disagreements
from keras_distil.runs.details.calibrating import calibrate
from keras_distil.runs.details.dev_texts import DevTexts
from keras_distil.runs.details.schema import (
    DETAILS_FILE,
    ClassRow,
    Confusions,
    Disagreements,
    LengthScores,
    TaskDetails,
)
from keras_distil.runs.given_predictions import (
    split_examples,
    stored_outputs,
)
from keras_distil.runs.run_folder import Run
from keras_distil.runs.score_table import ELMO, STUDENT, TEACHER
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.task_results import (
    MODEL_FILE,
    TaskTraining,
    find_best_student,
    plan_training,
    read_outputs,
    read_task_result,
)
from keras_distil.runs.tasks import BuiltTask

# Classes that a picture of confusions has space for.
_MOST_CLASSES = 12
_PARTS = 4


def describe_tasks(
    run: Run, tasks: Mapping[str, BuiltTask]
) -> dict[str, TaskDetails]:
    """Describes the answers of the best student and of the other rows.

    They are those of the best student's seed, on the development set. Writes
    `details.json` for each task.

    Args:
        run: a run with finished tasks.
        tasks: from `load_tasks`.

    Returns:
        By task; nothing for a table without a student.
    """
    if STUDENT not in finetune_section(run.recipe).rows:
        return {}
    found = {}
    for name, task in tasks.items():
        run.progress.say(f"Details of {name}: classes, errors, lengths")
        found[name] = describe_task(run, task)
        path = run.folder / "tasks" / name / DETAILS_FILE
        run.write_json(path, found[name].model_dump())
        calibration = found[name].calibration
        if calibration is not None:
            told = f"{name}: the student's temperature is "
            told += f"{calibration.temperature:.3f}"
            if calibration.reason is not None:
                told += f", since {calibration.reason}"
            run.progress.say(told)
    return found


def describe_task(run: Run, task: BuiltTask) -> TaskDetails:
    """Describes the answers on one task; see `describe_tasks`."""
    student = find_best_student(run, task.name)
    seed = int(student.parent.name.removeprefix("seed_"))
    planned: dict[str, TaskTraining] = {
        row: plan_training(run, task.name, row, seed)
        for row in finetune_section(run.recipe).rows
        if row != ELMO
    }
    # Predictions of some rows have no score, nor n-grams of some kinds.
    finished = {row: x for row, x in planned.items() if x.is_finished}
    found = {
        row: _answers_of(task, finished[row])
        for row in (TEACHER, STUDENT)
        if row in finished
    }
    # Of a teacher there may be no more than some predictions.
    answers = {row: x for row, x in found.items() if x is not None}
    texts = DevTexts(_parts(task.evaluator), load_tokenizer(run.recipe))
    return TaskDetails(
        seed=seed,
        kind=task.kind,
        lengths=_by_length(task, texts, finished),
        **_KINDS[type(task.evaluator)](task, texts, finished, answers),
    )


def _parts(evaluator: Any) -> list[EncodedExamples]:
    """Returns the examples of the development set, in the labels' order."""
    if isinstance(evaluator, evaluation.GLUEEvaluator):
        return list(evaluator.encoded.values())
    split = evaluator
    if not isinstance(evaluator, evaluation.SpanEvaluator):
        split = evaluator.splits[DEV]
    examples = split_examples(split)
    if isinstance(evaluator, SpanTaskEvaluator | evaluation.SpanEvaluator):
        owners = split.windows.example
        examples = dataclasses.replace(examples, owners=owners)
    return [examples]


def _answers_of(task: BuiltTask, planned: TaskTraining) -> Any:
    """Returns a model's answers: outputs, tags or texts, by the kind.

    None for a row without a model that has not kept them.
    """
    evaluator = task.evaluator
    path = planned.folder / MODEL_FILE
    if path.is_file():
        model = load_task_model(path)
    else:
        kept = read_outputs(planned, list(evaluator.labels))
        if kept is None or isinstance(evaluator, TextTaskEvaluator):
            return kept
        # Of words and spans, the outputs of all tokens are kept.
        (examples,) = _parts(evaluator)
        model = stored_outputs(examples, np.split(kept, examples.starts[1:-1]))
    if isinstance(evaluator, WordTaskEvaluator):
        return evaluator.answers(model)
    if isinstance(evaluator, evaluation.GLUEEvaluator | TextTaskEvaluator):
        outputs = evaluator.outputs(model)
        return np.concatenate([outputs[split] for split in evaluator.labels])
    return [answer.text for answer in _questions(evaluator).answers(model)]


def _questions(evaluator: Any) -> evaluation.SpanEvaluator:
    if isinstance(evaluator, SpanTaskEvaluator):
        return evaluator.splits[DEV]
    return evaluator


# === By kind ===


def _describe_texts(
    task: BuiltTask,
    texts: DevTexts,
    finished: Mapping[str, TaskTraining],
    answers: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    evaluator: Any = task.evaluator
    labels = np.concatenate([*evaluator.classes.values()])
    both = TEACHER in answers
    if task.labels is None:
        found = None
        if both:
            found = disagreements.of_numbers(texts, labels, answers)
        return {"disagreements": found}
    known = {
        row: _decisions(task, planned, answers.get(row))
        for row, planned in finished.items()
    }
    said = {row: found for row, found in known.items() if found is not None}
    several = task.kind == "multi_label"
    find = disagreements.of_labels if several else disagreements.of_classes
    return {
        "classes": {
            row: _rows(class_figures(labels, found, task.labels))
            for row, found in said.items()
        },
        "confusions": None
        if several
        else _confusions(labels, said, task.labels),
        "disagreements": find(texts, labels, answers, task.labels)
        if both
        else None,
        "calibration": calibrate(answers, labels),
    }


def _decisions(
    task: BuiltTask, planned: TaskTraining, outputs: np.ndarray | None
) -> np.ndarray | None:
    """Returns classes, or 0 and 1 per label; None if only losses are kept."""
    if outputs is None:
        if getattr(task.evaluator, "metric", None) == "log_loss":
            return None
        return read_task_result([planned], task).examples.predictions[0]
    if task.kind == "multi_label":
        return (outputs > 0.0).astype(np.int8)
    return outputs.argmax(axis=1)


def _describe_words(
    task: BuiltTask,
    texts: DevTexts,
    finished: Mapping[str, TaskTraining],
    answers: Mapping[str, Any],
) -> dict[str, Any]:
    del finished
    evaluator: Any = task.evaluator
    split = evaluator.splits[DEV]
    found: dict[str, Any] = {}
    if TEACHER in answers:
        found["disagreements"] = disagreements.of_words(texts, split, answers)
    if evaluator.metric == "entity_f1":
        found["classes"] = {
            row: _rows(entity_figures(split.tags, tags))
            for row, (tags, _) in answers.items()
        }
        return found
    names = evaluator.label_names
    places = {name: number for number, name in enumerate(names)}

    def numbers(sentences: Any) -> np.ndarray:
        # A word that is not read may have a tag that the task lacks.
        return np.array(
            [places.get(tag, -1) for tags in sentences for tag in tags]
        )

    labels = numbers(split.tags)
    said = {row: numbers(tags) for row, (tags, _) in answers.items()}
    found["classes"] = {
        row: _rows(class_figures(labels, each, names))
        for row, each in said.items()
    }
    return {**found, "confusions": _confusions(labels, said, names)}


def _describe_spans(
    task: BuiltTask,
    texts: DevTexts,
    finished: Mapping[str, TaskTraining],
    answers: Mapping[str, Any],
) -> dict[str, Any]:
    del texts, finished
    found: Disagreements | None = None
    if TEACHER in answers:
        questions = _questions(task.evaluator)
        found = disagreements.of_spans(questions, answers)
    return {"disagreements": found}


_KINDS: dict[type, Any] = {
    evaluation.GLUEEvaluator: _describe_texts,
    TextTaskEvaluator: _describe_texts,
    WordTaskEvaluator: _describe_words,
    evaluation.SpanEvaluator: _describe_spans,
    SpanTaskEvaluator: _describe_spans,
}


def _rows(figures: Any) -> list[ClassRow]:
    return [ClassRow(**dataclasses.asdict(each)) for each in figures]


def _confusions(
    labels: np.ndarray, said: Mapping[str, np.ndarray], names: Any
) -> Confusions:
    """Counts the confusions of teacher and student."""
    every = range(len(names))
    counts = {
        row: confusion_matrix(labels, said[row], labels=every)
        for row in (TEACHER, STUDENT)
        if row in said
    }
    shown = most_confused(list(counts.values()), _MOST_CLASSES)
    return Confusions(
        classes=len(names),
        names=[names[number] for number in shown],
        counts={
            row: table[np.ix_(shown, shown)].tolist()
            for row, table in counts.items()
        },
    )


# === By length ===


def _by_length(
    task: BuiltTask, texts: DevTexts, finished: Mapping[str, TaskTraining]
) -> list[LengthScores]:
    """Scores the quartiles of the texts by length."""
    results = {
        row: read_task_result([planned], task).examples
        for row, planned in finished.items()
    }
    lengths, metric = texts.lengths, _metric(task)
    edges = np.quantile(lengths, np.arange(1, _PARTS) / _PARTS)
    parts = np.searchsorted(edges, lengths, side="left")
    found = []
    # Where many texts are equally long, a part may be empty.
    for part in np.unique(parts):
        rows = parts == part
        found.append(
            LengthScores(
                shortest=int(lengths[rows].min()),
                longest=int(lengths[rows].max()),
                examples=int(rows.sum()),
                scores={
                    row: float(
                        metric(each.labels[rows], each.predictions[0][rows])
                    )
                    for row, each in results.items()
                },
            )
        )
    return found


def _metric(task: BuiltTask) -> significance.Metric:
    """Returns the metric of the table."""
    if task.metric is not None:
        return task.metric
    evaluator: Any = task.evaluator
    names = evaluator.task.metrics
    return significance.mean_of(
        *(significance.COUNTED_METRICS[name] for name in names)
    )
