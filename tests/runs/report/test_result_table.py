import io

import pytest
import rich.console
from html_reader import Page

from keras_distil.runs.report.html_page import html_document
from keras_distil.runs.report.result_table import (
    to_html_section,
    to_markdown,
    to_rich,
)
from keras_distil.runs.score_table import (
    Comparison,
    MacroScore,
    PublishedRow,
    Range,
    ResultTable,
    Row,
    TaskScore,
)


def score(value, retention, seeds=1):
    return TaskScore(
        score=value,
        lowest=value - 1.0,
        highest=value + 1.25,
        seeds=seeds,
        interval=Range(low=value - 2.0, high=value + 2.0),
        metrics={"accuracy": value},
        retention=retention,
    )


def row(name, cola=None, rte=None, macro=None, costs=(None,) * 4, **names):
    tasks = {names.get("cola_name", "cola"): cola, "rte": rte}
    return Row(
        name=name,
        tasks={task: found for task, found in tasks.items() if found},
        macro=macro,
        parameters=costs[0],
        size_mb=costs[1],
        latency_ms=costs[2],
        latency_ratio=costs[3],
    )


def mean(value, retention):
    ends = Range(low=value - 1.0, high=value + 1.0)
    return MacroScore(score=value, interval=ends, retention=retention)


def compare(first, second, task, difference, significant):
    return Comparison(
        first=first,
        second=second,
        task=task,
        difference=difference,
        interval=Range(low=difference - 1.0, high=difference + 1.0),
        p_value=0.5,
        significant=significant,
        level=0.95,
    )


def toy(student="student", cola="cola", source="A paper, table 1"):
    """Two tasks, three rows; the baseline has one task and ties on it."""
    names = {"cola_name": cola}
    return ResultTable(
        tasks=(cola, "rte"),
        rows=(
            row(
                "teacher",
                score(60.0, 100.0, seeds=3),
                score(70.0, 100.0),
                mean(65.0, 100.0),
                (109_500_000, 438.06, 159.0, 1.0),
                **names,
            ),
            row(
                student,
                score(50.0, 83.333),
                score(69.96, 99.943),
                mean(59.98, 92.277),
                (67_000, 0.27, 2.5, 0.0157),
                **names,
            ),
            row("baseline", score(40.0, 66.667), score(70.0, 100), **names),
        ),
        comparisons=(
            compare(student, "teacher", cola, -10.0, True),
            compare(student, "teacher", "rte", -0.04, False),
            compare(student, "teacher", None, -5.02, True),
        ),
        published=(
            PublishedRow(
                name="BERT", source=source, scores={cola: 56.3}, macro=79.5
            ),
        ),
        level=0.95,
        resamples=1000,
    )


MARKDOWN = """\
| Model            |     cola |   rte | Mean | Kept % | Parameters | Disk MB | CPU ms | CPU ratio |
| ---------------- | -------: | ----: | ---: | -----: | ---------: | ------: | -----: | --------: |
| teacher          |     60.0 |  70.0 | 65.0 |  100.0 |    109.5 M |   438.1 |  159.0 |      1.00 |
| student          | **50.0** | 70.0† | 60.0 |   92.3 |     67.0 k |    0.27 |   2.50 |      0.02 |
| baseline         |     40.0 |  70.0 |    – |      – |          – |       – |      – |         – |
| BERT (published) |     56.3 |     – | 79.5 |      – |          – |       – |      – |         – |
"""  # noqa: E501

