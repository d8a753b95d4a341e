"""The paper's ablation: the value of each loss and of the teacher's weights.

Distils the students of recipes/masked_lm_minilm_to_3_layers.yaml again, with a
smaller budget, each time without one part, and fine-tunes each on the labels
of tasks (as `baseline`: no teacher helps there, so that what differs comes
from the first step). Prints a Markdown table, with paired bootstrap intervals
of the differences to the whole method.

An interrupted call continues where it stopped. Several processes can train
variants into one folder; the last call, with all of them, only reads.

    python benchmarks/ablation.py --texts TEXTS --glue GLUE --output FOLDER
"""

import argparse
import json
from pathlib import Path

import numpy as np
from recipe_runs import report_of
from safetensors.numpy import load_file

from keras_distil import data
from keras_distil.evaluation import significance

WHOLE = "whole"
# For each folder: its name in the table, and its changes to the recipe.
VARIANTS: dict[str, tuple[str, list[str]]] = {
    WHOLE: ("all three losses, the teacher's weights", []),
    "no_ce": ("without L_ce", ["distill.losses.soft_target.weight=0"]),
    "no_cos": ("without L_cos", ["distill.losses.cosine.weight=0"]),
    "no_mlm": ("without L_mlm", ["distill.losses.mlm.weight=0"]),
    "random": ("random initialization", ["student.initialization=random"]),
}


def train(variant: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Distils and fine-tunes a variant; returns its held-out scores."""
    folder = arguments.output / variant
    steps = arguments.steps
    report = report_of(
        "masked_lm_minilm_to_3_layers.yaml",
        [
            f"data.root={arguments.texts}",
            f"precision={arguments.precision}",
            f"distill.steps={steps}",
            f"distill.warmup_steps={max(1, steps // 16)}",
            "distill.baseline=false",
            *VARIANTS[variant][1],
        ],
        folder / "distilled",
    )
    report_of(
        "glue.yaml",
        [
            f"data.root={arguments.glue}",
            f"precision={arguments.precision}",
            f"student.baseline_source={folder / 'distilled/student.keras'}",
            "student.source=null",
            "finetune.source=files",
            f"finetune.tasks=[{', '.join(arguments.tasks)}]",
            "finetune.rows=[baseline]",
            f"finetune.seeds={arguments.seeds}",
            "finetune.by_task={}",
        ],
        folder / "tasks",
    )
    return report["rows"]["student"]


def task_draws(
    variant: str, arguments: argparse.Namespace
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Returns each task's score in percent, and those of bootstrap draws."""
    scores, draws = {}, {}
    for task in arguments.tasks:
        folder = arguments.output / variant / "tasks" / "tasks" / task
        seeds = [
            folder / "baseline" / f"seed_{seed}" for seed in arguments.seeds
        ]
        predictions = np.stack(
            [
                load_file(seed / "predictions.safetensors")["dev"]
                for seed in seeds
            ]
        )
        result = json.loads((seeds[0] / "result.json").read_text())
        metric = significance.mean_of(
            *(
                significance.COUNTED_METRICS[name]
                for name in result["metrics"]["dev"]
            )
        )
        examples = data.load_glue(task, "dev", root=arguments.glue)
        labels = np.asarray(examples.labels)
        scores[task] = 100 * float(
            np.median([metric(labels, found) for found in predictions])
        )
        draws[task] = 100 * significance.bootstrap_scores(
            labels, predictions, metric, seed=significance.task_seed(task)
        )
    return scores, draws


def markdown(
    held_out: dict[str, dict[str, float]], arguments: argparse.Namespace
) -> str:
    """Returns the table, with one row per variant."""
    results = {variant: task_draws(variant, arguments) for variant in VARIANTS}
    samples = {
        variant: significance.macro_samples(draws)
        for variant, (_, draws) in results.items()
    }
    means = {
        variant: np.mean(list(scores.values()))
        for variant, (scores, _) in results.items()
    }
    columns = ["agreement", "masked accuracy", *arguments.tasks, "mean"]
    lines = [
        f"| | {' | '.join(columns)} | difference (95%) |",
        "| --- |" + " ---: |" * (len(columns) + 1),
    ]
    for variant, (title, _) in VARIANTS.items():
        numbers = [
            100 * held_out[variant]["teacher_agreement"],
            100 * held_out[variant]["mlm_accuracy"],
            *results[variant][0].values(),
            means[variant],
        ]
        cells = [title, *(f"{number:.1f}" for number in numbers), ""]
        if variant != WHOLE:
            difference = significance.paired_difference(
                samples[variant], samples[WHOLE]
            )
            cells[-1] = (
                f"{means[variant] - means[WHOLE]:+.1f} "
                f"({difference.low:.1f} to {difference.high:.1f})"
            )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", required=True, help="folder of *.txt")
    parser.add_argument("--glue", required=True, help="GLUE's folders")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--tasks", nargs="+", default=["cola", "stsb"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--precision", default="float32")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=list(VARIANTS),
        default=list(VARIANTS),
        help="train these; with all of them, print the table",
    )
    arguments = parser.parse_args()
    held_out = {
        variant: train(variant, arguments) for variant in arguments.variants
    }
    if len(held_out) == len(VARIANTS):
        print(markdown(held_out, arguments))


if __name__ == "__main__":
    main()
