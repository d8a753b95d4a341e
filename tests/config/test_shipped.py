"""Recipes that come with the package, found by name."""

import re
from pathlib import Path

import pytest

from keras_distil.config import load_recipe, shipped

ORIGINALS = Path(__file__).parents[2] / "recipes"


def test_a_checkout_reads_the_originals():
    assert shipped.FOLDER.resolve() == ORIGINALS
    names = shipped.list_names()
    assert len(names) > 8
    assert {f"{name}.yaml" for name in names} == {
        path.name for path in ORIGINALS.iterdir()
    }


def test_a_name_is_found_where_nothing_has_it_as_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = shipped.find_recipe("quickstart")
    assert found == shipped.find_shipped("quickstart")
    assert load_recipe(found).name == "quickstart"
    for make in (Path.mkdir, Path.touch):
        own = Path("quickstart")
        make(own)
        assert shipped.find_recipe("quickstart") == own
        own.rmdir() if own.is_dir() else own.unlink()


def test_a_path_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").touch()
    assert shipped.find_recipe("~/own.yaml") == tmp_path / "own.yaml"


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("quikstart", "; the nearest: quickstart, search_quickstart"),
        ("quickstart.yaml", "; the nearest: quickstart, search_quickstart"),
        ("recipes/glue.yaml", "; the nearest: glue"),
        ("sst2", "; the nearest: task_sst2_minilm_to_3_layers"),
        ("../recipes/glue", "; the nearest: glue"),
        ("minilm", "; the nearest: embeddings_minilm_to_3_layers, "),
        ("qqq", ""),
        ("", ""),
    ],
)
def test_an_unknown_name(tmp_path, monkeypatch, given, near):
    monkeypatch.chdir(tmp_path)
    # An empty text is a path to this folder.
    for find, error in (
        (shipped.find_recipe, FileNotFoundError),
        (shipped.find_shipped, ValueError),
    ):
        if not given and find is shipped.find_recipe:
            continue
        with pytest.raises(error) as caught:
            find(given)
        message = str(caught.value)
        assert f"the name of a shipped recipe{near}" in message
        assert f". Received: {given!r}" in message
        assert message.endswith(("lists them.", "lists the names."))
        assert message.count(",") < 5


def test_a_summary_is_the_first_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    (tmp_path / "a.yaml").write_text(
        "# Version 1.1\n# of it. More.\n#\n# Command:  one \\\n#     --two\n"
        "# Command: no\nname: a\n# Late.\n"
    )
    assert shipped.read_summary("a") == "Version 1.1 of it."
    assert shipped.read_command("a") == "one --two"


@pytest.mark.parametrize("name", shipped.list_names())
def test_a_line_of_a_terminal_holds_name_and_summary(name):
    summary = shipped.read_summary(name)
    assert summary.endswith(".") and len(summary) > 20
    width = max(map(len, shipped.list_names()))
    assert width + 2 + len(summary) <= 80


@pytest.mark.parametrize("name", shipped.list_names())
def test_a_command_names_its_recipe(name):
    if name != "roberta_tiny":  # whose first command writes its text
        command = shipped.read_command(name)
        assert re.fullmatch(rf"keras-distil (run|search) {name}( .+)?", command)
