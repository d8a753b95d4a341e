"""Imports inside the package go one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_distil"

# A part imports parts of earlier rows only: nothing of its own row.
ROWS = (
    ("utils",),
    ("losses", "schedules", "data", "edge"),
    ("config",),
    ("models",),
    ("teachers",),
    ("training",),
    ("callbacks", "export"),
    ("evaluation",),
    ("benchmark",),
    ("runs",),
    ("planning", "search"),
    ("cli",),
    ("__main__",),
)
ROW_OF = {part: row for row, parts in enumerate(ROWS) for part in parts}


def part_of(module: Path, package: Path) -> str:
    return module.relative_to(package).with_suffix("").parts[0]


def imported_parts(module: Path, package: Path) -> set[str]:
    """Returns the parts of `package` that `module` imports, at any depth.

    A name that the package's `__init__` offers, and that is no part, is
    returned as it is.
    """
    inside = (package.name, *module.relative_to(package).parent.parts)
    names = []
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = ".".join(inside[: len(inside) - node.level + 1])
                source = f"{base}.{node.module}" if node.module else base
            else:
                source = node.module
            names += [f"{source}.{alias.name}" for alias in node.names]
    split = [name.split(".") for name in names]
    return {
        parts[1] if len(parts) > 1 else parts[0]
        for parts in split
        if parts[0] == package.name
    }


def wrong_imports(module: Path, package: Path) -> set[str]:
    part = part_of(module, package)
    return {
        other
        for other in imported_parts(module, package)
        if other != part and ROW_OF.get(other, len(ROWS)) >= ROW_OF[part]
    }


MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    # It loads the public names lazily, so it may name any part.
    if path != PACKAGE / "__init__.py"
]


def test_modules_are_found():
    assert len(MODULES) > 5


def test_parts_are_few():
    """One finds one's way among a score of parts, not among forty."""
    assert len(ROW_OF) <= 22
    assert {part_of(module, PACKAGE) for module in MODULES} == set(ROW_OF)


@pytest.mark.parametrize(
    "module", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES]
)
def test_imports_go_one_way(module):
    assert part_of(module, PACKAGE) in ROW_OF, "give the part a row in ROWS"
    assert wrong_imports(module, PACKAGE) == set()


@pytest.mark.parametrize(
    ("module", "statement", "wrong"),
    [
        ("losses/base.py", "from keras_distil.models import x", {"models"}),
        ("losses/base.py", "import keras_distil.cli", {"cli"}),
        ("losses/base.py", "from keras_distil import data", {"data"}),
        ("losses/base.py", "from ..schedules import Linear", {"schedules"}),
        ("losses/base.py", "from .. import teachers", {"teachers"}),
        ("losses/base.py", "def f():\n  import keras_distil.cli", {"cli"}),
        ("runs/stages.py", "from keras_distil import Distiller", {"Distiller"}),
        ("runs/stages.py", "import keras_distil", {"keras_distil"}),
        ("losses/base.py", "from . import functional", set()),
        ("losses/base.py", "from keras_distil.losses import x", set()),
        ("losses/base.py", "import keras, keras_distillery", set()),
        ("runs/stages.py", "from keras_distil import data, models", set()),
    ],
)
def test_wrong_imports_are_seen(tmp_path, module, statement, wrong):
    path = tmp_path / "keras_distil" / module
    path.parent.mkdir(parents=True)
    path.write_text(statement)
    assert wrong_imports(path, tmp_path / "keras_distil") == wrong


def test_config_imports_no_tensorflow():
    code = (
        "import sys, keras_distil.config as config;"
        "config.load_recipe('recipes/quickstart.yaml');"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