DETAILS = """\
| Model    | Task | Score | Seeds |        Range | 95% interval | Kept % |       Metrics |
| -------- | ---- | ----: | ----: | -----------: | -----------: | -----: | ------------: |
| teacher  | cola |  60.0 |     3 | 59.0 to 61.2 | 58.0 to 62.0 |  100.0 | accuracy 60.0 |
| teacher  | rte  |  70.0 |     1 |            – | 68.0 to 72.0 |  100.0 | accuracy 70.0 |
| teacher  | mean |  65.0 |     – |            – | 64.0 to 66.0 |  100.0 |             – |
| student  | cola |  50.0 |     1 |            – | 48.0 to 52.0 |   83.3 | accuracy 50.0 |
| student  | rte  |  70.0 |     1 |            – | 68.0 to 72.0 |   99.9 | accuracy 70.0 |
| student  | mean |  60.0 |     – |            – | 59.0 to 61.0 |   92.3 |             – |
| baseline | cola |  40.0 |     1 |            – | 38.0 to 42.0 |   66.7 | accuracy 40.0 |
| baseline | rte  |  70.0 |     1 |            – | 68.0 to 72.0 |  100.0 | accuracy 70.0 |
"""  # noqa: E501


def test_markdown_by_hand():
    text = to_markdown(toy())
    main, *_ = text.split("\n\n")
    assert main + "\n" == MARKDOWN
    assert DETAILS in text
    assert (
        "† The difference to the teacher is inside the noise: its 95%" in text
    )
    assert "1,000 draws" in text
    assert "Published figures of BERT: A paper, table 1. Their" in text
    sentences = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(sentences) == 3
    # The mean's is first.
    assert "-5.0 points between student and teacher on the mean" in sentences[0]
    assert text.endswith("contains 0.\n")


def test_the_mean_of_one_task_is_not_told_again():
    table = others([50.0])
    compared = [
        compare("other 0", "teacher", task, -49.0, True)
        for task in ("cola", None)
    ]
    text = to_markdown(
        table.model_copy(update={"comparisons": tuple(compared)})
    )
    (sentence,) = [x for x in text.splitlines() if x.startswith("- ")]
    assert "between other 0 and teacher on cola is significant" in sentence


def test_mean_that_is_not_significant():
    table = toy()
    means = [
        c.model_copy(update={"significant": c.task is not None})
        for c in table.comparisons
    ]
    text = to_markdown(table.model_copy(update={"comparisons": tuple(means)}))
    # No task is marked; the other mark is in the note.
    assert "| 70.0 | 60.0† |" in text
    assert text.count("†") == 2


def others(values):
    rows = [row("teacher", score(99.0, 100.0))]
    rows += [
        row(f"other {n}", None if value is None else score(value, None))
        for n, value in enumerate(values)
    ]
    return ResultTable(
        tasks=("cola",),
        rows=(*rows, row("elmo", score(98.0, None))),
        comparisons=(),
        level=0.95,
        resamples=1,
    )


@pytest.mark.parametrize(
    ("values", "bold"),
    [
        ([50.0, 40.0], ["50.0"]),
        # The same as written: both.
        ([50.0, 49.96, 40.0], ["50.0", "50.0"]),
        # None is better than another.
        ([50.0, 50.0], []),
        ([50.0], []),
        ([50.0, None], []),
        ([-1.0, -2.0], ["-1.0"]),
        # The teacher's 99.0 competes with none of them.
        ([99.0, 40.0], ["99.0"]),
    ],
)
def test_best_of_the_student_s_size(values, bold):
    parts = to_markdown(others(values)).split("**")
    assert parts[1::2] == bold


def test_cheapest_is_best():
    rows = (
        row("a", score(1.0, None), costs=(10, 2.0, 3.0, 0.3)),
        row("b", score(1.0, None), costs=(20, 1.0, 3.0, 0.4)),
    )
    table = ResultTable(
        tasks=("cola",), rows=rows, comparisons=(), level=0.9, resamples=1
    )
    text = to_markdown(table)
    assert text.split("**")[1::2] == ["10", "0.30", "1.00"]
    # Nothing is compared, nothing is published: no word of either.
    assert "†" not in text
    assert "Published" not in text
    assert "90% interval" in text


