"""The reference has every public object, with the definition that it is of."""

import importlib

import public_objects
import pytest

import keras_distil


def offered(part):
    """What a part offers, seen at run time."""
    module = importlib.import_module(f"keras_distil.{part}")
    names = getattr(module, "__all__", None)
    if names is not None:
        return set(names)
    # Classes and functions that another module has are its imports.
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith(module.__name__)
    }


@pytest.mark.parametrize("part", public_objects.PARTS)
def test_every_object_is_there_by_its_definition(part):
    objects = public_objects.public_objects(part)
    assert offered(part) <= set(objects)
    module = importlib.import_module(f"keras_distil.{part}")
    for name, home in objects.items():
        place, _, own_name = home.rpartition(".")
        defined = getattr(importlib.import_module(place), own_name)
        assert defined is getattr(module, name), name


def test_every_part_has_a_page():
    modules = set(keras_distil.__all__) - {"Distiller", "__version__"}
    assert modules | {"edge"} == set(public_objects.PARTS)
    wanted = {f"reference/{part}.md" for part in public_objects.PARTS}
    assert wanted < set(public_objects.pages()) == set(public_objects.anchors())


def test_what_has_no_docstring_is_named(monkeypatch):
    assert public_objects.missing_docstrings() == []
    monkeypatch.setattr(public_objects, "PARTS", ("config",))
    read = public_objects._read
    monkeypatch.setattr(
        public_objects,
        "_read",
        lambda path: read(path).replace('    """One key', '    b"""One key'),
    )
    assert public_objects.missing_docstrings() == [
        "keras_distil.config.Dimension has no docstring"
    ]
