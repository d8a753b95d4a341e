"""What XLA compiles where `jit_compile` is "auto"."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, callbacks, losses
from keras_distil.training import compilation
from keras_distil.training.compilation import VocabularyTimes


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vocabulary_products.json"


@pytest.fixture
def measured(cache, monkeypatch):
    """Times of this machine, which a test may change, and how often asked."""
    found = {"times": VocabularyTimes(between=0.2, products=0.1), "asked": []}

    def measure(*what):
        found["asked"].append(what)
        return found["times"]

    monkeypatch.setattr(compilation, "_measure", measure)
    monkeypatch.setattr(compilation, "_FEWEST_WEIGHTS", 1)
    return found


def compiled(task="masked_lm", **options):
    if task == "masked_lm":
        student = toy.make_student(toy.make_teacher())
        distiller = Distiller(None, student, [losses.MaskedLMCrossentropy()])
    else:
        student = toy.task_model(toy.make_teacher(), task, 3)
        distiller = Distiller(None, student, [losses.LabelCrossentropy()])
    distiller.compile(keras.optimizers.AdamW(0.01), **options)
    return distiller


@pytest.mark.parametrize(
    ("between", "products", "chosen"),
    [(0.2, 0.1, "products"), (0.1, 0.2, True), (0.102, 0.1, True)],
)
def test_the_faster_products_are_taken(measured, between, products, chosen):
    measured["times"] = VocabularyTimes(between, products)
    assert compiled().jit_compiled == chosen
    assert measured["asked"] == [(toy.VOCABULARY, 16, "float32")]


def test_it_is_measured_once(measured, cache, monkeypatch):
    assert compiled().jit_compiled == "products"
    measured["times"] = VocabularyTimes(0.1, 0.2)
    assert compiled().jit_compiled == "products"
    assert len(measured["asked"]) == 1
    # Another set of instructions is another processor.
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert compiled().jit_compiled is True
    assert len(json.loads(cache.read_text())) == 2


@pytest.mark.parametrize(
    "content", ["", "[", "[]", '{"a": 1}', '{"a": ["x", 2]}', "\x00"]
)
def test_a_damaged_file_is_measured_again(measured, cache, content):
    cache.parent.mkdir()
    cache.write_text(content)
    assert compiled().jit_compiled == "products"
    (times,) = json.loads(cache.read_text()).values()
    assert times == [0.2, 0.1]


def test_a_folder_that_cannot_be_written_is_no_error(measured, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert compiled().jit_compiled == "products"
    assert compiled().jit_compiled == "products"
    assert len(measured["asked"]) == 2


def test_other_steps_are_not_measured(measured):
    assert compiled("classification").jit_compiled is True
    assert compiled(run_eagerly=True).jit_compiled is False
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    any_model = Distiller(None, model, [losses.LabelCrossentropy()])
    any_model.compile("sgd")
    assert any_model.jit_compiled is False
    assert measured["asked"] == []


def test_a_small_student_is_not_compiled(cache):
    assert compiled().jit_compiled is False
    assert compiled("classification").jit_compiled is False
    assert not cache.exists()


def test_chunks_are_of_256_tokens(cache):
    for distiller in (compiled(), compiled(chunk_size="auto")):
        assert distiller.get_compile_config()["chunk_size"] == 256


def test_without_xla_nothing_is_compiled(measured, monkeypatch):
    monkeypatch.setattr(compilation, "_xla_works", lambda: False)
    assert compiled().jit_compiled is False
    assert compiled("classification").jit_compiled is False


def test_both_ways_are_timed(cache):
    student = toy.make_student(toy.make_teacher())
    times = compilation.vocabulary_times(student)
    assert 0.0 < times.between < 60.0
    assert 0.0 < times.products < 60.0
    assert compilation.vocabulary_times(student) == times


REPLICAS = """
import keras
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)

import toy
from keras_distil import Distiller, losses
from keras_distil.training import compilation

compilation._FEWEST_WEIGHTS = 1
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    student = toy.make_student(toy.make_teacher())
    distiller = Distiller(None, student, [losses.MaskedLMCrossentropy()])
    distiller.compile(keras.optimizers.AdamW(0.01))
assert distiller.jit_compiled in (True, "products")
distiller.fit(toy.dataset(toy.make_batch()), verbose=0)
assert int(distiller.optimizer.iterations.numpy()) == 1
"""


@pytest.mark.slow
def test_replicas_measure_too(cache):
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert cache.exists()


def test_what_is_said():
    times = VocabularyTimes(between=0.0214, products=0.0101)
    assert str(times) == (
        "products with the vocabulary by XLA (ms: XLA 10, TensorFlow 21)"
    )


@pytest.mark.slow
def test_a_training_that_is_continued_keeps_it(measured, tmp_path):
    """Not what the machine is found to do best by then."""
    batches = tf.data.Dataset.from_tensors(toy.make_batch()).repeat(4)

    def train(folder, epochs, **options):
        keras.utils.set_random_seed(5)
        distiller = compiled(**options)
        distiller.fit(
            batches,
            epochs=epochs,
            verbose=0,
            callbacks=[callbacks.TrainingState(folder)],
        )
        return distiller

    whole = train(tmp_path / "whole", 2)
    assert train(tmp_path / "parts", 1).jit_compiled == "products"
    (tmp_path / "cache" / "vocabulary_products.json").unlink()
    measured["times"] = VocabularyTimes(0.1, 0.2)
    distiller = train(tmp_path / "parts", 2)
    assert distiller.jit_compiled == "products"
    for path, value in toy.weights_of(whole.student).items():
        found = toy.weights_of(distiller.student)[path]
        np.testing.assert_array_equal(found, value, err_msg=path)
    # What `compile` is told goes before.
    told = train(tmp_path / "parts", 3, jit_compile=False)
    assert told.jit_compiled is False
