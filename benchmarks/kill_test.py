"""Kills a run at random moments until it ends, and compares its weights.

One run of the quickstart, on less text, runs uninterrupted. A second one is
killed with SIGKILL at random moments, including start-up and the writing of
checkpoints, and restarted with the same command each time. Both must end with
the same training state, bit for bit, and every update must be in the log
exactly once.

    python benchmarks/kill_test.py --kills 25
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
SETTINGS = {
    "data.sources.0.packages": "[keras_hub]",
    "checkpoint_steps": "2",
    "distill.warmup_steps": "4",
    "distill.batch_size": "4",
    "distill.baseline": "false",
    "student.dropout": "0.1",
    "evaluate.sequences": "8",
    "evaluate.batch_size": "4",
}


def main() -> int:
    """Prints a summary; returns 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        started = time.monotonic()
        subprocess.run(command(whole, arguments.steps), check=True)
        lifetime_s = time.monotonic() - started
        print(f"Uninterrupted: {lifetime_s:.0f} s")
        kills, moments = 0, {"before": 0, "training": 0, "writing": 0}
        while kills < arguments.kills:
            process = subprocess.Popen(command(killed, arguments.steps))
            try:
                process.wait(generator.uniform(0.0, 0.2 * lifetime_s))
            except subprocess.TimeoutExpired:
                moments[moment(killed)] += 1
                process.kill()
                process.wait()
                kills += 1
                print(f"Kill {kills} at {last_update(killed)}", flush=True)
            else:
                break  # It finished first.
        subprocess.run(command(killed, arguments.steps), check=True)
        equal = states(whole) == states(killed)
        updates = steps_told(killed)
        once = updates == list(range(1, arguments.steps + 1))
        print(f"SIGKILLs: {kills} {moments}")
        print(f"Training state equal bit for bit: {equal}")
        print(f"Every update in the log once: {once}")
        return 0 if equal and once else 1


def command(folder: Path, steps: int) -> list[str]:
    """Returns the command line of a run."""
    settings = {**SETTINGS, "distill.steps": str(steps)}
    words = [sys.executable, "-m", "keras_distil.cli.app", "run", str(RECIPE)]
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    return [*words, "--output", str(folder), "--quiet"]


def moment(folder: Path) -> str:
    """Says what the run is doing right now."""
    if any((folder / "checkpoints").glob("*/.partial-*")):
        return "writing"
    return "training" if (folder / "metrics.jsonl").is_file() else "before"


def last_update(folder: Path) -> str:
    """Describes the newest update in the log."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return "no update yet"
    return f"line {len(path.read_text().splitlines())} of the log"


def states(folder: Path) -> dict[str, bytes]:
    """Returns the tensors of the last training state."""
    newest = max((folder / "checkpoints" / "distill").iterdir())
    tensors = load_file(newest / "tensors.safetensors")
    return {name: value.tobytes() for name, value in tensors.items()}


def steps_told(folder: Path) -> list[int]:
    """Returns the updates in the log, in order."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


if __name__ == "__main__":
    sys.exit(main())
