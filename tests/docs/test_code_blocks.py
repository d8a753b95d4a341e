"""Every code block of the docs is tested, or says why it is not."""

import ast
import json
import re
import shlex

import code_blocks
import names
import pytest
import typer

from keras_distil import config
from keras_distil.cli.app import app
from keras_distil.config import shipped

ROOT = code_blocks.ROOT
BLOCKS = code_blocks.all_blocks()
RUN = [x for x in BLOCKS if x.note.startswith("run with ")]
# Sections that a part of a recipe needs beside it.
DISTILLING = {
    "data": {"sources": [{"kind": "documentation"}]},
    "distill": {"steps": 1, "batch_size": 8, "learning_rate": 1e-3},
}
TUNING = {"student": {"num_layers": 3}, "finetune": {"tasks": ["rte"]}}
BASE = {"name": "part_of_a_recipe", "teacher": {"source": "embedded"}}


def merged(base, values):
    """Nested values, those of `values` before those of `base`."""
    if not (isinstance(base, dict) and isinstance(values, dict)):
        return values
    return {
        key: merged(base[key], values[key])
        if key in base and key in values
        else values.get(key, base.get(key))
        for key in {**base, **values}
    }


def check_recipe(code):
    values = config.read_yaml(code, where="the page")
    more = DISTILLING
    if "finetune" in values and "distill" not in values:
        more = TUNING
    config.make_recipe(merged({**BASE, **more}, values))


def check_command(line):
    first, *rest = shlex.split(line)
    if first == "keras-distil":
        check_ours(rest)
    elif first == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        assert f"\n{rest[0]}:" in makefile, line
    elif first == "python":
        assert (ROOT / rest[0]).is_file(), line
    elif first == "pip":
        setup = (ROOT / "setup.py").read_text("utf-8")
        for extra in re.findall(r"keras-distil\[(\w+)\]", line):
            assert f'"{extra}": [' in setup, line
    else:
        assert first == "tensorboard", f"unknown command: {line}"


def check_ours(arguments):
    """Parses a command, and checks its changes of a recipe that ships."""
    group = typer.main.get_command(app)
    name, *rest = arguments
    if name == "recipes" or not rest:
        assert name in group.commands
        return
    context = group.commands[name].make_context(name, rest)
    recipe = context.params.get("recipe") or context.params.get("source")
    if str(recipe) in shipped.list_names():
        overrides = context.params.get("set_") or ()
        config.load_recipe(shipped.find_recipe(recipe), overrides)


def commands(code):
    """The commands of a block, without comments, each on one line."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and line[0] != "#"]


def problem_of(block):
    """Says what is wrong with how a block is tested; None if nothing is."""
    for path in re.findall(r"tests/[\w/]+\.py", block.note):
        if not (ROOT / path).is_file():
            return f"{path} does not exist"
    match block.note.split(" ", 2):
        case ["tested", "by", path]:
            page = block.place.partition(":")[0].rpartition("/")[2]
            text = (ROOT / path).read_text("utf-8")
            return None if page in text else f"{path} does not read {page}"
        case ["not", "run:", _]:
            return None
        case ["run", "with", name]:
            known = hasattr(names, name)
            return None if known else f"{name} is not in names.py"
        case [""] if block.language in ("json", "text", "yaml", ""):
            return None
    return "a comment must say how it is tested. See tests/docs/code_blocks.py"


def test_there_are_blocks():
    assert len(BLOCKS) > 80 and len(RUN) > 3


@pytest.mark.parametrize("page", code_blocks.PAGES, ids=lambda x: x.name)
def test_every_block_is_tested_or_says_why_not(page):
    for block in code_blocks.read_blocks(page):
        problem = problem_of(block)
        assert problem is None, f"{block}: {problem}"
        try:
            if block.language == "python":
                ast.parse(block.code)
            elif block.language == "json":
                for line in block.code.splitlines():
                    json.loads(line)
            elif block.language == "yaml" and not block.note:
                check_recipe(block.code)
            elif block.language == "" and not block.note:
                for line in commands(block.code):
                    check_command(line)
        except Exception as error:
            raise AssertionError(f"{block}: {error}") from error


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=str)
def test_it_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = getattr(names, block.note.removeprefix("run with "))()
    exec(compile(block.code, block.place, "exec"), given)


def test_a_misspelt_key_or_option_is_found():
    with pytest.raises(config.RecipeError, match="unknown key"):
        check_recipe("distill: {batch_sise: 3}")
    with pytest.raises(config.RecipeError, match="unknown key"):
        check_command("keras-distil run quickstart --set distill.stebs=3")
    with pytest.raises(Exception, match="No such option: --outpud"):
        check_command("keras-distil run quickstart --outpud x")
