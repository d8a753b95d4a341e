"""`finetune.stages`: one student through several losses, also interrupted."""

import json

import numpy as np
import pytest
import tensorflow as tf
import toy
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from keras_distil import callbacks, config, models
from keras_distil.runs import (
    finetuning,
    preflight,
    run_folder,
    stages,
    tasks,
)
from keras_distil.runs.report import model_card
from keras_distil.runs.report.stage_text import describe_stages
from keras_distil.utils.progress import Progress

STUDENT = "rte/student/seed_3"
# Two updates per epoch.
FIRST, SECOND = 4, 6


class KilledError(BaseException):
    """The process ends here."""


def write_recipe(path, teacher, glue):
    """A recipe with two stages for a student of one layer."""
    student = path.with_name("student.keras")
    models.initialize_student(models.load_teacher(teacher), 1).save(student)
    path.write_text(
        f"""
name: tasks
checkpoint_steps: 1
teacher: {{source: {teacher}}}
student: {{source: {student}, baseline_source: {student}}}
data: {{root: {glue}}}
finetune:
  tasks: [rte]
  source: files
  rows: [teacher, student, baseline]
  seeds: [3]
  max_length: 12
  patience: 9
  batch_size: 4
  learning_rate: 0.01
  jit_compile: false
  stages:
    - losses: {{cosine: {{}}, attention_relation: {{relation_heads: 2}}}}
      epochs: 2
      learning_rate: 0.03
    - losses: {{label: {{}}, soft_target: {{}}}}
      epochs: 3
evaluate: {{latency_length: 8}}
"""
    )
    return path


@pytest.fixture(scope="module")
def recipe_path(shared_toy_recipe, shared_toy_glue, tmp_path_factory):
    path = tmp_path_factory.mktemp("stages") / "tasks.yaml"
    teacher = shared_toy_recipe.with_name("teacher")
    return write_recipe(path, teacher, shared_toy_glue)


def train(recipe_path, folder):
    """Trains teacher and student, without what a run does before and after."""
    tf.config.experimental.enable_op_determinism()
    recipe = config.load_recipe(recipe_path)
    run = run_folder.open_run(recipe, folder, Progress(quiet=True))
    encoders = {
        "teacher": models.load_teacher(recipe.teacher.source),
        "student": models.load_teacher(recipe.student.source),
    }
    task = tasks.load_task(recipe, "rte")
    finetuning.train_rows(run, task, encoders, list(encoders))


def logged(folder):
    """The lines of the student's training, without its speed."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [
        {key: line[key] for key in line if key != "tokens_per_second"}
        for line in found
        if line["stage"] == STUDENT
    ]


def outcome(folder):
    """Everything that a student's training leaves, as exact values."""
    kept = folder / "tasks" / STUDENT
    result = json.loads((kept / "result.json").read_text())
    result.pop("duration_s")
    model = models.load_task_model(kept / "model.keras")
    return (
        result,
        [np.array(v).tobytes() for v in model.variables],
        (kept / "predictions.safetensors").read_bytes(),
        logged(folder),
    )


def kill_at_update(patch, number):
    """Ends the student's training after an update, before its state."""
    original = callbacks.MetricsLog.on_train_batch_end

    def die(self, batch, logs=None):
        original(self, batch, logs)
        if self.stage == STUDENT and self._recorder.step == number:
            raise KilledError

    patch.setattr(callbacks.MetricsLog, "on_train_batch_end", die)


def kill_at_the_seam(patch):
    """Ends it where the second stage would begin."""
    original = finetuning.make_task_trainer

    def die(settings, *args, **arguments):
        if list(settings.losses.by_name) == ["label", "soft_target"]:
            raise KilledError
        return original(settings, *args, **arguments)

    patch.setattr(finetuning, "make_task_trainer", die)


@pytest.mark.slow
def test_a_student_killed_anywhere_ends_with_equal_bits(
    recipe_path, tmp_path, monkeypatch, eager_steps
):
    train(recipe_path, tmp_path / "whole")
    wanted = outcome(tmp_path / "whole")
    assert len(wanted[0]["dev_scores"]) == 3
    assert [line["step"] for line in wanted[3]] == list(range(1, 11))
    kills = [
        lambda patch: kill_at_update(patch, 3),
        lambda patch: kill_at_update(patch, FIRST),
        kill_at_the_seam,
        # Before the second stage has a state, and after it has some.
        lambda patch: kill_at_update(patch, FIRST + 1),
        lambda patch: kill_at_update(patch, FIRST + 4),
    ]
    folder = tmp_path / "killed"
    for kill in kills:
        with monkeypatch.context() as patch:
            kill(patch)
            with pytest.raises(KilledError):
                train(recipe_path, folder)
        assert not (folder / "tasks" / STUDENT / "result.json").exists()
    # One run that was killed at all of these moments, one after the other.
    train(recipe_path, folder)
    assert outcome(folder) == wanted
    assert not (folder / "tasks" / STUDENT / "checkpoints").exists()


