"""The recipes that ship are valid and say what they cost."""

import re
from pathlib import Path

import pytest

from keras_distil.config import dump_recipe, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*"))


def test_recipes_are_found():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads(path):
    assert path.suffix == ".yaml"
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_dump_reads_back_equal(path, tmp_path):
    recipe = load_recipe(path)
    copy = tmp_path / "recipe.yaml"
    copy.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(copy) == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "field", ["Command: ", "Hardware:", "Duration:", "Expected:"]
)
def test_header_tells_cost_and_result(path, field):
    header = path.read_text(encoding="utf-8").partition("\nname:")[0]
    assert f"\n# {field} " in header
    assert re.search(rf"keras-distil (run|search) {path.stem}\b(?!\.)", header)
