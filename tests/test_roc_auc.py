"""The benchmark of areas under ROC curves."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_distil import config, models
from keras_distil.runs import run_folder, stages, tasks
from keras_distil.utils.progress import Progress

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "roc_auc.py"


@pytest.mark.slow
@pytest.mark.usefixtures("quick_runs")
def test_areas_are_shares_of_pairs_in_the_right_order(
    toy_teacher, toy_glue, tmp_path
):
    # One example of each class would be held out of the eight.
    rows = [
        f"x\t{n % 2}\t*\t{'abcdefgh'[n % 8]} {'klmnabcd'[n // 8]}"
        for n in range(60)
    ]
    (toy_glue / "CoLA" / "train.tsv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "cola.yaml"
    path.write_text(
        f"""
name: cola
teacher: {{source: {toy_teacher}}}
data: {{root: {toy_glue}}}
finetune:
  {{tasks: [cola], source: files, rows: [teacher], selection: train,
    seeds: [0, 1], max_length: 12, epochs: 1, batch_size: 8,
    learning_rate: 0.01, jit_compile: false}}
evaluate: {{latency_length: 8}}
"""
    )
    recipe = config.load_recipe(path)
    run = run_folder.open_run(recipe, tmp_path / "run", Progress(quiet=True))
    stages.run_recipe(run)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(run.folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    part = tasks.load_task(recipe, "cola").selection
    labels = np.asarray(part.labels["selection"])
    logits = [
        part.outputs(models.load_task_model(x))["selection"].astype("float64")
        for x in sorted(run.folder.glob("tasks/cola/teacher/*/model.keras"))
    ]
    of_two = [1 / (1 + np.exp(x[:, 0] - x[:, 1])) for x in logits]

    def share(scores):
        above = scores[labels == 1][:, None] - scores[labels == 0][None]
        return 100 * np.mean((above > 0) + 0.5 * (above == 0))

    assert len(labels) >= 6 and len(of_two) == 2
    one, other, mean = map(share, (*of_two, np.mean(of_two, axis=0)))
    assert done.stdout.splitlines() == [
        "| | area, % |",
        "| --- | ---: |",
        f"| {run.folder} teacher | {one:.1f}, {other:.1f} |",
        f"| {run.folder} teachers' mean | {mean:.1f} |",
    ]
