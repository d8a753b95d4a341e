"""A fault: where it is put into the code, and which tests must notice it."""

import ast
import contextlib
import dataclasses
import functools
import io
import tokenize
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Fault:
    """A small change that makes the code wrong.

    Attributes:
        name: short description of the fault.
        symbol: qualified name of the function, class or constant that contains
            it, such as "Distiller.compile", wherever that is defined.
        old: Python code to replace; it must occur there exactly once. Spaces
            and line breaks do not matter.
        new: the replacement.
        tests: test files, or `file::test`, at least one of which must fail.
    """

    name: str
    symbol: str
    old: str
    new: str
    tests: tuple[str, ...]


class FaultError(ValueError):
    """A fault no longer matches the code."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A module with a fault.

    Attributes:
        module: the module's dotted name.
        path: the module's file, which is not changed.
        source: the code that is imported in its place.
    """

    module: str
    path: Path
    source: str


class Package:
    """The source of a package, in which faults are located.

    Args:
        root: the package's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # Definitions by qualified name: file, first line and last line.
        self._places: dict[str, list[tuple[Path, int, int]]] = {}
        self._sources: dict[Path, str] = {}
        for path in sorted(root.rglob("*.py")):
            self._sources[path] = path.read_text("utf-8")
            self._collect(ast.parse(self._sources[path]), path, "")

    def _collect(self, node: ast.AST, path: Path, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                first = min(
                    [child.lineno, *(x.lineno for x in child.decorator_list)]
                )
                place = path, first, child.end_lineno or first
                self._places.setdefault(name, []).append(place)
                name += "."
            elif isinstance(child, ast.Assign | ast.AnnAssign):
                self._collect_constants(child, path, prefix)
            self._collect(child, path, name)

    def _collect_constants(
        self, node: ast.Assign | ast.AnnAssign, path: Path, prefix: str
    ) -> None:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target]
        )
        for target in targets:
            if isinstance(target, ast.Name):
                place = path, node.lineno, node.end_lineno or node.lineno
                self._places.setdefault(f"{prefix}{target.id}", []).append(
                    place
                )

    def apply(self, fault: Fault) -> Mutant:
        """Returns the module with the fault.

        Raises:
            FaultError: if the symbol is missing, or the code to replace does
                not occur exactly once.
        """
        if fault.symbol not in self._places:
            raise FaultError(
                f"{fault.name}: nothing is called {fault.symbol!r}. Give its "
                "new name."
            )
        found = [
            (path, span)
            for path, first, last in self._places[fault.symbol]
            for span in _spans(self._sources[path], fault.old, first, last)
        ]
        if len(found) != 1:
            raise FaultError(
                f"{fault.name}: in {fault.symbol} there must be one "
                f"{fault.old!r}. Found: {len(found)}. Give what stands there "
                "now."
            )
        path, (start, stop) = found[0]
        text = self._sources[path]
        source = f"{text[:start]}{fault.new}{text[stop:]}"
        try:
            compile(source, str(path), "exec")
        except SyntaxError as error:
            raise FaultError(f"{fault.name}: {error}.") from error
        parts = path.relative_to(self.root.parent).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        return Mutant(".".join(parts), path, source)


# Tokens that differ between two layouts of the same code.
_LAYOUT = (
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
)


@functools.cache
def _tokens(text: str) -> list[tokenize.TokenInfo]:
    made = tokenize.generate_tokens(io.StringIO(text).readline)
    found = []
    # A fragment may end inside brackets.
    with contextlib.suppress(tokenize.TokenError):
        for token in made:
            if token.type not in _LAYOUT:
                found.append(token)
    return found


def _spans(
    text: str, fragment: str, first: int, last: int
) -> list[tuple[int, int]]:
    """Character spans of a fragment's occurrences between two lines."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tokens = [x for x in _tokens(text) if first <= x.start[0] <= last]
    words = [x.string for x in _tokens(fragment)]
    found = []
    for at in range(len(tokens) - len(words) + 1):
        matched = tokens[at : at + len(words)]
        if [x.string for x in matched] == words:
            (line, column), (end, stop) = matched[0].start, matched[-1].end
            found.append((starts[line - 1] + column, starts[end - 1] + stop))
    return found
