"""The help of every command: short, plain, and with examples that work."""

import re
import shlex

import pytest
import typer
from commands import keras_distil

import keras_distil as package
from keras_distil.cli import app
from keras_distil.cli.options import load_run_or_recipe

PROGRAM = typer.main.get_command(app.app)
# Words after `keras-distil`; none for the help of the program itself.
COMMANDS = [
    (),
    *((name,) for name in PROGRAM.commands),
    *(
        (name, sub)
        for name, group in PROGRAM.commands.items()
        for sub in getattr(group, "commands", {})
    ),
]


@pytest.fixture(params=COMMANDS, ids=lambda words: " ".join(words) or "program")
def command(request, monkeypatch):
    """A command, on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    return request.param


def help_of(capsys, command):
    status, out, err = keras_distil(capsys, *command, "--help")
    assert (status, err) == (0, "")
    return out


def examples(text):
    """The commands under "Example:", each in one line."""
    _, _, below = text.partition("\n  Example:\n")
    lines = below.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def test_commands_are_found():
    assert ("recipes", "copy") in COMMANDS
    assert ("run",) in COMMANDS
    assert len(COMMANDS) > 12


def test_it_fits_a_screen(capsys, command):
    lines = help_of(capsys, command).splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)


def test_it_is_plain(capsys, command):
    text = help_of(capsys, command)
    usage = text.partition("\n")[0]
    # Neither boxes and markup nor names of types nor flags with a negation.
    text = text.replace("KEY.PATH=VALUE", "").partition("\n")[2]
    assert not re.search(r"[╭│╰]|\[/?bold\]|<\w+>\s", text)
    assert not re.search(r"\b(TEXT|PATH|INTEGER|FLOAT)\b", text)
    assert "--no-" not in text
    # Nothing is cut off, and what to give is said.
    assert not re.search(r"\.\.\.$", text, re.MULTILINE)
    for name in re.findall(r"{(\w+)}", usage):
        assert f"\n  {name}: " in text


def test_its_examples_work(capsys, command, tmp_path, monkeypatch):
    found = examples(help_of(capsys, command))
    if not command:
        return
    assert found
    monkeypatch.chdir(tmp_path)
    for words in found:
        assert tuple(words[: len(command) + 1]) == ("keras-distil", *command)
        parsed = PROGRAM
        arguments = words[1:]
        for name in command:
            assert arguments.pop(0) == name
            parsed = parsed.commands[name]
        context = parsed.make_context(" ".join(command), arguments)
        check(context.params)


def check(given):
    """Loads the recipe that an example names."""
    name = given.get("recipe") or given.get("name")
    if name is None:
        return
    # The run that the quickstart leaves has its recipe.
    recipe = name.removeprefix("saved_models/")
    loaded, _ = load_run_or_recipe(recipe, given.get("set_"))
    assert loaded.name == recipe


def test_the_version(capsys):
    status, out, err = keras_distil(capsys, "--version")
    assert (status, err) == (0, "")
    assert out == f"keras-distil {package.__version__}\n"
