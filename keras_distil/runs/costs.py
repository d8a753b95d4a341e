"""Costs of a run's models: parameters, size and latency."""

from collections.abc import Mapping

import keras
from keras_hub.models import MaskedLM

from keras_distil.benchmark import latency, size
from keras_distil.runs import score_table
from keras_distil.runs.run_folder import Run
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.student import make_elmo, make_student
from keras_distil.runs.teacher import load_teacher


def measure_text_costs(run: Run) -> dict[str, dict[str, float]]:
    """Measures parameters, size and CPU latency, in float32.

    Returns:
        Values by column of the table, for "teacher" and "student".
    """
    run.progress.say("Measure latency")
    teacher = load_teacher(run.recipe, dtype="float32")
    models = {
        "teacher": teacher,
        "student": make_student(run.recipe, teacher, dtype="float32"),
    }
    length = run.recipe.evaluate.latency_length
    milliseconds = latency.measure_latency_ms(
        {
            role: latency.masked_lm_encoder_call(model, length)
            for role, model in models.items()
        }
    )
    return {
        role: {
            "parameters": size.parameter_count(model),
            "size_mb": round(size.size_mb(model), 1),
            "latency_ms": round(milliseconds[role], 2),
        }
        for role, model in models.items()
    }


def measure_costs(
    run: Run, encoders: Mapping[str, MaskedLM]
) -> dict[str, score_table.Costs]:
    """Measures parameters, size and latency of every row, side by side."""
    run.progress.say("Measure latency")
    length = run.recipe.evaluate.latency_length
    measured: dict[str, keras.Model] = dict(encoders)
    # A linear model is not measured beside transformers.
    unmeasured = [score_table.NGRAMS]
    if run.recipe.teacher.predictions is not None:
        unmeasured.append(score_table.TEACHER)
    rows: list[str] = [
        row
        for row in finetune_section(run.recipe).rows
        if row not in unmeasured
    ]
    calls = {}
    for row in rows:
        if row == score_table.ELMO:
            measured[row] = make_elmo()
            calls[row] = latency.elmo_call(measured[row], length)
        else:
            calls[row] = latency.masked_lm_encoder_call(encoders[row], length)
    milliseconds = latency.measure_latency_ms(calls)
    return {
        row: score_table.Costs(
            parameters=size.parameter_count(measured[row]),
            size_mb=round(size.size_mb(measured[row]), 1),
            latency_ms=round(milliseconds[row], 2),
        )
        for row in rows
    }
