"""A self-contained HTML page: no network, no script and no other file."""

import dataclasses
import html
from collections.abc import Sequence

from keras_distil.runs.report import svg
from keras_distil.utils.markdown import visible


@dataclasses.dataclass(frozen=True)
class ReportSection:
    """A section of the report.

    Attributes:
        heading: text.
        body: HTML below the heading, with all text escaped; its own headings
            are `<h3>`.
    """

    heading: str
    body: str


def html_document(
    title: str, sections: Sequence[ReportSection], *, subtitle: str = ""
) -> str:
    """Returns a page that needs no network, no script and no other file.

    Args:
        title: text.
        sections: in order; if there are several, each has a link at the top of
            the page.
        subtitle: text, below the title.

    Returns:
        HTML5, to be written as UTF-8.

    Example:
        >>> page = html_document("A & B", [ReportSection("One", "<p>1</p>")])
        >>> "<h1>A &amp; B</h1>" in page
        True
    """
    links = [
        f'<li><a href="#section-{number}">{escape(section.heading)}</a></li>'
        for number, section in enumerate(sections, 1)
    ]
    # Nothing is fetched or run, whatever a section contains.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title) or 'Report'}</title>",
        f"<style>{_CHARTS}{_STYLE}</style>",
        "</head>",
        "<body>",
        "<header>",
        f"<h1>{escape(title) or 'Report'}</h1>",
        *([f"<p>{escape(subtitle)}</p>"] if subtitle else []),
        "</header>",
    ]
    if len(links) > 1:
        parts += ['<nav aria-label="Sections">', "<ul>", *links, "</ul>"]
        parts += ["</nav>"]
    parts += ["<main>"]
    for number, section in enumerate(sections, 1):
        parts += [
            f'<section id="section-{number}">',
            f"<h2>{escape(section.heading)}</h2>",
            section.body,
            "</section>",
        ]
    return "\n".join([*parts, "</main>", "</body>", "</html>"]) + "\n"


def make_table(
    label: str,
    headers: Sequence[str],
    *bodies: Sequence[str],
    texts: int = 1,
) -> str:
    """Returns a table that scrolls on its own when the page is narrow.

    Args:
        label: text, for screen readers.
        headers: texts.
        bodies: groups of rows; each row is the HTML of its cells.
        texts: number of leading columns that hold words.
    """
    marks = [' class="text"' if n < texts else "" for n in range(len(headers))]
    heads = "".join(
        f'<th scope="col"{mark}>{escape(text)}</th>'
        for mark, text in zip(marks, headers, strict=True)
    )
    parts = [
        f'<div class="wide" role="region" tabindex="0" '
        f'aria-label="{escape(label)}">',
        "<table>",
        f"<thead>\n<tr>{heads}</tr>\n</thead>",
    ]
    for lines in bodies:
        if lines:
            rows = "\n".join(f"<tr>{line}</tr>" for line in lines)
            parts.append(f"<tbody>\n{rows}\n</tbody>")
    return "\n".join([*parts, "</table>", "</div>"])


def show_charts(drawn: Sequence[str]) -> str:
    """Returns charts beside one another, as many as the page has space for.

    Args:
        drawn: each an `<svg>`.
    """
    parts = [f"<figure>\n{svg}\n</figure>" for svg in drawn]
    return '<div class="charts">\n' + "\n".join(parts) + "\n</div>"


def escape(text: str) -> str:
    """Text as HTML, on one line."""
    return html.escape(visible(text).strip())


def escape_lines(text: str) -> str:
    """Text as HTML that keeps its lines and indentation, for `<pre>`."""
    lines = []
    for line in text.splitlines():
        words = line.lstrip(" ")
        lines.append(" " * (len(line) - len(words)) + escape(words))
    return "\n".join(lines)


