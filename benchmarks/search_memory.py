"""Memory of a search, trial by trial, to see whether it grows.

Runs a random search of a recipe with a few updates per trial in this process,
and prints the resident memory after each trial, the slope over the second
half, and JSON.

    python benchmarks/search_memory.py --trials 30 --output memory.json
"""

import argparse
import gc
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from keras_distil.utils import quiet

ROOT = Path(__file__).parents[1]


def resident_mb() -> float:
    """Returns the resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(recipe: Path, trials: int, steps: int) -> list[float]:
    """Returns resident memory in MB after each trial."""
    quiet.import_tensorflow()
    from keras_distil import config
    from keras_distil.runs import run_folder
    from keras_distil.search import recipe_search
    from keras_distil.search.trials import RecipeTrials
    from keras_distil.utils.progress import Progress

    resident: list[float] = []
    fit = RecipeTrials.fit

    def measured(*args, **kwargs):
        scores = fit(*args, **kwargs)
        gc.collect()
        resident.append(resident_mb())
        # Standard output is silenced while KerasTuner may write to it.
        print(f"trial {len(resident)}: {resident[-1]:,.0f} MB", file=sys.stderr)
        return scores

    RecipeTrials.fit = measured
    changes = [
        f"search.trials={trials}",
        "search.tuner=random",
        f"distill.steps={steps}",
        f"distill.warmup_steps={min(1, steps - 1)}",
        "distill.batch_size=8",
        "evaluate={sequences: 16, batch_size: 8}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        run = run_folder.open_run(
            config.load_recipe(recipe, changes),
            Path(folder) / "search",
            Progress(quiet=True),
        )
        recipe_search.run_search(run)
    return resident


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recipe",
        type=Path,
        default=ROOT / "recipes" / "search_quickstart.yaml",
    )
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    resident = measure(arguments.recipe, arguments.trials, arguments.steps)
    half = np.array(resident[len(resident) // 2 :])
    slope = float(np.polyfit(np.arange(len(half)), half, 1)[0])
    print(
        f"after trial 1 {resident[0]:,.0f} MB, after trial {len(resident)} "
        f"{resident[-1]:,.0f} MB; second half: {slope:+.1f} MB per trial"
    )
    if arguments.output is not None:
        content = {"resident_mb": resident, "slope_mb": slope}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
