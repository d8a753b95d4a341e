"""Pictures of the docs: those that are shown, and how they are taken."""

import re

import code_blocks
import pytest
import screenshots
from PIL import Image

IMAGES = code_blocks.ROOT / "docs" / "images"
_LINK = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")


def shown():
    """Pictures by path, with what is said of them, and the page."""
    for page in code_blocks.PAGES:
        for words, path in _LINK.findall(page.read_text("utf-8")):
            yield (page.parent / path).resolve(), words, page


def test_every_picture_is_there_and_described():
    found = list(shown())
    assert len(found) > 5
    for path, words, page in found:
        assert path.is_file(), f"{page}: {path}"
        # Whoever cannot see it reads them.
        assert len(words) > 10, f"{page}: {path}"


def test_every_picture_is_shown():
    used = {path for path, *_ in shown()}
    there = {path for path in IMAGES.rglob("*") if path.is_file()}
    assert there - used == set()


def test_every_screenshot_has_its_page():
    names = [x[0] for x in (*screenshots.REPORT, *screenshots.TENSORBOARD)]
    assert {f"{x}.png" for x in names} <= {path.name for path, *_ in shown()}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "report.html").write_text("<p>x</p>")
    return tmp_path


def line_of(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert screenshots.main([str(tmp_path)]) == 1
    assert "has no report.html and no logs" in line_of(capsys)


def test_without_a_browser(run, capsys, monkeypatch):
    monkeypatch.setattr(screenshots.shutil, "which", lambda name: None)
    assert screenshots.main([str(run)]) == 1
    assert "`apt-get install chromium`" in line_of(capsys)


def test_a_browser_that_takes_nothing(run, capsys, monkeypatch):
    monkeypatch.setattr(screenshots.shutil, "which", lambda name: "/bin/true")
    assert screenshots.main([str(run), "--output", str(run / "out")]) == 1
    assert "/bin/true took no picture" in line_of(capsys)


def test_a_tensorboard_that_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(screenshots.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="shows no logs. It says: ''"):
        with screenshots.serve(tmp_path / "logs"):
            pass


def test_empty_rows_at_the_end_are_cut():
    picture = Image.new("RGB", (20, 100), "white")
    assert screenshots.shrink(picture).size == (20, 100)
    picture.paste("navy", (5, 30, 10, 40))
    small = screenshots.shrink(picture)
    assert small.size == (20, 40 + 16) and small.mode == "P"
    assert small.convert("RGB").getpixel((5, 39)) == (0, 0, 128)
    picture.paste("navy", (5, 95, 10, 99))
    assert screenshots.shrink(picture).size == (20, 100)
