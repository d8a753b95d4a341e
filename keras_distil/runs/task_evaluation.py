"""Scores a model's file on a task of a recipe."""

import difflib
import json
from pathlib import Path

import tokenizers
from keras_hub.models import Task

from keras_distil import config, data, evaluation
from keras_distil.models import load_task_model
from keras_distil.models.task_model import kind_of
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.run_folder import read_text
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.task_results import MODEL_FILE, RESULT_FILE
from keras_distil.runs.tasks import load_task


def evaluate_file(
    recipe: config.Recipe,
    task_name: str,
    model_path: Path,
    submission: Path | None,
) -> dict[str, dict[str, float]]:
    """Scores a model that was fine-tuned on one of a recipe's tasks.

    Args:
        recipe: names the tokenizer, the data and its lengths.
        task_name: the task.
        model_path: a `.keras` file.
        submission: folder for predictions on the test sets; None for none.

    Returns:
        The task's metrics by development split, 0 to 1.

    Raises:
        ValueError: if the recipe lacks the task, the model is for another one,
            or the task has no submission format.
    """
    tasks = finetune_section(recipe).task_names
    if task_name not in tasks:
        near = difflib.get_close_matches(task_name, tasks, n=1, cutoff=0.0)
        raise ValueError(
            f"The recipe has no task {task_name!r}; the nearest is {near[0]!r}."
        )
    model = load_task_model(model_path)
    tokenizer = load_tokenizer(recipe, model=model_path)
    check_tokenizer(model, tokenizer, model_path)
    task = load_task(recipe, task_name, tokenizer=tokenizer)
    outputs = getattr(model, "num_classes", 1)
    if kind_of(model) != task.kind or outputs != task.outputs:
        raise ValueError(
            f"`{model_path}` is for a {kind_of(model)} with {outputs} outputs; "
            f"{task_name} is a {task.kind} with {task.outputs}."
        )
    if submission is not None:
        if not isinstance(task.evaluator, evaluation.GLUEEvaluator):
            raise ValueError(f"{task_name} is not handed in to GLUE's server.")
        task.evaluator.write_submission(model, submission)
    return task.evaluator.evaluate(model)


def check_tokenizer(
    model: Task, tokenizer: tokenizers.Tokenizer, path: Path
) -> None:
    """Raises ValueError if the tokenizer cannot be the model's own."""
    if path.is_dir() and not any(
        (path / name).is_file() for name in data.TOKENIZER_FILES
    ):
        raise ValueError(
            f"`{path}` has no tokenizer, and another model's would give its "
            "words other ids. Copy the vocab.txt or tokenizer.json that "
            "belongs to it into the folder."
        )
    words = data.vocabulary_size(tokenizer)
    rows = model.backbone.vocabulary_size
    if words > rows:
        raise ValueError(
            f"The tokenizer has {words} entries, but `{path}` a vocabulary "
            f"of {rows}: the model is another teacher's."
        )
    if _trained_with(path) not in (None, data.tokenizer_hash(tokenizer)):
        raise ValueError(
            f"`{path}` was trained with another tokenizer than that of the "
            "recipe's teacher, whose ids would stand for other words. Give "
            "the recipe that trained it: recipe.yaml in its run's folder."
        )


def _trained_with(path: Path) -> str | None:
    """Hash of the tokenizer that a run's model used; None if not known."""
    result = path.with_name(RESULT_FILE)
    if path.name != MODEL_FILE or not result.is_file():
        return None
    try:
        return json.loads(read_text(result)).get("tokenizer")
    except (ValueError, AttributeError, RecursionError):
        return None
