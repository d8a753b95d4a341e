"""The area under the ROC curve of a run's students, where it chose epochs.

Matthews' correlation and accuracy of a few hundred examples depend on where
the threshold happens to lie. The area does not, so it separates students of a
task with two classes that these do not. It is computed on the part of the
training set that chose the epochs (`finetune.selection: train`), never on the
development set. Prints a Markdown table, with the teachers, and the mean of
their probabilities, as further rows.

    python benchmarks/roc_auc.py saved_models/glue --task cola
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import special
from sklearn import metrics

from keras_distil import config, models
from keras_distil.runs import run_folder
from keras_distil.runs.tasks import load_task
from keras_distil.utils.progress import Progress

ROWS = ("teacher", "student", "baseline")


def second_class(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the second class's probabilities, (examples,)."""
    return special.softmax(outputs["selection"], axis=-1)[:, 1]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--task", default="cola")
    arguments = parser.parse_args()
    lines = ["| | area, % |", "| --- | ---: |"]
    for folder in arguments.runs:
        recipe = config.load_recipe(folder / "recipe.yaml")
        run = run_folder.Run(recipe, folder, Progress(quiet=True))
        part = load_task(run.recipe, arguments.task).selection
        labels = np.asarray(part.labels["selection"])
        for row in ROWS:
            found = sorted(
                folder.glob(f"tasks/{arguments.task}/{row}/*/model.keras")
            )
            each = [
                second_class(part.outputs(models.load_task_model(path)))
                for path in found
            ]
            areas = [metrics.roc_auc_score(labels, one) for one in each]
            if areas:
                shown = ", ".join(f"{100 * area:.1f}" for area in areas)
                lines.append(f"| {folder} {row} | {shown} |")
            if row == "teacher" and len(areas) > 1:
                area = metrics.roc_auc_score(labels, np.mean(each, axis=0))
                lines.append(f"| {folder} teachers' mean | {100 * area:.1f} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
