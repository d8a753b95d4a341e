"""What report and card tell of a task's answers and of its exports."""

import json

import pytest
from html_reader import Page

from keras_distil.runs.details import schema
from keras_distil.runs.report import export_table, task_details
from keras_distil.runs.report.html_page import html_document

HOSTILE = "<b>|`x`\x1b"


def figures(name, f1, support=5, predicted=5):
    return schema.ClassRow(
        name=name,
        precision=0.5,
        recall=0.25,
        f1=f1,
        support=support,
        predicted=predicted,
    )


def reliability(error, loss):
    bins = [schema.Bin(confidence=0.75, accuracy=0.5, count=4)]
    return schema.Reliability(error=error, log_loss=loss, bins=bins)


def make_details(names=("no", "yes"), **changes):
    count = min(len(names), 12)
    table = [[3 if i == j else 0 for j in range(count)] for i in range(count)]
    opinion = schema.Opinion(answer=names[0], confidence=0.875)
    disagreement = schema.Disagreement(
        text=f"a text {HOSTILE}",
        second="another",
        truth=names[0],
        teacher=opinion,
        student=schema.Opinion(answer=names[1]),
    )
    values = {
        "seed": 3,
        "kind": "classification",
        "classes": {
            row: [figures(name, i / len(names)) for i, name in enumerate(names)]
            for row in ("teacher", "student")
        },
        "confusions": schema.Confusions(
            classes=len(names),
            names=list(names[:count]),
            counts={"teacher": table, "student": table},
        ),
        "disagreements": schema.Disagreements(
            count=7, decisions=40, unit="texts", shown=[disagreement]
        ),
        "calibration": schema.Calibration(
            errors={"teacher": 0.25, "student": 0.5},
            temperature=1.5,
            reason=None,
            fitted_on=30,
            reported_on=31,
            rows={
                "student": reliability(0.125, 0.75),
                schema.CALIBRATED: reliability(0.0625, 0.5),
            },
        ),
        "lengths": [
            schema.LengthScores(
                shortest=3, longest=9, examples=20, scores={"student": 0.625}
            )
        ],
        **changes,
    }
    return schema.TaskDetails(**values)


EXPORT = {
    "path": "tasks/mine/student/seed_3/litert_full_int8",
    "precision": "full_int8",
    "size_mb": 1.25,
    "comparison": {
        "max_difference": 0.03,
        "top1_agreement": 0.99,
        "score": 0.5,
        "student_score": 0.75,
    },
    "temperature": 1.5,
}
COSTS = {"name": "student", "size_mb": 4.0, "latency_ms": 2.5}


@pytest.fixture
def made(tmp_path):
    """A run's report, and a function that writes details beside it."""
    report = {"tasks": {"tasks": ["mine"], "rows": [COSTS], "errors": []}}
    report["export"] = [EXPORT]
    folder = tmp_path / "tasks" / "mine"
    folder.mkdir(parents=True)

    def write(**changes):
        found = make_details(**changes)
        text = json.dumps(found.model_dump())
        (folder / "details.json").write_text(text)
        return report

    return write


def page_of(report, folder):
    sections = task_details.sections(report, folder)
    page = Page(html_document("t", sections))
    page.check_alone()
    return page


def test_the_section_of_a_task(made, tmp_path):
    page = page_of(made(), tmp_path)
    assert page.headings() == ["Answers: mine"]
    for heading in (
        *("Each class", "Which class is taken for which"),
        *("Where teacher and student disagree", "Calibration", "By length"),
    ):
        assert f"<h3>{heading}</h3>" in page.text
    assert ["yes", "5", "50.0", "25.0", "50.0", "50.0", "25.0", "50.0"] in (
        page.cells
    )
    assert ["no 88%".split()[0], "no 88%", "yes"] in page.cells
    assert ["student, calibrated", "6.25", "0.5000"] in page.cells
    assert ["3 to 9", "20", "62.5"] in page.cells
    assert "On 7 of 40 texts (17.5%). The 1 most confident ones:" in page.text
    assert "temperature is 1.500. It was fitted on 30 texts" in page.text
    assert "have it in their last layer" in page.text
    labels = [a["aria-label"] for tag, a in page.elements if tag == "svg"]
    assert labels == [
        "teacher: 6 of 6 examples of 2 classes are right",
        "student: 6 of 6 examples of 2 classes are right",
        "How often answers are right over their probability: student, "
        "student, calibrated",
    ]


