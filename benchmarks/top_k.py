"""The number of a teacher's logits that a cache needs to keep.

Prints three tables in Markdown: what the `top_k` largest logits of the embedded
teacher leave out on held-out text, and how much of a fresh student's divergence
they show; the error of a tail that is interpolated between the temperatures of
a schedule; and students trained from caches with different `top_k`, next to one
with a live teacher.

    python benchmarks/top_k.py --texts TEXTS --pattern fairy_tales.txt \
        --output FOLDER

An interrupted call continues where it stopped.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from recipe_runs import RECIPES, report_of
from scipy.special import log_softmax, logsumexp

from keras_distil import config
from keras_distil.utils import quiet

RECIPE = "masked_lm_minilm_to_3_layers.yaml"
LIVE = 0
SCHEDULE = (1.0, 4.0)
TOKENS = 1000  # number of tokens whose logits are examined


def changes(
    arguments: argparse.Namespace, top_k: int, temperature: float, seed: int
) -> list[str]:
    """Returns the changes to the recipe for one training."""
    overrides = [
        f"seed={seed}",
        f"data.root={arguments.texts}",
        f"data.sources.0.pattern={arguments.pattern}",
        "data.sequence_length=64",
        "data.held_out_fraction=0.1",
        f"precision={arguments.precision}",
        f"distill.steps={arguments.steps}",
        f"distill.warmup_steps={arguments.steps // 16 + 1}",
        "distill.batch_size=16",
        "distill.baseline=false",
        "distill.losses.soft_target.positions=all",
        f"distill.losses.soft_target.temperature={temperature}",
        "evaluate.sequences=320",
    ]
    if top_k != LIVE:
        overrides.append(f"teacher.cache={{top_k: {top_k}, maskings: 1}}")
    return overrides


class HeldOut:
    """The teacher and the held-out text used to compare students."""

    def __init__(self, recipe: config.Recipe) -> None:
        from keras_distil.runs.corpus import load_corpus, make_held_out_batches
        from keras_distil.runs.teacher import load_teacher

        self.recipe = recipe
        self.teacher = load_teacher(recipe, dtype="float32")
        corpus = load_corpus(recipe)
        self.batches = make_held_out_batches(recipe, corpus)

    def divergence(self, student: Any, temperature: float) -> float:
        """Returns the KL over the whole vocabulary, in nats per token."""
        from keras_distil import Distiller, losses

        loss = losses.SoftTargetKLDivergence(temperature=temperature)
        distiller = Distiller(self.teacher, student, [loss])
        distiller.compile("sgd")
        logs = distiller.evaluate(self.batches, verbose=0, return_dict=True)
        return logs["soft_target_loss"]

    def logits(self) -> tuple[np.ndarray, ...]:
        """Returns teacher's and fresh student's logits, (TOKENS, vocabulary).

        Both are float64, sorted by the teacher's logits, largest first.
        """
        from keras_distil.models import forward
        from keras_distil.runs.student import make_student

        x, _, _ = next(iter(self.batches))
        real = x["padding_mask"].numpy() > 0
        student = make_student(self.recipe, self.teacher, dtype="float32")
        logits = []
        for model in (self.teacher, student):
            states = forward.encode(model, x, training=False).numpy()
            rows = states[real][:TOKENS]
            features, kernel, bias = forward.project(model, rows)
            product = np.asarray(features) @ np.asarray(kernel).T
            logits.append((product + np.asarray(bias)).astype("float64"))
        order = np.argsort(-logits[0], axis=-1)
        return tuple(np.take_along_axis(each, order, -1) for each in logits)


def left_out(
    teacher: np.ndarray, student: np.ndarray, counts: list[int]
) -> list[str]:
    """Returns a row per temperature and `top_k`, in float64."""
    lines = ["| temperature | `top_k` | mass of the tail | share of the KL |"]
    lines.append("| ---: | ---: | ---: | ---: |")
    for temperature in (1.0, 2.0, 4.0):
        p = log_softmax(teacher / temperature, axis=-1)
        q = log_softmax(student / temperature, axis=-1)
        whole = (np.exp(p) * (p - q)).sum(axis=-1).mean()
        for top_k in counts:
            head = (np.exp(p) * (p - q))[:, :top_k].sum(axis=-1)
            p_tail = np.exp(p[:, top_k:]).sum(axis=-1)
            q_tail = np.exp(q[:, top_k:]).sum(axis=-1)
            shown = (head + p_tail * np.log(p_tail / q_tail)).mean()
            lines.append(
                f"| {temperature:g} | {top_k} | {p_tail.mean():.3f} "
                f"| {100 * shown / whole:.1f}% |"
            )
    return lines


def interpolation(teacher: np.ndarray, counts: list[int]) -> str:
    """Returns the largest error of interpolated tails."""
    from keras_distil.losses import top_logits

    teacher = teacher - teacher[:, :1]
    nodes = top_logits.tail_temperatures(*SCHEDULE)
    errors_by_count = []
    for top_k in counts:
        others = teacher[:, top_k:]

        def tail(temperature: float, others: np.ndarray = others) -> np.ndarray:
            return logsumexp(others / temperature, axis=-1)

        cached = top_logits.TopLogits(
            None,
            None,
            np.stack([tail(node) for node in nodes], -1).astype("float32"),
            nodes,
        )
        errors = [
            np.abs(np.asarray(cached.tail_at(at)) - tail(at)).max()
            for at in np.linspace(*SCHEDULE, 101)
        ]
        errors_by_count.append(f"{max(errors):.1e} (top_k {top_k})")
    return (
        f"Tails between temperatures {SCHEDULE[0]:g} and {SCHEDULE[1]:g}, "
        f"largest error of their logarithm: {', '.join(errors_by_count)}."
    )


def trained(held_out: HeldOut, arguments: argparse.Namespace) -> list[str]:
    """Returns a row per student, each trained unless it exists."""
    from keras_distil.models import load_teacher

    titles = ["temperature", "seed", "`top_k`", "MLM loss", "accuracy"]
    lines = ["| " + " | ".join([*titles, "agreement", "KL"]) + " |"]
    lines.append("| ---: " * 7 + "|")
    for temperature in arguments.temperatures:
        for seed in arguments.seeds:
            for top_k in [*arguments.top_k, LIVE]:
                output = arguments.output / f"k{top_k}_t{temperature}_s{seed}"
                changed = changes(arguments, top_k, temperature, seed)
                report = report_of(RECIPE, changed, output)
                scores = report["rows"]["student"]
                divergence = held_out.divergence(
                    load_teacher(output / "student.keras"), temperature
                )
                lines.append(
                    f"| {temperature:g} | {seed} | {top_k or 'live'} "
                    f"| {scores['mlm_loss']:.3f} "
                    f"| {100 * scores['mlm_accuracy']:.1f}% "
                    f"| {100 * scores['teacher_agreement']:.1f}% "
                    f"| {divergence:.3f} |"
                )
    return lines


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", required=True, help="folder of *.txt")
    parser.add_argument("--pattern", default="*.txt")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--top-k", nargs="+", type=int, default=[1, 8, 64, 512, 2048]
    )
    parser.add_argument("--temperatures", nargs="+", type=float, default=[2.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--numbers-only", action="store_true")
    arguments = parser.parse_args()
    quiet.import_tensorflow()
    recipe = config.load_recipe(
        RECIPES / RECIPE, changes(arguments, LIVE, 2.0, 0)
    )
    held_out = HeldOut(recipe)
    teacher, student = held_out.logits()
    rows = left_out(teacher, student, arguments.top_k)
    print("\n".join(rows), end="\n\n")
    print(interpolation(teacher, arguments.top_k), end="\n\n")
    if not arguments.numbers_only:
        print("\n".join(trained(held_out, arguments)))


if __name__ == "__main__":
    main()
