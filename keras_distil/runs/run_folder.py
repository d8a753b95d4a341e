"""A run's folder: its contents before, during and after the run."""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_distil import config
from keras_distil.runs.environment import FORMAT_VERSION, describe_environment
from keras_distil.utils import disk
from keras_distil.utils.private_text import shown_command
from keras_distil.utils.progress import Progress

# The first version whose runs continue in the data order they began with.
SAME_ORDER_VERSION = 2
# Folder for TensorBoard's logs, inside a run's folder.
LOGS = "logs"
CHECKPOINTS = "checkpoints"
STUDENT_FILE = "student.keras"
BASELINE_FILE = "baseline.keras"
METRICS_FILE = "metrics.jsonl"
# Written last, when a run is finished.
REPORT_FILE = "report.json"
# Folder of KerasTuner's trials, in the folder of a search.
TRIALS = "trials"
PAGE_FILE = "report.html"
# Measurements of a run's first step, kept for the second.
TEXT_REPORT = "held_out.json"
# What the run settled on at its start.
SETTLED_FILE = "settled.json"
_COMMANDS_FILE = "commands.json"
# Keys and sections that measure, export or check, but train nothing.
MEASURING_KEYS = (
    "name",
    "evaluate",
    "export",
    "benchmark",
    "data.max_skipped_fraction",
)


@dataclasses.dataclass
class Run:
    """A recipe, the folder for its results and where it reports to.

    Attributes:
        recipe: the resolved recipe.
        folder: where the results go.
        progress: where to report to.
        writes: whether this process writes the results. With several workers,
            only the chief does.
    """

    recipe: config.Recipe
    folder: Path
    progress: Progress
    writes: bool = True

    @property
    def report_path(self) -> Path:
        """The file that a run writes last, when it is finished."""
        return self.folder / REPORT_FILE

    @property
    def trained_recipe(self) -> str:
        """The recipe as YAML, without the keys that may change later."""
        return config.dump_recipe(self.recipe, without=MEASURING_KEYS)

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        """Replaces a JSON file in one step, if this process writes."""
        if self.writes:
            write_json(path, content)


@contextlib.contextmanager
def locked(folder: Path, *, writes: bool = True) -> Iterator[None]:
    """Keeps other commands from running in a run's folder.

    The lock is a hidden file beside the folder.

    Args:
        folder: the run's folder; it need not exist yet.
        writes: whether this process writes to it; others need no lock.

    Raises:
        RuntimeError: if another process is running there.
        OSError: if the lock cannot be written.
    """
    if not writes:
        yield
        return
    folder = disk.named(folder)
    with disk.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    refusal = (
        f"Another process runs in {folder}. Wait for it, or give another "
        "folder with --output."
    )
    with disk.locked(lock, "runs there", refusal=refusal):
        yield


def find_run_of_model(
    path: Path, task: str | None
) -> tuple[str | None, str | None]:
    """Finds the run and the task of a model's file in a run's folder.

    Args:
        path: the file, `RUN/tasks/TASK/ROW/SEED/model.keras`.
        task: a task that is named already.

    Returns:
        The run's folder and the task; None and `task` for other files.
    """
    parents = path.absolute().parents
    if len(parents) > 4 and parents[3].name == "tasks":
        if (parents[4] / "recipe.yaml").is_file():
            return str(parents[4]), task or parents[2].name
    return None, task


def open_run(
    recipe: config.Recipe,
    folder: str | os.PathLike,
    progress: Progress,
    *,
    fresh: bool = False,
    writes: bool = True,
    command: Sequence[str] = (),
    changeable: Sequence[str] = MEASURING_KEYS,
) -> Run:
    """Makes the run's folder, or finds a run to continue.

    With `fresh`, an earlier run in the folder is moved aside, never deleted; a
    folder that is not a run's is left alone.

    Args:
        recipe: the resolved recipe.
        folder: the run's folder.
        progress: where to report to.
        fresh: whether to start from scratch.
        writes: whether this process writes the results.
        command: the words after `keras-distil` that started this, for the
            report; none if no command did.
        changeable: keys, or sections, that may differ from those of the run
            that is continued. Nothing that is trained depends on them.

    Returns:
        The run.

    Raises:
        ValueError: if the folder holds a run of another recipe (the message
            names the keys that differ), a run of a later keras_distil, or files
            that are not a run's.
        OSError: if the folder cannot be written.
    """
    run = Run(recipe, disk.named(Path(folder)), progress, writes)
    if not writes:
        return run
    earlier = run.folder.is_dir() and not _is_hardly_begun(run.folder)
    if earlier:
        _check_is_a_run(run.folder)
    if earlier and fresh:
        aside = _free_name(run.folder)
        run.folder.rename(aside)
        progress.say(f"Moved the earlier run to {aside}")
    elif earlier:
        changed = _check_same_run(run, changeable)
        if changed:
            _measure_again(run, changed)
        if run.report_path.is_file():
            check_report(run.report_path)
        else:
            progress.say(f"Going on with the run in {run.folder}")
            _keep_command(run.folder, command)
        return run
    with disk.writing(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / "environment.json", describe_environment(recipe))
    # Written last: a folder with this file is a run.
    disk.write_text(run.folder / "recipe.yaml", config.dump_recipe(recipe))
    _keep_command(run.folder, command)
    return run


