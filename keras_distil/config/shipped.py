"""The recipes that come with the package, by name."""

import difflib
import itertools
import re
from os import PathLike
from pathlib import Path

# In a checkout a link to the folder `recipes/`, in a wheel a folder of copies.
FOLDER = Path(__file__).parents[1] / "recipes"

_MOST_NAMES = 3


def list_names() -> list[str]:
    """Returns the names of all shipped recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_shipped(name: str) -> Path:
    """Returns the file of a shipped recipe.

    Raises:
        ValueError: naming the nearest ones, if there is none of this name.
    """
    if name in list_names():
        return FOLDER / f"{name}.yaml"
    raise ValueError(
        f"`NAME` must be the name of a shipped recipe{_nearest(name)}. "
        f"Received: {name!r}. `keras-distil recipes` lists them."
    )


def find_recipe(given: str, *, or_run: bool = False) -> Path:
    """Returns the file of a recipe that is given by its path or its name.

    Args:
        given: a path, or the name of a shipped recipe. Whatever has this path
            comes first, a folder too.
        or_run: whether the folder of a run may be given; for the message.

    Raises:
        FileNotFoundError: naming the nearest shipped recipes, if there is none.
    """
    path = Path(given).expanduser()
    if path.exists():
        return path
    if given in list_names():
        return FOLDER / f"{given}.yaml"
    accepted = "a YAML file, the folder of a run" if or_run else "a YAML file"
    raise FileNotFoundError(
        f"`RECIPE` must be {accepted} or the name of a shipped "
        f"recipe{_nearest(given)}. Received: {given!r}, which does not "
        "exist. `keras-distil recipes` lists the names."
    )


def shorten_path(path: str | PathLike[str]) -> str:
    """Returns a recipe's path as messages show it: a shipped one's name."""
    path = Path(path)
    return path.stem if path.parent == FOLDER else str(path)


def read_summary(name: str) -> str:
    """Returns the first sentence of a shipped recipe's header."""
    text = " ".join(_read_header(name).split())
    return re.split(r"(?<=\.) ", text, maxsplit=1)[0]


def read_command(name: str) -> str:
    """Returns the first command in a shipped recipe's header, in one line."""
    command = re.findall(
        r"^Command: ((?:.*\\\n)*.*)$", _read_header(name), re.MULTILINE
    )[0]
    return " ".join(command.replace("\\\n", " ").split())


def _read_header(name: str) -> str:
    """Returns the comment at the top of a shipped recipe."""
    text = find_shipped(name).read_text("utf-8")
    lines = itertools.takewhile(lambda x: x.startswith("#"), text.splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in lines)


def _nearest(given: str) -> str:
    """Returns the end of a message: the names that are like `given`, if any."""
    names = list_names()
    word = Path(given).stem
    near = [name for name in names if word and word in name]
    near = near or difflib.get_close_matches(word, names)
    if not near:
        return ""
    return f"; the nearest: {', '.join(near[:_MOST_NAMES])}"
