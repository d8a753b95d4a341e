"""Translates the folders of earlier runs to the present keys and names.

Every command that reads a run's folder calls `translate_run` first, so that
nothing else needs to know the earlier names. Only a run's own `recipe.yaml` is
translated: in a user's recipe, earlier keys are errors.
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

# The first version whose folders have the present names.
_PRESENT_VERSION = 3
# A search used to call the training with the recipe's own values "baseline".
_OWN_VALUES = {"baseline": "recipe"}
# JSON files, relative to the run's folder, with rows or keys to rename.
_JSON_FILES = (
    "report.json",
    "held_out.json",
    "search.json",
    "trials/oracle.json",
    "trials/trial_*/trial.json",
    "trials/trial_*/values.json",
)


def translate_run(folder: Path, say: Callable[[str], None]) -> None:
    """Translates a run's folder if an earlier keras_distil made it.

    No other process may be running there. If killed, the next call finishes the
    translation.

    Args:
        folder: a run's folder; any other folder is left alone.
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
    # Whoever reads the recipe reports what is wrong with it.
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
        # The recipe comes last: it marks the rest as done.
        disk.write_text(folder / "recipe.yaml", config.dump_recipe(recipe))
    if version == run_folder.SAME_ORDER_VERSION:
        known = json.loads(run_folder.read_text(environment))
        content = {**known, "format_version": _PRESENT_VERSION}
        run_folder.write_json(environment, content)


def translate_locked(folder: Path, say: Callable[[str], None]) -> None:
    """Translates like `translate_run`, but locks the folder first.

    Raises:
        RuntimeError: if the folder needs translation while another process runs
            in it.
    """
    version = run_folder.format_version(folder / "environment.json")
    if 0 < version < _PRESENT_VERSION:
        with run_folder.locked(folder):
            translate_run(folder, say)


def check_present_name(key: str, source: str) -> None:
    """Points to a student's file if it exists under its other name.

    Args:
        key: the recipe's key.
        source: the file that it names.

    Raises:
        FileNotFoundError: if the file is missing but exists under the other
            name.
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
    """Renames the files and folders that are named after a model."""
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
            # The file is damaged; whoever reads it reports that.
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict) and "name" in content:
                # The recipe's name is the user's choice, and stays.
                present["name"] = content["name"]
            if text == json.dumps(content):
                # Trials are identified by the exact text of their values.
                disk.write_text(path, json.dumps(present))
            else:
                run_folder.write_json(path, present)
    metrics = folder / run_folder.METRICS_FILE
    if metrics.is_file():
        text = metrics.read_text("utf-8", "replace")
        lines = text.splitlines(keepends=True)
        disk.write_text(metrics, "".join(_translate_stages(lines, names)))


def _translate(content: Any, names: dict[str, str]) -> Any:
    """JSON content with keys and texts replaced where they are a name."""
    if isinstance(content, dict):
        return {
            names.get(key, key): _translate(value, names)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [_translate(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


def _translate_stages(lines: list[str], names: dict[str, str]) -> Iterator[str]:
    """Lines of `metrics.jsonl` with the present names of the stages."""
    for line in lines:
        try:
            values = json.loads(line)
            parts = values["stage"].split("/")
        # A line cut off by a kill.
        except (
            *(ValueError, LookupError, TypeError),
            *(AttributeError, RecursionError),
        ):
            yield line
            continue
        stage = "/".join(names.get(part, part) for part in parts)
        yield json.dumps({**values, "stage": stage}) + "\n"