def keep_commits(run: Run, commits: Mapping[str, str]) -> None:
    """Records the commits of a run's downloads.

    Args:
        run: the run.
        commits: by source, such as "hf://organisation/name".

    Raises:
        ValueError: if the run began with another commit of a source.
    """
    if not run.writes or not commits:
        return
    path = run.folder / "environment.json"
    known = _environment_of(run.folder)
    before = known.get("sources", {})
    for source, commit in commits.items():
        began = before.get(source, commit)
        if began != commit:
            raise ValueError(
                f"{source} is now at commit {commit}; the run in {run.folder} "
                f"began with {began}. Go on with that one, by naming it as "
                f"{source}@{began} in the recipe, or give another folder "
                "with --output."
            )
    write_json(path, {**known, "sources": {**before, **commits}})


def _environment_of(folder: Path) -> dict[str, Any]:
    """Content of `environment.json`; empty if it is damaged."""
    try:
        found = json.loads(read_text(folder / "environment.json"))
        whole = isinstance(found, dict)
        whole = whole and isinstance(found.get("sources", {}), dict)
    except (ValueError, RecursionError):
        return {}
    return found if whole else {}


def _pinned(folder: Path, before: Any, now: Any) -> bool:
    """Whether the source is the same and only its commit has been added."""
    commit = _environment_of(folder).get("sources", {}).get(before)
    return commit is not None and now == f"{before}@{commit}"


def forget_if_nothing_was_done(run: Run) -> None:
    """Undoes `open_run` if the folder holds only its own files.

    This way a rejected recipe can be corrected and run in the same folder.
    """
    own = {"environment.json", "recipe.yaml", _COMMANDS_FILE, SETTLED_FILE}
    if not run.writes or not run.folder.is_dir():
        return
    if {path.name for path in run.folder.iterdir()} <= own:
        for name in own - {"environment.json"}:
            (run.folder / name).unlink(missing_ok=True)


def read_commands(folder: Path) -> list[list[str]]:
    """Returns the last command of each stage that made a run.

    Args:
        folder: the run's folder.

    Returns:
        The words after `keras-distil` of each command; none if they are not
        known.
    """
    try:
        found = json.loads(read_text(folder / _COMMANDS_FILE))["commands"]
        whole = all(
            isinstance(command, list)
            and len(command) > 0
            and all(isinstance(word, str) for word in command)
            for command in found
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
    return list(found) if whole else []


def _keep_command(folder: Path, command: Sequence[str]) -> None:
    """Records the command that started or continued the run."""
    if not command:
        return
    # A run can be made in parts: `distill`, then `finetune`.
    kept = [x for x in read_commands(folder) if x[0] != command[0]]
    commands = [*kept, shown_command(command)]
    write_json(folder / _COMMANDS_FILE, {"commands": commands})


def _is_hardly_begun(folder: Path) -> bool:
    """Whether a folder holds at most what is written before `recipe.yaml`.

    A full disk, or a kill in the first moment, leaves it that way.
    """
    names = {path.name for path in folder.iterdir()}
    names -= {".environment.json.partial", ".recipe.yaml.partial"}
    if names == {"environment.json"}:
        return format_version(folder / "environment.json") > 0
    return not names


def _check_is_a_run(folder: Path) -> None:
    """Raises ValueError if a folder's files are not those of a run."""
    for name in ("recipe.yaml", "environment.json"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder} holds files, but no run: {name} is missing. Give "
                "another folder with --output."
            )


