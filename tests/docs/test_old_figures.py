"""Every table of measurements says which commit it is of."""

import re
import subprocess

import old_figures
import pytest

ROOT = old_figures.ROOT
# Pages whose tables are measurements.
MEASURED = [
    ROOT / "docs" / "results.md",
    ROOT / "docs" / "performance.md",
    *sorted((ROOT / "docs" / "performance").glob("*.md")),
]
# A table and what stands behind it; a table of links has no figures.
TABLE = re.compile(r"((?:^\|.*\n)+)\n?(.*)", re.MULTILINE)


@pytest.mark.parametrize("page", MEASURED, ids=lambda x: x.name)
def test_every_table_says_of_what_it_is(page):
    tables = TABLE.findall(page.read_text("utf-8"))
    assert tables
    for rows, behind in tables:
        first = rows.splitlines()[0]
        if "what was measured" not in first:
            assert behind.startswith("*Measured at `"), (page.name, first)


def test_every_path_exists():
    marks = [
        mark
        for page in (ROOT / "docs").rglob("*.md")
        for mark in old_figures.read_marks(page)
    ]
    assert len(marks) > 20
    for mark in marks:
        assert mark.paths, mark.place
        for path in mark.paths:
            assert (ROOT / path).exists(), f"{mark.place}: {path}"


@pytest.fixture
def git(tmp_path):
    def run(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    run("init", "--quiet")
    return run


def commit(git, path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    git("add", ".")
    git("commit", "--quiet", "--message", f"write {path.name}")
    return git("rev-parse", "--short", "HEAD")


def test_what_is_old_is_listed(git, tmp_path, capsys):
    code, page = tmp_path / "code" / "a.py", tmp_path / "docs" / "page.md"
    measured = commit(git, code, "1")
    line = f"| 1 |\n\n*Measured at `{measured}`, of `code/b.py`,\n`code`.*\n"
    commit(git, page, line)
    assert old_figures.main(tmp_path) == 0
    assert capsys.readouterr().out == ""
    changed = commit(git, code, "2")
    assert old_figures.main(tmp_path) == 0
    assert capsys.readouterr().out == (
        f"docs/page.md:3: measured at {measured}; since then 1 commits, "
        f"the latest {changed} write a.py\n"
    )
    page.write_text(line.replace(measured, "abcdef0"), "utf-8")
    assert old_figures.main(tmp_path) == 1
    assert "must be in the history" in capsys.readouterr().err
