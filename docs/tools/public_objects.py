"""Pages of all public objects, for mkdocstrings to fill from docstrings.

The objects are those that the package's parts offer by `__all__`, by a table
of lazily loaded names, or by `import X as X`; of a single module, everything
that it defines without an underscore. Nothing imports TensorFlow.
"""

import ast
import functools
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
_parse = functools.cache(ast.parse)


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
        return _defined(_parse(_read(folder.with_suffix(".py"))), package)
    tree = _parse(_read(folder / "__init__.py"))
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
    """The definition of what a module may only have imported."""
    module, _, name = home.rpartition(".")
    elsewhere = _imported(_parse(_read(_source(module)))).get(name)
    return home if elsewhere is None else _followed(elsewhere)


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
        lines += [
            f"- [`{x}`](#{name}.{x}){_first_sentence(home)}"
            for x, home in objects.items()
        ]
        lines.append("")
        lines += [_entry(name, x, home) for x, home in objects.items()]
        made[f"{FOLDER}/{part}.md"] = "\n".join(lines)
    return made


@functools.cache
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
    head = (
        f"{'#' * level} {name} {{#{package}.{name}}}\n\n"
        f"`from {package} import {name}`\n\n"
    )
    return f"{head}{_constant(home) or f'::: {home}'}\n"


def _first_sentence(home: str) -> str:
    """What an object is, behind a colon; "" for a constant."""
    node = _definition(home)
    text = None if node is None else ast.get_docstring(node)
    return f": {text.split(chr(10))[0]}" if text else ""


def _constant(home: str) -> str:
    """The comment before a constant, and its code; "" for other objects."""
    module, _, name = home.rpartition(".")
    text = _read(_source(module))
    for node in _parse(text).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(getattr(x, "id", None) == name for x in targets):
            above = text.splitlines()[: node.lineno - 1]
            comment: list[str] = []
            while above and above[-1].startswith("# "):
                comment.insert(0, above.pop().removeprefix("# "))
            code = ast.get_source_segment(text, node)
            return "\n".join([*comment, "", "```python", f"{code}", "```"])
    return ""


def _summary(part: str) -> str:
    """The first paragraph of a part's docstring."""
    path = PACKAGE / part / "__init__.py"
    if not path.exists():
        path = PACKAGE / f"{part}.py"
    return (ast.get_docstring(_parse(_read(path))) or "").split("\n\n")[0]


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


def missing_docstrings() -> list[str]:
    """Says which public objects have no docstring, or cannot be found.

    A constant has none; its page shows the code.
    """
    problems = []
    for part in PARTS:
        for name, home in public_objects(part).items():
            node = _definition(home)
            if node is None and not _constant(home):
                problems.append(f"keras_distil.{part}.{name} is not at {home}")
            if node is not None and not ast.get_docstring(node):
                problems.append(f"keras_distil.{part}.{name} has no docstring")
    return problems


def _definition(home: str) -> ast.ClassDef | ast.FunctionDef | None:
    """The class or function of a full name; None for a constant."""
    module, _, name = home.rpartition(".")
    for node in _parse(_read(_source(module))).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            if node.name == name:
                return node
    return None


def _source(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _read(path: Path) -> str:
    return path.read_text("utf-8")