def _check_same_run(run: Run, changeable: Sequence[str]) -> dict[str, str]:
    """The changeable keys that differ, and how; refuses all others.

    Raises:
        ValueError: if another key differs, or the run cannot be continued.
    """
    remedy = (
        "Give another folder with --output, or start anew with --fresh, which "
        "moves the earlier run aside."
    )
    recipe_path = run.folder / "recipe.yaml"
    version = format_version(run.folder / "environment.json")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"The run in {run.folder} has format version {version}; this "
            f"keras_distil reads up to {FORMAT_VERSION}. Update keras_distil."
        )
    begun_before = 0 < version < SAME_ORDER_VERSION
    if begun_before and not run.report_path.is_file():
        raise ValueError(
            f"The unfinished run in {run.folder} was begun by an earlier "
            f"keras_distil (format version {version}, now {FORMAT_VERSION}), "
            "which takes the data in another order: it cannot go on exactly. "
            "Finish it with the version that began it, which "
            f"environment.json names. {remedy}"
        )
    if begun_before:
        # The report of such a run could not be made again.
        changeable = ()
    try:
        earlier = config.load_recipe(recipe_path)
    except config.RecipeError as error:
        raise ValueError(
            f"{recipe_path} cannot be read ({error}). {remedy}"
        ) from error
    before, now = _flat(earlier.model_dump()), _flat(run.recipe.model_dump())
    differing = {
        key: f"{key} ({before.get(key)!r:.200}, now {now.get(key)!r:.200})"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
        and not _pinned(run.folder, before.get(key), now.get(key))
    }
    fixed = [
        told
        for key, told in differing.items()
        if not _is_within(key, changeable)
    ]
    if fixed:
        state = "a finished" if run.report_path.is_file() else "an unfinished"
        raise ValueError(
            f"{run.folder} holds {state} run of another recipe: "
            f"{', '.join(fixed)}. {remedy}"
        )
    return differing


def _is_within(key: str, sections: Sequence[str]) -> bool:
    return any(key == x or key.startswith(f"{x}.") for x in sections)


def _measure_again(run: Run, changed: Mapping[str, str]) -> None:
    """Takes the new recipe, and drops measurements made with the old one.

    Raises:
        ValueError: if a training state that this needs is gone.
    """
    told = ", ".join(changed.values())
    stale = [run.report_path]
    if any(_is_within(key, ["evaluate"]) for key in changed):
        stale.append(run.folder / TEXT_REPORT)
        states = run.folder / CHECKPOINTS
        if (run.folder / STUDENT_FILE).is_file() and not states.is_dir():
            raise ValueError(
                f"{run.folder} cannot be measured again by {told}: its "
                f"training states in {states} are gone. Give another folder "
                "with --output."
            )
    run.progress.say(f"Measured anew, not trained anew: {told}")
    # The recipe comes last: after a kill, the same command comes here again.
    for path in stale:
        path.unlink(missing_ok=True)
    disk.write_text(run.folder / "recipe.yaml", config.dump_recipe(run.recipe))


def check_report(path: Path) -> None:
    """Raises ValueError if a finished run's report cannot be shown."""
    try:
        report = json.loads(read_text(path))
        whole = isinstance(report["name"], str)
        whole = whole and ("rows" in report or "tasks" in report)
        values = [report["duration_s"], report.get("kept_percent", 0.0)]
        values.append(report.get("updates", 0))
        rows = report.get("rows", {"teacher": {}})
        values += [rows[name][key] for name in rows for key in rows["teacher"]]
        whole = whole and all(
            type(x) in (int, float) and math.isfinite(x) for x in values
        )
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ):
        whole = False
    if not whole:
        raise ValueError(
            f"{path} is damaged. Remove it, and the same command makes it "
            "again from the run's last training state."
        )


def format_version(path: Path) -> int:
    """The format version of a run; 0 if it is not known."""
    try:
        version = json.loads(read_text(path))["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return version if isinstance(version, int) else 0


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    """Flattens nested dicts and lists into one dict, by dotted path."""
    if isinstance(values, dict):
        items = [(str(key), value) for key, value in values.items()]
    elif isinstance(values, list):
        items = [(str(index), value) for index, value in enumerate(values)]
    else:
        return {path: values}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= _flat(value, f"{path}.{key}" if path else key)
    return flat


def _free_name(folder: Path) -> Path:
    number = 1
    while True:
        aside = folder.with_name(f"{folder.name}.old{number}")
        if not aside.exists():
            return aside
        number += 1


def read_text(path: Path) -> str:
    """Reads a file's text; empty if the file does not exist.

    Raises:
        ValueError: if it is too large, or not UTF-8.
    """
    if not path.is_file():
        return ""
    return disk.read_bounded(path, disk.DATA_JSON_BYTES)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces a JSON file in one step."""
    disk.write_text(path, json.dumps(content, indent=2) + "\n")
