"""A comparison of results before and after a change of the code.

Makes the same things with an earlier commit, twice, and with this checkout:
20 updates of the quickstart recipe on few documents, RTE trained for one epoch
of 39 updates, and LiteRT and Hugging Face exports of the student. Wherever the
two results of the earlier commit agree, this checkout must agree, too: files
byte by byte, or else their tensors.

python benchmarks/compare_commits.py --base COMMIT --glue FOLDER
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
QUICKSTART = (
    "data.sources.0.packages=[keras_hub]",
    "distill.steps=20",
    "distill.warmup_steps=2",
    "evaluate.sequences=64",
)
RTE = (
    "finetune.source=files",
    "finetune.tasks=[rte]",
    "finetune.seeds=[0]",
    "finetune.epochs=1",
    "finetune.batch_size=64",
    "finetune.max_length=64",
)
# Earlier commits' parts of file names.
EARLIER_NAMES = {"twin": "baseline", "undistilled": "baseline"}
# Files named after a clock, locks, and this script's own mark.
UNCOMPARED = ("events.out.tfevents", ".", "made")
# Clocks, folders and versions differ each time.
NO_RESULTS = (
    *("duration", "_ms", "_s", "time", "seconds", "date", "path", "commit"),
    *("command", "memory", "per_second", "folder", "python", "host"),
)


def make(checkout: Path, folder: Path, glue: Path | None) -> None:
    """Makes everything with the code of `checkout`."""
    recipes = checkout / "recipes"
    student = folder / "quickstart" / "student.keras"
    _command(
        checkout,
        *["run", recipes / "quickstart.yaml", "--quiet"],
        *[x for change in QUICKSTART for x in ("--set", change)],
        *["--output", folder / "quickstart"],
    )
    _command(
        checkout,
        *["export", folder / "quickstart", "--quiet"],
        *["--format", "litert_float32", "--format", "litert_dynamic_int8"],
        *["--format", "hugging_face", "--output", folder / "exports"],
    )
    if glue is None:
        return
    rows = "baseline" if _has_baseline(checkout) else "undistilled"
    source = "baseline_source" if rows == "baseline" else "undistilled_source"
    twin = "baseline" if rows == "baseline" else "twin"
    _command(
        checkout,
        *["run", recipes / "glue.yaml", "--quiet"],
        *[x for change in RTE for x in ("--set", change)],
        *["--set", f"data.root={glue}", "--set", f"student.source={student}"],
        *["--set", f"student.{source}={student.with_name(twin + '.keras')}"],
        *["--output", folder / "rte"],
    )


def _has_baseline(checkout: Path) -> bool:
    text = (checkout / "recipes" / "glue.yaml").read_text("utf-8")
    return "baseline_source" in text


def _command(checkout: Path, *words: Any) -> None:
    subprocess.run(
        [sys.executable, "-m", "keras_distil", *map(str, words)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
        stdout=subprocess.DEVNULL,
    )


def files(folder: Path) -> dict[str, Path]:
    """Returns every file by its current name."""
    by_name = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        for old, new in EARLIER_NAMES.items():
            name = name.replace(old, new)
        if path.is_file() and not path.name.startswith(UNCOMPARED):
            by_name[name] = path
    return by_name


def tensors(path: Path) -> dict[str, np.ndarray] | None:
    """Returns the tensors of a file; None if none can be read."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        return dict(np.load(path))
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            content = archive.read("model.weights.h5")
        return dict(_hdf5(h5py.File(io.BytesIO(content))))
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        reader = Interpreter(str(path))
        return {
            f"{each['index']} {each['name']}": reader.get_tensor(each["index"])
            for each in reader.get_tensor_details()
            if each["shape"].size and _is_stored(reader, each["index"])
        }
    return None


def _is_stored(reader: Any, index: int) -> bool:
    try:
        reader.get_tensor(index)
    except ValueError:
        return False
    return True


def _hdf5(file: h5py.File) -> Iterator[tuple[str, np.ndarray]]:
    names: list[str] = []
    file.visit(names.append)
    for name in names:
        if isinstance(file[name], h5py.Dataset):
            yield name, file[name][()]


def results(path: Path) -> list[tuple[str, Any]] | None:
    """Returns the results in a JSON file; None if it is not JSON."""
    if path.suffix not in (".json", ".jsonl"):
        return None
    lines = path.read_text("utf-8").splitlines()
    text = lines if path.suffix == ".jsonl" else ["\n".join(lines)]
    return [leaf for part in text for leaf in _leaves(json.loads(part), "")]


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            if not any(word in key.lower() for word in NO_RESULTS):
                for old, new in EARLIER_NAMES.items():
                    key = key.replace(old, new)
                yield from _leaves(part, f"{place}/{key}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _leaves(part, f"{place}/{index}")
    else:
        if isinstance(value, str):
            for old, new in EARLIER_NAMES.items():
                value = value.replace(old, new)
        yield place, value


def difference(one: Path, other: Path) -> str:
    """Describes the difference between two files; "" if they are equal."""
    if _sha256(one) == _sha256(other):
        return ""
    mine, theirs = tensors(one), tensors(other)
    if mine is not None and theirs is not None:
        # Keras numbers layers by what a process has created before.
        pairs = list(zip(mine.values(), theirs.values(), strict=False))
        if [x.shape for x in mine.values()] != [
            x.shape for x in theirs.values()
        ]:
            return "other tensors"
        worst = max(
            float(np.max(np.abs(a.astype("float64") - b.astype("float64"))))
            for a, b in pairs
            if a.size
        )
        return f"tensors differ by {worst:.3g}" if worst else ""
    first, second = results(one), results(other)
    if first is not None and second is not None:
        apart = sorted(
            {str(key) for key, _ in set(first) ^ set(second)}, key=str
        )
        return f"values: {', '.join(apart[:6])}" if apart else ""
    return "bytes"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compare(one: Path, other: Path) -> dict[str, str]:
    """Returns the differences between two folders, by file."""
    mine, theirs = files(one), files(other)
    found = {
        name: "is missing on one side" for name in mine.keys() ^ theirs.keys()
    }
    for name in mine.keys() & theirs.keys():
        found[name] = difference(mine[name], theirs[name])
    return {name: why for name, why in sorted(found.items()) if why}


def main() -> None:
    """Prints the files that differ only between this checkout and the base."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True, help="an earlier commit")
    parser.add_argument("--glue", type=Path, help="holds RTE; without: no RTE")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    glue = arguments.glue and arguments.glue.resolve()
    checkout = output / "checkout"
    if not checkout.exists():
        subprocess.run(
            ["git", "worktree", "add", "--detach", checkout, arguments.base],
            cwd=ROOT,
            check=True,
        )
    for name, code in (("one", checkout), ("two", checkout), ("now", ROOT)):
        if not (output / name / "made").exists():
            print(f"Making {name} with {code}", flush=True)
            make(code, output / name, glue)
            (output / name / "made").touch()
    chance = compare(output / "one", output / "two")
    now = compare(output / "one", output / "now")
    print(f"\n{len(files(output / 'one'))} files.")
    print("\nBase against base:")
    for name, why in chance.items():
        print(f"  {name}: {why}")
    print("\nBase against this checkout, beyond that:")
    for name, why in now.items():
        if chance.get(name) != why:
            print(f"  {name}: {why}")


if __name__ == "__main__":
    main()
