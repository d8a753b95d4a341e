"""Charts as elements of a page: their own ids, their text, nothing else."""

import re

import numpy as np
import pytest
from html_reader import Page
from matplotlib.figure import Figure

from keras_distil.runs.report import charts, svg
from keras_distil.runs.report.charts import Dot, Line
from keras_distil.runs.report.learning import Series


def dots(*roles):
    return [
        Dot(role, 10.0 * n, 50.0 + n, 1e4 * n)
        for n, role in enumerate(roles, 1)
    ]


def line(role, *values):
    return Line(role, Series(np.arange(1.0, len(values) + 1), np.array(values)))


def read(text):
    assert text.startswith("<svg ") and text.endswith("</svg>")
    # HTML knows the namespaces, and needs no prolog.
    for word in ("xmlns", "<?xml", "<!DOCTYPE", "<metadata", "<style", "<!--"):
        assert word not in text
    return Page(f"<style></style>{text}")


def test_a_figure_is_an_element():
    with svg.style():
        figure = Figure(figsize=(2, 1))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1])
        axes.set_title("a < b & $c$")
        one = svg.inline(figure, label='"1" < 2', prefix="one")
        again = svg.inline(figure, label='"1" < 2', prefix="one")
        two = svg.inline(figure, label="2", prefix="two")
    assert one == again
    page = read(one)
    assert "a < b & $c$" in page.texts
    [attributes] = [a for tag, a in page.elements if tag == "svg"]
    assert attributes["role"] == "img"
    assert attributes["aria-label"] == '"1" < 2'
    assert attributes["viewbox"] == "0 0 144 72"
    assert not {"width", "height"} & set(attributes)
    # Words have the font of the element, and their own size.
    assert one.count("font-family") == 1 and "font-size: 10px" in one
    ids = re.findall(r' id="([^"]+)"', one)
    assert ids and all(name.startswith("one-") for name in ids)
    # Both stand on one page.
    Page(f"<style></style><div>{one}{two}</div>").check_alone()


def test_charts_have_the_colours_of_the_page():
    """All but the words on coloured cells, which suit the cell."""
    curves = charts.draw_curves(
        "Loss",
        [line("teacher", 2.0, 1.0), line("student", 2.0, 1.0)],
        prefix="a",
    )
    cells = charts.draw_similarity([[0.1, 0.9]], prefix="b")
    for text in (curves, cells):
        drawn = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", text))
        assert "var(--ink,#000000)" in drawn
        assert "var(--paper,#ffffff)" in drawn
    assert "var(--grey,#555555)" in curves
    assert "#000000" not in re.sub(r"var\([^)]*\)", "", curves)
    # Words are black where nothing else is said.
    words = re.findall(r"<text ([^>]*)>0\.[19]0<", cells)
    assert ["fill:" in found for found in words] == [True, False]
    assert "fill: #ffffff" in words[0]
    for theme in (svg.LIGHT, svg.DARK):
        named = set(re.findall(r"var\((--\w+)", curves + cells))
        assert named == set(re.findall(r"--\w+", theme))


def test_curves_of_roles():
    text = charts.draw_curves(
        "Loss",
        [
            line("student", 2.0, 1.0),
            line("student", 2.0, 1.5),
            line("baseline", 3),
        ],
        prefix="a",
    )
    page = read(text)
    page.check_alone()
    # In the legend, once each.
    assert page.texts.count("student") == page.texts.count("baseline") == 1
    assert "Loss" in page.texts


def test_curves_differ_in_dashes():
    lines = [
        line(role, 2.0, 1.0) for role in ("teacher", "student", "baseline")
    ]
    text = charts.draw_curves("Loss", lines, prefix="a")
    dashes = {
        color: re.search(r"stroke-dasharray: ([^;]+)", style)
        for style, color in re.findall(
            r'style="([^"]*stroke: (#\w+|var\([^)]*\))[^"]*'
            r'stroke-width: 1.2[^"]*)"',
            text,
        )
    }
    found = [x and x[1] for x in dashes.values()]
    assert len(found) == len(set(found)) == 3


def test_a_map_has_its_values():
    text = charts.draw_similarity(
        [[1.0, 0.25], [0.5, 0.125], [0.0, 0.75]], prefix="a"
    )
    page = read(text)
    page.check_alone()
    shown = [x for x in page.texts if re.fullmatch(r"\d\.\d\d", x)]
    assert shown == ["1.00", "0.25", "0.50", "0.12", "0.00", "0.75"]
    assert page.texts.count("emb.") == 2
    # Cells are shapes, not a picture.
    assert "<image" not in text


