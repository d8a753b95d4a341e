"""The reference has every key of a recipe, with what the schema says of it."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import recipe_keys
from pydantic import Field

from keras_distil.config import Recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "wiring"))

import keys  # noqa: E402


def test_every_key_has_a_text_and_every_text_a_key():
    assert recipe_keys.missing_texts() == []


def test_every_key_has_a_heading():
    """By another walk through the schema: that of the tests of every key."""
    pages = recipe_keys.pages().values()
    headings = {
        line.split("`")[1]
        for page in pages
        for line in page.splitlines()
        if line.startswith("### ")
    }
    ends = {heading.rpartition(".")[2] for heading in headings}
    for path in keys.all_keys(Recipe):
        parts = path.split(".")
        if {"losses", "schedules", "balance"} & set(parts):
            # By the names of losses, in one place for all of them.
            assert parts[-1] in ends or parts[-2] == "balance", path
        elif path[0].islower():
            assert path in headings, path
        else:
            assert parts[-1] in ends, path


def test_a_key_without_a_text_is_named(tmp_path, monkeypatch):
    text = recipe_keys.TEXTS.read_text("utf-8")
    path = tmp_path / "texts.yaml"
    path.write_text(text.replace("\n  top_k: ", "\n  topk: "), "utf-8")
    monkeypatch.setattr(recipe_keys, "TEXTS", path)
    assert recipe_keys.missing_texts() == [
        "TeacherCache.top_k has no text",
        "TeacherCache.topk is not a key of a recipe",
    ]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (
            Annotated[int, Field(ge=1)] | None,
            "whole number, at least 1, or `null`",
        ),
        (Annotated[float, Field(gt=0, lt=1)], "number, above 0, below 1"),
        (Literal["a", "b"], "`a` or `b`"),
        (
            Annotated[list[Annotated[int, Field(le=9)]], Field(min_length=1)],
            "list, not empty (each: whole number, at most 9)",
        ),
        (dict[str, bool], "map of names (each: `true` or `false`)"),
    ],
)
def test_a_type_in_words(annotation, words):
    assert recipe_keys.describe_type(annotation) == words


def test_a_page():
    page = recipe_keys.pages()["reference/recipe/teacher.md"]
    part = page.split("### `teacher.cache.top_k`")[1].split("###")[0]
    assert "- Type: whole number, at least 1\n" in part
    assert "- Default: `64`\n" in part