def test_many_classes(made, tmp_path):
    names = [f"class {i}" for i in range(60)]
    page = page_of(made(names=names), tmp_path)
    assert "Of 60 classes, the 50 with the student&#x27;s lowest" in page.text
    assert "class 49" in page.texts and "class 50" not in page.texts
    assert "Of 60 classes, the 12 that are most often confused" in page.text
    card = task_details.card_parts(made(names=names), tmp_path)
    assert sum(part.count("| class ") for part in card) == 20


def test_what_figures_do_not_show(made, tmp_path):
    rows = [figures("no", 0.5), figures("yes", 0.0, support=0, predicted=0)]
    said = task_details.class_notes(make_details(classes={"student": rows}), 9)
    assert said == [
        "No development example has yes: precision, recall and F1 say nothing "
        "there.",
        "The student never answers anything but no.",
    ]
    rows = [figures("no", 0.0, predicted=0)] * 2
    said = task_details.class_notes(make_details(classes={"student": rows}), 9)
    assert said == ["The student never answers anything."]


def test_without_a_temperature(made, tmp_path):
    calibration = make_details().calibration.model_copy(
        update={"temperature": 1.0, "reason": "it is too small"}
    )
    page = page_of(made(calibration=calibration), tmp_path)
    assert "No temperature was fitted: it is too small." in page.text


def test_errors_and_exports_that_lack_the_temperature(made, tmp_path):
    lengths = [
        schema.LengthScores(
            shortest=3, longest=9, examples=20, scores={"student": -0.625}
        )
    ]
    report = made(lengths=lengths)
    report["tasks"]["errors"] = ["mine"]
    report["export"] = [{**EXPORT, "temperature": 1.0}]
    page = page_of(report, tmp_path)
    assert ["3 to 9", "20", "0.625"] in page.cells
    assert "The exports of this run lack it" in page.text


def test_hostile_and_damaged_details(made, tmp_path):
    names = [HOSTILE, f"{HOSTILE} 2"]
    page = page_of(made(names=names), tmp_path)
    assert "<b>" not in page.text
    card = "\n".join(task_details.card_parts(made(names=names), tmp_path))
    assert "<b>" not in card and "&lt;b&gt;\\|\\`x\\`" in card
    (tmp_path / "tasks" / "mine" / "details.json").write_text("[")
    assert task_details.sections({}, tmp_path) == []
    report = {"tasks": {"tasks": ["mine", "other"]}}
    assert task_details.card_parts(report, tmp_path) == []


def test_numbers_differ_by_an_amount(made, tmp_path):
    found = make_details().disagreements
    report = made(
        kind="regression",
        disagreements=found.model_copy(update={"mean_difference": 0.4375}),
    )
    text = page_of(report, tmp_path).text
    assert "By 0.4375 on average. The 1 largest differences:" in text
    assert "most confident" not in text
    card = task_details.card_parts(report, tmp_path)
    assert "Teacher and student differ by 0.4375 on average." in card


def test_the_card(made, tmp_path):
    card = task_details.card_parts(made(), tmp_path)
    assert card[0] == "## Answers: mine"
    assert "| yes | 5 | 50.0 | 25.0 | 50.0 | 50.0 | 25.0 | 50.0 |" in card[1]
    assert "Teacher and student disagree on 7 of 40 texts." in card
    assert any("| student, calibrated | 6.25 | 0.5000 |" in x for x in card)
    assert "| 3 to 9 | 20 | 62.5 |" in card[-1]


# === Exports ===


def measured(name, threads, **lengths):
    return {
        "name": name,
        "num_threads": threads,
        "failed": None,
        "latency": {
            length.strip("_"): {"median_ms": value}
            for length, value in lengths.items()
        },
    }