@pytest.mark.parametrize("shape", [(1, 1), (25, 13), (48, 24)])
def test_maps_of_any_size(shape):
    text = charts.draw_similarity(np.full(shape, 0.5).tolist(), prefix="a")
    assert ("0.50" in read(text).texts) == (shape[1] <= 16)
    assert len(text) < 300_000


def test_layers_that_were_copied_are_framed():
    grid = np.full((4, 3), 0.5).tolist()
    frame = "stroke: #d55e00"
    plain = charts.draw_similarity(grid, prefix="a")
    assert frame not in plain
    text = charts.draw_similarity(grid, copied=[0, 2], prefix="a")
    read(text).check_alone()
    ends = [
        [float(x) for x in re.findall(r"[ML] ([\d.]+ [\d.]+)", path)[0].split()]
        for path in re.findall(rf'<path d="([^"]+)"[^>]*{frame}', text)
    ]
    (left, low), (right, high) = ends
    # The first layers stand behind the embeddings; the map grows upwards.
    assert left < right and high < low


def test_the_frame_is_at_the_layer_that_was_copied(monkeypatch):
    framed = []
    monkeypatch.setattr(charts, "_frame", lambda _, **x: framed.append(x))
    grid = np.full((4, 3), 0.5).tolist()
    charts.draw_similarity(grid, copied=[0, 2], prefix="a")
    # Counted from 0, of layers; row and column 0 are the embeddings.
    assert framed == [{"row": 1, "column": 1}, {"row": 3, "column": 2}]


def test_costs():
    roles = ("teacher", "student", "_hidden", "$x$", "模" * 60, "a\x00b")
    text = charts.draw_costs(dots(*roles), score="score, %", prefix="a")
    page = read(text)
    page.check_alone()
    assert "teacher: 51.0, 10000.0 MB, 10 ms" in page.texts
    assert any(x.startswith("hidden: ") for x in page.texts)
    assert any(x.startswith("$x$: ") for x in page.texts)
    assert any(x.startswith("模" * 47 + "…: ") for x in page.texts)
    assert any(x.startswith("a\ufffdb: ") for x in page.texts)
    assert {"score, %", "size, MB", "CPU ms for one input"} <= set(page.texts)
    # Both begin at nothing.
    assert page.texts.count("0") == 2


def looks_of(text):
    """Outline, from its first point on, and colour of every mark."""
    for path, style in re.findall(r'<path d="([^"]+)"[^>]*style="(.*?)"', text):
        points = np.array(re.findall(r"[\d.]+", path), float).reshape(-1, 2)
        if "stroke-width: 1.6" in style:
            yield tuple((points - points[0]).round().ravel()), style


def test_dots_differ_in_colour_and_shape():
    text = charts.draw_costs(dots(*"abcdefgh"), score="s", prefix="a")
    outlines, styles = zip(*looks_of(text), strict=True)
    assert len(set(outlines)) == 8
    # In two panels and the legend.
    assert len(outlines) == 3 * 8
    assert len({re.search(r"stroke: ([^;]+)", x)[1] for x in styles}) == 6


def test_costs_without_latency():
    plain = Dot("preset", None, 99.0, 70.0)
    page = read(charts.draw_costs([plain], score="s", prefix="a"))
    assert "CPU ms for one input" not in page.texts
    assert "preset: 99.0, 70.0 MB" in page.texts
    timed = Dot("student", 2.0, 100.0, 70.0)
    text = charts.draw_costs([timed, plain], score="s", prefix="a")
    assert "CPU ms for one input" in read(text).texts


@pytest.mark.parametrize(
    ("values", "can"),
    [
        ((1.0, 50.0, 1.0), True),
        ((None, 50.0, 0.0), True),
        ((0.0, 50.0, 1.0), False),
        ((1e10, 50.0, 1.0), False),
        ((1.0, 1e7, 1.0), False),
        ((1.0, 50.0, -1.0), False),
        ((1.0, 50.0, float("nan")), False),
    ],
)
def test_dots_that_no_axis_holds(values, can):
    assert Dot("student", *values).can_be_drawn == can