# The colours of charts; on paper those of a light page.
_CHARTS = f"""
:root {{ {svg.LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {svg.DARK} }} }}
"""
_STYLE = """
:root {
  --text: #1c2430; --soft: #566070; --line: #d5dae1; --back: #ffffff;
  --head: #f2f4f7; --link: #0b57a4; --mark: #fdf0c2;
  --shade: #9aa3b0; }
@media (prefers-color-scheme: dark) { :root {
  --text: #e6e9ee; --soft: #a3adba; --line: #3a4350; --back: #14181e;
  --head: #1f252d; --link: #8fc1f5; --mark: #5a4a12;
  --shade: #000000; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; color: var(--text);
  background: var(--back); font: 1rem/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 0.5rem 0; }
h2 { font-size: 1.3rem; margin: 2rem 0 0.75rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 0.5rem; }
header p, .notes, small, figcaption { color: var(--soft); }
.notes, figcaption { font-size: 0.875rem; max-width: 48rem; }
.lead { font-size: 1.125rem; max-width: 48rem; }
p, li { overflow-wrap: anywhere; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0;
  list-style: none; }
.wide { overflow-x: auto; background:
  linear-gradient(to left, var(--back) 60%, transparent) right / 2rem 100%
  no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / 1rem 100%
  no-repeat; }
/* Only a table that scrolls moves this animation, and so has the words; older
   browsers show the shadow alone. */
.wide::before { content: "Scroll sideways: the table goes on";
  display: block; position: sticky; left: 0; width: max-content;
  max-height: 0; overflow: hidden; font-size: 0.8rem; color: var(--soft);
  animation: scrolls linear; animation-timeline: scroll(nearest inline); }
@keyframes scrolls { from, to { max-height: 2rem; } }
table { border-collapse: separate; border-spacing: 0; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { background: var(--head); font-weight: 600; white-space: normal;
  vertical-align: bottom; }
th:first-child { position: sticky; left: 0; text-align: left;
  background: var(--back); font-weight: 600; min-width: 8.5rem;
  max-width: 14rem; white-space: normal; overflow-wrap: anywhere; }
thead th:first-child { background: var(--head); }
.text { text-align: left; }
tbody + tbody th, tbody + tbody td { color: var(--soft); font-weight: 400; }
small { display: block; font-size: 0.7rem; }
sup { line-height: 0; }
.charts, .samples { display: grid; gap: 1rem; margin: 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
figure { margin: 0; max-width: 34rem; }
figure svg { display: block; width: 100%; height: auto;
  background: var(--paper);
  border: 1px solid var(--line); border-radius: 0.25rem; }
.samples { list-style: none; }
.samples > li { border: 1px solid var(--line); border-radius: 0.25rem;
  padding: 0.75rem; }
.samples p { margin: 0 0 0.5rem; }
.samples table { table-layout: fixed; font-size: 0.875em; }
.samples th, .samples td { padding: 0.15rem 0.4rem; text-align: left;
  white-space: normal; overflow-wrap: anywhere; position: static;
  min-width: 0; max-width: none; }
.samples tr:last-child td { border-bottom: 0; }
mark { background: var(--mark); color: inherit; padding: 0 0.2rem; }
.facts { display: grid; gap: 0.25rem 1rem; margin: 0;
  grid-template-columns: fit-content(12rem) 1fr; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--head); border-radius: 0.25rem; padding: 0.75rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.875rem; }
summary { cursor: pointer; }
@media print {
  :root { --text: #000; --soft: #444; --line: #bbb;
    --back: #fff; --head: #eee; --link: #000; --mark: #eee; }
  body { max-width: none; padding: 0; font-size: 9pt; }
  h1 { font-size: 16pt; }
  h2 { font-size: 13pt; margin-top: 1.25rem; }
  .notes, figcaption { font-size: 8pt; max-width: none; }
  .lead { font-size: 10pt; max-width: none; }
  /* The table of each score has it, too. */
  td small { display: none; }
  .wide { overflow: visible; background: none; }
  .wide::before { display: none; }
  th, td { padding: 0.15rem 0.3rem; white-space: normal; }
  th:first-child { position: static; min-width: 6rem; }
  .charts, .samples { grid-template-columns: 1fr 1fr; }
  figure { max-width: 9cm; }
  figure, tr, .facts, .samples > li { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  nav { display: none; }
  pre { font-size: 7.5pt; }
}
"""