def test_exports_have_size_speed_and_score_in_one_table(made, tmp_path):
    report = made()
    none = export_table.read_benchmarks(report, tmp_path)
    assert none == {}
    student, export = export_table.export_rows(report, none)
    path = "tasks/mine/student/seed_3"
    dash = "\N{EN DASH}"
    assert student == [
        *(f"{path}/model.keras", "float32", "4.0", "2.50", "75.0", dash, dash),
    ]
    assert export == [
        *(f"{path}/litert_full_int8", "full_int8", "1.2", dash),
        *("50.0", "99.0", "0.03"),
    ]
    assert "in their last layer" in export_table.notes(report, none)[-1]
    folder = tmp_path / path
    folder.mkdir(parents=True)
    content = [
        measured("student", 1, _16=1.0, _128=8.125),
        measured("litert_full_int8", 1, _16=0.5, _128=2.0),
        measured("litert_full_int8", 2, _16=0.25, _128=1.0),
        {**measured("gone", 1), "failed": "no file"},
    ]
    path = folder / "benchmark.json"
    path.write_text(json.dumps({"measured": content}))
    found = export_table.read_benchmarks(report, tmp_path)
    rows = export_table.export_rows(report, found)
    assert [row[3] for row in rows] == ["8.12", "2"]
    assert "sequence of 128 tokens, with 1 thread." in " ".join(
        export_table.notes(report, found)
    )
    section = export_table.section(report, tmp_path)
    Page(html_document("t", [section])).check_alone()
    path.write_text("{")
    with pytest.raises(ValueError, match="benchmark.json is damaged"):
        export_table.read_benchmarks(report, tmp_path)
    # The page leaves out what is damaged.
    assert "not measured" in export_table.section(report, tmp_path).body


def test_exports_are_dots_by_precision(made, tmp_path):
    report = made()
    path = "tasks/mine/student/seed_3"
    speeds = [measured("student", 1, _128=8.0)]
    speeds += [measured("litert_full_int8", 1, _128=2.0)]
    dots = export_table.export_dots(report, {path: {"measured": speeds}})
    assert list(dots) == [path]
    assert [tuple(vars(dot).values()) for dot in dots[path]] == [
        ("student", 8.0, 75.0, 4.0),
        ("litert_full_int8", 2.0, 50.0, 1.25),
    ]
    # Without a measurement there is no latency to compare.
    [found] = export_table.export_dots(report, {}).values()
    assert [dot.latency_ms for dot in found] == [None, None]
    body = export_table.section(report, tmp_path).body
    assert "litert_full_int8: 50.0, 1.2 MB</text>" in body
    report["tasks"]["errors"] = ["mine"]
    assert export_table.export_dots(report, {}) == {}


def test_exports_of_text_are_compared_by_first_choices():
    compared = {"max_difference": 0.5, "top1_agreement": 0.9}
    export = {"path": "litert_float16", "precision": "float16", "size_mb": 2.0}
    report = {
        "rows": {"student": {"size_mb": 4.0}},
        "export": [{**export, "comparison": compared}],
    }
    [dots] = export_table.export_dots(report, {}).values()
    assert [(dot.role, dot.score) for dot in dots] == [
        ("student", 100.0),
        ("litert_float16", 90.0),
    ]
    [drawn] = export_table.draw_exports(report, {})
    assert "same first choices, %" in drawn


def test_paths_break_between_words(made, tmp_path):
    body = export_table.section(made(), tmp_path).body
    assert "/<wbr>student/<wbr>seed_<wbr>3/<wbr>model.keras<" in body


def test_errors_of_exports_are_shown_plainly(made):
    report = made()
    report["tasks"]["errors"] = ["mine"]
    compared = {**EXPORT["comparison"], "score": -0.5, "student_score": -0.25}
    report["export"] = [{**EXPORT, "comparison": compared}]
    rows = export_table.export_rows(report, {})
    assert [row[4] for row in rows] == ["0.250", "0.500"]


@pytest.mark.parametrize("exports", [None, [], [3], [{}], "x", {"path": 1}])
def test_exports_that_are_damaged(exports, tmp_path):
    assert export_table.section({"export": exports}, tmp_path) is None
