"""Folders of earlier runs, given the keys and names of today.

Every command that reads a run's folder calls `translate_run` first, so that
nothing else knows of the earlier names. Only a run's own `recipe.yaml` is
translated: in a recipe of the user's, earlier keys are errors.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_distil import config
from keras_distil.config import earlier_form
from keras_distil.config.earlier_form import BASELINE, EARLIER_ROWS, MOVED
from keras_distil.runs import run_folder
from keras_distil.utils import disk

# The first whose folders have the names of today.
_PRESENT_VERSION = 3
# What a search called the training with the recipe's own values.
_OWN_VALUES = {"baseline": "recipe"}
# By the folder that they lie in, files of plain values with rows or keys.
_JSON_FILES = (
    "report.json",
    "held_out.json",
    "search.json",
    "trials/oracle.json",
    "trials/trial_*/trial.json",
    "trials/trial_*/values.json",
)


def translate_run(folder: Path, say: Callable[[str], None]) -> None:
    """Translates a run's folder, if an earlier keras_distil made it.

    Nobody else may run there. After a kill it is translated again.

    Args:
        folder: of a run, or any other, which is left alone.
        say: called with one line if the folder changes.

    Raises:
        OSError: if the folder cannot be written.
    """
    environment = folder / "environment.json"
    version = run_folder.format_version(environment)
    if not 0 < version < _PRESENT_VERSION:
        return
    try:
        text = run_folder.read_text(folder / "recipe.yaml")
        values = config.read_yaml(text, where=str(folder / "recipe.yaml"))
        translated = earlier_form.translate(values)
        recipe = config.make_recipe(translated)
    # Its reader says what is wrong with it.
    except (ValueError, AttributeError, TypeError):
        return
    if translated != values:
        say(
            f"{folder} is of an earlier keras_distil: its keys and names are "
            "now those of this one"
        )
        names = EARLIER_ROWS
        if values.get("search") is not None:
            names = {**_OWN_VALUES, **names}
        _rename(folder, names)
        _translate_files(folder, names)
        # The recipe last: it tells that the rest is done.
        disk.write_text(folder / "recipe.yaml", config.dump_recipe(recipe))
    if version == run_folder.SAME_ORDER_VERSION:
        known = json.loads(run_folder.read_text(environment))
        content = {**known, "format_version": _PRESENT_VERSION}
        run_folder.write_json(environment, content)


def translate_locked(folder: Path, say: Callable[[str], None]) -> None:
    """As `translate_run`, for a folder that another process may run in.

    Raises:
        RuntimeError: if one does, and the folder is to be translated.
    """
    version = run_folder.format_version(folder / "environment.json")
    if 0 < version < _PRESENT_VERSION:
        with run_folder.locked(folder):
            translate_run(folder, say)


def check_present_name(key: str, source: str) -> None:
    """Says what a student's file is called, if it is there by another name.

    Args:
        key: of the recipe.
        source: what it names.

    Raises:
        FileNotFoundError: if there is no such file, but one of the other name.
    """
    path = Path(source)
    earlier, present = (path.with_stem(x) for x in ("twin", BASELINE))
    if path.is_file() or path.suffix != ".keras":
        return
    if path == earlier and present.is_file():
        raise FileNotFoundError(
            f"`{key}` is {source}, which is now {present.name}: write that."
        )
    if path == present and earlier.is_file():
        raise FileNotFoundError(
            f"`{key}` is {source}, but the run is of an earlier keras_distil, "
            f"where it is {earlier.name}. `keras-distil report {path.parent}` "
            "gives its files the present names."
        )


def _rename(folder: Path, names: dict[str, str]) -> None:
    """Renames what is named after a model."""
    places = (
        *("{}", "checkpoints/{}", "logs/{}"),
        *("tasks/*/{}", "logs/*/{}", "{}.keras"),
    )
    with disk.writing(folder):
        for earlier, present in names.items():
            for place in places:
                for path in folder.glob(place.format(earlier)):
                    path.rename(path.with_stem(present))


def _translate_files(folder: Path, names: dict[str, str]) -> None:
    for pattern in _JSON_FILES:
        for path in folder.glob(pattern):
            try:
                text = run_folder.read_text(path)
                content = json.loads(text)
                present = _translate(content, {**names, **MOVED})
            # It is damaged, as its reader says.
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict) and "name" in content:
                # The recipe's own name is free.
                present["name"] = content["name"]
            if text == json.dumps(content):
                # Trials are told apart by their values, letter by letter.
                disk.write_text(path, json.dumps(present))
            else:
                run_folder.write_json(path, present)
    metrics = folder / run_folder.METRICS_FILE
    if metrics.is_file():
        text = metrics.read_text("utf-8", "replace")
        lines = text.splitlines(keepends=True)
        disk.write_text(metrics, "".join(_translate_stages(lines, names)))


def _translate(content: Any, names: dict[str, str]) -> Any:
    """JSON with keys and texts that are a name replaced."""
    if isinstance(content, dict):
        return {
            names.get(key, key): _translate(value, names)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [_translate(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


def _translate_stages(lines: list[str], names: dict[str, str]) -> Iterator[str]:
    """Lines of `metrics.jsonl` with the stages of today."""
    for line in lines:
        try:
            values = json.loads(line)
            parts = values["stage"].split("/")
        # A line that a kill has cut.
        except (
            *(ValueError, LookupError, TypeError),
            *(AttributeError, RecursionError),
        ):
            yield line
            continue
        stage = "/".join(names.get(part, part) for part in parts)
        yield json.dumps({**values, "stage": stage}) + "\n"