def errors():
    """A task that is an error, kept as negative percent."""
    found = [
        score(value, None).model_copy(update={"metrics": {"log_loss": -value}})
        for value in (-60.0, -70.0)
    ]
    rows = [row("teacher", found[0], macro=mean(-60.0, None))]
    rows.append(row("student", found[1], macro=mean(-70.0, None)))
    baseline = found[1].model_copy(update={"score": -80.0, "seeds": 3})
    return ResultTable(
        tasks=("cola",),
        rows=(*rows, row("baseline", baseline)),
        comparisons=(compare("student", "teacher", "cola", -10.0, True),),
        level=0.95,
        resamples=1,
        errors=("cola",),
    )


def test_a_single_task_is_its_own_mean():
    """Unless published models, with tasks of their own, stand beside it."""
    both = toy()
    rows = tuple(
        row.model_copy(update={"tasks": {"rte": row.tasks["rte"]}})
        for row in both.rows
    )
    changes = {"tasks": ("rte",), "rows": rows, "comparisons": ()}
    for published, heads in (
        ((), ["Model", "rte", "Kept %"]),
        (both.published, ["Model", "rte", "Mean", "Kept %"]),
    ):
        table = both.model_copy(update={**changes, "published": published})
        main, notes, *_, details = to_markdown(table).strip().split("\n\n")
        found = [x.strip() for x in main.split("\n")[0].split("|")[1:-1]]
        assert found[: len(heads)] == heads
        assert ("Mean is that of all tasks." in notes) == ("Mean" in heads)
        assert "Kept is the share of the teacher's score" in notes
        assert " mean " not in details


@pytest.mark.parametrize(
    ("difference", "significant", "said"),
    [(9.0, True, True), (9.0, False, False), (-9.0, True, False)],
)
def test_a_teacher_that_labels_alone_beat(difference, significant, said):
    table = toy().model_copy(
        update={
            "comparisons": (
                compare("baseline", "teacher", "rte", difference, significant),
                # A student that is better is no fault of the teacher's.
                compare("student", "teacher", "cola", 9.0, True),
            )
        }
    )
    text = to_markdown(table)
    assert ("On rte, the teacher is worse than baseline, which" in text) == said
    assert ("Give it more \\`finetune.epochs\\`, or take" in text) == said
    assert "On cola" not in text


def test_errors_are_shown_as_they_are():
    text = to_markdown(errors())
    main, notes, _, details, sentences = text.strip().split("\n\n")
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in main.split("\n")
    ]
    assert lines[0][:3] == ["Model", "cola (error)", "Parameters"]
    assert [line[1] for line in lines[2:]] == ["0.600", "**0.700**", "0.800"]
    assert "The score of cola is an error: less is better, and there" in notes
    cells = [x.strip() for x in details.split("\n")[-1].split("|")[1:-1]]
    # The lowest error comes first.
    assert cells == [
        *("baseline", "cola", "0.800", "3", "0.688 to 0.710"),
        *("0.680 to 0.720", "\N{EN DASH}", "log_loss 0.700"),
    ]
    assert "mean" not in details
    assert sentences == (
        "- The difference of 0.100 between student and teacher on cola (an "
        "error) is significant: its 95% interval \\[0.090, 0.110\\] does not "
        "contain 0."
    )


def printed(table, width=80):
    console = rich.console.Console(
        file=io.StringIO(), width=width, force_terminal=False
    )
    console.print(to_rich(table))
    return console.file.getvalue()


def test_terminal():
    text = printed(toy())
    assert max(map(len, text.splitlines())) <= 80
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in text.splitlines()
        if "│" in line
    ]
    assert cells[:4] == [
        ["cola", "60.0", "50.0", "40.0", "56.3"],
        ["rte", "70.0", "70.0†", "70.0", "–"],
        ["Mean", "65.0", "60.0", "–", "79.5"],
        ["Kept %", "100.0", "92.3", "–", "–"],
    ]
    assert ["Parameters", "109.5 M", "67.0 k", "–", "–"] in cells
    wide = printed(toy(), width=200)
    assert "student and teacher on rte is not significant: its 95%" in wide


