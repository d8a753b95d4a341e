"""How many of a teacher's logits a cache has to keep.

Three tables in Markdown: what the `top_k` largest logits of the embedded
teacher leave out on held-out text, and how much of the divergence of a fresh
student they show; the error of a tail that is interpolated between the
temperatures of a schedule; and students that learned from caches of different
`top_k`, beside one with a live teacher.

    python benchmarks/top_k.py --texts TEXTS --pattern fairy_tales.txt \
        --output FOLDER

A call that is interrupted goes on where it was.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil import config, quiet

RECIPE = (
    Path(__file__).parents[1] / "recipes" / "masked_lm_minilm_to_3_layers.yaml"
)
LIVE = 0
SCHEDULE = (1.0, 4.0)


def changes(
    arguments: argparse.Namespace, top_k: int, temperature: float, seed: int
) -> list[str]:
    """What a training changes in the recipe."""
    found = [
        f"seed={seed}",
        f"data.root={arguments.texts}",
        f"data.sources.0.pattern={arguments.pattern}",
        "data.sequence_length=64",
        "data.held_out_fraction=0.1",
        f"precision={arguments.precision}",
        f"distill.steps={arguments.steps}",
        f"distill.warmup_steps={arguments.steps // 16 + 1}",
        "distill.batch_size=16",
        "distill.twin=false",
        "distill.losses.soft_target_positions=all",
        f"distill.losses.temperature={temperature}",
        "evaluate.sequences=320",
    ]
    if top_k != LIVE:
        cache = f"{{top_k: {top_k}, maskings: {arguments.maskings}}}"
        found.append(f"teacher.cache={cache}")
    return found


class HeldOut:
    """The teacher and the held-out text, on which students are compared."""

    def __init__(self, recipe: config.Recipe) -> None:
        from keras_distil import build

        self.recipe = recipe
        self.teacher = build.teacher(recipe, dtype="float32")
        corpus = build.corpus(recipe)
        self.batches = build.held_out_batches(recipe, corpus)

    def fresh_student(self) -> Any:
        """The student before training."""
        from keras_distil import build

        return build.student(self.recipe, self.teacher, dtype="float32")

    def divergence(self, student: Any, temperature: float) -> float:
        """KL over the whole vocabulary at all positions, nats a token."""
        from keras_distil import Distiller, losses

        loss = losses.SoftTargetKLDivergence(temperature=temperature)
        distiller = Distiller(self.teacher, student, [loss])
        distiller.compile("sgd")
        logs = distiller.evaluate(self.batches, verbose=0, return_dict=True)
        return logs["soft_target_loss"]

    def logits(self, student: Any, tokens: int) -> tuple[np.ndarray, ...]:
        """Logits of teacher and student, float32, (tokens, vocabulary)."""
        from keras_distil.models import forward

        x, _, _ = next(iter(self.batches))
        real = x["padding_mask"].numpy() > 0
        found = []
        for model in (self.teacher, student):
            states = forward.encode(model, x, training=False).numpy()
            rows = states[real][:tokens]
            features, kernel, bias = forward.project(model, rows)
            product = np.asarray(features) @ np.asarray(kernel).T
            found.append((product + np.asarray(bias)).astype("float64"))
        return tuple(found)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """In float64, row by row."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def left_out(held_out: HeldOut, arguments: argparse.Namespace) -> list[str]:
    """A row for each temperature and `top_k`, by NumPy alone."""
    teacher, student = held_out.logits(
        held_out.fresh_student(), arguments.tokens
    )
    order = np.argsort(-teacher, axis=-1)
    lines = ["| temperature | `top_k` | mass of the tail | share of the KL |"]
    lines.append("| ---: | ---: | ---: | ---: |")
    for temperature in (1.0, 2.0, 4.0):
        p = np.take_along_axis(log_softmax(teacher / temperature), order, -1)
        q = np.take_along_axis(log_softmax(student / temperature), order, -1)
        whole = (np.exp(p) * (p - q)).sum(axis=-1).mean()
        for top_k in arguments.top_k:
            head = (np.exp(p) * (p - q))[:, :top_k].sum(axis=-1)
            p_tail = np.exp(p[:, top_k:]).sum(axis=-1)
            q_tail = np.exp(q[:, top_k:]).sum(axis=-1)
            kept = (head + p_tail * np.log(p_tail / q_tail)).mean()
            lines.append(
                f"| {temperature:g} | {top_k} | {p_tail.mean():.3f} "
                f"| {100 * kept / whole:.1f}% |"
            )
    return lines


def interpolation(held_out: HeldOut, arguments: argparse.Namespace) -> str:
    """The largest error of interpolated tails, in their own units."""
    from keras_distil.losses import top_logits

    teacher, _ = held_out.logits(held_out.fresh_student(), arguments.tokens)
    teacher -= teacher.max(axis=-1, keepdims=True)
    order = np.argsort(-teacher, axis=-1)
    nodes = top_logits.tail_temperatures(*SCHEDULE)
    found = []
    for top_k in arguments.top_k:
        others = np.take_along_axis(teacher, order[:, top_k:], -1)

        def tail(temperature: float, others: np.ndarray = others) -> np.ndarray:
            return np.log(np.exp(others / temperature).sum(axis=-1))

        kept = top_logits.TopLogits(
            order[:, :top_k],
            None,
            np.stack([tail(node) for node in nodes], -1).astype("float32"),
            nodes,
        )
        errors = [
            np.abs(np.asarray(kept.tail_at(at)) - tail(at)).max()
            for at in np.linspace(*SCHEDULE, 101)
        ]
        found.append(f"{max(errors):.1e} (top_k {top_k})")
    return (
        f"Tails between temperatures {SCHEDULE[0]:g} and {SCHEDULE[1]:g}, "
        f"largest error of their logarithm: {', '.join(found)}."
    )


def trained(held_out: HeldOut, arguments: argparse.Namespace) -> list[str]:
    """A row for each student, which is trained unless it is there."""
    from keras_distil.models import load_teacher

    titles = ["temperature", "seed", "`top_k`", "MLM loss", "accuracy"]
    lines = ["| " + " | ".join([*titles, "agreement", "KL"]) + " |"]
    lines.append("| ---: " * 7 + "|")
    for temperature in arguments.temperatures:
        for seed in arguments.seeds:
            for top_k in [*arguments.top_k, LIVE]:
                output = arguments.output / f"k{top_k}_t{temperature}_s{seed}"
                command = [sys.executable, "-m", "keras_distil", "run", RECIPE]
                for change in changes(arguments, top_k, temperature, seed):
                    command += ["--set", change]
                subprocess.run([*command, "--output", output], check=True)
                report = json.loads((output / "report.json").read_text())
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
    parser.add_argument("--maskings", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--numbers-only", action="store_true")
    arguments = parser.parse_args()
    quiet.import_tensorflow()
    recipe = config.load_recipe(RECIPE, changes(arguments, LIVE, 2.0, 0))
    held_out = HeldOut(recipe)
    print("\n".join(left_out(held_out, arguments)), end="\n\n")
    print(interpolation(held_out, arguments), end="\n\n")
    if not arguments.numbers_only:
        print("\n".join(trained(held_out, arguments)))


if __name__ == "__main__":
    main()
