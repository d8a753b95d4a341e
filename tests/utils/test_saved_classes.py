"""`import keras_distil` is enough to load what was saved."""

import importlib
import json
import pkgutil
import subprocess
import sys

import keras
import pytest
import toy

import keras_distil
from keras_distil.utils.saved_classes import CLASSES

REGISTERED = "keras_distil>"


def registered_classes():
    """By name, the module of each class that the package registers."""
    for module in pkgutil.walk_packages(keras_distil.__path__, "keras_distil."):
        if not module.name.endswith(("__main__", "beam")):
            importlib.import_module(module.name)
    registry = keras.src.saving.object_registration.GLOBAL_CUSTOM_OBJECTS
    return {
        name.removeprefix(REGISTERED): found.__module__
        for name, found in registry.items()
        if name.startswith(REGISTERED) and isinstance(found, type)
    }


def test_every_registered_class_has_a_stand_in():
    listed = {
        name: f"keras_distil.{home}"
        for home, names in CLASSES.items()
        for name in names
    }
    assert registered_classes() == listed


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A Distiller with a schedule, and its student."""
    folder = tmp_path_factory.mktemp("saved")
    teacher = toy.make_teacher()
    student = toy.make_student(teacher)
    distiller = keras_distil.Distiller(
        teacher, student, keras_distil.losses.triple_loss()
    )
    rate = keras_distil.schedules.Linear(1e-3, 0.0, steps=9)
    distiller.compile(keras.optimizers.AdamW(rate))
    distiller.save(folder / "distiller.keras")
    distiller.student.save(folder / "student.keras")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import keras, keras_distil",
        "import keras_distil; import keras",
        "from keras_distil import edge; import keras",
        "import keras_distil.losses",
        "import tensorflow, keras_distil",
    ],
)
def test_a_new_process_loads_it(imports, saved):
    code = (
        f"{imports}\nimport json, keras, sys\n"
        "load = keras.saving.load_model\n"
        "found = load('student.keras'), load('distiller.keras')\n"
        "rate = found[1].optimizer._learning_rate\n"
        "print(json.dumps([type(x).__name__ for x in (*found, rate)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=saved,
        capture_output=True,
        text=True,
        check=True,
    )
    student = type(toy.make_student(toy.make_teacher())).__name__
    assert json.loads(done.stdout) == [student, "Distiller", "Linear"]
