"""Pages of all public objects, for mkdocstrings to fill from docstrings.

The objects are those that the package's parts offer by `__all__`, by a table
of lazily loaded names, or by `import X as X`; of a single module, everything
that it defines without an underscore. Nothing imports TensorFlow.
"""

import ast
import importlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "keras_distil"
FOLDER = "reference"
# Parts that are imported from the package, as the README does.
PARTS = (
    "callbacks",
    "config",
    "data",
    "edge",
    "evaluation",
    "export",
    "losses",
    "models",
    "schedules",
    "search",
    "teachers",
)
_DISTILLER = "keras_distil.training.distiller"


def public_objects(part: str) -> dict[str, str]:
    """The full name of the definition of each public object of a part.

    Args:
        part: a name of `PARTS`.

    Returns:
        By public name, "module.name" of its definition.
    """
    package = f"keras_distil.{part}"
    folder = PACKAGE / part
    if not folder.is_dir():
        return _defined(ast.parse(_read(folder.with_suffix(".py"))), package)
    tree = ast.parse(_read(folder / "__init__.py"))
    found = _imported(tree)
    if "_HOMES" in _assigned(tree):
        # Lazily loaded names; their module itself imports no TensorFlow.
        module = importlib.import_module(package)
        for name, home in module._HOMES.items():
            found[name] = f"{package}.{home}.{name}"
        found = {name: found[name] for name in module.__all__}
    elif "__all__" in _assigned(tree):
        listed = ast.literal_eval(_assigned(tree)["__all__"])
        found = {name: found[name] for name in listed}
    return {
        name: _followed(found[name]) for name in sorted(found, key=str.lower)
    }


def _followed(home: str) -> str:
    """The definition of what another part offers, else the same name."""
    module, _, name = home.rpartition(".")
    part = module.removeprefix("keras_distil.")
    return public_objects(part)[name] if part in PARTS else home


def pages() -> dict[str, str]:
    """The Markdown of every page, by its path in the site."""
    made = {
        f"{FOLDER}/distiller.md": "# Distiller\n\n"
        + _entry(
            "keras_distil", "Distiller", f"{_DISTILLER}.Distiller", level=2
        )
    }
    for part in PARTS:
        name = f"keras_distil.{part}"
        objects = public_objects(part)
        lines = [f"# {name}\n", f"{_summary(part)}\n"]
        lines += [f"- [`{x}`](#{name}.{x})" for x in objects]
        lines.append("")
        lines += [_entry(name, x, home) for x, home in objects.items()]
        made[f"{FOLDER}/{part}.md"] = "\n".join(lines)
    return made


def anchors() -> dict[str, list[str]]:
    """The ids that the pages must have, by path: one per public object."""
    found = {f"{FOLDER}/distiller.md": ["keras_distil.Distiller"]}
    for part in PARTS:
        found[f"{FOLDER}/{part}.md"] = [
            f"keras_distil.{part}.{name}" for name in public_objects(part)
        ]
    return found


def _entry(package: str, name: str, home: str, level: int = 2) -> str:
    """A heading by the public name, and the docstring of the definition."""
    return (
        f"{'#' * level} {name} {{#{package}.{name}}}\n\n"
        f"`from {package} import {name}`\n\n::: {home}\n"
    )


def _summary(part: str) -> str:
    """The first paragraph of a part's docstring."""
    path = PACKAGE / part / "__init__.py"
    if not path.exists():
        path = PACKAGE / f"{part}.py"
    return (ast.get_docstring(ast.parse(_read(path))) or "").split("\n\n")[0]


def _imported(tree: ast.Module) -> dict[str, str]:
    """Names that a module takes from others of the package."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("keras_distil.")
        for alias in node.names
    }


def _assigned(tree: ast.Module) -> dict[str, ast.expr]:
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _defined(tree: ast.Module, package: str) -> dict[str, str]:
    """Public classes and functions that a module defines."""
    return {
        node.name: f"{package}.{node.name}"
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
    }


def _read(path: Path) -> str:
    return path.read_text("utf-8")


def missing_docstrings() -> list[str]:
    """Says which public classes and functions have no docstring."""
    problems = []
    for part in PARTS:
        for name, home in public_objects(part).items():
            node = _definition(home)
            if node is not None and not ast.get_docstring(node):
                problems.append(f"keras_distil.{part}.{name} has no docstring")
    return problems


def _definition(home: str) -> ast.ClassDef | ast.FunctionDef | None:
    """The class or function of a full name; None for a constant."""
    module, _, name = home.rpartition(".")
    path = ROOT / module.replace(".", "/")
    if path.is_dir():
        path = path / "__init__"
    for node in ast.parse(_read(path.with_suffix(".py"))).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            if node.name == name:
                return node
    return None
