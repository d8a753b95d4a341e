"""Imports inside the package go one way."""

import ast
import re
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


# === Families ===

ARCHITECTURES = PACKAGE / "models" / "architectures"
# What stands for a family in code: parts of its classes' and files' names.
FAMILY_WORDS = sorted(
    {
        word
        for path in ARCHITECTURES.glob("*.py")
        for word in re.findall(
            r'class_stem="(\w+)"|^    name="(\w+)"',
            path.read_text("utf-8"),
            re.MULTILINE,
        )
        for word in word
        if word
    }
)


def family_words(source: str) -> list[str]:
    """Returns identifiers and strings of code that name a family.

    Prose is not code: docstrings, and strings of several words.
    """
    tree = ast.parse(source)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    words = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_prose = id(node) in prose or " " in node.value
            words += [] if is_prose else [node.value]
        elif isinstance(node, ast.Name):
            words.append(node.id)
        elif isinstance(node, ast.Attribute):
            words.append(node.attr)
        elif isinstance(node, ast.alias):
            words += node.name.split(".")
    return [
        word
        for word in words
        if word in FAMILY_WORDS
        or any(
            re.search(rf"{stem}([A-Z]|$)", word)
            for stem in FAMILY_WORDS
            if stem[0].isupper()
        )
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('if name == "bert":\n  pass', ["bert"]),
        ("from keras_hub.models import BertBackbone", ["BertBackbone"]),
        ("isinstance(x, models.DistilBertTextClassifier)", ["DistilBertText"]),
        ('"""Of a BertBackbone."""\nraise ValueError("no Bert here")', []),
        ("family.hub.encoder", []),
    ],
)
def test_families_are_seen(source, words):
    found = family_words(source)
    assert len(found) == len(words)
    assert all(a.startswith(b) for a, b in zip(found, words, strict=True))


# Public names, those in saved files, and Hugging Face's tokenizer classes by
# their kind.
NAMES_FAMILIES = {
    "models/__init__.py",
    "data/word_piece.py",
    "data/byte_level_bpe.py",
    "utils/saved_classes.py",
}
# Parts of WordPiece in the library `tokenizers`, whatever model reads them.
OF_TOKENIZERS = {"BertNormalizer", "BertPreTokenizer", "BertProcessing"}


@pytest.mark.parametrize(
    "module",
    [path for path in MODULES if ARCHITECTURES not in path.parents],
    ids=str,
)
def test_a_family_stands_in_its_own_file(module):
    if str(module.relative_to(PACKAGE)) in NAMES_FAMILIES:
        return
    words = set(family_words(module.read_text("utf-8")))
    assert words - OF_TOKENIZERS == set()
