"""Makes the folders that an earlier keras_distil left; run by hand, once.

    git worktree add --detach /tmp/before_layout 948502b
    PYTHONPATH=/tmp/before_layout python make_runs.py

The recipe names losses, the baseline and schedules as that commit did. Steps
are eager, as in the tests. Paths are relative to this folder, so that it can be
copied anywhere.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from keras_distil import Distiller, callbacks, cli

HERE = Path(__file__).parent
BERT = HERE.parents[1] / "models" / "golden" / "bert"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# No clock: corpora are found again by names, sizes and times.
TIME = 1_000_000_000

RECIPE = """
name: toy
checkpoint_steps: 2
teacher:
  source: teacher
student:
  num_layers: 1
data:
  root: texts
  sources:
    - kind: files
      pattern: "*.txt"
  sequence_length: 12
  held_out_fraction: 0.2
distill:
  steps: 6
  batch_size: 4
  learning_rate: 1e-3
  jit_compile: false
  losses:
    mlm_weight: 2.0
    soft_target_weight: 5.0
    cosine_weight: 0.5
    temperature: 3.0
    soft_target_positions: masked
  schedules:
    temperature: {kind: linear, start: 4.0, end: 2.0, steps: 5}
    cosine_weight: {kind: piecewise, boundaries: [3], values: [0.5, 1.5]}
  twin: true
finetune:
  tasks: [rte]
  source: files
  rows: [teacher, student, undistilled]
  max_length: 12
  epochs: 2
  batch_size: 4
  learning_rate: 1e-3
  jit_compile: false
  losses: {label_weight: 0.5, soft_target_weight: 2.0, cosine_weight: 0.0}
evaluate:
  sequences: 8
  batch_size: 4
  latency_length: 8
  samples: 1
"""
# Where the unfinished runs were stopped: the stage, and its update.
STOPS = {
    "stopped_in_distill": ("distill", 5),
    "stopped_in_twin": ("twin", 3),
    "stopped_in_undistilled": ("rte/undistilled/seed_0", 3),
}


class StopError(Exception):
    """Ends a run where a kill would."""


def write_inputs() -> None:
    """The teacher, the texts and the task, all of letters."""
    shutil.copytree(BERT, "teacher", ignore=lambda *_: ["outputs.npz"])
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
    words += [f"##{letter}" for letter in LETTERS] + list(".,;:!?-")
    Path("teacher/vocab.txt").write_text("\n".join(words) + "\n")
    texts = Path("texts")
    (texts / "RTE").mkdir(parents=True)
    lines = [f"line {number} tells of number {number}." for number in range(80)]
    (texts / "lines.txt").write_text("\n".join(lines) + "\n")
    pairs = [("a b c", "a b"), ("d e", "f g h i"), ("k", "k"), ("l", "m n")]
    rows = ["index\tsentence1\tsentence2\tlabel"]
    for number, (one, other) in enumerate(pairs * 2):
        word = ("entailment", "not_entailment")[number % 2]
        rows.append(f"{number}\t{one}\t{other}\t{word}")
    for split in ("train", "dev"):
        path = texts / "RTE" / f"{split}.tsv"
        path.write_text("\n".join(rows) + "\n")
    os.utime(texts / "lines.txt", (TIME, TIME))
    Path("recipe.yaml").write_text(RECIPE.lstrip())


def command(*words: str) -> int:
    """Runs `keras-distil`; returns its exit status."""
    with mock.patch.object(sys, "argv", ["keras-distil", *words]):
        try:
            cli.main()
        except StopError:
            return 1
        except SystemExit as ended:
            return ended.code or 0
    return 0


@contextlib.contextmanager
def stopping(stage: str, update: int) -> Iterator[None]:
    """Ends a run at one of its updates."""
    log = callbacks.MetricsLog.on_train_batch_end

    def stop(self: callbacks.MetricsLog, batch: int, logs: object = None):
        log(self, batch, logs)
        if (
            self.stage == stage
            and int(self.model.optimizer.iterations) == update
        ):
            raise StopError

    with mock.patch.object(callbacks.MetricsLog, "on_train_batch_end", stop):
        yield


def eagerly(self: Distiller, *args: object, **arguments: object) -> None:
    return compile_(self, *args, **{**arguments, "run_eagerly": True})


compile_ = Distiller.compile


def main() -> None:
    """Makes everything anew."""
    os.chdir(HERE)
    for old in HERE.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    os.environ["KERAS_DISTIL_CACHE"] = "cache"
    Distiller.compile = eagerly
    write_inputs()
    run = ("run", "recipe.yaml", "--output")
    assert command(*run, "finished") == 0
    for name, (stage, update) in STOPS.items():
        with stopping(stage, update):
            assert command(*run, name) != 0
    assert command("prepare", "recipe.yaml", "--output", "corpus") == 0
    changes = ("teacher.cache={top_k: 4, maskings: 2}", "finetune=null")
    words = [word for change in changes for word in ("--set", change)]
    assert command(*run, "cached", *words) == 0
    tidy()


def tidy() -> None:
    """Removes what no test reads."""
    for folder in ("cached", "cache/corpora", "finished/checkpoints"):
        shutil.rmtree(folder)
    for path in (Path("finished/report.html"), *Path().glob(".*.lock")):
        path.unlink()
    for run in ("finished", *STOPS):
        shutil.rmtree(f"{run}/logs")
    for stage in Path().glob("stopped_*/**/checkpoints/*"):
        for earlier in sorted(stage.glob("step-*"))[:-1]:
            shutil.rmtree(earlier)
    # The rest of it is as in `finished`.
    run = Path("stopped_in_undistilled")
    for path in (run / "checkpoints", *run.glob("tasks/rte/[st]*")):
        shutil.rmtree(path)
    for path in run.glob("*.keras"):
        path.unlink()


if __name__ == "__main__":
    main()
