"""Prose from the docstrings of installed packages, read without importing."""

import ast
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_distil.data.corpus.text_files import CorpusReport

_DOCUMENTED = (
    ast.Module,
    ast.ClassDef,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
)
_MIN_WORDS = 8
_MAX_SYMBOL_SHARE = 0.08  # of digits, brackets, operators and the like

_FENCE = re.compile(r"```|~~~")
_UNDERLINE = re.compile(r"([-=~^*#+_\"'`])\1{2,}$")
_TABLE = re.compile(r"[|+].*[|+]$|={3,} ")
_HEADER = re.compile(r"(#+ .*|[A-Z]\w*( \w+)?:)$")
# reStructuredText directives, comments and citations; then those with prose.
_DIRECTIVE = re.compile(r"\.\.( |$)")
_ADMONITION = re.compile(
    r"\.\. (note|tip|important|warning|caution|seealso|deprecated|"
    r"versionadded|versionchanged)::"
)
_BULLET = re.compile(r"([*\-+•]|\(?\d{1,2}[.)]|\(?[a-z][.)])\s+")
# `name: text` of an argument list, with an optional type in brackets.
_ITEM = re.compile(r"[`'\"*]*[\w.]+[`'\"]*(\s*\([^)]*\))?:\s+(?=\S)")
# `name : type` of NumPy's argument lists: not prose.
_TYPED = re.compile(r"[*`]{0,3}\w[\w., *`{}'\[\]]* : ")
_ROLE = re.compile(r":[\w:]+:`~?([^`]*?)(?:\s+<[^`<]*>)?`")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)|`([^`<]+?)\s*<[^`>]*>`_+")
_CITATION = re.compile(r"\s*\[\d+\]_")
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_SYMBOL = re.compile(r"[^\s.,;:!?'\"’()-]")  # counts unless a letter
_SENTENCE_END = re.compile(r"[.!?:][)'\"”]?$")
_CODE = re.compile(r">>>|\\|https?:")


@dataclasses.dataclass(frozen=True)
class InstalledDocumentation:
    """The prose of the docstrings of installed packages.

    A corpus of a few million words without a download. The files are
    found and parsed, and nothing is imported or run. Code, tables, headings
    and the names and types of arguments are left out.

    Attributes:
        packages: top-level names of packages or modules.
    """

    packages: tuple[str, ...] = (
        "tensorflow",
        "keras",
        "numpy",
        "scipy",
        "keras_hub",
    )

    def describe(self) -> dict[str, Any]:
        """Returns versions, and a hash of the files' names and sizes."""
        described = {}
        for package in self.packages:
            root, files = _find_python_files(package)
            digest = hashlib.sha256()
            for path in files:
                name = path.relative_to(root).as_posix()
                digest.update(f"{name}\t{path.stat().st_size}\n".encode())
            described[package] = [_find_version(package), digest.hexdigest()]
        return {"type": "installed_documentation", "packages": described}

    def units(self) -> list["InstalledDocumentation"]:
        """Returns the packages one by one."""
        return [InstalledDocumentation((name,)) for name in self.packages]

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields paragraphs by package and path.

        Args:
            report: files and skips are added to it.

        Raises:
            ValueError: if a package is not installed, or is not made of
                Python files.
        """
        for package in self.packages:
            for path in _find_python_files(package)[1]:
                report.files += 1
                for docstring in _read_docstrings(path, report):
                    yield from prose(docstring)


def _find_python_files(package: str) -> tuple[Path, list[Path]]:
    """Returns a package's folder and its files in the order of their paths.

    The lookup of a top-level name does not import it.
    """
    spec = None
    if package.isidentifier():
        spec = importlib.util.find_spec(package)
    if spec is None:
        raise ValueError(
            f"Package '{package}' is not installed, or is not a top-level "
            "name. Install it or take it out of `packages`."
        )
    if spec.submodule_search_locations:
        root = Path(list(spec.submodule_search_locations)[0])
        files = sorted(root.rglob("*.py"))
    else:
        path = Path(spec.origin or "")
        root, files = path.parent, [path] if path.suffix == ".py" else []
    if not files:
        raise ValueError(
            f"Package '{package}' has no Python files to read. Take it out of "
            "`packages`."
        )
    return root, files


def _find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read_docstrings(path: Path, report: CorpusReport) -> Iterator[str]:
    """Yields a file's docstrings from top to bottom of its syntax tree."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in old code
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        report.skipped["file not parsable as Python"] += 1
        return
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED):
            docstring = ast.get_docstring(node)
        else:
            docstring = _find_added_docstring(node)
        if docstring:
            yield docstring


