"""A page of HTML: whole, alone, and text as text."""

import pytest
from html_reader import Page

from keras_distil.runs.report.html_page import (
    ReportSection,
    escape,
    escape_lines,
    html_document,
    make_table,
)


def test_document():
    table = make_table("T", ["a", "b"], ["<th>c</th><td>1</td>"], [])
    sections = [ReportSection("One", table), ReportSection("More", "<p>x</p>")]
    text = html_document("Run", sections, subtitle="Today")
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">\n')
    page = Page(text)
    page.check_alone()
    assert page.cells == [["a", "b"], ["c", "1"]]
    # A group of no lines is none.
    assert text.count("<tbody>") == 1
    assert "default-src 'none'" in text
    ids = [a["id"] for _, a in page.elements if "id" in a]
    links = [a["href"] for _, a in page.elements if "href" in a]
    assert links == [f"#{name}" for name in ids] == ["#section-1", "#section-2"]
    metas = {a.get("name"): a for tag, a in page.elements if tag == "meta"}
    assert metas["viewport"]["content"].startswith("width=device-width")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    # Words that only a table that scrolls has, and no other file is needed.
    assert "Scroll sideways" in text


def test_short_document():
    page = Page(html_document("", []))
    assert "nav" not in page.tags()
    assert page.texts.count("Report") == 2
    one = Page(html_document("x", [ReportSection("One", "")]))
    assert "nav" not in one.tags()


@pytest.mark.parametrize(
    ("text", "line", "lines"),
    [
        ("  a:\n    <b>\n", "a: &lt;b&gt;", "  a:\n    &lt;b&gt;"),
        ("a\x1b\tb", "a\ufffd b", "a\ufffd b"),
        ("", "", ""),
        ("'&'", "&#x27;&amp;&#x27;", "&#x27;&amp;&#x27;"),
    ],
)
def test_text_stays_text(text, line, lines):
    assert escape(text) == line
    assert escape_lines(text) == lines