@pytest.fixture(scope="module")
def finished(recipe_path):
    """The folder of a finished run, and every `fit` that it made."""
    fits = []
    original = finetuning.fit_steps

    def fit(run, stage, trainer, batches, **arguments):
        before = weights_of(trainer.student)
        inside = weights_of(trainer.student.backbone)
        rates = [
            float(trainer.optimizer._learning_rate(step)) for step in range(10)
        ]
        original(run, stage, trainer, batches, **arguments)
        fits.append(
            {
                **arguments,
                "stage": stage,
                "losses": [x.name for x in trainer.distillation_losses],
                "updates": int(trainer.optimizer.iterations.numpy()),
                "batches": list(batches.take(12).as_numpy_iterator()),
                "rates": rates,
                "head": {x for x in before if x not in inside},
                "weights": (before, weights_of(trainer.student)),
            }
        )

    recipe = config.load_recipe(recipe_path)
    folder = recipe_path.with_name("run")
    run = run_folder.open_run(recipe, folder, Progress(quiet=True))
    with toy.quick_runs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "fit_steps", fit)
        stages.run_recipe(run)
    return folder, fits


def weights_of(model):
    return {v.path: np.array(v) for v in model.variables if is_weight(v)}


def is_weight(variable):
    return "seed" not in variable.path


def changed(fit):
    before, after = fit["weights"]
    return {x for x in before if not np.array_equal(before[x], after[x])}


@pytest.mark.slow
def test_stages_follow_one_another(finished):
    _, fits = finished
    teacher, first, second, baseline = fits
    assert [fit["stage"].split("/")[1] for fit in fits] == [
        *["teacher", "student", "student", "baseline"]
    ]
    assert first["losses"] == ["cosine", "attention_relation"]
    assert second["losses"] == ["label", "soft_target"]
    assert [fit["epochs"] for fit in fits] == [5, 2, 3, 5]
    assert teacher["losses"] == baseline["losses"] == ["label"]
    # The weights go on, the optimizer and its schedule do not.
    before, after = second["weights"][0], first["weights"][1]
    assert all(np.array_equal(before[x], after[x]) for x in before)
    assert [fit["updates"] for fit in fits] == [10, FIRST, SECOND, 10]
    # The second of the first stage's four updates is after the warm-up.
    assert first["rates"][0] == pytest.approx(0.03)
    assert first["rates"][4] == 0.0
    assert max(second["rates"]) == pytest.approx(0.01)
    assert second["rates"][5] > second["rates"][6] == 0.0
    # What no loss of the first stage reaches stays as it is.
    assert len(first["head"]) == 4
    assert not first["head"] & changed(first)
    assert first["head"] <= changed(second)
    layer = "transformer_layer_0/self_attention_layer/query/kernel"
    assert layer in changed(first)
    # The student reads the batches that the baseline reads.
    for number in range(10):
        x, *_ = baseline["batches"][number]
        stage, at = (first, 0) if number < FIRST else (second, FIRST)
        y, *_ = stage["batches"][number - at]
        np.testing.assert_array_equal(x["token_ids"], y["token_ids"])
    # Only the last stage is scored.
    assert first["first"] == [] and len(second["first"]) == 1
    # What is still to come counts in estimates.
    later = [fit["after"][0] for fit in fits]
    assert later == [20, SECOND + 10, 10, 0]


@pytest.mark.slow
def test_both_stages_are_one_curve(recipe_path, finished):
    folder, _ = finished
    events = EventAccumulator(
        str(folder / "logs" / STUDENT / "train"), size_guidance={"tensors": 0}
    )
    events.Reload()
    steps = {
        name: [event.step for event in events.Tensors(f"step/{name}")]
        for name in ("loss", "cosine_loss", "label_loss")
    }
    assert steps == {
        "loss": list(range(1, 11)),
        "cosine_loss": [1, 2, 3, 4],
        "label_loss": [5, 6, 7, 8, 9, 10],
    }
    assert [line["step"] for line in logged(folder)] == steps["loss"]
    said = (
        "Students learn tasks in 2 stages: 2 epochs with cosine distance of "
        "states, divergence of attention relations; then 3 epochs with loss "
        "on the labels, soft-target loss."
    )
    assert said in (folder / "report.html").read_text()
    recipe = config.load_recipe(recipe_path)
    assert f"- {said}\n" in model_card.model_card(recipe, folder)


def test_stages_in_words(recipe_path):
    own = "finetune.by_task={rte: {stages: [{losses: {label: {}}, epochs: 1}]}}"
    recipe = config.load_recipe(
        recipe_path, [own, "finetune.tasks=[rte, cola]"]
    )
    assert describe_stages(recipe)[1:] == [
        "Students learn rte in 1 stage: 1 epoch with loss on the labels.",
        "The best epoch is one of the last stage; other models train on the "
        "labels for as many epochs as all stages have.",
    ]
    assert len(describe_stages(recipe)) == 3
    for override in ("finetune.stages=null", "finetune.rows=[teacher]"):
        assert (
            describe_stages(config.load_recipe(recipe_path, [override])) == []
        )


def test_layers_that_a_stage_cannot_pair_are_told_before(recipe_path):
    layers = "losses.cosine.layers=[[5, 0]]"
    with pytest.raises(
        ValueError,
        match=r"^finetune.stages.0.losses.cosine.layers: The teacher has 2 la",
    ):
        preflight.open_inputs(
            config.load_recipe(recipe_path, [f"finetune.stages.0.{layers}"])
        )
    own = "{losses: {label: {}, cosine: {layers: [[5, 0]]}}, epochs: 1}"
    with pytest.raises(
        ValueError,
        match=r"^finetune.by_task.rte.stages.0.losses.cosine.layers: The tea",
    ):
        preflight.open_inputs(
            config.load_recipe(
                recipe_path, [f"finetune.by_task={{rte: {{stages: [{own}]}}}}"]
            )
        )