def _find_added_docstring(node: ast.AST) -> str | None:
    """Returns the text of `add_newdoc(..., text)`, NumPy's form for C code."""
    if not isinstance(node, ast.Call) or not node.args:
        return None
    name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
    last = node.args[-1]
    if name != "add_newdoc" or not isinstance(last, ast.Constant):
        return None
    return inspect.cleandoc(str(last.value))


def prose(docstring: str) -> Iterator[str]:
    r"""Yields the paragraphs of plain sentences in a docstring.

    Wrapped lines are joined and markup is removed. Whatever looks like code,
    a formula, a table, a heading or a fragment is dropped.

    Args:
        docstring: text with its indentation removed.

    Example:
        >>> text = "Sums.\n\nThe sum of all the numbers that\nare given."
        >>> list(prose(text))
        ['The sum of all the numbers that are given.']
    """
    for lines in _split_blocks(docstring):
        text = _remove_markup(" ".join(lines))
        if _is_prose(text):
            yield text


def _split_blocks(docstring: str) -> Iterator[list[str]]:
    """Groups lines into paragraphs, list items and descriptions."""
    block: list[str] = []
    indent = 0  # of the block's last line
    for depth, text in _read_text_lines(docstring.expandtabs(8).splitlines()):
        bullet = _BULLET.match(text)
        item = depth <= indent and _ITEM.match(text)
        ended = depth < indent and block and _SENTENCE_END.search(block[-1])
        if not text or bullet or item or ended:
            yield block
            block = []
        if text:
            prefix = bullet or (not block and _ITEM.match(text))
            block.append(text[prefix.end() :] if prefix else text)
        indent = depth
    yield block


def _read_text_lines(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yields (indentation, text); "" for lines that are not prose."""
    literal: int | None = None  # indentation whose deeper lines are literal
    fenced = doctest = False
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        text = line.strip()
        depth = len(line) - len(line.lstrip())
        if not text:
            doctest = False
        elif literal is not None and depth <= literal:
            literal = None
        doctest |= text.startswith(">>>")
        fences = len(_FENCE.findall(text)) if _FENCE.match(text) else 0
        # A fence that closes on the same line opens nothing.
        fenced ^= fences == 1
        if fenced or fences or doctest or literal is not None:
            yield depth, ""
        elif _DIRECTIVE.match(text):
            literal = None if _ADMONITION.match(text) else depth
            yield depth, ""
        elif _UNDERLINE.match(below.strip()) or any(
            rule.match(text) for rule in (_UNDERLINE, _HEADER, _TABLE, _TYPED)
        ):
            yield depth, ""
        else:
            literal = depth if text.endswith("::") else None
            yield depth, text


def _remove_markup(text: str) -> str:
    """Removes the markup of reStructuredText and Markdown."""
    text = _ROLE.sub(r"\1", text)
    text = _LINK.sub(lambda match: match[1] or match[2], text)
    text = _CITATION.sub("", text)
    text = text.replace("`~", "").replace("`", "").replace("**", "")
    if text.endswith("::"):
        text = text[:-1]
    return " ".join(text.split())


def _is_prose(text: str) -> bool:
    """Distinguishes sentences from code, formulas, tables and fragments."""
    if len(_WORD.findall(text)) < _MIN_WORDS or _CODE.search(text):
        return False
    if not _SENTENCE_END.search(text):
        return False
    symbols = sum(not c.isalpha() for c in _SYMBOL.findall(text))
    return symbols <= _MAX_SYMBOL_SHARE * len(text)