def test_terminal_bold():
    console = rich.console.Console(file=io.StringIO(), width=80)
    segments = [
        segment.text.strip()
        for segment in console.render(to_rich(toy()))
        if segment.style and segment.style.bold and "." in segment.text
    ]
    assert segments == ["50.0"]


def test_html_by_hand():
    section = to_html_section(toy(), "GLUE")
    assert section.heading == "GLUE"
    page = Page(section.body)
    assert page.cells[0][:4] == ["Model", "cola", "rte", "Mean"]
    # The range of the seeds stands below a score of several.
    assert page.cells[1][:4] == ["teacher", "60.059.0 to 61.2", "70.0", "65.0"]
    assert page.cells[2][:4] == ["student", "50.0", "70.0†", "60.0"]
    assert page.cells[3][:4] == ["baseline", "40.0", "70.0", "–"]
    assert page.cells[4][:4] == ["BERT (published)", "56.3", "–", "79.5"]
    assert "<td><strong>50.0</strong></td>" in section.body
    assert "<td>70.0<sup>†</sup></td>" in section.body
    lengths = {len(cells) for cells in page.cells}
    assert lengths == {9, 8}
    assert [tag for tag, _ in page.elements].count("li") == 3


def test_html_without_comparisons():
    body = to_html_section(others([1.0])).body
    assert "Which differences count" not in body
    assert [tag for tag, _ in Page(body).elements].count("tbody") == 2


HOSTILE = "<script>alert('1')</script> \"&amp; | [red]a[/red] *b* _c_ `d`"


def test_hostile_names_in_html():
    table = toy(student=HOSTILE, cola=f"{HOSTILE} task", source=HOSTILE)
    section = to_html_section(table, HOSTILE)
    page = Page(html_document(HOSTILE, [section] * 2, subtitle=HOSTILE))
    assert "script" not in page.tags()
    assert {tag for tag, _ in page.elements} <= set(
        "html head meta title style body header h1 p nav ul li a main section "
        "h2 h3 table thead tbody tr th td strong sup small div".split()
    )
    assert page.texts.count(HOSTILE) >= 8
    assert page.cells[2][0] == HOSTILE


def test_hostile_names_in_markdown():
    text = to_markdown(toy(HOSTILE, f"{HOSTILE} task", HOSTILE))
    assert "<" not in text
    assert (
        "| &lt;script&gt;alert('1')&lt;/script&gt; \"&amp;amp; \\| "
        "\\[red\\]a\\[/red\\] \\*b\\* \\_c\\_ \\`d\\` |"
    ) in text.replace("  ", "")
    columns = [
        line.replace("\\|", "").count("|")
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert columns == [10] * 6 + [9] * 10


def test_hostile_names_in_the_terminal():
    text = printed(toy(HOSTILE, f"{HOSTILE} task", HOSTILE), width=2000)
    assert f"between {HOSTILE} and teacher on {HOSTILE} task" in text
    assert f" {HOSTILE} ┃" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mb", "a\ufffd[31mb"),
        ("a\nb\tc", "a b c"),
        ("a\x00b", "a\ufffdb"),
        ("a\udc80b", "a\ufffdb"),
        ("a\u202eb", "a\ufffdb"),
        ("naïve 模型", "naïve 模型"),
    ],
)
def test_invisible_characters(name, shown):
    table = toy(student=name)
    assert f" {shown} ┃" in printed(table, width=400)
    page = Page(html_document(name, [to_html_section(table)]))
    assert page.cells[2][0] == shown
    # Whatever is written can be encoded.
    for text in (to_markdown(table), printed(table), "".join(page.texts)):
        text.encode("utf-8")


def test_wide_characters_stand_in_line():
    lines = to_markdown(toy(student="模型")).splitlines()[:6]
    # Each of the two fills two columns.
    assert [len(line) for line in lines] == [
        len(lines[0]) - (2 if "模型" in line else 0) for line in lines
    ]
