"""Scores of a run's models on held-out text."""

import dataclasses

from keras_hub.models import MaskedLM

from keras_distil import data, evaluation
from keras_distil.runs.corpus import make_held_out_batches
from keras_distil.runs.run_folder import Run

# These batches hold a few thousand masked words.
_CALIBRATION_BATCHES = 10


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
