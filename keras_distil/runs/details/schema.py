"""The file `tasks/TASK/details.json`: what the table does not tell."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from keras_distil.runs import score_table
from keras_distil.runs.run_folder import read_text
from keras_distil.runs.task_results import MODEL_FILE
from keras_distil.utils.section import (
    Count,
    NonNegative,
    Positive,
    Section,
    Share,
    StepCount,
)

DETAILS_FILE = "details.json"
# The student with its temperature, among the rows of a calibration.
CALIBRATED = "student, calibrated"


class ClassRow(Section):
    """How well a row of the table finds a class; see `ClassFigures`."""

    name: str
    precision: Share
    recall: Share
    f1: Share
    support: StepCount
    predicted: StepCount


class Confusions(Section):
    """Which classes are taken for which.

    Attributes:
        classes: number of all classes.
        names: those that are shown: all, or the most confused ones.
        counts: by row, how many examples of a class (first index) are taken
            for another (second index).
    """

    classes: Count
    names: Annotated[list[str], Field(min_length=1, max_length=50)]
    counts: dict[str, list[list[StepCount]]]


class Opinion(Section):
    """A model's answer, and its probability if it has one."""

    answer: str
    confidence: Share | None = None


class Disagreement(Section):
    """An example that teacher and student answer differently.

    Attributes:
        text: the text as the models read it; of a word, what is before it.
        word: the word in question; "" for a text.
        after: what is after the word.
        second: the second text of a pair, or the context of a question.
        label: which one of several labels is in question; "" for others.
        truth: the right answer.
        teacher: the teacher's.
        student: the student's.
    """

    text: str
    word: str = ""
    after: str = ""
    second: str = ""
    label: str = ""
    truth: str
    teacher: Opinion
    student: Opinion


class Disagreements(Section):
    """Where the student does not answer as its teacher.

    Attributes:
        count: how often.
        decisions: out of how many answers.
        unit: what an answer is for, such as "texts".
        shown: the most confident ones, the most confident first.
        mean_difference: how far numbers are apart on average, over all
            answers; None for other answers.
    """

    count: StepCount
    decisions: Count
    unit: str
    mean_difference: (
        Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None
    ) = None
    shown: Annotated[list[Disagreement], Field(max_length=100)]


class Bin(Section):
    """Answers of similar confidence, and how many of them are right."""

    confidence: Share
    accuracy: Share
    count: Count


class Reliability(Section):
    """Whether a model's probabilities are those of being right.

    Attributes:
        error: expected calibration error.
        log_loss: in nats.
        bins: in ascending order.
    """

    error: Share
    log_loss: NonNegative
    bins: Annotated[list[Bin], Field(min_length=1, max_length=100)]


class Calibration(Section):
    """The calibration of teacher and student, and the student's temperature.

    Attributes:
        errors: by row, the expected calibration error on the development set.
        temperature: by which the student's logits are divided to calibrate
            them; 1 if none was found.
        reason: why none was found; None if one was.
        fitted_on: number of development texts that it was fitted on.
        reported_on: number of the other texts, of which `rows` are.
        rows: by row; the student is there as it was trained, and as
            `CALIBRATED`.
    """

    errors: dict[str, Share]
    temperature: Positive
    reason: str | None
    fitted_on: StepCount
    reported_on: Count
    rows: dict[str, Reliability]


class LengthScores(Section):
    """The scores on texts of similar length.

    Attributes:
        shortest: tokens of the shortest text.
        longest: tokens of the longest text.
        examples: number of texts.
        scores: by row, the main score as it is computed: 0 to 1 (correlations
            -1 to 1), negative for errors.
    """

    shortest: Count
    longest: Count
    examples: Count
    scores: dict[str, float]


class TaskDetails(Section):
    """What a run tells of a task beyond its scores, on its development set.

    Attributes:
        seed: seed of the student with the best score, and of the other models.
        kind: kind of the task.
        classes: by row, the figures of each class, label or type of entity;
            empty for other kinds.
        confusions: None for tasks without classes.
        disagreements: None if there is no teacher to compare with.
        calibration: None unless the outputs are probabilities of texts.
        lengths: quartiles of the texts by length, the shortest first.
    """

    seed: int
    kind: str
    classes: dict[str, list[ClassRow]] = {}
    confusions: Confusions | None = None
    disagreements: Disagreements | None = None
    calibration: Calibration | None = None
    lengths: list[LengthScores] = []


def read(path: Path) -> TaskDetails | None:
    """Reads the details of a task; None if they are missing or damaged."""
    try:
        return TaskDetails.model_validate(json.loads(read_text(path)))
    except (ValueError, RecursionError):
        return None


def temperature_of(model: Path) -> float:
    """Returns the temperature that calibrates a model.

    Args:
        model: any model; the students of a run's tasks, RUN/tasks/TASK/student/
            seed_N/model.keras, may have one.

    Returns:
        That of the details of its task; 1 for all other models.

    Raises:
        ValueError: if the details are damaged.
    """
    folder = model.absolute().parent
    is_student = folder.parent.name == score_table.STUDENT
    if not is_student or model.name != MODEL_FILE:
        return 1.0
    path = folder.parents[1] / DETAILS_FILE
    found = read(path)
    if found is None and path.is_file():
        raise ValueError(
            f"{path} is damaged, and the temperature of {model} is in it. "
            "Remove it together with the report.json of its run, and the same "
            "command as before writes both again; or set `export.calibrate: "
            "false`."
        )
    if found is None or found.calibration is None:
        return 1.0
    is_best = folder.name == f"seed_{found.seed}"
    return found.calibration.temperature if is_best else 1.0
