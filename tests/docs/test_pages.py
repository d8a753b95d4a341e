"""Pages can be read in a terminal: lines of at most 120 characters."""

import code_blocks
import pytest

# Rows of tables, links, comments and formulas cannot be cut.
UNCUT = ("|", "!", "http", "- http", "<!-- ", "    ")


def long_lines(text):
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside and len(line) > 120:
            if not line.startswith(UNCUT):
                yield number


@pytest.mark.parametrize("page", code_blocks.PAGES, ids=lambda x: x.name)
def test_lines_are_short(page):
    assert list(long_lines(page.read_text("utf-8"))) == []
