"""The process that runs updates, and how it ends."""

import pytest

from keras_distil.config import load_recipe
from keras_distil.planning.measured import process, worker
from keras_distil.planning.measured.process import MeasuredRecipe


@pytest.mark.slow
def test_updates_until_their_process_is_gone(toy_recipe):
    with MeasuredRecipe(load_recipe(toy_recipe)) as running:
        loaded = running.peak_gb
        assert 0 < running.base_gb <= loaded
        update = running.update()
        assert update.seconds > 0
        assert 0 <= update.others <= 1
        assert running.peak_gb >= loaded
        peak = running.peak_gb
        rates = running.rates()
        assert set(rates) == {"float32", "mixed_bfloat16", "bandwidth"}
        assert min(rates.values()) > 0
        assert running.peak_gb == peak
        running._process.kill()
        running._process.wait()
        with pytest.raises(RuntimeError, match=r"were free\): SIGKILL. Free"):
            running.update()


@pytest.mark.slow
def test_models_that_can_not_be_made(toy_recipe):
    recipe = load_recipe(toy_recipe, ["student.num_layers=5"])
    with pytest.raises(ValueError, match="from 1 to the teacher's 2"):
        MeasuredRecipe(recipe)


@pytest.mark.slow
def test_want_of_memory(toy_recipe, monkeypatch):
    monkeypatch.setattr(process, "available_memory", lambda: 0.6e9)
    with pytest.raises(RuntimeError, match=r"for lack of memory \(0.1 GB were"):
        MeasuredRecipe(load_recipe(toy_recipe))


def test_memory_of_the_machine(monkeypatch, tmp_path):
    assert 0 < process.available_memory() <= process.machine_memory()
    monkeypatch.setattr(process, "_MEMORY_FILE", tmp_path / "meminfo")
    process._MEMORY_FILE.write_text("MemTotal:  1000 kB\n")
    assert process.machine_memory() == 1024_000
    with pytest.raises(OSError, match="has no line `MemAvailable`"):
        process.available_memory()
    assert process.processors() >= 1


def test_batches_are_masked_at_their_rate():
    inputs, targets, masked = worker.random_batches(
        batch_size=3, length=20, vocabulary_size=50, rate=0.15
    )
    assert targets.shape == masked.shape == (4, 3, 20)
    assert (masked.sum(-1) == 3).all()
    assert inputs["padding_mask"].all()
    assert targets.max() < 50
    _, _, few = worker.random_batches(
        batch_size=1, length=8, vocabulary_size=50, rate=0.01
    )
    assert (few.sum(-1) == 1).all()


def test_time_of_the_processors():
    machine, own = worker.cpu_seconds()
    assert machine > own > 0
    assert worker.memory_gb("VmHWM") >= worker.memory_gb("VmRSS") > 0
    assert worker.memory_gb("VmNone") == 0


def test_a_gpu_is_refused(toy_recipe, monkeypatch):
    monkeypatch.setattr(
        "tensorflow.config.list_physical_devices", lambda kind: ["GPU:0"]
    )
    with pytest.raises(ValueError, match="of processors only, and this machi"):
        next(worker.updates(load_recipe(toy_recipe)))
