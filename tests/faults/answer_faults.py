"""Faults in what a run tells of its answers, and in the temperature."""

from faults.fault import Fault

_DETAILS = "tests/runs/details/test_details.py"
_CALIBRATED = (f"{_DETAILS}::test_calibration_and_temperature",)
_EXPORTED = (
    f"{_DETAILS}::test_an_export_has_the_temperature_in_its_last_layer",
)
_FIGURES = ("tests/evaluation/test_class_figures.py",)
_FITTED = ("tests/evaluation/test_temperature.py",)
_PAGE = "tests/runs/report/test_task_details_report.py"
_CHARTS = "tests/runs/report/test_svg_charts.py"

FAULTS = (
    Fault(
        "a temperature is fitted on the half that it is reported on",
        "_choose_temperature",
        "fit_temperature(logits[fitted], labels[fitted])",
        "fit_temperature(logits[other], labels[other])",
        _CALIBRATED,
    ),
    Fault(
        "a temperature leaves the bias as it is",
        "divide_outputs",
        "for variable in layer.weights:",
        "for variable in layer.weights[:1]:",
        _EXPORTED,
    ),
    Fault(
        "every student of a task has the temperature of the best",
        "temperature_of",
        "calibration.temperature if is_best else 1.0",
        "calibration.temperature",
        (f"{_DETAILS}::test_without_details_nothing_is_divided",),
    ),
    Fault(
        "a student that is always right becomes ever surer",
        "fit_temperature",
        "if found.fun < min(loss(LOWEST), loss(HIGHEST)):",
        "if True:",
        _FITTED,
    ),
    Fault(
        "labels that are not there count as those that are",
        "log_loss",
        "np.where(labels > 0, scaled, -scaled)",
        "scaled",
        _FITTED,
    ),
    Fault(
        "disagreements are in the order of the file",
        "_strongest_first",
        'np.argsort(-strength[found], kind="stable")',
        "np.arange(len(found))",
        (f"{_DETAILS}::test_disagreements_are_the_most_confident_ones",),
    ),
    Fault(
        "types of entities share their examples",
        "entity_figures",
        "there.update(kind for kind, *_ in true)",
        "there.update(kind for kind, *_ in found)",
        _FIGURES,
    ),
    Fault(
        "right answers are confusions",
        "most_confused",
        "errors = errors - np.diag(np.diag(errors))",
        "",
        _FIGURES,
    ),
    Fault(
        "the latency of an export is that with the most threads",
        "_measured_at",
        "threads = min(",
        "threads = max(",
        (f"{_PAGE}::test_exports_have_size_speed_and_score_in_one_table",),
    ),
    Fault(
        "a layer is framed below the one that it was copied from",
        "draw_similarity",
        "_frame(axes, row=source + 1, column=layer + 1)",
        "_frame(axes, row=source, column=layer + 1)",
        (f"{_CHARTS}::test_the_frame_is_at_the_layer_that_was_copied",),
    ),
    Fault(
        "a student that copied nothing has frames",
        "copied_layers",
        'student.initialization != "teacher"',
        "False",
        ("tests/runs/report/test_figures.py",),
    ),
    Fault(
        "all dots have one shape",
        "_look",
        "_SHAPES[number % len(_SHAPES)]",
        "_SHAPES[0]",
        (f"{_CHARTS}::test_dots_differ_in_colour_and_shape",),
    ),
)
