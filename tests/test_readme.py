import re
from pathlib import Path

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
